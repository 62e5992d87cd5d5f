"""Conservative Q-learning (Kumar et al., NeurIPS 2020, arXiv 2006.04779)."""

import math
from typing import Any, ClassVar, NamedTuple, Unpack

import torch as th
from stable_baselines3.common.policies import BasePolicy
from torch import Tensor

from sb3_genoffline.common.actor_critic import ActorCriticAlgorithm
from sb3_genoffline.common.arguments import (
    Count,
    NonNegative,
    Normalized,
    Positive,
    PositiveInt,
    Rate,
    RewardTransform,
    SampleCount,
)
from sb3_genoffline.common.envs import EnvLike
from sb3_genoffline.common.keywords import OfflineArguments
from sb3_genoffline.common.optimizers import gradient_step
from sb3_genoffline.cql.policies import CQLPolicy
from sb3_genoffline.data.buffers import TransitionBatch
from sb3_genoffline.nets.actors import SquashedGaussianActor
from sb3_genoffline.nets.ensembles import soft_update

_BACKUP_ACTIONS = 10  # of max_q_backup, the released code's
_LARGEST_MULTIPLIER = 1e6


class CQLNoise(NamedTuple):
    """
    All random numbers of one update; all but ``uniform`` are standard normal.

    :param actor: (B, A), for an action of the actor at s, which climbs Q and sets the entropy's weight
    :param target: (B, k, A), for k actions of the actor at s' in the target: 10 with ``max_q_backup``, else 1
    :param uniform: (B, n, A) uniform in [−1, 1), actions whose Q is lowered
    :param current: (B, n, A), for the actor's actions at s, likewise
    :param following: (B, n, A), for the actor's actions at s', likewise
    """

    actor: Tensor
    target: Tensor
    uniform: Tensor
    current: Tensor
    following: Tensor


