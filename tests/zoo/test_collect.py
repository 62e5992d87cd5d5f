"""Collecting our datasets: reproducible, whole or absent, and with the metadata a reader needs."""

import argparse
from pathlib import Path
from typing import Any

import minari
import numpy as np
import pytest
from minari.namespace import list_local_namespaces

from sb3_genoffline import load_dataset
from zoo import collect as module
from zoo.collect import collect, main
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


def test_every_level_of_hopper_can_be_collected() -> None:
    assert set(collectible()) >= {f"genoffline/hopper/{level}-v0" for level in LEVELS}


@pytest.mark.parametrize("level", LEVELS)
def test_a_dataset_has_all_its_steps_aligned_and_marked(level: str) -> None:
    dataset = collect(f"genoffline/hopper/{level}-v0", steps=503, n_envs=4)
    assert dataset.total_steps == 503
    for episode in dataset.iterate_episodes():
        n = len(episode.rewards)
        assert len(episode.observations) == n + 1 and len(episode.actions) == n
        assert not (episode.terminations[:-1] | episode.truncations[:-1]).any()
        assert episode.terminations[-1] != episode.truncations[-1]
        assert dataset.observation_space.contains(episode.observations[0])
        assert dataset.action_space.contains(episode.actions[0])
    loaded = load_dataset(f"genoffline/hopper/{level}-v0")
    assert len(loaded) == 503 and loaded.n_episodes == dataset.total_episodes


@pytest.mark.parametrize("level", ["random", "medium-replay", "medium-expert"])
def test_the_same_seed_gives_the_same_data_and_another_seed_other_data(level: str) -> None:
    name = f"genoffline/hopper/{level}-v0"
    first = arrays(collect(name, steps=300, seed=1))
    again = arrays(collect(name, steps=300, seed=1, overwrite=True))
    other = arrays(collect(name, steps=300, seed=2, overwrite=True))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[1], other[1])


def test_the_metadata_are_complete() -> None:
    dataset = collect("genoffline/hopper/medium-v0", steps=50, author="A. Person", author_email="a@example.org")
    metadata = dataset.storage.metadata
    assert metadata["ref_min_score"] == -20.272305 and metadata["ref_max_score"] == 3234.3
    assert metadata["author"] == {"A. Person"} and metadata["author_email"] == {"a@example.org"}
    assert load_recipe("genoffline/hopper/medium-v0").fingerprint in metadata["code_permalink"]
    assert metadata["algorithm_name"].startswith("TRPO") and "Seed 0" in metadata["description"]
    assert any(requirement.startswith("mujoco==") for requirement in metadata["requirements"])
    for eval_env in (False, True):
        env = dataset.recover_environment(eval_env=eval_env)
        assert env.spec is not None and env.spec.id == "Hopper-v5" and env.spec.max_episode_steps == 1000
    assert "genoffline/hopper/medium-v0" in minari.list_local_datasets()
    assert {"genoffline", "genoffline/hopper"} <= set(list_local_namespaces())


def test_an_existing_dataset_is_kept_unless_told_otherwise() -> None:
    kept = arrays(collect("genoffline/hopper/random-v0", steps=40))
    with pytest.raises(FileExistsError, match=r"with 40 steps.*--overwrite"):
        collect("genoffline/hopper/random-v0", steps=60)
    for a, b in zip(kept, arrays(minari.load_dataset("genoffline/hopper/random-v0")), strict=True):
        assert np.array_equal(a, b)
    assert collect("genoffline/hopper/random-v0", steps=60, overwrite=True).total_steps == 60


@pytest.mark.parametrize("name", ["genoffline/hopper/medum-v0", "genoffline/hopper/medium-v1", "hopper-medium"])
def test_an_unknown_id_names_the_nearest_and_all_that_can_be_collected(name: str) -> None:
    with pytest.raises(ValueError, match=r"Did you mean genoffline/hopper/medium-v0.*genoffline/hopper/random-v0"):
        collect(name)


@pytest.mark.parametrize(
    ("arguments", "message"), [({"steps": 0}, "steps is 0"), ({"n_envs": 0}, "n_envs is 0"), ({"seed": -1}, "seed is -1")]
)
def test_sizes_that_make_no_sense_are_refused(arguments: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        collect("genoffline/hopper/random-v0", **arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_an_interrupted_collection_leaves_nothing(root: Path, error: type[BaseException]) -> None:
    def interrupt(n: int, total: int) -> None:
        raise error

    with pytest.raises(error):
        collect("genoffline/hopper/random-v0", steps=200, progress=interrupt)
    assert not any(root.iterdir()) and not minari.list_local_datasets()


def test_an_interrupted_overwrite_keeps_the_old_dataset(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = arrays(collect("genoffline/hopper/random-v0", steps=40))
    replace = module.os.replace

    def fail(source: Any, target: Any) -> None:
        if ".collecting-" in str(source) and not str(source).endswith("replaced"):
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(module.os, "replace", fail)
    with pytest.raises(KeyboardInterrupt):
        collect("genoffline/hopper/random-v0", steps=60, overwrite=True)
    kept = arrays(minari.load_dataset("genoffline/hopper/random-v0"))
    assert all(np.array_equal(a, b) for a, b in zip(old, kept, strict=True))
    assert [path.name for path in root.iterdir()] == ["genoffline"]


def test_a_replay_set_mixes_its_rungs_in_proportion_at_any_size() -> None:
    own = load_recipe("genoffline/hopper/medium-replay-v0").n_steps
    assert 50_000 < own < 300_000
    ((natural,), _), ((small,), _) = (load_parts(BEHAVIOR / "hopper", "medium-replay", steps) for steps in (own, 1000))
    assert sum(segment.n_steps for segment in small) == 1000
    for a, b in zip(natural, small, strict=True):
        assert abs(a.n_steps / own - b.n_steps / 1000) < 2e-3


def test_medium_expert_is_half_and_half() -> None:
    (medium, expert), _ = load_parts(BEHAVIOR / "hopper", "medium-expert", 301)
    assert [medium[0].n_steps, expert[0].n_steps] == [150, 151]


def test_the_command_prints_what_it_collected(capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    module.add_arguments(parser)
    main(parser.parse_args(["genoffline/hopper/random-v0", "--steps", "120", "--seed", "3", "--n-envs", "2", "-P"]))
    out, err = capsys.readouterr()
    assert "steps 120 " in out and "normalised score" in out and "steps/s" in out
    assert "120" in err
