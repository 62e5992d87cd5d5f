"""Diffusion-QL (Wang, Hunt & Zhou, ICLR 2023, arXiv 2208.06193)."""

from typing import Any, ClassVar, NamedTuple, Unpack

import torch as th
from stable_baselines3.common.policies import BasePolicy
from torch import Tensor
from torch.nn.functional import mse_loss

from sb3_genoffline.common.actor_critic import ActorCriticAlgorithm
from sb3_genoffline.common.arguments import (
    Count,
    DiffusionSteps,
    NCandidates,
    NoiseScale,
    NonNegative,
    Normalized,
    Positive,
    PositiveInt,
    Rate,
    RewardTransform,
    Temperature,
)
from sb3_genoffline.common.envs import EnvLike
from sb3_genoffline.common.keywords import OfflineArguments
from sb3_genoffline.common.optimizers import gradient_step
from sb3_genoffline.data.buffers import TransitionBatch
from sb3_genoffline.dql.policies import DiffusionQLPolicy
from sb3_genoffline.generative.diffusion import BetaSchedule, ConditionalDiffusion, SamplerName
from sb3_genoffline.nets.ensembles import soft_update

_BACKUP_ACTIONS = 10  # of max_q_backup, the released code's


class DQLNoise(NamedTuple):
    """
    All random numbers of one update.

    :param next_actions: (T, B, n, A) standard normal, for sampling n next actions: 10 with ``max_q_backup``, else 1
    :param t: (B,) integers uniform in 1..T
    :param eps: (B, A) standard normal, the noise added to the data's actions
    :param denoised: (T, B, 1, A) standard normal, for sampling the actor's actions
    :param twin: (1,) 0 or 1, the critic that the actor climbs
    """

    next_actions: Tensor
    t: Tensor
    eps: Tensor
    denoised: Tensor
    twin: Tensor


