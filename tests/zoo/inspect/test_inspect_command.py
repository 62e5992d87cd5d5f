"""`python -m zoo inspect`: what it prints, writes and draws, and what it says of sources that cannot be loaded."""

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from gymnasium import spaces

from sb3_genoffline.data import OfflineDataset
from zoo.__main__ import main
from zoo.inspect.command import text
from zoo.inspect.pictures import coordinates, draw_dataset
from zoo.inspect.report import inspect_dataset


def arrays(n: int = 40, n_states: int = 2, n_actions: int = 1) -> dict[str, Any]:
    generator = np.random.default_rng(0)
    walk = generator.normal(size=(n + 1, n_states)).astype(np.float32)
    return {
        "observations": walk[:-1],
        "next_observations": walk[1:],
        "actions": generator.uniform(-0.9, 0.9, (n, n_actions)).astype(np.float32),
        "rewards": generator.normal(size=n).astype(np.float32),
        "terminations": np.arange(n) % 10 == 9,
    }


def dataset(n: int = 40, n_states: int = 2, n_actions: int = 1) -> OfflineDataset:
    rows = arrays(n, n_states, n_actions)
    return OfflineDataset(
        **rows,
        truncations=np.zeros(n, dtype=bool),
        observation_space=spaces.Box(-np.inf, np.inf, (n_states,), np.float32),
        action_space=spaces.Box(-1, 1, (n_actions,)),
    )


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_minari_dataset_is_printed_and_drawn_where_the_logs_are(
    dataset_id: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["inspect", dataset_id])
    printed = capsys.readouterr().out
    for line in (
        "environment   Hopper-v5, at most 1,000 steps",
        "observations  11 columns, no bounds",
        "actions       3 dimensions, each in [−1, 1]",
        "continuity    0 rows inside episodes",
        "  normalised    ",
        "findings",
    ):
        assert line in printed
    assert "States explain at most" in printed, "the data are random"
    files = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.*g"))
    assert files == ["logs/inspect/tiny-hopper-random-v0.png", "logs/inspect/tiny-hopper-random-v0.svg"]
    assert all(f"wrote {file}" in printed for file in files)
    picture = (tmp_path / files[1]).read_text()
    for drawn in ("normalised score", "expert, 100", "step limit, 1,000", "terminated, ", "principal component 2 ("):
        assert drawn in picture


def test_a_file_gets_its_spaces_from_an_environment_and_numbers_go_to_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = arrays(n_states=3)
    np.savez(tmp_path / "swing.npz", **rows | {"actions": 2 * rows["actions"]})
    main(["inspect", "swing.npz", "--env", "Pendulum-v1", "--json", "out/swing.json", "--gamma", "0.5", "--no-picture"])
    printed = capsys.readouterr().out
    assert "each in [−2, 2]" in printed and "Pendulum-v1, at most 200 steps" in printed
    assert "normalised    unknown: no reference returns" in printed
    assert sorted(path.name for path in tmp_path.rglob("*.*")) == ["swing.json", "swing.npz"]
    content = json.loads((tmp_path / "out" / "swing.json").read_text())
    assert content["action_bounds"] == [[-2.0], [2.0]] and content["rewards"]["gamma"] == 0.5
    assert [finding["text"] in " ".join(printed.split()) for finding in content["findings"]] == [True] * len(
        content["findings"]
    )


