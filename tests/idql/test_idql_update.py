"""Known numbers of IDQL, of its authors' functions in double precision or of their formulas, and its traps."""

import math
from typing import Any

import numpy as np
import pytest
import torch as th
from authors import grid
from exact import B, close, make_agent, make_batch
from gymnasium import spaces
from torch import Tensor, nn

from sb3_genoffline import IDQL
from sb3_genoffline.common.in_sample import expectile_loss
from sb3_genoffline.data.buffers import TransitionBatch
from sb3_genoffline.generative.diffusion import ActionDiffusion, NoiseSchedule, ddpm_sample
from sb3_genoffline.generative.residual_noise import ResidualNoiseNetwork
from sb3_genoffline.idql.implicit import convex_loss, implicit_weights
from sb3_genoffline.nets.activations import Mish
from sb3_genoffline.nets.values import StateValue
from zoo.runs.hyperparameters import load_hyperparameters

pytestmark = pytest.mark.usefixtures("float64")
NETWORKS: dict[str, Any] = {"net_arch": [6, 5], "hidden_dim": 4, "n_blocks": 2, "time_dim": 4}
U = np.sin(np.arange(5) + 0.5)
ROW, COLUMN = np.arange(2)[:, None], np.arange(3)
STATES, ACTIONS = np.sin(0.5 * ROW + COLUMN), 0.8 * np.cos(ROW + 2 * COLUMN[:2])
EPS = np.sin(3 * ROW + COLUMN[:2] + 0.5)
STEPS = th.tensor([2, 5])  # the code counts from 0: 1 and 4
START = np.cos(ROW + COLUMN[:2])


def make_idql(**changes: Any) -> Any:
    return make_agent(IDQL, **({"policy_kwargs": NETWORKS, "critic_batch_size": 3, "batch_size": B} | changes))


@th.no_grad()
def fill_by_formula(network: nn.Module) -> nn.Module:
    """Kernels sin(1 + 1.3i + 0.7j)/√in, biases 0.1·cos j, norms 1 + 0.1·sin j and 0.1·cos j."""
    for module in network.modules():
        if isinstance(module, nn.Linear):
            i, j = grid(module.in_features, module.out_features)
            module.weight.copy_((th.sin(1 + 1.3 * i + 0.7 * j) / math.sqrt(module.in_features)).T)
        elif isinstance(module, nn.LayerNorm):
            module.weight.copy_(1 + 0.1 * th.sin(th.arange(len(module.weight))))
        else:
            continue
        module.bias.copy_(0.1 * th.cos(th.arange(len(module.bias))))
    return network


def golden_network(activation_fn: type[nn.Module] = Mish) -> Any:
    network: Any = fill_by_formula(ResidualNoiseNetwork(3, 2, 4, 2, 0.1, 8, activation_fn))
    network.frequencies.data.copy_(0.2 * th.sin(1 + th.arange(4)))
    return network


def golden_sampling(network: Any = None, **settings: Any) -> Tensor:
    schedule, noise = NoiseSchedule.make("vp", 5), th.as_tensor(START).expand(5, 2, 2)
    if network is None:
        return ddpm_sample(lambda x, t: 0.5 * x + 0.1 * (t - 1), schedule, noise, **settings)
    with th.no_grad():
        model = ActionDiffusion(network)
        return model.sample(th.as_tensor(STATES), noise.unsqueeze(2), **settings).squeeze(1)


# ---------------------------------------------------------------------- known numbers


@pytest.mark.parametrize(
    ("objective", "tau", "expected"),
    [
        ("expectile", 0.7, [0.16089419, 0.69649737, 0.25071824, 0.03691466, 0.28666954]),
        ("expectile", 0.9, [0.20686396, 0.89549662, 0.32235202, 0.01230489, 0.09555651]),
        ("quantile", 0.7, [0.33559788, 0.69824649, 0.41893050, 0.10523497, 0.29325904]),
        ("exponential", 0.7, np.exp(U) - U - 1),
    ],
)
def test_the_losses_of_v_are_known_numbers(objective: Any, tau: float, expected: Any) -> None:
    """README claim 1."""
    close(convex_loss(th.as_tensor(U), objective, tau, 1.0), expected, 5e-9)
    if objective == "expectile":
        close(expectile_loss(th.as_tensor(U), tau).mean(), {0.7: 0.28633880, 0.9: 0.30651480}[tau], 5e-9)


