"""Supported Policy OpTimization (Wu et al., NeurIPS 2022, arXiv 2202.06239)."""

from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Unpack

import torch as th
from stable_baselines3.common.policies import BasePolicy
from torch import Tensor

from sb3_genoffline.common.actor_critic import smoothed
from sb3_genoffline.common.arguments import (
    NonNegative,
    Normalized,
    Positive,
    PositiveInt,
    Rate,
    RewardTransform,
    SampleCount,
    TakenOver,
)
from sb3_genoffline.common.envs import EnvLike
from sb3_genoffline.common.keywords import OfflineArguments
from sb3_genoffline.common.optimizers import gradient_step
from sb3_genoffline.common.vae_training import VAEFittingAlgorithm
from sb3_genoffline.data.buffers import TransitionBatch
from sb3_genoffline.files.archive import PathOrFile
from sb3_genoffline.generative.vae import ConditionalVAE
from sb3_genoffline.nets.actors import DropoutActor
from sb3_genoffline.nets.ensembles import soft_update
from sb3_genoffline.spot.policies import VAEDensityPolicy

Estimator = Literal["elbo", "importance"]


class SPOTNoise(NamedTuple):
    """
    The random numbers of one update.

    :param smoothing: (B, A) standard normal, on the target action
    :param latents: (B, L, Z) standard normal, of the VAE
    :param dropout: uniform, (2, B, sum of the actor's hidden widths): of the target's and of the actor's hidden units; None
        without dropout
    """

    smoothing: Tensor
    latents: Tensor
    dropout: Tensor | None


