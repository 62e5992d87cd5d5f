"""AntMaze: D4RL's files with their traps, Minari's sets, and an environment for each."""

import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import h5py
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec

from sb3_genoffline import load_dataset
from sb3_genoffline.data import antmaze
from sb3_genoffline.data.antmaze import LAYOUTS, canonical_id, register_envs, success_rate
from sb3_genoffline.data.scores import reference_key, scored_by_success
from sb3_genoffline.data.transforms import transform_rewards
from sb3_genoffline.errors import UserError

WALK = 0.2  # m a row


def log(*lengths: int, goal_at: dict[int, int] | None = None) -> dict[str, np.ndarray]:
    """
    Episodes in D4RL's layout that walk along x, each from another place; time-outs where they end.

    :param lengths: rows of each episode
    :param goal_at: row to number of rows for which the ant is at the goal from there on, while the log goes on
    """
    n = sum(lengths)
    ends = np.cumsum(lengths) - 1
    observations = np.zeros((n, 29), np.float32)
    observations[:, 0] = np.concatenate([10 * k + WALK * np.arange(length) for k, length in enumerate(lengths)])
    observations[:, 15] = WALK / 0.1  # D4RL's step is 0.1 s
    rewards = np.zeros(n, np.float32)
    for row, many in (goal_at or {}).items():
        rewards[row : row + many] = 1
    actions = np.random.default_rng(0).uniform(-1, 1, (n, 8)).astype(np.float32)
    return {
        "observations": observations,
        "actions": actions,
        "rewards": rewards,
        "terminals": rewards > 0,
        "timeouts": np.isin(np.arange(n), ends),
        "infos/goal": np.zeros((n, 2)),
        "infos/qpos": observations[:, :15],
        "infos/qvel": observations[:, 15:],
    }


def write(path: Path, arrays: dict[str, np.ndarray]) -> Path:
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file[name] = array
    return path


@pytest.mark.parametrize(
    ("stem", "expected"),
    [
        ("antmaze-umaze-v0", "antmaze-umaze-v0"),
        ("antmaze-large-diverse-v2", "antmaze-large-diverse-v2"),
        ("antmaze_medium-play-v2", "antmaze-medium-play-v2"),
        ("Ant_maze_u-maze_noisy_multistart_False_multigoal_False_sparse", "antmaze-umaze-v0"),
        ("Ant_maze_u-maze_noisy_multistart_True_multigoal_True_sparse_fixed", "antmaze-umaze-diverse-v2"),
        ("Ant_maze_big-maze_noisy_multistart_True_multigoal_False_sparse_fixed", "antmaze-medium-play-v2"),
        ("Ant_maze_hardest-maze_noisy_multistart_True_multigoal_True_sparse", "antmaze-large-diverse-v0"),
        ("antmaze-huge-v2", None),
        ("hopper-medium-v2", None),
    ],
)
def test_files_are_known_by_d4rls_ids_and_by_the_names_on_its_server(stem: str, expected: str | None) -> None:
    assert canonical_id(stem) == expected


def test_a_file_from_d4rls_server_brings_id_scores_and_environment(tmp_path: Path) -> None:
    path = write(tmp_path / "Ant_maze_u-maze_noisy_multistart_False_multigoal_False_sparse_fixed.hdf5", log(20, 20))
    dataset = load_dataset(path)
    assert dataset.id == "antmaze-umaze-v2"
    assert (dataset.ref_min_score, dataset.ref_max_score) == (0, 1)
    assert dataset.env_spec is not None and dataset.env_spec.id == "genoffline/AntMaze_UMaze-v0"
    assert (dataset.env_spec.max_episode_steps, dataset.env_spec.kwargs["body"]) == (700, "d4rl")


