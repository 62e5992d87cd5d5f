"""The VAE before the policy of PLAS: its own batches and rate, going on in either phase, and a VAE of SPOT's."""

import io
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch as th
from stable_baselines3.common.callbacks import BaseCallback
from worlds import make_agent, make_dataset, members

from sb3_genoffline.common.fitting import Fit, FitListener
from sb3_genoffline.plas import PLAS


class StopAt(BaseCallback, FitListener):
    """Ends the training at a step of the fit, or at an update."""

    def __init__(self, step: int | None = None, update: int | None = None) -> None:
        super().__init__()
        self.step, self.update, self.n_seen = step, update, 0

    def on_fit_step(self, fit: Fit, metrics: dict[str, float]) -> bool:
        self.n_seen += 1
        return fit.step != self.step

    def _on_step(self) -> bool:
        return self.num_timesteps != self.update


def reload(model: Any) -> Any:
    file = io.BytesIO()
    model.save(file)
    file.seek(0)
    return type(model).load(file, device="cpu")


def test_the_vae_is_fitted_first_with_batches_and_a_rate_of_its_own() -> None:
    """README claim 1."""
    model: Any = make_agent("plas", vae_steps=3, vae_batch_size=24, vae_learning_rate=0.0)
    start = {name: tensor.clone() for name, tensor in model.policy.density.state_dict().items()}
    rows: list[int] = []
    terms = model.policy.density.elbo_terms
    model.policy.density.elbo_terms = lambda states, *others: rows.append(len(states)) or terms(states, *others)
    model.learn_offline(make_dataset(), 4)
    assert rows == [24, 24, 24] and model.batch_size == 16 and model.policy.fitted
    assert all(th.equal(tensor, start[name]) for name, tensor in model.policy.density.state_dict().items())
    assert {"vae/loss", "vae/elbo", "vae/kl", "latent_size", "latents_at_bound", "latent_reach"} <= model.last_metrics.keys()


@pytest.mark.parametrize("stop", [{"step": 2}, {"update": 2}], ids=str)
def test_a_training_that_was_stopped_in_either_phase_goes_on_bit_for_bit(stop: dict[str, int]) -> None:
    """README claim 9."""
    whole = make_agent("plas").learn_offline(make_dataset(), 4)
    pieces = make_agent("plas").learn_offline(make_dataset(), 4, callback=StopAt(**stop))
    done = pieces.num_timesteps
    assert done == stop.get("update", 0)
    pieces = reload(pieces).learn_offline(make_dataset(), 4 - done, reset_num_timesteps=False)
    expected, found = members(whole), members(pieces)
    names = ("policy.safetensors", "training.json", "training.safetensors")
    assert [name for name in names if expected[name] != found[name]] == []


def test_a_vae_of_spot_is_taken_over_and_not_fitted_again(tmp_path: Path) -> None:
    """README claim 10."""
    spot = make_agent("spot").pretrain(make_dataset())
    spot.save_fitted_model(tmp_path / "vae")
    watch = StopAt()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model: Any = make_agent("plas", seed=5, density=tmp_path / "vae")
        model.learn_offline(make_dataset(), 3, callback=watch)
    assert isinstance(model, PLAS) and watch.n_seen == 0
    theirs: Any = spot.policy
    for name, tensor in theirs.density.state_dict().items():  # with the states' statistics of its own
        assert th.equal(tensor, model.policy.density.state_dict()[name]), name
    assert (model.policy.density.state_std != 1).all() and (model.policy.obs_std == 1).all()
