"""PointMaze data: the numbers of the environment itself, and a stitching set that never shows what it asks for."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import minari
import numpy as np
import pytest

from sb3_genoffline import load_dataset
from zoo.behavior.pointmaze import GOAL_RADIUS, PointMazes, rollout
from zoo.behavior.waypoints import Routes, Steering
from zoo.collect.make import collect
from zoo.recipes import collectible, load_recipe, pointmaze
from zoo.recipes.pointmaze import BEHAVIOR, REFERENCES, ROOM, A, B, C, environments, names, returns, to_the_goal, wander

STITCH = "genoffline/pointmaze/stitch-v0"


@pytest.fixture(scope="module", autouse=True)
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    folder: Path = tmp_path_factory.mktemp("pointmaze")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(folder / "datasets"))
        patch.setenv("SB3_GENOFFLINE_CACHE", str(folder / "cache"))
        yield


@pytest.fixture(scope="module")
def stitch() -> Any:
    return collect(STITCH, steps=6003, seed=1)


@pytest.fixture(scope="module")
def maze() -> Any:
    copies = PointMazes(environments("stitch")[1], 1)
    yield copies.maze
    copies.close()


def first_seed(seed: int) -> int:
    """What a rollout seeds its first copy with."""
    return int(np.random.SeedSequence([seed]).spawn(2)[0].generate_state(1)[0])


@pytest.mark.parametrize("name", ["umaze", "medium-dense", "stitch"])
def test_the_data_are_what_the_wrapped_environment_gives_for_the_same_actions(name: str) -> None:
    spec = environments(name)[0]
    itinerary = pointmaze.stitch if name == "stitch" else wander
    env, seed = gym.make(spec), first_seed(6)
    ends = []
    for episode in rollout(spec, itinerary, BEHAVIOR, 1207, (6,), n_envs=1):
        assert isinstance(episode.observations, dict) and episode.infos is not None
        observation, info = env.reset(seed=seed)
        for t in range(len(episode.actions) + 1):
            for key, array in episode.observations.items():
                assert np.array_equal(array[t], observation[key]), (key, t)
            assert episode.infos["success"][t] == info["success"]
            if t == len(episode.actions):
                break
            observation, reward, terminated, truncated, info = env.step(episode.actions[t])
            assert episode.rewards[t] == pytest.approx(float(reward), rel=1e-12)
            assert (terminated or truncated) <= (t == len(episode.actions) - 1), "the episode went on after its end"
        ends.append((episode.terminated, episode.truncated, terminated, truncated))
        seed = None
    *whole, last = ends
    assert whole and all(end[:2] == end[2:] for end in whole)
    assert last == (False, True, False, False), "only the episode that collection cut off ends where the environment's goes on"
    assert any(end[0] for end in whole) == (name == "stitch")
    env.close()


def test_rewards_and_success_are_of_the_goal_in_the_observation_and_steps_are_aligned(stitch: Any) -> None:
    assert stitch.total_steps == 6003
    for episode in stitch.iterate_episodes():
        achieved, goal = episode.observations["achieved_goal"], episode.observations["desired_goal"]
        assert len(achieved) == len(episode.infos["success"]) == len(episode.actions) + 1
        near = np.linalg.norm(achieved - goal, axis=1) <= GOAL_RADIUS
        assert np.array_equal(episode.infos["success"], near) and np.array_equal(episode.rewards, near[1:])
        assert (goal == goal[0]).all() and np.array_equal(episode.observations["observation"][:, :2], achieved)
        assert (np.abs(episode.actions) <= 1).all() and episode.actions.dtype == np.float32
        assert np.array_equal(episode.terminations[:-1] | episode.truncations[:-1], np.zeros(len(near) - 2, dtype=bool))
    data = load_dataset(STITCH)
    inside = np.ones(len(data), dtype=bool)
    inside[data.episode_ends - 1] = False
    assert len(data) == 6003 and data.observations.shape == (6003, 8)
    assert np.array_equal(data.next_observations[inside], data.observations[np.flatnonzero(inside) + 1])
    near = np.linalg.norm(data.next_observations[:, :2] - data.next_observations[:, 2:4], axis=1) < GOAL_RADIUS
    assert np.array_equal(near, data.rewards == 1.0) and np.array_equal(near, data.terminations)


def test_no_trajectory_of_the_stitching_set_goes_from_a_to_c(stitch: Any, maze: Any) -> None:
    routes = Routes(maze)
    seen = []
    for episode in stitch.iterate_episodes():
        cells = set(routes.cells_of(episode.observations["achieved_goal"]))
        a = not cells.isdisjoint(routes.numbers[cell] for cell in ROOM)
        b, c = (routes.numbers[cell] in cells for cell in (B, C))
        assert not (a and (c or episode.infos["success"].any() or episode.rewards.any()))
        assert a or b
        seen.append((a and b, b and bool(episode.terminations[-1])))
    assert any(to_b for to_b, _ in seen) and any(to_c for _, to_c in seen)
    assert 0.05 < np.mean([to_c for _, to_c in seen]) < 0.4


def test_the_evaluation_environment_starts_at_a_and_wants_c_after_the_round_trip_to_disk(stitch: Any, maze: Any) -> None:
    data = load_dataset(STITCH)
    for env in (data.make_env(), minari.load_dataset(STITCH).recover_environment(eval_env=True)):
        assert env.spec is not None and env.spec.max_episode_steps == pointmaze.STITCH_LIMIT
        for seed in range(5):
            observation, _ = env.reset(seed=seed)
            if isinstance(observation, dict):
                observation = np.concatenate([observation["achieved_goal"], observation["desired_goal"]])
            for place, cell in ((observation[:2], A), (observation[2:4], C)):
                assert np.abs(place - maze.cell_rowcol_to_xy(cell)).max() <= 0.25 + 1e-6
    starts = {tuple(maze.cell_xy_to_rowcol(row[:2])) for row in data.observations[data.episode_starts]}
    assert starts == {*ROOM, B}
    assert (data.ref_min_score, data.ref_max_score) == REFERENCES["stitch"]


def test_the_same_seed_gives_the_same_data_and_rewards_do_not_change_what_the_controller_does() -> None:
    def arrays(name: str, seed: int) -> list[np.ndarray]:
        episodes = list(load_recipe(f"genoffline/pointmaze/{name}-v0", 900).episodes(seed, 2))
        assert sum(len(episode.rewards) for episode in episodes) == 900
        observations = [episode.observations["observation"] for episode in episodes]  # type: ignore[call-overload]
        return [
            np.concatenate(parts) for parts in (observations, *zip(*((e.actions, e.rewards) for e in episodes), strict=True))
        ]

    first, again, other, dense = arrays("umaze", 1), arrays("umaze", 1), arrays("umaze", 2), arrays("umaze-dense", 1)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[1][:100], other[1][:100])
    assert all(np.array_equal(a, b) for a, b in zip(first[:2], dense[:2], strict=True))
    assert set(first[2]) == {0.0, 1.0} and len(np.unique(dense[2])) > 800


def test_copies_that_are_pushed_about_move_as_the_environment_does() -> None:
    spec = environments("umaze")[0]
    copies, envs = PointMazes(spec, 3), [gym.make(spec).unwrapped for _ in range(3)]
    for i, env in enumerate(envs):
        copies.reset(i, seed=i)
        env.reset(seed=i)
    generator = np.random.default_rng(0)
    for t in range(400):
        if t % 40 == 0:  # long enough to be at full speed, or at a wall
            actions = generator.choice([-1.0, 1.0], (3, 2)).astype(np.float32)
        copies.step(actions)
        states = [env.step(action)[0]["observation"] for env, action in zip(envs, actions, strict=True)]
        assert np.array_equal(copies.states, states)
    copies.close()


@pytest.mark.parametrize("name", ["large", "stitch"])
def test_waypoints_are_a_shortest_way_through_free_cells(name: str) -> None:
    copies = PointMazes(environments(name)[1], 1)
    routes, maze = Routes(copies.maze), copies.maze
    copies.close()
    n = len(routes.centers)
    lengths = np.zeros(n * n, dtype=int)
    places, targets = routes.centers[np.repeat(np.arange(n), n)], routes.centers[np.tile(np.arange(n), n)]
    for _ in range(n):
        ahead = routes.waypoints(places, targets)
        steps = np.abs(ahead - places).sum(axis=1) / maze.maze_size_scaling
        assert np.isin(steps.round(9), (0.0, 1.0)).all(), "no neighbour"
        assert np.array_equal(steps == 0.0, (places == targets).all(axis=1))
        places, lengths = ahead, lengths + steps.round().astype(int)
    assert np.array_equal(places, targets), "a circle"
    lengths = lengths.reshape(n, n)
    assert np.array_equal(lengths, lengths.T)
    assert (lengths[:, None, :] <= lengths[:, :, None] + lengths[None]).all(), "a way over a third cell is shorter"
    if name == "stitch":
        assert lengths[routes.numbers[A], routes.numbers[C]] == 7


@pytest.mark.parametrize("name", names())
def test_a_fresh_measurement_agrees_with_the_reference_returns(name: str) -> None:
    spec, (low, high) = environments(name)[1], REFERENCES[name]
    chance, controller = (returns(spec, who, n_episodes=2, seed=99) for who in (None, to_the_goal))
    spread = max(chance.std(ddof=1), low)  # dense returns of chance spread like an exponential
    assert abs(chance.mean() - low) <= 4 * spread / np.sqrt(2) + 0.03 * high
    assert controller.mean() == pytest.approx(high, rel=0.3)


def test_every_maze_can_be_collected_with_a_million_steps_and_its_references() -> None:
    assert {f"genoffline/pointmaze/{name}-v0" for name in names()} <= set(collectible())
    assert set(REFERENCES) == set(names()) and len(names()) == 8
    recipe = load_recipe("genoffline/pointmaze/large-dense-v0")
    assert recipe.n_steps == 1_000_000 and recipe.env.kwargs["reward_type"] == "dense"
    assert recipe.fingerprint != load_recipe("genoffline/pointmaze/large-v0").fingerprint


def test_a_controller_without_noise_stays_at_the_goal() -> None:
    (episode,) = rollout(environments("umaze")[0], to_the_goal, Steering(), 300, (3,), n_envs=1)
    assert episode.infos is not None
    first = int(episode.infos["success"].argmax())
    assert 0 < first < 150 and episode.infos["success"][first + 20 :].all() and episode.truncated
