import json

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from labelled_episodes import ACTION_SPACE, OBSERVATION_SPACE, Episode, arrays

from sb3_genoffline.data import (
    REFERENCE,
    REWARD_TRANSFORMS,
    OfflineDataset,
    ScoreScale,
    clip_actions,
    load_dataset,
    normalized_score,
    reference_scores,
    reward_affine,
    scale_actions,
    transform_rewards,
    unscale_actions,
)
from sb3_genoffline.errors import UserError


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("Hopper-v5", "hopper"),
        ("HalfCheetah-v4", "halfcheetah"),
        ("Walker2d-v5", "walker2d"),
        ("Ant-v5", "ant"),
        ("AntMaze_UMaze-v5", "antmaze"),
        ("AntMaze_Large_Diverse_GR-v4", "antmaze"),
        ("AdroitHandPen-v1", "pen"),
        ("FrankaKitchen-v1", "kitchen"),
        ("mujoco/hopper/medium-v0", "hopper"),
        ("mujoco/halfcheetah/expert-v2", "halfcheetah"),
        ("D4RL/antmaze/large-play-v1", "antmaze"),
        ("D4RL/pen/human-v2", "pen"),
        ("D4RL/kitchen/mixed-v2", "kitchen"),
        ("genoffline/hopper/medium-replay-v1", "hopper"),
        ("genoffline/walker2d/expert-v1", "walker2d"),
        ("hopper-medium-v2", "hopper"),
        ("hopper_medium-v2.hdf5", "hopper"),
        ("halfcheetah-medium-expert-v2", "halfcheetah"),
        ("walker2d_full_replay-v2.hdf5", "walker2d"),
        ("ant-medium-replay-v2", "ant"),
        ("antmaze-umaze-v0", "antmaze"),
        ("antmaze-large-diverse-v2", "antmaze"),
        ("door-cloned-v1", "door"),
        ("relocate-expert-v1", "relocate"),
        ("hammer-human-v1", "hammer"),
        ("kitchen-complete-v0", "kitchen"),
        ("maze2d-umaze-v1", "maze2d-umaze"),
        ("maze2d-large-v1", "maze2d-large"),
        ("hopper_medium.hdf5", "hopper"),
        ("hopper_mixed.hdf5", "hopper"),
        ("walker_mixed.hdf5", "walker2d"),
        ("data/ant_medium_expert", "ant"),
        ("maze2d-umaze-sparse-v1.hdf5", "maze2d-umaze"),
        ("pen-v0_demos_clipped.hdf5", "pen"),
        ("relocate-demos-v0-bc-combined.hdf5", "relocate"),
        ("mini_kitchen_microwave_kettle_light_slider-v0.hdf5", "kitchen"),
    ],
)
def test_both_worlds_names_find_their_reference(name, key):
    assert reference_scores(name) == REFERENCE[key][:2]


@pytest.mark.parametrize(
    "name",
    [
        "colony/ant/x-v0",
        "Pendulum-v1",
        "hopper",
        "my_hopper_medium.hdf5",
        "PointMaze_UMaze-v3",
        "maze2d-umaze-dense-v1",
        "maze2d-eval-umaze-sparse-v1.hdf5",
        "",
    ],
)
def test_names_that_are_not_surely_known_have_no_reference(name):
    with pytest.raises(UserError, match=f"No reference returns are known for '{name}'. Known are .* halfcheetah, hopper"):
        reference_scores(name)


def test_every_reference_says_where_it_comes_from():
    for reference in REFERENCE.values():
        assert reference.ref_min_score < reference.ref_max_score and "D4RL" in reference.source


def test_scores_are_printed_as_papers_do():
    np.testing.assert_allclose(normalized_score("Hopper-v5", [-20.272305, 3234.3, 1607.0138475]), [0, 100, 50])
    assert normalized_score("antmaze-umaze-v0", 1.0) == 100


def test_a_dataset_without_references_says_how_to_give_them():
    dataset = load_dataset(arrays([Episode(0, 2, "terminated")]) | {"action_space": ACTION_SPACE})
    with pytest.raises(UserError, match=r"reference returns of this dataset are not known.*replace\(ref_min_score="):
        dataset.normalized_score([1.0])
    assert dataset.replace(id="Hopper-v5").normalized_score(3234.3) == 100
    assert dataset.replace(ref_min_score=1, ref_max_score=3).normalized_score(2.0) == 50
    with pytest.raises(UserError, match=r"ref_max_score = 1.0 must be above ref_min_score = 3.0"):
        dataset.replace(ref_min_score=3, ref_max_score=1)


