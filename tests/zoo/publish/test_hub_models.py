"""The trained agents in hub_models/: each loads, acts as it was published, and scores what it says."""

import hashlib
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sb3_genoffline import load_dataset, load_from_hub
from zoo.publish.index import find_entries, index_text, read_bc
from zoo.runs.envs import env_factory
from zoo.runs.scoring import evaluate

FOLDER = Path(__file__).parents[3] / "hub_models"
AGENTS = sorted(config.parent for config in FOLDER.glob("*/config.json"))
MAX_BYTES = 60e6
WANTED = {
    "dac-hopper-medium-replay-v1": "genoffline/hopper/medium-replay-v1",
    "qdq-hopper-medium-replay-v1": "genoffline/hopper/medium-replay-v1",
    "cped-hopper-medium-replay-v1": "genoffline/hopper/medium-replay-v1",
    "mcq-hopper-medium-replay-v1": "genoffline/hopper/medium-replay-v1",
    "sql-walker2d-medium-v1": "genoffline/walker2d/medium-v1",
    "dac-halfcheetah-medium-replay": "genoffline/halfcheetah/medium-replay-v0",
    "dac-walker2d-clipped-noise": "genoffline/walker2d/clipped-noise-v0",
}

agents = pytest.mark.parametrize("folder", AGENTS, ids=[folder.name for folder in AGENTS])


def read(folder: Path, name: str) -> dict[str, Any]:
    return json.loads((folder / name).read_text())


@agents
def test_the_manifest_names_every_file_and_its_hash(folder: Path) -> None:
    declared = read(folder, "manifest.json")["files"]
    found = {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()} - {"manifest.json"}
    assert found == set(declared)
    for name, expected in declared.items():
        content = (folder / name).read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (expected["size"], expected["sha256"]), name


@agents
def test_an_agent_acts_as_it_was_published(folder: Path) -> None:
    model, fingerprint = load_from_hub(str(folder)), read(folder, "fingerprint.json")
    model.policy.seed_acting(fingerprint["acting_seed"])
    actions, _ = model.predict(np.array(fingerprint["observations"], dtype=np.float32), deterministic=True)
    np.testing.assert_allclose(actions, fingerprint["actions"], atol=1e-4)  # other processors round otherwise


@agents
def test_an_agent_comes_without_what_only_training_needs(folder: Path) -> None:
    with zipfile.ZipFile(folder / f"{folder.name}.zip") as archive:
        assert [name for name in archive.namelist() if "training" in name] == []


@agents
def test_results_are_of_the_agent_in_the_folder(folder: Path) -> None:
    results, model = read(folder, "results.json"), load_from_hub(str(folder))
    assert results["dataset_fingerprint"] == model.dataset_info["fingerprint"]
    assert (results["gradient_steps"], results["seed"]) == (model.num_timesteps, model.seed)
    assert str(results["seed"]) in results["source"]["seeds"] and len(results["returns"]) == results["n_eval_episodes"]


def test_the_agents_that_users_look_for_first_are_there() -> None:
    assert {name: load_from_hub(str(FOLDER / name)).dataset_info["id"] for name in WANTED} == WANTED


def test_all_agents_together_are_small() -> None:
    assert sum(file.stat().st_size for file in FOLDER.rglob("*") if file.is_file()) < MAX_BYTES


def test_the_list_is_what_the_command_makes_of_the_folders() -> None:
    expected = index_text(find_entries(FOLDER), read_bc(FOLDER))
    assert (FOLDER / "README.md").read_text() == expected, "python -m zoo publish --index renews it"


@pytest.mark.slow
@agents
def test_an_agent_scores_what_its_results_say(folder: Path) -> None:
    """Exactly so where it was measured; other processors round otherwise, and contacts make much of it."""
    results, model = read(folder, "results.json"), load_from_hub(str(folder))
    try:
        data = load_dataset(results["dataset"])
    except FileNotFoundError:
        if results["success_rate"] is not None:
            pytest.skip(f"The maze is in the dataset: python -m zoo collect {results['dataset']}")
        data = None
    found = evaluate(
        model,
        env_factory(data, None if data is not None else results["env_id"]),
        results["n_eval_episodes"],
        n_envs=results["n_eval_envs"],
        deterministic=results["is_deterministic"],
        eval_seed=results["eval_seed"],
    )
    error = (np.std(results["returns"]) + np.std(found["returns"])) / np.sqrt(results["n_eval_episodes"])
    assert found["mean_reward"] == pytest.approx(results["mean_reward"], rel=0.02, abs=3 * error)
