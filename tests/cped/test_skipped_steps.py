"""Steps that are left out, and trainings that are ended (CPED's README, claim 26)."""

from collections.abc import Callable
from typing import Any

import pytest
import torch as th
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from sb3_genoffline import OfflineDataset
from sb3_genoffline.cped import CPED
from sb3_genoffline.data.buffers import TransitionBatch

MakeCped = Callable[..., CPED]
MakeBatch = Callable[..., TransitionBatch]
MakeData = Callable[..., OfflineDataset]


def learned_state(model: CPED) -> list[Tensor]:
    """Parameters and optimizer states of critics, actor and α; nothing of the targets."""
    modules = (model.actor, model.critic)
    optimizers = (model.actor_optimizer, model.critic_optimizer, model.alpha_optimizer)
    found = [parameter for module in modules for parameter in module.parameters()]
    found += [value for optimizer in optimizers for state in optimizer.state.values() for value in state.values()]
    return [tensor.detach().clone() for tensor in (*found, model.log_alpha) if tensor is not None]


def broken(batch: TransitionBatch, value: float) -> TransitionBatch:
    """A state and a reward have overflowed."""
    observations, rewards = batch.observations.clone(), batch.rewards.clone()
    observations[2], rewards[5] = value, value
    return batch._replace(observations=observations, rewards=rewards)


@pytest.mark.parametrize("alpha_sgd", [False, True])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e12])
def test_a_skipped_step_changes_neither_weights_nor_optimizers_and_is_counted(
    make_cped: MakeCped, make_batch: MakeBatch, value: float, alpha_sgd: bool
) -> None:
    model = make_cped(alpha_sgd=alpha_sgd)
    model.step(make_batch(12), model.draw_noise(12))
    model.step(make_batch(12), model.draw_noise(12))
    before = learned_state(model)
    model.step(broken(make_batch(12), value), model.draw_noise(12))  # critics, actor, and with it α
    assert model.skipped == 2 and model.skipped_in_a_row.tolist() == [1, 1]
    for old, new in zip(before, learned_state(model), strict=True):
        assert th.equal(old, new)
    model.step(make_batch(12), model.draw_noise(12))
    info = model.step(make_batch(12), model.draw_noise(12))
    assert info["skipped"] == 2 and model.skipped_in_a_row.tolist() == [0, 0]
    assert not th.equal(before[0], learned_state(model)[0])


def test_a_first_step_that_is_skipped_leaves_a_fresh_agent(make_cped: MakeCped, make_batch: MakeBatch) -> None:
    skipping, other = make_cped(), make_cped()
    skipping.step(broken(make_batch(12), float("nan")), skipping.draw_noise(12))
    skipping._n_updates = 0
    for model in (skipping, other):
        noise = [model.draw_noise(12)._replace(smoothing=th.full((12, 2), 0.1)) for _ in range(2)]
        for t in range(2):
            model.step(make_batch(12, seed=t), noise[t])
    for ours, theirs in zip(learned_state(skipping), learned_state(other), strict=True):
        assert th.equal(ours, theirs)


def test_the_largest_loss_that_counts_is_ten_million(make_cped: MakeCped, make_batch: MakeBatch) -> None:
    for size, n_skipped in ((2000.0, 0), (2500.0, 1)):  # twice the squared error, summed over two critics
        model, batch = make_cped(), make_batch(12)
        model.step(batch._replace(rewards=th.full((12,), size)), model.draw_noise(12))
        assert model.skipped == n_skipped


def test_skips_are_warned_of_once_and_logged(
    make_cped: MakeCped, make_data: MakeData, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, update = make_cped(), CPED.update

    def sometimes_broken(model: CPED, batch: TransitionBatch, noise: Any) -> dict[str, Tensor]:
        rewards = batch.rewards * (1e6 if model._n_updates in (1, 5) else 1.0)
        return update(model, batch._replace(rewards=rewards), noise)

    monkeypatch.setattr(CPED, "update", sometimes_broken)
    with pytest.warns(UserWarning, match=r"1 steps were skipped up to update 3 .*train/skipped") as caught:
        model.learn_offline(make_data(), 9, log_interval=3)
    assert len([warning for warning in caught if "skipped" in str(warning.message)]) == 1
    assert model.last_metrics["skipped"] == 2.0


@pytest.mark.parametrize("whose", ["critics", "actor"])
def test_a_hundred_skips_in_a_row_end_the_training_whoever_skips(
    make_cped: MakeCped, make_data: MakeData, whose: str, recwarn: pytest.WarningsRecorder
) -> None:
    """Steps of the critics are skipped for their huge rewards, those of the actor for a huge α; the others' go on."""
    harmless: dict[str, Any] = {"q_start": 10**6, "policy_delay": 1}
    model = make_cped(**harmless) if whose == "critics" else make_cped(alpha_mode="fixed", alpha=1e9, **harmless)
    data = make_data()
    if whose == "critics":
        rewards = data.rewards * 1e5
        data = OfflineDataset(
            **{
                name: getattr(data, name)
                for name in ("observations", "actions", "next_observations", "terminations", "truncations")
            },
            rewards=rewards,
            observation_space=data.observation_space,
            action_space=data.action_space,
        )
    model.learn_offline(data, 9, log_interval=3)
    assert sorted(model.skipped_in_a_row.tolist()) == [0, 9]
    model.skipped_in_a_row[model.skipped_in_a_row > 0] = 97.0
    model.learn_offline(data, 2, log_interval=1, reset_num_timesteps=False)
    with pytest.raises(FloatingPointError, match=rf"The last 100 steps of the {whose} before update 12 were skipped"):
        model.learn_offline(data, 3, log_interval=1, reset_num_timesteps=False)
    assert sorted(model.skipped_in_a_row.tolist()) == [0, 100]


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_training_ends_with_advice_when_q_explodes_either_way(
    make_cped: MakeCped, make_data: MakeData, sign: float
) -> None:
    for limit, ends in ((50.0, True), (None, False), (1e4, False)):
        model = make_cped(max_abs_q=limit)
        for critic in (model.critic, model.critic_target):
            critic.trunk[-1].bias.data.fill_(60.0 * sign)  # type: ignore[union-attr,operator]
        if not ends:
            model.learn_offline(make_data(), 3)
            continue
        with pytest.raises(FloatingPointError, match=r"\|Q\| has reached 6\d.*beyond max_abs_q=50: the critics") as raised:
            model.learn_offline(make_data(), 3)
        assert "epsilon='batch_mean'" in str(raised.value) and "raise max_abs_q" in str(raised.value)


class NumberReads(TorchDispatchMode):
    """Counts numbers that are read back from the device."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func is th.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("settings", [{}, {"alpha_mode": "schedule"}, {"epsilon": "quantile"}, {"epsilon": 1.0}], ids=str)
def test_deciding_to_skip_reads_no_number_from_the_device(
    make_cped: MakeCped, make_batch: MakeBatch, settings: dict[str, Any]
) -> None:
    model = make_cped(**settings)
    model.step(make_batch(12), model.draw_noise(12))
    with NumberReads() as reads:
        for _ in range(3):
            model.step(make_batch(12), model.draw_noise(12))
    assert reads.count == 0
