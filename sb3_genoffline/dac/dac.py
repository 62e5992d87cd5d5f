"""Diffusion Actor-Critic (Fang et al., ICLR 2025, arXiv 2405.20555)."""

from typing import Any, ClassVar, Literal, NamedTuple, Unpack

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
    SampleCount,
    Temperature,
)
from sb3_genoffline.common.diffusion_policy import DiffusionPolicy
from sb3_genoffline.common.envs import EnvLike
from sb3_genoffline.common.keywords import OfflineArguments
from sb3_genoffline.common.optimizers import gradient_step
from sb3_genoffline.data.buffers import TransitionBatch
from sb3_genoffline.errors import UserError
from sb3_genoffline.generative.diffusion import BetaSchedule, ConditionalDiffusion, SampleClip, SamplerName
from sb3_genoffline.nets.ensembles import soft_minimum, soft_update

Guidance = Literal["soft", "hard", "denoised", "none"]
QTarget = Literal["lcb", "min", "convex", "rand_convex"]
_EPS = 1e-6  # keeps the Q-normaliser C away from 0, as in the reference


class DACNoise(NamedTuple):
    """
    All random numbers of one update.

    :param next_actions: (T, B, N, A) standard normal, for sampling next actions
    :param t: (B,) integers uniform in 1..T
    :param eps: (B, A) standard normal, the noise added to the data's actions
    :param ensemble_weights: (H, B) uniform, for ``q_target="rand_convex"``
    :param denoised: (T, B, 1, A) standard normal, for ``guidance="denoised"``
    """

    next_actions: Tensor | None
    t: Tensor
    eps: Tensor
    ensemble_weights: Tensor | None = None
    denoised: Tensor | None = None


