"""train, resume, evaluate, plot and enjoy on a tiny dataset, through the command line."""

import csv
import json
import shlex
import shutil
import signal
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from worlds import FITTING, make_agent, make_dataset, small_settings

from sb3_genoffline import ALGOS, load_dataset
from sb3_genoffline.common.fitting import Fit
from sb3_genoffline.registry import load_agent
from zoo.__main__ import main
from zoo.plot.curves import baseline_of, make_curve
from zoo.runs.callbacks import StopWhenAsked
from zoo.runs.envs import env_factory, env_for_pictures
from zoo.runs.film import RenderingError, film
from zoo.runs.folders import Run, find_run
from zoo.runs.scoring import bootstrap_ci, evaluate

pytestmark = [  # what QDQ rightly says after a handful of steps on random actions
    pytest.mark.filterwarnings("ignore:The uncertainty H is no larger"),
    pytest.mark.filterwarnings("ignore:penalty='paper' raises"),
]
EXAMPLES = ("dac", *FITTING)
"""An algorithm that fits no model before its policy, and all that do."""
LATER = {"cped": ["q_start:4"], "qdq": ["penalty:paper"]}
STEPS = 20


def zoo_train(dataset: str, folder: Path, *extra: str, algo: str = "dac", params: Sequence[str] = ()) -> None:
    flags = ["--dataset", dataset, "-f", str(folder), "-n", str(STEPS), "--seed", "3", "--no-progress", "--verbose", "0"]
    given = ["gamma:0.99", *longer_fits(algo), *LATER.get(algo, []), *params]
    main(["train", "--algo", algo, *flags, "--profile", "tiny", "-params", *given, *extra])


def longer_fits(algo: str) -> list[str]:
    """Steps of all fits, more than in the profile `tiny`: so many that one can be interrupted in its midst."""
    fitted = make_agent(algo).fit_arguments()
    return [f"{name}:6" for name in small_settings(algo) if name in fitted and name.endswith("_steps")]


