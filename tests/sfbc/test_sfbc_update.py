"""Known numbers of SfBC, of its authors' functions in double precision, its iterations, and its traps."""

import io
import math
from typing import Any

import numpy as np
import pytest
import torch as th
from exact import close
from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback
from torch import Tensor, nn
from worlds import PointEnv, make_agent, make_dataset, snapshot

from sb3_genoffline import SfBC
from sb3_genoffline.common.fitting import Fit, FitListener
from sb3_genoffline.errors import UserError
from sb3_genoffline.generative.score import ScoreBehaviour
from sb3_genoffline.nets.ensembles import EnsembleLinear, EnsembleQ
from sb3_genoffline.sfbc.sfbc import soft_maximum

ROW, COLUMN = np.arange(2)[:, None], np.arange(3)


@th.no_grad()
def fill_by_formula(tensor: Tensor) -> Tensor:
    """sin(1 + 0.7k)/√(product of all axes but the first), vectors 0.1·cos k; k counts in the order of memory."""
    k = th.arange(tensor.numel(), dtype=tensor.dtype)
    values = th.sin(1 + 0.7 * k) / math.sqrt(tensor[0].numel()) if tensor.ndim > 1 else 0.1 * th.cos(k)
    return tensor.copy_(values.view(tensor.shape))


def golden() -> tuple[ScoreBehaviour, Tensor, Tensor]:
    """The behaviour with weights by formula, states and actions."""
    model = ScoreBehaviour(3, 2)
    for parameter in model.parameters():
        fill_by_formula(parameter)
    model.noise_net.frequencies.copy_(0.05 * th.sin(1 + th.arange(16)))
    return model, th.as_tensor(np.sin(0.5 * ROW + COLUMN)), th.as_tensor(0.8 * np.cos(ROW + 2 * COLUMN[:2]))


def make(**changes: Any) -> Any:
    return make_agent("sfbc", **changes)


def state(network: nn.Module) -> list[Tensor]:
    return [tensor.clone() for tensor in network.state_dict().values()]


def same(first: list[Tensor], second: list[Tensor]) -> bool:
    return all(th.equal(a, b) for a, b in zip(first, second, strict=True))


# ---------------------------------------------------------------------- known numbers


@pytest.mark.usefixtures("float64")
def test_the_behaviours_network_gives_known_numbers() -> None:
    """README claim 1."""
    model, states, actions = golden()
    t = th.tensor([0.1, 0.7])
    eps = model.noise_net(states, actions, t)
    close(eps, [[-0.09943766, -0.07181613], [-0.09571066, -0.06641305]], 5e-9)
    close(-eps / model.process.at(t)[1][:, None], [[0.30876223, 0.22299508], [0.09605300, 0.06665059]], 5e-9)
    embedded = model.noise_net.embed_states(states).unsqueeze(1)
    close(model.noise_net.predict(embedded, actions.unsqueeze(1).expand(2, 5, 2), t[0])[0], eps[0].expand(5, 2), 1e-12)


@pytest.mark.usefixtures("float64")
def test_the_behaviours_loss_is_a_known_number() -> None:
    """README claim 2: not that with t = u, 1.20149641."""
    model, states, actions = golden()
    noise = th.cat([th.tensor([[0.2], [0.8]]), th.sin(1 + th.arange(4.0)).view(2, 2)], 1)
    close(model.loss(states, actions, noise), 1.20149673, 5e-9)


@pytest.mark.usefixtures("float64")
def test_the_critic_gives_known_numbers() -> None:
    """README claim 1."""
    critic = EnsembleQ(1, 3, 2, [256, 256], nn.SiLU, torch_init=True)
    for layer in critic.modules():
        if isinstance(layer, EnsembleLinear):  # the authors' weights are (out, in)
            layer.weight.data[0] = fill_by_formula(layer.weight[0].T.contiguous().detach()).T
            layer.bias.data[0, 0] = fill_by_formula(layer.bias[0, 0].detach())
    _, states, actions = golden()
    close(critic(states, actions)[0], [0.10142346, 0.10407992], 5e-9)


