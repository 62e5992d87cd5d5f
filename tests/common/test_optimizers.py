"""A step of Adam without its bookkeeping is Adam's own, bit for bit."""

from typing import Any

import pytest
import torch as th

from sb3_genoffline.common.optimizers import gradient_step, load_optimizer, make_optimizer

CASES: list[dict[str, Any]] = [{}, {"weight_decay": 0.1}, {"amsgrad": True}, {"maximize": True, "betas": (0.5, 0.9)}]


@pytest.mark.parametrize("cls", [th.optim.Adam, th.optim.AdamW])
@pytest.mark.parametrize("options", CASES)
def test_a_gradient_step_is_the_optimizers_own(cls: type[th.optim.Adam], options: dict[str, Any]) -> None:
    starts = [th.linspace(-1, 1, 7), th.ones(2, 3)]
    parameters, twins = ([start.clone().requires_grad_() for start in starts] for _ in range(2))
    ours, theirs = (make_optimizer(cls, those, 1e-2, **options) for those in (parameters, twins))
    for step in range(5):
        gradient_step(ours, sum((p**3).sum() for p in parameters), 1e-2 / (1 + step))  # type: ignore[arg-type]
        for twin, gradient in zip(twins, th.autograd.grad(sum((t**3).sum() for t in twins), twins), strict=True):  # type: ignore[arg-type]
            twin.grad = gradient
        theirs.param_groups[0]["lr"] = 1e-2 / (1 + step)
        theirs.step()
        if step == 2:  # as a training that goes on from a file
            load_optimizer(ours, ours.state_dict())
        assert all(map(th.equal, parameters, twins))
    for state, twin_state in zip(ours.state.values(), theirs.state.values(), strict=True):
        assert state.keys() == twin_state.keys() and all(th.equal(state[key], twin_state[key]) for key in state)


def test_a_parameter_without_a_gradient_stays_and_counts_no_step() -> None:
    moved, left = (th.ones(3, requires_grad=True) for _ in range(2))
    optimizer = make_optimizer(th.optim.Adam, [moved, left], 1e-2)
    gradient_step(optimizer, (moved + left).sum(), 1e-2)
    before = left.detach().clone()
    gradient_step(optimizer, moved.sum(), 1e-2)
    assert th.equal(left, before) and float(optimizer.state[left]["step"]) == 1


def test_who_follows_an_optimizers_steps_sees_each() -> None:
    parameter = th.nn.Parameter(th.ones(3))
    optimizer, seen = th.optim.Adam([parameter], fused=True), []
    optimizer.register_step_post_hook(lambda *_: seen.append(parameter.detach().clone()))
    for _ in range(3):
        gradient_step(optimizer, parameter.square().sum(), 0.1)
    assert len(seen) == 3 and not th.equal(seen[1], seen[2])
