"""What the policies of all offline algorithms share."""

import functools
from abc import ABCMeta
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.torch_layers import FlattenExtractor
from stable_baselines3.common.type_aliases import Schedule
from torch import Tensor, nn

from sb3_genoffline.common.arguments import (
    Argument,
    ArgumentTable,
    NetArch,
    PositiveInt,
    Widths,
    constructor_arguments,
    split_net_arch,
)
from sb3_genoffline.common.frozen import frozen
from sb3_genoffline.common.policy_files import load_policy, save_policy
from sb3_genoffline.deploy.acting import Acting
from sb3_genoffline.errors import UserError
from sb3_genoffline.files.archive import PathOrFile
from sb3_genoffline.files.untrusted import short
from sb3_genoffline.nets.actors import SQUASHED_LOG_STD, DeterministicActor, GaussianActor, SquashedGaussianActor
from sb3_genoffline.nets.ensembles import EnsembleQ
from sb3_genoffline.nets.network import Network, frozen_copy

OptimizerOption = bool | int | float | list[float] | None
_SEED = Argument("seed", int, 0)

EXPLORATION_STD = 0.1  # TD3's
_NO_EXTRACTOR = "its networks read the vector of observations as it is; put what you extract into the observations."
_REFUSED = {
    "share_features_extractor": _NO_EXTRACTOR,
    "features_extractor": _NO_EXTRACTOR,
    "normalize_images": "observations are vectors, and images would have to be flattened.",
    "use_sde": "state-dependent exploration is not built.",
    "log_std_init": "the initial spread is the paper's.",
    "squash_output": "actions are always squashed.",
}


def _refuse_extractor(cls: type, extractor: Any, arguments: Any) -> None:
    for name, given in (("class", not (extractor is None or extractor is FlattenExtractor)), ("kwargs", bool(arguments))):
        if given:
            raise UserError(f"policy_kwargs: {cls.__name__} takes no features_extractor_{name}: {_NO_EXTRACTOR}")


