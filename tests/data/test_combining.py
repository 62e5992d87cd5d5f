"""Datasets put together and taken apart keep what belongs to them."""

import copy

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from labelled_episodes import ACTION_SPACE, OBSERVATION_SPACE, Episode, arrays, assert_aligned

from sb3_genoffline import OfflineDataset, combine, split
from sb3_genoffline.errors import UserError

FIRST = [Episode(0, 3, "truncated"), Episode(1, 2, "cut"), Episode(2, 1, "terminated")]
SECOND = [Episode(7, 4, "terminated"), Episode(9, 2, "truncated")]
PENDULUM, HOPPER = gym.spec("Pendulum-v1"), gym.spec("Hopper-v5")


def make_dataset(episodes=FIRST, **changes):
    fields = {
        "observation_space": OBSERVATION_SPACE,
        "action_space": ACTION_SPACE,
        "episode_ends": np.cumsum([e.length for e in episodes]),
        "id": "one",
        "env_spec": HOPPER,
        "eval_env_spec": PENDULUM,
        "ref_min_score": -1.0,
        "ref_max_score": 5.0,
    }
    return OfflineDataset(**arrays(episodes), **fields | changes)


def with_settings(spec, **kwargs):
    changed = copy.deepcopy(spec)
    changed.kwargs = kwargs
    return changed


def kept(dataset):
    return dataset.env_spec, dataset.eval_env_spec, dataset.ref_min_score, dataset.ref_max_score


def assert_holds(dataset, episodes):
    """Every row of these episodes in this order; a cut is no truncation here."""
    lengths = [e.length for e in episodes]
    np.testing.assert_array_equal(dataset.episode_ends, np.cumsum(lengths))
    closed = dataset.truncations.copy()
    closed[dataset.episode_ends - 1] |= ~dataset.terminations[dataset.episode_ends - 1]
    assert_aligned(dataset.replace(truncations=closed), episodes)


def test_combined_episodes_stand_one_after_another_with_envs_and_scores():
    both = combine(make_dataset(), make_dataset(SECOND))
    assert_holds(both, FIRST + SECOND)
    assert kept(both) == (HOPPER, PENDULUM, -1.0, 5.0) and both.id == "one"
    assert both.episode_returns().sum() == make_dataset().rewards.sum() + make_dataset(SECOND).rewards.sum()
    np.testing.assert_array_equal(both.truncations[:6], make_dataset().truncations)
    assert combine(make_dataset(), make_dataset(SECOND), id="two").id == "two"
    assert combine(make_dataset(), make_dataset(SECOND, id="other")).id is None
    assert combine(make_dataset()).fingerprint == make_dataset().fingerprint


def test_what_one_does_not_know_comes_from_another():
    unknown = {"env_spec": None, "eval_env_spec": None, "ref_min_score": None, "ref_max_score": None}
    assert kept(combine(make_dataset(**unknown), make_dataset(SECOND))) == (HOPPER, PENDULUM, -1.0, 5.0)
    assert kept(combine(make_dataset(**unknown), make_dataset(SECOND, **unknown))) == (None, None, None, None)
    same_for_both = combine(make_dataset(eval_env_spec=None), make_dataset(SECOND, eval_env_spec=HOPPER))
    assert same_for_both.eval_env_spec == HOPPER
    assert combine(make_dataset(eval_env_spec=None), make_dataset(SECOND, eval_env_spec=None)).eval_env_spec is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"env_spec": gym.spec("Walker2d-v5")},
            r"dataset 2 \(one\) belongs to Walker2d-v5, but dataset 1 \(one\) to Hopper-v5",
        ),
        ({"eval_env_spec": HOPPER}, r"belongs to Hopper-v5, but dataset 1 \(one\) to Pendulum-v1 \(eval_env_spec\)"),
        ({"eval_env_spec": None}, r"belongs to Hopper-v5, but dataset 1 \(one\) to Pendulum-v1 \(eval_env_spec\)"),
        ({"ref_max_score": 6.0}, r"ref_max_score is 6 in dataset 2 \(one\), but 5 in dataset 1"),
        ({"action_space": spaces.Box(-2, 6, (2,))}, r"action_space of dataset 2 \(one\) differs .*: low\[0\] -1 against -2"),
    ],
)
def test_data_that_do_not_belong_together_are_named(change, message):
    with pytest.raises(UserError, match=message):
        combine(make_dataset(), make_dataset(SECOND, **change))