def members(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def command_of(run: Run) -> str:
    """How a run goes on."""
    return f"python -m zoo train -i {run.model_path}"


EACH = pytest.mark.parametrize("algo", sorted(EXAMPLES), indirect=True)


@pytest.fixture
def algo(request: pytest.FixtureRequest) -> str:
    """Name of an algorithm."""
    return getattr(request, "param", "dac")


@pytest.fixture(scope="module")
def made() -> dict[str, Path]:
    """The log folders of the algorithms, each made when it is first asked for."""
    return {}


@pytest.fixture
def logs(algo: str, made: dict[str, Path], dataset_id: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log folder with a run (1) and one with the algorithm's idea switched off (2)."""
    if algo not in made:
        folder = made[algo] = tmp_path_factory.mktemp("logs")
        flags = ["--eval-freq", "10", "--eval-episodes", "2"]
        more = ["--save-freq", "10", "--log-interval", "5", "--save-replay-buffer", "-tb", str(folder / "tb")]
        zoo_train(dataset_id, folder, *flags, *more, algo=algo)
        if algo == "dac":
            zoo_train(dataset_id, folder, *flags, algo=algo, params=["guidance:none"])
    return made[algo]


@pytest.fixture
def run(logs: Path, algo: str, dataset_id: str) -> Run:
    return find_run(logs, algo, dataset_id, exp_id=1)


def test_a_run_leaves_rl_zoos_files(run: Run, dataset_id: str) -> None:
    name = "tiny-hopper-random-v0"
    files = {str(file.relative_to(run.folder)) for file in run.folder.rglob("*") if file.is_file()}
    expected = {f"{name}.zip", "best_model.zip", "rl_model_10_steps.zip", "rl_model_20_steps.zip", "evaluations.npz"}
    expected |= {"progress.csv", "replay_buffer.zip"}
    expected |= {f"{name}/{file}" for file in ("config.yml", "args.yml", "command.txt", "summary.json")}
    assert expected <= files
    with np.load(run.evaluations_path) as evaluations:
        assert evaluations["timesteps"].tolist() == [10, 20]
        assert evaluations["results"].shape == evaluations["ep_lengths"].shape == (2, 2)
    with (run.folder / "progress.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {"train/critic_loss", "eval/mean_reward", "eval/normalized_score", "time/fps"} <= set(rows[0])
    assert {row["time/total_timesteps"] for row in rows} - {""} == {"5", "10", "15", "20"}


@EACH
def test_fits_have_rows_of_their_own_before_those_of_the_updates(run: Run, algo: str) -> None:
    with (run.folder / "progress.csv").open() as file:
        rows = list(csv.DictReader(file))
    fitted = [row for row in rows if not row["time/total_timesteps"]]
    metrics = make_agent(algo).learn_offline(make_dataset(), 3).last_metrics
    fits = [key.removesuffix("/loss") for key in metrics if key.endswith("/loss")]
    assert bool(fits) == (algo in FITTING)
    steps = [(name, row[f"{name}/n_steps"]) for row in fitted for name in fits if row[f"{name}/n_steps"]]
    assert steps == [(name, step) for name in fits for step in ("5", "6")]
    losses = [row[f"{name}/loss"] for row, (name, _) in zip(fitted, steps, strict=True)]
    assert all(np.isfinite(float(loss)) for loss in losses)
    assert rows[: len(fitted)] == fitted
    assert {key if "/" in key else f"train/{key}" for key in metrics} <= set(rows[-1])


def test_tensorboard_gets_a_folder_per_run(logs: Path, algo: str) -> None:
    assert list((logs / "tb" / "tiny-hopper-random-v0" / f"{algo}_1").glob("events.out.tfevents.*"))


@EACH
def test_a_runs_settings_are_plain_yaml_and_say_what_the_data_were(run: Run, algo: str, dataset_id: str) -> None:
    config = run.config()
    data = load_dataset(dataset_id)
    assert (config["algo"], config["seed"], config["environment"]) == (algo, 3, "Hopper-v5")
    assert config["dataset"]["id"] == dataset_id and config["dataset"]["fingerprint"] == data.fingerprint
    assert config["dataset"]["mean_return"] == pytest.approx(data.episode_returns().mean())
    assert config["dataset"]["normalized_score"] == pytest.approx(data.normalized_score(data.episode_returns()).mean())
    assert config["hyperparameters"]["policy_kwargs"]["net_arch"] == [8, 8]
    assert config["hyperparameters"]["n_timesteps"] == STEPS
    arguments = yaml.safe_load((run.settings / "args.yml").read_text())
    assert arguments["save_freq"] == 10 and arguments["dataset"] == dataset_id
    summary = json.loads((run.settings / "summary.json").read_text())
    assert summary["finished"] and summary["gradient_steps"] == STEPS
    assert (summary["fit_seconds"] > 0) == (algo in FITTING)
    training = summary["seconds"] - summary["evaluation_seconds"] - summary["fit_seconds"]
    assert training > 0 and summary["updates_per_second"] == pytest.approx(STEPS / training, rel=0.05)


@EACH
def test_a_run_that_branches_off_ends_as_the_one_that_never_stopped_and_leaves_it_alone(
    run: Run, algo: str, tmp_path: Path
) -> None:
    run = Run(Path(shutil.copytree(run.folder, tmp_path / algo / run.folder.name)), run.name)
    before = {path: path.read_bytes() for path in run.folder.rglob("*") if path.is_file()}
    main(["train", "-i", str(run.checkpoint(10)), "-tb", str(tmp_path / "tb")])
    assert {path: path.read_bytes() for path in run.folder.rglob("*") if path.is_file()} == before
    branch = Run(run.folder.with_name(f"{run.name}_2"), run.name)
    resumed, whole = members(branch.model_path), members(run.model_path)
    assert resumed.keys() == whole.keys()
    assert [name for name in whole if resumed[name] != whole[name]] == []
    assert branch.config() == run.config() | {"origin": str(run.checkpoint(10))}
    with np.load(run.evaluations_path) as ours, np.load(branch.evaluations_path) as theirs:  # from where it branches off
        assert ours["timesteps"].tolist() == theirs["timesteps"].tolist() == [10, 20]
        assert theirs["results"].shape == (2, 2)  # --eval-episodes was remembered, as was --save-freq:
    assert branch.checkpoint(20).is_file() and (branch.folder / "progress_from_10.csv").exists()


@pytest.mark.parametrize(
    ("algo", "how", "name", "step", "saved"),
    [
        ("cped", "interrupted", "flow", 5, "flow_5"),  # after two looks at the held-out rows
        ("qdq", "interrupted", "teacher", 4, "teacher_4"),
        ("qdq", "interrupted", "distillation", 3, "distillation_3"),
        ("qdq", "killed", "distillation", 3, "teacher_6"),  # saved when that fit was done
    ],
    indirect=["algo"],
)
def test_a_run_that_ended_in_a_fit_goes_on_there_and_ends_as_the_one_that_never_stopped(
    algo: str,
    how: str,
    name: str,
    step: int,
    saved: str,
    run: Run,
    dataset_id: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Any,
) -> None:
    goes_on = StopWhenAsked.on_fit_step

    def stop(self: StopWhenAsked, fit: Fit, metrics: dict[str, float]) -> bool:
        if (fit.name, fit.step) == (name, step):
            if how == "killed":
                raise ConnectionResetError
            signal.raise_signal(signal.SIGINT)
        return goes_on(self, fit, metrics)

    flags = ["--eval-freq", "10", "--eval-episodes", "2", "--log-interval", "2"]
    with monkeypatch.context() as patch, pytest.raises(SystemExit) as ended:
        patch.setattr(StopWhenAsked, "on_fit_step", stop)
        zoo_train(dataset_id, tmp_path, *flags, algo=algo)
    stopped = find_run(tmp_path, algo, dataset_id)
    if how == "interrupted":
        assert ended.value.code == 130
        assert f"after {name} {step}; to resume from the last checkpoint: {command_of(stopped)}\n" in capsys.readouterr().err
        summary = json.loads((stopped.settings / "summary.json").read_text())
        assert (summary["finished"], summary["gradient_steps"], summary["updates_per_second"]) == (False, 0, 0.0)
        assert 0 < summary["fit_seconds"] <= summary["seconds"]
    before = (stopped.folder / "progress.csv").read_text()
    main(shlex.split(command_of(stopped))[3:])  # its options are remembered
    resumed, whole = members(stopped.model_path), members(run.model_path)
    assert [member for member in whole if resumed[member] != whole[member]] == []
    assert (stopped.folder / "progress.csv").read_text() == before
    assert (stopped.folder / f"progress_from_{saved}.csv").is_file()


def test_a_resumed_run_that_has_done_its_updates_is_an_error(run: Run) -> None:
    with pytest.raises(SystemExit, match="has done 20 updates already"):
        main(["train", "-i", str(run.model_path), "-n", "20"])
    with pytest.raises(SystemExit, match="leave out --profile"):
        main(["train", "-i", str(run.model_path), "-n", "30", "--profile", "cpu"])


def test_an_evaluation_says_how_it_was_made_and_repeats(run: Run, logs: Path, algo: str, dataset_id: str, capsys: Any) -> None:
    results = []
    for _ in range(2):
        main(
            ["evaluate", "--algo", algo, "--dataset", dataset_id, "-f", str(logs), "--exp-id", "1", "-n", "3", "--n-envs", "2"]
        )
        results.append(json.loads((run.folder / "results.json").read_text()))
    assert results[0]["returns"] == results[1]["returns"]
    found = results[0]
    rl_zoo = {"mean_reward", "std_reward", "is_deterministic", "n_eval_episodes", "eval_datetime"}
    assert rl_zoo | {"algo", "dataset", "dataset_fingerprint", "env_id", "seed", "eval_seed", "versions"} <= set(found)
    assert (found["algo"], found["dataset"], found["env_id"]) == (algo, dataset_id, "Hopper-v5")
    assert (found["checkpoint"], found["gradient_steps"], found["seed"]) == ("last", STEPS, 3)
    assert found["n_eval_episodes"] == 3
    assert algo != "dac" or (found["n_action_samples"], found["sampler"], found["guidance"]) == (3, "ddpm", "soft")
    assert len(found["returns"]) == len(found["lengths"]) == 3
    assert found["mean_reward"] == pytest.approx(np.mean(found["returns"]))
    assert found["normalized_score"] == pytest.approx(100 * (found["mean_reward"] + 20) / 3254)
    low, high = found["normalized_score_ci95"]
    assert low <= found["normalized_score"] <= high
    assert found["behavior_normalized_score"] == pytest.approx(run.config()["dataset"]["normalized_score"])
    assert {"python", "torch", "stable_baselines3", "gymnasium", "mujoco", "sb3_genoffline"} <= set(found["versions"])
    assert "normalised" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "checkpoint", "file"),
    [
        (["--load-best"], "best", "results_best.json"),
        (["--load-checkpoint", "10"], "10", "results_10.json"),
    ],
)
def test_another_checkpoint_has_results_of_its_own(
    flags: list[str], checkpoint: str, file: str, run: Run, logs: Path, algo: str, dataset_id: str
) -> None:
    main(["evaluate", "--algo", algo, "--dataset", dataset_id, "-f", str(logs), "--exp-id", "1", "-n", "1", *flags])
    assert json.loads((run.folder / file).read_text())["checkpoint"] == checkpoint


def test_an_agent_is_evaluated_from_its_file_without_its_dataset(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "empty"))
    output = tmp_path / "out" / "results.json"
    main(["evaluate", "--model", str(run.checkpoint("best")), "-n", "1", "--stochastic", "-o", str(output)])
    found = json.loads(output.read_text())
    assert found["checkpoint"] == "best" and found["is_deterministic"] is False and found["env_id"] == "Hopper-v5"
    assert found["behavior_normalized_score"] is not None


