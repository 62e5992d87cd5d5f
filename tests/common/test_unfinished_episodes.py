"""Algorithms of windows train on episodes that are known to have ended, whatever the data come from."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from worlds import make_agent

from sb3_genoffline import load_dataset
from sb3_genoffline.common.sequence_algorithm import SequenceAlgorithm
from sb3_genoffline.data import export_hdf5
from sb3_genoffline.errors import UserError
from sb3_genoffline.registry import ALGOS

every_algorithm = pytest.mark.parametrize(
    "algo", sorted(name for name, cls in ALGOS.items() if issubclass(cls, SequenceAlgorithm))
)


def log(*lengths: int, ends: bool = True) -> dict[str, Any]:
    """Episodes that a time limit ends, and with ``ends=False`` the last one nothing."""
    rng, n = np.random.default_rng(0), sum(lengths)
    states = np.concatenate([np.cumsum(rng.normal(size=(length + 1, 3)), 0) + 100 * i for i, length in enumerate(lengths)])
    first = np.cumsum([0, *lengths])
    keep = np.concatenate([np.arange(a, b) + i for i, (a, b) in enumerate(itertools.pairwise(first))])
    timeouts = np.isin(np.arange(n), first[1:] - 1)
    timeouts[-1] &= ends
    return {
        "observations": states[keep],
        "next_observations": states[keep + 1],
        "actions": rng.uniform(-1, 1, (n, 2)),
        "rewards": np.where(np.arange(n) >= first[-2], 100.0, 1.0) + rng.uniform(size=n),
        "terminals": np.zeros(n, bool),
        "timeouts": timeouts,
    }


@every_algorithm
@pytest.mark.parametrize("shape", ["whole rows", "without next observations", "npz"])
def test_an_episode_that_the_log_cuts_off_is_left_out(algo: str, shape: str, tmp_path: Path) -> None:
    counts = []
    for ends in (True, False):
        source: Any = log(10, 10, 7, ends=ends)
        if shape == "without next observations":
            del source["next_observations"]
        if shape == "npz":
            np.savez(tmp_path / "log.npz", **source)
            source = tmp_path / "log.npz"
        model = make_agent(algo, None)
        model.set_dataset(load_dataset(source))
        counts.append(len(model.batches))
        if algo == "decision_transformer":
            assert (float(model.policy.largest_return) > 100) is ends
    lost = 7 - (shape == "without next observations") - (algo == "diffuser")  # neither a time-out nor, in Diffuser, a last row
    assert counts[0] - counts[1] == lost


@every_algorithm
def test_a_single_episode_without_an_end_is_refused(algo: str) -> None:
    with pytest.raises(UserError, match="None of the 1 episodes ends"):
        make_agent(algo, None).set_dataset(load_dataset(log(20, ends=False)))


def test_an_exported_log_reads_as_time_outs_where_it_was_cut(tmp_path: Path) -> None:
    """D4RL's layout has no third kind of end."""
    export_hdf5(load_dataset(log(10, 7, ends=False)), tmp_path / "log.hdf5")
    assert load_dataset(tmp_path / "log.hdf5").truncations[-1]


def test_few_windows_are_warned_of_and_none_is_refused() -> None:
    with pytest.warns(UserWarning, match=r"Only 7 of 58 rows start a window that Diffuser trains on"):
        make_agent("diffuser", None).set_dataset(load_dataset(log(*[1] * 50, 8)))
    with pytest.raises(
        UserError, match="No row of the data starts a window of Diffuser: of 9 episodes the longest has 1 steps"
    ):
        make_agent("diffuser", None).set_dataset(load_dataset(log(*[1] * 9)))


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("algo", sorted(ALGOS))
def test_every_algorithm_learns_in_double_precision(algo: str) -> None:
    model = make_agent(algo, None).learn_offline(load_dataset(log(10, 10, 10)), 2)
    assert np.isfinite(model.predict(np.zeros((1, 3), np.float32))[0]).all()
