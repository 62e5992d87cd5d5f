"""The picture of QDQ's uncertainty: what is looked at, where it is drawn, and which agents have none."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces

from sb3_genoffline import DAC, QDQ, OfflineDataset
from zoo.__main__ import main
from zoo.plot.uncertainty import make_slice

ID, N_ROWS = "tests/scales-v0", 120
LOW, HIGH = np.array([0.0, -2.0, -1.0], np.float32), np.array([1.0, 5.0, 3.0], np.float32)
SMALL: dict[str, Any] = {
    "n_q_samples": 8,
    "window": 5,
    "stride": 1,
    "full_coverage": True,
    "cd_n": 10,
    "policy_kwargs": {"net_arch": [8], "q_net_arch": [16, 16]},
    "seed": 0,
    "device": "cpu",
}


def make_data(n_actions: int = 3) -> OfflineDataset:
    """Episodes of 10 steps whose states have dimensions of very different scale."""
    generator = np.random.default_rng(0)
    low, high = LOW[:n_actions], HIGH[:n_actions]
    observations = (generator.lognormal(size=(N_ROWS, 2)) * [1.0, 1000.0]).astype(np.float32)
    return OfflineDataset(
        observations=observations,
        actions=generator.uniform(low, high, (N_ROWS, n_actions)),
        rewards=generator.normal(size=N_ROWS) * 10.0,
        next_observations=np.roll(observations, -1, axis=0),
        terminations=np.arange(N_ROWS) % 10 == 9,
        truncations=np.zeros(N_ROWS, dtype=bool),
        observation_space=spaces.Box(-np.inf, np.inf, (2,), np.float32),
        action_space=spaces.Box(low, high),
        id=ID,
    )


@pytest.fixture(scope="module")
def data() -> OfflineDataset:
    return make_data()


@pytest.fixture(autouse=True)
def on_this_machine(data: OfflineDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command finds the data by their id."""
    known = {ID: data, "single": make_data(n_actions=1)}
    monkeypatch.setattr("zoo.collect.lookup.load_dataset", lambda source, env, trust_env: known[source])


@pytest.fixture(scope="module")
def model(data: OfflineDataset) -> QDQ:
    """An agent whose H varies over the actions."""
    arguments = {**SMALL, "normalize_observations": True}
    return QDQ("MlpPolicy", data, teacher_steps=60, cd_steps=60, **arguments).pretrain(data)


def test_each_point_of_the_slice_shows_h_of_its_action(model: QDQ, data: OfflineDataset) -> None:
    cut = make_slice(model, data, row=7, dims=[2, 0])
    assert cut.dims == (2, 0) and np.array_equal(cut.action, data.actions[7])
    assert [(axis[0], axis[-1]) for axis in cut.axes] == [(-1.0, 3.0), (0.0, 1.0)]
    first, second = 10, 50  # positions along action 2 and action 0
    for i, j in ((first, second), (second, first)):
        action = data.actions[7].copy()
        action[2], action[0] = cut.axes[0][i], cut.axes[1][j]
        expected = model.uncertainty(data.observations[7:8].copy(), action[None], n_samples=20_000)[0]
        assert cut.h[j, i] == pytest.approx(expected, rel=0.02)
    assert cut.h[second, first] != pytest.approx(cut.h[first, second], rel=0.05), "the test could not tell the axes apart"
    policy = model.uncertainty(data.observations[7:8].copy(), cut.policy_action[None], n_samples=20_000)[0]
    assert cut.policy_h == pytest.approx(policy, rel=0.02)
    assert np.array_equal(cut.policy_action, model.predict(data.observations[7], deterministic=True)[0])


def test_neighbors_are_near_in_standardized_states(model: QDQ, data: OfflineDataset) -> None:
    cut = make_slice(model, data, row=7, n_neighbors=6)
    scale = data.observations.std(axis=0)
    order = np.argsort([np.linalg.norm((state - data.observations[7]) / scale) for state in data.observations])
    assert np.array_equal(cut.neighbors, data.actions[order[:6]])
    by_raw_states = np.argsort(np.linalg.norm(data.observations - data.observations[7], axis=1))
    assert set(by_raw_states[:6]) != set(order[:6]), "the test could not tell the two distances apart"


def test_the_default_is_the_row_nearest_to_the_median_and_the_first_two_actions(model: QDQ, data: OfflineDataset) -> None:
    cut = make_slice(model, data)
    offsets = np.abs(data.observations - np.median(data.observations, axis=0)) / data.observations.std(axis=0)
    assert cut.row == np.linalg.norm(offsets, axis=1).argmin()
    assert cut.dims == (0, 1) and cut.h.shape == (61, 61) and len(cut.neighbors) == N_ROWS


