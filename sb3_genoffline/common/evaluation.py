"""Rewards on their way to policies that act by them, through SB3's ``evaluate_policy``, which tells a policy none."""

from collections.abc import Callable
from typing import Any

from stable_baselines3.common.vec_env import unwrap_vec_normalize

EvaluationCallback = Callable[[dict[str, Any], dict[str, Any]], None]


def with_rewards(model: Any, callback: EvaluationCallback | None = None) -> EvaluationCallback:
    """
    A ``callback`` for SB3's ``evaluate_policy`` that reports rewards to the policy, as a Decision Transformer needs them:
    ``evaluate_policy(model, env, callback=with_rewards(model))``. Other policies take no notice.
    :class:`~sb3_genoffline.common.callbacks.OfflineEvalCallback` does it by itself.

    :param model: the agent that is evaluated
    :param callback: another one, which is called afterwards
    """

    def told(local: dict[str, Any], global_: dict[str, Any]) -> None:
        tell_reward(model, local)
        if callback is not None:
            callback(local, global_)

    return told


def tell_reward(model: Any, local: dict[str, Any]) -> None:
    """
    :param model: the agent that is evaluated
    :param local: variables of ``evaluate_policy`` after the step of one environment
    """
    if not getattr(model.policy, "has_memory", False):
        return
    normalizer, i = unwrap_vec_normalize(local["env"]), local["i"]
    rewards = local["rewards"] if normalizer is None else normalizer.get_original_reward()
    model.policy.observe_rewards(local["states"], rewards[i], i)