class DAC(ActorCriticAlgorithm[DACNoise]):
    """
    Diffusion Actor-Critic: the policy is a diffusion model; KL-constrained policy iteration becomes noise regression with
    soft Q-guidance; the pessimistic target is a lower confidence bound over a Q-ensemble.

    Paper: Fang, Liu, Zhang, Wang, Jing, "Diffusion Actor-Critic: Formulating Constrained Policy Iteration as Diffusion Noise
    Regression for Offline Reinforcement Learning", ICLR 2025, https://arxiv.org/abs/2405.20555. Defaults are the paper's for
    D4RL's Gym-MuJoCo sets, up to ``rho`` and ``bc_threshold``, which it sets per dataset (``dac/hyperparameters.yml``).

    Where the paper's text and its released code disagree, this follows the code:

    1. Guidance is weighted against ``eta`` times the imitation error with the Q-gradient divided by C = mean |Q̄(s, a)|
       (eq. 15 has the bare gradient over η).
    2. The imitation error in the dual step is a mean over action dimensions, so ``bc_threshold`` is per dimension.
    3. The dual step is bounded: its increment to ± ``eta_lr``, η to [``eta_min``, ``eta_max``]; the error is measured after
       the actor's step, on the same draws.
    4. The lower confidence bound is taken after each member's mean (or max) over the N next actions, not per action.
    5. The critics' targets move before the actor's update; the actor's target moves only every 5th update, after 1000.
    6. One loss and one gradient clip for the whole ensemble.
    7. Acting uses the online actor and the target critics.

    Differences from the released code:

    8. The DDIM sampler is right for every stride, and clamps x̂0 instead of x_t.
    9. ``softmax_temperature`` normalises Q by the mean |Q| of a state's candidates; the released code divides each Q by
        its own magnitude, which leaves a uniform choice.
    10. ``guidance="none"`` is plain imitation (mean squared noise error, no critic); the released switch crashes.
    11. The gradient clip divides by (norm + 1e-6).
    12. Options the paper does not have, off by default: ``normalize_observations``, ``replacement``, LayerNorm in the critics
        (``policy_kwargs=dict(critic_layer_norm=True)``), other network sizes, an ``acting_noise_scale`` other than 1.

    :param policy: ``"DiffusionPolicy"`` (alias ``"MlpPolicy"``) or a class
    :param env: see :class:`~sb3_genoffline.common.learner.Learner`
    :param learning_rate: of the actor, and of the critics unless ``critic_learning_rate`` is given
    :param critic_learning_rate: of the critics (None: ``learning_rate``)
    :param lr_decay_steps: horizon K of the cosine decay of both rates, in updates, whatever the length of the run; None: none
    :param n_critics: H, size of the ensemble
    :param n_diffusion_steps: T
    :param n_q_samples: N, next actions per state in the critics' target
    :param n_action_samples: N_a, candidates when acting (``predict(deterministic=True)``). They are drawn, so the action
        differs from call to call: ``model.set_acting_seed(seed)`` before makes it the same again.
    :param softmax_temperature: choice among the candidates, 0 = the best; see
        :class:`~sb3_genoffline.common.diffusion_policy.DiffusionPolicy`
    :param acting_noise_scale: factor of all noise that actions are sampled from when acting; training is not touched
    :param rho: ρ, pessimism of the target: mean − ρ·std (population) over the ensemble; for ``"convex"`` the weight of min
    :param q_target: ``"lcb"``, ``"min"``, ``"convex"`` (ρ·min + (1 − ρ)·max) or ``"rand_convex"`` (random convex combination)
    :param max_q: reduce the N next actions by max instead of mean (the paper's antmaze setting)
    :param eta: η, initial weight of the imitation error, the Lagrange multiplier of the behaviour constraint
    :param eta_lr: step size of the dual ascent on η; 0 keeps η fixed
    :param eta_min: lower bound of η
    :param eta_max: upper bound of η
    :param bc_threshold: b, the imitation error (per action dimension) the dual step aims at; 1 is that of predicting no noise
    :param guidance: ``"soft"`` (σ_t·∇Q at the noisy action), ``"hard"`` (∇Q), ``"denoised"`` (Q of a full sample, as
        Diffusion-QL) or ``"none"`` (imitation)
    :param sampler: ``"ddpm"``, ``"ddim"`` or ``"dpm_solver"``
    :param ddim_stride: stride of the last two
    :param beta_schedule: ``"vp"``, ``"linear"`` or ``"cosine"``
    :param clip_denoised: clamp x̂0 to [−1, 1] in every sampling step
    :param actor_ema_every: updates between two moves of the actor's target
    :param actor_ema_start: no move of the actor's target up to this update
    :param max_grad_norm: L2 clip, one norm for all critics together and one for the actor
    :param reward_transform: the paper's ``"iql_locomotion"`` on all datasets: r·1000/(max return − min return)
    :param kwargs: the remaining arguments of :class:`~sb3_genoffline.common.learner.Learner`
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {"DiffusionPolicy": DiffusionPolicy, "MlpPolicy": DiffusionPolicy}
    default_gradient_steps = 2_000_000
    baselines: ClassVar[dict[str, dict[str, Any]]] = {"imitation only": {"guidance": "none"}}
    retired_arguments = frozenset({"compile_networks"})
    decays_critic_rate = True
    policy: DiffusionPolicy
    actor: ConditionalDiffusion
    actor_target: ConditionalDiffusion
    eta_tensor: Tensor

    def __init__(
        self,
        policy: str | type[DiffusionPolicy],
        env: EnvLike | None = None,
        learning_rate: Rate = 3e-4,
        critic_learning_rate: Rate | None = None,
        *,
        n_critics: PositiveInt = 10,
        n_diffusion_steps: DiffusionSteps = 5,
        n_q_samples: SampleCount = 10,
        n_action_samples: NCandidates = 10,
        softmax_temperature: Temperature = 0.0,
        acting_noise_scale: NoiseScale = 1.0,
        rho: float = 1.0,
        q_target: QTarget = "lcb",
        max_q: bool = False,
        eta: NonNegative = 1.0,
        eta_lr: NonNegative = 1e-3,
        eta_min: NonNegative = 1e-3,
        eta_max: NonNegative = 100.0,
        bc_threshold: NonNegative = 1.0,
        guidance: Guidance = "soft",
        sampler: SamplerName = "ddpm",
        ddim_stride: DiffusionSteps = 1,
        beta_schedule: BetaSchedule = "vp",
        clip_denoised: bool = True,
        actor_ema_every: PositiveInt = 5,
        actor_ema_start: Count = 1000,
        batch_size: PositiveInt = 256,
        lr_decay_steps: PositiveInt | None = 2_000_000,
        max_grad_norm: Positive | None = 1.0,
        reward_transform: RewardTransform = "iql_locomotion",
        normalize_observations: Normalized = False,
        **kwargs: Unpack[OfflineArguments],
    ) -> None:
        self.n_critics = n_critics
        self.n_diffusion_steps = n_diffusion_steps
        self.n_q_samples = n_q_samples
        self.n_action_samples = n_action_samples
        self.softmax_temperature = softmax_temperature
        self.acting_noise_scale = acting_noise_scale
        self.rho = rho
        self.q_target = q_target
        self.max_q = max_q
        self.eta = eta
        self.eta_lr = eta_lr
        self.eta_min = eta_min
        self.eta_max = eta_max
        self.bc_threshold = bc_threshold
        self.guidance = guidance
        self.sampler = sampler
        self.ddim_stride = ddim_stride
        self.beta_schedule = beta_schedule
        self.clip_denoised = clip_denoised
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

    def check_arguments(self) -> None:
        """See :meth:`~sb3_genoffline.common.learner.Learner.check_arguments`."""
        if self.eta_min > self.eta_max:
            raise UserError(f"eta_min={self.eta_min:g} must not be above eta_max={self.eta_max:g}.")

    def policy_arguments(self) -> dict[str, Any]:
        """See :meth:`~sb3_genoffline.common.learner.Learner.policy_arguments`."""
        shared = ("n_critics", "n_diffusion_steps", "beta_schedule", "n_action_samples", "softmax_temperature", "sampler")
        acting = ("acting_noise_scale", "ddim_stride", "clip_denoised")
        arguments = {name: getattr(self, name) for name in (*shared, *acting)}
        return {**arguments, "use_critic": self.guidance != "none"}

    def declare_state(self) -> None:
        """Actor and critics, and η."""
        super().declare_state()
        self.add_variable("eta_tensor", lambda agent: agent.eta, argument="eta")

    def overestimation_hint(self) -> str:
        """The arguments that help."""
        return (
            f"What helps: more critics (n_critics={self.n_critics}), more pessimism (rho={self.rho}), a tighter behaviour "
            f"constraint (bc_threshold={self.bc_threshold}), or LayerNorm (policy_kwargs=dict(critic_layer_norm=True))."
        )

    def draw_noise(self, batch_size: int) -> DACNoise:
        """The random numbers of one update from this algorithm's generator; the normal ones in a single draw."""
        learns_q, denoises = self.guidance != "none", self.guidance == "denoised"
        shapes = [self.actor.noise_shape(batch_size, n) for n in (self.n_q_samples * learns_q, int(denoises))]
        shapes.append((batch_size, self.policy.action_dim))  # type: ignore[arg-type]
        sizes = [th.Size(shape).numel() for shape in shapes]
        factory: dict[str, Any] = {"generator": self.generator, "device": self.device}
        normal = th.split(th.randn(sum(sizes), dtype=self.eta_tensor.dtype, **factory), sizes)
        next_actions, denoised, eps = (part.view(shape) for part, shape in zip(normal, shapes, strict=True))
        t = th.randint(1, self.n_diffusion_steps + 1, (batch_size,), **factory)
        weights = th.rand(self.n_critics, batch_size, **factory) if self.q_target == "rand_convex" else None
        return DACNoise(next_actions, t, eps, weights, denoised)

    def phase(self) -> bool:
        """Whether the actor's target moves."""
        return self._n_updates > self.actor_ema_start and self._n_updates % self.actor_ema_every == 0

    def update(self, batch: TransitionBatch, noise: DACNoise) -> dict[str, Tensor]:
        """
        One gradient step, in the reference's order (paper, algorithm 1).

        :param batch: B transitions
        :param noise: all random numbers of the step
        :return: scalars to log, on the device
        """
        states = self.policy.normalize_observations(batch.observations)  # (B, S)
        actions = batch.actions  # (B, A)
        info: dict[str, Tensor] = {}
        if self.guidance != "none":
            # ------ policy evaluation: y = r + γ·mask·LCB_h( mean_n Q̄_h(s', a'_n) ),  a'_n ~ π_θ̄(·|s')
            target = self.critic_target_value(batch, noise)  # (B,)
            q = self.critic(states, actions)  # (H, B)
            critic_loss = (q - target).square().mean()  # one mean over members and rows
            gradient_step(self.critic_optimizer, critic_loss, self.critic_rate_now(), self.max_grad_norm)
            soft_update(self.critic, self.critic_target, self.tau)
            q = q.detach()
            info |= {"critic_loss": critic_loss.detach(), "q_mean": q.mean(), "q_std": q.std(0, correction=0).mean()}

        # ------ policy improvement: η‖ε_θ − ε‖² + σ_t·ε_θ·∇Q (eq. 16)
        x_t = self.actor.add_noise(actions, noise.eps, noise.t)
        predicted = self.actor(states, x_t, noise.t)  # (B, A)
        bc_loss = mse_loss(predicted, noise.eps)
        if self.guidance == "none":
            actor_loss = bc_loss
        else:
            guidance_loss, guidance_info = self.guidance_loss(states, actions, x_t, predicted, noise)
            actor_loss = self.eta_tensor * bc_loss + guidance_loss
            info |= {**guidance_info, "guidance_loss": guidance_loss.detach(), "eta": self.eta_tensor.clone()}
        gradient_step(self.actor_optimizer, actor_loss, self.actor_rate_now(), self.max_grad_norm)
        info |= {"actor_loss": actor_loss.detach(), "bc_loss": bc_loss.detach()}

        # ------ dual ascent: η ← η + lr·(E‖ε_θ − ε‖² − b), with the actor just updated and the same draws
        if self.guidance != "none" and self.eta_lr > 0:
            with th.no_grad():
                error = mse_loss(self.actor(states, x_t, noise.t), noise.eps)
                self.eta_tensor += self.eta_lr * (error - self.bc_threshold).clamp(-1.0, 1.0)
                self.eta_tensor.clamp_(self.eta_min, self.eta_max)

        if self.phase():
            soft_update(self.actor, self.actor_target, self.tau)
        return info

    @th.no_grad()
    def critic_target_value(self, batch: TransitionBatch, noise: DACNoise) -> Tensor:
        """y = r + γ·mask·v(s'), shape (B,)."""
        next_states = self.policy.normalize_observations(batch.next_observations)
        assert noise.next_actions is not None
        clip: SampleClip = "clean" if self.clip_denoised else "none"
        next_actions = self.actor_target.sample(
            next_states, noise.next_actions, sampler=self.sampler, ddim_stride=self.ddim_stride, clip=clip
        )  # (B, N, A)
        q = self.critic_target.score_samples(next_states, next_actions)  # (H, B, N)
        value = self.reduce_ensemble(q.amax(-1) if self.max_q else q.mean(-1), noise.ensemble_weights)
        return self.td_target(batch, value)

    def reduce_ensemble(self, values: Tensor, weights: Tensor | None = None) -> Tensor:
        """
        The critics' values as one target: LCB, minimum, soft minimum or a random convex combination (``q_target``).

        :param values: (H, B)
        :param weights: (H, B) uniform draws for ``"rand_convex"``
        :return: (B,)
        """
        if self.q_target == "lcb":  # population std: the ensemble is not a sample of a larger one
            return values.mean(0) - self.rho * values.std(0, correction=0)
        if self.q_target == "min":
            return values.amin(0)
        if self.q_target == "convex":
            return soft_minimum(values, self.rho)
        assert weights is not None
        return (weights * values).sum(0) / (weights.sum(0) + _EPS)

    def guidance_loss(
        self, states: Tensor, actions: Tensor, x_t: Tensor, predicted: Tensor, noise: DACNoise
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """
        The term of the actor's loss that pulls towards higher Q, with the critics' targets as they are after their update.

        :param predicted: (B, A), ε_θ(s, x_t, t)
        :return: the loss, and scalars to log
        """
        clean_q = self.critic_target.score_samples(states, actions.unsqueeze(1))  # (H, B, 1)
        normalizer = clean_q.abs().mean() + _EPS  # C, at the data's actions
        if self.guidance == "denoised":
            assert noise.denoised is not None
            sampled = self.actor.sample(states, noise.denoised).squeeze(1)  # gradient through the whole chain
            return -self.critic_target(states, sampled).mean() / normalizer, {"q_normalizer": normalizer}
        gradient = self.q_gradient(states, x_t) / normalizer  # (B, A)
        weight = self.actor.sigmas[noise.t].unsqueeze(-1) if self.guidance == "soft" else 1.0
        info = {"q_normalizer": normalizer, "q_gradient_abs": gradient.abs().mean()}
        return (weight * gradient * predicted).mean(), info

    def q_gradient(self, states: Tensor, x_t: Tensor) -> Tensor:
        """∇_{x_t} mean_h Q̄_h(s, x_t) for every row: (B, A). The sum over rows keeps each row's gradient its own."""
        x_t = x_t.detach().requires_grad_(True)
        return th.autograd.grad(self.critic_target(states, x_t).mean(0).sum(), x_t)[0]
