"""Runs and agents of others choose no code and no paths: every file here would leave a mark if it were followed."""

import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import h5py
import numpy as np
import pytest
import torch
from gymnasium.envs.registration import EnvSpec
from worlds import make_agent, make_dataset, small_settings

from sb3_genoffline.data import export_hdf5, export_minari
from zoo.__main__ import main
from zoo.publish.contents import Settings, open_agent
from zoo.runs.envs import NoEnvironment
from zoo.runs.folders import Run
from zoo.runs.writing import write_yaml

POINT = "genoffline-tests/Point-v0"


@pytest.fixture(autouse=True)
def own_datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    monkeypatch.setenv("SB3_GENOFFLINE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that appears when anything of others runs, and a module that makes it when it is imported."""
    path = tmp_path / "mark"
    source = "import os\nimport gymnasium as gym\nfrom worlds import PointEnv\n"
    source += f"os.mkdir({str(path)!r})\ngym.register('Evil-v0', PointEnv)\n"
    (tmp_path / "hostile_module.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield path
    gym.registry.pop("Evil-v0", None)
    sys.modules.pop("hostile_module", None)


def mkdir(path: Path) -> EnvSpec:
    return EnvSpec("Evil-v0", entry_point="os:mkdir", kwargs={"path": str(path)})


def hdf5_of(path: Path, data: Any, spec: EnvSpec) -> Path:
    export_hdf5(data, path)
    with h5py.File(path, "a") as file:
        file.pop("metadata/env_spec", None)
        file["metadata/env_spec"] = spec.to_json()
    return path


def make_run(
    folder: Path, config: dict[str, Any] | None = None, args: dict[str, Any] | None = None, dataset_id: str | None = None
) -> Run:
    """A run as somebody else may have written it."""
    run = Run(folder / "td3_bc" / "own_1", "own")
    agent = make_agent("td3_bc")
    agent.set_dataset(make_dataset().replace(id=dataset_id))
    agent.save(run.model_path)
    known = {"algo": "td3_bc", "seed": 0, "dataset": agent.dataset_info, "environment": POINT, "hyperparameters": {}}
    write_yaml(run.settings / "config.yml", known | (config or {}))
    write_yaml(run.settings / "args.yml", args or {})
    return run


def evaluate(run: Run, *extra: str) -> None:
    main(["evaluate", "--model", str(run.model_path), "-n", "1", *extra])


def enjoy(run: Run, *extra: str) -> None:
    main(["enjoy", "--model", str(run.model_path), "-n", "1", "--no-render", *extra])


def resume(run: Run, *extra: str) -> None:
    data = export_hdf5(make_dataset(), run.folder.parent / "mine.hdf5", overwrite=True)
    flags = ["--dataset", str(data), "-n", "1", "--eval-freq", "1", "--eval-episodes", "1", "--no-progress"]
    main(["train", "-i", str(run.model_path), *flags, *extra])


def publish(run: Run, *extra: str) -> None:
    env_id = extra[1] if extra[:1] == ("--env",) else None
    _, make = open_agent(run, "last", Settings(device="cpu", env_id=env_id, trust_env="--trust-env" in extra))
    try:
        make().close()
    except NoEnvironment as error:
        raise SystemExit(str(error)) from error


COMMANDS = pytest.mark.parametrize("command", [evaluate, enjoy, resume, publish])
MODULE = "hostile_module:Evil-v0"
HOSTILE: dict[str, dict[str, Any]] = {
    "module in config.yml": {"config": {"environment": MODULE}},
    "module in args.yml": {"args": {"env": MODULE}},
    "no text": {"config": {"environment": ["os:mkdir"]}},
    "path among the arguments": {"args": {"env_kwargs": ["limit:/etc/passwd"]}},
    "object among the hyper-parameters": {"config": {"hyperparameters": {"env_kwargs": {"goal": {"a": 1}}}}},
}


@COMMANDS
@pytest.mark.parametrize("kind", HOSTILE)
def test_a_runs_files_build_no_environment_but_a_registered_one(
    kind: str, command: Callable[..., None], tmp_path: Path, mark: Path
) -> None:
    run = make_run(tmp_path, **HOSTILE[kind])
    with pytest.raises(SystemExit) as ended:
        command(run)
    message = str(ended.value)
    assert "data must not choose what runs" in message and "--env" in message and "--trust-env" in message
    assert not mark.exists()
    if kind == next(iter(HOSTILE)):
        command(make_run(tmp_path / "again", **HOSTILE[kind]), "--env", POINT)
        assert not mark.exists()


@COMMANDS
def test_what_the_user_trusts_is_built_as_it_is_recorded(command: Callable[..., None], tmp_path: Path, mark: Path) -> None:
    command(make_run(tmp_path, {"environment": MODULE}), "--trust-env")
    assert mark.exists()


@pytest.mark.parametrize("name", ["trust_env", "eval_env", "id"])
def test_no_argument_of_an_environment_lifts_the_rule(name: str, tmp_path: Path, mark: Path) -> None:
    export_minari(make_dataset().replace(env_spec=mkdir(mark)), "evil/one-v0")
    run = make_run(tmp_path, args={"env_kwargs": [f"{name}:True"]}, dataset_id="evil/one-v0")
    with pytest.raises(SystemExit, match=f"No environment takes {name} as an argument"):
        evaluate(run)
    assert not mark.exists()


@COMMANDS
def test_the_dataset_that_an_agent_names_builds_nothing(command: Callable[..., None], tmp_path: Path, mark: Path) -> None:
    export_minari(make_dataset().replace(env_spec=mkdir(mark)), "evil/one-v0")
    run = make_run(tmp_path, dataset_id="evil/one-v0")
    if command is resume:  # the user's data have no environment, and the run's is a registered one
        resume(run)
    else:
        with pytest.raises(SystemExit, match=r"data must not choose what runs.*--env names another; --trust-env"):
            command(run)
    assert not mark.exists()


@COMMANDS
def test_an_agent_opens_no_path(
    command: Callable[..., None], tmp_path: Path, mark: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = hdf5_of(tmp_path / "theirs.hdf5", make_dataset(), mkdir(mark))
    opened: list[str] = []
    real = h5py.File
    monkeypatch.setattr(h5py, "File", lambda name, *args, **kwargs: opened.append(str(name)) or real(name, *args, **kwargs))
    command(make_run(tmp_path, dataset_id=str(path)))
    assert str(path) not in opened and not mark.exists()


@pytest.mark.parametrize("what", ["uncertainty", "density"])
def test_pictures_open_no_path_of_an_agent(what: str, tmp_path: Path, mark: Path) -> None:
    path = hdf5_of(tmp_path / "theirs.hdf5", make_dataset(), mkdir(mark))
    algo = {"uncertainty": "qdq", "density": "cped"}[what]
    agent = make_agent(algo, **small_settings(algo))
    agent.pretrain(make_dataset())
    agent.dataset_info["id"] = str(path)
    agent.save(tmp_path / "agent.zip")
    with pytest.raises(SystemExit, match=r"The agent does not name its data, or they were a file: give them with --dataset\."):
        main(["plot", what, "-i", str(tmp_path / "agent.zip"), "-o", str(tmp_path / "picture.png")])


def test_a_file_that_a_run_names_counts_only_if_it_holds_the_agents_data(tmp_path: Path, mark: Path) -> None:
    other = hdf5_of(tmp_path / "secret.hdf5", make_dataset(seed=1), mkdir(mark))
    run = make_run(tmp_path, args={"dataset": str(other)})
    with pytest.raises(SystemExit, match=r"secret\.hdf5, which the run names, holds other data than the agent was trained on"):
        main(["train", "-i", str(run.model_path), "-n", "1"])
    evaluate(run)  # in the environment of its config
    same = hdf5_of(tmp_path / "own.hdf5", make_dataset(), mkdir(mark))
    run = make_run(tmp_path, args={"dataset": str(same)})
    with pytest.raises(SystemExit, match="data must not choose what runs"):
        evaluate(run)
    main(["train", "-i", str(run.model_path), "-n", "1", "--eval-freq", "0", "--verbose", "0"])
    assert not mark.exists()
    same.unlink()
    with pytest.raises(
        SystemExit, match=r"own\.hdf5, which the run names, is not there any more: give the data with --dataset"
    ):
        main(["train", "-i", str(run.model_path), "-n", "2"])


def test_data_that_record_an_environment_are_inspected_without_it(tmp_path: Path, mark: Path, capsys: Any) -> None:
    folder = export_minari(make_dataset().replace(env_spec=mkdir(mark)), "evil/two-v0").storage.data_path
    metadata = json.loads((folder / "metadata.json").read_text())
    del metadata["observation_space"]
    (folder / "metadata.json").write_text(json.dumps(metadata))
    with pytest.raises(SystemExit):
        main(["inspect", "evil/two-v0", "--no-picture"])
    assert "data must not choose what runs" in " ".join(capsys.readouterr().out.split())
    main(["inspect", "evil/two-v0", "--no-picture", "--env", POINT])
    assert not mark.exists()


def test_a_maze_of_others_is_drawn_only_if_it_is_registered_or_trusted(tmp_path: Path, mark: Path) -> None:
    path = hdf5_of(tmp_path / "maze.hdf5", make_dataset(), mkdir(mark))
    with pytest.raises(SystemExit, match="data must not choose what runs"):
        main(["plot", "maze", "--dataset", str(path), "-o", str(tmp_path / "maze.png")])
    assert not mark.exists()
    with pytest.raises(SystemExit, match="could not be made"):  # os.mkdir made no environment
        main(["plot", "maze", "--dataset", str(path), "-o", str(tmp_path / "maze.png"), "--trust-env"])
    assert mark.exists()


def test_plain_arguments_of_a_run_are_those_of_its_environment(tmp_path: Path) -> None:
    run = make_run(tmp_path, args={"env_kwargs": ["limit:3"]})
    evaluate(run)
    assert json.loads((run.folder / "results.json").read_text())["lengths"] == [3]
    evaluate(run, "--env-kwargs", "limit:2")
    assert json.loads((run.folder / "results.json").read_text())["lengths"] == [2]
    assert np.isfinite(json.loads((run.folder / "results.json").read_text())["returns"]).all()


@pytest.mark.parametrize("name", ["progress_from_0.csv", "own/command.txt", "progress.csv"])
def test_a_run_that_goes_on_writes_through_no_link(name: str, tmp_path: Path) -> None:
    run, victim = make_run(tmp_path), tmp_path / "precious"
    victim.write_text("precious")
    (run.folder / name).symlink_to(victim)
    with pytest.raises(SystemExit, match=f"{name} is a link: a resumed run writes only into its own folder"):
        resume(run)
    assert victim.read_text() == "precious"


@pytest.mark.parametrize("change", [{"n_eval_envs": 10**9}, {"eval_episodes": 10**9}])
def test_a_runs_files_choose_no_sizes(change: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=f"has {next(iter(change))}=1000000000, which is not an option of a training"):
        resume(make_run(tmp_path, args=change))


def test_a_runs_files_choose_no_more_threads_than_there_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", chosen.append)
    resume(make_run(tmp_path, args={"num_threads": 10**9}))
    assert chosen == [os.cpu_count()]
