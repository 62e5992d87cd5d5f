"""What a sampler hands to an update: transitions, these with the next action, rows with returns, or windows of episodes."""

from typing import NamedTuple

from torch import Tensor


class TransitionBatch(NamedTuple):
    """
    B transitions as the losses want them.

    :param observations: (B, S)
    :param actions: (B, A), scaled to [−1, 1]
    :param rewards: (B,), transformed
    :param next_observations: (B, S)
    :param masks: (B,) 1 − termination: 0 where the task ended and nothing is bootstrapped; time-outs keep 1
    """

    observations: Tensor
    actions: Tensor
    rewards: Tensor
    next_observations: Tensor
    masks: Tensor


class SarsaBatch(NamedTuple):
    """
    B transitions with what the data did next.

    :param observations: (B, S)
    :param actions: (B, A), scaled to [−1, 1]
    :param rewards: (B,), transformed
    :param next_observations: (B, S)
    :param masks: (B,) 1 − termination
    :param next_actions: (B, A), scaled to [−1, 1]; where the mask is 0 there is none, and it says nothing
    """

    observations: Tensor
    actions: Tensor
    rewards: Tensor
    next_observations: Tensor
    masks: Tensor
    next_actions: Tensor


class ReturnBatch(NamedTuple):
    """
    B rows with what followed.

    :param observations: (B, S)
    :param actions: (B, A), scaled to [−1, 1]
    :param returns: (B,)
    :param mean: (), of the returns of all rows
    :param scale: (), their standard deviation, or 0.1 if that is less
    """

    observations: Tensor
    actions: Tensor
    returns: Tensor
    mean: Tensor
    scale: Tensor


class SequenceBatch(NamedTuple):
    """
    B windows of H consecutive steps of one episode each. Where ``valid`` is False there is no step and all else is 0.

    :param observations: (B, H, S)
    :param actions: (B, H, A), scaled to [−1, 1]
    :param rewards: (B, H), transformed
    :param masks: (B, H) 1 − termination, 0 in the padding too
    :param timesteps: (B, H) int64, steps since the episode's start
    :param valid: (B, H) bool, whether there is a step
    :param returns_to_go: (B, H) discounted rewards from the step to the end of its episode, or None if they were not asked for
    """

    observations: Tensor
    actions: Tensor
    rewards: Tensor
    masks: Tensor
    timesteps: Tensor
    valid: Tensor
    returns_to_go: Tensor | None = None
