"""The picture of a maze: the data's own trajectories on the data's own map, and agents' episodes beside them."""

import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import gymnasium as gym
import h5py
import numpy as np
import pytest
from gymnasium import spaces

from sb3_genoffline import Diffuser, load_dataset
from sb3_genoffline.registry import load_agent
from zoo.__main__ import main
from zoo.collect.make import collect
from zoo.plot.figures import new_figure
from zoo.plot.maze import draw_data, draw_map, episode_paths, map_of, plot_maze, walk
from zoo.plot.plans import plans_from
from zoo.runs.hyperparameters import load_hyperparameters
from zoo.runs.scoring import EVAL_SEED

STITCH = "genoffline/pointmaze/stitch-v0"
TINY = ["-params", "n_critics:2", "n_q_samples:1", "policy_kwargs:dict(net_arch=[8])", "batch_size:8"]


@pytest.fixture(scope="module", autouse=True)
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder: Path = tmp_path_factory.mktemp("maze")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(folder / "datasets"))
        patch.setenv("SB3_GENOFFLINE_CACHE", str(folder / "cache"))
        collect(STITCH, steps=4000)
        yield folder


@pytest.fixture(scope="module")
def run(root: Path) -> Path:
    """Folder of a run of three updates."""
    main(
        [
            "train",
            "--dataset",
            STITCH,
            "--profile",
            "tiny",
            "-n",
            "3",
            "--eval-freq",
            "0",
            "--seed",
            "0",
            "-f",
            str(root / "logs"),
            *TINY,
        ]
    )
    return root / "logs" / "dac" / "genoffline-pointmaze-stitch-v0_1"


@pytest.fixture(scope="module")
def maze() -> Any:
    env: Any = load_dataset(STITCH).make_env()
    env.close()
    return env.unwrapped.maze


def test_paths_are_whole_episodes_in_the_plane() -> None:
    data = load_dataset(STITCH)
    first, third = episode_paths(data, np.array([0, 2]))
    lengths = data.episode_lengths()
    assert first.shape == (lengths[0] + 1, 2) and third.shape == (lengths[2] + 1, 2)
    assert np.array_equal(third[:-1], data.observations[lengths[:2].sum() : lengths[:3].sum(), :2])
    assert np.array_equal(third[-1], data.next_observations[lengths[:3].sum() - 1, :2])


def test_walls_are_dark_where_the_ball_cannot_be_and_start_and_goal_are_marked(maze: Any) -> None:
    data = load_dataset(STITCH)
    (axes,) = new_figure(1, 4.0, 4.0)[1]
    draw_map(axes, maze)
    (image,) = axes.images
    left, right, bottom, top = image.get_extent()
    assert (right - left, top - bottom) == (7.0, 6.0)
    shades = np.asarray(image.get_array())
    columns, rows = ((data.observations[:, :2] - [left, top]) * [1, -1]).astype(int).T
    assert (shades[rows, columns] == 255).all() and (shades != 255).any()
    marks = {collection.get_label(): np.asarray(collection.get_offsets()) for collection in axes.collections}
    assert marks["start of the task"].tolist() == [[2.0, -1.5]] and marks["goal of the task"].tolist() == [[2.0, 1.5]]


def test_d4rls_ants_walk_on_their_own_map_from_its_start_to_its_goal(tmp_path: Path) -> None:
    corners = np.array([[0, 0], [8, 0], [8, 8], [0, 8]], dtype=float)  # D4RL's U-maze, whose origin is the start
    way = np.concatenate([np.linspace(a, b, 10, endpoint=False) for a, b in pairwise(corners)] + [corners[-1:]])
    states = np.zeros((35, 29))
    states[:, :2] = np.concatenate([way, np.repeat(corners[-1:], 4, axis=0)])  # the log goes on at the goal
    at_goal = np.arange(35) >= 30
    with h5py.File(tmp_path / "antmaze-umaze-v2.hdf5", "w") as file:
        file["observations"], file["actions"] = states, np.zeros((35, 8))
        file["rewards"], file["terminals"] = at_goal.astype(float), at_goal
        file["timeouts"] = np.arange(35) == 34
    data = load_dataset(str(tmp_path / "antmaze-umaze-v2.hdf5"))
    known = map_of(data.make_env())
    assert known is not None
    maze, origin = known
    (axes,) = new_figure(1, 4.0, 4.0)[1]
    draw_map(axes, maze)
    (image,) = axes.images
    left, right, bottom, top = image.get_extent()
    columns, rows = ((way + origin - [left, top]) / [right - left, bottom - top] * 5).astype(int).T
    shades = np.asarray(image.get_array())
    assert (shades[rows, columns] == 255).all() and (shades == 255).all(axis=2).sum() == 7, "the way takes all free cells"
    marks = {collection.get_label(): np.asarray(collection.get_offsets())[0] for collection in axes.collections}
    assert np.array_equal(marks["start of the task"] - origin, corners[0])
    assert np.array_equal(marks["goal of the task"] - origin, corners[-1])
    plot_maze(data, tmp_path / "ant.png")
    assert json.loads((tmp_path / "ant.json").read_text())["episodes_drawn"] == 1 < data.n_episodes


