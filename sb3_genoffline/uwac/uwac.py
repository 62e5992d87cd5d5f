"""Uncertainty Weighted Actor-Critic (Wu et al., ICML 2021, arXiv 2105.08140)."""

from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Unpack

import torch as th
from stable_baselines3.common.policies import BasePolicy
from torch import Tensor

from sb3_genoffline.common.arguments import (
    Bounds,
    Count,
    NCandidates,
    NonNegative,
    Normalized,
    Positive,
    PositiveInt,
    Rate,
    RewardTransform,
    SampleCount,
    Share,
)
from sb3_genoffline.common.envs import EnvLike
from sb3_genoffline.common.keywords import OfflineArguments
from sb3_genoffline.common.optimizers import gradient_step
from sb3_genoffline.common.support_matching import SupportMatchingAlgorithm
from sb3_genoffline.data.buffers import TransitionBatch
from sb3_genoffline.generative.mmd import Kernel
from sb3_genoffline.nets.dropout_critics import DropoutQ
from sb3_genoffline.nets.ensembles import soft_minimum
from sb3_genoffline.uwac.policies import UWACPolicy

Weighting = Literal["exp", "inverse"]
UNLEARNED = 0.01
"""Weight below which a row as good as does not count."""
WARN_SHARE = 0.2
"""Share of such rows from which on UWAC warns."""


class UWACNoise(NamedTuple):
    """
    The random numbers of one update; all but the last are standard normal.

    :param vae: (B, 1, Z), of the VAE's own step
    :param target: (B, n, A), n next actions of the actor
    :param latents: (B, N, Z), N actions of the VAE in the MMD
    :param actor: (B, N, A), N actions of the actor in the MMD
    :param dropout: draws the critics' dropped units as they are needed, for they are many
    """

    vae: Tensor
    target: Tensor
    latents: Tensor
    actor: Tensor
    dropout: th.Generator


