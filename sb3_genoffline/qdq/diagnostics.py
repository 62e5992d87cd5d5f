"""Whether the uncertainty tells actions in the data from others: what QDQ assumes and no theorem grants."""

import torch as th
from torch import Tensor

from sb3_genoffline.data.buffers import TransitionBatch
from sb3_genoffline.qdq.policies import ConsistencyQPolicy


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


@th.no_grad()
def uncertainty_samples(
    policy: ConsistencyQPolicy, batch: TransitionBatch, n_q_samples: int, generator: th.Generator
) -> dict[str, Tensor]:
    """
    H at a batch's states, for the data's actions, the policy's (μ(s)) and uniform ones.

    :param policy: its model is fitted
    :param batch: B transitions
    :param n_q_samples: n, samples that H is the spread of
    :param generator: of the random actions and the samples
    :return: ``data``, ``policy`` and ``random``, each (B,)
    """
    states = policy.normalize_observations(batch.observations)
    like = {"generator": generator, "device": states.device, "dtype": states.dtype}
    uniform = th.rand(batch.actions.shape, **like) * 2.0 - 1.0  # type: ignore[call-overload]
    noise = th.randn((3, len(states), n_q_samples), **like)  # type: ignore[call-overload]
    actions = {"data": batch.actions, "policy": policy.actor(states), "random": uniform}
    return {
        name: policy.q_sampler.uncertainty(states, chosen, z) for (name, chosen), z in zip(actions.items(), noise, strict=True)
    }


def detection_report(h: dict[str, Tensor]) -> dict[str, float]:
    """
    :param h: as :func:`uncertainty_samples` returns
    :return: the three means by name, and ``auc`` and ``above_q95`` of the random actions against the data's
    """
    means = {name: values.mean().item() for name, values in h.items()}
    inside, outside = h["data"], h["random"]
    return means | {"auc": detection_auc(inside, outside), "above_q95": share_above_quantile(inside, outside)}