@pytest.mark.parametrize("other", [gym.spec("Hopper-v4"), with_settings(HOPPER, forward_reward_weight=2.0)])
def test_another_version_or_setting_is_a_warning_and_the_first_is_kept(other):
    with pytest.warns(
        UserWarning, match=r"env_spec of dataset 2 \(one\) (is Hopper-v4|has other settings); that of dataset 1"
    ):
        assert combine(make_dataset(), make_dataset(SECOND, env_spec=other)).env_spec == HOPPER


def test_bounds_are_widened_to_hold_both():
    narrow = make_dataset(observation_space=spaces.Box(-1e6, 1e6, (3,)))
    assert combine(narrow, make_dataset(SECOND)).observation_space == OBSERVATION_SPACE
    with pytest.raises(UserError, match="got no dataset"):
        combine()
    with pytest.raises(UserError, match=r"combine\(\) got a list; it takes datasets one by one: combine\(a, b\)"):
        combine([make_dataset(), make_dataset(SECOND)])


MANY = [Episode(i, 1 + i % 3, "terminated") for i in range(20)]


def numbers(part):
    return [int(i) for i in part.observations[part.episode_starts, 0]]


def test_parts_are_disjoint_whole_and_the_same_for_the_same_seed():
    dataset = make_dataset(MANY)
    train, validation = split(dataset, (0.75, 0.25), seed=1)
    assert (train.n_episodes, validation.n_episodes) == (15, 5)
    assert sorted(numbers(train) + numbers(validation)) == list(range(20))
    for part in (train, validation):
        assert_holds(part, [MANY[i] for i in numbers(part)])
        assert kept(part) == kept(dataset) and part.id == dataset.id
        assert numbers(part) == sorted(numbers(part))
    assert (
        numbers(split(dataset, (0.75, 0.25), seed=1)[0]) == numbers(train) != numbers(split(dataset, (0.75, 0.25), seed=2)[0])
    )
    restored = combine(train, validation)
    assert sorted(numbers(restored)) == list(range(20)) and kept(restored) == kept(dataset)


def test_sizes_are_fractions_or_numbers_of_episodes():
    dataset = make_dataset(MANY)
    assert [part.n_episodes for part in split(dataset, np.array([3, 1, 5]), seed=0)] == [3, 1, 5]
    assert [part.n_episodes for part in split(dataset, [1.0], seed=0)] == [20]
    assert [part.n_episodes for part in split(dataset, [1], seed=0)] == [1]
    assert sum(part.n_episodes for part in split(dataset, [1 / 3] * 3, seed=0)) == 20
    assert [part.n_episodes for part in split(dataset, [0.1] * 10, seed=0)] == [2] * 10


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ([0.5, 0.6], r"add up to 1.1\. None may be negative, fractions add up to 1 at most"),
        ([11, 10], r"add up to 21\. .* numbers of episodes to 20"),
        ([-0.5, 0.6], "None may be negative"),
        ([0.5, 3], "give all fractions"),
        (0.5, r"sizes is 0.5; give one entry per part, such as \(0.9, 0.1\)"),
        ([], r"sizes is \[\]"),
        ([0.99, 0.01], r"sizes\[1\] = 0.01 of 20 episodes is none"),
        ([3, 0], r"sizes\[1\] = 0 of 20 episodes is none"),
    ],
)
def test_sizes_that_do_not_fit_are_named(sizes, message):
    with pytest.raises(UserError, match=message):
        split(make_dataset(MANY), sizes, seed=0)
