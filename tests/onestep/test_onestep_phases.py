"""What comes before the one step: its order, going on after a stop, sharing by file, and how the agent acts then."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from stable_baselines3.common.callbacks import BaseCallback
from worlds import PointEnv, make_agent, make_dataset, snapshot

from sb3_genoffline.common.fitting import Fit, FitListener
from sb3_genoffline.errors import UserError
from sb3_genoffline.onestep import Onestep


def make(**changes: Any) -> Onestep:
    model = make_agent("onestep", **changes)
    assert isinstance(model, Onestep)
    return model


def state(network: th.nn.Module) -> list[th.Tensor]:
    return [tensor.clone() for tensor in network.state_dict().values()]


def same(first: list[th.Tensor], second: list[th.Tensor]) -> bool:
    return all(th.equal(a, b) for a, b in zip(first, second, strict=True))


class StopAt(BaseCallback, FitListener):
    """Notes the steps of fits, and ends the training at one of them."""

    def __init__(self, name: str = "", step: int = 0) -> None:
        super().__init__()
        self.stop, self.seen = (name, step), list[tuple[str, int]]()

    def on_fit_step(self, fit: Fit, metrics: dict[str, float]) -> bool:
        self.seen.append((fit.name, fit.step))
        return self.seen[-1] != self.stop

    def _on_step(self) -> bool:
        return True


def test_behaviour_comes_first_then_its_q_then_the_policy_starts_as_behaviour_does() -> None:
    """README claim 7."""
    model, watch = make(), StopAt()
    model.pretrain(make_dataset(), callback=watch)
    assert watch.seen == [("behavior", 1), ("behavior", 2), ("behavior", 3), *(("critic", i + 1) for i in range(4))]
    models = model.policy.behavior_and_q
    assert same(state(model.actor), state(models.behavior)) and model.policy.fitted
    fitted = state(models)
    assert not any(parameter.requires_grad for parameter in models.parameters())
    model.learn_offline(make_dataset(), 4, callback=watch)
    assert len(watch.seen) == 7 and same(fitted, state(models))
    assert not same(state(model.actor), state(models.behavior))
    assert {"behavior/loss", "critic/loss", "critic/q_mean", "q_mean", "kl"} <= model.last_metrics.keys()


@pytest.mark.parametrize("stop", [("behavior", 2), ("behavior", 3), ("critic", 1), ("critic", 3)])
def test_a_fit_that_was_stopped_saved_and_loaded_goes_on_bit_for_bit(stop: tuple[str, int]) -> None:
    """README claim 8."""
    whole, file = make().learn_offline(make_dataset(), 4), io.BytesIO()
    pieces = make().learn_offline(make_dataset(), 4, callback=StopAt(*stop))
    assert pieces.num_timesteps == 0 and not pieces.policy.fitted
    pieces.save(file)
    loaded = Onestep.load(file, device="cpu").learn_offline(make_dataset(), 4)
    assert snapshot(whole) == snapshot(loaded)


def test_one_fit_serves_all_operators(tmp_path: Path) -> None:
    """README claim 9."""
    first = make().learn_offline(make_dataset(), 2)
    first.save_fitted_model(tmp_path / "fitted")
    for improvement in ("reverse_kl", "exp_weight", "easy_bcq"):
        model, watch = make(seed=5, improvement=improvement, behavior_and_q=tmp_path / "fitted"), StopAt()
        models = model.policy.behavior_and_q
        assert model.behavior_and_q is None and same(state(models), state(first.policy.behavior_and_q))
        assert same(state(model.actor), state(models.behavior))
        model.learn_offline(make_dataset(), 2, callback=watch)
        assert watch.seen == [] and same(state(models), state(first.policy.behavior_and_q))
        assert same(state(model.actor), state(models.behavior)) == (improvement == "easy_bcq")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gamma": 0.5}, "fitted with gamma=0.99.* used with"),
        ({"reward_transform": None}, "fitted with reward_transform="),
        ({"normalize_observations": True}, "fitted with normalize_observations="),
        ({"distribution": "normal"}, "truncated=True.*the same distribution and policy_kwargs"),
        ({"policy_kwargs": {"net_arch": [8, 9]}}, "actor_arch"),
    ],
)
def test_a_fit_of_other_settings_is_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    """README claim 9."""
    make().pretrain(make_dataset()).save_fitted_model(tmp_path / "fitted")
    with pytest.raises(UserError, match=message):
        make(behavior_and_q=tmp_path / "fitted", **changes).learn_offline(make_dataset(), 1)


def test_it_does_not_go_on_online() -> None:
    """README claim 10."""
    with pytest.raises(UserError, match="Onestep can't continue online"):
        make(env=PointEnv()).learn_offline(make_dataset(), 2).learn(5)


# ---------------------------------------------------------------------- acting


def test_the_deterministic_action_is_the_expected_one_and_the_other_a_sample() -> None:
    """README claim 11."""
    model = make(policy_kwargs={"net_arch": [8]})
    *_, head = model.actor.net
    head.weight.data.zero_()  # type: ignore[union-attr, operator]
    raw = [float(np.arctanh(x)) for x in (0.9, 0.9, *[(np.log(0.2) + 5) / 2.5 - 1] * 2)]
    head.bias.data = th.tensor(raw)  # type: ignore[union-attr]
    observations = np.zeros((2_000, 3), np.float32)
    low, high = model.action_space.low, model.action_space.high  # type: ignore[attr-defined]
    scaled = [2 * (model.predict(observations, deterministic=d)[0] - low) / (high - low) - 1 for d in (True, False)]
    np.testing.assert_allclose(scaled[0], 0.79816791, atol=1e-5)
    assert abs(scaled[1].mean() - 0.798) < 0.01 and scaled[1].max() <= 1 and scaled[1].std() > 0.1


def test_easy_bcq_acts_by_the_best_of_its_samples_of_behaviour() -> None:
    """README claim 6."""
    model, n = make(improvement="easy_bcq", n_action_samples=7).learn_offline(make_dataset(), 2), 5
    policy, states = model.policy, th.tensor(make_dataset().observations[:n])
    model.set_acting_seed(3)
    acted = policy._predict(states, deterministic=True)
    generator = th.Generator().manual_seed(3)
    behavior = policy.behavior_and_q.behavior
    samples = behavior.distribution(states).sample(behavior.draws(n, 7, 2, generator=generator))
    q = th.stack([policy.behavior_and_q.q(states, samples[:, j]) for j in range(7)], 1)
    assert len(set(q.argmax(1).tolist())) > 1
    assert th.equal(acted, samples[th.arange(n), q.argmax(1)])
    model.set_acting_seed(3)
    sampled = policy._predict(states, deterministic=False)
    one = behavior.distribution(states).sample(behavior.draws(n, 1, 2, generator=th.Generator().manual_seed(3)))
    assert th.equal(sampled, one.squeeze(1))
    model.improvement = "reverse_kl"
    assert th.equal(policy._predict(states, deterministic=True), policy.actor(states))