@pytest.mark.parametrize(
    ("low", "high", "message"),
    [
        (2.0, 2.0, "ref_max_score = 2.0 must be above ref_min_score = 2.0: scores are normalised by their difference"),
        (np.nan, 1.0, "ref_min_score = nan is not finite"),
        (None, np.inf, "ref_max_score = inf is not finite"),
        ("x", 1.0, "ref_min_score = 'x' is not a number"),
        (None, True, "ref_max_score = True is not a number"),
        (np.zeros(2), 1.0, r"ref_min_score = array\(\[0., 0.\]\) is not a number"),
        (None, 10**400, "ref_max_score = 1000.* is not a number"),
    ],
)
def test_references_that_no_score_can_be_normalised_with_are_refused_when_the_dataset_is_made(low, high, message):
    dataset = load_dataset(arrays([Episode(0, 2, "terminated")]) | {"action_space": ACTION_SPACE})
    with pytest.raises(UserError, match=message):
        dataset.replace(ref_min_score=low, ref_max_score=high)


def test_a_scale_scores_returns_or_successes():
    np.testing.assert_array_equal(ScoreScale("return", -10, 30).of([[-10, 30, 10]]), [[0, 100, 50]])
    np.testing.assert_array_equal(ScoreScale("success").of([7.0, 0.0], [True, False]), [100, 0])
    assert ScoreScale("success").of(3.0, 0.25) == 25
    with pytest.raises(UserError, match="pass successes="):
        ScoreScale("success").of([1.0])
    with pytest.raises(UserError, match="kind='regret' is not known"):
        ScoreScale("regret")


def test_a_datasets_scale_goes_by_its_names_then_by_its_references():
    dataset = load_dataset(arrays([Episode(0, 2, "terminated")]) | {"action_space": ACTION_SPACE})
    assert dataset.score_scale is None and dataset.replace(ref_min_score=1).score_scale is None
    assert dataset.replace(ref_min_score=1, ref_max_score=3).score_scale == ScoreScale("return", 1, 3)
    maze = dataset.replace(id="D4RL/pointmaze/umaze-v2", ref_min_score=1, ref_max_score=3)
    assert maze.score_scale == ScoreScale("success") == dataset.replace(id="antmaze-umaze-v2").score_scale
    spec = gym.envs.registration.EnvSpec("AntMaze_UMaze-v5", entry_point="nowhere:Env")
    assert dataset.replace(eval_env_spec=spec).score_scale == ScoreScale("success")


def test_a_summary_is_plain_data_and_scores_as_the_scale_does():
    dataset = with_rewards([1.0, 2.0, 6.0], [2, 3]).replace(id="a-v0")
    assert json.loads(json.dumps(dataset.summary())) == {
        "id": "a-v0",
        "fingerprint": dataset.fingerprint,
        "n_transitions": 3,
        "n_episodes": 2,
        "mean_return": 4.5,
        "success_rate": None,
        "normalized_score": None,
        "ref_min_score": None,
        "ref_max_score": None,
    }
    summary = dataset.replace(ref_min_score=0, ref_max_score=9).summary()
    assert (summary["normalized_score"], summary["ref_max_score"]) == (50.0, 9.0)
    maze = with_rewards([0.0, 1.0, 0.0, 0.0], [2, 4]).replace(id="genoffline/pointmaze/umaze-v0").summary()
    assert (maze["success_rate"], maze["normalized_score"], maze["mean_return"]) == (0.5, 50.0, 0.5)


def with_rewards(rewards, ends):
    n = len(rewards)
    return OfflineDataset(
        observations=np.zeros((n, 3)),
        actions=np.zeros((n, 2)),
        rewards=rewards,
        next_observations=np.zeros((n, 3)),
        terminations=np.zeros(n),
        truncations=np.zeros(n),
        observation_space=OBSERVATION_SPACE,
        action_space=ACTION_SPACE,
        episode_ends=ends,
    )


