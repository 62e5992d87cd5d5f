"""The policy of CPED: a deterministic actor, twin critics, their targets, and the density of behaviour."""

import copy
import math
from collections.abc import Sequence
from typing import Any

import torch as th
from gymnasium import spaces
from stable_baselines3.common.torch_layers import create_mlp
from stable_baselines3.common.type_aliases import Schedule
from torch import Tensor, nn

from sb3_genoffline.common.networks import EnsembleQ
from sb3_genoffline.common.policies import OfflinePolicy
from sb3_genoffline.generative.flow import FlowName, Squash, make_density

_EXPLORATION_STD = 0.1  # TD3's
_QUANTILE_ROWS, _BLOCK_ROWS = 50_000, 5_000


class DeterministicActor(nn.Module):
    """
    π(s) = tanh(net(s)), with PyTorch's initialisation.

    :param state_dim: S
    :param action_dim: A
    :param net_arch: hidden widths
    :param activation_fn: activation class
    """

    def __init__(
        self, state_dim: int, action_dim: int, net_arch: Sequence[int], activation_fn: type[nn.Module] = nn.ReLU
    ) -> None:
        super().__init__()
        self.net = nn.Sequential(*create_mlp(state_dim, action_dim, list(net_arch), activation_fn, squash_output=True))

    def forward(self, states: Tensor) -> Tensor:
        """(B, S) -> (B, A)"""
        return self.net(states)


class FlowDensityPolicy(OfflinePolicy):
    """
    ``predict(deterministic=True)`` is π(s); ``deterministic=False`` adds normal noise of std 0.1, as TD3 explores, and clips
    to [−1, 1].

    :param observation_space: flat Box
    :param action_space: bounded Box
    :param lr_schedule: unused: the algorithm owns the optimizers
    :param flow: ``"spline"`` or ``"affine"`` for p(a | s), ``"nice"`` for the released code's joint p(s, a)
    :param net_arch: hidden widths of actor and critics, or ``dict(pi=[...], qf=[...])``
    :param activation_fn: of the actor
    :param critic_activation_fn: of the critics
    :param critic_layer_norm: LayerNorm (without learned scale and shift) in the critics; not in the paper
    :param flow_net_arch: hidden widths of the flow's networks (None: two of 256, of 750 for ``"nice"``)
    :param flow_transforms: layers of the flow (None: 3 splines, 4 of the others)
    :param flow_bins: bins of each spline
    :param flow_squash: base of a density on the open box alone; see :func:`~sb3_genoffline.generative.flow.make_density`
    """

    nll_threshold: Tensor
    nll_q99: Tensor
    fitted: Tensor

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        lr_schedule: Schedule,
        *,
        flow: FlowName = "spline",
        net_arch: Sequence[int] | dict[str, Sequence[int]] = (256, 256),
        activation_fn: type[nn.Module] = nn.ReLU,
        critic_activation_fn: type[nn.Module] = nn.ReLU,
        critic_layer_norm: bool = False,
        flow_net_arch: Sequence[int] | None = None,
        flow_transforms: int | None = None,
        flow_bins: int = 8,
        flow_squash: Squash | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(observation_space, action_space, lr_schedule, **kwargs)
        arch = net_arch if isinstance(net_arch, dict) else {"pi": net_arch, "qf": net_arch}
        self.actor = DeterministicActor(self.state_dim, self.action_dim, arch["pi"], activation_fn)
        self.critic = EnsembleQ(
            2,
            self.state_dim,
            self.action_dim,
            arch["qf"],
            critic_activation_fn,
            layer_norm=critic_layer_norm,
            torch_init=True,
        )
        self.actor_target = copy.deepcopy(self.actor).requires_grad_(False)
        self.critic_target = copy.deepcopy(self.critic).requires_grad_(False)
        self.density = make_density(
            flow, self.state_dim, self.action_dim, flow_net_arch, flow_transforms, flow_bins, flow_squash
        )
        self.density.requires_grad_(False)
        self.register_buffer("nll_threshold", th.full((), math.inf))  # not known yet
        self.register_buffer("nll_q99", th.full((), math.inf))
        self.register_buffer("fitted", th.zeros((), dtype=th.bool))

    def forward(self, observation: Tensor, deterministic: bool = False) -> Tensor:
        return self._predict(observation, deterministic)

    def _predict(self, observation: Tensor, deterministic: bool = False) -> Tensor:  # type: ignore[override]
        actions = self.actor(self.normalize_observations(observation))
        if deterministic:
            return actions
        return (actions + _EXPLORATION_STD * self.acting_noise(*actions.shape)).clamp(-1.0, 1.0)

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
        parts = zip(observations.split(_BLOCK_ROWS), actions.split(_BLOCK_ROWS), strict=True)
        return th.cat([self.nll(states, chosen) for states, chosen in parts])

    def note_usual_nll(self, observations: Tensor, actions: Tensor, quantile: float) -> None:
        """
        Keep the quantile of the data's NLL that may be a threshold, and the 99 % one; from here on the density counts as
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
