"""
Conditional normalizing flows p(a | s) made of zuko's transforms, and the one call that makes any density by name.

Plain modules: no optimizer, no environment. Transforms run from data to latents. zuko's distributions are not used: they
refuse NaN with an exception where a caller wants to count it, and draw from torch's global generator.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, Literal, get_args

import torch as th
import zuko
from torch import Tensor

from sb3_genoffline.errors import UserError
from sb3_genoffline.generative.behavior import Base, Density
from sb3_genoffline.generative.nice import JointNICE
from sb3_genoffline.nets.widths import checked_widths

ConditionalFlowName = Literal["spline", "affine"]
FlowName = Literal["spline", "affine", "nice"]
Squash = Literal["normal", "logistic"]

DEFAULT_N_TRANSFORMS = {"spline": 3, "affine": 4, "nice": 4}
SMALLEST_SCALE = 0.1
"""Least factor of an affine layer, 1/SMALLEST_SCALE the largest. zuko's own 1e-3 gives actions inside the box, but far from
the data, negative log-likelihoods of 10⁴ and more: one such action wrecks an actor's step."""
LARGEST_SQUASHED = 1.0 - 1e-5
"""Actions are clipped to ± this before artanh, which is infinite at the bounds."""


class ConditionalFlow(Density):
    """
    log p(a | s) by a flow over the action whose layers read the standardised state.

    - ``"spline"``: monotone rational-quadratic splines on [−5, 5], the identity outside (Durkan et al. 2019), each half of
      the actions given the other: tails as the base has them, gradients of the size of the action
    - ``"affine"``: affine couplings (Dinh et al. 2017) with scales softly within [1/10, 10]: two to three times faster

    With a single action dimension both are element-wise maps that depend on the state, and the affine one is a Gaussian.

    :param state_dim: S
    :param action_dim: A
    :param kind: one of the above
    :param net_arch: hidden widths of each layer's network
    :param n_transforms: number of layers (None: 3 splines or 4 affine couplings)
    :param n_bins: bins of each spline
    :param squash: model artanh(a), so that no mass lies outside (−1, 1), with this base. ``"normal"`` lets the density go to
        0 at the bounds; ``"logistic"``, of scale ½, is uniform on (−1, 1) before splines bend it (affine layers would change
        its tails, and make the density infinite at the bounds). None models a itself.
    """

    joint = False

    def __init__(
        self,
        state_dim: int,
        action_dim: int,
        kind: ConditionalFlowName = "spline",
        net_arch: Sequence[int] = (256, 256),
        n_transforms: int | None = None,
        n_bins: int = 8,
        squash: Squash | None = None,
    ) -> None:
        super().__init__(state_dim, action_dim)
        self.flow, self.net_arch, self.n_bins, self.squash = kind, tuple(checked_widths(net_arch)), n_bins, squash
        self.n_transforms = n_transforms or DEFAULT_N_TRANSFORMS[kind]
        self.base = Base("logistic", 0.5) if squash == "logistic" else Base("normal")
        shape = {"transforms": self.n_transforms, "hidden_features": self.net_arch}
        if kind == "spline":
            flow = zuko.flows.NSF(action_dim, state_dim, bins=n_bins, passes=2, **shape)
        else:  # zuko's NICE is affine unless told otherwise
            affine = partial(zuko.transforms.MonotonicAffineTransform, slope=SMALLEST_SCALE)
            flow = zuko.flows.NICE(action_dim, state_dim, univariate=affine, **shape)
        self.transform = flow.transform

    def __repr__(self) -> str:
        # zuko's layers draw from torch's global generator when they are printed
        arguments = ", ".join(f"{name}={value!r}" for name, value in self.settings.items())
        return f"{type(self).__name__}({arguments})"

    @property
    def settings(self) -> dict[str, Any]:
        """See :attr:`Density.settings`."""
        return {
            "flow": self.flow,
            "state_dim": self.state_dim,
            "action_dim": self.action_dim,
            "net_arch": list(self.net_arch),
            "n_transforms": self.n_transforms,
            "n_bins": self.n_bins,
            "squash": self.squash,
        }

    def encode(self, states: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """See :meth:`Density.encode`."""
        transform = self.transform(self.standardise(states))
        if self.squash is None:
            encoded: tuple[Tensor, Tensor] = transform.call_and_ladj(actions)
            return encoded
        actions = actions.clamp(-LARGEST_SQUASHED, LARGEST_SQUASHED)
        latents, log_det = transform.call_and_ladj(actions.atanh())
        return latents, log_det - th.log1p(-(actions**2)).sum(-1)

    def decode(self, states: Tensor, latents: Tensor) -> tuple[Tensor, Tensor]:
        """See :meth:`Density.decode`."""
        actions = self.transform(self.standardise(states)).inv(latents)
        return states, actions if self.squash is None else actions.tanh()

    def dequantise(self, actions: Tensor, width: float, generator: th.Generator) -> Tensor:
        """See :meth:`Density.dequantise`. If the density ends at the bounds, noise beyond them is reflected."""
        noisy = super().dequantise(actions, width, generator)
        if self.squash is None:
            return noisy
        beyond = (noisy.abs() - 1).clamp(min=0)
        return noisy - 2 * beyond * noisy.sign()


def make_density(
    flow: FlowName,
    state_dim: int,
    action_dim: int,
    net_arch: Sequence[int] | None = None,
    n_transforms: int | None = None,
    n_bins: int = 8,
    squash: Squash | None = None,
) -> Density:
    """
    A density by name, untrained. ``make_density(**density.settings)`` makes one that loads the state of ``density``.

    :param flow: ``"spline"``, ``"affine"`` (both conditional, see :class:`ConditionalFlow`) or ``"nice"`` (joint, see
        :class:`~sb3_genoffline.generative.nice.JointNICE`)
    :param state_dim: S
    :param action_dim: A
    :param net_arch: hidden widths (None: two of 256, of 750 for ``"nice"``)
    :param n_transforms: number of layers (None: 3 splines, 4 of the others)
    :param n_bins: bins of each spline
    :param squash: base of a density on (−1, 1) alone, for the conditional flows
    """
    if flow not in get_args(FlowName):
        raise UserError(f"flow={flow!r} is not known; use 'spline', 'affine' or 'nice'.")
    if squash not in (None, *get_args(Squash)):
        raise UserError(f"squash={squash!r} is not known; use None, 'normal' or 'logistic'.")
    if n_transforms is not None and n_transforms < 1:
        raise UserError(f"n_transforms={n_transforms} must be at least 1.")
    if flow == "affine" and squash == "logistic":
        raise UserError("squash='logistic' needs flow='spline': scaled logistic tails are infinitely dense at the bounds.")
    if flow == "nice":
        if squash is not None:
            raise UserError(f"squash={squash!r} is for conditional flows; flow='nice' models states, which have no bounds.")
        widths = (750, 750) if net_arch is None else net_arch
        return JointNICE(state_dim, action_dim, widths, n_transforms or DEFAULT_N_TRANSFORMS["nice"])
    widths = (256, 256) if net_arch is None else net_arch
    return ConditionalFlow(state_dim, action_dim, flow, widths, n_transforms, n_bins, squash)


__all__ = ["Base", "ConditionalFlow", "Density", "FlowName", "JointNICE", "Squash", "make_density"]
