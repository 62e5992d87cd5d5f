"""What BEAR and its successors share: a stochastic actor whose samples stay within an MMD ball of a VAE's."""

import math
from collections.abc import Sequence
from typing import Any, TypeVar, Unpack

import torch as th
from gymnasium import spaces
from stable_baselines3.common.type_aliases import Schedule
from torch import Tensor, nn

from sb3_genoffline.common.arguments import (
    Count,
    HalfWidth,
    NCandidates,
    NonNegative,
    Positive,
    Rate,
    SampleCount,
    Share,
)
from sb3_genoffline.common.batch_constrained import BatchConstrainedAlgorithm, BatchConstrainedPolicy
from sb3_genoffline.common.envs import EnvLike
from sb3_genoffline.common.keywords import AllArguments
from sb3_genoffline.common.multiplier import multiplier_step
from sb3_genoffline.generative.mmd import Kernel, mmd
from sb3_genoffline.nets.actors import SquashedGaussianActor
from sb3_genoffline.nets.ensembles import soft_update, start_small
from sb3_genoffline.nets.network import frozen_copy

NoiseT = TypeVar("NoiseT")
_LOG_STD_BOUNDS = (-5.0, 2.0)


class SupportMatchingPolicy(BatchConstrainedPolicy):
    """
    A tanh-Gaussian actor, critics, their targets and the VAE. ``predict(deterministic=True)`` draws ``n_action_samples``
    actions of the actor and takes the one with the largest Q_1; ``deterministic=False`` is one of them. Both draw random
    numbers: ``model.set_acting_seed(seed)`` before makes them the same again.

    :param observation_space: flat Box
    :param action_space: bounded Box
    :param lr_schedule: unused: the algorithm owns the optimizers
    :param clip_log_std: keep log σ within [−5, 2]
    :param slow_actor: a slowly moving copy of the actor draws the target's actions
    :param actor_init: half-width of the uniform distribution that the actor's last layer starts from (None: PyTorch's)
    :param critic_init: likewise of the critics'
    :param kwargs: the remaining arguments of :class:`~sb3_genoffline.common.batch_constrained.BatchConstrainedPolicy`
    """

    actor: SquashedGaussianActor
    actor_target: SquashedGaussianActor
    has_actor_target = False

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        lr_schedule: Schedule,
        *,
        clip_log_std: bool = True,
        slow_actor: bool = False,
        actor_init: HalfWidth | None = None,
        critic_init: HalfWidth | None = None,
        **kwargs: Any,
    ) -> None:
        self.clip_log_std, self.actor_init = clip_log_std, actor_init
        super().__init__(observation_space, action_space, lr_schedule, **kwargs)
        if critic_init is not None:
            start_small(self.critic.output_layer, critic_init)
            self.critic_target.load_state_dict(self.critic.state_dict())
        if slow_actor:
            self.actor_target = frozen_copy(self.actor)

    def make_actor(self, net_arch: Sequence[int], activation_fn: type[nn.Module]) -> SquashedGaussianActor:
        """See :meth:`~sb3_genoffline.common.policies.ActorCriticPolicy.make_actor`."""
        bounds = _LOG_STD_BOUNDS if self.clip_log_std else None
        actor = SquashedGaussianActor(self.state_dim, self.action_dim, net_arch, activation_fn, bounds)
        if self.actor_init is not None:
            start_small(actor.net[-1], self.actor_init)
        return actor

    def sample_actions(self, states: Tensor, n_samples: int) -> Tensor:
        """See :meth:`~sb3_genoffline.common.candidates.CandidatePolicy.sample_actions`."""
        return self.actor.raw_sample(states, self.acting_noise(states.shape[0], n_samples, self.action_dim)).tanh()