class UWAC(SupportMatchingAlgorithm[UWACNoise]):
    """
    Uncertainty Weighted Actor-Critic: BEAR whose critics drop hidden units in every pass. How much T passes differ says how
    unsure they are; rows with an unsure target count less in the critics' loss, and unsure actions less in the actor's.

    Paper: Wu, Zhai, Srivastava, Susskind, Zhang, Salakhutdinov, Goh, "Uncertainty Weighted Actor-Critic for Offline
    Reinforcement Learning", ICML 2021, https://arxiv.org/abs/2105.08140. Its code is https://github.com/apple/ml-uwac at
    003911f, under Apple's licence for sample code; nothing is copied from it. The paper's text could not be read again for
    this, and what is said of it is second-hand.

    What the code does, where the paper is another thing:

    1. A weight is exp(−β·Var), at most 1 (code); in the paper it is β/Var, which ``weighting="inverse"`` has, at most 1 too.
    2. The weight is squared with the error (code); in the paper it multiplies the squared error: ``weight_power=1``.
    3. All of the critics' matrices are divided by their spectral norms, those of the slow critics too (code, where it is a
       switch that is on; ``policy_kwargs=dict(spectral_norm=False)``). It bounds how steep Q can be, whatever the rewards.
    4. Var is a maximum of its own over the next actions, not that of the action that the target takes.
    5. ``q_penalty`` is 0: the term would lower positive values of unsure rows.

    Differences from the code:

    6. VAE, critics, actor, multiplier, slow critics move in this order, each with what moved before it, as in a port of the
       code by CPED's authors. As published the code builds the actor's loss before the critics move, which old PyTorch let
       mix old activations with new weights and today's refuses; the script also imports a file that is not there.
    7. Slow critics start as copies; in the code they start on their own.
    8. Weights start as PyTorch's. The code's hidden layers have biases of 0.1, and weights by a rule with the axes exchanged;
       its last layers start small: ``policy_kwargs=dict(actor_init=0.001)``, and ``critic_init`` without spectral norms.
    9. Each use of the critics takes one step of the power iterations behind the spectral norms, which start with 15.
    10. The mode with a fixed multiplier, which never trains the actor, is left out.
    11. Rows at a time limit are used with their own next state; the code leaves out every thousandth row of an episode.
    12. ``predict(deterministic=False)`` is one sample; the code has no such mode.
    13. Batches are slices of random permutations; ``replacement=True`` draws as the code does.
    14. Actions are clipped to ± (1 − 1e-5).

    With ``uncertainty_beta=0``, no dropout and no spectral norms it is BEAR.

    :param policy: ``"UWACPolicy"`` (alias ``"MlpPolicy"``) or a class
    :param env: see :class:`~sb3_genoffline.common.learner.Learner`
    :param learning_rate: of the actor
    :param critic_learning_rate: of the critics (None: ``learning_rate``)
    :param vae_learning_rate: of the VAE
    :param multiplier_learning_rate: of log α, which stays in [−5, 10]
    :param uncertainty_beta: β of the weights, in units of one over the squared rewards; 0 weighs all rows alike
    :param weighting: ``"exp"`` or ``"inverse"``, see 1
    :param weight_power: of the weight in the critics' loss, see 2
    :param weight_actor: weigh the actor's Q too
    :param q_penalty: weight of E[max(Q, 0)·Var] in the critics' loss
    :param n_passes: T ≥ 2 passes in every mean and variance, in acting too
    :param alpha: α, the constraint's multiplier, at the start
    :param kernel: of the MMD: ``"gaussian"`` or ``"laplacian"``
    :param mmd_sigma: its σ
    :param mmd_threshold: ε
    :param n_mmd_samples: N, samples of either side
    :param mmd_noise_clip: the actor's noise in the MMD is clipped to ± this (None: it is not)
    :param lam: λ, share of the smaller critic in the target; the larger one has the rest
    :param n_target_samples: next actions per state in the target
    :param n_action_samples: candidates when acting (``predict(deterministic=True)``)
    :param warmup_steps: updates before Q enters the actor's loss; α learns from the first one on
    :param latent_clip: the VAE's latents in the MMD are clipped to ± this
    :param beta: β of the VAE, weight of its KL term
    :param kwargs: the remaining arguments of :class:`~sb3_genoffline.common.learner.Learner`
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {"UWACPolicy": UWACPolicy, "MlpPolicy": UWACPolicy}
    baselines: ClassVar[dict[str, dict[str, Any]]] = {"no uncertainty": {"uncertainty_beta": 0}}
    default_gradient_steps = 3_000_000
    policy: UWACPolicy
    critic: DropoutQ
    critic_target: DropoutQ

    def __init__(
        self,
        policy: str | type[UWACPolicy],
        env: EnvLike | None = None,
        learning_rate: Rate = 1e-4,
        critic_learning_rate: Rate | None = 3e-4,
        *,
        vae_learning_rate: Rate = 3e-4,
        multiplier_learning_rate: NonNegative = 1e-3,
        uncertainty_beta: NonNegative = 0.5,
        weighting: Weighting = "exp",
        weight_power: Literal[1, 2] = 2,
        weight_actor: bool = True,
        q_penalty: NonNegative = 0.0,
        n_passes: Annotated[int, Bounds(2)] = 100,
        alpha: Positive = 1.0,
        kernel: Kernel = "gaussian",
        mmd_sigma: Positive = 20.0,
        mmd_threshold: NonNegative = 0.07,
        n_mmd_samples: SampleCount = 4,
        mmd_noise_clip: Positive | None = None,
        lam: Share = 0.75,
        n_target_samples: SampleCount = 10,
        n_action_samples: NCandidates = 100,
        warmup_steps: Count = 40_000,
        latent_clip: Positive = 0.5,
        beta: Positive = 0.5,
        batch_size: PositiveInt = 256,
        lr_decay_steps: PositiveInt | None = None,
        max_grad_norm: Positive | None = None,
        reward_transform: RewardTransform = None,
        normalize_observations: Normalized = False,
        **kwargs: Unpack[OfflineArguments],
    ) -> None:
        self.uncertainty_beta = uncertainty_beta
        self.weighting = weighting
        self.weight_power = weight_power
        self.weight_actor = weight_actor
        self.q_penalty = q_penalty
        self.n_passes = n_passes
        super().__init__(
            policy,
            env,
            learning_rate,
            critic_learning_rate,
            vae_learning_rate=vae_learning_rate,
            multiplier_learning_rate=multiplier_learning_rate,
            alpha=alpha,
            kernel=kernel,
            mmd_sigma=mmd_sigma,
            mmd_threshold=mmd_threshold,
            n_mmd_samples=n_mmd_samples,
            mmd_noise_clip=mmd_noise_clip,
            lam=lam,
            n_target_samples=n_target_samples,
            n_action_samples=n_action_samples,
            warmup_steps=warmup_steps,
            latent_clip=latent_clip,
            beta=beta,
            batch_size=batch_size,
            lr_decay_steps=lr_decay_steps,
            max_grad_norm=max_grad_norm,
            reward_transform=reward_transform,
            normalize_observations=normalize_observations,
            **kwargs,
        )

    def policy_arguments(self) -> dict[str, Any]:
        """See :meth:`~sb3_genoffline.common.learner.Learner.policy_arguments`."""
        return super().policy_arguments() | {"n_passes": self.n_passes}

    def overestimation_hint(self) -> str:
        """The arguments that help."""
        return (
            f"What helps: a tighter constraint (mmd_threshold below {self.mmd_threshold}), or more weight on what is sure "
            f"(uncertainty_beta above {self.uncertainty_beta})."
        )

    def draw_noise(self, batch_size: int) -> UWACNoise:
        """The random numbers of one update from this algorithm's generator."""
        return UWACNoise(**self.normal_samples(batch_size), dropout=self.generator)

    def update(self, batch: TransitionBatch, noise: UWACNoise) -> dict[str, Tensor]:
        """
        One gradient step.

        :param batch: B transitions
        :param noise: all random numbers of the step
        :return: scalars to log, on the device
        """
        states = self.policy.normalize_observations(batch.observations)  # (B, S)
        next_states = self.policy.normalize_observations(batch.next_observations)

        # ------ E[(â − a)²] + β·E[KL(q(z | s, a) ‖ N(0, I))]
        info = self.vae_step(states, batch.actions, noise.vae)

        # ------ Σ_i E[w²·(Q_i(s, a) − y)²], y = r + γ·m·max_k [λ·min_i + (1 − λ)·max_i] E_T Q̄_i(s', a'_k), a'_k ~ π(·|s')
        self.critic_target.advance_norms()
        with th.no_grad():
            next_actions = self.next_actions(next_states, noise.target)  # (B, n, A)
            passes = self.critic_target.passes(next_states, next_actions, self.n_passes, noise.dropout)  # (2, T, B, n)
            target, variance = self.uncertain_target(batch, passes)  # (B,)
            weights = self.weights(variance)
        info |= self.weighted_critic_step(states, batch.actions, target, weights, variance, noise.dropout)

        # ------ E[α·(MMD(v, u) − ε) − w·min_i E_T Q_i(s, tanh u_1)], v ~ VAE(s) a constant, u ~ π(·|s); at first without Q
        behaviour, drawn = self.matched_samples(states, noise.latents, noise.actor)  # (B, N, A)
        divergence = self.divergence(behaviour, drawn)  # (B,)
        actor_loss = (self.log_alpha.detach().exp() * (divergence - self.mmd_threshold)).mean()
        if self.phase():
            self.critic.advance_norms()
            passes = self.critic.passes(states, drawn[:, :1].tanh(), self.n_passes, noise.dropout).squeeze(-1)  # (2, T, B)
            q, actor_weights = passes.mean(1).amin(0), self.weights(passes.detach().var(1).sum(0))  # (B,)
            actor_loss = actor_loss - (actor_weights * q if self.weight_actor else q).mean()
            info |= {"actor_q": q.detach().mean(), "actor_weight_mean": actor_weights.mean()}
        gradient_step(self.actor_optimizer, actor_loss, self.actor_rate_now(), self.max_grad_norm)

        # ------ ascent of α·(E[MMD] − ε) in log α, with the MMD of before the actor moved
        info |= self.move_multiplier(divergence.detach())

        self.move_targets()
        return info | {
            "actor_loss": actor_loss.detach(),
            "uncertainty": variance.mean(),
            "weight_mean": weights.mean(),
            "unlearned_share": (weights < UNLEARNED).float().mean(),
            "behaviour_max": behaviour.abs().amax(),
        }

    def uncertain_target(self, batch: TransitionBatch, passes: Tensor) -> tuple[Tensor, Tensor]:
        """
        y, the best next action's, and how unsure the critics are: max_k Σ_i Var_T Q̄_i, a maximum of its own.

        :param batch: B transitions
        :param passes: of the slow critics, (2, T, B, n)
        :return: (B,), (B,)
        """
        values = soft_minimum(passes.mean(1), self.lam)  # (B, n)
        return self.td_target(batch, values.amax(-1)), passes.var(1).sum(0).amax(-1)

    def weights(self, variance: Tensor) -> Tensor:
        """exp(−β·Var), or β/Var, within [0, 1]"""
        if self.uncertainty_beta == 0:
            return th.ones_like(variance)
        if self.weighting == "exp":
            return (-self.uncertainty_beta * variance).exp()
        return (self.uncertainty_beta / variance).clamp_max(1.0)

    def weighted_critic_step(
        self, states: Tensor, actions: Tensor, target: Tensor, weights: Tensor, variance: Tensor, dropout: th.Generator
    ) -> dict[str, Tensor]:
        """
        Descend Σ_i E[w²·(Q_i(s, a) − y)²] + q_penalty·E[max(Q_i, 0)·Var], with one pass of each critic.

        :param states: (B, S)
        :param actions: (B, A)
        :param target: y, (B,)
        :param weights: w, (B,)
        :param variance: Var, (B,)
        :param dropout: of the dropped units
        :return: scalars to log
        """
        self.critic.advance_norms()
        q = self.critic(states, actions, dropout)  # (2, B)
        loss = self.critic.n_critics * (weights**self.weight_power * (q - target).square()).mean()
        if self.q_penalty > 0:
            loss = loss + self.critic.n_critics * self.q_penalty * (q.relu() * variance).mean()
        gradient_step(self.critic_optimizer, loss, self.critic_rate_now(), self.max_grad_norm)
        return {"critic_loss": loss.detach(), "q_mean": q.detach().mean()}

    def watch(self, metrics: dict[str, float]) -> None:
        """Warn of silent latents, and once where weights are so small that much of the data is not learned from."""
        super().watch(metrics)
        share = metrics.get("unlearned_share", 0.0)
        if share > WARN_SHARE:
            self.monitor.warn_once(
                "unlearned_share",
                f"Up to update {self._n_updates}, {share:.0%} of the rows had a weight below {UNLEARNED:g}, and the critics "
                f"learn next to nothing from them: their variance, {metrics['uncertainty']:.3g} on average, is in squared "
                f"rewards, and too large for uncertainty_beta={self.uncertainty_beta:g}. Lower that, or the rewards, with "
                "reward_transform.",
            )
