"""AWAC's networks and defaults are those of the authors' script for Gym-MuJoCo."""

import math

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from torch import nn

from sb3_genoffline import AWAC
from sb3_genoffline.nets.ensembles import EnsembleLinear


def test_the_defaults_are_those_of_the_authors_script() -> None:
    model = AWAC("AWACPolicy", (spaces.Box(-np.inf, np.inf, (5,)), spaces.Box(-1, 1, (2,))), seed=0, device="cpu")
    expected = {"lam": 2.0, "weighting": "softmax", "actor_weight_decay": 1e-4, "batch_size": 1024, "learning_rate": 3e-4}
    assert {name: getattr(model, name) for name in expected} == expected
    assert [layer.out_features for layer in model.actor.net if isinstance(layer, nn.Linear)] == [256] * 4 + [2]
    critics = [layer.weight.shape for layer in model.critic.modules() if isinstance(layer, EnsembleLinear)]
    assert critics == [(2, 7, 256), (2, 256, 256), (2, 256, 1)]
    logit = dict(model.actor.named_parameters())["std_logit"]
    for value, log_std in ((0.0, -3.0), (math.log(3.0), -1.5), (-50.0, -6.0), (50.0, 0.0)):
        logit.data.fill_(value)
        assert model.actor.std().log().tolist() == pytest.approx([log_std] * 2, abs=1e-5)
    assert th.autograd.grad(model.actor.std().sum(), logit)[0].shape == (2,)