def test_a_wrong_environment_is_an_error(run: Run) -> None:
    with pytest.raises(SystemExit, match=r"shape \(11,\).*\(3,\)"):
        main(["evaluate", "--model", str(run.model_path), "--env", "Pendulum-v1", "-n", "1"])
    with pytest.raises(SystemExit, match="NoSuchEnv"):
        main(["evaluate", "--model", str(run.model_path), "--env", "NoSuchEnv-v0", "-n", "1"])
    model = load_agent(run.model_path)
    with pytest.raises(ValueError, match="at least one episode"):
        evaluate(model, lambda: None, 0)  # type: ignore[arg-type, return-value]


def test_curves_show_the_agent_its_baseline_and_the_data(logs: Path, algo: str, dataset_id: str, tmp_path: Path) -> None:
    main(["plot", "curves", "--algo", algo, "--dataset", dataset_id, "-f", str(logs), "-o", str(tmp_path / "curve.png")])
    assert (tmp_path / "curve.png").is_file()
    picture = (tmp_path / "curve.svg").read_text()
    for label in (
        f"{algo.upper()} (1 seed",
        "DAC, imitation only (1 seed",
        "mean of the data",
        "normalised score",
        dataset_id,
    ):
        assert label in picture
    with pytest.raises(SystemExit, match=f"no run 9 of {algo}"):
        main(["plot", "curves", "--algo", algo, "--dataset", dataset_id, "-f", str(logs), "--exp-id", "1", "9"])


