"""Collecting our datasets: reproducible, whole or absent, and with the metadata a reader needs."""

import argparse
import multiprocessing
import os
import signal
import time
import tracemalloc
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import minari
import numpy as np
import pytest
from minari.namespace import list_local_namespaces

from sb3_genoffline import load_dataset
from sb3_genoffline.errors import UserError
from zoo.__main__ import main as zoo
from zoo.behavior.episode import Episode
from zoo.collect import command as module
from zoo.collect import workers
from zoo.collect.command import main
from zoo.collect.make import Statistics, collect
from zoo.collect.workers import episodes_of_jobs
from zoo.inspect.report import inspect_dataset
from zoo.recipes import collectible, load_recipe
from zoo.recipes.locomotion import BEHAVIOR, load_parts

LEVELS = ["random", "medium", "medium-replay", "medium-expert", "expert"]


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "datasets"))
    monkeypatch.setenv("SB3_GENOFFLINE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "datasets"


def arrays(dataset: Any) -> list[np.ndarray]:
    return [
        np.concatenate([getattr(episode, name) for episode in dataset.iterate_episodes()])
        for name in ("observations", "actions", "rewards", "terminations", "truncations")
    ]


@pytest.mark.parametrize("env", ["hopper", "walker2d", "halfcheetah"])
def test_the_sets_of_d4rls_kind_are_sacs_up_to_medium(env: str) -> None:
    assert set(collectible()) >= {f"genoffline/{env}/{level}-v1" for level in LEVELS}
    for level in ("medium", "medium-replay", "medium-expert"):
        recipe = load_recipe(f"genoffline/{env}/{level}-v1")
        assert recipe.algorithm.startswith("SAC") and recipe.source == f"zoo/behavior/{env}/sac"


def test_a_medium_set_of_sacs_policy_has_its_own_squashed_noise() -> None:
    dataset = collect("genoffline/hopper/medium-v1", steps=400, n_envs=2)
    actions = np.concatenate([episode.actions for episode in dataset.iterate_episodes()])
    assert (np.abs(actions) == 1).mean() < 0.02 and actions.std() > 0.2


def test_the_hard_set_is_named_for_its_clipped_noise() -> None:
    recipe = load_recipe("genoffline/walker2d/clipped-noise-v0")
    assert "clipped at the bounds" in recipe.description
    assert [name for name in collectible() if name.endswith("-v0") and ("hopper" in name or "walker2d" in name)] == [
        recipe.dataset_id
    ]
    collect(recipe.dataset_id, steps=600, n_envs=2)
    report = inspect_dataset(load_dataset(recipe.dataset_id))
    (finding,) = [finding.text for finding in report.findings if finding.name == "clipped_noise"]
    for sufferer in ("CPED", "DAC", "QDQ"):
        assert sufferer in finding


@pytest.mark.parametrize("level", LEVELS)
def test_a_dataset_has_all_its_steps_aligned_and_marked(level: str) -> None:
    dataset = collect(f"genoffline/hopper/{level}-v1", steps=203, n_envs=4)
    assert dataset.total_steps == 203
    for episode in dataset.iterate_episodes():
        n = len(episode.rewards)
        assert len(episode.observations) == n + 1 and len(episode.actions) == n
        assert not (episode.terminations[:-1] | episode.truncations[:-1]).any()
        assert episode.terminations[-1] != episode.truncations[-1]
        assert dataset.observation_space.contains(episode.observations[0])
        assert dataset.action_space.contains(episode.actions[0])
    loaded = load_dataset(f"genoffline/hopper/{level}-v1")
    assert len(loaded) == 203 and loaded.n_episodes == dataset.total_episodes


@pytest.mark.parametrize("level", ["random", "medium-replay"])
def test_the_same_seed_gives_the_same_data_and_another_seed_other_data(level: str) -> None:
    name = f"genoffline/hopper/{level}-v1"
    first = arrays(collect(name, steps=120, seed=1))
    again = arrays(collect(name, steps=120, seed=1, overwrite=True))
    other = arrays(collect(name, steps=120, seed=2, overwrite=True))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[1], other[1])


def test_the_metadata_are_complete() -> None:
    dataset = collect("genoffline/hopper/medium-v1", steps=50, author="A. Person", author_email="a@example.org")
    metadata = dataset.storage.metadata
    assert metadata["ref_min_score"] == -20.272305 and metadata["ref_max_score"] == 3234.3
    assert metadata["author"] == {"A. Person"} and metadata["author_email"] == {"a@example.org"}
    assert load_recipe("genoffline/hopper/medium-v1").fingerprint in metadata["code_permalink"]
    assert metadata["algorithm_name"].startswith("SAC") and "Seed 0" in metadata["description"]
    assert any(requirement.startswith("mujoco==") for requirement in metadata["requirements"])
    for eval_env in (False, True):
        env = dataset.recover_environment(eval_env=eval_env)
        assert env.spec is not None and env.spec.id == "Hopper-v5" and env.spec.max_episode_steps == 1000
    assert "genoffline/hopper/medium-v1" in minari.list_local_datasets()
    assert {"genoffline", "genoffline/hopper"} <= set(list_local_namespaces())