@pytest.mark.parametrize(
    ("dims", "widths", "sizes"),
    [
        ((11, 3), (256, 256), (1_627_939, 69_889)),
        ((17, 6), (256, 256), (1_634_278, 72_193)),
        ((29, 8), (256, 256), (1_638_760, 75_777)),
        ((29, 8), (512, 256, 256), (1_638_760, 216_833)),
    ],
)
def test_networks_have_the_codes_sizes(dims: tuple[int, int], widths: tuple[int, ...], sizes: tuple[int, int]) -> None:
    """README claim 1."""
    box = (spaces.Box(-np.inf, np.inf, dims[:1]), spaces.Box(-1, 1, dims[1:]))
    policy = SfBC("MlpPolicy", box, device="cpu", policy_kwargs={"net_arch": widths}).policy
    assert tuple(sum(p.numel() for p in net.parameters()) for net in (policy.behavior, policy.critic)) == sizes
    frequencies = policy.behavior.noise_net.frequencies
    assert frequencies.numel() == 16 and 15 < frequencies.std() < 50 and not frequencies.requires_grad
    assert {type(m) for m in policy.behavior.modules() if not list(m.children())} == {nn.Linear, nn.SiLU, nn.Identity}


def test_values_of_planning_are_known_numbers() -> None:
    """README claim 5: the softmax is of standardised values, for which α is made."""
    n, j = np.arange(6)[:, None], np.arange(4)
    q = th.as_tensor(0.8 * np.sin(1 + 1.7 * n + 0.9 * j))
    values = soft_maximum(q, 20.0)
    close(values, [0.74381248, 0.34190327, 0.58317375, 0.79757152, 0.79759000, -0.06254210], 5e-9)
    close(1.06184667 + 0.99285271 * values, [1.80034290, 1.40130626, 1.64085231, 1.85371771, 1.85373606, 0.99975157], 2e-8)
    close(soft_maximum(q, 0.0), q.mean(1), 1e-12)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("n_selected", [1, 4])
def test_the_probabilities_of_candidates_are_known_numbers(n_selected: int) -> None:
    """README claim 8."""
    values = 0.3 * th.sin(1 + 0.9 * th.arange(8))
    p = make(n_selected=n_selected).policy.selection_probabilities(values[None])[0]
    close(p, [0.03917675, 0.90955597, 9.9e-9, 0, 0, 0, 0, 0.05126727], 5e-9)


# ---------------------------------------------------------------------- acting


def test_the_action_is_the_plain_mean_of_those_drawn() -> None:
    """README claim 8: four of eight candidates, each at most once, however far the best is ahead."""
    policy = make(n_selected=4).policy
    candidates = th.cos(th.arange(8.0))[None, :, None]
    values = th.tensor([[3.0, 9.0, 1.0, 0.0, 0.0, 0.0, 0.0, 2.0]])
    close(policy.pick(candidates, values), [[float(candidates[0, [0, 1, 2, 7], 0].mean())]], 1e-6)
    close(policy.pick(candidates, values)[0, 0], 0.46951443, 1e-6)


def test_the_draw_prefers_the_better_and_is_the_seeds() -> None:
    """README claim 8."""
    model = make(n_selected=1, selection_alpha=1.0)
    values = th.tensor([[0.0, math.log(4.0)]]).expand(4000, 2)
    candidates = th.tensor([[[0.0], [1.0]]]).expand(4000, 2, 1)
    drawn = [model.set_acting_seed(1) or model.policy.pick(candidates, values) for _ in range(2)]
    assert th.equal(*drawn) and 0.78 < drawn[0].mean() < 0.82


def test_all_are_taken_where_there_are_fewer_candidates() -> None:
    """README claim 8."""
    model = make(n_selected=5, n_action_samples=3)
    candidates = th.tensor([[[0.0], [0.5], [1.0]]])
    close(model.policy.pick(candidates, th.tensor([[1.0, 2.0, 3.0]])), [[0.5]], 1e-7)