def test_trajectory_scaling_divides_by_the_spread_of_returns():
    dataset = with_rewards([1, 1, 1, 2, 0, 0, 5], [3, 5, 7])
    np.testing.assert_array_equal(dataset.episode_returns(), [3, 2, 5])
    scaled = transform_rewards(dataset, "iql_locomotion").rewards
    np.testing.assert_allclose(scaled, [1000 / 3, 1000 / 3, 1000 / 3, 2000 / 3, 0, 0, 5000 / 3], rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "scale", "shift"),
    [
        ("iql_locomotion", 1000 / 3, 0),
        ("traj_normalize", 2 / 3, 0),  # mean length 7/3, whole part 2
        (
            "reward_normalize",
            1 / np.std([1, 1, 1, 2, 0, 0, 5]),
            -np.mean([1, 1, 1, 2, 0, 0, 5]) / np.std([1, 1, 1, 2, 0, 0, 5]),
        ),
        ("iql_antmaze", 1, -1),
        ("cql_antmaze", 4, -2),
        ("antmaze", 2, -0.5),
        ("antmaze100", 100, 0),
        (None, 1, 0),
    ],
)
def test_reward_transforms_are_these_affine_maps(name, scale, shift):
    dataset = with_rewards([1, 1, 1, 2, 0, 0, 5], [3, 5, 7])
    np.testing.assert_allclose(reward_affine(dataset, name), (scale, shift), rtol=1e-12)
    transformed = transform_rewards(dataset, name)
    np.testing.assert_allclose(transformed.rewards, scale * dataset.rewards + shift, rtol=1e-6, atol=1e-6)
    assert transformed.observations is dataset.observations
    assert name is None or name in REWARD_TRANSFORMS


@pytest.mark.parametrize("name", ["iql_locomotion", "traj_normalize"])
def test_no_spread_of_returns_is_an_error(name):
    with pytest.raises(
        ValueError, match=rf"'{name}' divides by the spread of the episode returns.* all 2 episodes have return 3"
    ):
        reward_affine(with_rewards([1, 2, 3], [2, 3]), name)
    with pytest.raises(UserError, match="the only episode has return 6"):
        reward_affine(with_rewards([1, 2, 3], [3]), name)


def test_constant_rewards_cannot_be_standardised():
    with pytest.raises(UserError, match=r"'reward_normalize' divides by the standard deviation .* all 3 rewards are 0.1"):
        reward_affine(with_rewards([0.1, 0.1, 0.1], [2, 3]), "reward_normalize")


def test_an_unknown_transform_is_named_with_those_that_exist():
    with pytest.raises(
        ValueError, match=r"reward transform 'iql' does not exist; choose None or one of iql_locomotion, traj_"
    ):
        reward_affine(with_rewards([1, 2], [2]), "iql")


def test_clipped_actions_stay_off_the_edge():
    actions = clip_actions(np.array([-1.0, -0.5, 0.99999, 1.0]))
    assert actions.dtype == np.float32
    assert np.abs(actions.astype(np.float64)).max() <= 1 - 1e-5
    assert actions[1] == -0.5
    for bound in (0.1, 0.3, 0.7, 1 - 1e-7):
        assert float(clip_actions(np.ones(1), bound)[0]) <= bound


def test_actions_are_scaled_to_the_unit_box_and_back():
    rng = np.random.default_rng(0)
    actions = rng.uniform(ACTION_SPACE.low, ACTION_SPACE.high, (1000, 2)).astype(np.float32)
    scaled = scale_actions(actions, ACTION_SPACE)
    assert scaled.dtype == np.float32 and np.abs(scaled).max() <= 1
    np.testing.assert_allclose(unscale_actions(scaled, ACTION_SPACE), actions, atol=1e-6)
    np.testing.assert_array_equal(
        scale_actions(np.stack([ACTION_SPACE.low, ACTION_SPACE.high]), ACTION_SPACE), [[-1, -1], [1, 1]]
    )
    unit = spaces.Box(-1, 1, (2,))
    np.testing.assert_array_equal(scale_actions(scaled, unit), scaled)


def test_scaled_actions_stay_in_the_box_whatever_is_given():
    space = spaces.Box(0.0, 2.0, (1,))
    np.testing.assert_array_equal(scale_actions([[-0.1], [1.0], [2.1]], space), np.float32([[-1], [0], [1]]))