class SupportMatchingAlgorithm(BatchConstrainedAlgorithm[NoiseT]):
    """
    Actor, critics, VAE, and the multiplier α of the constraint E[MMD] ≤ ε.

    :param policy: see :class:`~sb3_genoffline.common.learner.Learner`
    :param env: likewise
    :param learning_rate: of the actor, and of the critics unless ``critic_learning_rate`` is given
    :param critic_learning_rate: of the critics (None: ``learning_rate``)
    :param multiplier_learning_rate: of log α, which stays in [−5, 10]
    :param alpha: α at the start
    :param kernel: of the MMD: ``"laplacian"`` or ``"gaussian"``
    :param mmd_sigma: its σ
    :param mmd_threshold: ε
    :param n_mmd_samples: N, samples of either side
    :param mmd_noise_clip: the actor's noise in the MMD is clipped to ± this (None: it is not)
    :param latent_clip: the VAE's latents in the MMD are clipped to ± this
    :param warmup_steps: updates before Q enters the actor's loss
    :param kwargs: the remaining arguments of
        :class:`~sb3_genoffline.common.batch_constrained.BatchConstrainedAlgorithm`
    """

    policy: SupportMatchingPolicy
    actor: SquashedGaussianActor
    log_alpha: Tensor
    alpha_optimizer: th.optim.Optimizer

    def __init__(
        self,
        policy: str | type[SupportMatchingPolicy],
        env: EnvLike | None = None,
        learning_rate: Rate = 1e-4,
        critic_learning_rate: Rate | None = 3e-4,
        *,
        vae_learning_rate: Rate = 3e-4,
        multiplier_learning_rate: NonNegative = 1e-3,
        alpha: Positive = 1.0,
        kernel: Kernel = "laplacian",
        mmd_sigma: Positive = 20.0,
        mmd_threshold: NonNegative = 0.05,
        n_mmd_samples: SampleCount = 4,
        mmd_noise_clip: Positive | None = None,
        latent_clip: Positive = 0.5,
        beta: Positive = 0.5,
        lam: Share = 0.75,
        n_target_samples: SampleCount = 10,
        n_action_samples: NCandidates = 100,
        warmup_steps: Count = 40_000,
        **kwargs: Unpack[AllArguments],
    ) -> None:
        self.multiplier_learning_rate = multiplier_learning_rate
        self.alpha = alpha
        self.kernel = kernel
        self.mmd_sigma = mmd_sigma
        self.mmd_threshold = mmd_threshold
        self.n_mmd_samples = n_mmd_samples
        self.mmd_noise_clip = mmd_noise_clip
        self.latent_clip = latent_clip
        self.warmup_steps = warmup_steps
        super().__init__(
            policy,
            env,
            learning_rate,
            critic_learning_rate,
            vae_learning_rate=vae_learning_rate,
            beta=beta,
            lam=lam,
            n_target_samples=n_target_samples,
            n_action_samples=n_action_samples,
            **kwargs,
        )

    def declare_state(self) -> None:
        """Actor, critics and VAE, and log α, with an optimizer each."""
        super().declare_state()
        self.add_variable("log_alpha", lambda agent: math.log(agent.alpha), argument="alpha", requires_grad=True)
        self.add_optimizer("alpha", [self.log_alpha], th.optim.Adam)

    def phase(self) -> bool:
        """Whether Q enters the actor's loss."""
        return self._n_updates >= self.warmup_steps

    def watch(self, metrics: dict[str, float]) -> None:
        """Warn of silent latents, and once where a training ends within the warm-up."""
        super().watch(metrics)
        last = self._n_updates + self._total_timesteps - self.num_timesteps
        if self._learns_offline and last <= self.warmup_steps:
            self.monitor.warn_once(
                "warmup_steps",
                f"This training ends after {last:,} updates, within a warm-up of {self.warmup_steps:,} (warmup_steps): the "
                "actor does not see Q there, and only comes close to the data. Set warmup_steps to about a tenth of the "
                "updates.",
            )

    @property
    def has_slow_actor(self) -> bool:
        """Whether the target's actions are a slow copy's."""
        return hasattr(self.policy, "actor_target")

    def normal_samples(self, batch_size: int) -> dict[str, Tensor]:
        """
        The standard normal numbers of one update.

        :param batch_size: B
        :return: ``vae`` (B, 1, Z), of the VAE's own step; ``target`` (B, n, A), of the next actions; ``latents`` (B, N, Z) and
            ``actor`` (B, N, A), of the two sides of the MMD
        """
        latent_dim, action_dim = self.vae.latent_dim, self.policy.action_dim
        return {
            "vae": self.normal_noise(batch_size, 1, latent_dim),
            "target": self.normal_noise(batch_size, self.n_target_samples, action_dim),
            "latents": self.normal_noise(batch_size, self.n_mmd_samples, latent_dim),
            "actor": self.normal_noise(batch_size, self.n_mmd_samples, action_dim),
        }

    def next_actions(self, next_states: Tensor, noise: Tensor) -> Tensor:
        """
        What the target asks the critics about.

        :param next_states: (B, S)
        :param noise: (B, n, A) standard normal
        :return: (B, n, A)
        """
        actor = self.actor_target if self.has_slow_actor else self.actor
        return actor.raw_sample(next_states, noise).tanh()

    def matched_samples(self, states: Tensor, latents: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """
        N actions of the VAE, a constant, and N of the actor for each state, both before the tanh, where gradients do not
        vanish.

        :param states: (B, S)
        :param latents: (B, N, Z) standard normal
        :param noise: (B, N, A) standard normal
        :return: (B, N, A) each
        """
        with th.no_grad():
            behaviour = self.vae.decode_raw(states, latents.clamp(-self.latent_clip, self.latent_clip))
        clip = self.mmd_noise_clip
        return behaviour, self.actor.raw_sample(states, noise if clip is None else noise.clamp(-clip, clip))

    def divergence(self, behaviour: Tensor, drawn: Tensor) -> Tensor:
        """
        :param behaviour: (B, N, A)
        :param drawn: (B, N, A)
        :return: their MMD, (B,)
        """
        return mmd(behaviour, drawn, self.kernel, self.mmd_sigma)

    def move_multiplier(self, divergence: Tensor) -> dict[str, Tensor]:
        """
        Ascend α·(E[MMD] − ε) in log α.

        :param divergence: (B,), of before the actor moved
        :return: scalars to log; α is that of before the step
        """
        alpha = self.log_alpha.detach().exp()
        gain = self.log_alpha.exp() * (divergence.mean() - self.mmd_threshold)
        multiplier_step(self.log_alpha, self.alpha_optimizer, gain, self.multiplier_learning_rate)
        share = (divergence > self.mmd_threshold).float().mean()
        return {"alpha": alpha, "mmd": divergence.mean(), "violation_share": share}

    def move_targets(self) -> None:
        """Let the slow copies of the critics, and of the actor if there is one, follow."""
        soft_update(self.critic, self.critic_target, self.tau)
        if self.has_slow_actor:
            soft_update(self.actor, self.actor_target, self.tau)
