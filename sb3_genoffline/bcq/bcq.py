"""Batch-Constrained Q-learning (Fujimoto et al., ICML 2019, arXiv 1812.02900)."""

from typing import Any, ClassVar, NamedTuple, Unpack

import torch as th
from stable_baselines3.common.policies import BasePolicy
from torch import Tensor

from sb3_genoffline.bcq.policies import VAEPolicy
from sb3_genoffline.common.arguments import (
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
from sb3_genoffline.common.batch_constrained import BatchConstrainedAlgorithm
from sb3_genoffline.common.envs import EnvLike
from sb3_genoffline.common.keywords import OfflineArguments
from sb3_genoffline.common.optimizers import gradient_step
from sb3_genoffline.data.buffers import TransitionBatch
from sb3_genoffline.nets.actors import PerturbationActor
from sb3_genoffline.nets.ensembles import soft_update


class BCQNoise(NamedTuple):
    """
    The random numbers of one update, all standard normal.

    :param vae: (B, 1, Z), of the VAE's own step
    :param target: (B, n, Z), latents of n next actions
    :param actor: (B, Z), latents of the action that the actor perturbs
    """

    vae: Tensor
    target: Tensor
    actor: Tensor


class BCQ(BatchConstrainedAlgorithm[BCQNoise]):
    """
    Batch-Constrained Q-learning: a VAE proposes actions as the data would, a small network perturbs each a little, and the
    best of them, by Q, is what the agent does and what the target asks for. So Q is never asked about actions far from the
    data.

    Paper: Fujimoto, Meger, Precup, "Off-Policy Deep Reinforcement Learning without Exploration", ICML 2019,
    https://arxiv.org/abs/1812.02900. Its code is https://github.com/sfujim/BCQ at 4876f7e, ``continuous_BCQ``, with which
    D4RL's table was made. The paper's text could not be read again for this; what follows is the code's.

    Choices of the code that its paper does not make, or makes otherwise:

    1. The agent chooses among 100 candidates when it acts and among 10 in the target. The code of January 2019 had 10 for
       both: ``n_action_samples=10``.
    2. The VAE's loss is a mean over action dimensions plus ``beta`` times a mean over latents. With the sum over actions in
       the place of the mean, the weight would be ``beta`` over the number of action dimensions.
    3. Latents are clipped to ± 0.5 wherever actions are proposed, and not where the VAE learns.
    4. The critics are mixed for each candidate (λ·min + (1 − λ)·max), and the best candidate is taken last.
    5. The target asks the online VAE and the target actor; acting asks the online actor and the online Q_1, not the minimum.
    6. The VAE learns in each update and is never fitted before.

    Differences from the code, and from D4RL's run of it:

    7. ``predict(deterministic=False)`` is one candidate; the code has no such mode.
    8. Where an episode was cut by a time limit, the next state is the episode's own; in D4RL's run it was the first state of
       the next one.
    9. Batches are slices of random permutations; ``replacement=True`` draws as the code does.
    10. Actions are clipped to ± (1 − 1e-5).
    11. Options the code does not have, off by default: ``normalize_observations`` (which the VAE's states then are too),
        ``lr_decay_steps`` (of the actor's rate), ``max_grad_norm``, LayerNorm in the critics
        (``policy_kwargs=dict(critic_layer_norm=True)``), other network sizes.

    :param policy: ``"VAEPolicy"`` (alias ``"MlpPolicy"``) or a class
    :param env: see :class:`~sb3_genoffline.common.learner.Learner`
    :param learning_rate: of the actor, and of the critics unless ``critic_learning_rate`` is given
    :param critic_learning_rate: of the critics (None: ``learning_rate``)
    :param vae_learning_rate: of the VAE
    :param beta: β, weight of the VAE's KL term
    :param lam: λ, share of the smaller critic in the target; 1 is clipped double Q-learning
    :param max_perturbation: Φ, how far the actor may move an action, where actions are scaled to [−1, 1]
    :param n_target_samples: next actions per state in the target
    :param n_action_samples: candidates when acting (``predict(deterministic=True)``). They are drawn, so the action differs
        from call to call: ``model.set_acting_seed(seed)`` before makes it the same again.
    :param latent_clip: latents that actions are proposed from are clipped to ± this
    :param kwargs: the remaining arguments of :class:`~sb3_genoffline.common.learner.Learner`
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {"VAEPolicy": VAEPolicy, "MlpPolicy": VAEPolicy}
    default_gradient_steps = 1_000_000
    policy: VAEPolicy
    actor: PerturbationActor
    actor_target: PerturbationActor

    def __init__(
        self,
        policy: str | type[VAEPolicy],
        env: EnvLike | None = None,
        learning_rate: Rate = 1e-3,
        critic_learning_rate: Rate | None = None,
        *,
        vae_learning_rate: Rate = 1e-3,
        beta: Positive = 0.5,
        lam: Share = 0.75,
        max_perturbation: NonNegative = 0.05,
        n_target_samples: SampleCount = 10,
        n_action_samples: NCandidates = 100,
        latent_clip: Positive = 0.5,
        batch_size: PositiveInt = 100,
        lr_decay_steps: PositiveInt | None = None,
        max_grad_norm: Positive | None = None,
        reward_transform: RewardTransform = None,
        normalize_observations: Normalized = False,
        **kwargs: Unpack[OfflineArguments],
    ) -> None:
        self.max_perturbation = max_perturbation
        self.latent_clip = latent_clip
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
            batch_size=batch_size,
            lr_decay_steps=lr_decay_steps,
            max_grad_norm=max_grad_norm,
            reward_transform=reward_transform,
            normalize_observations=normalize_observations,
            **kwargs,
        )

    def policy_arguments(self) -> dict[str, Any]:
        """See :meth:`~sb3_genoffline.common.learner.Learner.policy_arguments`."""
        return super().policy_arguments() | {"max_perturbation": self.max_perturbation, "latent_clip": self.latent_clip}

    def overestimation_hint(self) -> str:
        """The arguments that help."""
        return (
            f"What helps: more of the smaller critic (lam above {self.lam}), fewer candidates in the target "
            f"(n_target_samples={self.n_target_samples}), or LayerNorm (policy_kwargs=dict(critic_layer_norm=True))."
        )

    def draw_noise(self, batch_size: int) -> BCQNoise:
        """The random numbers of one update from this algorithm's generator."""
        latent_dim = self.vae.latent_dim
        return BCQNoise(
            vae=self.normal_noise(batch_size, 1, latent_dim),
            target=self.normal_noise(batch_size, self.n_target_samples, latent_dim),
            actor=self.normal_noise(batch_size, latent_dim),
        )

    def update(self, batch: TransitionBatch, noise: BCQNoise) -> dict[str, Tensor]:
        """
        One gradient step, in the code's order.

        :param batch: B transitions
        :param noise: all random numbers of the step
        :return: scalars to log, on the device
        """
        states = self.policy.normalize_observations(batch.observations)  # (B, S)
        next_states = self.policy.normalize_observations(batch.next_observations)

        # ------ E[(â − a)²] + β·E[KL(q(z | s, a) ‖ N(0, I))]
        info = self.vae_step(states, batch.actions, noise.vae)

        # ------ Σ_i E[(Q_i(s, a) − y)²], y = r + γ·m·max_j [λ·min_i Q̄_i + (1 − λ)·max_i Q̄_i](s', ξ̄(s', ã_j)), ã_j ~ VAE(s')
        with th.no_grad():
            next_actions = self.actor_target(next_states, self.policy.propose(next_states, noise.target))  # (B, n, A)
            target = self.target_of_the_best(batch, next_states, next_actions)
        info |= self.critic_step(states, batch.actions, target)

        # ------ −E[Q_1(s, ξ(s, ã))], ã ~ VAE(s) a constant
        with th.no_grad():
            proposed = self.policy.propose(states, noise.actor)  # (B, A)
        actions = self.actor(states, proposed)
        q = self.critic.of_member(0, states, actions)  # (B,)
        gradient_step(self.actor_optimizer, -q.mean(), self.actor_rate_now(), self.max_grad_norm)

        soft_update(self.critic, self.critic_target, self.tau)
        soft_update(self.actor, self.actor_target, self.tau)
        return info | {
            "actor_loss": -q.detach().mean(),
            "perturbation": (actions.detach() - proposed).abs().mean(),
        }
