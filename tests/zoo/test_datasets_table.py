"""The list of datasets: what it counts, where it reads, what it writes."""

import argparse
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from minari import MinariDataset
from minari.data_collector import EpisodeBuffer

from sb3_genoffline.data import write_minari
from sb3_genoffline.data.reading import cache
from zoo import datasets as module
from zoo.collect.make import collect
from zoo.recipes import collectible

HOPPER, MAZE = "genoffline/hopper/medium-replay-v1", "genoffline/pointmaze/umaze-v0"
HEADER = "| dataset | steps | episodes | MB | return | min | max | score | D4RL | success | at bounds |"


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "datasets"))
    monkeypatch.setenv("SB3_GENOFFLINE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "datasets"


def run(*arguments: str) -> None:
    parser = argparse.ArgumentParser()
    module.add_arguments(parser)
    module.main(parser.parse_args(arguments))


def maze_dataset(successes: list[bool], overwrite: bool = False) -> MinariDataset:
    """Episodes of two steps whose second one may be at the goal."""
    zeros = np.zeros((3, 4), np.float32)
    flags = np.array([False, True])
    buffers = (
        EpisodeBuffer(
            observations=zeros,  # type: ignore[arg-type]
            actions=zeros[:2],  # type: ignore[arg-type]
            rewards=flags * float(success),  # type: ignore[arg-type]
            terminations=flags & success,  # type: ignore[arg-type]
            truncations=flags & (not success),  # type: ignore[arg-type]
            infos={"success": np.array([False, False, success])},
        )
        for success in successes
    )
    space = gym.spaces.Box(-1.0, 1.0, (4,))
    return write_minari(MAZE, buffers, observation_space=space, action_space=space, overwrite=overwrite)


def test_the_table_states_what_is_in_the_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = collect(HOPPER, steps=400)
    run("-o", str(tmp_path / "page" / "DATASETS.md"))
    page = (tmp_path / "page" / "DATASETS.md").read_text()
    lines = page.splitlines()
    assert lines[0].startswith("<!-- Written by `") and "DATASETS.md" in capsys.readouterr().out
    table = [line for line in lines if line.startswith("|")]
    assert table[0] == HEADER
    assert [line.split("`")[1] for line in table[2:]] == list(collectible())
    cells = next(line for line in table if HOPPER in line).strip("|").split(" | ")
    returns = np.array([episode.rewards.sum() for episode in data.iterate_episodes()])
    assert cells[1:3] == ["400", str(len(returns))]
    assert cells[4] == f"{returns.mean():.2f} ± {returns.std():.2f}"
    assert cells[5:7] == [f"{returns.min():.2f}", f"{returns.max():.2f}"]
    assert float(cells[7]) == pytest.approx(100 * (returns.mean() + 20.272305) / (3234.3 + 20.272305), abs=0.06)
    actions = np.concatenate([episode.actions for episode in data.iterate_episodes()])
    assert cells[8].strip() == "15" and cells[10].strip() == f"{100 * (np.abs(actions) == 1).mean():.2g}"
    absent = next(line for line in table if "hopper/expert" in line)
    assert absent == "| `genoffline/hopper/expert-v1` | – | – | – | – | – | – | – | 109 | – | – |"


def test_a_page_keeps_its_rows_of_datasets_that_are_not_here(tmp_path: Path) -> None:
    page = tmp_path / "DATASETS.md"
    collect(HOPPER, steps=60)
    run(HOPPER, "-o", str(page))
    page.write_text(page.read_text() + "| `genoffline/hopper/medium-v1` | 7 | 1 | 0.1 | 5 | 5 | 5 | 1.0 | 44 | – |\n")
    run("genoffline/hopper/medium-v1", HOPPER, MAZE, "-o", str(page))
    rows = [line for line in page.read_text().splitlines() if line.startswith("| `")]
    assert rows[0] == "| `genoffline/hopper/medium-v1` | 7 | 1 | 0.1 | 5 | 5 | 5 | 1.0 | 44 | – | – |"  # from before a column
    assert "| 60 |" in rows[1] and rows[2] == f"| `{MAZE}` {'| – ' * 10}|"


def test_a_score_just_below_zero_is_zero() -> None:
    contents = module.Contents(
        size=1, n_steps=1, returns=np.array([-0.0004]), successes=None, references=(0.0, 1.0), at_bounds=0.0
    )
    assert module.row(HOPPER, contents)[7] == "0.0"


def test_a_maze_is_scored_by_its_success_rate_and_has_no_level_of_d4rl(capsys: pytest.CaptureFixture[str]) -> None:
    maze_dataset([True, False, True, True])
    run(MAZE)
    cells = capsys.readouterr().out.splitlines()[1].split()
    assert cells[:3] == [MAZE, "8", "4"] and cells[-4:] == ["75.0", "–", "75", "0"]


def test_the_returns_are_read_once_and_follow_the_dataset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "_RACY_SECONDS", -1.0)
    maze_dataset([True])
    first = module.read_contents(MAZE)
    read = module._read
    monkeypatch.setattr(module, "_read", lambda *_: pytest.fail("read again"))
    again = module.read_contents(MAZE)
    assert first is not None and again is not None and np.array_equal(first.returns, again.returns)
    monkeypatch.setattr(module, "_read", read)
    maze_dataset([False, False], overwrite=True)
    changed = module.read_contents(MAZE)
    assert changed is not None and changed.returns.tolist() == [0.0, 0.0]


def test_a_damaged_dataset_is_named_and_the_others_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    collect(HOPPER, steps=60)
    file = Path(maze_dataset([True]).spec.data_path) / "main_data.hdf5"
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(SystemExit, match=rf"the files of {MAZE} at .* are damaged .*--overwrite"):
        run(HOPPER, MAZE)
    out = capsys.readouterr().out.splitlines()
    assert out[1].split()[:2] == [HOPPER, "60"] and out[2].split()[:2] == [MAZE, "–"]
