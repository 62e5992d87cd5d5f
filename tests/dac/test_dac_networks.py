"""Networks, targets and acting of DAC in float64, with the numbers of its reference (README claims 6, 17 and 21)."""

from collections.abc import Callable

import numpy as np
import pytest
import torch as th
from exact import close
from torch import Tensor, nn
from worlds import make_agent

from sb3_genoffline import DAC
from sb3_genoffline.data.buffers import TransitionBatch
from sb3_genoffline.generative.diffusion import ConditionalDiffusion
from sb3_genoffline.nets.ensembles import EnsembleLinear, EnsembleQ, soft_update

pytestmark = pytest.mark.usefixtures("float64")
MakeDac = Callable[..., DAC]
MakeBatch = Callable[..., TransitionBatch]


# ---------------------------------------------------------------------- moving averages: README claim 17


def test_the_actors_target_first_moves_at_update_1005_and_then_every_fifth(make_dac: MakeDac, make_batch: MakeBatch) -> None:
    model = make_dac()
    batch, noise = make_batch(2), model.draw_noise(2)
    moved = []
    for n in [0, 1, 5, 999, 1000, 1001, 1004, 1005, 1006, 1010]:
        model._n_updates = n
        before = [p.clone() for p in model.actor_target.parameters()]
        model.step(batch, noise)
        if any((p != q).any() for p, q in zip(model.actor_target.parameters(), before, strict=True)):
            moved.append(n)
    assert moved == [1005, 1010]


def test_the_critics_targets_move_at_every_update_from_the_first(make_dac: MakeDac, make_batch: MakeBatch) -> None:
    model = make_dac()
    initial = [p.clone() for p in model.critic_target.parameters()]
    model.step(make_batch(6), model.draw_noise(6))
    for start, online, target in zip(initial, model.critic.parameters(), model.critic_target.parameters(), strict=True):
        close(target, 0.995 * start + 0.005 * online, 1e-14)
    assert any((p != q).any() for p, q in zip(model.critic_target.parameters(), initial, strict=True))


def test_after_200_moves_the_initial_target_weighs_0_367(make_dac: MakeDac) -> None:
    model = make_dac()
    with th.no_grad():
        for online, target in zip(model.actor.parameters(), model.actor_target.parameters(), strict=True):
            online.zero_()
            target.fill_(1.0)
    for _ in range(200):
        soft_update(model.actor, model.actor_target, 0.005)
    close(next(model.actor_target.parameters()), np.full((32, 16), 0.3669578217), 1e-9)


# ---------------------------------------------------------------------- initialisation: README claim 6


def test_parameter_counts_are_the_references() -> None:
    actor, critic = ConditionalDiffusion(17, 6), EnsembleQ(10, 17, 6)
    assert sum(p.numel() for p in actor.parameters()) == 149_062
    assert sum(p.numel() for p in critic.parameters()) == 1_379_850


def test_kernels_are_xavier_uniform_with_the_fans_of_one_layer_and_biases_zero() -> None:
    th.manual_seed(0)
    kernels: list[Tensor] = []
    for module in ConditionalDiffusion(17, 6).modules():
        if isinstance(module, nn.Linear):
            kernels.append(module.weight)
            assert (module.bias == 0).all()
    for module in EnsembleQ(10, 17, 6).modules():
        if isinstance(module, EnsembleLinear):
            kernels.extend(module.weight)
            assert (module.bias == 0).all()
    assert len(kernels) == 6 + 4 * 10
    for kernel in kernels:
        std = (2 / sum(kernel.shape)) ** 0.5
        assert abs(kernel.std().item() - std) < 4 * std / kernel.numel() ** 0.5
        assert kernel.abs().max() <= 3**0.5 * std
    stds = {tuple(sorted(kernel.shape)): (2 / sum(kernel.shape)) ** 0.5 for kernel in kernels}
    close([stds[55, 256], stds[256, 256], stds[1, 256]], [0.0802, 0.0625, 0.0882], 5e-5)


def test_targets_start_as_copies_and_members_differ(make_dac: MakeDac) -> None:
    model = make_dac()
    for online, target in ((model.actor, model.actor_target), (model.critic, model.critic_target)):
        for p, q in zip(online.parameters(), target.parameters(), strict=True):
            assert (p == q).all() and p.data_ptr() != q.data_ptr() and not q.requires_grad
    for layer in model.critic.modules():
        if isinstance(layer, EnsembleLinear):
            assert not any((layer.weight[i] == layer.weight[j]).any() for i in range(3) for j in range(i))


# ---------------------------------------------------------------------- acting: README claim 21


def test_acting_takes_the_candidate_with_the_largest_mean_target_q(make_dac: MakeDac) -> None:
    model = make_dac(n_action_samples=10)
    with th.no_grad():
        for parameter in model.critic.parameters():  # the online critics must not matter
            parameter.normal_()
    states = th.randn(7, 3)
    model.policy.seed_acting(1)
    candidates = model.policy.sample_actions(states, 10).detach()
    model.policy.seed_acting(1)
    actions = model.policy._predict(states, deterministic=True).detach()
    q = th.stack([model.critic_target(states, candidates[:, i]).mean(0) for i in range(10)], dim=1)
    close(actions, candidates[th.arange(7), q.argmax(1)], 1e-14)
    assert len(set(q.argmax(1).tolist())) > 1


def test_candidates_come_from_the_online_actor(make_dac: MakeDac) -> None:
    model = make_dac()
    states = th.randn(4, 3)
    model.policy.seed_acting(0)
    before = model.policy._predict(states, deterministic=True).detach()
    with th.no_grad():
        for parameter in model.actor_target.parameters():
            parameter.zero_()
    model.policy.seed_acting(0)
    close(model.policy._predict(states, deterministic=True), before, 1e-14)


@pytest.mark.parametrize("deterministic", [True, False])
def test_with_one_candidate_the_critics_are_irrelevant(make_dac: MakeDac, deterministic: bool) -> None:
    model = make_dac(n_action_samples=1 if deterministic else 10)
    states = th.randn(4, 3)
    model.policy.seed_acting(0)
    before = model.policy._predict(states, deterministic=deterministic).detach()
    with th.no_grad():
        for parameter in [*model.critic.parameters(), *model.critic_target.parameters()]:
            parameter.fill_(float("nan"))
    model.policy.seed_acting(0)
    close(model.policy._predict(states, deterministic=deterministic), before, 1e-14)


def test_an_imitator_acts_by_one_sample_and_asks_no_critic(monkeypatch: pytest.MonkeyPatch) -> None:
    agent = make_agent("dac", guidance="none", n_action_samples=3)
    monkeypatch.setattr(agent.policy.critic_target, "score_samples", lambda *_: pytest.fail("a critic was asked"))
    agent.predict(np.zeros((2, 3), np.float32), deterministic=True)
