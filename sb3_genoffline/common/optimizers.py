"""One optimizer step, the same for all losses."""

from collections.abc import Mapping
from typing import Any

import torch as th
from torch import Tensor

from sb3_genoffline.errors import UserError


def gradient_step(
    optimizer: th.optim.Optimizer,
    loss: Tensor,
    learning_rate: float | Tensor,
    max_grad_norm: float | None = None,
    skip: Tensor | None = None,
) -> None:
    """
    Step down the gradient with respect to the optimizer's parameters only; no other parameter gets one.

    :param optimizer: with one parameter group
    :param loss: scalar
    :param learning_rate: of this step; a scalar on the device where a graph of the update is recorded
    :param max_grad_norm: L2 norm that all gradients together are clipped to (None: no clipping)
    :param skip: scalar bool on the device: where it is true, nothing is changed. Needs a fused optimizer, which looks at it on
        the device, so that nothing is read back.
    """
    group = optimizer.param_groups[0]
    # a parameter that the loss does not depend on stays where it is
    gradients = th.autograd.grad(loss, group["params"], allow_unused=True)
    for parameter, gradient in zip(group["params"], gradients, strict=True):
        parameter.grad = gradient
    if max_grad_norm is not None:
        th.nn.utils.clip_grad_norm_(group["params"], max_grad_norm)
    before, group["lr"] = group["lr"], learning_rate
    if skip is not None:
        optimizer.found_inf = skip.float()  # type: ignore[attr-defined]
    optimizer.step()
    if isinstance(learning_rate, Tensor):
        group["lr"] = before  # a file holds numbers


def check_can_skip(cls: type[th.optim.Optimizer], options: Mapping[str, Any]) -> None:
    """
    :param cls: of an optimizer
    :param options: that it is made with
    :raises UserError: if it can't look at ``skip`` of :func:`gradient_step` on the device
    """
    if not options.get("fused"):
        raise UserError(
            f"policy_kwargs: steps whose loss is not finite are left out here, which {cls.__name__} can't do on the device "
            "with these arguments: use Adam, AdamW, SGD or Adagrad, fused as they are by default."
        )
