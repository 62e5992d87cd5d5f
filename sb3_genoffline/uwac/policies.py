"""The policy of UWAC: BEAR's, whose critics drop hidden units in every pass."""

from typing import Annotated, Any

from gymnasium import spaces
from stable_baselines3.common.type_aliases import Schedule
from torch import Tensor, nn

from sb3_genoffline.common.arguments import Bounds, HalfWidth, SampleCount, Widths
from sb3_genoffline.common.support_matching import SupportMatchingPolicy
from sb3_genoffline.errors import UserError
from sb3_genoffline.nets.dropout_critics import DropoutQ


class UWACPolicy(SupportMatchingPolicy):
    """
    ``predict(deterministic=True)`` draws ``n_action_samples`` actions of the actor and takes the one with the largest Q_1, a
    mean over ``n_passes`` passes with dropout; ``deterministic=False`` is one of them. Both draw random numbers:
    ``model.set_acting_seed(seed)`` before makes them the same again.

    :param observation_space: flat Box
    :param action_space: bounded Box
    :param lr_schedule: unused: the algorithm owns the optimizers
    :param n_passes: T
    :param critic_dropout: share of the critics' hidden units that each pass drops
    :param spectral_norm: divide each of the critics' matrices by its spectral norm
    :param critic_init: half-width of the uniform distribution that the critics' last layer starts from (None: PyTorch's); only
        without ``spectral_norm``, which undoes it
    :param kwargs: the remaining arguments of :class:`~sb3_genoffline.common.support_matching.SupportMatchingPolicy`
    """

    acting_settings = ("n_action_samples", "n_passes")
    critic: DropoutQ
    critic_target: DropoutQ

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        lr_schedule: Schedule,
        *,
        n_passes: SampleCount = 100,
        critic_dropout: Annotated[float, Bounds(0.0, 1.0, open_high=True)] = 0.1,
        spectral_norm: bool = True,
        critic_init: HalfWidth | None = None,
        **kwargs: Any,
    ) -> None:
        if spectral_norm and critic_init is not None:
            raise UserError(f"policy_kwargs: critic_init={critic_init} has no effect with spectral_norm=True.")
        self.critic_dropout, self.spectral_norm = critic_dropout, spectral_norm
        super().__init__(observation_space, action_space, lr_schedule, critic_init=critic_init, **kwargs)
        self.n_passes = n_passes

    def make_critic(self, n_critics: int, net_arch: Widths, activation_fn: type[nn.Module], layer_norm: bool) -> DropoutQ:
        """See :meth:`~sb3_genoffline.common.policies.ActorCriticPolicy.make_critic`."""
        networks: dict[str, Any] = {"layer_norm": layer_norm, "torch_init": self.torch_init}
        dims = (self.state_dim, self.action_dim)
        return DropoutQ(self.critic_dropout, self.spectral_norm, n_critics, *dims, net_arch, activation_fn, **networks)

    def candidate_values(self, states: Tensor, candidates: Tensor) -> Tensor:
        """(B, S), (B, n, A) -> (B, n), the mean of Q_1's passes"""
        return self.critic.passes(states, candidates, self.n_passes, self.acting_generator, slice(1))[0].mean(0)