class _Made(ABCMeta):
    """Lets a policy know when its constructors have returned, and what they were given."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        policy = super().__call__(*args, **kwargs)
        policy.__dict__["constructor_values"] = frozen(kwargs)
        for network in policy.modules():
            if isinstance(network, Network):
                network.settle()
        return policy


@functools.cache
def _arguments_of(cls: "type[OfflinePolicy]") -> Mapping[str, Argument]:
    """The table, looked at each time an attribute is set."""
    return cls.argument_table().arguments


class OfflinePolicy(BasePolicy, metaclass=_Made):
    """
    A policy that acts in [−1, 1] (SB3 rescales to the action space), keeps the observation statistics as buffers, so that
    ``predict(raw_observation)`` is right after any load, and draws its actions from a generator of its own, so that
    evaluating in the middle of a training changes nothing in the training.

    :param observation_space: flat Box
    :param action_space: bounded Box
    :param lr_schedule: unused: the algorithm owns the optimizers
    :param optimizer_class: of the optimizers of networks (None: Adam, as the papers)
    :param optimizer_kwargs: their further arguments
    :param features_extractor_class: accepted for SB3's signature; only its ``FlattenExtractor``
    :param features_extractor_kwargs: accepted for SB3's signature; only empty
    """

    obs_mean: Tensor
    obs_std: Tensor
    acts_with_targets: ClassVar[tuple[str, ...]] = ()
    """The target networks that the policy acts with, instead of those that they follow."""
    adds_noise: bool = True
    """Whether a deterministic actor explores with noise of its own; not where ``action_noise`` does."""
    acting_settings: ClassVar[tuple[str, ...]] = ()
    """Constructor arguments that only say how to act: an algorithm's setting of the same name reaches a live policy."""
    sized_by: ClassVar[tuple[str, ...]] = ()
    """What sizes its networks where SB3's ``net_arch`` does not, for the sentence that refuses it."""
    fitted_model: ClassVar[str | None] = None
    """Name of the model that is fitted before the policy is trained; None if there is none."""
    constructor_values: Mapping[str, Any]
    """The keyword arguments that it was made with; there are none before it is made."""
    owner: "Owner | None" = None
    """The agent that it belongs to; None if it is a policy of its own."""

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        lr_schedule: Schedule,
        *,
        optimizer_class: type[th.optim.Optimizer] | None = None,
        optimizer_kwargs: dict[str, OptimizerOption] | None = None,
        features_extractor_class: Any = FlattenExtractor,
        features_extractor_kwargs: dict[str, Any] | None = None,
    ) -> None:
        _refuse_extractor(type(self), features_extractor_class, features_extractor_kwargs)
        super().__init__(observation_space, action_space, squash_output=True)
        self.state_dim = int(np.prod(observation_space.shape or ()))
        self.action_dim = int(np.prod(action_space.shape or ()))
        self.optimizer_class = optimizer_class or th.optim.Adam
        self.optimizer_kwargs = frozen(optimizer_kwargs or {})
        self.register_buffer("obs_mean", th.zeros(self.state_dim))
        self.register_buffer("obs_std", th.ones(self.state_dim))
        self._acting_generator: th.Generator | None = None
        self.acting_seed = 0

    @classmethod
    def argument_table(cls) -> ArgumentTable:
        """The arguments of its constructor beside the spaces and the schedule."""
        arguments = dict(constructor_arguments(cls, OfflinePolicy))
        for name in ("observation_space", "action_space", "lr_schedule"):
            arguments.pop(name)
        no_widths = f"what shapes its networks is {', '.join(cls.sized_by)}."
        unsized = {name: no_widths for name in ("net_arch", "activation_fn") if cls.sized_by and name not in arguments}
        return ArgumentTable(cls.__name__, arguments, _REFUSED | unsized)

    @classmethod
    def check_arguments(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """
        :param values: ``policy_kwargs`` as given
        :return: those that shape the policy, in plain types
        :raises UserError: naming the first one that is unknown or wrong
        """
        given = {name: value for name, value in values.items() if not (name == "net_arch" and value is None)}  # SB3's default
        checked = cls.argument_table().check(given, "policy_kwargs: ")
        _refuse_extractor(cls, checked.pop("features_extractor_class", None), checked.pop("features_extractor_kwargs", None))
        return checked

    def __setattr__(self, name: str, value: Any) -> None:
        """
        Check an argument that is set later: one that says how to act is followed at once by a policy of its own, and is the
        agent's business where there is one; others have done their work.
        """
        if "constructor_values" in self.__dict__ and name in _arguments_of(type(self)):
            if name not in self.acting_settings:
                raise UserError(
                    f"{name} can't be changed to {short(value)} on a live policy: it has shaped it. Make a new one with "
                    f"{type(self).__name__}(..., {name}=...)."
                )
            if self.owner is not None:
                raise UserError(f"{name} can't be changed to {short(value)} on an agent's policy: {self.owner.has(name)}")
            value = _arguments_of(type(self))[name].check(value)
        super().__setattr__(name, value)

    def belong_to(self, agent: Any) -> None:
        """:param agent: the algorithm that has this policy from now on, and sets how it acts"""
        self.owner = Owner(
            type(agent).__name__, frozenset(agent.argument_table().arguments), frozenset(agent.policy_arguments())
        )

    def act_with(self, settings: Mapping[str, Any]) -> None:
        """:param settings: of :attr:`acting_settings`, checked"""
        for name, value in settings.items():
            super().__setattr__(name, value)

    def save(self, path: PathOrFile) -> None:
        """
        Write the policy alone, without a pickle: spaces, arguments and weights.

        :param path: file name (``.zip`` is added) or open binary file
        """
        save_policy(self, path)

    @classmethod
    def load(cls, path: PathOrFile, device: th.device | str = "auto") -> Self:
        """
        Read what :meth:`save` wrote. Nothing is unpickled.

        :param path: file name or open binary file
        :param device: of the networks
        :raises CheckpointError: if the file is damaged, or not a policy of this class
        """
        return load_policy(cls, path, device)

    @property
    def has_memory(self) -> bool:
        """Whether it acts by what ``predict`` takes and returns as ``state``."""
        return False

    @property
    def is_fitted(self) -> Tensor | None:
        """Buffer that says whether the model of :attr:`fitted_model` is fitted; None if there is none."""
        return getattr(self, "fitted", None)

    @property
    def fitted_with(self) -> Mapping[str, Any]:
        """What the model of :attr:`fitted_model` is, or is being, fitted with, by name; empty where that is not known."""
        model = None if self.fitted_model is None else getattr(self, self.fitted_model)
        return getattr(model, "fitted_with", {})

    @fitted_with.setter
    def fitted_with(self, facts: Mapping[str, Any]) -> None:
        if self.fitted_model is not None:
            getattr(self, self.fitted_model).fitted_with = frozen(facts)

    def set_observation_statistics(self, mean: Tensor, std: Tensor) -> None:
        """
        From now on observations are standardised.

        :param mean: (S,)
        :param std: (S,); a constant column gets std 1
        """
        self.obs_mean.copy_(mean)
        self.obs_std.copy_(without_zeros(std))

    def normalize_observations(self, observations: Tensor) -> Tensor:
        """(B, S) raw -> (B, S) standardised, in the parameters' precision; the identity until statistics are set."""
        return (observations.to(self.obs_mean.dtype).flatten(1) - self.obs_mean) / self.obs_std

    def unscale_action(self, scaled_action: np.ndarray) -> np.ndarray:
        """[−1, 1] -> the action space, kept inside it where rounding would leave it by a last digit."""
        assert isinstance(self.action_space, spaces.Box)
        unscaled: np.ndarray = super().unscale_action(scaled_action)
        return unscaled.clip(self.action_space.low, self.action_space.high)

    def _spare_modules(self) -> dict[str, str]:
        """Of each network and its target the one that acting does without, and the other."""
        spare: dict[str, str] = {}
        for target in (name for name, _ in self.named_children() if name.endswith("_target")):
            online = target.removesuffix("_target")
            spare |= {online: target} if target in self.acts_with_targets else {target: online}
        return spare

    def acting_state_dict(self) -> dict[str, Tensor]:
        """The state without those networks that are slow copies of others, or that others are slow copies of."""
        spare = tuple(f"{name}." for name in self._spare_modules())
        return {name: tensor for name, tensor in self.state_dict().items() if not name.startswith(spare)}

    def with_spare_modules(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """
        :param tensors: as :meth:`acting_state_dict` returns them
        :return: a whole state: of each pair of a network and its target, what was left out is a copy of the other
        """
        whole = dict(tensors)
        for missing, kept in self._spare_modules().items():
            whole |= {
                missing + name.removeprefix(kept): tensor for name, tensor in tensors.items() if name.startswith(f"{kept}.")
            }
        return whole

    def acting_module(self, deterministic: bool) -> Acting:
        """
        What goes into an ONNX file.

        :param deterministic: as in ``predict``
        """
        return Acting(self, deterministic)

    def observe_rewards(self, state: Any, rewards: Any, which: Any = slice(None)) -> None:
        """
        Tell what the actions of the last ``predict`` were rewarded with. A policy without a memory takes no notice.

        :param state: that ``predict`` returned
        :param rewards: (n,), as the environments gave them
        :param which: environments whose rewards these are (default: all)
        """

    def seed_acting(self, seed: int) -> None:
        """
        Restart the stream of random numbers that actions are sampled with: after the same seed, the same observations in the
        same order get the same actions.

        :param seed: of the stream: any whole number of 64 bits
        :raises UserError: for anything else
        """
        self.acting_seed = _SEED.check(seed)
        self._acting_generator = None

    @property
    def acting_generator(self) -> th.Generator:
        """Generator of the actions' randomness, on the policy's device."""
        if self._acting_generator is None or self._acting_generator.device != self.device:
            self._acting_generator = th.Generator(self.device)
            self._acting_generator.manual_seed(self.acting_seed)
        return self._acting_generator

    def acting_noise(self, *shape: int) -> Tensor:
        """Standard normal numbers from the acting generator."""
        return th.randn(shape, generator=self.acting_generator, device=self.device, dtype=self.obs_mean.dtype)


def without_zeros(std: Tensor) -> Tensor:
    """(D,) standard deviations -> the same, 1 for columns that are constant"""
    return th.where(std > 1e-6 * std.max().clamp(max=1.0), std, th.ones_like(std))


@dataclass(frozen=True)
class Owner:
    """
    The agent that a policy belongs to.

    :param name: of its class
    :param arguments: of its class
    :param given: arguments of the policy that follow from those
    """

    name: str
    arguments: frozenset[str]
    given: frozenset[str]

    def has(self, name: str) -> str:
        """Where the agent has a setting of its policy, as the end of a sentence."""
        if name in self.given & self.arguments:
            return f"set it on the agent, `model.{name} = ...`, which is saved."
        if name in self.given:
            return f"it follows from other arguments of {self.name}: set those, on the agent."
        return f"set it on the agent, `model.policy_kwargs = {{**model.policy_kwargs, {name!r}: ...}}`, which is saved."


class ActorCriticPolicy(OfflinePolicy):
    """
    A deterministic actor, critics, and their targets, as in TD3. ``predict(deterministic=True)`` is π(s);
    ``deterministic=False`` adds normal noise of std 0.1, as TD3 explores, and clips to [−1, 1].

    A subclass with another actor overrides :meth:`make_actor` and :meth:`explore`.

    :param observation_space: flat Box
    :param action_space: bounded Box
    :param lr_schedule: unused: the algorithm owns the optimizers
    :param net_arch: hidden widths of actor and critics, or ``dict(pi=[...], qf=[...])``
    :param activation_fn: of the actor
    :param critic_activation_fn: of the critics
    :param critic_layer_norm: LayerNorm (without learned scale and shift) in the critics
    :param n_critics: H
    """

    actor: nn.Module
    has_actor_target: ClassVar[bool] = True
    """Whether there is a slowly moving copy of the actor beside that of the critics."""
    torch_init: ClassVar[bool] = True
    """Whether layers start as ``nn.Linear`` does, not with Xavier weights and zero biases."""

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        lr_schedule: Schedule,
        *,
        net_arch: NetArch = (256, 256),
        activation_fn: type[nn.Module] = nn.ReLU,
        critic_activation_fn: type[nn.Module] = nn.ReLU,
        critic_layer_norm: bool = False,
        n_critics: PositiveInt = 2,
        **kwargs: Any,
    ) -> None:
        super().__init__(observation_space, action_space, lr_schedule, **kwargs)
        actor_arch, critic_arch = split_net_arch(net_arch)
        self.actor = self.make_actor(actor_arch, activation_fn)
        self.critic = self.make_critic(n_critics, critic_arch, critic_activation_fn, critic_layer_norm)
        if self.has_actor_target:
            self.actor_target = frozen_copy(self.actor)
        self.critic_target = frozen_copy(self.critic)

    def make_actor(self, net_arch: Widths, activation_fn: type[nn.Module]) -> nn.Module:
        """
        :param net_arch: hidden widths
        :param activation_fn: activation class
        :return: a module whose call maps states (B, S) to the best known actions (B, A) in [−1, 1]
        """
        return DeterministicActor(self.state_dim, self.action_dim, net_arch, activation_fn)

    def make_critic(self, n_critics: int, net_arch: Widths, activation_fn: type[nn.Module], layer_norm: bool) -> EnsembleQ:
        """
        :param n_critics: H
        :param net_arch: hidden widths
        :param activation_fn: activation class
        :param layer_norm: LayerNorm before each activation
        """
        dims = (self.state_dim, self.action_dim)
        return EnsembleQ(n_critics, *dims, net_arch, activation_fn, layer_norm, self.torch_init)

    def explore(self, states: Tensor) -> Tensor:
        """(B, S) standardised states -> (B, A) sampled actions, clipped later"""
        actions: Tensor = self.actor(states)
        return actions + EXPLORATION_STD * self.acting_noise(*actions.shape) if self.adds_noise else actions

    def forward(self, observation: Tensor, deterministic: bool = False) -> Tensor:
        return self._predict(observation, deterministic)

    def _predict(self, observation: Tensor, deterministic: bool = False) -> Tensor:  # type: ignore[override]
        states = self.normalize_observations(observation)
        return self.actor(states) if deterministic else self.explore(states).clamp(-1.0, 1.0)


class GaussianActorCriticPolicy(ActorCriticPolicy):
    """
    A Gaussian actor with one standard deviation for all states, critics, and the critics' targets.
    ``predict(deterministic=True)`` is the mean μ(s); ``deterministic=False`` one sample, clipped to [−1, 1].

    The arguments are those of :class:`ActorCriticPolicy`.
    """

    actor: GaussianActor
    has_actor_target = False

    def make_actor(self, net_arch: Widths, activation_fn: type[nn.Module]) -> GaussianActor:
        """See :meth:`ActorCriticPolicy.make_actor`."""
        return GaussianActor(self.state_dim, self.action_dim, net_arch, activation_fn, self.torch_init)

    def explore(self, states: Tensor) -> Tensor:
        """See :meth:`ActorCriticPolicy.explore`."""
        return self.actor.sample(states, self.acting_noise(states.shape[0], self.action_dim))


class SquashedActorCriticPolicy(ActorCriticPolicy):
    """
    SAC's squashed Gaussian actor, critics, and the critics' targets. ``predict(deterministic=True)`` is tanh(μ(s));
    ``deterministic=False`` one sample.

    The arguments are those of :class:`ActorCriticPolicy`.
    """

    actor: SquashedGaussianActor
    has_actor_target = False
    log_std_bounds: ClassVar[tuple[float, float]] = SQUASHED_LOG_STD
    """Smallest and largest log σ of the actor."""

    def make_actor(self, net_arch: Widths, activation_fn: type[nn.Module]) -> SquashedGaussianActor:
        """See :meth:`ActorCriticPolicy.make_actor`."""
        return SquashedGaussianActor(self.state_dim, self.action_dim, net_arch, activation_fn, self.log_std_bounds)

    def explore(self, states: Tensor) -> Tensor:
        """See :meth:`ActorCriticPolicy.explore`."""
        return self.actor.sample(states, self.acting_noise(states.shape[0], self.action_dim))[0]