def test_rows_at_the_goal_are_terminations_and_the_rows_behind_them_are_kept(tmp_path: Path) -> None:
    raw = log(12, 12, 12, goal_at={4: 2, 30: 1})  # 0 leaves the goal again, 1 never gets there
    dataset = load_dataset(write(tmp_path / "antmaze-umaze-v2.hdf5", raw))
    kept = np.setdiff1d(np.arange(36), [11, 23, 35])  # a time-out has no next observation
    np.testing.assert_array_equal(dataset.observations, raw["observations"][kept])
    np.testing.assert_array_equal(np.flatnonzero(dataset.terminations), np.searchsorted(kept, [4, 5, 30]))
    live = ~dataset.terminations
    steps = dataset.next_observations[live, 0] - dataset.observations[live, 0]
    np.testing.assert_allclose(steps, WALK, atol=1e-5)
    np.testing.assert_array_equal(dataset.episode_returns(), [1, 1, 0, 0, 1, 0])  # pieces
    assert success_rate(dataset) == pytest.approx(2 / 3)  # logged episodes


@pytest.mark.parametrize("shift", [1, 3, -2])
def test_wrong_time_outs_of_the_v0_sets_do_not_join_two_episodes(tmp_path: Path, shift: int) -> None:
    raw = log(12, 12, 12)
    raw["timeouts"] = np.roll(raw["timeouts"], shift)
    with pytest.warns(UserWarning, match=r"more than 1 m away one row later in 2 rows .* first in row 11: wrong flags"):
        dataset = load_dataset(write(tmp_path / "antmaze-medium-play-v0.hdf5", raw))
    np.testing.assert_allclose(dataset.next_observations[:, 0] - dataset.observations[:, 0], WALK, atol=1e-5)
    assert not np.isin(raw["observations"][[11, 23], 0], dataset.observations[:, 0]).any()
    assert dataset.truncations[dataset.episode_ends[:-1] - 1].all()


@pytest.mark.parametrize("timeouts", [True, False])
def test_episodes_that_end_at_the_goal_keep_their_successes(
    tmp_path: Path, recwarn: pytest.WarningsRecorder, timeouts: bool
) -> None:
    raw = log(20, 20, 20, goal_at={19: 1, 59: 1})
    raw["timeouts"] &= ~raw["terminals"]
    if not timeouts:
        del raw["timeouts"]
    dataset = load_dataset(write(tmp_path / "antmaze-umaze-v2.hdf5", raw))
    kept = np.setdiff1d(np.arange(60), [39])
    np.testing.assert_array_equal(dataset.observations, raw["observations"][kept])
    np.testing.assert_array_equal(dataset.episode_ends, [20, 39, 59])
    np.testing.assert_array_equal(np.flatnonzero(dataset.terminations), [19, 58])
    assert success_rate(dataset) == pytest.approx(2 / 3)
    assert not [warning for warning in recwarn if issubclass(warning.category, UserWarning)]


