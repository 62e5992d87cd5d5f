"""Bootstrapping Error Accumulation Reduction (Kumar et al., NeurIPS 2019, arXiv 1906.00949)."""

from typing import ClassVar, Literal, NamedTuple, Unpack

import torch as th
from stable_baselines3.common.policies import BasePolicy
from torch import Tensor

from sb3_genoffline.bear.policies import BEARPolicy
from sb3_genoffline.common.arguments import (
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

Climbed = Literal["first", "mean"]


class BEARNoise(NamedTuple):
    """
    The random numbers of one update, all standard normal.

    :param vae: (B, 1, Z), of the VAE's own step
    :param target: (B, n, A), n next actions of the actor
    :param latents: (B, N, Z), N actions of the VAE in the MMD
    :param actor: (B, N, A), N actions of the actor in the MMD
    """

    vae: Tensor
    target: Tensor
    latents: Tensor
    actor: Tensor


class BEAR(SupportMatchingAlgorithm[BEARNoise]):
    """
    Bootstrapping Error Accumulation Reduction: a stochastic actor climbs Q while its samples stay within a maximum mean
    discrepancy (MMD) of ε from samples of a VAE of behaviour. So it is the support of behaviour that is matched, not its
    density; a multiplier α is learnt by dual ascent.

    Paper: Kumar, Fu, Tucker, Levine, "Stabilizing Off-Policy Q-Learning via Bootstrapping Error Reduction", NeurIPS 2019,
    https://arxiv.org/abs/1906.00949. The authors have published two codes: the first,
    https://github.com/aviralkumar2907/BEAR at f2e31c1 (no licence), sends its users to the second,
    https://github.com/rail-berkeley/d4rl_evaluations at c93b9d2 (``bear``), which has the settings of D4RL's table. This
    follows the second; ``--profile first_code`` of the zoo is the first.

    What differs between the two codes, and from the paper, of which the text could not be read again for this:

    1. Q in the actor's loss is the smaller one at the first of the N samples (second code); the first code's mean over the
       samples of each critic, of which the smaller one counts, is ``q_samples="mean"``. The paper has the expectation of the
       minimum.
    2. Samples are matched before their tanh (both codes), against gradients that vanish; the paper writes actions.
    3. κ divides by 2σ, not by 2σ² (both codes), and the mean over pairs includes each sample with itself.
    4. α starts at 1 (second code); the first draws log α from a standard normal.
    5. log σ is within [−5, 2] (second code; the first does not clip it: ``policy_kwargs=dict(clip_log_std=False)``), and the
       actor's noise in the MMD is free (the first clips it to ± 0.5: ``mmd_noise_clip=0.5``).
    6. The target asks the online actor (second code; the first a slow copy: ``policy_kwargs=dict(slow_actor=True)``).
    7. The mode with a fixed multiplier of 100, the first code's default, and its ensemble of four with a penalty on their
       spread, are left out: its author prefers the dual, and in the second code that mode never trains the actor.

    Differences from both codes:

    8. The actor's loss is computed after the critics' step, and the multiplier's with the MMD of before the actor's. The
       second code builds all losses first, which let gradients pass weights that had changed and fails in today's PyTorch;
       the first one's dual mode fails there, too.
    9. Weights start as PyTorch's. The second code's last layers start within ± 0.001 (actor) and ± 0.003 (critics):
       ``policy_kwargs=dict(actor_init=0.001, critic_init=0.003)``; its other layers' rule has the axes exchanged.
    10. Rows at a time limit are used with their own next state. The second code leaves out every thousandth row of a run
        without an end, the first goes on with the next episode's state.
    11. ``predict(deterministic=False)`` is one sample; the codes have no such mode.
    12. A million updates, the tables' usual budget; the second code makes three.
    13. Batches are slices of random permutations; ``replacement=True`` draws as the codes do.
    14. Actions are clipped to ± (1 − 1e-5).
    15. Options the codes do not have, off by default: ``normalize_observations`` (which the VAE's states then are too),
        ``lr_decay_steps`` (of the actor's rate), ``max_grad_norm``, LayerNorm in the critics
        (``policy_kwargs=dict(critic_layer_norm=True)``).

    :param policy: ``"BEARPolicy"`` (alias ``"MlpPolicy"``) or a class
    :param env: see :class:`~sb3_genoffline.common.learner.Learner`
    :param learning_rate: of the actor
    :param critic_learning_rate: of the critics (None: ``learning_rate``)
    :param vae_learning_rate: of the VAE
    :param multiplier_learning_rate: of log α, which stays in [−5, 10]
    :param alpha: α at the start
    :param kernel: of the MMD: ``"laplacian"``, or ``"gaussian"`` (HalfCheetah's)
    :param mmd_sigma: its σ
    :param mmd_threshold: ε: for two points it is a distance of 0.05 (Laplacian, L1) or of 0.22 (Gaussian, L2) before the tanh
    :param n_mmd_samples: N, samples of either side
    :param mmd_noise_clip: the actor's noise in the MMD is clipped to ± this (None: it is not)
    :param q_samples: Q in the actor's loss: at the ``"first"`` of its N samples, or their ``"mean"``
    :param lam: λ, share of the smaller critic in the target
    :param n_target_samples: next actions per state in the target
    :param n_action_samples: candidates when acting (``predict(deterministic=True)``). They are drawn, so the action differs
        from call to call: ``model.set_acting_seed(seed)`` before makes it the same again.
    :param warmup_steps: updates before Q enters the actor's loss; α learns from the first one on
    :param latent_clip: the VAE's latents in the MMD are clipped to ± this
    :param beta: β, weight of the VAE's KL term
    :param kwargs: the remaining arguments of :class:`~sb3_genoffline.common.learner.Learner`
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {"BEARPolicy": BEARPolicy, "MlpPolicy": BEARPolicy}
    default_gradient_steps = 1_000_000

    def __init__(
        self,
        policy: str | type[BEARPolicy],
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
        q_samples: Climbed = "first",
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
        self.q_samples = q_samples
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

    def overestimation_hint(self) -> str:
        """The arguments that help."""
        return (
            f"What helps: a tighter constraint (mmd_threshold below {self.mmd_threshold}), more of the smaller critic (lam "
            f"above {self.lam}), or LayerNorm (policy_kwargs=dict(critic_layer_norm=True))."
        )

    def draw_noise(self, batch_size: int) -> BEARNoise:
        """The random numbers of one update from this algorithm's generator."""
        return BEARNoise(**self.normal_samples(batch_size))

    def update(self, batch: TransitionBatch, noise: BEARNoise) -> dict[str, Tensor]:
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

        # ------ Σ_i E[(Q_i(s, a) − y)²], y = r + γ·m·max_j [λ·min_i Q̄_i + (1 − λ)·max_i Q̄_i](s', a'_j), a'_j ~ π(·|s')
        with th.no_grad():
            target = self.target_of_the_best(batch, next_states, self.next_actions(next_states, noise.target))
        info |= self.critic_step(states, batch.actions, target)

        # ------ E[α·(MMD(v, u) − ε) − min_i Q_i(s, tanh u_1)], v ~ VAE(s) a constant, u ~ π(·|s); at first without Q
        behaviour, drawn = self.matched_samples(states, noise.latents, noise.actor)  # (B, N, A)
        divergence = self.divergence(behaviour, drawn)  # (B,)
        actor_loss = (self.log_alpha.detach().exp() * (divergence - self.mmd_threshold)).mean()
        if self.phase():
            q = self.climbed_values(states, drawn.tanh()).mean()
            actor_loss = actor_loss - q
            info["actor_q"] = q.detach()
        gradient_step(self.actor_optimizer, actor_loss, self.actor_rate_now(), self.max_grad_norm)

        # ------ ascent of α·(E[MMD] − ε) in log α, with the MMD of before the actor moved
        info |= self.move_multiplier(divergence.detach())

        self.move_targets()
        return info | {"actor_loss": actor_loss.detach(), "behaviour_max": behaviour.abs().amax()}

    def climbed_values(self, states: Tensor, actions: Tensor) -> Tensor:
        """
        Q of the actor's actions that its loss climbs.

        :param states: (B, S)
        :param actions: (B, N, A)
        :return: (B,)
        """
        if self.q_samples == "mean":
            return self.critic.of_samples(states, actions).mean(-1).amin(0)
        first: Tensor = self.critic(states, actions[:, 0])  # (2, B)
        return first.amin(0)
