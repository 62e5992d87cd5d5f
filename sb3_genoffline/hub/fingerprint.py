"""``fingerprint.json``: what an agent does in eight observations, to recognise it by."""

from typing import Any

import numpy as np
from gymnasium import spaces

from sb3_genoffline.common.offline_algorithm import AnyAlgorithm

_N_OBSERVATIONS, _ACTING_SEED = 8, 0


def make_fingerprint(model: AnyAlgorithm) -> dict[str, Any]:
    """
    :param model: the agent, whose stream of random actions stays as it is
    :return: ``observations`` (8, S), drawn around the mean of the agent's observation statistics and inside its space;
        ``actions`` (8, A) of ``predict(observations, deterministic=True)`` after ``policy.seed_acting(acting_seed)``
    """
    space, policy = model.observation_space, model.policy
    assert isinstance(space, spaces.Box)
    mean, std = (tensor.cpu().double().numpy() for tensor in (policy.obs_mean, policy.obs_std))
    drawn = mean + std * np.random.default_rng(0).standard_normal((_N_OBSERVATIONS, policy.state_dim))
    observations = np.clip(drawn, space.low, space.high).astype(space.dtype)
    return {
        "observations": observations.tolist(),
        "acting_seed": _ACTING_SEED,
        "deterministic": True,
        "actions": actions_of(model, observations, _ACTING_SEED).tolist(),
    }


def actions_of(model: AnyAlgorithm, observations: np.ndarray, acting_seed: int) -> np.ndarray:
    """The deterministic actions after seeding; the policy's own stream goes on as if nothing had been asked."""
    policy = model.policy
    before = policy.acting_seed, policy._acting_generator
    policy.seed_acting(acting_seed)
    try:
        return model.predict(observations, deterministic=True)[0]
    finally:
        policy.acting_seed, policy._acting_generator = before


def fingerprint_difference(model: AnyAlgorithm, fingerprint: dict[str, Any]) -> float:
    """
    :param model: the agent
    :param fingerprint: as :func:`make_fingerprint` returns
    :return: the largest difference between its actions and those recorded; 0 on the same kind of machine and versions
    """
    observations = np.array(fingerprint["observations"], dtype=model.observation_space.dtype)
    actions = actions_of(model, observations, int(fingerprint["acting_seed"]))
    return float(np.abs(actions - np.array(fingerprint["actions"], dtype=actions.dtype)).max())