class DQL(ActorCriticAlgorithm[DQLNoise]):
    """
    Diffusion Q-learning: the policy is a diffusion model trained on the data's actions, whose samples also climb Q, with the
    gradient through the whole denoising chain.

    Paper: Wang, Hunt, Zhou, "Diffusion policies as an expressive policy class for offline reinforcement learning", ICLR 2023,
    https://arxiv.org/abs/2208.06193. Defaults are the paper's for D4RL's Gym-MuJoCo sets, up to ``max_grad_norm``, which it
    sets per dataset (``dql/hyperparameters.yml``).

    Where the paper's text and its released code disagree, this follows the code:

    1. The imitation error is a mean over action dimensions (the paper's is a squared norm).
    2. A denoising step clamps x̂0 to [−1, 1] and adds noise of the posterior's variance β_t(1 − ᾱ_{t−1})/(1 − ᾱ_t) (the paper
       does not clamp and adds β_t).
    3. Q is divided by the mean |Q| of the *other* critic at the *policy's* actions, and which critic is climbed is drawn
       afresh in each update (the paper divides by the mean |Q| at the data's actions).
    4. The actor's target moves every 5th update, from the 1000th on (algorithm 1: in each).
    5. The evaluated action is drawn from 50 candidates by a softmax over the smaller of the two target critics.
    6. ``max_q_backup`` takes the largest of 10 next actions for each critic before the smaller of both critics.

    Differences from the released code:

    7. Rates do not decay. The code's cosine (its ``--lr_decay``) has a horizon in epochs but moves once per 50 of them: its
       rates end at 99.9% of where they start. ``lr_decay_steps`` is a cosine of both rates that counts updates.
    8. The time processor is 32 wide in its output, not 16, and counts steps from 1.
    9. Batches are slices of random permutations; ``replacement=True`` draws as the code does.
    10. Actions are clipped to ± (1 − 1e-5).
    11. Options the paper does not have, off by default: ``normalize_observations``, LayerNorm in the critics
        (``policy_kwargs=dict(critic_layer_norm=True)``), other network sizes, an ``acting_noise_scale`` other than 1, another
        ``sampler`` than DDPM when acting.

    :param policy: ``"DiffusionQLPolicy"`` (alias ``"MlpPolicy"``) or a class
    :param env: see :class:`~sb3_genoffline.common.learner.Learner`
    :param learning_rate: of the actor, and of the critics unless ``critic_learning_rate`` is given
    :param critic_learning_rate: of the critics (None: ``learning_rate``; 3e-4 in the code whatever the actor's is)
    :param lr_decay_steps: horizon of the cosine decay of both rates, in updates; None: none
    :param eta: η, weight of the normalised Q against imitation (eq. 3)
    :param n_diffusion_steps: T
    :param beta_schedule: ``"vp"``, ``"linear"`` or ``"cosine"``
    :param max_q_backup: the target is the best of 10 next actions' instead of one's (the paper's antmaze setting)
    :param n_action_samples: candidates when acting (``predict(deterministic=True)``). They are drawn, so the action differs
        from call to call: ``model.set_acting_seed(seed)`` before makes it the same again.
    :param softmax_temperature: of the draw among them, in the units of Q; 0 = the best
    :param acting_noise_scale: factor of all noise that actions are sampled from when acting; training is not touched
    :param sampler: that acts: ``"ddpm"``, ``"ddim"`` or ``"dpm_solver"``; training has DDPM
    :param ddim_stride: stride of the last two
    :param actor_ema_every: updates between two moves of the actor's target
    :param actor_ema_start: updates before its first move
    :param max_grad_norm: L2 clip, one norm for both critics together and one for the actor
    :param kwargs: the remaining arguments of :class:`~sb3_genoffline.common.learner.Learner`
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {
        "DiffusionQLPolicy": DiffusionQLPolicy,
        "MlpPolicy": DiffusionQLPolicy,
    }
    default_gradient_steps = 2_000_000
    decays_critic_rate = True
    actor: ConditionalDiffusion
    actor_target: ConditionalDiffusion

    def __init__(
        self,
        policy: str | type[DiffusionQLPolicy],
        env: EnvLike | None = None,
        learning_rate: Rate = 3e-4,
        critic_learning_rate: Rate | None = None,
        *,
        eta: NonNegative = 1.0,
        n_diffusion_steps: DiffusionSteps = 5,
        beta_schedule: BetaSchedule = "vp",
        max_q_backup: bool = False,
        n_action_samples: NCandidates = 50,
        softmax_temperature: Temperature = 1.0,
        acting_noise_scale: NoiseScale = 1.0,
        sampler: SamplerName = "ddpm",
        ddim_stride: DiffusionSteps = 1,
        actor_ema_every: PositiveInt = 5,
        actor_ema_start: Count = 1000,
        batch_size: PositiveInt = 256,
        lr_decay_steps: PositiveInt | None = None,
        max_grad_norm: Positive | None = 1.0,
        reward_transform: RewardTransform = None,
        normalize_observations: Normalized = False,
        **kwargs: Unpack[OfflineArguments],
    ) -> None:
        self.eta = eta
        self.n_diffusion_steps = n_diffusion_steps
        self.beta_schedule = beta_schedule
        self.max_q_backup = max_q_backup
        self.n_action_samples = n_action_samples
        self.softmax_temperature = softmax_temperature
        self.acting_noise_scale = acting_noise_scale
        self.sampler = sampler
        self.ddim_stride = ddim_stride
        self.actor_ema_every = actor_ema_every
        self.actor_ema_start = actor_ema_start
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
        shaping, choosing = ("n_diffusion_steps", "beta_schedule"), ("n_action_samples", "softmax_temperature")
        sampling = ("acting_noise_scale", "sampler", "ddim_stride")
        return {name: getattr(self, name) for name in (*shaping, *choosing, *sampling)}

    def overestimation_hint(self) -> str:
        """The arguments that help."""
        return (
            f"What helps: more imitation (smaller eta={self.eta}), or LayerNorm (policy_kwargs=dict(critic_layer_norm=True))."
        )

    def draw_noise(self, batch_size: int) -> DQLNoise:
        """The random numbers of one update from this algorithm's generator."""
        factory: dict[str, Any] = {"generator": self.generator, "device": self.device}
        return DQLNoise(
            next_actions=self.normal_noise(*self.actor.noise_shape(batch_size, _BACKUP_ACTIONS if self.max_q_backup else 1)),
            t=th.randint(1, self.n_diffusion_steps + 1, (batch_size,), **factory),
            eps=self.normal_noise(batch_size, self.policy.action_dim),
            denoised=self.normal_noise(*self.actor.noise_shape(batch_size, 1)),
            twin=th.randint(2, (1,), **factory),
        )

    def phase(self) -> bool:
        """Whether the actor's target moves."""
        return self._n_updates >= self.actor_ema_start and self._n_updates % self.actor_ema_every == 0

    def update(self, batch: TransitionBatch, noise: DQLNoise) -> dict[str, Tensor]:
        """
        One gradient step (paper, algorithm 1).

        :param batch: B transitions
        :param noise: all random numbers of the step
        :return: scalars to log, on the device
        """
        states = self.policy.normalize_observations(batch.observations)  # (B, S)

        # ------ y = r + γ·m·min_i Q̄_i(s', a'_0), a'_0 ~ π_θ̄(·|s') (eq. 4); with max_q_backup, min_i max_n Q̄_i(s', a'_n)
        with th.no_grad():
            next_states = self.policy.normalize_observations(batch.next_observations)
            next_actions = self.actor_target.sample(next_states, noise.next_actions)  # (B, n, A)
            values = self.critic_target.score_samples(next_states, next_actions).amax(-1).amin(0)  # (B,)
            target = self.td_target(batch, values)
        info = self.critic_step(states, batch.actions, target)

        # ------ L_d = E‖ε_θ(√ᾱ_t·a + √(1 − ᾱ_t)·ε, s, t) − ε‖² (eq. 2)
        noisy_actions = self.actor.add_noise(batch.actions, noise.eps, noise.t)
        bc_loss = mse_loss(self.actor(states, noisy_actions, noise.t), noise.eps)

        # ------ L_d − η·E[Q_i(s, a_0)]/E|Q_j(s, a_0)|, a_0 ~ π_θ(·|s) (eq. 3): the gradient runs through all T steps
        actions = self.actor.sample(states, noise.denoised).squeeze(1)  # (B, A)
        q = self.critic(states, actions)  # (2, B)
        climbed, other = q.index_select(0, noise.twin), q.detach().index_select(0, 1 - noise.twin)
        q_loss = -climbed.mean() / other.abs().mean()
        actor_loss = bc_loss + self.eta * q_loss
        gradient_step(self.actor_optimizer, actor_loss, self.actor_rate_now(), self.max_grad_norm)

        if self.phase():
            soft_update(self.actor, self.actor_target, self.tau)
        soft_update(self.critic, self.critic_target, self.tau)
        return info | {"actor_loss": actor_loss.detach(), "bc_loss": bc_loss.detach(), "q_loss": q_loss.detach()}