def test_samples_are_the_solvers_and_only_the_action_is_clipped() -> None:
    """README claim 4: as many evaluations as settings say, from pure noise."""
    model, calls = make(n_solver_steps=7, solver_order=2), []
    network = model.policy.behavior.noise_net
    predict = network.predict
    object.__setattr__(network, "predict", lambda e, x, t: calls.append(float(t)) or predict(e, x, t))
    states, noise = th.randn(5, 3), 9.0 * th.randn(5, 3, 2)
    samples = model.policy.behave(states, noise)
    close(calls, np.linspace(1.0, 1e-3, 8)[:-1], 1e-6)
    assert samples.shape == (5, 3, 2) and samples.abs().max() > 1
    model.policy.behave = lambda states, noise: th.full((len(states), 4, 2), 3.0)
    assert (model.policy._predict(states, deterministic=True) == 1.0).all()


def test_samples_in_blocks_are_those_of_single_states() -> None:
    """README claim 4."""
    model = make().policy.behavior
    states, noise = th.randn(70, 3), th.randn(70, 16, 2)
    with th.no_grad():
        together = model.sample(states, noise, n_steps=3)
        for i in (0, 39, 40, 69):  # 640 rows are a block
            single = model.sample(states[i : i + 1], noise[i : i + 1], n_steps=3)
            th.testing.assert_close(together[i : i + 1], single, rtol=1e-4, atol=1e-4)
        of_one = model.sample(states, noise[:, 0], n_steps=3)
        th.testing.assert_close(of_one, together[:, 0], rtol=1e-4, atol=1e-4)


# ---------------------------------------------------------------------- iterations


@pytest.mark.usefixtures("float64")
def test_an_update_regresses_the_critic_on_standardised_returns() -> None:
    """README claim 7."""
    model, other = make(), make()
    model.set_dataset(make_dataset())
    batch = model.batches.draw(16)
    info = model.step(batch, None)
    q = other.critic(batch.observations, batch.actions)[0]
    y = (batch.returns - model.batches.returns.mean()) / model.batches.returns.std()
    optimizer = th.optim.Adam(other.critic.parameters(), 1e-3)
    loss = (q - y).square().mean()
    loss.backward()
    optimizer.step()
    for ours, theirs in zip(model.critic.parameters(), other.critic.parameters(), strict=True):
        close(ours, theirs, 1e-9)
    close(info["critic_loss"], loss, 1e-9)
    close(info["q_mean"], model.batches.mean + model.batches.scale * q.detach().mean(), 1e-9)


def test_planning_begins_an_iteration_with_the_first_weights_and_a_new_optimizer(monkeypatch: pytest.MonkeyPatch) -> None:
    """README claim 7: after ``critic_steps`` updates, K − 1 times."""
    model, plans = make(n_planning_iterations=3, critic_steps=4), []
    first, plan = state(model.critic), SfBC.plan

    def watched(agent: Any) -> None:
        before = agent.batches.returns
        plan(agent)
        assert same(state(agent.critic), first) and not agent.critic_optimizer.state
        assert (agent.batches.returns >= before - 1e-9).all()  # the first returns are never lowered by planning's own form
        plans.append(agent._n_updates)

    monkeypatch.setattr(SfBC, "plan", watched)
    model.learn_offline(make_dataset())
    assert plans == [4, 8] and model._n_updates == model.usual_gradient_steps() == 12
    assert model.critic_optimizer.state and not same(state(model.critic), first)
    assert {"plan/return_mean", "plan/return_std", "plan/raised_share", "behavior/loss"} <= model.last_metrics.keys()


def test_planning_asks_the_critic_about_the_behaviours_actions() -> None:
    """README claims 5 and 6."""
    model = make().pretrain(make_dataset())
    sampler, actions = model.batches, model.planning_actions()
    assert actions.shape == (60, 3, 2)
    states = sampler.observations_at(slice(None))
    with th.no_grad():
        q = th.stack([model.critic(states, actions[:, j])[0] for j in range(3)], 1)
    values = sampler.mean + sampler.scale * soft_maximum(q, 20.0).numpy()
    before, rewards, ends = sampler.returns, sampler._rewards, make_dataset().episode_ends
    model.plan()
    expected, following = np.zeros(60), 0.0
    for row in range(59, -1, -1):
        following = 0.0 if row + 1 in ends else following
        expected[row] = following = max(rewards[row] + 0.99 * following, values[row])
    close(sampler.returns, expected, 1e-5)
    assert not np.array_equal(before, sampler.returns)


