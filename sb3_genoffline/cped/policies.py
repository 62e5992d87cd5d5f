"""The policy of CPED: a deterministic actor, twin critics, their targets, and the density of behaviour."""

import math
from typing import Annotated, Any

import torch as th
from gymnasium import spaces
from stable_baselines3.common.type_aliases import Schedule
from torch import Tensor

from sb3_genoffline.common.arguments import Bounds, PositiveInt, Widths
from sb3_genoffline.common.policies import ActorCriticPolicy
from sb3_genoffline.generative.flow import FlowName, Squash, make_density
from sb3_genoffline.nets.actors import DeterministicActor

_QUANTILE_ROWS, _BLOCK_ROWS = 50_000, 5_000


class FlowDensityPolicy(ActorCriticPolicy):
    """
    ``predict(deterministic=True)`` is π(s); ``deterministic=False`` adds normal noise of std 0.1, as TD3 explores, and clips
    to [−1, 1].

    :param observation_space: flat Box
    :param action_space: bounded Box
    :param lr_schedule: unused: the algorithm owns the optimizers
    :param flow: ``"spline"`` or ``"affine"`` for p(a | s), ``"nice"`` for the released code's joint p(s, a)
    :param flow_net_arch: hidden widths of the flow's networks (None: two of 256, of 750 for ``"nice"``)
    :param flow_transforms: layers of the flow (None: 3 splines, 4 of the others)
    :param flow_bins: bins of each spline
    :param flow_squash: base of a density on the open box alone; see :func:`~sb3_genoffline.generative.flow.make_density`
    :param kwargs: networks of actor and critics, see :class:`~sb3_genoffline.common.policies.ActorCriticPolicy`
    """

    fitted_model = "density"
    actor: DeterministicActor
    actor_target: DeterministicActor
    nll_threshold: Tensor
    nll_q99: Tensor
    fitted: Tensor

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        lr_schedule: Schedule,
        *,
        flow: FlowName = "spline",
        flow_net_arch: Widths | None = None,
        flow_transforms: PositiveInt | None = None,
        flow_bins: Annotated[int, Bounds(2)] = 8,
        flow_squash: Squash | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(observation_space, action_space, lr_schedule, **kwargs)
        self.density = make_density(
            flow, self.state_dim, self.action_dim, flow_net_arch, flow_transforms, flow_bins, flow_squash
        )
        self.density.requires_grad_(False)
        self.register_buffer("nll_threshold", th.full((), math.inf))  # not known yet
        self.register_buffer("nll_q99", th.full((), math.inf))
        self.register_buffer("fitted", th.zeros((), dtype=th.bool))

    def nll(self, observations: Tensor, actions: Tensor) -> Tensor:
        """
        −log p(a | s) (or −log p(s, a) of a joint density), in nats.

        :param observations: (B, S) raw
        :param actions: (B, A) in [−1, 1]
        :return: (B,)
        """
        return -self.density.log_prob(observations.to(self.obs_mean.dtype), actions)

    @th.no_grad()
    def nll_of_rows(self, observations: Tensor, actions: Tensor) -> Tensor:
        """As :meth:`nll` without gradient, for any number of rows: (N,)."""
        parts = zip(th.split(observations, _BLOCK_ROWS), th.split(actions, _BLOCK_ROWS), strict=True)
        return th.cat([self.nll(states, chosen) for states, chosen in parts])

    def note_usual_nll(self, observations: Tensor, actions: Tensor, quantile: float) -> None:
        """
        Keep the quantile of the data's NLL that may be a threshold, and the 99% one; from here on the density counts as
        fitted.

        :param observations: (N, S) raw
        :param actions: (N, A) in [−1, 1]
        :param quantile: q of the threshold
        """
        every = max(len(actions) // _QUANTILE_ROWS, 1)
        nll = self.nll_of_rows(observations[::every], actions[::every])
        self.nll_threshold.copy_(th.quantile(nll, quantile))
        self.nll_q99.copy_(th.quantile(nll, 0.99))
        self.fitted.fill_(True)
