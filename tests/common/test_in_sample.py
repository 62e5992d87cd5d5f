"""What methods that judge the data's actions alone share: V beside actor and critics, and what may influence what."""

import math
from typing import Any

import numpy as np
import pytest
import torch as th
from exact import SPACES, B, assert_close, close, make_agent, make_batch
from in_sample import Q1, V

from sb3_genoffline import EQL, SQL

pytestmark = [pytest.mark.parametrize("cls", [SQL, EQL]), pytest.mark.usefixtures("float64")]


def test_v_alone_has_layer_norm_and_all_layers_start_orthogonal(cls: Any) -> None:
    policy = cls("MlpPolicy", SPACES, seed=0, device="cpu").policy
    norms = [name for name, module in policy.named_modules() if isinstance(module, th.nn.LayerNorm)]
    assert norms == ["value.net.1", "value.net.4"]
    assert sum(p.numel() for name, p in policy.named_parameters() if name.startswith(tuple(norms))) == 2 * (256 + 256)
    assert all(policy.get_submodule(name).eps == 1e-6 for name in norms)
    linear = [p for name, p in policy.named_parameters() if p.ndim > 1 and "bias" not in name]
    matrices = [matrix for p in linear for matrix in (p if p.ndim == 3 else [p])]
    assert len(matrices) == 3 + 3 + 2 * 2 * 3
    for weight in matrices:
        small = weight if weight.shape[0] <= weight.shape[1] else weight.T
        close(small @ small.T, 2.0 * np.eye(len(small)), 1e-9)
    biases = [p for name, p in policy.named_parameters() if name.endswith("bias") or name == "actor.log_std"]
    assert not any(p.any() for p in biases)
    for online, target in zip(policy.critic.parameters(), policy.critic_target.parameters(), strict=True):
        assert th.equal(online, target)
    without = cls("MlpPolicy", SPACES, device="cpu", policy_kwargs={"value_layer_norm": False}).policy
    assert not any(isinstance(module, th.nn.LayerNorm) for module in without.modules())


def test_v_and_the_weights_read_the_target_critics_alone(cls: Any) -> None:
    found = []
    for perturbed in (False, True):
        model = make_agent(cls)
        if perturbed:
            model.critic.output_layer.bias.data += 1.0
        info = model.step(make_batch(), None)
        found.append([info[key] for key in ("value_loss", "actor_loss", "weight_mean", "v_mean")])
    assert_close(*found, rtol=1e-14)
    model.critic_target.output_layer.bias.data += 1.0
    assert model.step(make_batch(), None)["value_loss"] != found[1][0]


def test_no_action_but_the_datas_is_ever_judged(cls: Any) -> None:
    model, batch, seen = make_agent(cls), make_batch(), []
    for critic in (model.critic, model.critic_target):
        critic.register_forward_hook(lambda _, inputs, output: seen.append(inputs))
    assert model.draw_noise(B) is None
    model.step(batch, None)
    assert len(seen) == 2 and all(th.equal(actions, batch.actions) for _, actions in seen)


def test_the_actors_dropout_follows_the_random_numbers_it_is_given(cls: Any) -> None:
    networks = {"net_arch": [6, 5], "actor_dropout": 0.25}
    model, batch = make_agent(cls, policy_kwargs=networks), make_batch()
    noise = model.draw_noise(B)
    assert noise.shape == (B, 11)
    layers, hidden = [module for module in model.actor.net if isinstance(module, th.nn.Linear)], 0
    states = x = model.policy.normalize_observations(batch.observations)
    for layer, columns in zip(layers, (slice(0, 6), slice(6, 11)), strict=False):
        x = layer(x).relu() * (noise[:, columns] >= 0.25) / 0.75
        hidden += int((noise[:, columns] < 0.25).sum())
    assert hidden > 0
    close(model.actor(states, noise), th.tanh(layers[-1](x)), 1e-14)
    seen: list[Any] = []
    log_prob = model.actor.log_prob
    model.actor.log_prob = lambda *given: seen.append(given) or log_prob(*given)
    model.step(batch, noise)
    assert seen[0][2] is noise
    acts = [model.predict(batch.observations.numpy(), deterministic=True)[0] for _ in range(2)]
    assert (acts[0] == acts[1]).all()


def test_the_actors_rate_alone_decays_by_a_cosine(cls: Any) -> None:
    model = make_agent(cls, lr_decay_steps=10)
    for step in range(4):
        model.step(make_batch(), None)
        expected = 3e-4 * 0.5 * (1 + math.cos(math.pi * step / 10))
        assert model.actor_optimizer.param_groups[0]["lr"] == pytest.approx(expected, rel=1e-12)
        assert model.critic_optimizer.param_groups[0]["lr"] == model.value_optimizer.param_groups[0]["lr"] == 3e-4


def test_the_critics_regress_on_v_of_the_next_state_where_an_episode_goes_on(cls: Any) -> None:
    model: Any = make_agent(cls, gamma=0.99)
    rewards, masks = th.sin(th.arange(6.0)), th.tensor([1.0, 1.0, 1.0, 0.0, 1.0, 1.0])
    target = model.td_target(make_batch()._replace(rewards=rewards, masks=masks), th.tensor(V))
    q = th.tensor(np.stack([Q1, Q1 + 0.5 * np.cos(2.1 * np.arange(6)) + 0.25]), requires_grad=True)
    model.critic.forward = lambda states, actions: q
    model.critic_optimizer = th.optim.SGD([q], lr=0.0)
    close(model.critic_step(None, None, target)["critic_loss"], 2.16708993, 5e-9)
