"""One optimizer step, the same for all losses."""

import functools
import inspect
from collections.abc import Iterable, Mapping
from typing import Any

import torch as th
from torch import Tensor

from sb3_genoffline.common import stepping
from sb3_genoffline.errors import UserError
from sb3_genoffline.files.untrusted import short

_FUSED = (th.optim.Adam, th.optim.AdamW, th.optim.SGD, th.optim.Adagrad)


@functools.cache
def _goes_into_graphs(cls: type[th.optim.Optimizer]) -> bool:
    return "capturable" in inspect.signature(cls).parameters


def usual_options(cls: type[th.optim.Optimizer], device: th.device, own: Mapping[str, Any]) -> dict[str, Any]:
    """
    :param cls: of an optimizer
    :param device: of what it moves
    :param own: options
    :return: the same, ``fused`` where the class has it and nobody wants it otherwise, and what CUDA graphs need
    """
    usual: dict[str, Any] = {}
    if _goes_into_graphs(cls):  # type: ignore[arg-type]  # a class can be hashed
        usual["capturable"] = device.type in stepping.GRAPH_DEVICES
    if issubclass(cls, _FUSED) and not own.get("foreach"):
        usual["fused"] = True
    return usual | dict(own)


def make_optimizer(
    cls: type[th.optim.Optimizer], parameters: Iterable[Tensor], learning_rate: float, **own: Any
) -> th.optim.Optimizer:
    """
    An optimizer with its :func:`usual_options`, whose steps can be recorded as a part of a CUDA graph.

    :param cls: its class
    :param parameters: moved by it
    :param learning_rate: before the first step
    :param own: its options
    """
    parameters = list(parameters)
    optimizer = cls(parameters, lr=learning_rate, **usual_options(cls, parameters[0].device, own))  # type: ignore[call-arg]
    # torch warns where such an optimizer steps outside a recording, as it does before each
    optimizer._warned_capturable_if_run_uncaptured = True
    return optimizer


def load_optimizer(optimizer: th.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """
    Take over what an optimizer has averaged, which is not trusted. Its options stay those that it was made with, here and on
    this device: torch puts its count of steps where they want it.

    :param optimizer: of one group
    :param state: of the same, perhaps on another device
    :raises UserError: if it is not what such an optimizer keeps
    """
    own = {name: value for name, value in optimizer.param_groups[0].items() if name not in ("params", "lr")}
    optimizer.load_state_dict({**state, "param_groups": [group | own for group in state["param_groups"]]})
    _check_state(optimizer)


def trial_state(optimizer: th.optim.Optimizer) -> dict[str, Any]:
    """
    Some options are looked at only by a step: make one, beside the optimizer.

    :param optimizer: of one group
    :return: what it keeps of a parameter of shape (2, 3) after a step
    """
    (group,) = optimizer.param_groups
    parameter = group["params"][0].detach().new_zeros(2, 3).requires_grad_()
    parameter.grad = th.zeros_like(parameter)
    trial = type(optimizer)([parameter], lr=1e-3)  # type: ignore[call-arg]
    trial._warned_capturable_if_run_uncaptured = True
    trial.param_groups[0].update({name: value for name, value in group.items() if name not in ("params", "lr", "capturable")})
    trial.step()
    return dict(trial.state[parameter])


def _check_state(optimizer: th.optim.Optimizer) -> None:
    """:raises UserError: unless of each parameter there is nothing, or what a step leaves"""
    (group,) = optimizer.param_groups
    if not isinstance(group.get("lr"), int | float):
        raise UserError(f"an optimizer has the learning rate {short(group.get('lr'))}, which is not a number")
    usual = trial_state(optimizer)
    for parameter in group["params"]:
        kept = optimizer.state.get(parameter) or {}
        if kept and kept.keys() != usual.keys():
            raise UserError(f"an optimizer has the averages {short(sorted(kept))} of a parameter, and keeps {sorted(usual)}")
        for name, value in kept.items():
            own = usual[name]
            wanted = parameter.shape if own.shape == (2, 3) else own.shape
            if not isinstance(value, Tensor) or value.shape != wanted or value.dtype != own.dtype:
                raise UserError(f"an optimizer has {name}={short(value)}, which is not what it keeps of a parameter")


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
    if skip is None and _step_fused_adam(optimizer, group, gradients):
        return
    if skip is not None:
        optimizer.found_inf = skip.float()  # type: ignore[attr-defined]
    try:
        optimizer.step()
    finally:
        if isinstance(learning_rate, Tensor):
            group["lr"] = before  # a file holds numbers


@th.no_grad()
def _step_fused_adam(optimizer: th.optim.Optimizer, group: dict[str, Any], gradients: tuple[Tensor | None, ...]) -> bool:
    """
    What Adam's own ``step`` does from its second call on, on a CPU, without its bookkeeping, which takes longer than the
    parameters of a small network.

    :param optimizer: any
    :param group: its only parameter group
    :param gradients: of the group's parameters
    :return: whether it was done; not for other optimizers and options, nor where somebody follows or replaces ``step``, or a
        parameter has no gradient or no state
    """
    parameters, rate = group["params"], group["lr"]
    usual = type(optimizer) in (th.optim.Adam, th.optim.AdamW) and group["fused"] and not group["amsgrad"]
    if not usual or isinstance(rate, Tensor) or parameters[0].device.type != "cpu":
        return False
    if optimizer._optimizer_step_pre_hooks or optimizer._optimizer_step_post_hooks or "step" in vars(optimizer):
        return False
    states: list[Any] = [optimizer.state.get(parameter) for parameter in parameters]
    known = [gradient for gradient in gradients if gradient is not None]
    if not all(states) or len(known) < len(parameters):
        return False
    steps = [state["step"] for state in states]
    th._foreach_add_(steps, 1)
    step = th._fused_adamw_ if group["decoupled_weight_decay"] else th._fused_adam_
    step(
        parameters,
        known,
        [state["exp_avg"] for state in states],
        [state["exp_avg_sq"] for state in states],
        [],
        steps,
        lr=rate,
        beta1=group["betas"][0],
        beta2=group["betas"][1],
        weight_decay=group["weight_decay"],
        eps=group["eps"],
        amsgrad=False,
        maximize=group["maximize"],
    )
    return True


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
