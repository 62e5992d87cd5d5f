"""The page's claims 9 and 20: the cheap scores on three episodes of known numbers."""

import numpy as np
import pytest
from gymnasium import spaces

from sb3_genoffline import UserError
from sb3_genoffline.data import OfflineDataset
from sb3_genoffline.ope import scores

GAMMA = 0.99
STATES = np.concatenate([np.arange(4), np.arange(1, 4), np.arange(-2, 3)]).astype(np.float32)[:, None]
ENDS = np.array([4, 7, 12])


@pytest.fixture(scope="module")
def dataset() -> OfflineDataset:
    last = np.isin(np.arange(1, 13), ENDS)
    return OfflineDataset(
        observations=STATES,
        actions=np.sin(2 * STATES + 0.3),
        rewards=0.1 * STATES[:, 0],
        next_observations=STATES + 1,
        terminations=last,
        truncations=np.zeros(12, bool),
        observation_space=spaces.Box(-np.inf, np.inf, (1,), np.float32),
        action_space=spaces.Box(-1, 1, (1,), np.float32),
    )


def value(states: np.ndarray, actions: np.ndarray) -> np.ndarray:
    return np.sin(states.astype(np.float64))[:, 0] + 0.5 * actions.astype(np.float64)[:, 0]


def act(states: np.ndarray) -> np.ndarray:
    return np.cos(states.astype(np.float64))


def test_scores_of_three_episodes(dataset: OfflineDataset):
    found = {
        "initial": scores.initial_state_value(value, act, dataset),
        "average": scores.average_value(value, act, dataset),
        "soft-OPC": scores.soft_opc(value, dataset, 0.5),
        "TD": scores.td_error(value, act, dataset, GAMMA),
        "advantages": scores.discounted_advantage_sum(value, act, dataset, GAMMA),
        "actions": scores.action_difference(act, dataset),
    }
    assert found == pytest.approx(
        {
            "initial": 0.16475043,
            "average": 0.33684127,
            "soft-OPC": 0.23890646,
            "TD": 0.51605204,
            "advantages": -0.06038183,
            "actions": 0.59486143,
        },
        abs=1e-7,
    )


def test_without_a_success_there_is_no_soft_opc(dataset: OfflineDataset):
    assert np.isnan(scores.soft_opc(value, dataset, 99.0))


@pytest.mark.parametrize("name", ["initial_state_value", "average_value", "td_error", "discounted_advantage_sum", "soft_opc"])
def test_a_value_of_another_shape_or_without_a_number_is_refused(dataset: OfflineDataset, name: str):
    score = {
        "soft_opc": lambda q: scores.soft_opc(q, dataset, 0.5),
        "td_error": lambda q: scores.td_error(q, act, dataset, GAMMA),
        "discounted_advantage_sum": lambda q: scores.discounted_advantage_sum(q, act, dataset, GAMMA),
    }.get(name, lambda q: getattr(scores, name)(q, act, dataset))
    for wrong, message in (
        (lambda s, a: value(s, a)[:, None], r"value returned an array of shape \(\d+, 1\)"),
        (lambda s, a: np.full(len(s), np.nan), "value returned numbers that are not finite"),
        (lambda s, a: "x", "value returned 'x', which are no numbers"),
    ):
        with pytest.raises(UserError, match=message):
            score(wrong)


def test_actions_of_another_shape_are_refused(dataset: OfflineDataset):
    for call in (
        lambda wrong: scores.action_difference(wrong, dataset),
        lambda wrong: scores.average_value(value, wrong, dataset),
        lambda wrong: scores.td_error(value, wrong, dataset, GAMMA),
    ):
        with pytest.raises(UserError, match=r"act returned an array of shape \(12,\) for 12 rows: return one of .*\(12, 1\)"):
            call(lambda s: np.zeros(len(s)))
        with pytest.raises(UserError, match="act returned numbers that are not finite"):
            call(lambda s: np.full((len(s), 1), np.nan))
