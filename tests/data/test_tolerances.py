"""What counts as equal or constant follows the scale and the type of the data."""

import warnings

import numpy as np
import pytest
from gymnasium import spaces

from sb3_genoffline.data import OfflineDataset, load_dataset, reward_affine
from sb3_genoffline.data.chain import chain_breaks
from sb3_genoffline.data.flattening import spaces_differ
from sb3_genoffline.data.windows import trajectory_ends
from sb3_genoffline.errors import UserError

RNG = np.random.default_rng(0)
S = RNG.normal(size=(301, 3))


def data(**changes):
    return {
        "observations": S[:-1],
        "actions": np.zeros((300, 1)),
        "rewards": np.ones(300),
        "next_observations": S[1:],
        "terminals": np.zeros(300),
        "timeouts": np.arange(300) % 50 == 49,
    } | changes


def load_in_silence(given):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return load_dataset(given)


@pytest.mark.parametrize("scale", [1e-12, 1e-8, 1.0, 1e6])
@pytest.mark.parametrize("timeouts", [True, False])
def test_small_differences_of_next_observations_end_no_episode_at_any_scale(scale, timeouts):
    near = {
        "noise": {"next_observations": scale * (S[1:] + 1e-5 * RNG.normal(size=(300, 3)))},
        "digits": {"next_observations": scale * S[1:].round(4)},
        "float32": {"observations": (scale * S[:-1]).astype(np.float32)},
    }
    if scale == 1.0:
        near["float16"] = {"observations": S[:-1].astype(np.float16)}
    for changes in near.values():
        given = data(observations=scale * S[:-1], next_observations=scale * S[1:]) | changes
        if not timeouts:
            del given["timeouts"]
        dataset = load_in_silence(given)
        assert dataset.n_episodes == (6 if timeouts else 1)
        assert len(trajectory_ends(dataset)) == dataset.n_episodes


@pytest.mark.parametrize("scale", [1e-12, 1e-8, 1.0, 1e6])
def test_another_episode_begins_elsewhere_at_any_scale(scale):
    episodes = scale * RNG.normal(size=(6, 51, 3))
    given = data(observations=episodes[:, :-1].reshape(-1, 3), next_observations=episodes[:, 1:].reshape(-1, 3))
    del given["timeouts"]
    np.testing.assert_array_equal(load_dataset(given).episode_ends, np.arange(50, 301, 50))
    assert load_dataset(given | {"timeouts": np.zeros(300)}).n_episodes == 6  # marks nothing


def test_marked_time_outs_count_and_an_unmarked_leap_is_said():
    far = S.copy()
    far[120:] += 1000
    leaping = data(observations=far[:-1], next_observations=np.concatenate([far[1:120], far[119:120], far[121:]]))
    with pytest.warns(UserWarning, match=r"In the dict the state leaps in 1 rows that are not marked .* first behind row 119"):
        np.testing.assert_array_equal(load_dataset(leaping).episode_ends, [50, 100, 120, 150, 200, 250, 300])


def test_noise_of_the_size_of_the_steps_does_not_overrule_marked_time_outs():
    noisy = data(next_observations=S[1:] + RNG.normal(size=(300, 3)))
    assert load_in_silence(noisy).n_episodes == 6


def test_a_goal_that_changes_is_another_episode_though_nothing_else_moves_far():
    goal = np.repeat([[0.0], [1e-4]], 5, axis=0)
    rows = np.concatenate([np.arange(10.0)[:, None], goal], axis=1)
    assert np.flatnonzero(chain_breaks(rows, rows + np.array([1.0, 0.0]))).tolist() == [4]


@pytest.mark.parametrize("scale", [1e-13, 1.0, 1e7])
def test_spreads_of_rewards_are_told_from_round_off_at_any_scale(scale):
    def with_rewards(rewards):
        return load_dataset(data(rewards=scale * rewards))

    varied = np.arange(300.0)
    assert reward_affine(with_rewards(varied), "reward_normalize")[0] == pytest.approx(1 / (scale * varied.std()))
    assert reward_affine(with_rewards(varied), "iql_locomotion")[0] == pytest.approx(1000 / (scale * 50 * 250))
    shuffled = np.tile([0.1, 0.7, 0.3, 0.2, 0.9], 60).reshape(6, 50)
    shuffled = np.stack([RNG.permutation(row) for row in shuffled]).ravel()  # equal returns, summed in other orders
    for name, rewards in (("reward_normalize", np.full(300, 0.1)), ("iql_locomotion", shuffled), ("traj_normalize", shuffled)):
        with pytest.raises(UserError, match="which is 0 here"):
            reward_affine(with_rewards(rewards), name)


