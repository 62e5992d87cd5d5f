"""A file of an FQE goes on with its own policy, data and arguments alone, and chooses no sizes."""

import io
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch as th
from problems import Linear, linear_data
from worlds import differing, members

from sb3_genoffline import UserError
from sb3_genoffline.files.archive import CheckpointError, tree_from_members, tree_to_members, write_archive
from sb3_genoffline.ope import FQE

DATA = linear_data(80)


def small(policy: Any = None, data: Any = DATA, **settings: Any) -> FQE:
    return FQE(policy or Linear(), data, **({"gamma": 0.9, "net_arch": (4,), "n_members": 2, "device": "cpu"} | settings))


@pytest.fixture(scope="module")
def saved() -> bytes:
    small().fit(3).save(file := io.BytesIO())
    return file.getvalue()


OTHERS: dict[str, Any] = {
    **{"gamma": 0.5, "deterministic": False, "n_members": 3, "n_action_samples": 2, "net_arch": (5,), "learning_rate": 1e-3},
    **{"weight_decay": 0.0, "batch_size": 8, "tau": 0.5, "clip_targets": False, "cache_actions": True, "bootstrap": False},
    **{"seed": 1, "initial_observations": np.ones((1, 1))},
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_fit_with_another_argument_is_refused_by_name(saved: bytes, name: str):
    with pytest.raises(UserError, match=rf"fitted with {name}=.* and is loaded into an FQE with {name}=") as error:
        small(**{name: OTHERS[name]}).load(io.BytesIO(saved))
    assert "\n" not in str(error.value)


def test_every_argument_is_compared():
    assert small()._settings.keys() == OTHERS.keys()


def test_other_data_and_another_policy_are_refused(saved: bytes):
    with pytest.raises(UserError, match="was fitted on other data"):
        small(data=linear_data(80, seed=1)).load(io.BytesIO(saved))
    for other in (Linear(0.5), Linear(noise=0.2)):
        with pytest.raises(UserError, match="was fitted for another policy"):
            small(other).load(io.BytesIO(saved))


def test_policies_that_draw_are_told_apart_by_the_same_stream():
    small(Linear(noise=0.2)).fit(1).save(file := io.BytesIO())
    assert small(Linear(noise=0.2)).load(io.BytesIO(file.getvalue()))._fit.step == 1
    with pytest.raises(UserError, match="was fitted for another policy"):
        small(Linear(noise=0.3)).load(io.BytesIO(file.getvalue()))


class Unrepeatable(Linear):
    """Draws from numbers of its own."""

    rng = np.random.default_rng(0)

    def predict(self, observations: Any, deterministic: bool = False) -> tuple[np.ndarray, None]:
        return self.rng.uniform(-1, 1, observations.shape), None


def test_a_policy_whose_draws_nobody_can_repeat_is_not_compared():
    small(Unrepeatable()).fit(1).save(file := io.BytesIO())
    assert small(Unrepeatable()).load(io.BytesIO(file.getvalue()))._fit.step == 1


def put(*path: Any) -> Callable[[Any], None]:
    """Sets the last of a path of keys in the file's tree."""

    def change(tree: Any) -> None:
        for key in path[:-2]:
            tree = tree[key]
        tree[path[-2]] = path[-1]

    return change


def fill(name: str, value: float) -> Callable[[Any], None]:
    def change(tree: Any) -> None:
        for tensor in tree["fit"]["modules"][name].values():
            tensor.fill_(value)

    return change


def cast(tree: Any) -> None:
    critic = tree["fit"]["modules"]["critic"]
    for key in critic:
        critic[key] = (100 * critic[key]).to(th.int64)


def cut(tree: Any) -> None:
    critic = tree["fit"]["modules"]["critic"]
    key = next(iter(critic))
    critic[key] = critic[key][:1]


HOSTILE: dict[str, Callable[[Any], Any]] = {
    "nan": fill("critic", math.nan),
    "infinity": fill("target", math.inf),
    "dtype": cast,
    "shape": cut,
    "no tensors": put("fit", "modules", "critic", [1]),
    "no modules": put("fit", "modules", {}),
    "no fit": put("fit", None),
    "missing": lambda tree: tree["fit"].pop("sampler"),
    "moments": lambda tree: tree["fit"]["optimizers"]["optimizer"]["state"][0]["exp_avg_sq"].fill_(-1.0),
    "nan moments": lambda tree: tree["fit"]["optimizers"]["optimizer"]["state"][0]["exp_avg"].fill_(math.nan),
    "no moments": put("fit", "optimizers", "optimizer", "state", {}),
    "n": put("fit", "actions", "n", 10**7),
    "n = 2": put("fit", "actions", "n", 2),
    "n = 0": put("fit", "actions", "n", 0),
    "not cached": put("fit", "actions", "cached", False),
    "cached = 1": put("fit", "actions", "cached", 1),
    "no stream": put("fit", "actions", "stream", []),
    "stream": put("fit", "actions", "stream", [th.zeros(3)]),
    "stream of zeros": put("fit", "actions", "stream", [th.zeros(5056, dtype=th.uint8)]),
    "stream of words": put("fit", "actions", "stream", ["x"]),
    "sampler": put("fit", "sampler", "cursor", -5),
    "sampler's end": put("fit", "sampler", "cursor", 81),
    "sampler's device": put("fit", "sampler", "device", "tpu"),
    "sampler's numbers": put("fit", "sampler", "rng", 3),
    "history": put("history", 7),
    "history of nan": put("history", [[1, math.nan]]),
    "history of infinity": put("history", [[1, math.inf]]),
    "history of words": put("history", [["x", 1.0]]),
    "history of three": put("history", [[1, 1.0, 2.0]]),
    "history's end": put("history", [[4, 1.0]]),
    "settings": put("settings", None),
    "a setting": lambda tree: tree["settings"].pop("tau"),
    "policy": put("policy", None),
    "no settings": lambda tree: tree.pop("settings"),
    **{f"step = {step}": put("fit", "step", step) for step in (-1, 1.5, "3", None, [1], True, 2**62)},
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_no_fit_leaves_is_refused_and_changes_nothing(saved: bytes, name: str):
    tree = tree_from_members(members(io.BytesIO(saved)), "fqe", "cpu")
    HOSTILE[name](tree)
    write_archive(changed := io.BytesIO(), tree_to_members(tree, "fqe"))
    fqe = small().fit(2)
    before, history = tree_to_members(fqe._fit.state_dict(), "fit"), list(fqe.history)
    with pytest.raises(CheckpointError) as error:
        fqe.load(changed)
    assert "\n" not in str(error.value)
    assert not differing(before, tree_to_members(fqe._fit.state_dict(), "fit")) and fqe.history == history
    if name.startswith("step"):
        assert "claims to have made" in str(error.value)


def test_a_policy_that_fails_leaves_the_fit_as_it_was(saved: bytes):
    class Failing(Linear):
        def predict(self, observations: Any, deterministic: bool = False) -> tuple[np.ndarray, None]:
            if len(observations) == len(DATA):
                raise UserError("no")
            return super().predict(observations)

    fqe = small(Failing())
    before = tree_to_members(fqe._fit.state_dict(), "fit")
    with pytest.raises(UserError, match="no"):
        fqe.load(io.BytesIO(saved))
    assert not differing(before, tree_to_members(fqe._fit.state_dict(), "fit")) and fqe.history == []
