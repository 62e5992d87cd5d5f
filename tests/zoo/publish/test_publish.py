"""`python -m zoo publish`: from runs to folders."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from sb3_genoffline import load_from_hub
from sb3_genoffline.hub.naming import repo_name
from sb3_genoffline.registry import load_agent
from zoo.__main__ import main
from zoo.publish import command, contents
from zoo.publish.choice import choose
from zoo.runs.film import RenderingError
from zoo.runs.folders import find_run
from zoo.runs.hyperparameters import load_hyperparameters, parse_pairs

NAME = "dac-hopper-random-v0"
ONE_EPISODE = ["-n", "1", "--no-film"]


@pytest.fixture(scope="module")
def logs(dataset_id: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of two seeds, the higher one first."""
    folder = tmp_path_factory.mktemp("logs")
    for seed in ("4", "3"):
        flags = ["--seed", seed, "-n", "4", "--eval-freq", "2", "--eval-episodes", "1", "--no-progress", "--verbose", "0"]
        main(["train", "--dataset", dataset_id, "-f", str(folder), *flags, "--profile", "tiny"])
    return folder


@pytest.fixture(scope="module")
def made(logs: Path, dataset_id: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the agent with everything."""
    output = tmp_path_factory.mktemp("models")
    main(["publish", "--all", "-f", str(logs), "-o", str(output), "-n", "2", "--video-length", "2"])
    return output / NAME


def publish(logs: Path, output: Path, dataset: str, *flags: str) -> Path:
    main(["publish", "--dataset", dataset, "-f", str(logs), "-o", str(output), *flags])
    return output / NAME


def results_in(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "results.json").read_text())


def test_the_folder_has_everything_and_acts_as_the_run(made: Path, logs: Path, dataset_id: str) -> None:
    files = {str(file.relative_to(made)) for file in made.rglob("*") if file.is_file()}
    assert files >= {"config.json", "model.safetensors", "manifest.json", f"{NAME}.zip", "results.json", "README.md"}
    assert files >= {"fingerprint.json", "hyperparameters.yml", "training_curve.png", "replay.mp4"}
    assert (made / "training_curve.png").read_bytes()[1:4] == b"PNG" and (made / "replay.mp4").read_bytes()[4:8] == b"ftyp"
    assert [path.name for path in made.parent.iterdir()] == [NAME]
    observations = np.random.default_rng(0).normal(size=(5, 11)).astype(np.float32)
    acted = []
    for model in (load_from_hub(str(made)), load_agent(find_run(logs, "dac", dataset_id, 2).model_path)):
        model.policy.seed_acting(7)
        acted.append(model.predict(observations, deterministic=True)[0])
    assert np.array_equal(*acted)


def test_results_label_the_best_checkpoint_and_average_the_seeds(made: Path) -> None:
    results = results_in(made)
    assert (results["seed"], results["checkpoint"], results["n_eval_episodes"]) == (3, "last", 2)
    assert results["best"]["checkpoint"] == "best" and results["best"]["gradient_steps"] in (2, 4)
    seeds = results["seeds"]
    scores = [run["normalized_score"] for run in seeds["runs"]]
    assert [run["seed"] for run in seeds["runs"]] == [3, 4] and {run["checkpoint"] for run in seeds["runs"]} == {"last"}
    assert (seeds["n"], seeds["mean"]) == (2, pytest.approx(np.mean(scores)))
    assert seeds["std"] == pytest.approx(np.std(scores, ddof=1)) and scores[0] == results["normalized_score"] != scores[1]


def test_what_is_published_trains_the_agent_again(made: Path, logs: Path, dataset_id: str) -> None:
    trained = choose(logs, "dac", dataset_id, 2).chosen
    again = load_hyperparameters("dac", dataset_id, conf_file=made / "hyperparameters.yml")
    assert again.plain == trained.config["hyperparameters"]
    words = contents.training_command(trained)
    assert words == results_in(made)["command"] and str(logs) not in words
    pairs = [f"{name}:{value}" for name, value in again.plain.items()]
    assert load_hyperparameters("dac", dataset_id, overrides=parse_pairs(pairs)).plain == again.plain


def test_an_unchanged_agent_is_recognised_before_anything_is_evaluated(
    made: Path, logs: Path, dataset_id: str, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(command, "open_agent", None)
    before = {file: file.stat().st_mtime_ns for file in made.rglob("*")}
    flags = ["-n", "2", "--video-length", "2"]
    main(["publish", "--all", "-f", str(logs), "-o", str(made.parent), *flags])
    assert f"unchanged: {made} was made from the same" in capsys.readouterr().out
    publish(logs, made.parent, dataset_id, "--exp-id", "2", *flags)
    assert "unchanged" in capsys.readouterr().out
    assert before == {file: file.stat().st_mtime_ns for file in made.rglob("*")}
    with pytest.raises(SystemExit, match=r"other weights.*--overwrite"):
        publish(logs, made.parent, dataset_id, "--exp-id", "1", *flags)
    with pytest.raises(SystemExit, match="other n_eval_episodes"):
        publish(logs, made.parent, dataset_id, "--exp-id", "2", "-n", "3", "--video-length", "2")


def test_a_changed_agent_is_made_anew_only_when_that_is_asked_for(
    made: Path, logs: Path, dataset_id: str, tmp_path: Path
) -> None:
    folder, old = Path(shutil.copytree(made, tmp_path / NAME)), results_in(made)
    with pytest.raises(SystemExit, match="is there already"):
        publish(logs, tmp_path, dataset_id, *ONE_EPISODE)
    assert results_in(folder) == old
    publish(logs, tmp_path, dataset_id, *ONE_EPISODE, "--exp-id", "1", "--checkpoint", "best", "--act-only", "--overwrite")
    new = results_in(folder)
    assert (new["checkpoint"], new["seed"], new["best"]) == ("best", 4, None)
    assert [run["checkpoint"] for run in new["seeds"]["runs"]] == ["last", "last"]
    assert (
        not (folder / "replay.mp4").exists()
        and (folder / f"{NAME}.zip").stat().st_size < (made / f"{NAME}.zip").stat().st_size
    )
    (folder / "results.json").write_text("{}")
    with pytest.raises(SystemExit, match="was not made by this command"):
        publish(logs, tmp_path, dataset_id, *ONE_EPISODE)


def test_neither_a_film_nor_a_curve_that_cannot_be_made_stops_it(
    logs: Path, dataset_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    def broken(*args: Any) -> None:
        raise RenderingError("no EGL")

    monkeypatch.setattr(contents, "film", broken)
    copy = Path(shutil.copytree(logs, tmp_path / "logs"))
    for evaluations in copy.rglob("evaluations.npz"):
        evaluations.unlink()
    folder = publish(copy, tmp_path / "models", dataset_id, "-n", "1", "-name", "mine")
    said = capsys.readouterr().out
    assert "no film: no EGL" in said and "no training curve: it was trained without evaluation" in said
    assert folder.name == NAME and not folder.exists()
    files = {file.name for file in (tmp_path / "models" / "mine").iterdir()}
    assert "model.safetensors" in files and not files & {"replay.mp4", "training_curve.png"}


def test_one_agent_that_fails_does_not_stop_the_others(logs: Path, tmp_path: Path, capsys: Any) -> None:
    copy = Path(shutil.copytree(logs, tmp_path / "logs"))
    run = next((copy / "dac").iterdir())
    broken = copy / "bc" / run.name
    shutil.copytree(run, broken)
    settings = next(broken.glob("*/config.yml"))
    settings.write_text(yaml.safe_dump(yaml.safe_load(settings.read_text()) | {"algo": "bc"}))
    next(broken.glob("tiny*.zip")).write_bytes(b"no agent")
    with pytest.raises(SystemExit, match=r"1 of 2 agents were not published:\nbc-hopper-random-v0: "):
        main(["publish", "--all", "-f", str(copy), "-o", str(tmp_path / "models"), *ONE_EPISODE])
    assert [folder.name for folder in (tmp_path / "models").iterdir()] == [NAME]
    assert "nothing was sent" in capsys.readouterr().out


def test_the_list_is_made_by_the_same_command(made: Path, tmp_path: Path, capsys: Any) -> None:
    shutil.copytree(made, tmp_path / NAME)
    main(["publish", "--index", "-o", str(tmp_path), "-f", str(tmp_path)])
    text = (tmp_path / "README.md").read_text()
    assert f"[{NAME}]({NAME})" in text and "tiny/hopper/random-v0" in text and "README.md" in capsys.readouterr().out


def test_publishing_renews_a_list_that_is_there_and_no_other_page(
    made: Path, logs: Path, dataset_id: str, tmp_path: Path, capsys: Any
) -> None:
    shutil.copytree(made, tmp_path / NAME)
    (tmp_path / "README.md").write_text("# My own page\n")
    publish(logs, tmp_path, dataset_id, "-name", "other", *ONE_EPISODE)
    assert (tmp_path / "README.md").read_text() == "# My own page\n" and "renewed" not in capsys.readouterr().out
    (tmp_path / "README.md").write_text("# Trained agents\n\nNone is here yet.\n")
    publish(logs, tmp_path, dataset_id, "-name", "other", *ONE_EPISODE)  # unchanged
    assert "renewed" in capsys.readouterr().out
    assert all(f"[{name}]({name})" in (tmp_path / "README.md").read_text() for name in (NAME, "other"))


def test_agents_in_the_checkout_have_the_names_that_publish_gives() -> None:
    folders = [path for path in (Path(__file__).parents[3] / "hub_models").glob("*-v1") if path.is_dir()]
    results = {folder.name: results_in(folder) for folder in folders}
    assert all(repo_name(found["algo"], found["dataset"]) == name for name, found in results.items())
    assert len(results) >= 8


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "Which agent"),
        (["--dataset", "a/b-v0", "--no-dry-run"], "-orga"),
        (["--all", "-name", "mine"], "leave out -name"),
        (["--dataset", "tiny/hopper/random-v0", "-name", "no spaces"], "no spaces"),
        (["--dataset", "tiny/hopper/random-v0", "--algo", "qdq"], "no run of qdq"),
    ],
)
def test_wrong_flags_are_errors_and_write_nothing(flags: list[str], message: str, logs: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=f"zoo publish: .*{message}"):
        main(["publish", "-f", str(logs), "-o", str(tmp_path / "models"), *flags])
    assert not (tmp_path / "models").exists()