def test_the_picture_comes_with_the_numbers_of_the_agents_report(
    model: QDQ, data: OfflineDataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model.save(tmp_path / "agent")
    flags = ["-i", str(tmp_path / "agent.zip"), "--neighbors", "20", "-n", "300", "--row", "5"]
    main(["plot", "uncertainty", *flags, "-o", str(tmp_path / "out" / "h.png")])
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["h.json", "h.png", "h.svg"]
    assert (tmp_path / "out" / "h.png").is_file() and "h.svg" in capsys.readouterr().out
    numbers = json.loads((tmp_path / "out" / "h.json").read_text())
    report = model.uncertainty_report(300)
    assert numbers["actions"]["random"]["auc"] == pytest.approx(report["auc"])
    assert numbers["actions"]["random"]["above_q95"] == pytest.approx(report["above_q95"])
    assert {name: numbers["actions"][name]["mean"] for name in ("data", "policy", "random")} == pytest.approx(
        {name: report[name] for name in ("data", "policy", "random")}
    )
    assert (numbers["row"], numbers["dims"], numbers["n_rows"]) == (5, [0, 1], 300)
    assert numbers["action"] == pytest.approx(data.actions[5].tolist())
    picture = (tmp_path / "out" / "h.svg").read_text()
    for text in ("data, 20 nearest states", "policy", f"AUC {report['auc']:.2f}", "state of row 5, action 2 at", ID):
        assert text in picture


def test_one_action_gives_a_curve(tmp_path: Path) -> None:
    data = make_data(n_actions=1)
    model = QDQ("MlpPolicy", data, teacher_steps=5, cd_steps=5, **SMALL).pretrain(data)
    cut = make_slice(model, data)
    assert cut.dims == (0,) and cut.h.shape == (201,)
    model.save(tmp_path / "agent")
    main(["plot", "uncertainty", "-i", str(tmp_path / "agent"), "--dataset", "single", "-n", "50", "-o", str(tmp_path / "h")])
    assert json.loads((tmp_path / "h.json").read_text())["dims"] == [0]


def test_agents_without_a_fitted_consistency_model_are_refused_with_the_reason(data: OfflineDataset, tmp_path: Path) -> None:
    agents: dict[str, Any] = {
        "only QDQ has a consistency model": DAC("MlpPolicy", data, policy_kwargs={"net_arch": [8]}, device="cpu"),
        "was trained with penalty='none'": QDQ("MlpPolicy", data, penalty="none", **SMALL),
        "was interrupted before it was fitted": QDQ("MlpPolicy", data, **SMALL),
    }
    for number, (reason, agent) in enumerate(agents.items()):
        agent.save(tmp_path / f"agent{number}")
        with pytest.raises(SystemExit, match=rf"agent{number}\.zip.*{reason}"):
            main(["plot", "uncertainty", "-i", str(tmp_path / f"agent{number}.zip"), "--dataset", "absent.npz"])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--dims", "0", "3"], r"--dims 0 3: name one or two different dimensions of 0 to 2"),
        (["--dims", "1", "1"], r"--dims 1 1"),
        (["--dims", "0", "1", "2"], r"--dims 0 1 2"),
        (["--row", str(N_ROWS)], rf"--row {N_ROWS}: the data have the rows 0 to {N_ROWS - 1}"),
    ],
)
def test_a_row_or_dimension_that_does_not_exist_is_an_error(
    flags: list[str], message: str, model: QDQ, tmp_path: Path
) -> None:
    model.save(tmp_path / "agent")
    with pytest.raises(SystemExit, match=message):
        main(["plot", "uncertainty", "-i", str(tmp_path / "agent.zip"), *flags])
    assert not list(tmp_path.glob("*.png"))


def test_a_picture_of_no_agent_or_no_data_is_an_error(data: OfflineDataset, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="Which agent"):
        main(["plot", "uncertainty"])
    with pytest.raises(SystemExit, match=f"no run of qdq on {ID}"):
        main(["plot", "uncertainty", "--dataset", ID, "-f", str(tmp_path)])
    nameless = data.replace(id=None)
    QDQ("MlpPolicy", nameless, teacher_steps=1, cd_steps=1, **SMALL).pretrain(nameless).save(tmp_path / "agent")
    with pytest.raises(SystemExit, match="does not name its data"):
        main(["plot", "uncertainty", "-i", str(tmp_path / "agent.zip")])
