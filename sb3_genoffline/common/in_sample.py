"""What methods that judge the data's actions alone share: losses and weights; V beside a Gaussian actor and critics."""

import math
from typing import Annotated, Any, ClassVar, Unpack

import torch as th
from gymnasium import spaces
from stable_baselines3.common.type_aliases import Schedule
from torch import Tensor, nn

from sb3_genoffline.common.actor_critic import ActorCriticAlgorithm
from sb3_genoffline.common.arguments import (
    Bounds,
    NetArch,
    Normalized,
    Positive,
    PositiveInt,
    Rate,
    RewardTransform,
    Widths,
    split_net_arch,
)
from sb3_genoffline.common.envs import EnvLike
from sb3_genoffline.common.keywords import AllArguments, OfflineArguments
from sb3_genoffline.common.policies import GaussianActorCriticPolicy
from sb3_genoffline.nets.actors import GaussianActor
from sb3_genoffline.nets.ensembles import EnsembleLinear
from sb3_genoffline.nets.values import StateValue


def expectile_loss(difference: Tensor, expectile: float) -> Tensor:
    """
    L_τ(u) = |τ − 1(u < 0)|·u² (IQL, section 4.1); its minimum over V of E[L_τ(x − V)] is the τ-expectile of x.

    :param difference: u
    :param expectile: τ
    :return: as ``difference``
    """
    return th.where(difference < 0, 1.0 - expectile, expectile) * difference.square()


def exponential_weights(advantages: Tensor, temperature: float, largest: float) -> Tensor:
    """
    min(exp(β·A), largest): what a row's log-likelihood counts in advantage-weighted regression.

    :param advantages: A, (B,)
    :param temperature: β
    :param largest: upper bound
    :return: (B,)
    """
    return (temperature * advantages).exp().clamp_max(largest)


class InSamplePolicy(GaussianActorCriticPolicy):
    """
    A Gaussian actor with one σ for all states, critics, their targets, and a state value, as the codes in the line of
    Kostrikov's IQL have them. ``predict(deterministic=True)`` is the mean μ(s); ``deterministic=False`` one sample, clipped to
    [−1, 1].

    :param observation_space: flat Box
    :param action_space: bounded Box
    :param lr_schedule: unused: the algorithm owns the optimizers
    :param net_arch: hidden widths, or ``dict(pi=[...], qf=[...])``, where V has those of ``qf``
    :param critic_activation_fn: of critics and V
    :param value_layer_norm: LayerNorm, with learned scale and shift, before each activation of V
    :param actor_dropout: share of the actor's hidden units that are dropped in training
    :param kwargs: the remaining arguments of :class:`~sb3_genoffline.common.policies.ActorCriticPolicy`
    """

    value: StateValue
    starts_orthogonal: ClassVar[bool] = True
    """Whether all layers start orthogonal, as in those codes, or as PyTorch's do."""

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        lr_schedule: Schedule,
        *,
        net_arch: NetArch = (256, 256),
        critic_activation_fn: type[nn.Module] = nn.ReLU,
        value_layer_norm: bool = False,
        actor_dropout: Annotated[float, Bounds(0.0, 1.0, open_high=True)] = 0.0,
        **kwargs: Any,
    ) -> None:
        self.actor_dropout = actor_dropout
        networks: dict[str, Any] = {"net_arch": net_arch, "critic_activation_fn": critic_activation_fn}
        super().__init__(observation_space, action_space, lr_schedule, **networks, **kwargs)
        self.value = StateValue(self.state_dim, split_net_arch(net_arch)[1], critic_activation_fn, value_layer_norm)
        if self.starts_orthogonal:
            for network in (self.actor, self.critic, self.value):
                start_orthogonal(network)
            self.critic_target.load_state_dict(self.critic.state_dict())

    def make_actor(self, net_arch: Widths, activation_fn: type[nn.Module]) -> GaussianActor:
        """See :meth:`~sb3_genoffline.common.policies.ActorCriticPolicy.make_actor`."""
        torch_init = not self.starts_orthogonal
        return GaussianActor(self.state_dim, self.action_dim, net_arch, activation_fn, torch_init, self.actor_dropout)


def start_orthogonal(network: nn.Module) -> None:
    """
    Give all linear layers orthogonal weights times √2, those of each member of an ensemble on their own, and no bias.

    :param network: what they are in
    """
    for layer in network.modules():
        if isinstance(layer, nn.Linear | EnsembleLinear):
            members = layer.weight.unbind() if isinstance(layer, EnsembleLinear) else (layer.weight,)
            for weight in members:
                nn.init.orthogonal_(weight.data, math.sqrt(2.0))
            nn.init.zeros_(layer.bias)


class InSampleArguments(AllArguments, total=False):
    """The keyword arguments of :class:`InSampleAlgorithm`."""

    max_weight: Positive


class InSampleAlgorithm(ActorCriticAlgorithm[Tensor | None]):
    """
    Actor, critics and V with an optimizer each, and the settings on Gym-MuJoCo that the codes in the line of IQL share. The
    only random numbers of an update are those of the actor's dropout.

    :param policy: see :class:`~sb3_genoffline.common.learner.Learner`
    :param env: likewise
    :param learning_rate: of actor, critics and V; ``critic_learning_rate`` is for the last two
    :param max_weight: largest weight of an action
    :param lr_decay_steps: K of the cosine decay of the actor's rate; None: none
    :param reward_transform: the settings are made for returns that span 1000, which the default gives
    :param kwargs: the remaining arguments of :class:`~sb3_genoffline.common.learner.Learner`
    """

    policy: InSamplePolicy
    default_gradient_steps = 1_000_000
    further_networks = ("value",)
    actor: GaussianActor
    value: StateValue
    value_optimizer: th.optim.Optimizer

    def __init__(
        self,
        policy: str | type[InSamplePolicy],
        env: EnvLike | None = None,
        learning_rate: Rate = 3e-4,
        critic_learning_rate: Rate | None = None,
        *,
        max_weight: Positive = 100.0,
        batch_size: PositiveInt = 256,
        lr_decay_steps: PositiveInt | None = 1_000_000,
        max_grad_norm: Positive | None = None,
        reward_transform: RewardTransform = "iql_locomotion",
        normalize_observations: Normalized = False,
        **kwargs: Unpack[OfflineArguments],
    ) -> None:
        self.max_weight = max_weight
        super().__init__(
            policy,
            env,
            learning_rate,
            critic_learning_rate,
            batch_size=batch_size,
            lr_decay_steps=lr_decay_steps,
            max_grad_norm=max_grad_norm,
            reward_transform=reward_transform,
            normalize_observations=normalize_observations,
            **kwargs,
        )

    def declare_state(self) -> None:
        """Actor, critics and V, with an optimizer each."""
        super().declare_state()
        self.add_optimizer("value", self.value.parameters())

    def draw_noise(self, batch_size: int) -> Tensor | None:
        """What the actor's dropout compares with its share: (B, sum of the hidden widths) within [0, 1), or nothing."""
        if self.policy.actor_dropout == 0:
            return None
        return th.rand((batch_size, sum(self.actor.hidden_widths)), generator=self.generator, device=self.device)