def test_right_flags_warn_of_nothing_and_missing_ones_are_found_by_the_jumps(
    tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    raw = log(12, 12)
    flagged = load_dataset(write(tmp_path / "antmaze-umaze-v2.hdf5", raw))
    del raw["timeouts"]
    found = load_dataset(write(tmp_path / "antmaze-umaze-v0.hdf5", raw))
    np.testing.assert_array_equal(found.observations, flagged.observations)
    np.testing.assert_array_equal(found.episode_ends, flagged.episode_ends)
    assert not [warning for warning in recwarn if issubclass(warning.category, UserWarning)]


def test_the_papers_transforms_make_these_rewards_of_a_maze(tmp_path: Path) -> None:
    dataset = load_dataset(write(tmp_path / "antmaze-umaze-v2.hdf5", log(4, goal_at={1: 1})))
    expected = {
        None: [0, 1, 0],
        "iql_antmaze": [-1, 0, -1],
        "cql_antmaze": [-2, 2, -2],
        "antmaze": [-0.5, 1.5, -0.5],
        "antmaze100": [0, 100, 0],
        "iql_locomotion": [0, 1000, 0],  # returns are 0 or 1
    }
    for name, rewards in expected.items():
        np.testing.assert_array_equal(transform_rewards(dataset, name).rewards, rewards)


@pytest.mark.parametrize(
    ("maze", "place", "wall", "free"),  # cells of 4 m, counted from the start
    [
        ("umaze", (0, 8), (4, 4), (8, 4)),
        ("medium", (20, 20), (8, 0), (8, 20)),
        ("large", (32, 24), (16, 0), (16, 24)),
    ],
)
def test_the_goal_lies_where_d4rl_evaluates_and_a_way_leads_there(
    maze: str, place: tuple[int, int], wall: tuple[int, int], free: tuple[int, int]
) -> None:
    env: Any = gym.make(LAYOUTS[maze].env_id)
    observation, info = env.reset(seed=0)
    inner = env.unwrapped
    assert np.abs(observation[:2]).max() <= 0.1 and not info["success"]
    goals = [inner.goal - place, (env.reset()[0], inner.goal - place)[1]]
    assert all(((goal >= 0) & (goal <= 1)).all() for goal in goals) and not np.allclose(*goals)
    cells = {tuple(np.round(p).astype(int)) for p in _free_places(inner)}
    reached, frontier = {(0, 0)}, [(0, 0)]
    for x, y in frontier:
        for step in ((x + 4, y), (x - 4, y), (x, y + 4), (x, y - 4)):
            if step in cells and step not in reached:
                reached.add(step)
                frontier.append(step)
    assert place in reached and wall not in cells and free in cells
    env.close()


def _free_places(inner: Any) -> list[np.ndarray]:
    maze = inner._maze.maze
    return [
        maze.cell_rowcol_to_xy((i, j)) - inner.origin
        for i, row in enumerate(maze.maze_map)
        for j, cell in enumerate(row)
        if cell != 1
    ]


def test_an_episode_ends_at_the_goal_with_reward_one_and_observes_in_d4rls_order() -> None:
    env: Any = gym.make("genoffline/AntMaze_UMaze-v0")
    env.reset(seed=1)
    inner = env.unwrapped
    observation, reward, terminated, truncated, info = env.step(np.zeros(8, np.float32))
    data = inner.data
    np.testing.assert_allclose(observation[:2] + inner.origin, data.qpos[:2])
    np.testing.assert_allclose(observation[2:], np.concatenate([data.qpos[2:], data.qvel]))
    assert (reward, terminated, truncated, info["success"]) == (0, False, False, False)
    for offset, expected in ((0.7, False), (0.3, True)):
        qpos = data.qpos.copy()
        qpos[:2] = inner.origin + inner.goal + [offset, 0]
        inner._maze.ant_env.set_state(qpos, np.zeros(14))
        _, reward, terminated, _, info = env.step(np.zeros(8, np.float32))
        assert (reward, terminated, info["success"]) == (float(expected), expected, expected)
    env.close()


@pytest.mark.parametrize("body", ["d4rl", "gymnasium"])
def test_data_are_evaluated_on_the_body_they_were_recorded_with(tmp_path: Path, body: str) -> None:
    env = gym.make("genoffline/AntMaze_UMaze-v0", body=body)
    raw, rng = log(40), np.random.default_rng(0)
    observation, _ = env.reset(seed=0)
    for row in range(40):
        raw["observations"][row] = observation
        observation = env.step(raw["actions"][row] if rng.random() < 0.9 else np.zeros(8, np.float32))[0]
    env.close()
    dataset = load_dataset(write(tmp_path / "antmaze-umaze-v2.hdf5", raw))
    made: Any = dataset.make_env()
    assert made.observation_space.shape == (29,) and made.observation_space.dtype == np.float32
    assert made.unwrapped.model.actuator_gear[0, 0] == (30 if body == "d4rl" else 150)
    assert made.unwrapped._maze.ant_env.dt == pytest.approx(0.1 if body == "d4rl" else 0.05)
    made.close()


def test_without_gymnasium_robotics_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = load_dataset(write(tmp_path / "antmaze-umaze-v2.hdf5", log(10)))
    for name in [name for name in sys.modules if name.startswith("gymnasium_robotics")]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, "gymnasium_robotics", None)
    with pytest.raises(UserError, match="pip install gymnasium-robotics"):
        dataset.make_env()
    monkeypatch.setattr(gym.envs.registration, "registry", registry := dict[str, EnvSpec]())
    monkeypatch.setattr(gym, "registry", registry)
    monkeypatch.setattr(antmaze.importlib.util, "find_spec", lambda name: None)
    register_envs()
    assert not registry
    monkeypatch.undo()
    assert "genoffline/AntMaze_UMaze-v0" in gym.registry


