"""Minari's own upload and download, and ours, against the loopback Hub (``MINARI_REMOTE=hf://org``)."""

import json
import shutil
import warnings
from pathlib import Path

import gymnasium as gym
import minari
import numpy as np
import pytest
from minari.data_collector import EpisodeBuffer
from minari.namespace import create_namespace

from sb3_genoffline import load_dataset

DATASET = "pendulum/swing/random-v0"
LENGTHS = (5, 3)
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # the client's own


@pytest.fixture
def root(hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Empty folders for datasets and their flat cache, with ``hf://org`` as the remote."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    monkeypatch.setenv("SB3_GENOFFLINE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("MINARI_REMOTE", "hf://org")
    return tmp_path


def episode(number: int, length: int) -> EpisodeBuffer:
    steps = np.arange(length + 1, dtype=np.float32)
    return EpisodeBuffer(
        observations=np.stack([np.cos(steps), np.sin(steps), steps + number], axis=-1),
        actions=np.tanh(steps[:-1, None] + number),
        rewards=list(-steps[:-1] - 10 * number),
        terminations=[False] * length,
        truncations=[False] * (length - 1) + [True],
    )


def collect(dataset_id: str = DATASET) -> None:
    """A tiny dataset; its namespace too, as Minari's users make it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        create_namespace(dataset_id.rpartition("/")[0])
        minari.create_dataset_from_buffers(
            dataset_id,
            [episode(number, length) for number, length in enumerate(LENGTHS)],
            env=gym.spec("Pendulum-v1"),
            algorithm_name="random",
            author="ada",
            author_email="ada@example.org",
            code_permalink="none",
            description="tiny",
            ref_min_score=-20.0,
            ref_max_score=0.0,
        )


@pytest.fixture
def uploaded(hub, root: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A dataset that is on the Hub and no longer here."""
    collect()
    minari.upload_dataset(DATASET, token=next(iter(hub.storage.accounts)))
    shutil.rmtree(root / "minari")
    monkeypatch.delenv("HF_TOKEN")
    return DATASET


def test_minari_uploads_and_downloads(hub, uploaded, root):
    files = hub.repo("org/pendulum", "dataset").at("main").files
    assert files["swing/random-v0/data/main_data.hdf5"].lfs
    assert DATASET in minari.list_remote_datasets()
    dataset = minari.load_dataset(uploaded, download=True)
    assert [len(each.rewards) for each in dataset.iterate_episodes()] == list(LENGTHS)
    np.testing.assert_array_equal(dataset[1].actions, episode(1, 3).actions)
    assert json.loads((root / "minari" / uploaded / "data" / "metadata.json").read_text())["dataset_id"] == uploaded


def test_our_loader_fetches_what_is_not_here_and_then_needs_no_hub(hub, uploaded):
    with pytest.raises(FileNotFoundError, match="download=True fetches it"):
        load_dataset(uploaded)
    dataset = load_dataset(uploaded, download=True)
    np.testing.assert_array_equal(dataset.rewards, [0, -1, -2, -3, -4, -10, -11, -12])
    np.testing.assert_array_equal(dataset.next_observations[4], [np.cos(np.float32(5)), np.sin(np.float32(5)), 5])
    assert dataset.normalized_score(-10.0) == pytest.approx(50.0)
    hub.stop()
    assert load_dataset(uploaded).fingerprint == dataset.fingerprint
    assert load_dataset(uploaded, download=True).fingerprint == dataset.fingerprint


@pytest.mark.parametrize(
    ("fault", "dataset_id"),
    [
        ({}, "pendulum/swing/expert-v0"),
        ({}, "nobody/swing/random-v0"),
        ({"pattern": "GET /api/datasets", "status": 500}, DATASET),
    ],
    ids=["no such dataset", "no such repo", "server error"],
)
def test_a_download_that_fails_is_told_and_leaves_no_dataset(hub, uploaded, root, no_waiting, fault, dataset_id):
    if fault:
        hub.inject(**fault)
    with pytest.raises(ConnectionError, match=f"{dataset_id} could not be downloaded"):
        load_dataset(dataset_id, download=True)
    hub.faults.clear()
    with pytest.raises(FileNotFoundError, match="is not on this machine"):
        load_dataset(dataset_id)
    assert len(load_dataset(uploaded, download=True)) == sum(LENGTHS)


def test_a_download_that_is_cut_leaves_nothing_behind(hub, uploaded, root, no_waiting):
    hub.inject("GET /cdn", keep=100)
    with pytest.raises(ConnectionError, match=r"could not be downloaded|arrived damaged and was removed again"):
        load_dataset(uploaded, download=True)
    with pytest.raises(FileNotFoundError, match="is not on this machine"):
        load_dataset(uploaded)
    hub.faults.clear()
    assert len(load_dataset(uploaded, download=True)) == sum(LENGTHS)
