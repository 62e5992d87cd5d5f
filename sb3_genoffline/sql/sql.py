"""Sparse Q-Learning (Xu et al., ICLR 2023, arXiv 2303.15810)."""

from typing import ClassVar, Unpack

import torch as th
from stable_baselines3.common.policies import BasePolicy
from torch import Tensor

from sb3_genoffline.common.arguments import Positive, Rate
from sb3_genoffline.common.envs import EnvLike
from sb3_genoffline.common.in_sample import InSampleAlgorithm, InSampleArguments
from sb3_genoffline.common.optimizers import gradient_step
from sb3_genoffline.data.buffers import TransitionBatch
from sb3_genoffline.nets.ensembles import soft_update
from sb3_genoffline.sql.policies import SQLPolicy


class SQL(InSampleAlgorithm):
    """
    Sparse Q-Learning: implicit value regularization (IVR) with the χ² divergence from behaviour. V is the value of the best
    policy that pays α for leaving the data's, learned from the data's actions alone, of which the bad ones count exactly
    nothing. Q regresses on V of the next state, and the actor imitates what is better than V.

    Paper: Xu, Jiang, Li, Yang, Wang, Chan, Zhan, "Offline RL with no OOD actions: in-sample learning via implicit value
    regularization", ICLR 2023, https://arxiv.org/abs/2303.15810. Its code is https://github.com/ryanxhr/IVR at 58edd26. The
    defaults are its Gym-MuJoCo settings; those of AntMaze and Kitchen are in ``sql/hyperparameters.yml``.

    Where the authors' code is not the paper, and where this differs from it:

    1. The actor's weight is max(Q − V, 0), up to 100 (code). The paper's max(1 + (Q − V)/(2α), 0), which gives weight to
       actions down to 2α below V, is ``paper_weights=True``.
    2. V, actor, critics and targets move in this order; V and the actor's advantages read the smaller target Q, and the
       advantages the V of this update (code).
    3. The residual is 1 + (Q − V)/(2α) (paper, and code since March 2023). It was (Q − V)/α + 1/2 before: an α in settings
       of that time is a quarter of itself today.
    4. V has LayerNorm before each activation, the critics none (code). The dropout of 0.5 that the code sets for V on AntMaze
       never drops anything: none here. The actor's of 0.1 on Kitchen does: ``policy_kwargs=dict(actor_dropout=0.1)``.
    5. The Gaussian is on the action itself: its mean is squashed, its samples are not. One σ for all states, within e^−5 and
       e^2 (code).
    6. Batches are slices of random permutations; ``replacement=True`` draws as the code does.

    :param policy: ``"SQLPolicy"`` (alias ``"MlpPolicy"``) or a class
    :param env: see :class:`~sb3_genoffline.common.learner.Learner`
    :param learning_rate: of actor, critics and V; ``critic_learning_rate`` is for the last two
    :param lr_decay_steps: K of the cosine decay of the actor's rate; None: none
    :param alpha: α, the price of leaving behaviour, in units of the transformed rewards: towards 0 V is the best of the data's
        actions, and for a large one their mean
    :param max_weight: largest weight of an action
    :param paper_weights: weigh the actor's actions as the paper does, see 1
    :param reward_transform: α is made for returns that span 1000, which the default gives
    :param kwargs: the remaining arguments of :class:`~sb3_genoffline.common.learner.Learner`
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {"SQLPolicy": SQLPolicy, "MlpPolicy": SQLPolicy}

    def __init__(
        self,
        policy: str | type[SQLPolicy],
        env: EnvLike | None = None,
        learning_rate: Rate = 3e-4,
        critic_learning_rate: Rate | None = None,
        *,
        alpha: Positive = 1.0,
        paper_weights: bool = False,
        **kwargs: Unpack[InSampleArguments],
    ) -> None:
        self.alpha = alpha
        self.paper_weights = paper_weights
        super().__init__(policy, env, learning_rate, critic_learning_rate, **kwargs)

    def overestimation_hint(self) -> str:
        """The arguments that help."""
        return f"What helps: a larger alpha={self.alpha}, or LayerNorm (policy_kwargs=dict(critic_layer_norm=True))."

    def weights(self, advantages: Tensor) -> Tensor:
        """
        What the data's actions count in the actor's imitation.

        :param advantages: Q − V, (B,)
        :return: (B,)
        """
        weights = 1.0 + advantages / (2.0 * self.alpha) if self.paper_weights else advantages
        return weights.clamp(0.0, self.max_weight)

    def update(self, batch: TransitionBatch, noise: Tensor | None) -> dict[str, Tensor]:
        """
        One gradient step.

        :param batch: B transitions
        :param noise: of the actor's dropout, if there is any
        :return: scalars to log, on the device
        """
        states = self.policy.normalize_observations(batch.observations)  # (B, S)
        next_states = self.policy.normalize_observations(batch.next_observations)
        with th.no_grad():
            target_q = self.critic_target(states, batch.actions).amin(0)  # (B,)

        # ------ E[1(u > 0)·u² + V(s)/α], u = 1 + (min_i Q̄_i(s, a) − V(s))/(2α) (SQL's objective of V; code: update_v)
        value_loss = sparse_value_loss(target_q, self.value(states), self.alpha).mean()
        gradient_step(self.value_optimizer, value_loss, self.critic_rate_now(), self.max_grad_norm)

        # ------ −E[w·log π(a | s)], w = max(min_i Q̄_i(s, a) − V(s), 0), or max(u, 0) (code: update_actor; difference 1)
        with th.no_grad():
            values = self.value(states)
            advantages = target_q - values  # (B,)
            weights = self.weights(advantages)
        actor_loss = -(weights * self.actor.log_prob(states, batch.actions, noise)).mean()
        gradient_step(self.actor_optimizer, actor_loss, self.actor_rate_now(), self.max_grad_norm)

        # ------ E[(r + γ·m·V(s') − Q_i(s, a))²] (code: update_q)
        with th.no_grad():
            target = self.td_target(batch, self.value(next_states))
        info = self.critic_step(states, batch.actions, target)

        soft_update(self.critic, self.critic_target, self.tau)
        return info | {
            "actor_loss": actor_loss.detach(),
            "value_loss": value_loss.detach(),
            "v_mean": values.mean(),
            "advantage_mean": advantages.mean(),
            "weight_mean": weights.mean(),
            "zero_share": (weights == 0).float().mean(),
            "clipped_share": (weights >= self.max_weight).float().mean(),
        }


def sparse_value_loss(q: Tensor, values: Tensor, alpha: float) -> Tensor:
    """
    1(u > 0)·u² + V/α with u = 1 + (Q − V)/(2α). Where its mean is smallest, the mean of max(u, 0) is 1.

    :param q: Q of the data's actions, (B,)
    :param values: V of their states, (B,)
    :param alpha: α
    :return: (B,)
    """
    assert q.shape == values.shape
    residual = 1.0 + (q - values) / (2.0 * alpha)
    return residual.clamp_min(0.0).square() + values / alpha