@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e9])
def test_bounds_of_spaces_are_compared_at_any_scale(scale):
    def box(high):
        return spaces.Box(0.0, scale * high, (1,), np.float64)

    assert spaces_differ(box(1.0), box(1.000001)) is None
    assert spaces_differ(box(1.0), box(1.1)) == f"high[0] {scale:g} against {1.1 * scale:g}"
    assert spaces_differ(box(1.0), spaces.Box(-np.inf, np.inf, (1,))) is None


def test_statistics_tell_a_constant_column_at_any_scale():
    import torch as th

    from sb3_genoffline import BC

    policy = BC("MlpPolicy", load_dataset(data())).policy
    for scale in (1e-9, 1.0, 1e9):
        std = th.tensor([0.0, scale, scale / 100])
        policy.set_observation_statistics(th.zeros(3), std)
        np.testing.assert_allclose(policy.obs_std.numpy(), [1.0, scale, scale / 100])


@pytest.mark.parametrize("dtype", [np.float64, np.int64])
def test_absolute_times_and_positions_that_float32_cannot_hold_are_named(dtype):
    n = np.arange(301)
    if dtype == np.int64:
        time, place = 1_700_000_000 + 3 * n, 2**30 + n
    else:
        time, place = 1.7e9 + 0.05 * n, 5_400_000 + 0.01 * n
    rows = np.stack([n, time, place], axis=1).astype(dtype)
    given = data(observations=rows[:-1], next_observations=rows[1:], timeouts=n[:-1] == 299)
    with pytest.warns(UserWarning, match=r"observations in columns 1, 2 lose digits.*Subtract where they begin") as caught:
        load_dataset(given)
    assert len(caught) == 1
    relative = rows - rows[0]
    assert load_in_silence(given | {"observations": relative[:-1], "next_observations": relative[1:]}).n_episodes == 1


def test_minari_observations_that_float32_cannot_hold_are_named():
    import minari
    from minari.data_collector import EpisodeBuffer

    time = 1.7e9 + 0.05 * np.arange(21)
    buffer = EpisodeBuffer(
        observations=np.stack([np.sin(time), time], axis=1),
        actions=np.zeros((20, 1), np.float32),
        rewards=[0.0] * 20,
        terminations=[False] * 20,
        truncations=[False] * 19 + [True],
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Minari asks for an author and more
        minari.create_dataset_from_buffers(
            "time/one-v0",
            [buffer],
            observation_space=spaces.Box(-np.inf, np.inf, (2,), np.float64),
            action_space=spaces.Box(-1, 1, (1,)),
        )
    with pytest.warns(UserWarning, match=r"observations of time/one-v0 in column 1 lose digits"):
        load_dataset("time/one-v0")


@pytest.mark.parametrize("column", [np.full(301, 0.1), 0.1 + 1e-17 * np.arange(301), np.linspace(0, 1, 301), 1e6 * S[:, 0]])
def test_columns_that_float32_holds_are_loaded_in_silence(column):
    rows = np.stack([column, column], axis=1)
    given = data(observations=rows[:-1], next_observations=rows[1:])
    load_in_silence(given | {"timeouts": np.arange(300) == 299})


@pytest.mark.parametrize("name", ["observations", "rewards", "terminals", "actions"])
def test_masked_entries_are_named(name):
    given = data()
    mask = np.zeros(np.shape(given[name]), bool)
    mask[4] = True
    with pytest.raises(UserError, match=rf"(terminations|{name})\[4.* is masked .* a dataset has no gaps"):
        load_dataset(given | {name: np.ma.MaskedArray(given[name], mask)})
    unmasked = np.ma.MaskedArray(given[name], np.zeros_like(mask))
    assert isinstance(load_dataset(given | {name: unmasked}), OfflineDataset)
