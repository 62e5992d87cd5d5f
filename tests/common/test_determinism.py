"""The same seed gives the same agent bit for bit, and a resumed training is the uninterrupted one, in another process too."""

import json
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
import worlds
from stable_baselines3.common.callbacks import CheckpointCallback, EvalCallback
from stable_baselines3.common.env_util import make_vec_env
from worlds import KINDS, TRAINING_SETTINGS, PointEnv, differing, make_agent, make_dataset, of_each_kind, snapshot

from sb3_genoffline import OfflineDataset
from sb3_genoffline.common.offline_algorithm import OfflineAlgorithm

MakeAgent = Callable[..., OfflineAlgorithm]


def global_states() -> list[Any]:
    return [random.getstate(), *np.random.get_state()[1:], th.get_rng_state()]


def assert_global_states(expected: list[Any]) -> None:
    for ours, theirs in zip(global_states(), expected, strict=True):
        assert np.array_equal(np.asarray(ours, dtype=object), np.asarray(theirs, dtype=object))


def test_the_seed_decides_alone_whatever_happens_beside_and_within_a_training(
    algo: str, agent: MakeAgent, dataset: OfflineDataset
) -> None:
    """One call, and two in which the agent acts, after others have drawn numbers: the same agent bit for bit."""
    once, twice = agent(), agent()
    before = global_states()
    once.learn_offline(dataset, 7)  # an epoch ends after 4
    once.predict(np.zeros((4, 3)), deterministic=True)
    assert_global_states(before)
    th.rand(3), np.random.rand(3), random.random()

    def predict(local_variables: dict[str, Any], _: dict[str, Any]) -> bool:
        local_variables["self"].predict(np.zeros((2, 3)), deterministic=True)
        return True

    if algo in KINDS:  # SB3's own evaluation, of whole episodes
        evaluation = EvalCallback(make_vec_env(PointEnv, 2), n_eval_episodes=2, eval_freq=2, verbose=0)
        twice.learn_offline(dataset, 3, callback=evaluation)
        assert evaluation.last_mean_reward > -np.inf
    else:
        twice.learn_offline(dataset, 3, callback=predict)
    twice.learn_offline(make_dataset(), 4, callback=predict, reset_num_timesteps=False)
    assert twice.num_timesteps == 7
    # how far a run has come is part of "data", and differs between a last call of 7 and of 4
    assert [name for name in differing(snapshot(once), snapshot(twice)) if name != "data"] == []


@of_each_kind
def test_another_seed_gives_another_agent(agent: MakeAgent, dataset: OfflineDataset) -> None:
    first, second = agent(), agent(seed=1)
    assert "policy.safetensors" in differing(snapshot(first), snapshot(second))
    second.policy.load_state_dict(first.policy.state_dict())  # equal starts part ways through data and noise
    acts = [model.predict(np.zeros((4, 3)), deterministic=False)[0] for model in (first, second)]
    assert first.policy.has_memory or (acts[0] != acts[1]).any()
    first, second = (model.learn_offline(dataset, 3) for model in (first, second))
    assert "policy.safetensors" in differing(snapshot(first), snapshot(second))


@of_each_kind
def test_without_a_seed_two_agents_differ(agent: MakeAgent) -> None:
    first, second = agent(seed=None), agent(seed=None)
    assert differing(snapshot(first), snapshot(second)) == ["policy.safetensors", "training.safetensors"]


@of_each_kind
@pytest.mark.parametrize("seed", [0, None])
def test_loading_leaves_the_global_random_numbers_alone(agent: MakeAgent, tmp_path: Path, seed: int | None) -> None:
    model = agent(seed=seed)
    model.save(tmp_path / "agent")
    before = global_states()
    type(model).load(tmp_path / "agent")
    type(model).load(tmp_path / "agent", env=PointEnv())
    assert_global_states(before)


# ---------------------------------------------------------------------- resuming

