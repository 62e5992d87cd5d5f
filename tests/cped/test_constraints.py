"""What holds CPED's actor to the data: warnings where the likelihood runs away with it, and the distance in its place."""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch as th
from exact import assert_close

from sb3_genoffline import OfflineDataset
from sb3_genoffline.cped import CPED
from sb3_genoffline.data.buffers import TransitionBatch

MakeCped = Callable[..., CPED]
MakeBatch = Callable[..., TransitionBatch]
DISTANCE: dict[str, Any] = {"constraint": "distance", "alpha_mode": "fixed", "alpha": 2.0, "distance_std": 0.5}


def test_an_actor_that_the_likelihood_has_run_away_with_is_told_of_once(make_cped: MakeCped, make_batch: MakeBatch) -> None:
    model, batch = make_cped(alpha_mode="fixed", alpha=1.0, q_start=1), make_batch(12)
    model.actor.net[-2].bias.data.copy_(th.tensor([40.0, 0.0]))  # type: ignore[union-attr,operator]
    info = model.step(batch, model.draw_noise(12))
    assert info["bound_share"] == 0.5
    metrics = {"epsilon": 2.0, "nll_pi": 0.5, "bound_share": 0.97, "q_min": 0.0, "q_max": 1.0}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model._n_updates = 1
        model.watch(metrics)  # Q is not in its loss yet: it seeks the modes, as it should
        model._n_updates = 2
        model.watch(metrics | {"nll_pi": 1.1})
        assert not caught
        model.watch(metrics)
        model.watch(metrics)
    (warning,) = caught
    assert "1.5 nats likelier than the data's (NLL 0.50, epsilon 2.00), and 97% of their components" in str(warning.message)
    assert "dequantization" in str(warning.message) and "constraint='distance'" in str(warning.message)


@pytest.mark.usefixtures("float64")
def test_the_distance_stands_in_the_place_of_the_likelihood_and_no_density_is_fitted(
    make_cped: MakeCped, make_batch: MakeBatch
) -> None:
    model, batch = make_cped(fitted=False, **DISTANCE), make_batch(12)
    actions = model.actor(batch.observations)
    distance = ((actions - batch.actions) ** 2).sum(1).mean() / (2 * 0.25)
    expected, noise = th.autograd.grad(distance, list(model.actor.parameters())), model.draw_noise(12)
    critics = [parameter.clone() for parameter in model.critic.parameters()]
    before = model.policy.density.state_dict()
    info = model.step(batch, noise)
    assert_close(info["distance"], distance.detach())
    assert_close(info["actor_loss"], 2.0 * info["distance"] - info["actor_q"])
    assert "nll_pi" not in info and not model.policy.fitted and not model.uses_fitted_model()
    assert all(th.equal(value, model.policy.density.state_dict()[name]) for name, value in before.items())
    alone = make_cped(fitted=False, **DISTANCE, q_start=9, max_grad_norm=None)  # no Q: α·distance is the whole loss
    alone.step(batch, noise)
    for parameter, gradient in zip(alone.actor.parameters(), expected, strict=True):
        assert_close(parameter.grad, 2.0 * gradient)
    assert any(not th.equal(a, b) for a, b in zip(critics, model.critic.parameters(), strict=True))


def test_the_dual_multiplier_holds_the_distance_at_a_number(make_cped: MakeCped, make_batch: MakeBatch) -> None:
    settings = DISTANCE | {"alpha_mode": "dual", "alpha": 1.0, "alpha_learning_rate": 0.1}
    for epsilon, rises in ((0.0, True), (1e3, False)):
        model = make_cped(fitted=False, **settings, epsilon=epsilon)
        info = model.step(make_batch(12), model.draw_noise(12))
        assert info["epsilon"] == epsilon and (model.log_alpha > 0) == rises


def test_data_alone_are_enough_for_the_distance(make_cped: MakeCped, make_data: Callable[..., OfflineDataset]) -> None:
    model = make_cped(env=None, fitted=False, **DISTANCE).learn_offline(make_data(), 4)
    assert "flow/loss" not in model.last_metrics and model.last_metrics["distance"] > 0


def test_the_held_out_nll_of_the_kept_weights_is_logged(make_cped: MakeCped, make_data: Callable[..., OfflineDataset]) -> None:
    model = make_cped(env=None, fitted=False, flow_steps=12, flow_eval_every=3, held_out=0.2, flow_learning_rate=0.05)
    model.pretrain(make_data(), log_interval=1)
    kept = model.last_metrics["flow/nll_kept"]
    assert kept <= model.last_metrics["flow/nll_val"] + 1e-6
    assert np.isfinite(kept)