def test_runs_with_an_algorithms_idea_switched_off_have_a_name() -> None:
    for algo, cls in ALGOS.items():
        defaults = {name: argument.default for name, argument in cls.argument_table().arguments.items()}
        assert baseline_of(algo, {}) == baseline_of(algo, defaults) == "", algo
        for label, values in cls.baselines.items():
            assert baseline_of(algo, defaults | values) == label and values.keys() <= defaults.keys()
            assert cls("MlpPolicy", None, **values)
    assert baseline_of("cped", {"alpha_mode": "fixed", "alpha": 1}) == baseline_of("dac", {"penalty": "none"}) == ""
    assert baseline_of("dac", {"guidance": "none"}) == "imitation only" and baseline_of("nobodys", {}) == ""


def test_a_curve_averages_seeds_where_all_were_evaluated() -> None:
    first = np.array([10, 20, 30]), np.array([[1.0, 3.0], [4.0, 4.0], [9.0, 9.0]])
    second = np.array([20, 30, 40]), np.array([[8.0, 8.0], [5.0, 7.0], [0.0, 0.0]])
    curve = make_curve("DAC", [first, second])
    assert curve.label == "DAC (2 seeds, ± std)" and curve.steps.tolist() == [20, 30]
    assert curve.mean.tolist() == [6.0, 7.5] and curve.band.tolist() == [2.0, 1.5]
    alone = make_curve("DAC", [first])
    assert alone.mean.tolist() == [2.0, 4.0, 9.0] and alone.band == pytest.approx([1 / np.sqrt(2), 0.0, 0.0])
    with pytest.raises(ValueError, match="never evaluated at the same update"):
        make_curve("DAC", [first, (np.array([5]), np.array([[1.0]]))])


