"""The pictures of CPED's density: what is looked at, where it is drawn, and which agents have none."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces

from sb3_genoffline import CPED, DAC, OfflineDataset
from zoo.__main__ import main
from zoo.plot.density import label_of, plot_agent
from zoo.plot.density_toy import plot_toy
from zoo.plot.nll import nll_of, summarize
from zoo.plot.slices import make_grid
from zoo.toys import density_toy as toy

ID, N_ROWS = "tests/scales-v0", 120
LOW, HIGH = np.array([0.0, -2.0, -1.0], np.float32), np.array([1.0, 5.0, 3.0], np.float32)
SMALL: dict[str, Any] = {
    "flow_steps": 40,
    "flow_learning_rate": 1e-2,
    "adv_weight": 0.0,
    "policy_kwargs": {"net_arch": [8], "flow_net_arch": [16], "flow_transforms": 1},
    "seed": 0,
    "device": "cpu",
}


def make_data(n_actions: int = 3, id: str | None = ID) -> OfflineDataset:
    """Episodes of 10 steps whose states have dimensions of very different scale, and whose actions follow the state."""
    generator = np.random.default_rng(0)
    low, high = LOW[:n_actions], HIGH[:n_actions]
    observations = (generator.normal(size=(N_ROWS, 2)) * [1.0, 1000.0]).astype(np.float32)
    shares = 0.5 + 0.3 * np.tanh(observations[:, :1]) + generator.uniform(-0.1, 0.1, (N_ROWS, n_actions))
    return OfflineDataset(
        observations=observations,
        actions=low + shares * (high - low),
        rewards=generator.normal(size=N_ROWS),
        next_observations=np.roll(observations, -1, axis=0),
        terminations=np.arange(N_ROWS) % 10 == 9,
        truncations=np.zeros(N_ROWS, dtype=bool),
        observation_space=spaces.Box(-np.inf, np.inf, (2,), np.float32),
        action_space=spaces.Box(low, high),
        id=id,
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
def model(data: OfflineDataset) -> CPED:
    return CPED("MlpPolicy", data, **SMALL).pretrain(data)


def test_a_slice_changes_two_actions_and_leaves_the_others_as_in_the_row(data: OfflineDataset) -> None:
    cut = make_grid(data, row=7, dims=[2, 0])
    assert [(axis[0], axis[-1]) for axis in cut.axes] == [(-1.0, 3.0), (0.0, 1.0)] and cut.shape == (61, 61)
    points = cut.points.reshape(*cut.shape, 3)
    assert points[50, 10].tolist() == pytest.approx([cut.axes[1][50], data.actions[7, 1], cut.axes[0][10]])
    assert np.array_equal(cut.action, data.actions[7]) and np.array_equal(cut.observation, data.observations[7])
    assert "state of row 7, action 1 at" in cut.title


def test_neighbors_are_near_in_standardized_states_and_the_default_row_is_a_usual_one(data: OfflineDataset) -> None:
    scale = data.observations.std(axis=0)
    cut = make_grid(data, row=7, n_neighbors=6)
    order = np.argsort([np.linalg.norm((state - data.observations[7]) / scale) for state in data.observations])
    assert np.array_equal(cut.neighbors, data.actions[order[:6]])
    offsets = np.abs(data.observations - np.median(data.observations, axis=0)) / scale
    assert make_grid(data).row == np.linalg.norm(offsets, axis=1).argmin() and make_grid(data).dims == (0, 1)


def test_the_nll_is_that_of_the_raw_state_and_the_scaled_action(model: CPED, data: OfflineDataset) -> None:
    actions = data.actions[:4]
    scaled = th.as_tensor(2 * (actions - LOW) / (HIGH - LOW) - 1, dtype=th.float32)
    with th.no_grad():
        expected = -model.policy.density.log_prob(th.as_tensor(data.observations[:4].copy()), scaled)
    assert nll_of(model, data.observations[:4], actions) == pytest.approx(expected.numpy(), abs=1e-4)
    one_state = nll_of(model, data.observations[2], actions)
    assert one_state[2] == pytest.approx(float(expected[2]), abs=1e-4) and one_state[1] != pytest.approx(float(expected[1]))


def test_the_share_beyond_the_quantile_counts_actions_that_are_less_likely() -> None:
    found = summarize({"data": np.array([0.0, 1.0, 2.0, 5.0])}, q99=2.0)
    assert found == {"data": {"nll": 2.0, "beyond_q99": 0.25}}


@pytest.mark.usefixtures("pixels")
def test_the_picture_of_two_agents_comes_with_their_numbers(model: CPED, data: OfflineDataset, tmp_path: Path) -> None:
    free = CPED("MlpPolicy", data, alpha_mode="fixed", alpha=0.0, **SMALL)
    model.save(tmp_path / "agent")
    free.save(tmp_path / "free")
    flags = ["-i", str(tmp_path / "agent.zip"), "--other", str(tmp_path / "free.zip")]
    flags += ["--row", "5", "--dims", "2", "0", "--neighbors", "20", "-n", "60", "-o", str(tmp_path / "out" / "d.png")]
    main(["plot", "density", *flags])
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["d.json", "d.png", "d.svg"]
    assert (tmp_path / "out" / "d.png").stat().st_size > 1_000
    numbers = json.loads((tmp_path / "out" / "d.json").read_text())
    assert (numbers["row"], numbers["dims"], numbers["n_rows"], numbers["dataset"]) == (5, [2, 0], 60, ID)
    for name, agent in (("agent", model), ("other", free)):
        action = agent.predict(data.observations[5], deterministic=True)[0]
        assert numbers["agents"][name]["action"] == pytest.approx(action.tolist())
        assert numbers["agents"][name]["log_prob"] == pytest.approx(-nll_of(model, data.observations[5], action[None])[0])
    assert numbers["agents"]["other"]["label"] == label_of(free) == "CPED, α = 0"
    assert numbers["q99_of_data"] == pytest.approx(model.policy.nll_q99.item())
    assert set(numbers["actions"]) == {"data", "agent", "other", "random"}
    assert numbers["actions"]["data"]["beyond_q99"] < 0.1 < numbers["actions"]["random"]["beyond_q99"]
    picture = (tmp_path / "out" / "d.svg").read_text()
    for text in ("data, 20 nearest states", "CPED, dual α", "CPED, α = 0", "state of row 5, action 1 at", "beyond q99", ID):
        assert text in picture


def test_an_agent_of_another_algorithm_may_be_drawn_into_the_density(
    model: CPED, data: OfflineDataset, tmp_path: Path
) -> None:
    other = DAC("MlpPolicy", data, policy_kwargs={"net_arch": [8]}, device="cpu")
    plot_agent(model, data, tmp_path / "d", other, n_rows=20)
    numbers = json.loads((tmp_path / "d.json").read_text())
    assert numbers["agents"]["other"]["label"] == "DAC"


def test_one_action_gives_a_curve(tmp_path: Path) -> None:
    data = make_data(n_actions=1)
    CPED("MlpPolicy", data, **{**SMALL, "flow_steps": 3}).pretrain(data).save(tmp_path / "agent")
    flags = ["-i", str(tmp_path / "agent"), "--dataset", "single", "-n", "50", "-o", str(tmp_path / "d")]
    main(["plot", "density", *flags])
    assert json.loads((tmp_path / "d.json").read_text())["dims"] == [0]


def test_agents_without_a_fitted_density_are_refused_with_the_reason(data: OfflineDataset, tmp_path: Path) -> None:
    agents: dict[str, Any] = {
        "only CPED has a density": DAC("MlpPolicy", data, policy_kwargs={"net_arch": [8]}, device="cpu"),
        "was trained with alpha=0": CPED("MlpPolicy", data, alpha_mode="fixed", alpha=0.0, **SMALL),
        "was interrupted before it was fitted": CPED("MlpPolicy", data, **SMALL),
    }
    for number, (reason, agent) in enumerate(agents.items()):
        agent.save(tmp_path / f"agent{number}")
        with pytest.raises(SystemExit, match=rf"agent{number}\.zip.*{reason}"):
            main(["plot", "density", "-i", str(tmp_path / f"agent{number}.zip"), "--dataset", "absent.npz"])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--dims", "0", "3"], r"--dims 0 3: name one or two different dimensions of 0 to 2"),
        (["--row", str(N_ROWS)], rf"--row {N_ROWS}: the data have the rows 0 to {N_ROWS - 1}"),
        (["--dataset", "single"], r"\(3,\).*\(1,\)|\(1,\).*\(3,\)"),
        (["--steps", "3", "--state", "0"], r"--steps, --state: of the bandit"),
    ],
)
def test_wrong_flags_are_errors_before_anything_is_drawn(flags: list[str], message: str, model: CPED, tmp_path: Path) -> None:
    model.save(tmp_path / "agent")
    with pytest.raises(SystemExit, match=f"(?s){message}"):
        main(["plot", "density", "-i", str(tmp_path / "agent.zip"), *flags, "-o", str(tmp_path / "d.png")])
    assert not list(tmp_path.glob("*.png"))


def test_a_picture_of_no_agent_or_no_data_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"Which agent.*--other, --row"):
        main(["plot", "density", "--other", "x.zip", "--row", "3"])
    with pytest.raises(SystemExit, match=f"no run of cped on {ID}"):
        main(["plot", "density", "--dataset", ID, "-f", str(tmp_path)])
    with pytest.raises(SystemExit, match="--state 2"):
        main(["plot", "density", "--state", "2"])
    nameless = make_data(id=None)
    CPED("MlpPolicy", nameless, **{**SMALL, "flow_steps": 1}).pretrain(nameless).save(tmp_path / "agent")
    with pytest.raises(SystemExit, match="does not name its data"):
        main(["plot", "density", "-i", str(tmp_path / "agent.zip")])


# ---------------------------------------------------------------------- the bandit


def test_the_bandit_pulls_along_u_and_its_best_mode_is_worth_thirty() -> None:
    states = th.tensor([[0.0], [1.0], [-0.5]])
    u = toy.direction(states)
    assert u.numpy() == pytest.approx(np.array([[1.0, 0.0], [0.0, 1.0], [0.5**0.5, -(0.5**0.5)]]), abs=1e-6)
    assert toy.value(states, toy.RADIUS * u).tolist() == pytest.approx([30.0] * 3)
    actions = toy.behave(states.repeat(2000, 1), th.Generator().manual_seed(0))
    ways = (actions * u.repeat(2000, 1)).sum(-1)
    assert (ways > 0).float().mean() == pytest.approx(0.5, abs=0.03)
    assert ways.abs().mean() == pytest.approx(toy.RADIUS, abs=0.01) and ways.abs().std() == pytest.approx(0.08, abs=0.005)


def test_the_bandits_picture_is_made_by_the_algorithm_itself_and_comes_with_its_numbers(tmp_path: Path) -> None:
    small = {"policy_kwargs": {"net_arch": [16], "flow_net_arch": [16], "flow_transforms": 1}, "adv_weight": 0.0}
    files = plot_toy(tmp_path / "toy.png", steps=8, flow_steps=8, n_rows=500, state=-0.5, **small)
    assert [file.name for file in files] == ["toy.png", "toy.svg", "toy.json"]
    numbers = json.loads(files[2].read_text())
    assert set(numbers["actions"]) == {"data", "agent", "other", "random"}
    assert numbers["actions"]["data"]["within_q99"] == pytest.approx(0.99, abs=0.01)
    assert numbers["actions"]["data"]["true_nll"] == pytest.approx(toy.MEAN_NLL, abs=0.15)
    assert set(numbers["seconds"]) == {"density", "agent", "other"} and numbers["alpha"] != 1.0
    for text in ("actor, constraint on", "actor, constraint off", "at the state s = −0.5", "behaviour"):
        assert text in files[1].read_text()


def test_the_bandits_critics_are_the_truth_and_stay_it() -> None:
    agent = toy.make_agent(5, constrained=False)
    agent.learn_offline(toy.make_data(300), 5, log_interval=None)
    states, actions = toy.draw_behaviour(50, seed=1)
    assert agent.critic(states, actions).tolist() == [toy.value(states, actions).tolist()] * 2
    assert not bool(agent.policy.fitted) and "critic_loss" not in agent.last_metrics


@pytest.mark.slow
def test_the_constraint_keeps_the_bandits_actor_on_the_better_mode(tmp_path: Path) -> None:
    """CPED's README, claim 21, as the picture shows it."""
    plot_toy(tmp_path / "toy.png")
    found = json.loads((tmp_path / "toy.json").read_text())["actions"]
    assert found["agent"]["within_q99"] >= 0.97 and found["agent"]["q"] > 30
    assert found["agent"]["nll"] == pytest.approx(found["data"]["nll"], abs=0.15)
    assert found["other"]["within_q99"] == 0.0 and found["other"]["true_nll"] > 40
