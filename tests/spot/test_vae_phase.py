"""The VAE before the policy: how it is fitted, when it is not, going on after a stop, and sharing it."""

import io
import math
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from stable_baselines3.common.callbacks import BaseCallback

sys.path.append(str(Path(__file__).parents[1] / "common"))
from worlds import PointEnv, make_agent, make_dataset, members

from sb3_genoffline.common.fitting import Fit, FitListener, SharedModel
from sb3_genoffline.files.archive import CheckpointError
from sb3_genoffline.generative.vae import ConditionalVAE
from sb3_genoffline.spot import SPOT


def make(*env: Any, **changes: Any) -> SPOT:
    model = make_agent("spot", *env, **changes)
    assert isinstance(model, SPOT)
    return model


def reload(model: SPOT) -> SPOT:
    file = io.BytesIO()
    model.save(file)
    file.seek(0)
    return SPOT.load(file, device="cpu")


def weights(model: SPOT) -> dict[str, th.Tensor]:
    return {name: tensor.clone() for name, tensor in model.policy.density.state_dict().items()}


def same(first: dict[str, th.Tensor], second: dict[str, th.Tensor]) -> bool:
    return all(th.equal(tensor, second[name]) for name, tensor in first.items())


class StopAt(BaseCallback, FitListener):
    """Ends the training at a step of the phase (None: never) and counts its steps."""

    def __init__(self, step: int | None = None) -> None:
        super().__init__()
        self.step, self.n_seen = step, 0

    def on_fit_step(self, phase: Fit, metrics: dict[str, float]) -> bool:
        self.n_seen += 1
        return phase.step != self.step

    def _on_step(self) -> bool:
        return True


def test_the_vae_is_fitted_first_and_stays_as_it_is_from_then_on() -> None:
    model, watch = make(), StopAt()
    start = weights(model)
    model.pretrain(make_dataset(), callback=watch)
    fitted = weights(model)
    assert not any(parameter.requires_grad for parameter in model.policy.density.parameters())
    assert watch.n_seen == model.vae_steps and model.policy.fitted and not same(start, fitted)
    assert {"vae/loss", "vae/elbo"} <= model.last_metrics.keys()
    model.learn_offline(make_dataset(), 4, callback=watch)
    assert watch.n_seen == model.vae_steps and same(fitted, weights(model)) and "log_prob" in model.last_metrics