class CQL(ActorCriticAlgorithm[CQLNoise]):
    """
    Conservative Q-learning, CQL(H): SAC whose critics are also lowered where Q is large, by a log-sum-exp over actions, and
    raised at the data's actions.

    Paper: Kumar, Zhou, Tucker, Levine, "Conservative Q-learning for offline reinforcement learning", NeurIPS 2020,
    https://arxiv.org/abs/2006.04779.

    Where the paper's text and its released code disagree, this follows the code, with its settings for D4RL's Gym-MuJoCo sets:

    1. ``min_q_weight`` is fixed at 5, as the code's instructions have it; the paper adapts it to a threshold
       (``lagrange_threshold``).
    2. The squared error of each critic has no factor ½ (eq. 4 has), so that a ``min_q_weight`` of 5 is the paper's α = 2.5.
    3. The log-sum-exp is estimated with n uniform actions, n of π(·|s) and n of π(·|s'), the last at s too (the paper has the
       first two). The estimate's constant −log 3n is left out, which moves the meaning of τ and nothing else.
    4. The next action of the target is a sample, but the target has no entropy term (``deterministic_backup``).
    5. For the first 40,000 updates the actor climbs log π of the data's actions instead of Q (39,999 in the code, which counts
       from 1); the paper is silent.
    6. With ``lagrange_threshold`` the multiplier is on top of ``min_q_weight``, and τ is compared with their product.

    Differences from the released code:

    7. The actor climbs the critics that have just moved; the code computes both losses before it steps.
    8. PyTorch's initialisation instead of the code's.
    9. Batches are slices of random permutations; ``replacement=True`` draws as the code does.
    10. Actions are clipped to ± (1 − 1e-5).
    11. Options the paper does not have, off by default: ``normalize_observations``, ``lr_decay_steps`` (of the actor's rate),
        LayerNorm in the critics (``policy_kwargs=dict(critic_layer_norm=True)``), other network sizes.

    :param policy: ``"CQLPolicy"`` (alias ``"MlpPolicy"``) or a class
    :param env: see :class:`~sb3_genoffline.common.learner.Learner`
    :param learning_rate: of the actor and of the entropy's weight
    :param critic_learning_rate: of the critics and of the penalty's multiplier
    :param min_q_weight: weight of the conservative penalty
    :param lagrange_threshold: τ; the penalty has a multiplier that rises while ``min_q_weight`` times the gap is above τ, and
        falls while it is below (appendix F); None: no multiplier
    :param n_actions: n, actions of each of the three kinds in the log-sum-exp
    :param bc_steps: updates in which the actor imitates
    :param deterministic_backup: no entropy in the target
    :param max_q_backup: the target is the best of 10 next actions' instead of one's
    :param kwargs: the remaining arguments of :class:`~sb3_genoffline.common.learner.Learner`
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {"CQLPolicy": CQLPolicy, "MlpPolicy": CQLPolicy}
    baselines: ClassVar[dict[str, dict[str, Any]]] = {"no conservatism": {"min_q_weight": 0}}
    default_gradient_steps = 1_000_000
    actor: SquashedGaussianActor
    log_entropy_weight: Tensor
    log_multiplier: Tensor
    entropy_optimizer: th.optim.Optimizer
    multiplier_optimizer: th.optim.Optimizer

    def __init__(
        self,
        policy: str | type[CQLPolicy],
        env: EnvLike | None = None,
        learning_rate: Rate = 1e-4,
        critic_learning_rate: Rate | None = 3e-4,
        *,
        min_q_weight: NonNegative = 5.0,
        lagrange_threshold: float | None = None,
        n_actions: SampleCount = 10,
        bc_steps: Count = 40_000,
        deterministic_backup: bool = True,
        max_q_backup: bool = False,
        batch_size: PositiveInt = 256,
        lr_decay_steps: PositiveInt | None = None,
        max_grad_norm: Positive | None = None,
        reward_transform: RewardTransform = None,
        normalize_observations: Normalized = False,
        **kwargs: Unpack[OfflineArguments],
    ) -> None:
        self.min_q_weight = min_q_weight
        self.lagrange_threshold = lagrange_threshold
        self.n_actions = n_actions
        self.bc_steps = bc_steps
        self.deterministic_backup = deterministic_backup
        self.max_q_backup = max_q_backup
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
        """Actor and critics, and the two multipliers in the log domain."""
        super().declare_state()
        for name, variable in (("entropy", "log_entropy_weight"), ("multiplier", "log_multiplier")):
            self.add_variable(variable, lambda _: 0.0, requires_grad=True)
            self.add_optimizer(name, [getattr(self, variable)], th.optim.Adam)

    def overestimation_hint(self) -> str:
        """The arguments that help."""
        return (
            f"What helps: a larger min_q_weight={self.min_q_weight}, or LayerNorm "
            "(policy_kwargs=dict(critic_layer_norm=True))."
        )

    def draw_noise(self, batch_size: int) -> CQLNoise:
        """The random numbers of one update from this algorithm's generator."""
        samples = (batch_size, self.n_actions, self.policy.action_dim)
        like: dict[str, Any] = {"generator": self.generator, "device": self.device, "dtype": self.policy.obs_mean.dtype}
        return CQLNoise(
            actor=self.normal_noise(batch_size, self.policy.action_dim),
            target=self.normal_noise(batch_size, _BACKUP_ACTIONS if self.max_q_backup else 1, self.policy.action_dim),
            uniform=2.0 * th.rand(samples, **like) - 1.0,
            current=self.normal_noise(*samples),
            following=self.normal_noise(*samples),
        )

    def phase(self) -> bool:
        """Whether the actor imitates."""
        return self._n_updates < self.bc_steps

    def update(self, batch: TransitionBatch, noise: CQLNoise) -> dict[str, Tensor]:
        """
        One gradient step.

        :param batch: B transitions
        :param noise: all random numbers of the step
        :return: scalars to log, on the device
        """
        states = self.policy.normalize_observations(batch.observations)  # (B, S)
        next_states = self.policy.normalize_observations(batch.next_observations)
        actor_rate, critic_rate = self.actor_rate_now(), self.critic_rate_now()

        # ------ SAC's entropy weight: −log α·E[log π(a|s) − A], whose target entropy is −A
        actions, log_prob = self.actor.sample(states, noise.actor)  # (B, A), (B,)
        entropy_gap = (log_prob.detach() - self.policy.action_dim).mean()
        gradient_step(self.entropy_optimizer, -self.log_entropy_weight * entropy_gap, actor_rate)
        entropy_weight = self.log_entropy_weight.detach().exp()

        # ------ Σ_h E[(Q_h(s, a) − y)²] + w·E[log Σ_a' exp Q_h(s, a') − Q_h(s, a)], y = r + γ·m·min_h Q̄_h(s', a') (eq. 4)
        target = self.critic_target_value(batch, next_states, noise.target, entropy_weight)
        q, gap = self.conservative_gap(states, next_states, batch.actions, noise)  # (2, B), (2,)
        td_loss = (q - target).square().mean(1).sum()
        penalty = self.min_q_weight * gap.sum()
        info: dict[str, Tensor] = {}
        if self.lagrange_threshold is not None:  # min over Q, max over the multiplier (appendix F)
            excess = penalty - 2.0 * self.lagrange_threshold  # of both critics
            multiplier = self.log_multiplier.exp().clamp_max(_LARGEST_MULTIPLIER)
            penalty = multiplier.detach() * excess
            info["multiplier"] = multiplier.detach()
            gradient_step(self.multiplier_optimizer, -0.5 * multiplier * excess.detach(), critic_rate)
        gradient_step(self.critic_optimizer, td_loss + penalty, critic_rate, self.max_grad_norm)

        # ------ E[α·log π(a|s) − min_h Q_h(s, a)], a ~ π(·|s); at first, log π of the data's action instead of Q
        gain = self.actor.log_prob(states, batch.actions) if self.phase() else self.critic(states, actions).amin(0)
        actor_loss = (entropy_weight * log_prob - gain).mean()
        gradient_step(self.actor_optimizer, actor_loss, actor_rate, self.max_grad_norm)

        soft_update(self.critic, self.critic_target, self.tau)
        return info | {
            "critic_loss": td_loss.detach(),
            "q_mean": q.detach().mean(),
            "conservative_gap": gap.detach().mean(),
            "actor_loss": actor_loss.detach(),
            "entropy": -log_prob.detach().mean(),
            "entropy_weight": entropy_weight,
        }

    @th.no_grad()
    def critic_target_value(
        self, batch: TransitionBatch, next_states: Tensor, noise: Tensor, entropy_weight: Tensor
    ) -> Tensor:
        """
        y = r + γ·m·min_h max_k Q̄_h(s', a'_k), a'_k ~ π(·|s').

        :param noise: (B, k, A)
        :param entropy_weight: α, for a target with entropy
        :return: (B,)
        """
        actions, log_prob = self.actor.sample(next_states, noise)  # (B, k, A), (B, k)
        values = self.critic_target.score_samples(next_states, actions)  # (2, B, k)
        if not self.deterministic_backup:
            values = values - entropy_weight * log_prob
        return self.td_target(batch, values.amax(-1).amin(0))

    def conservative_gap(self, states: Tensor, next_states: Tensor, actions: Tensor, noise: CQLNoise) -> tuple[Tensor, Tensor]:
        """
        How far Q of all actions is above Q of the data's. The log of the integral of exp Q is estimated by importance sampling
        (appendix F): log Σ_i exp(Q(s, a_i) − log μ(a_i)), a_i ~ μ uniform or the actor's.

        :return: Q of the data's actions (2, B), and each critic's mean gap (2,), both with gradients
        """
        with th.no_grad():
            current, current_log_prob = self.actor.sample(states, noise.current)  # (B, n, A), (B, n)
            following, following_log_prob = self.actor.sample(next_states, noise.following)
            uniform_log_prob = th.full_like(current_log_prob, -self.policy.action_dim * math.log(2.0))
            log_prob = th.cat([uniform_log_prob, current_log_prob, following_log_prob], dim=1)  # (B, 3n)
        samples = th.cat([actions.unsqueeze(1), noise.uniform, current, following], dim=1)  # (B, 1 + 3n, A)
        q, q_samples = th.split(self.critic.of_samples(states, samples), [1, log_prob.shape[1]], dim=-1)
        q = q.squeeze(-1)  # (2, B)
        return q, ((q_samples - log_prob).logsumexp(-1) - q).mean(1)
