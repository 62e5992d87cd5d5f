"""Decision Transformer gets its code's settings."""

from typing import Any

import pytest
from exact import SPACES
from torch import nn

from sb3_genoffline import DecisionTransformer
from zoo.runs.hyperparameters import load_hyperparameters


@pytest.mark.parametrize(
    ("dataset", "target", "scale"),
    [
        ("hopper-medium-v2", 3600.0, 1000.0),
        ("halfcheetah-medium-replay-v2", 12000.0, 1000.0),
        ("mujoco/walker2d/medium-v0", 5000.0, 1000.0),
        ("antmaze-large-play-v2", 1.0, 1.0),
        ("genoffline/hopper/medium-replay-v1", None, 1000.0),
    ],
)
def test_a_dataset_gets_the_codes_setting_for_its_kind(dataset: str, target: float | None, scale: float) -> None:
    """README claim 13."""
    settings = load_hyperparameters("decision_transformer", dataset)
    model: Any = DecisionTransformer(settings.policy, SPACES, device="cpu", **settings.arguments)
    assert settings.n_timesteps == DecisionTransformer.default_gradient_steps == 100_000
    assert (model.target_return, model.return_scale, model.context_length) == (target, scale, 20)
    assert (model.batch_size, model.warmup_steps, model.max_grad_norm) == (64, 10_000, 0.25)
    assert (model.learning_rate, model.weight_decay, model.normalize_observations) == (1e-4, 1e-4, True)
    assert (model.actor.transformer.n_layers, model.actor.transformer.n_heads) == (3, 1)
    assert (model.actor.transformer.width, model.actor.transformer.dropout) == (128, 0.1)
    assert isinstance(model.actor.transformer.blocks[0].mlp[1], nn.ReLU)