def test_the_behaviours_actions_are_drawn_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """README claim 6."""
    model, calls = make(n_planning_iterations=4, critic_steps=2), []
    sample = ScoreBehaviour.sample
    monkeypatch.setattr(ScoreBehaviour, "sample", lambda *args, **kwargs: calls.append(1) or sample(*args, **kwargs))
    model.learn_offline(make_dataset())
    assert len(calls) == 1 and model.batches.n_plans == 3
    drawn = model.planning_actions()
    model.n_planning_samples = 5
    assert model.planning_actions().shape == (60, 5, 2) and drawn.shape == (60, 3, 2)
    for name, value in (("n_solver_steps", 5), ("solver_order", 1)):  # other steps of the solver give other actions
        before = model.planning_actions()
        setattr(model, name, value)
        assert not th.equal(model.planning_actions(), before)


@pytest.mark.parametrize("updates", [3, 4, 6, 9])
def test_a_training_that_was_saved_between_plannings_goes_on_bit_for_bit(updates: int) -> None:
    """README claim 9: actions of planning are in no file and are drawn again, the same."""
    settings = {"n_planning_iterations": 3, "critic_steps": 4}
    whole, file = make(**settings).learn_offline(make_dataset(), 12), io.BytesIO()
    make(**settings).learn_offline(make_dataset(), updates).save(file)
    loaded = SfBC.load(file, device="cpu").learn_offline(make_dataset(), 12 - updates, reset_num_timesteps=False)
    whole._total_timesteps = loaded._total_timesteps
    assert snapshot(whole) == snapshot(loaded)


def test_a_fit_that_was_stopped_goes_on_bit_for_bit() -> None:
    """README claim 9."""

    class Stop(BaseCallback, FitListener):
        def on_fit_step(self, fit: Fit, metrics: dict[str, float]) -> bool:
            return fit.step < 2

        def _on_step(self) -> bool:
            return True

    whole, file = make().learn_offline(make_dataset(), 8), io.BytesIO()
    make().learn_offline(make_dataset(), 8, callback=Stop()).save(file)
    assert snapshot(whole) == snapshot(SfBC.load(file, device="cpu").learn_offline(make_dataset(), 8))


def test_planned_returns_stay_where_other_random_numbers_are_wanted() -> None:
    """README claim 9: the order of rows is another seed's, what planning has found is the agent's."""
    model, file = make().learn_offline(make_dataset(), 8), io.BytesIO()
    model.save(file)
    model.set_dataset(make_dataset())
    for changes in ({}, {"seed": 9}):
        loaded = SfBC.load(file, device="cpu", **changes)
        loaded.set_dataset(make_dataset())
        assert loaded.batches.n_plans == 1 and (loaded.batches.returns == model.batches.returns).all()
        drawn = (agent.batches.draw(16).returns for agent in (model, loaded))
        assert th.equal(*drawn) != bool(changes)


def test_one_behaviour_serves_agents_with_other_settings() -> None:
    """README claim 10."""
    first, file = make().learn_offline(make_dataset(), 8), io.BytesIO()
    first.save_fitted_model(file)
    planned = []
    for planning_target in ("code", "paper"):
        file.seek(0)
        model = make(seed=5, behavior=file, planning_target=planning_target).learn_offline(make_dataset(), 8)
        assert same(state(model.policy.behavior), state(first.policy.behavior)) and model.behavior is None
        assert model.batches.n_plans == 1 and "behavior/loss" not in model.last_metrics
        planned.append(model.batches.returns)
    assert not np.array_equal(*planned)
    model.set_fitted_model(first.policy.behavior)
    assert model._drawn is None


def test_it_says_what_it_can_not_do() -> None:
    """README claim 11."""
    model = make(env=PointEnv()).learn_offline(make_dataset(), 2)
    with pytest.raises(UserError, match="SfBC can't continue online"):
        model.learn(5)
    with pytest.raises(UserError, match="can't say how likely"):
        model.policy.behavior.log_prob(th.zeros(1, 3), th.zeros(1, 2))
    with pytest.raises(ValueError, match="needs noise"):
        model.policy.behavior.loss(th.zeros(1, 3), th.zeros(1, 2))
    with pytest.raises(UserError, match="time_dim=5 must be even"):
        make(policy_kwargs={"time_dim": 5})
