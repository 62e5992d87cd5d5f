"""Trained by the zoo, sent by the zoo, loaded by somebody else."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hub_server import HubServer
from huggingface_hub import HfApi

from sb3_genoffline import load_from_hub
from sb3_genoffline.registry import load_agent
from zoo.__main__ import main
from zoo.runs.folders import find_run


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    """Publishes a run on plain arrays."""
    generator = np.random.default_rng(0)
    arrays = {name: generator.uniform(-1, 1, (40, 2)).astype(np.float32) for name in ("observations", "next_observations")}
    data, ends = tmp_path / "car-mixed.npz", np.arange(40) % 10 == 9
    np.savez(data, actions=generator.uniform(-1, 1, (40, 1)), rewards=np.arange(40.0), terminations=ends, **arrays)
    env = ["--env", "MountainCarContinuous-v0", "--env-kwargs", "max_episode_steps:5"]
    small = ["batch_size:32", "n_critics:2", "n_q_samples:1", "policy_kwargs:dict(net_arch=[16])", "n_action_samples:4"]
    flags = ["--dataset", str(data), "-f", str(tmp_path / "logs")]
    quiet = ["--no-progress", "--verbose", "0", "--log-interval", "-2", "--eval-freq", "0", "--seed", "0"]
    main(["train", *flags, *env, *quiet, "-n", "4", "-params", *small])
    return ["publish", *flags, *env, "-o", str(tmp_path / "models"), "-n", "1", "--no-film", "-name", "dac-car"]


def test_a_published_agent_acts_the_same_with_an_empty_cache(
    command: list[str], hub: HubServer, api: HfApi, tmp_path: Path, capsys: Any
) -> None:
    main(command)
    assert hub.log == [], "a dry run asks nobody"
    main([*command, "--no-dry-run", "-orga", "org"])
    assert "unchanged" in capsys.readouterr().out
    commits = api.list_repo_commits("org/dac-car")
    main([*command, "--no-dry-run", "-orga", "org"])
    assert api.list_repo_commits("org/dac-car") == commits, "what has not changed is not sent again"
    sent = set(api.list_repo_files("org/dac-car"))
    assert sent >= {
        str(file.relative_to(tmp_path / "models" / "dac-car")) for file in (tmp_path / "models").rglob("*.*") if file.is_file()
    }
    model = load_agent(find_run(tmp_path / "logs", "dac", tmp_path / "car-mixed.npz").model_path, device="cpu")
    model.policy.seed_acting(5)
    expected = model.predict(np.ones((3, 2), dtype=np.float32), deterministic=True)[0]
    loaded = load_from_hub("org/dac-car", device="cpu", cache_dir=tmp_path / "cache")
    loaded.policy.seed_acting(5)
    assert np.array_equal(loaded.predict(np.ones((3, 2), dtype=np.float32), deterministic=True)[0], expected)


def test_a_hub_that_refuses_is_an_error_without_a_traceback(
    command: list[str], hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(SystemExit, match="zoo publish: "):
        main([*command, "--no-dry-run", "-orga", "org"])