N_UPDATES = 6  # an epoch ends after 4
SAVED_AT = (2, 4)  # inside an epoch, and at the end of one
VARIANTS: dict[str, dict[str, Any]] = {"plain": {}, "all settings that training depends on": TRAINING_SETTINGS}
# In the same process every algorithm is asked: tests/common/test_arguments.py
CASES = [(algo, variant, SAVED_AT[0]) for algo in KINDS for variant in VARIANTS] + [
    (algo, "plain", SAVED_AT[1]) for algo in KINDS
]
RESUME = """
import json, sys
import stable_baselines3, torch
before = set(sys.modules)
from sb3_genoffline import ALGOS
with open(sys.argv[3], "w") as file:
    json.dump(sorted(set(sys.modules) - before), file)
sys.path.insert(0, sys.argv[1])
import worlds
for algo, source, done, total, target in json.loads(sys.argv[2]):
    model = ALGOS[algo].load(source)
    model.learn_offline(worlds.make_dataset(), total - done, reset_num_timesteps=False)
    model.save(target)
"""


@pytest.fixture(scope="module")
def resumed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """
    Folder of uninterrupted runs, of runs that another process took up from their checkpoints, and of the names of the modules
    that it imported with the package.
    """
    folder = tmp_path_factory.mktemp("resumed")
    for algo, variant in dict.fromkeys((algo, variant) for algo, variant, _ in CASES):
        prefix = f"{algo}-{variant}"
        checkpoints = CheckpointCallback(SAVED_AT[0], str(folder), name_prefix=prefix)
        model = make_agent(algo, **VARIANTS[variant]).learn_offline(make_dataset(), N_UPDATES, callback=checkpoints)
        model.save(folder / prefix)
    jobs = [
        (algo, str(folder / f"{algo}-{variant}_{done}_steps"), done, N_UPDATES, str(folder / f"{algo}-{variant}-from-{done}"))
        for algo, variant, done in CASES
    ]
    command = [sys.executable, "-c", RESUME, str(Path(worlds.__file__).parent), json.dumps(jobs), str(folder / "imported")]
    subprocess.run(command, check=True, timeout=240)
    return folder


@pytest.mark.parametrize(("algo", "variant", "done"), CASES)
def test_a_run_resumed_in_another_process_is_the_uninterrupted_one(resumed: Path, algo: str, variant: str, done: int) -> None:
    uninterrupted, taken_up = (resumed / f"{algo}-{variant}{suffix}.zip" for suffix in ("", f"-from-{done}"))
    assert differing(snapshot(uninterrupted), snapshot(taken_up)) == []
    halfway = snapshot(resumed / f"{algo}-{variant}_{done}_steps.zip")
    assert {"data", "policy.safetensors", "training.safetensors"} <= set(differing(halfway, snapshot(taken_up)))


def test_importing_the_package_loads_nothing_heavy_that_stable_baselines3_does_not(resumed: Path) -> None:
    heavy = {"mujoco", "matplotlib", "tensorboard", "tqdm", "rich", "gymnasium_robotics", "imageio", "h5py", "zoo"}
    heavy |= {"huggingface_hub", "sb3_contrib"}
    imported = json.loads((resumed / "imported").read_text())
    assert "sb3_genoffline" in imported and heavy.isdisjoint(imported)


@of_each_kind
def test_going_on_with_another_dataset_is_said_to_be_no_exact_resume(
    agent: MakeAgent, dataset: OfflineDataset, tmp_path: Path
) -> None:
    model = agent(normalize_observations=True, reward_transform=None).learn_offline(dataset, 2)
    model.save(tmp_path / "agent")
    loaded = type(model).load(tmp_path / "agent")
    with pytest.warns(UserWarning, match=r"tests/point-0-v0.*tests/point-1-v0"):
        loaded.learn_offline(make_dataset(1), 2, reset_num_timesteps=False)
    assert th.equal(loaded.policy.obs_mean, model.policy.obs_mean)  # the networks were trained with these statistics
    assert loaded.num_timesteps == 4
