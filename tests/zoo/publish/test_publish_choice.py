"""Which runs are published."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from zoo.publish.choice import Trained, choose, choose_all, find_all
from zoo.publish.command import named
from zoo.publish.contents import training_command
from zoo.runs.folders import Run, new_run
from zoo.runs.writing import write_json, write_yaml

DATASET = "genoffline/hopper/medium-v1"
MORE_SEEDS = {"learning_rate": 0.1}
SWITCHED_OFF = {"guidance": "none"}
_clock = iter(range(1_000_000_000, 2_000_000_000, 60))


def make_run(
    folder: Path,
    seed: int,
    hyperparameters: dict[str, Any] | None = None,
    *,
    algo: str = "dac",
    dataset: str = DATASET,
    done: int | None = 20,
    command: str | None = None,
) -> Run:
    """A run as ``zoo train`` leaves it, without an agent that could be loaded."""
    run = new_run(folder, algo, dataset)
    config = {
        "algo": algo,
        "seed": seed,
        "dataset": {"id": dataset, "fingerprint": f"of {dataset}"},
        "environment": "Hopper-v5",
        "hyperparameters": {"n_timesteps": 20, **(hyperparameters or {})},
    }
    write_yaml(run.settings / "config.yml", config)
    if command is not None:
        (run.settings / "command.txt").write_text(command)
    if done is not None:
        write_json(run.settings / "summary.json", {"finished": True, "num_timesteps": done})
        run.model_path.write_bytes(b"agent")
        os.utime(run.model_path, (moment := next(_clock), moment))
    return run


def test_a_run_is_chosen_by_its_number_and_said_to_be_one_of_several(tmp_path: Path) -> None:
    runs = [make_run(tmp_path, 3), make_run(tmp_path, 1), make_run(tmp_path, 2, MORE_SEEDS)]
    make_run(tmp_path, 4, dataset="genoffline/hopper/medium-replay-v1")
    latest = choose(tmp_path, "dac", DATASET)
    assert latest.chosen.run == runs[2] and [trained.seed for trained in latest.seeds] == [2]
    assert "3 runs of dac on genoffline/hopper/medium-v1: the latest" in latest.notes[0]
    first = choose(tmp_path, "dac", DATASET, 1)
    assert first.chosen.run == runs[0] and [trained.run for trained in first.seeds] == [runs[1], runs[0]]
    assert first.notes == ()


def test_only_finished_runs_of_the_same_settings_and_data_are_seeds_of_an_agent(tmp_path: Path) -> None:
    make_run(tmp_path, 0)
    make_run(tmp_path, 1, done=10)
    make_run(tmp_path, 2, done=None)  # under way, before its first checkpoint
    other = make_run(tmp_path, 3)
    config = other.config()
    config["dataset"]["fingerprint"] = "of a later version of the data"
    write_yaml(other.settings / "config.yml", config)
    assert [trained.seed for trained in choose(tmp_path, "dac", DATASET, 1).seeds] == [0]
    unfinished = choose(tmp_path, "dac", DATASET, 2)
    assert [trained.seed for trained in unfinished.seeds] == [0]
    assert "did not do all its 20 updates" in unfinished.notes[0]
    with pytest.raises(FileNotFoundError, match=r"no genoffline-hopper-medium-v1\.zip"):
        choose(tmp_path, "dac", DATASET, 3)
    with pytest.raises(FileNotFoundError, match="no run 9 of dac"):
        choose(tmp_path, "dac", DATASET, 9)


def test_a_baseline_is_said_to_be_one(tmp_path: Path) -> None:
    make_run(tmp_path, 0, SWITCHED_OFF)
    assert "baseline 'imitation only'" in choose(tmp_path, "dac", DATASET).notes[0]


def test_of_a_tree_the_lowest_seed_of_each_algorithm_and_dataset_is_taken(tmp_path: Path) -> None:
    """Scores have no say: these runs have none."""
    taken = make_run(tmp_path / "a", 1)
    make_run(tmp_path / "b" / "deep", 2)
    make_run(tmp_path / "a", 0, MORE_SEEDS)  # newer, but alone with its settings
    for seed in (0, 1, 2):
        make_run(tmp_path / "c", seed, SWITCHED_OFF)
    make_run(tmp_path / "d", 0, done=10)
    bc = make_run(tmp_path / "a", 5, algo="bc")
    candidates, passed = choose_all(tmp_path)
    assert [candidate.chosen.run for candidate in candidates] == [bc, taken]
    assert [trained.seed for trained in candidates[1].seeds] == [1, 2]
    assert candidates[1].notes[0] == "seed 1 of 1, 2: the lowest, not the best"
    assert "3 settings of dac" in candidates[1].notes[1]
    reasons = sorted(line.rpartition(": ")[2] for line in passed)
    assert reasons == ["baseline, imitation only"] * 3 + ["not finished", "other settings"]


def test_of_two_runs_of_a_seed_the_later_counts(tmp_path: Path) -> None:
    make_run(tmp_path / "a", 0)
    later = make_run(tmp_path / "b", 0)
    make_run(tmp_path / "b", 1)
    candidate = choose_all(tmp_path)[0][0]
    assert candidate.chosen.run == later and [trained.seed for trained in candidate.seeds] == [0, 1]
    assert candidate.notes[-1] == "of several finished runs of seed 0, the latest counts"


def test_a_tree_without_a_finished_run_is_an_error(tmp_path: Path) -> None:
    make_run(tmp_path, 0, done=3)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.yml").write_text("algo: dac")  # another program's
    with pytest.raises(FileNotFoundError, match="no finished run below"):
        choose_all(tmp_path)


def test_datasets_whose_agents_have_the_same_name_do_not_overwrite_each_other(tmp_path: Path) -> None:
    make_run(tmp_path, 0)
    make_run(tmp_path, 0, dataset="mujoco/hopper/medium-v1")
    agents, passed = named(choose_all(tmp_path)[0])
    assert [(name, candidate.chosen.dataset) for name, candidate in agents] == [("dac-hopper-medium-v1", DATASET)]
    assert "--algo dac --dataset mujoco/hopper/medium-v1 and a -name" in passed[0]


@pytest.mark.parametrize(
    ("remembered", "published"),
    [
        (
            "python -m zoo train --dataset a/b-v0 --seed 0 -f /my/logs -tb tb -params density:/home/me/f.zip -i ~/x.zip\n",
            "python -m zoo train --dataset a/b-v0 --seed 0 -params density:f.zip -i x.zip",
        ),
        (
            "python -m zoo train --dataset a/b-v0 --log-folder=/logs -n 10\npython -m zoo train -i logs/x.zip -n 20\n",
            "python -m zoo train --dataset a/b-v0 -n 10\npython -m zoo train -i logs/x.zip -n 20",
        ),
        (
            "job.py /somewhere/jobs/dac.json --threads 1\n",
            "python -m zoo train --algo dac --dataset genoffline/hopper/medium-v1 --seed 0 -params n_timesteps:20 "
            """'policy_kwargs:{"net_arch": [16]}' q_sampler:q.zip""",
        ),
    ],
)
def test_the_training_command_tells_nothing_of_the_machine(remembered: str, published: str, tmp_path: Path) -> None:
    settings = {"policy_kwargs": {"net_arch": [16]}, "q_sampler": "/home/me/q.zip"}
    make_run(tmp_path, 0, settings, command=remembered)
    assert training_command(choose(tmp_path, "dac", DATASET).chosen) == published


def test_runs_that_differ_in_their_seed_only_have_the_same_settings(tmp_path: Path) -> None:
    make_run(tmp_path, 0)
    make_run(tmp_path, 1)
    make_run(tmp_path, 0, {"tau": 0.1})
    settings = [trained.settings for trained in find_all(tmp_path)]
    assert settings[0] == settings[1] != settings[2]
    assert isinstance(next(find_all(tmp_path)), Trained) and json.loads(settings[0])