def draw(maze: Any, paths: list[np.ndarray], returns: np.ndarray, color: str) -> tuple[Any, Any, list[str]]:
    """Figure, lines and the legend's texts."""
    figure, (axes,) = new_figure(1, 4.0, 4.0)
    draw_data(figure, axes, maze, paths, returns, color)
    assert len(axes.collections[-1].get_segments()) == len(paths)
    return figure, axes.collections[-1], [text.get_text() for text in axes.get_legend().get_texts()]


def test_few_returns_and_starts_are_told_apart_by_colors_many_returns_by_a_scale(maze: Any) -> None:
    data = load_dataset(STITCH)
    paths, returns = episode_paths(data, np.arange(data.n_episodes)), data.episode_returns()
    _, lines, texts = draw(maze, paths, returns, "return")
    shades, good = np.array(lines.get_colors()), returns == 1.0
    assert (shades[good] == shades[good][0]).all() and not (shades[~good] == shades[good][0]).all(axis=1).any()
    assert {f"{good.sum()} with return 1", f"{(~good).sum()} with return 0"} < set(texts)
    _, lines, texts = draw(maze, paths, returns, "start")
    from_b = np.array([abs(path[0][1] - 0.5) < 0.5 for path in paths])
    shades = np.array(lines.get_colors())
    assert (shades[from_b] == shades[from_b][0]).all() and not (shades[~from_b] == shades[from_b][0]).all(axis=1).any()
    assert f"{from_b.sum()} with start in cell (2, 3)" in texts
    figure, lines, _ = draw(maze, paths * 2, np.arange(2.0 * len(paths))[::-1], "return")
    assert len(figure.axes) == 2 and np.asarray(lines.get_array()).tolist() == list(range(2 * len(paths)))
    assert np.array_equal(lines.get_segments()[0], paths[-1]), "the colors belong to other paths"
    with pytest.raises(ValueError, match=r"start in 10 cells, too many colors to tell apart: use --color return"):
        cells = [(i, j) for i, row in enumerate(maze.maze_map) for j, cell in enumerate(row) if cell != 1][:10]
        draw(maze, [maze.cell_rowcol_to_xy(np.array(cell))[None] for cell in cells], np.zeros(10), "start")


class ToTheGoal:
    """In the place of an agent: it goes the way that no episode of the data goes."""

    num_timesteps = 0
    policy = property(lambda self: self)
    observation_space, action_space = spaces.Box(-np.inf, np.inf, (8,)), spaces.Box(-1, 1, (2,))

    def seed_acting(self, seed: int) -> None: ...

    def observe_rewards(self, state: None, rewards: float, place: int) -> None: ...

    def predict(self, observations: np.ndarray, state: None, deterministic: bool) -> tuple[np.ndarray, None]:
        assert deterministic
        x, y = observations[:, 0], observations[:, 1]
        around_the_corner = np.where((x < 0.2)[:, None], [0.0, 1.5], [0.0, -0.5])
        targets = np.where((y > 1.3)[:, None], observations[:, 2:4], around_the_corner)
        return np.clip(10.0 * (targets - observations[:, :2]) - observations[:, 6:8], -1.0, 1.0).astype(np.float32), None


def test_a_walk_ends_with_its_episode_and_knows_whether_it_arrived() -> None:
    data = load_dataset(STITCH)
    walks = walk(ToTheGoal(), data.make_env, 2)  # type: ignore[arg-type]
    for number, one in enumerate(walks):
        assert one.success and one.total == 1.0 and len(one.path) < 250
        assert np.array_equal(one.path[0], data.make_env().reset(seed=EVAL_SEED + number)[0][:2])
        assert one.path[0][1] < -1.0 and (one.path[-1] > 1.0).all()