def test_a_minari_set_keeps_its_goals_and_brings_its_environment(tmp_path: Path) -> None:
    import gymnasium_robotics
    import minari
    from minari.data_collector import EpisodeBuffer

    gym.register_envs(gymnasium_robotics)
    env = gym.make("AntMaze_UMaze-v4", continuing_task=True)
    buffers = []
    for number in range(3):
        observation, _ = env.reset(seed=number)
        rows, actions = [observation], env.action_space.sample()[None].repeat(5, axis=0)
        rows += [env.step(action)[0] for action in actions]
        rewards = [0.0, 0.0, 1.0, 1.0, 0.0] if number == 1 else [0.0] * 5  # the task goes on at the goal and behind it
        buffers.append(
            EpisodeBuffer(
                observations={key: np.array([row[key] for row in rows]) for key in observation},
                actions=actions,
                rewards=rewards,
                terminations=[False] * 5,
                truncations=[False] * 4 + [True],
            )
        )
    env.close()
    minari.create_dataset_from_buffers(
        "D4RL/antmaze/umaze-v1", buffers, env="AntMaze_UMaze-v4", eval_env="AntMaze_UMaze-v4", algorithm_name="random"
    )
    dataset = load_dataset("D4RL/antmaze/umaze-v1")
    first = buffers[0].observations
    expected = np.concatenate([first[key][0] for key in ("achieved_goal", "desired_goal", "observation")])
    np.testing.assert_allclose(dataset.observations[0], expected, rtol=1e-6)
    assert (len(dataset), dataset.n_episodes) == (15, 3) and not dataset.terminations.any()
    assert success_rate(dataset) == pytest.approx(1 / 3)
    assert (dataset.ref_min_score, dataset.ref_max_score) == (0, 1)
    made = dataset.make_env()
    assert made.observation_space.shape == (31,)
    assert made.spec is not None and made.spec.max_episode_steps == 700
    made.close()


def test_dense_rewards_count_as_success_within_the_goals_radius() -> None:
    def data(*distances: float) -> Any:
        observations = np.arange(2.0 * len(distances)).reshape(-1, 2)
        return load_dataset(
            {
                "observations": observations,
                "next_observations": observations + 0.1,
                "actions": np.zeros((len(distances), 2)),
                "rewards": np.exp(-np.array(distances)),
                "terminations": np.zeros(len(distances)),
                "truncations": np.ones(len(distances)),
            }
        )

    assert success_rate(data(0.45, 0.46, 3.0, 0.1)) == 0.5


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("antmaze-umaze-v2", True),
        ("D4RL/antmaze/umaze-v1", True),
        ("genoffline/antmaze/umaze-v0", True),
        ("genoffline/AntMaze_Large-v0", True),
        ("AntMaze_UMaze-v4", True),
        ("D4RL/pointmaze/umaze-dense-v2", True),
        ("genoffline/pointmaze/stitch-v0", True),
        ("PointMaze_MediumDense-v3", True),
        ("maze2d-umaze-v1", False),
        ("Ant-v5", False),
        ("genoffline/hopper/expert-v1", False),
    ],
)
def test_mazes_with_a_goal_are_scored_by_success(name: str, expected: bool) -> None:
    assert scored_by_success(None, name) == expected
    assert reference_key(name) != "antmaze" or expected