def test_a_step_descends_the_released_loss_on_raw_rows_that_the_vae_standardises_itself() -> None:
    data = make_dataset()
    model = make(vae_steps=1, vae_learning_rate=0.0, vae_batch_size=40)
    drawn: list[Any] = []
    terms = model.policy.density.elbo_terms
    model.policy.density.elbo_terms = lambda *inputs: drawn.append(inputs) or terms(*inputs)  # type: ignore
    model.pretrain(data)
    states, actions, noise = drawn[0]
    assert len(states) == 40 and noise.shape == (40, 1, 4) and noise.std() > 0.7
    stored = model.offline_rows()
    assert ((states[:, None] == stored[0]).all(-1) & (actions[:, None] == stored[1]).all(-1)).any(1).all()
    density = model.policy.density
    np.testing.assert_allclose(density.state_mean, data.observations.mean(0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(density.state_std, data.observations.std(0), rtol=1e-4)
    in_nats = model.last_metrics["vae/elbo"] + math.log(2 * math.pi * 0.5 / 4)  # β/4 is the decoder's variance
    assert model.last_metrics["vae/loss"] == pytest.approx(-0.5 / 4 * in_nats, rel=1e-5)


def test_states_stay_as_they_are_where_observations_are_not_normalised() -> None:
    model = make(normalize_observations=False).pretrain(make_dataset())
    assert (model.policy.density.state_mean == 0).all() and (model.policy.density.state_std == 1).all()


def test_without_a_constraint_no_vae_is_fitted_and_without_data_the_message_says_what_to_do() -> None:
    model, watch = make(lam=0.0), StopAt()
    model.learn_offline(make_dataset(), 3, callback=watch)
    assert watch.n_seen == 0 and not model.policy.fitted and "log_prob" not in model.last_metrics
    with pytest.raises(
        ValueError,
        match=r"density is not fitted .* learn_offline\(dataset\), or pass a fitted one with SPOT\(\.\.\., density=",
    ):
        make(PointEnv()).learn(3)
    make(PointEnv(), lam=0.0).learn(3)


@pytest.mark.parametrize("seed", [0, None])
def test_a_fit_that_was_stopped_saved_and_loaded_goes_on_bit_for_bit(seed: int | None) -> None:
    pieces = make(seed=seed)
    whole = reload(pieces)
    for agent in (whole, pieces):
        agent.set_random_seed(11)
    whole.learn_offline(make_dataset(), 4)
    pieces.learn_offline(make_dataset(), 4, callback=StopAt(2))
    assert pieces.num_timesteps == 0 and not pieces.policy.fitted
    pieces = reload(pieces).learn_offline(make_dataset(), 4)
    expected, found = members(whole), members(pieces)
    assert [name for name in expected if expected[name] != found[name]] == []


# ---------------------------------------------------------------------- sharing


@pytest.mark.parametrize("way", ["file", "open file", "object"])
def test_a_fitted_vae_is_given_to_other_seeds_and_not_fitted_again(tmp_path: Path, way: str) -> None:
    fitted = make().pretrain(make_dataset())
    fitted.save_fitted_model(tmp_path / "vae")
    source: Any = {
        "file": tmp_path / "vae",
        "open file": io.BytesIO((tmp_path / "vae.zip").read_bytes()),
        "object": fitted.policy.density,
    }[way]
    model, watch = make(seed=5, density=source), StopAt()
    assert model.density is None and model.policy.fitted
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.learn_offline(make_dataset(), 3, callback=watch)
    assert watch.n_seen == 0 and same(weights(fitted), weights(model))
    assert reload(model).policy.fitted


def test_a_vae_taken_over_in_the_middle_of_a_fit_ends_the_fit() -> None:
    fitted = make(seed=3).pretrain(make_dataset())
    model, watch = make(), StopAt()
    model.learn_offline(make_dataset(), 3, callback=StopAt(2))
    model.set_fitted_model(fitted.policy.density)
    model.learn_offline(make_dataset(), 3, callback=watch)
    assert watch.n_seen == 0 and same(weights(fitted), weights(model))


def test_a_vae_of_another_dataset_is_used_with_a_warning(tmp_path: Path) -> None:
    make().pretrain(make_dataset()).save_fitted_model(tmp_path / "vae")
    with pytest.warns(UserWarning, match="fitted on tests/point-0-v0 and is used with tests/point-7-v0") as caught:
        make(density=tmp_path / "vae").learn_offline(make_dataset(7), 2)
    assert caught[0].filename == __file__


def test_unfitted_foreign_and_differently_shaped_vaes_are_refused(tmp_path: Path) -> None:
    model = make()
    with pytest.raises(ValueError, match="not fitted yet"):
        model.save_fitted_model(tmp_path / "vae")
    model.pretrain(make_dataset()).save_fitted_model(tmp_path / "vae")
    for changes, message in (
        ({"beta": 0.2}, r"beta=0\.5 and the policy's 0\.2: make the agent with the same spaces, beta="),
        ({"policy_kwargs": {"vae_net_arch": [9]}}, r"net_arch=\[8\] and the policy's \[9\]"),
    ):
        with pytest.raises(ValueError, match=message):
            make(density=tmp_path / "vae", **changes)
    SharedModel("Density", {}, th.nn.Linear(1, 1).state_dict(), {}).write(tmp_path / "other")
    with pytest.raises(CheckpointError, match="holds Density, not a fitted ConditionalVAE"):
        make(density=tmp_path / "other")
    with pytest.raises(ValueError, match="state_dim=2 and the policy's 3"):
        make(density=ConditionalVAE(2, 2))
