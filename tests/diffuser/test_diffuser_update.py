"""Diffuser's windows, losses and slow copies against known numbers and plain formulas, in double precision."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch as th
from exact import SPACES, close
from gymnasium import spaces

from sb3_genoffline import Diffuser, OfflineDataset
from sb3_genoffline.data.batches import SequenceBatch
from sb3_genoffline.errors import UserError
from sb3_genoffline.generative.window_diffusion import loss_weights

pytestmark = pytest.mark.usefixtures("float64")


def agent(given_spaces: Any = SPACES, **changes: Any) -> Any:
    settings = {"horizon": 4, "n_diffusion_steps": 5, "n_plans": 3, "max_episode_steps": 10, "seed": 0, "device": "cpu"}
    settings["policy_kwargs"] = {"channels": [8, 32]}
    return Diffuser("MlpPolicy", given_spaces, **(settings | changes))


def random_batch(seed: int = 0, n: int = 2) -> SequenceBatch:
    rng = th.Generator().manual_seed(seed)
    states, actions = th.randn(n, 4, 3, generator=rng), th.rand(n, 4, 2, generator=rng) * 2 - 1
    nothing = th.zeros(n, 4)
    returns = th.randn(n, 4, generator=rng)
    return SequenceBatch(states, actions, nothing, nothing, nothing.long(), nothing.bool(), returns)


def episodes(lengths: list[int], terminal: list[bool]) -> OfflineDataset:
    """Rewards 1 + 0.1·step + number; observations sin n and 3 + 2·cos n of the row n, actions half of them."""
    ends = np.cumsum(lengths)
    n, step = np.arange(ends[-1]), np.concatenate([np.arange(length) for length in lengths])
    terminations = np.zeros(ends[-1], bool)
    terminations[ends - 1] = terminal
    truncations = np.zeros(ends[-1], bool)
    truncations[ends - 1] = ~np.array(terminal)
    observations = np.stack([np.sin(n), 3 + 2 * np.cos(n)], axis=1)
    return OfflineDataset(
        observations=observations,
        actions=0.1 * observations,
        rewards=1 + 0.1 * step + np.repeat(np.arange(len(lengths)), lengths),
        next_observations=observations,
        terminations=terminations,
        truncations=truncations,
        observation_space=spaces.Box(-np.inf, np.inf, (2,)),
        action_space=spaces.Box(-1, 1, (2,)),
        episode_ends=ends,
    )


def test_windows_are_standardised_actions_before_states_and_padding_is_a_raw_zero() -> None:
    """README claim 2."""
    data = episodes([6], [True])
    model = agent((data.observation_space, data.action_space))
    model.set_dataset(data)
    close(model.policy.obs_mean, [0.02936028, 2.92139385], 1e-6)
    close(model.policy.obs_std, [0.71203040, 1.40086539], 1e-6)
    batch = model.batches.gather(th.tensor([0, 4]))
    windows = model.policy.windows(batch.observations, batch.actions)
    first, padding = [-0.04123458, 1.48380150], [-0.04123458, -2.08542082]
    close(windows[0, 0], first + first, 1e-5)
    close(windows[1, 2:], [padding + padding] * 2, 1e-5)


@pytest.mark.usefixtures("float64")
def test_between_limits_the_extremes_are_one_and_plans_go_no_further() -> None:
    """README claim 2."""
    data = episodes([6], [True])
    model = agent((data.observation_space, data.action_space), normalizer="limits")
    model.set_dataset(data)
    batch = model.batches.gather(th.tensor([0, 4]))
    windows = model.policy.windows(batch.observations, batch.actions)
    close(windows[0, 0], [0.02656368, 1.0] * 2, 1e-6)
    close(windows[1, 2:], [[0.02656368, -1.51257229] * 2] * 2, 1e-6)
    states, actions = model.policy.raw(th.tensor([1.2, -1.5] * 2).expand(1, 4, 4))
    close(states[0], [[0.90929743, 1.02001501]] * 4, 1e-6)
    close(actions[0], [[0.090929743, 0.102001501]] * 4, 1e-6)
    model.set_acting_seed(0)
    plans = model.policy.plan(th.tensor([[0.5, 2.0]]))
    assert (plans.actions <= 0.5).all() and (plans.actions >= -0.1).all()
    with pytest.raises(UserError, match=r'normalizer="limits".*normalize_observations=False'):
        agent(normalizer="limits", normalize_observations=False)


def test_standardisation_is_that_of_the_first_data() -> None:
    """README claim 2: what the networks were trained on; a constant action stays as it is."""
    data = episodes([6], [True])
    data = dataclasses.replace(data, actions=data.actions * [1.0, 0.0])
    model = agent((data.observation_space, data.action_space))
    model.set_dataset(data)
    close(model.policy.action_std, [0.0712030, 1.0], 1e-6)
    before = model.policy.action_mean.clone()
    model.set_dataset(episodes([5, 4], [True, True]))
    assert th.equal(before, model.policy.action_mean)


@pytest.mark.parametrize(
    ("discount", "expected"),
    [
        (0.99, [-90.18825640, -96.31399854, 23.34712323, 13.22283563, -90.74200312]),
        (0.997, [-92.84426636, -97.00419853, 24.14742729, 13.41625611, -91.41260314]),
    ],
)
def test_windows_start_where_the_codes_do_and_have_the_return_of_what_is_left(discount: float, expected: list[float]) -> None:
    """README claim 3: a fall costs 100, the end of the time nothing."""
    data = episodes([5, 10, 1, 3], [True, False, False, True])
    model = agent((data.observation_space, data.action_space), return_discount=discount, reward_transform="reward_normalize")
    model.set_dataset(data)
    assert len(model.batches) == 4 + 6 + 0 + 2
    batch = model.batches.gather(th.tensor([0, 3, 4, 9, 11]))
    assert batch.timesteps[:, 0].tolist() == [0, 3, 0, 5, 1]
    close(batch.returns_to_go[:, 0], expected, 1e-5)


@pytest.mark.parametrize(("horizon", "n"), [(32, 968), (4, 996)])
def test_a_whole_episode_has_the_codes_number_of_windows(horizon: int, n: int) -> None:
    """README claim 3."""
    model = agent(horizon=horizon, max_episode_steps=1000)
    assert model.count_windows(np.array([1000, 1, 50, horizon])).tolist() == [n, 0, 49, horizon - 1]


def test_losses_are_the_formulas() -> None:
    """README claims 1 and 4: each from its own noise, the present state clean in all of it."""
    model, batch = agent(action_weight=7.0, loss_discount=0.9), random_batch()
    noise = model.draw_noise(2)
    windows = th.cat([batch.actions, batch.observations], -1)
    expected = []
    for network, drawn in ((model.diffusion, noise.diffusion), (model.value, noise.value)):
        alpha_bar = th.as_tensor(model.diffusion.schedule.alpha_bars)[drawn.t].view(-1, 1, 1)
        noisy = alpha_bar.sqrt() * windows + (1 - alpha_bar).sqrt() * drawn.eps
        noisy[:, 0, 2:] = batch.observations[:, 0]
        expected.append(network.network(noisy, drawn.t) if network is model.diffusion else network(noisy, drawn.t))
    errors = (expected[0] - windows).square()
    errors[:, 0, 2:] = 0.0
    found = model.update(batch, noise)
    close(found["diffusion_loss"], (loss_weights(4, 5, 2, 7.0, 0.9, windows) * errors).mean(), 1e-12)
    close(found["first_action_loss"], errors[:, 0, :2].mean(), 1e-12)
    assert batch.returns_to_go is not None
    close(found["value_loss"], (expected[1] - batch.returns_to_go[:, 0]).square().mean(), 1e-12)
    assert not th.equal(noise.diffusion.eps, noise.value.eps)


def test_steps_of_the_noise_are_all_there_are() -> None:
    """README claim 4."""
    t = agent().draw_noise(500).diffusion.t
    assert t.unique().tolist() == [1, 2, 3, 4, 5]


def test_one_update_is_a_step_of_adam_for_each_network() -> None:
    """README claim 4: the diffusion's loss does not move the value, nor the value's the diffusion."""
    model, batch = agent(learning_rate=0.01), random_batch()
    noise = model.draw_noise(2)
    before = {name: weight.detach().clone() for name, weight in model.policy.named_parameters()}
    model.step(batch, noise)
    for network, name in ((model.diffusion, "diffusion"), (model.value, "value")):
        for key, weight in network.named_parameters():
            assert weight.grad is not None
            moved = before[f"{name}.{key}"] - 0.01 * weight.grad / (weight.grad.abs() + 1e-8)
            close(weight, moved, 1e-10)


def test_copies_are_exact_at_first_and_slow_later() -> None:
    """README claim 5: every tenth update, exact before the 2000th."""
    model = agent(tau=0.25)
    shares = {}
    for update in (0, 1, 9, 10, 1990, 1999, 2000, 2001, 2010):
        model._n_updates = update
        shares[update] = model.phase()[1]
    assert shares == {0: 1.0, 1: 0.0, 9: 0.0, 10: 1.0, 1990: 1.0, 1999: 0.0, 2000: 0.25, 2001: 0.0, 2010: 0.25}

    for update in (1990, 2000, 2001):
        model._n_updates = update
        before = {name: weight.clone() for name, weight in model.policy.state_dict().items()}
        model.step(random_batch(update), model.draw_noise(2))
        for name, weight in model.policy.state_dict().items():
            if "_target" not in name:
                continue
            online, share = model.policy.state_dict()[name.replace("_target", "")], shares[update]
            close(weight, share * online + (1 - share) * before[name], 1e-12)


def test_the_value_stops_learning_and_the_diffusion_goes_on() -> None:
    """README claim 5."""
    model = agent(value_steps=1, target_update_interval=1)
    first = model.step(random_batch(), model.draw_noise(2))
    before = {name: weight.clone() for name, weight in model.policy.state_dict().items()}
    second = model.step(random_batch(1), model.draw_noise(2))
    assert {"value_loss", "v_mean"} == first.keys() - second.keys()
    after = model.policy.state_dict()
    moved = {name.split(".")[0] for name, weight in after.items() if not th.equal(weight, before[name])}
    assert moved == {"diffusion", "diffusion_target"}