def test_enjoy_prints_episodes_and_films(run: Run, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    main(["enjoy", "--model", str(run.model_path), "--no-render", "-n", "60"])
    assert "mean return" in capsys.readouterr().out
    video = tmp_path / "films" / "film.mp4"
    main(["enjoy", "--model", str(run.model_path), "--video", str(video), "-n", "10", "--fps", "25"])
    assert video.read_bytes()[4:8] == b"ftyp" and list(video.parent.iterdir()) == [video]
    assert "2 pictures" in capsys.readouterr().out
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with pytest.raises(SystemExit, match=r"no display.*--video"):
        main(["enjoy", "--model", str(run.model_path), "-n", "1"])


def test_a_film_that_cannot_be_made_says_why_and_keeps_the_old_one(run: Run, tmp_path: Path) -> None:
    video = tmp_path / "film.mp4"
    video.write_bytes(b"old")

    def broken(**kwargs: Any) -> Any:
        env = load_dataset(run.config()["dataset"]["id"]).make_env()
        env.render = lambda: (_ for _ in ()).throw(RuntimeError("no EGL"))  # type: ignore[method-assign]
        return env

    with pytest.raises(RenderingError, match=r"RuntimeError: no EGL.*MUJOCO_GL"):
        film(load_agent(run.model_path), broken, video, 4)
    assert video.read_bytes() == b"old"


def test_data_without_a_simulator_train_without_evaluation(tmp_path: Path, capsys: Any) -> None:
    generator = np.random.default_rng(0)
    arrays = {
        name: generator.uniform(-1, 1, (40, 2)).astype(np.float32) for name in ("observations", "actions", "next_observations")
    }
    np.savez(tmp_path / "mine.npz", rewards=np.arange(40.0), terminations=np.arange(40) % 10 == 9, **arrays)
    zoo_train(str(tmp_path / "mine.npz"), tmp_path / "logs")
    assert "Nothing is evaluated during training" in capsys.readouterr().out
    run = find_run(tmp_path / "logs", "dac", tmp_path / "mine.npz")
    assert run.folder.name == "mine_1" and run.model_path.is_file() and not run.evaluations_path.exists()
    assert run.config()["environment"] is None
    with pytest.raises(SystemExit, match="no evaluated run"):
        main(["plot", "curves", "--dataset", str(tmp_path / "mine.npz"), "-f", str(tmp_path / "logs")])
    with pytest.raises(SystemExit, match="--env"):
        main(["evaluate", "--dataset", str(tmp_path / "mine.npz"), "-f", str(tmp_path / "logs"), "-n", "1"])


def test_an_agent_of_plain_arrays_is_evaluated_in_the_environment_of_its_run(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    arrays = {name: generator.uniform(-1, 1, (40, 2)).astype(np.float32) for name in ("observations", "next_observations")}
    actions, ends = generator.uniform(-1, 1, (40, 1)), np.arange(40) % 10 == 9
    file = tmp_path / "mine.npz"
    np.savez(file, actions=actions, rewards=np.arange(40.0), terminations=ends, **arrays)
    flags = ["--env", "MountainCarContinuous-v0", "--env-kwargs", "max_episode_steps:5"]
    zoo_train(str(file), tmp_path, *flags, "--eval-freq", "20", "--eval-episodes", "1")
    run = find_run(tmp_path, "dac", file)
    for which in (["--model", str(run.model_path)], ["--dataset", str(file), "-f", str(tmp_path)]):
        main(["evaluate", *which, "-n", "1", "--env-kwargs", "max_episode_steps:5"])
        assert json.loads((run.folder / "results.json").read_text())["env_id"] == "MountainCarContinuous-v0"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "--dataset is missing"),
        (["--dataset", "tiny/hopper/randm-v0"], r"not on this machine.*tiny/hopper/random-v0"),
        (["--dataset", "genoffline/hopper/expert-v1"], r"zoo collect genoffline/hopper/expert-v1.*--collect"),
        (["--dataset", "tiny/hopper/random-v0", "-params", "rhoo:1"], "did you mean 'rho'"),
        (["--dataset", "tiny/hopper/random-v0", "--env", "NoSuchEnv-v0"], "NoSuchEnv"),
        (["-i", "absent.zip", "--dataset", "tiny/hopper/random-v0"], "absent.zip"),
    ],
)
def test_wrong_training_flags_are_errors_without_a_traceback(
    flags: list[str], message: str, dataset_id: str, tmp_path: Path
) -> None:
    with pytest.raises(SystemExit, match=f"(?s)zoo train: .*{message}"):
        main(["train", "-f", str(tmp_path), *flags])
    assert not any(file.is_file() for file in tmp_path.rglob("*"))


def test_a_bootstrap_interval_covers_the_mean_and_shrinks_with_more_episodes() -> None:
    values = np.random.default_rng(0).normal(10.0, 2.0, 400)
    low, high = bootstrap_ci(values)
    assert low < values.mean() < high
    assert high - low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.1)
    assert bootstrap_ci(np.array([3.0])) == [3.0, 3.0]


def test_the_camera_of_films_follows_the_body() -> None:
    env = env_for_pictures(env_factory(None, "Hopper-v5"), "rgb_array", 64, 48)
    assert env.unwrapped.mujoco_renderer.camera_id >= 0  # −1 is the free camera, which stays where the hopper starts
    env.close()
    plain = env_for_pictures(env_factory(None, "Pendulum-v1"), "rgb_array", 64, 48)  # takes neither size nor camera
    assert plain.render_mode == "rgb_array"