def test_an_existing_dataset_is_kept_unless_told_otherwise() -> None:
    kept = arrays(collect("genoffline/hopper/random-v1", steps=40))
    with pytest.raises(FileExistsError, match=r"with 40 steps.*--overwrite"):
        collect("genoffline/hopper/random-v1", steps=60)
    for a, b in zip(kept, arrays(minari.load_dataset("genoffline/hopper/random-v1")), strict=True):
        assert np.array_equal(a, b)
    assert collect("genoffline/hopper/random-v1", steps=60, overwrite=True).total_steps == 60


@pytest.mark.parametrize("name", ["genoffline/hopper/medum-v1", "genoffline/hopper/medium-v7", "hopper-medium"])
def test_an_unknown_id_names_the_nearest_and_all_that_can_be_collected(name: str) -> None:
    with pytest.raises(ValueError, match=r"Did you mean .*genoffline/hopper/medium-v1.*genoffline/hopper/random-v1"):
        collect(name)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"steps": 0}, "steps is 0"), ({"n_envs": 0}, "n_envs is 0"), ({"seed": -1}, "seed is -1"), ({"jobs": 9}, "jobs is 9")],
)
def test_sizes_that_make_no_sense_are_refused(arguments: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        collect("genoffline/hopper/random-v1", **arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_an_interrupted_collection_leaves_nothing(root: Path, error: type[BaseException]) -> None:
    def interrupt(n: int, total: int) -> None:
        raise error

    with pytest.raises(error):
        collect("genoffline/hopper/random-v1", steps=200, progress=interrupt)
    assert not any(root.iterdir()) and not minari.list_local_datasets()


def test_an_interrupted_overwrite_keeps_the_old_dataset() -> None:
    def interrupt(n: int, total: int) -> None:
        raise KeyboardInterrupt

    old = arrays(collect("genoffline/hopper/random-v1", steps=40))
    with pytest.raises(KeyboardInterrupt):
        collect("genoffline/hopper/random-v1", steps=60, overwrite=True, progress=interrupt)
    kept = arrays(minari.load_dataset("genoffline/hopper/random-v1"))
    assert all(np.array_equal(a, b) for a, b in zip(old, kept, strict=True))


def test_a_replay_set_mixes_its_rungs_in_proportion_at_any_size() -> None:
    own = load_recipe("genoffline/hopper/medium-replay-v1").n_steps
    assert 50_000 < own < 300_000
    ((natural,), _), ((small,), _) = (load_parts(BEHAVIOR / "hopper" / "sac", "medium-replay", steps) for steps in (own, 1000))
    assert sum(segment.n_steps for segment in small) == 1000
    for a, b in zip(natural, small, strict=True):
        assert abs(a.n_steps / own - b.n_steps / 1000) < 2e-3


def test_medium_expert_is_half_and_half() -> None:
    (medium, expert), _ = load_parts(BEHAVIOR / "hopper" / "sac", "medium-expert", 301)
    assert [medium[0].n_steps, expert[0].n_steps] == [150, 151]


def run(*arguments: str) -> None:
    parser = argparse.ArgumentParser()
    module.add_arguments(parser)
    main(parser.parse_args(arguments))


def test_the_command_prints_what_it_collected(capsys: pytest.CaptureFixture[str]) -> None:
    run("genoffline/hopper/random-v1", "--steps", "120", "--seed", "3", "--n-envs", "2", "-P")
    out, err = capsys.readouterr()
    assert "steps 120 " in out and "normalised score" in out and "steps/s" in out
    assert "120" in err


def test_a_pattern_is_made_one_by_one_without_what_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    name = "genoffline/hopper/medium-v1"
    before = collect(name, steps=40, n_envs=2).storage.data_path / "main_data.hdf5"
    stamp = before.stat().st_mtime_ns
    run("genoffline/hopper/medium*-v1", name, "--steps", "40")
    assert set(minari.list_local_datasets()) == {f"genoffline/hopper/medium{end}-v1" for end in ("", "-replay", "-expert")}
    out = capsys.readouterr().out
    assert f"{name} is there already, 40 steps of seed 0: skipped" in out and out.count("skipped") == 1
    assert before.stat().st_mtime_ns == stamp


@pytest.mark.parametrize(
    ("arguments", "difference"),
    [(["--steps", "50"], "steps 40 instead of 50"), (["--steps", "40", "--seed", "1"], "seed 0 instead of 1")],
)
def test_a_dataset_that_was_made_otherwise_is_not_taken_for_the_one_asked_for(arguments: list[str], difference: str) -> None:
    collect("genoffline/hopper/random-v1", steps=40)
    with pytest.raises(UserError, match=rf"with 40 steps.*{difference};.*--overwrite"):
        run("genoffline/hopper/random-v1", *arguments)


def test_one_that_fails_does_not_stop_the_others(capsys: pytest.CaptureFixture[str]) -> None:
    collect("genoffline/hopper/medium-v1", steps=50)
    with pytest.raises(SystemExit, match=r"1 of 2 datasets could not be made: genoffline/hopper/medium-v1"):
        run("genoffline/hopper/medium-v1", "genoffline/hopper/random-v1", "--steps", "40")
    assert "steps 50 instead of 40" in capsys.readouterr().err
    assert minari.load_dataset("genoffline/hopper/random-v1").total_steps == 40


def test_a_misspelt_id_is_refused_before_anything_is_collected(root: Path) -> None:
    with pytest.raises(ValueError, match="no recipe for dataset 'genoffline/hoper/"):
        run("genoffline/hopper/random-v1", "genoffline/hoper/*", "--steps", "40")
    assert not root.exists() or not any(root.iterdir())


@pytest.mark.usefixtures("forks")
def test_processes_share_the_steps_and_their_order_is_always_the_same() -> None:
    def made() -> list[np.ndarray]:
        return arrays(collect("genoffline/hopper/random-v1", steps=203, n_envs=3, jobs=2, overwrite=True))

    first, again = made(), made()
    assert len(first[1]) == 203
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert len(np.unique(first[1], axis=0)) == 203  # no two processes draw the same actions


@pytest.mark.usefixtures("forks")
def test_a_failure_in_a_process_is_reported_and_ends_the_others() -> None:
    with pytest.raises(
        RuntimeError, match=r"(?s)a process that collects failed:.*no recipe for dataset 'genoffline/nothing-v0'"
    ):
        list(episodes_of_jobs("genoffline/nothing-v0", 100, seed=0, n_envs=2, jobs=2))
    assert not multiprocessing.active_children()


@pytest.fixture
def collecting(root: Path, in_a_fork: Any) -> tuple[BaseProcess, Path]:
    """The command, with some episodes written; and what it writes to stderr."""
    process, errors = in_a_fork(lambda: zoo(["collect", "genoffline/hopper/random-v1", "--steps", "1000000"]))
    written = root / ".collecting-genoffline%2Fhopper%2Frandom-v1" / "whole" / "data" / "main_data.hdf5"
    while process.is_alive() and not (written.exists() and written.stat().st_size > 0):
        time.sleep(0.02)
    return process, errors


def test_a_killed_command_leaves_no_dataset_and_the_same_one_works_again(
    root: Path, collecting: tuple[BaseProcess, Path]
) -> None:
    with pytest.raises(FileExistsError, match="is being written by another process"):
        collect("genoffline/hopper/random-v1", steps=40)
    collecting[0].kill()
    collecting[0].join()
    assert any(root.iterdir()) and not minari.list_local_datasets()
    run("genoffline/hopper/random-v1", "--steps", "40")
    assert sorted(path.name for path in root.iterdir()) == ["genoffline"]


@pytest.mark.usefixtures("forks")
@pytest.mark.parametrize(("number", "jobs"), [(signal.SIGINT, "1"), (signal.SIGTERM, "2")])
def test_a_signal_ends_the_command_cleanly(
    number: int, jobs: str, root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    add = Statistics.add

    def signalled(self: Statistics, episode: Episode) -> None:
        for child in multiprocessing.active_children():
            os.kill(child.pid or 0, number)  # as to the whole group
        signal.raise_signal(number)
        add(self, episode)

    monkeypatch.setattr(Statistics, "add", signalled)
    monkeypatch.setattr(workers, "BATCH_STEPS", 50)
    with pytest.raises(SystemExit) as ended:
        zoo(["collect", "genoffline/hopper/random-v1", "--steps", "20000", "--n-envs", "2", "--jobs", jobs])
    err = capsys.readouterr().err
    assert ended.value.code == 128 + number
    assert (
        "Traceback" not in err
        and "nothing is left of the unfinished genoffline/hopper/random-v1; to resume, run the same" in err
    )
    assert not any(root.iterdir()) and not multiprocessing.active_children()


def test_memory_does_not_grow_with_the_steps() -> None:
    sizes = []

    def note(n: int, total: int) -> None:
        sizes.append(tracemalloc.get_traced_memory()[0])

    tracemalloc.start()
    try:
        data = collect("genoffline/hopper/random-v1", steps=1300, progress=note)
    finally:
        tracemalloc.stop()
    quarter = len(sizes) // 4
    growth = min(sizes[-10:]) - min(sizes[quarter : quarter + 10])
    assert growth < 40_000 < 0.3 * 1300 * sum(array[:1].nbytes for array in arrays(data))
