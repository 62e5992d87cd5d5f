"""Whether the uncertainty tells actions in the data from others: what QDQ assumes and no theorem grants."""

import torch as th
from torch import Tensor


def detection_auc(inside: Tensor, outside: Tensor) -> float:
    """
    Area under the ROC curve of "H is large" as a detector: P(H_out > H_in) + ½·P(H_out = H_in).

    :param inside: (n,) H of actions in the data
    :param outside: (m,) H of other actions
    :return: 1 for a perfect detector, 0.5 for a blind one
    """
    ordered = inside.sort().values
    below = th.searchsorted(ordered, outside, right=False)
    not_above = th.searchsorted(ordered, outside, right=True)
    return ((below + not_above).double().mean() / (2 * len(inside))).item()


def share_above_quantile(inside: Tensor, outside: Tensor, quantile: float = 0.95) -> float:
    """
    P(H_out > the quantile of H_in); the paper's figure implies about 0.25 for 0.95.

    :param inside: (n,) H of actions in the data
    :param outside: (m,) H of other actions
    :param quantile: of ``inside``
    """
    return (outside > th.quantile(inside, quantile)).double().mean().item()
