"""The multiplier of a constraint on the policy, learnt as its logarithm."""

import torch as th
from torch import Tensor

from sb3_genoffline.common.optimizers import gradient_step

LOG_ALPHA_MIN, LOG_ALPHA_MAX = -5.0, 10.0  # BEAR's, and CPED's after it


def multiplier_step(
    log_alpha: Tensor, optimizer: th.optim.Optimizer, gain: Tensor, learning_rate: float, skip: Tensor | None = None
) -> None:
    """
    One step of dual ascent; log α keeps its bounds.

    :param log_alpha: scalar, moved in place
    :param optimizer: of it
    :param gain: what is ascended in it
    :param learning_rate: of this step
    :param skip: see :func:`~sb3_genoffline.common.optimizers.gradient_step`
    """
    gradient_step(optimizer, -gain, learning_rate, skip=skip)
    with th.no_grad():
        log_alpha.clamp_(LOG_ALPHA_MIN, LOG_ALPHA_MAX)
