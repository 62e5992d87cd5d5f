"""The card: metadata as the Hub reads it, a snippet that runs, and nothing that was not given."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import yaml
from huggingface_hub import ModelCard
from point_agents import ACTION_SPACE, OBSERVATION_SPACE, REPO

from sb3_genoffline import download_from_hub
from sb3_genoffline.common.offline_algorithm import OfflineAlgorithm
from sb3_genoffline.hub.card import addressed_to
from sb3_genoffline.hub.publishing import write_agent_folder

RESULTS: dict[str, Any] = {
    "mean_reward": -12.25,
    "std_reward": 3.5,
    "is_deterministic": True,
    "n_eval_episodes": 10,
    "eval_datetime": "2026-01-02T03:04:05+00:00",
    "env_id": "Pendulum-v1",
    "checkpoint": "last",
    "gradient_steps": 12_000,
    "seed": 4,
    "eval_seed": 1000,
    "normalized_score": 51.5,
    "normalized_score_ci95": [50.0, 53.0],
    "behavior_mean_reward": -20.0,
    "behavior_normalized_score": 30.5,
    "protocol": "normalized_score: 100 * (mean_reward - ref_min_score) / (ref_max_score - ref_min_score)",
    "best": {
        "mean_reward": -10.5,
        "std_reward": 1.0,
        "gradient_steps": 8000,
        "normalized_score": 60.25,
        "chosen_by": "a glance",
    },
    "seeds": {"unit": "normalized_score", "n": 3, "mean": 49.75, "std": 2.25, "runs": []},
}


@pytest.fixture
def folder(agent: OfflineAlgorithm, tmp_path: Path) -> Path:
    """A folder with all there can be."""
    for name in ("curve.png", "film.mp4"):
        (tmp_path / name).write_bytes(b"picture")
    extras: dict[str, Any] = {"curve": tmp_path / "curve.png", "film": tmp_path / "film.mp4", "licence": "apache-2.0"}
    settings = {"tests/point-v0": {"batch_size": 16}}
    return write_agent_folder(
        agent, tmp_path / "dac-point", repo_id=REPO, results=RESULTS, hyperparameters=settings, command="zoo train", **extras
    )


def test_the_hub_s_own_reader_finds_the_metadata(folder: Path) -> None:
    data = ModelCard.load(folder / "README.md").data
    assert data.library_name == "stable-baselines3" and data.license == "apache-2.0" and data.model_name == "DAC"
    assert {"Pendulum-v1", "offline-reinforcement-learning", "stable-baselines3", "dac"} <= set(data.tags)
    scores = [(result.dataset_name, result.metric_type, result.metric_value) for result in data.eval_results]
    assert scores == [
        ("Pendulum-v1", "mean_reward", -12.25),
        ("Pendulum-v1", "std_reward", 3.5),
        ("tests/point-v0", "normalized_score", 51.5),
        ("tests/point-v0", "mean_reward", -12.25),
    ]
    entries = yaml.safe_load((folder / ".eval_results" / "dac-point.yaml").read_text())
    assert entries[0]["value"] == 51.5 and entries[0]["dataset"]["task_id"] == "point-v0"


def test_all_that_was_given_is_told(folder: Path) -> None:
    text = (folder / "README.md").read_text()
    for told in (
        "| last checkpoint, 12,000 updates | -12.2 ± 3.5 | 51.5 [50.0, 53.0] |",
        "| best checkpoint, 8,000 updates | -10.5 ± 1.0 | 60.2 |",
        "| last checkpoints of 3 seeds, mean ± std over seeds |  | 49.8 ± 2.2 |",
        "| the data's behaviour | -20.0 | 30.5 |",
        "chosen by a glance",
        "10 episodes of Pendulum-v1",
        "`normalized_score: 100 * (mean_reward",
        "zoo train",
        "tests/point-v0: 40 transitions in 4 episodes, fingerprint `",
        "https://arxiv.org/abs/2405.20555.",
        "![training curve]",
        "`replay.mp4`",
        "apache-2.0",
    ):
        assert told in text, told
    listed = set(re.findall(r"^\| `([^`]+)` \|", text, flags=re.MULTILINE))
    hidden = {"README.md", ".eval_results/dac-point.yaml"}
    assert listed == {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} - hidden


@pytest.mark.parametrize(
    ("results", "named"),
    [
        ({"mean_reward": 1.0}, r"n_eval_episodes \(int\), gradient_steps \(int\), env_id \(str\)"),
        ([1.0], r"mean_reward \(float\)"),
        (RESULTS | {"mean_reward": "high"}, r"have mean_reward \(float\), as zoo"),
        (
            RESULTS | {"best": {"mean_reward": 1.0}, "seeds": {"n": 2}},
            r"best: gradient_steps .* seeds: unit \(str\), seeds: mean",
        ),
    ],
    ids=["incomplete", "a list", "words", "parts"],
)
def test_results_that_cannot_be_told_are_refused_before_anything_is_written(
    agent: OfflineAlgorithm, tmp_path: Path, results: Any, named: str
) -> None:
    with pytest.raises(ValueError, match=named):
        write_agent_folder(agent, tmp_path / "dac-point", results=results)
    assert not list(tmp_path.iterdir())


def test_the_least_results_make_a_card(agent: OfflineAlgorithm, tmp_path: Path) -> None:
    least = {"mean_reward": 1.5, "n_eval_episodes": 2, "gradient_steps": 3, "env_id": "Hopper-v5", "normalized_score": 4.0}
    seeds = {"unit": "normalized_score", "n": 2, "mean": 5.0}
    text = (write_agent_folder(agent, tmp_path / "dac-point", results=least | {"seeds": seeds}) / "README.md").read_text()
    assert "| last checkpoint, 3 updates | 1.5 | 4.0 |" in text and "over seeds |  | 5.0 |" in text
    assert '`pip install -e ".[zoo]"` in a checkout' in text and "is a baseline" not in text


def test_a_baseline_is_called_one(agent: OfflineAlgorithm, tmp_path: Path) -> None:
    folder = write_agent_folder(agent, tmp_path / "dac-point", results=RESULTS | {"baseline": "imitation only"})
    assert "the method's idea switched off: imitation only." in (folder / "README.md").read_text()


def test_settings_that_are_no_plain_data_are_refused(agent: OfflineAlgorithm, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="hyperparameters must be plain data"):
        write_agent_folder(agent, tmp_path / "dac-point", hyperparameters={"tau": np.float32(0.1)})
    assert not list(tmp_path.iterdir())


def test_nothing_is_told_that_was_not_given(agent: OfflineAlgorithm, tmp_path: Path) -> None:
    folder = write_agent_folder(agent, tmp_path / "dac-point", training=False)
    text = (folder / "README.md").read_text()
    assert (
        "None were given" in text and "model-index" not in text and "gym" not in text.partition("## Use")[2].partition("##")[0]
    )
    assert not re.search(r"TODO|None\b(?! were)|nan\b|replay\.mp4|results\.json|```sh", text)
    assert not (folder / ".eval_results").exists()


class Corridor(gym.Env):
    """Three numbers in, two out, and over after four steps."""

    observation_space, action_space = OBSERVATION_SPACE, ACTION_SPACE
    steps = 0

    def __init__(self, reward: float = 0.5, names: Sequence[Any] = ()) -> None:
        self.reward, self.names = reward, names

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        self.steps = 0
        return np.zeros(3, np.float32), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action)
        self.steps += 1
        return np.full(3, self.steps, np.float32), self.reward, self.steps == 4, False, {}


gym.register("hub-tests/Corridor-v0", entry_point=Corridor)


OWN = {"entry_point": f"{__name__}:Corridor", "max_episode_steps": 3, "kwargs": {"reward": 0.25, "names": ["r", 0, None]}}


@pytest.mark.parametrize(
    ("results", "printed"),
    [
        (None, ""),
        (RESULTS | {"env_id": "hub-tests/Corridor-v0", "env_spec": None}, "return 2.0\n"),
        (RESULTS | {"env_id": "hub-tests/Nowhere-v0", "env_spec": OWN}, "return 0.8\n"),  # cut after three steps
    ],
    ids=["no results", "registered environment", "an environment of its own"],
)
def test_the_snippet_runs_as_it_stands(
    agent: OfflineAlgorithm,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    results: Any,
    printed: str,
    capsys: pytest.CaptureFixture,
) -> None:
    monkeypatch.chdir(tmp_path)
    write_agent_folder(agent, Path("hub_models/dac-point"), results=results)
    text = Path("hub_models/dac-point/README.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    assert 'load_from_hub("hub_models/dac-point")' in code
    exec(compile(code, "README.md", "exec"), {})
    assert capsys.readouterr().out == printed


def test_a_local_folder_serves_its_files_as_the_hub_does(folder: Path) -> None:
    path = download_from_hub(folder, "dac-point.zip")
    assert path == folder / "dac-point.zip"
    with pytest.raises(FileNotFoundError, match=r"There is no file .*other.zip"):
        download_from_hub(str(folder), "other.zip")
    with pytest.raises(ValueError, match="not a file of a repository"):
        download_from_hub(folder, "../film.mp4")


def test_a_card_can_be_addressed_anew(folder: Path) -> None:
    text = addressed_to((folder / "README.md").read_text(), "me/other")
    assert (
        'load_from_hub("me/other")' in text and 'download_from_hub("me/other", "dac-point.zip")' in text and REPO not in text
    )
