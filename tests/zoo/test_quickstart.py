"""The newcomer's path with its sizes cut down."""

import builtins
import json
import os
import re
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sb3_genoffline.common.stepping import Stepper
from sb3_genoffline.registry import load_agent
from zoo import quickstart
from zoo.__main__ import main
from zoo.plot import maze
from zoo.quickstart import Sizes
from zoo.runs import film, stopping

TINY = Sizes(collect_steps=800, n_timesteps=4, episodes=2, walks=1, film_steps=2)
PROMISED = {
    "algo", "dataset", "behavior_normalized_score", "normalized_score", "bc_normalized_score", "n_eval_episodes", "seed",
    "gradient_steps", "updates_per_second", "seconds", "mean_length", "bc_mean_length", "behavior_mean_length",
}  # fmt: skip


@pytest.mark.usefixtures("forks")
def test_the_quickstart_leaves_results_a_picture_of_the_walks_and_a_film(tmp_path: Path, capsys: Any) -> None:
    places = ("MINARI_DATASETS_PATH", "SB3_GENOFFLINE_CACHE")
    before = [os.environ.get(name) for name in places]
    with quickstart._data_below(tmp_path):
        result = quickstart.quickstart(tmp_path, seed=5, sizes=TINY)
    assert [os.environ.get(name) for name in places] == before
    assert json.loads((tmp_path / "results.json").read_text()) == result
    assert set(result) >= PROMISED
    assert (result["algo"], result["dataset"], result["seed"]) == ("dac", quickstart.DATASET, 5)
    assert (result["gradient_steps"], result["n_eval_episodes"], result["checkpoint"]) == (4, 2, "last")
    assert set(result["seconds"]) == {"collect", "train", "evaluate", "wait", "plot", "film", "total"}
    assert (tmp_path / "walks.png").stat().st_size > 0 and (tmp_path / "replay.mp4").stat().st_size > 0
    walks = (tmp_path / "walks.svg").read_text()
    assert "9 of 9 episodes of the data" in walks and re.search("BC: [01] of 1 arrive", walks)
    assert re.search("DAC: [01] of 1 arrive", walks)
    assert result["behavior_mean_length"] == pytest.approx(800 / 9) and result["mean_length"] == np.mean(result["lengths"])
    model, bc = Path(result["files"]["model"]), Path(result["files"]["bc_model"])
    assert model.is_file() and bc.is_file() and model.parent != bc.parent
    assert json.loads((bc.parent / "results.json").read_text())["algo"] == "bc"
    assert "share that arrives (2 episodes" in capsys.readouterr().out


@pytest.mark.usefixtures("forks")
def test_a_signal_ends_both_trainings_saved_and_the_same_command_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    def no_film(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError("not here")

    monkeypatch.setattr(film, "film", no_film)
    sizes = Sizes(collect_steps=800, n_timesteps=6, episodes=1, walks=1, film_steps=2)
    monkeypatch.setattr(quickstart, "SMOKE", sizes)
    step, parent, there = Stepper.__call__, os.getpid(), tmp_path / "there"

    def signalled(stepper: Any, *args: Any) -> Any:
        if os.getpid() == parent and stepper.owner._n_updates == 2:
            while not there.exists():
                time.sleep(0.01)
            signal.raise_signal(signal.SIGTERM)
        if os.getpid() != parent and stepper.owner._n_updates == 3:
            there.touch()
            while stopping._active.number is None:
                time.sleep(0.01)  # the parent asks soon
        return step(stepper, *args)

    command = ["quickstart", "--smoke", "-f", str(tmp_path)]
    with monkeypatch.context() as patch, pytest.raises(SystemExit) as ended:
        patch.setattr(Stepper, "__call__", signalled)
        main(command)
    assert ended.value.code == 143 and "to resume, run the same command: " in capsys.readouterr().err
    steps = {load_agent(agent).name: load_agent(agent).num_timesteps for agent in tmp_path.rglob("genoffline-*.zip")}
    assert steps == {"dac": 3, "bc": 4}
    main(command)
    assert json.loads((tmp_path / "results.json").read_text())["gradient_steps"] == 6
    agents = sorted(tmp_path.rglob("genoffline-pointmaze-stitch-v0.zip"))
    assert [load_agent(agent).num_timesteps for agent in agents] == [6, 6]
    before = [agent.read_bytes() for agent in agents]

    def interrupted(*args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(SystemExit):  # both are trained anew, then it is interrupted
        patch.setattr(maze, "plot_maze", interrupted)
        main(command)
    new = sorted(set(tmp_path.rglob("genoffline-pointmaze-stitch-v0.zip")) - set(agents))
    stamps = [agent.stat().st_mtime_ns for agent in new]
    main(command)
    assert len(new) == 2 and [agent.stat().st_mtime_ns for agent in new] == stamps
    assert [agent.read_bytes() for agent in agents] == before


def test_what_resumes_is_what_was_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    command = "python -m zoo quickstart --seed 1"
    monkeypatch.delenv("MAKELEVEL", raising=False)
    assert quickstart.resuming(command) == command
    monkeypatch.setenv("MAKELEVEL", "1")
    assert quickstart.resuming(command) == f'make quickstart ARGS="--seed 1" (or, in .venv, {command})'
    assert quickstart.resuming("python -m zoo quickstart").startswith("make quickstart (or")


@pytest.mark.usefixtures("forks")
def test_a_failing_imitation_is_reported_with_its_log(tmp_path: Path) -> None:
    settings = {"log_folder": str(tmp_path)}
    with (
        quickstart._data_below(tmp_path),
        pytest.raises(RuntimeError, match=r"(?s)imitation failed.*bc\.log.*not on this machine"),
        quickstart._imitation(settings, 1, tmp_path) as wait,
    ):
        wait()


def test_the_table_needs_no_rich(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any) -> None:
    real_import = builtins.__import__

    def without_rich(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("rich"):
            raise ImportError(name)
        return real_import(name, *args, **kwargs)

    for name in [name for name in sys.modules if name.startswith("rich")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", without_rich)
    result = {
        "dataset": "a/b-v0", "n_eval_episodes": 2, "seed": 0, "behavior_normalized_score": 10.0, "bc_normalized_score": 20.0,
        "bc_normalized_score_ci95": [19.0, 21.0], "normalized_score": 30.0, "normalized_score_ci95": [29.0, 31.0],
        "behavior_mean_length": 220.4, "bc_mean_length": 250.0, "mean_length": 91.2,
        "seconds": {"train": 1.0}, "gradient_steps": 5, "updates_per_second": 5.0, "files": {"walks": "walks.png"},
    }  # fmt: skip
    quickstart.show(result, tmp_path / "results.json")
    printed = capsys.readouterr().out
    for part in ("a/b-v0", "10.0%", "20.0%", "19.0 to 21.0", "30.0%", "220", "250", "91", "5 updates at 5/s", "walks.png"):
        assert part in printed