def test_of_a_maze_success_is_printed_in_the_place_of_normalised_returns() -> None:
    maze = dataset().replace(
        id="genoffline/pointmaze/umaze-v0", rewards=np.arange(40) < 20, ref_min_score=0.0, ref_max_score=1.0
    )
    report = inspect_dataset(maze)
    lines = text(report).splitlines()
    assert "score         50.0, of a maze: the share of episodes that reach the goal, in %" in lines
    assert not any("normalised" in line for line in lines)
    titles = {axes.get_title(): axes for axes in draw_dataset(maze, report).axes}
    assert titles["Returns"].get_xlabel() == "return"


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_bad_numbers_are_the_finding(value: float, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = arrays()
    rows["rewards"][7] = value
    with h5py.File(tmp_path / "log.hdf5", "w") as file:
        for name, array in rows.items():
            file[name] = array
    with pytest.raises(SystemExit) as stop:
        main(["inspect", "log.hdf5", "--json", "log.json"])
    assert stop.value.code == 1
    message = f"rewards[7] = {value} is not finite"
    assert f"  1. It cannot be loaded: {message}" in capsys.readouterr().out
    (finding,) = json.loads((tmp_path / "log.json").read_text())["findings"]
    assert finding["name"] == "unreadable" and message in finding["text"]
    assert not list(tmp_path.rglob("*.png"))


def test_a_missing_array_is_the_finding(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(tmp_path / "log.npz", observations=np.zeros((2, 1)))
    with pytest.raises(SystemExit, match="1"):
        main(["inspect", "log.npz"])
    assert "It cannot be loaded: log.npz lacks 'actions'" in capsys.readouterr().out


def test_a_source_that_does_not_exist_is_an_error_not_a_finding(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"zoo inspect: absent\.npz does not exist"):
        main(["inspect", "absent.npz", "--json", "absent.json"])
    assert not list(tmp_path.iterdir())


def test_tables_are_aligned_and_end_where_nobody_would_read_on() -> None:
    lines = text(inspect_dataset(dataset(200, n_states=33))).splitlines()
    first = next(i for i, line in enumerate(lines) if line.split()[:2] == ["column", "mean"])
    table = lines[first : first + 31]
    assert len({len(line) for line in table}) == 1 and table[-1].split()[0] == "29"
    assert lines[first + 31] == "  … and 3 more (--json has them)"
    assert max(map(len, lines)) <= 120


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("shape", [(1, 1, 1), (60, 1, 1), (60, 2, 14)])
def test_data_of_any_shape_can_be_drawn(shape: tuple[int, int, int]) -> None:
    data = dataset(*shape)
    figure = draw_dataset(data, inspect_dataset(data))
    titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
    assert len(titles) == 9 and all(axes.has_data() or axes.texts for axes in figure.axes)


def test_rows_are_coloured_by_the_return_of_their_own_episode() -> None:
    data = dataset(60)
    rewards = np.where(data.observations[:, 0] > np.median(data.observations[:, 0]), 1.0, -1.0)  # one step, one episode
    single = data.replace(rewards=rewards, terminations=np.ones(60, dtype=bool), episode_ends=None)
    figure = draw_dataset(single, inspect_dataset(single))
    (axes,) = (axes for axes in figure.axes if axes.get_title() == "Mean return of the episodes there")
    (hexagons,) = axes.collections
    (x, _), (y, _) = coordinates(single, np.arange(60))
    for center, value in zip(hexagons.get_offsets(), hexagons.get_array(), strict=True):
        nearest = np.argmin((x - center[0]) ** 2 + (y - center[1]) ** 2)
        if abs(value) == 1.0:
            assert value == rewards[nearest]


def test_the_map_shows_principal_components_and_actions_where_states_have_too_few() -> None:
    data = dataset(60, n_states=3)
    observations = data.observations * np.float32([1, 1000, 0])
    observations[:, 1] += 900 * observations[:, 0]
    (first, label), (second, _) = coordinates(data.replace(observations=observations), np.arange(60))
    standardized = (observations / np.where(observations.std(axis=0) > 0, observations.std(axis=0), 1))[:, :2]
    expected = np.linalg.svd(standardized - standardized.mean(axis=0), full_matrices=False)[1] / np.sqrt(60)
    assert [first.std(), second.std()] == pytest.approx(list(expected), rel=1e-5)
    assert label == f"principal component 1 ({50 * expected[0] ** 2:.0f}% of variance)"
    labels = [label for _, label in coordinates(dataset(60, n_states=1), np.arange(60))]
    assert labels == ["principal component 1 (100% of variance)", "action 0"]