def test_the_command_draws_data_and_agents_and_writes_the_numbers(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--dataset", STITCH, "-n", "5", "--n-walks", "2", "-o", str(tmp_path / "out" / "maze.png")]
    main(["plot", "maze", *flags, "--agent", str(run), str(run / "genoffline-pointmaze-stitch-v0.zip")])
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["maze.json", "maze.png", "maze.svg"]
    numbers = json.loads((tmp_path / "out" / "maze.json").read_text())
    assert numbers["episodes_drawn"] == 5 and list(numbers["agents"]) == ["DAC", "DAC (2)"]
    first, second = numbers["agents"].values()
    assert first == second and (first["episodes"], first["seed"], first["gradient_steps"]) == (2, EVAL_SEED, 3)
    assert first["success"] == first["mean_reward"], "the return of this task is its success"
    picture = (tmp_path / "out" / "maze.svg").read_text()
    assert f"DAC: {2 * first['success']:.0f} of 2 arrive" in picture and STITCH in picture and "goal of the task" in picture
    assert "maze.svg" in capsys.readouterr().out


def test_each_value_of_a_swept_setting_has_a_panel(run: Path, tmp_path: Path) -> None:
    agent = load_agent(run / "genoffline-pointmaze-stitch-v0.zip")
    values = ["0.0", "2.0"]
    plot_maze(load_dataset(STITCH), tmp_path / "maze.png", {"DAC": agent}, n_walks=1, sweep=("acting_noise_scale", values))
    numbers = json.loads((tmp_path / "maze.json").read_text())["agents"]
    assert list(numbers) == [f"DAC, acting_noise_scale {value}" for value in values]
    assert agent.policy.acting_noise_scale == 1.0
    with pytest.raises(SystemExit, match=r"--sweep acting_noise_scale needs an --agent and values"):
        main(["plot", "maze", "--dataset", STITCH, "--sweep", "acting_noise_scale", "-o", str(tmp_path / "other")])
    assert len(list(tmp_path.iterdir())) == 3


def test_panels_beyond_a_row_are_laid_in_rows() -> None:
    figure, panels = new_figure(5, 2.0, 1.0)
    assert figure.get_size_inches().tolist() == [6.0, 2.0] and len(panels) == 5
    assert [axes.get_subplotspec().get_geometry()[:2] for axes in figure.axes] == [(2, 3)] * 6


@pytest.fixture(scope="module")
def planner() -> Diffuser:
    """After two updates."""
    settings = load_hyperparameters(
        "diffuser", STITCH, "tiny", {"guide_scale": 2.0, "horizon": 16, "max_episode_steps": 250, "replan_every": 16}
    )
    model = Diffuser(settings.policy, device="cpu", seed=0, **settings.arguments)
    return model.learn_offline(load_dataset(STITCH), gradient_steps=2)


def test_plans_begin_where_they_are_made_and_the_same_noise_is_planned_with_and_without_the_guide(
    planner: Diffuser, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = load_dataset(STITCH).observations[[0, 500]]
    guided, again = plans_from(planner, places, 3), plans_from(planner, places, 3)
    planner.guide_scale = 0.0
    plain = plans_from(planner, places, 3)
    planner.guide_scale = 2.0
    assert guided.paths.shape == (2, 3, 16, 2) and guided.values.shape == (2, 3)
    assert np.allclose(guided.paths[:, :, 0], places[:, None, :2], atol=1e-5), "plans begin elsewhere"
    assert np.array_equal(guided.paths, again.paths) and not np.array_equal(guided.paths, plain.paths)
    planner.save(tmp_path / "agent")
    flags = ["--guide-scale", "3", "--n-places", "2", "--n-plans", "3", "-n", "5", "-o", str(tmp_path / "plans.png")]
    main(["plot", "plans", "--dataset", STITCH, "--agent", str(tmp_path / "agent.zip"), *flags])
    numbers = json.loads((tmp_path / "plans.json").read_text())
    assert [kind["guide_scale"] for kind in numbers["plans"]] == [0.0, 3.0] and numbers["horizon"] == 16
    assert numbers["plans"][0]["mean_value"] != numbers["plans"][1]["mean_value"]
    assert [place["step"] for place in numbers["plans"][0]["places"]] == [0, 249]
    assert "plans.svg" in capsys.readouterr().out and "with the guide, scale 3" in (tmp_path / "plans.svg").read_text()


def test_agents_that_do_not_plan_are_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="The agent is a DAC: only a Diffuser has plans to draw"):
        main(["plot", "plans", "--dataset", STITCH, "--agent", str(run), "-o", str(tmp_path / "plans")])
    assert not list(tmp_path.iterdir())


def test_an_agent_of_the_stitching_set_can_be_evaluated(run: Path) -> None:
    main(["evaluate", "--model", str(run / "genoffline-pointmaze-stitch-v0.zip"), "-n", "1"])
    result = json.loads((run / "results.json").read_text())
    assert result["env_id"] == "PointMaze_Stitch-v3" and result["normalized_score"] == 100.0 * result["mean_reward"]
    spec = load_dataset(STITCH).eval_env_spec
    assert spec is not None and result["env_spec"]["kwargs"] == spec.kwargs and result["env_spec"]["max_episode_steps"] == 250
    assert load_agent(run / "genoffline-pointmaze-stitch-v0").observation_space.shape == (8,)


def test_data_of_no_maze_and_folders_of_no_run_are_errors(tmp_path: Path) -> None:
    arrays = {"observations": np.zeros((2, 3)), "actions": np.zeros((2, 1)), "rewards": [0, 0], "terminals": [0, 0]}
    np.savez(tmp_path / "pendulum.npz", **arrays, timeouts=[0, 1])  # type: ignore[arg-type]
    with pytest.raises(SystemExit, match=r"No environment is known for .*; name a simulator, if you have one, with --env"):
        main(["plot", "maze", "--dataset", str(tmp_path / "pendulum.npz"), "-o", str(tmp_path / "maze")])
    with pytest.raises(SystemExit, match=r"is not a run of the zoo"):
        main(["plot", "maze", "--dataset", STITCH, "--agent", str(tmp_path), "-o", str(tmp_path / "maze")])
    pendulum = load_dataset(dict(arrays, timeouts=[0, 1]), env=gym.make("Pendulum-v1"))
    with pytest.raises(ValueError, match="is not of a maze"):
        plot_maze(pendulum, tmp_path / "maze")
    assert not list(tmp_path.glob("maze*"))