class SPOT(VAEFittingAlgorithm[SPOTNoise]):
    """
    Supported Policy OpTimization: a VAE learns the density of behaviour; TD3's actor has one more term, the negative
    log-density of its own action.

    Paper: Wu, Wu, Qiu, Wang, Long, "Supported Policy Optimization for Offline Reinforcement Learning", NeurIPS 2022,
    https://arxiv.org/abs/2202.06239. :meth:`learn_offline` first fits the VAE (progress bar and log keys ``vae/`` of its own;
    left out if there is a fitted one), then trains actor and critics, whose updates ``num_timesteps`` counts.

    The bound on log p is measured in the released code's unit, mean squared error plus β times the mean KL divergence, which
    is β/Z nats; λ is made for that. Differences from paper and released code:

    1. Both estimators are in that unit, so that one λ fits both.
    2. λ stays as it is in :meth:`learn` (the paper lets it fall during online fine-tuning).
    3. Batches of the actor-critic are slices of random permutations; ``replacement=True`` draws as the released code does.
    4. Actions are clipped to ± (1 − 1e-5).
    5. A constant observation column is left unscaled; the released code adds 1e-3 to every standard deviation.
    6. The actor moves at updates 1, 3, 5, ...; in the code at 2, 4, 6, ...

    :param policy: ``"VAEDensityPolicy"`` (alias ``"MlpPolicy"``) or a class
    :param env: see :class:`~sb3_genoffline.common.learner.Learner`
    :param learning_rate: of the actor (1e-4 on AntMaze), and of the critics unless ``critic_learning_rate`` is given
    :param lam: λ ≥ 0, the weight of the support constraint (the authors' code: 0.05 to 1 on Gym-MuJoCo, 0.025 to 0.25 on
        AntMaze, per dataset in ``spot/hyperparameters.yml``); at 0 there is no constraint and no VAE
    :param q_normalize: divide Q by its mean absolute value in the actor's loss
    :param density_estimator: of log p(a | s): ``"elbo"``, or ``"importance"`` with the encoder as the proposal
    :param n_latents: L, draws of the latents per action
    :param beta: β, weight of the VAE's KL term
    :param vae_steps: steps that fit the VAE
    :param vae_batch_size: rows of such a step
    :param vae_learning_rate: of the VAE
    :param density: a fitted :class:`~sb3_genoffline.generative.vae.ConditionalVAE`, or a file of
        :meth:`save_fitted_model`, instead of fitting one; None once it is taken over
    :param policy_delay: updates of the critics per update of the actor and the targets
    :param target_policy_noise: std of the noise on the target action
    :param target_noise_clip: its largest absolute value
    :param normalize_observations: standardise observations, the VAE's too (the paper does not on AntMaze)
    :param kwargs: the remaining arguments of :class:`~sb3_genoffline.common.learner.Learner`
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {
        "VAEDensityPolicy": VAEDensityPolicy,
        "MlpPolicy": VAEDensityPolicy,
    }
    default_gradient_steps = 1_000_000
    baselines: ClassVar[dict[str, dict[str, Any]]] = {"no constraint": {"lam": 0}}
    policy: VAEDensityPolicy
    actor: DropoutActor
    actor_target: DropoutActor

    def __init__(
        self,
        policy: str | type[VAEDensityPolicy],
        env: EnvLike | None = None,
        learning_rate: Rate = 3e-4,
        critic_learning_rate: Rate | None = None,
        *,
        lam: NonNegative = 1.0,
        q_normalize: bool = True,
        density_estimator: Estimator = "elbo",
        n_latents: SampleCount = 1,
        beta: NonNegative = 0.5,
        vae_steps: PositiveInt = 100_000,
        vae_batch_size: PositiveInt = 256,
        vae_learning_rate: NonNegative = 1e-3,
        density: Annotated[ConditionalVAE | PathOrFile | None, TakenOver] = None,
        policy_delay: PositiveInt = 2,
        target_policy_noise: NonNegative = 0.2,
        target_noise_clip: NonNegative = 0.5,
        batch_size: PositiveInt = 256,
        lr_decay_steps: PositiveInt | None = None,
        max_grad_norm: Positive | None = None,
        reward_transform: RewardTransform = None,
        normalize_observations: Normalized = True,
        **kwargs: Unpack[OfflineArguments],
    ) -> None:
        self.lam = lam
        self.q_normalize = q_normalize
        self.density_estimator = density_estimator
        self.n_latents = n_latents
        self.beta = beta
        self.vae_steps = vae_steps
        self.vae_batch_size = vae_batch_size
        self.vae_learning_rate = vae_learning_rate
        self.density = density
        self.policy_delay = policy_delay
        self.target_policy_noise = target_policy_noise
        self.target_noise_clip = target_noise_clip
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

    def policy_arguments(self) -> dict[str, Any]:
        """See :meth:`~sb3_genoffline.common.learner.Learner.policy_arguments`."""
        return {"beta": self.beta}

    def overestimation_hint(self) -> str:
        """The arguments that help."""
        return (
            f"What helps: a tighter constraint (lam above {self.lam}), or LayerNorm "
            "(policy_kwargs=dict(critic_layer_norm=True))."
        )

    def uses_fitted_model(self) -> bool:
        """At λ = 0 there is no constraint and no VAE."""
        return self.lam > 0

    def draw_noise(self, batch_size: int) -> SPOTNoise:
        """The random numbers of one update from this algorithm's generator."""
        smoothing = self.normal_noise(batch_size, self.policy.action_dim)
        latents = self.normal_noise(batch_size, self.n_latents, self.policy.density.latent_dim)
        if self.policy.actor_dropout == 0:
            return SPOTNoise(smoothing, latents, None)
        shape = (2, batch_size, sum(self.actor.hidden_widths))
        return SPOTNoise(smoothing, latents, th.rand(shape, generator=self.generator, device=self.device))

    def phase(self) -> bool:
        """Whether actor and targets move."""
        return self._n_updates % self.policy_delay == 0

    def update(self, batch: TransitionBatch, noise: SPOTNoise) -> dict[str, Tensor]:
        """
        One gradient step of the actor-critic.

        :param batch: B transitions
        :param noise: all random numbers of the step
        :return: scalars to log, on the device
        """
        states = self.policy.normalize_observations(batch.observations)  # (B, S)
        next_states = self.policy.normalize_observations(batch.next_observations)
        target_dropout, actor_dropout = (None, None) if noise.dropout is None else noise.dropout

        # ------ y = r + γ·m·min_i Q̄_i(s', π̄(s') + n), n clipped normal noise
        with th.no_grad():
            base = self.actor_target(next_states, target_dropout)
            next_actions = smoothed(base, noise.smoothing, self.target_policy_noise, self.target_noise_clip).clamp(-1.0, 1.0)
            target = self.td_target(batch, self.critic_target(next_states, next_actions).amin(0))
        info = self.critic_step(states, batch.actions, target)

        # ------ −E[Q_1(s, π(s))]/E|Q_1(s, π(s))| − λ·E[log p(π(s) | s)], the paper's regularised objective
        if self.phase():
            actions = self.actor(states, actor_dropout)
            q = self.critic.of_member(0, states, actions)  # (B,)
            actor_loss = -q.mean() / (q.detach().abs().mean() if self.q_normalize else 1.0)
            if self.lam > 0:
                log_prob = self.log_density(batch.observations, actions, noise.latents).mean()
                actor_loss = actor_loss - self.lam * self.policy.density.unit * log_prob
                info["log_prob"] = log_prob.detach()
            gradient_step(self.actor_optimizer, actor_loss, self.actor_rate_now(), self.max_grad_norm)
            info |= {"actor_loss": actor_loss.detach(), "actor_q": q.detach().mean()}
            soft_update(self.critic, self.critic_target, self.tau)
            soft_update(self.actor, self.actor_target, self.tau)
        return info

    def log_density(self, observations: Tensor, actions: Tensor, latents: Tensor) -> Tensor:
        """
        The estimate of log p(a | s), in nats.

        :param observations: (B, S) raw
        :param actions: (B, A) in [−1, 1]
        :param latents: (B, L, Z) standard normal
        :return: (B,)
        """
        density = self.policy.density
        estimate = density.elbo if self.density_estimator == "elbo" else density.log_prob
        return estimate(observations.to(self.policy.obs_mean.dtype), actions, latents)
