"""The policy of Onestep: an actor, and the behaviour and its Q that it is improved from."""

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch as th
from gymnasium import spaces
from stable_baselines3.common.type_aliases import Schedule
from torch import Tensor, nn

from sb3_genoffline.common.arguments import NCandidates, NetArch, PositiveInt, split_net_arch
from sb3_genoffline.common.candidates import CandidatePolicy
from sb3_genoffline.nets.bounded_gaussian import BoundedGaussianActor
from sb3_genoffline.nets.ensembles import EnsembleQ
from sb3_genoffline.nets.network import Network

Distribution = Literal["truncated", "normal"]
Improvement = Literal["reverse_kl", "exp_weight", "easy_bcq"]


class BehaviourAndQ(Network):
    """
    What the data say before any improvement: β̂(a | s), who made them, and Q(s, a), what following β from there on is worth.

    :param state_dim: S
    :param action_dim: A
    :param actor_arch: hidden widths of β̂
    :param critic_arch: hidden widths of Q
    :param activation_fn: of β̂
    :param critic_activation_fn: of Q
    :param truncated: whether β̂ is truncated to [−1, 1]
    :param layer_norm: LayerNorm in Q
    :param n_critics: Q is the smallest of so many
    """

    kind: ClassVar[str] = "BehaviourAndQ"

    def __init__(
        self,
        state_dim: int,
        action_dim: int,
        actor_arch: Sequence[int],
        critic_arch: Sequence[int],
        activation_fn: type[nn.Module],
        critic_activation_fn: type[nn.Module],
        truncated: bool,
        layer_norm: bool,
        n_critics: int,
    ) -> None:
        super().__init__()
        self.settings = {
            "state_dim": state_dim,
            "action_dim": action_dim,
            "actor_arch": list(actor_arch),
            "critic_arch": list(critic_arch),
            "truncated": truncated,
            "layer_norm": layer_norm,
            "n_critics": n_critics,
            "activation_fn": activation_fn.__name__,
            "critic_activation_fn": critic_activation_fn.__name__,
        }
        self.behavior = BoundedGaussianActor(state_dim, action_dim, actor_arch, activation_fn, truncated)
        self.critic = EnsembleQ(
            n_critics, state_dim, action_dim, critic_arch, critic_activation_fn, layer_norm, torch_init=True
        )
        self.requires_grad_(False)

    def q(self, states: Tensor, actions: Tensor) -> Tensor:
        """(B, S) and (B, A) -> (B,); (B, n, A) -> (B, n), which alone is without gradients"""
        judge = self.critic if actions.ndim == 2 else self.critic.score_samples
        values: Tensor = judge(states, actions)
        return values.amin(0)


class OnestepPolicy(CandidatePolicy):
    """
    ``predict(deterministic=True)`` is the expected action of π(·|s), which is not its μ where it is truncated;
    ``deterministic=False`` one sample, clipped to [−1, 1]. With ``improvement="easy_bcq"`` there is no π: they are the best by
    Q of ``n_action_samples`` samples of β̂, which differs from call to call, and one sample of β̂.

    :param observation_space: flat Box
    :param action_space: bounded Box
    :param lr_schedule: unused: the algorithm owns the optimizers
    :param improvement: operator, see :class:`~sb3_genoffline.onestep.onestep.Onestep`
    :param n_action_samples: M, candidates of ``"easy_bcq"``
    :param distribution: of π and β̂
    :param net_arch: hidden widths of all networks, or ``dict(pi=[...], qf=[...])``
    :param activation_fn: of π and β̂
    :param critic_activation_fn: of Q
    :param critic_layer_norm: LayerNorm (without learned scale and shift) in Q
    :param n_critics: Q is the smallest of so many; the paper has one
    """

    fitted_model = "behavior_and_q"
    acting_settings = ("improvement", "n_action_samples")
    fitted: Tensor

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        lr_schedule: Schedule,
        *,
        improvement: Improvement = "reverse_kl",
        n_action_samples: NCandidates = 10,
        distribution: Distribution = "truncated",
        net_arch: NetArch = (1024, 1024),
        activation_fn: type[nn.Module] = nn.ReLU,
        critic_activation_fn: type[nn.Module] = nn.ReLU,
        critic_layer_norm: bool = False,
        n_critics: PositiveInt = 1,
        **kwargs: Any,
    ) -> None:
        super().__init__(observation_space, action_space, lr_schedule, **kwargs)
        self.improvement, self.n_action_samples = improvement, n_action_samples
        actor_arch, critic_arch = split_net_arch(net_arch)
        dims, truncated = (self.state_dim, self.action_dim), distribution == "truncated"
        self.actor = BoundedGaussianActor(*dims, actor_arch, activation_fn, truncated)
        self.behavior_and_q = BehaviourAndQ(
            *dims, actor_arch, critic_arch, activation_fn, critic_activation_fn, truncated, critic_layer_norm, n_critics
        )
        self.register_buffer("fitted", th.zeros((), dtype=th.bool))

    def start_from_behavior(self) -> None:
        """π becomes a copy of β̂."""
        self.actor.load_state_dict(self.behavior_and_q.behavior.state_dict())

    def sample_actions(self, states: Tensor, n_samples: int) -> Tensor:
        """(B, S) -> (B, n, A), of π, or of β̂ where there is no π"""
        actor = self.behavior_and_q.behavior if self.improvement == "easy_bcq" else self.actor
        draws = actor.draws(states.shape[0], n_samples, self.action_dim, generator=self.acting_generator)
        return actor.distribution(states).sample(draws).clamp(-1.0, 1.0)

    def candidate_values(self, states: Tensor, candidates: Tensor) -> Tensor:
        """(B, S), (B, n, A) -> (B, n), Q"""
        return self.behavior_and_q.q(states, candidates)

    def _predict(self, observation: Tensor, deterministic: bool = False) -> Tensor:  # type: ignore[override]
        if not deterministic or self.improvement == "easy_bcq":
            return super()._predict(observation, deterministic)
        expected: Tensor = self.actor(self.normalize_observations(observation))
        return expected