@pytest.mark.parametrize(
    ("objective", "expected"),
    [
        ("expectile", [7 / 27, 7 / 27, 7 / 27, 1 / 9, 1 / 9]),
        ("quantile", [0.32492388, 0.15616801, 0.26029082, 0.19032121, 0.06829609]),
        ("exponential", [0.21935219, 0.29332298, 0.23404714, 0.14419078, 0.10908691]),
    ],
)
def test_the_weights_of_the_draw_are_known_numbers(objective: str, expected: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """README claim 7."""
    seen: list[Tensor] = []
    monkeypatch.setattr(th, "multinomial", lambda p, n, generator: seen.append(p) or th.zeros(len(p), n, dtype=th.int64))
    model = make_idql(selection="implicit", value_objective=objective)
    model.policy.choose(th.as_tensor(U)[None])
    close(seen[0] / seen[0].sum(), [expected], 5e-9)
    model.policy.choose(th.zeros(1, 3))  # V itself is a value like any other
    close(seen[1] / seen[1].sum(), [[1 / 3] * 3], 1e-12)


@pytest.mark.parametrize(
    ("objective", "minimum"),
    [
        ("quantile", lambda q: np.quantile(q, 0.7, method="inverted_cdf")),
        ("exponential", lambda q: np.log(np.mean(np.exp(2 * q))) / 2),
    ],
)
def test_v_minimises_what_its_objective_promises(objective: Any, minimum: Any) -> None:
    """README claim 1: the τ-quantile of Q, and log E[exp(αQ)]/α."""
    q = np.cos(np.arange(101))
    values = th.linspace(-1, 1, 20_001)
    losses = th.stack([convex_loss(value, objective, 0.7, 2.0) for value in th.as_tensor(q)[:, None] - values]).mean(0)
    assert float(values[losses.argmin()]) == pytest.approx(minimum(q), abs=1e-4)


def test_no_difference_overflows() -> None:
    """README claim 1: beyond α·u = 10 the exponential is a straight line that still pulls V up."""
    u = th.tensor([9.999, 10.001, 1e4, -1e4]).requires_grad_()
    loss = convex_loss(u, "exponential", 0.7, 1.0)
    (slope,) = th.autograd.grad(loss.sum(), u)
    close(slope / (math.exp(10) - 1), [math.exp(-0.001), 1.0, 1.0, -1 / (math.exp(10) - 1)], 1e-6)
    assert float(loss[1] - loss[0]) == pytest.approx(0.002 * math.exp(10), rel=2e-3)
    assert implicit_weights(u.detach(), "exponential", 0.7, 1.0).isfinite().all()


@pytest.mark.parametrize(
    ("activation_fn", "expected"),
    [
        (Mish, [[0.87232624, 0.40393687], [0.45733024, 0.10149926]]),
        (nn.SiLU, [[0.62692101, 0.26185422], [0.33999802, 0.06287164]]),
    ],
)
def test_the_noise_network_gives_known_numbers(activation_fn: Any, expected: Any) -> None:
    """README claim 4."""
    network = golden_network(activation_fn)
    states, actions = th.as_tensor(STATES), th.as_tensor(ACTIONS)
    close(network(states, actions, STEPS), expected, 5e-9)
    for row, step in enumerate(STEPS.tolist()):
        close(network.conditioned_on(states)(actions[:, None], step)[row, 0], expected[row], 5e-9)
    features = [0.49111797, 0.41517893, 0.98431702, 0.58084817, 0.87109307, 0.90973977, 0.17640860, -0.81401192]
    close(network.time_features(th.tensor(2)), features, 5e-9)


@pytest.mark.parametrize(("activation_fn", "loss"), [(Mish, 0.57917829), (nn.SiLU, 0.64848086)])
def test_the_actors_loss_is_a_known_number(activation_fn: Any, loss: float) -> None:
    """README claim 3."""
    actor = ActionDiffusion(golden_network(activation_fn))
    noisy = actor.add_noise(th.as_tensor(ACTIONS), th.as_tensor(EPS), STEPS)
    close(noisy, [[0.88805474, 0.53004465], [-0.31505272, -1.03779813]], 5e-9)
    close((actor(th.as_tensor(STATES), noisy, STEPS) - th.as_tensor(EPS)).square().sum(-1).mean(), loss, 5e-9)


def test_sampling_clamps_each_step_to_known_numbers() -> None:
    """README claim 5."""
    cold = [[-0.00650773, -0.73203422], [-0.73203422, -0.86838965]]
    close(golden_sampling(clip="step", temperature=0.0), cold, 5e-9)
    close(golden_sampling(clip="step"), [[0.86838965, 0.86838965], [0.86838965, -0.86838965]], 5e-9)
    close(golden_sampling(clip="clean", temperature=0.0), [[-0.05861658, -0.52014115], [-0.52014115, -0.63209106]], 5e-9)
    close(golden_sampling(clip="none", temperature=0.0).clamp(-1, 1), [cold[0], [cold[1][0], -1.0]], 5e-9)
    close(golden_sampling(golden_network(), clip="step"), [[0.59237764, 0.87206410], [0.88739526, -1.0]], 5e-9)
    swish = golden_network(nn.SiLU)
    close(golden_sampling(swish, clip="step"), [[0.69163494, 0.90938710], [0.93361362, -1.0]], 6e-9)


def test_the_policys_samples_are_clamped_step_by_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """README claim 5."""
    policy, noise = make_idql().policy, th.as_tensor(START).expand(5, 2, 2).unsqueeze(2)
    policy.actor_target = ActionDiffusion(golden_network())
    monkeypatch.setattr(policy, "acting_noise", lambda *shape: noise.reshape(shape))
    samples = policy.sample_actions(th.as_tensor(STATES), 1).detach()
    close(samples.squeeze(1), [[0.59237764, 0.87206410], [0.88739526, -1.0]], 5e-9)


def test_v_and_critics_have_known_losses() -> None:
    """README claims 1 and 2."""
    k = th.arange(3.0)
    target_q = th.minimum(th.sin(1 + k), th.cos(1 + 2 * k))
    u = target_q - 0.5 * th.sin(2 * k)
    close(u, [0.54030231, -1.44464121, 0.51952126], 5e-9)
    for expectile, loss in ((0.7, 0.33979224), (0.9, 0.23811495)):
        close(expectile_loss(u, expectile).mean(), loss, 5e-9)
    model = make_idql(gamma=0.99)
    batch = make_batch()._replace(rewards=th.tensor([1, -0.5, 0.25]), masks=th.tensor([1.0, 0.0, 1.0]))
    target = model.td_target(batch, th.cos(0.5 * k))
    close(target, [1.99, -0.5, 0.78489928], 5e-9)
    q = th.stack([th.cos(k), th.sin(0.3 + k)]).requires_grad_()
    model.critic.forward = lambda states, actions: q
    model.critic_optimizer = th.optim.SGD([q], lr=0.0)
    close(model.critic_step(None, None, target)["critic_loss"], 2 * 1.41994020, 5e-8)  # summed, not averaged (difference 5)


def test_v_with_a_norm_on_its_states_gives_known_numbers() -> None:
    """README claim 4."""
    for norm, expected in ((True, [0.16221886, 0.30875340]), (False, [0.23746435, 0.36898652])):
        value = fill_by_formula(StateValue(3, [4, 4], input_norm=norm))
        close(value(th.as_tensor(STATES)), expected, 5e-9)


@pytest.mark.parametrize(
    ("dims", "sizes"),  # of the actor, the two critics, V
    [
        ((11, 3), (1_640_483, 139_778, 69_121)),
        ((17, 6), (1_643_558, 144_386, 70_657)),
        ((29, 8), (1_647_656, 151_554, 73_729)),
    ],
)
def test_networks_have_the_codes_sizes(dims: tuple[int, int], sizes: tuple[int, int, int]) -> None:
    """README claim 4."""
    box = (spaces.Box(-np.inf, np.inf, dims[:1]), spaces.Box(-1, 1, dims[1:]))
    model = IDQL("MlpPolicy", box, device="cpu")
    networks = (model.actor, model.critic, model.value)
    assert tuple(sum(p.numel() for p in network.parameters()) for network in networks) == sizes
    blocks = [layer for block in model.actor.noise_net.blocks for layer in block.net if isinstance(layer, nn.Linear)]
    for layer in blocks:  # Flax's default: 1/√in, cut at two standard deviations of the normal that is cut
        assert layer.weight.std().item() == pytest.approx(layer.in_features**-0.5, rel=0.02) and not layer.bias.any()
        assert layer.weight.abs().max().item() < 2.3 * layer.in_features**-0.5
    frequencies = model.actor.noise_net.frequencies
    assert frequencies.numel() == 32 and 0.1 < frequencies.std() < 0.3


@pytest.mark.parametrize(("dims", "size"), [((11, 3), 1_747_267), ((17, 6), 1_750_342), ((29, 8), 1_754_440)])
def test_the_later_codes_actor_has_its_size(dims: tuple[int, int], size: int) -> None:
    """README claim 4: the profile ``head``."""
    box = (spaces.Box(-np.inf, np.inf, dims[:1]), spaces.Box(-1, 1, dims[1:]))
    model = IDQL("MlpPolicy", box, device="cpu", **load_hyperparameters("idql", "hopper-medium-v2", "head").arguments)
    assert sum(parameter.numel() for parameter in model.actor.parameters()) == size


@pytest.mark.filterwarnings("ignore:After .* updates")
def test_the_actors_rate_counts_its_own_updates() -> None:
    """README claim 6."""
    model = make_idql()
    for updates, rate in ((0, 3e-4), (375_000, 2.5606602e-4), (750_000, 1.5e-4), (1_500_000, 0.0)):
        model._n_updates = updates
        assert model._rate_of_step(0) == pytest.approx(rate, abs=1e-11)
    seen: list[float] = []
    model = make_idql(lr_decay_steps=10)
    step = model.actor_optimizer.step
    model.actor_optimizer.step = lambda: seen.append(model.actor_optimizer.param_groups[0]["lr"]) or step()
    for _ in range(2):
        model.step(make_batch(), model.draw_noise(B))
    assert seen == [pytest.approx(1.5e-4 * (1 + math.cos(math.pi * k / 10)), rel=1e-12) for k in range(4)]
    assert model.critic_optimizer.param_groups[0]["lr"] == model.value_optimizer.param_groups[0]["lr"] == 3e-4


# ---------------------------------------------------------------------- one update


def test_one_update_is_two_steps_of_the_actor_and_one_of_v_and_critics() -> None:
    """README claims 1, 2, 3 and 6: the actor's rows are parted, the first of all teach V and critics, in this order."""
    model, batch = make_idql(), make_batch()
    other = make_idql()
    noise = model.draw_noise(B)
    model.step(batch, noise)
    states = other.policy.normalize_observations(batch.observations)
    noisy = other.actor.add_noise(batch.actions, noise.eps, noise.t)
    optimizer = th.optim.Adam(other.actor.parameters(), 3e-4)  # AdamW without decay
    for rows in (slice(0, 4), slice(4, 7)):
        predicted = other.actor(states[rows], noisy[rows], noise.t[rows], noise.dropout[rows])
        optimizer.zero_grad()
        (predicted - noise.eps[rows]).square().sum(1).mean().backward()
        optimizer.param_groups[0]["lr"] = 3e-4 * 0.5 * (1 + math.cos(math.pi * (rows.start > 0) / 3e6))
        optimizer.step()
        for slow, fast in zip(other.actor_target.parameters(), other.actor.parameters(), strict=True):
            slow.data.mul_(0.999).add_(0.001 * fast.data)
    first = TransitionBatch(*(column[:3] for column in batch))
    target_q = other.critic_target(states[:3], first.actions).amin(0).detach()
    optimizer = th.optim.Adam(other.value.parameters(), 3e-4)
    u = target_q - other.value(states[:3])
    ((0.7 - (u <= 0).double()).abs() * u.square()).mean().backward()
    optimizer.step()
    following = other.value(other.policy.normalize_observations(first.next_observations)).detach()
    y = first.rewards + model.gamma * first.masks * following
    optimizer = th.optim.Adam(other.critic.parameters(), 3e-4)
    optimizer.zero_grad()
    (other.critic(states[:3], first.actions) - y).square().mean(1).sum().backward()
    optimizer.step()
    for slow, fast in zip(other.critic_target.parameters(), other.critic.parameters(), strict=True):
        slow.data.lerp_(fast.data, 0.005)
    for (name, ours), theirs in zip(model.policy.named_parameters(), other.policy.parameters(), strict=True):
        np.testing.assert_allclose(ours.detach(), theirs.detach(), rtol=0, atol=1e-12, err_msg=name)


def test_one_row_makes_one_finite_update_of_the_actor() -> None:
    """README claim 6: the code's empty second half gives NaN."""
    model = make_idql()
    moved = []
    step = model.actor_optimizer.step
    model.actor_optimizer.step = lambda: moved.append(1) or step()
    info = model.step(TransitionBatch(*(column[:1] for column in make_batch())), model.draw_noise(1))
    assert moved == [1] and all(value.isfinite() for value in info.values())
    assert all(p.isfinite().all() for p in model.policy.parameters())


def test_the_actors_dropout_follows_the_numbers_it_is_given_and_acting_has_none() -> None:
    """README claim 4: masks are drawn for an update, none when acting, and they drop a block's input before its norm."""
    model = make_idql(policy_kwargs=NETWORKS | {"dropout": 0.5})
    network, noise = model.actor.noise_net, model.draw_noise(B)
    assert noise.dropout.shape == (B, 2, 4)
    states, x = th.randn(B, 3), th.randn(B, 2)
    h = network.input_layer(th.cat([x, states, network.time_net(network.time_features(noise.t))], 1))
    for number, block in enumerate(network.blocks):
        h = h + block.net(h * (noise.dropout[:, number] >= 0.5) * 2)
    close(network(states, x, noise.t, noise.dropout), network.output(h), 1e-12)
    model.policy.train()
    observations = np.ones((4, 3))
    acts = []
    for _ in range(2):
        model.set_acting_seed(0)
        acts.append(model.predict(observations, deterministic=True)[0])
    assert (acts[0] == acts[1]).all()


def test_weight_decay_is_apart_from_the_gradient() -> None:
    """README claim 6."""
    for decay, moved in ((0.0, -3.0e-4), (1e-4, -3.0003e-4)):
        model = make_idql(actor_weight_decay=decay, lr_decay_steps=None)
        model.actor.noise_net.frequencies.data.fill_(1.0)
        optimizer = model.actor_optimizer
        for parameter in model.actor.parameters():
            parameter.grad = th.full_like(parameter, 0.5)
        optimizer.param_groups[0]["lr"] = 3e-4
        optimizer.step()
        close(model.actor.noise_net.frequencies - 1.0, [moved] * 2, 1e-10)


# ---------------------------------------------------------------------- acting


def test_acting_reads_the_slow_copies_alone() -> None:
    """README claim 7."""
    model, observations = make_idql(), np.ones((4, 3))

    def act() -> Any:
        model.set_acting_seed(0)
        return model.predict(observations, deterministic=True)[0]

    before = act()
    for network in (model.actor, model.critic):
        for parameter in network.parameters():
            parameter.data += 1.0
    assert (act() == before).all()
    for parameter in model.actor_target.parameters():
        parameter.data *= 0.1
    assert (act() != before).any()


def test_the_best_is_judged_by_the_smaller_critic() -> None:
    """README claim 7."""
    model = make_idql(n_action_samples=2)
    q = th.tensor([[[3.0, 1.5]], [[0.0, 1.2]]])  # critics × state × candidates: their mean prefers the first
    model.policy.critic_target.score_samples = lambda states, candidates: q
    candidates = th.tensor([[[0.1, 0.1], [0.2, 0.2]]])
    model.policy.sample_actions = lambda states, n: candidates
    close(model.predict(np.ones((1, 3)), deterministic=True)[0], [[0.2, 0.2]])


def test_the_draw_prefers_what_is_above_v_and_holds_for_both_ways_to_act() -> None:
    """README claim 7."""
    model = make_idql(selection="implicit", expectile=0.9)
    model.policy.candidate_values = lambda states, candidates: th.tensor([[1.0, -1.0]]).expand(len(states), 2)
    model.policy.sample_actions = lambda states, n: th.tensor([[[0.5, 0.5], [-0.5, -0.5]]]).expand(len(states), 2, 2)
    for deterministic in (True, False):
        actions, _ = model.predict(np.ones((500, 3)), deterministic=deterministic)
        assert 0.85 < (actions[:, 0] > 0).mean() < 0.95
