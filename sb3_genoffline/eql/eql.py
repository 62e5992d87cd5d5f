"""Exponential Q-Learning (Xu et al., ICLR 2023, arXiv 2303.15810)."""

from typing import ClassVar, Unpack

import torch as th
from stable_baselines3.common.policies import BasePolicy
from torch import Tensor

from sb3_genoffline.common.arguments import Positive, Rate
from sb3_genoffline.common.envs import EnvLike
from sb3_genoffline.common.in_sample import InSampleAlgorithm, InSampleArguments, exponential_weights
from sb3_genoffline.common.optimizers import gradient_step
from sb3_genoffline.data.buffers import TransitionBatch
from sb3_genoffline.eql.policies import EQLPolicy
from sb3_genoffline.nets.ensembles import soft_update

WARN_SHARE = 0.2
"""Share of exponents above the clip from which on EQL warns."""


class EQL(InSampleAlgorithm):
    """
    Exponential Q-Learning: implicit value regularization (IVR) with the reverse KL divergence from behaviour. V is
    α·log E[exp(Q/α)] over the data's actions, the value of the best policy that pays α for leaving the data's; Q regresses on
    V of the next state, and the actor imitates with exponential weights.

    Paper: Xu, Jiang, Li, Yang, Wang, Chan, Zhan, "Offline RL with no OOD actions: in-sample learning via implicit value
    regularization", ICLR 2023, https://arxiv.org/abs/2303.15810. Its code is https://github.com/ryanxhr/IVR at 58edd26. The
    defaults are its Gym-MuJoCo settings; those of AntMaze and Kitchen are in ``eql/hyperparameters.yml``.

    Where the authors' code is not the paper, and where this differs from it:

    1. The exponent x = (Q − V)/α is limited to 5 (code; the paper has no limit). The code cuts it off: rows above 5 lose the
       term that draws V up and keep the one that pushes it down, so V falls at just the best actions, and where it is low
       enough, without end. Here the exponential goes on as its tangent, and such rows draw V up as strongly as one at the
       limit. ``official_clip=True`` cuts off. A warning is given when more than a fifth of the rows are above.
    2. All terms of V's loss are divided by exp(M), M the largest exponent of the batch and at least −1, without a gradient
       (code).
    3. The actor's weight is exp(10·(Q − V)/α), up to 100 (code); in the paper the factor 10, ``weight_scale``, is 1.
    4. V, actor, critics and targets move in this order; V and the actor's advantages read the smaller target Q, and the
       advantages the V of this update (code).
    5. V has LayerNorm before each activation, the critics none (code). The dropout of 0.5 that the code sets for V on AntMaze
       never drops anything: none here. The actor's of 0.1 on Kitchen does: ``policy_kwargs=dict(actor_dropout=0.1)``.
    6. The Gaussian is on the action itself: its mean is squashed, its samples are not. One σ for all states, within e^−5 and
       e^2 (code).
    7. Batches are slices of random permutations; ``replacement=True`` draws as the code does.

    :param policy: ``"EQLPolicy"`` (alias ``"MlpPolicy"``) or a class
    :param env: see :class:`~sb3_genoffline.common.learner.Learner`
    :param learning_rate: of actor, critics and V; ``critic_learning_rate`` is for the last two
    :param lr_decay_steps: K of the cosine decay of the actor's rate; None: none
    :param alpha: α, the price of leaving behaviour, in units of the transformed rewards: towards 0 V is the best of the data's
        actions, and for a large one their mean
    :param weight_scale: factor on the exponent of the actor's weights
    :param max_weight: largest weight of an action
    :param exponent_clip: largest exponent in V's loss, see 1
    :param official_clip: cut the exponent off, as the code does, see 1
    :param reward_transform: α is made for returns that span 1000, which the default gives
    :param kwargs: the remaining arguments of :class:`~sb3_genoffline.common.learner.Learner`
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {"EQLPolicy": EQLPolicy, "MlpPolicy": EQLPolicy}

    def __init__(
        self,
        policy: str | type[EQLPolicy],
        env: EnvLike | None = None,
        learning_rate: Rate = 3e-4,
        critic_learning_rate: Rate | None = None,
        *,
        alpha: Positive = 2.0,
        weight_scale: Positive = 10.0,
        exponent_clip: Positive = 5.0,
        official_clip: bool = False,
        **kwargs: Unpack[InSampleArguments],
    ) -> None:
        self.alpha = alpha
        self.weight_scale = weight_scale
        self.exponent_clip = exponent_clip
        self.official_clip = official_clip
        super().__init__(policy, env, learning_rate, critic_learning_rate, **kwargs)

    def overestimation_hint(self) -> str:
        """The arguments that help."""
        return f"What helps: a larger alpha={self.alpha}, or LayerNorm (policy_kwargs=dict(critic_layer_norm=True))."

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

        # ------ E[exp(x) + V(s)/α], x = (min_i Q̄_i(s, a) − V(s))/α (EQL's objective of V; code: update_v; differences 1, 2)
        values = self.value(states)  # (B,)
        value_loss = exponential_value_loss(target_q, values, self.alpha, self.exponent_clip, self.official_clip).mean()
        exponents_cut = target_q - values.detach() > self.alpha * self.exponent_clip
        gradient_step(self.value_optimizer, value_loss, self.critic_rate_now(), self.max_grad_norm)

        # ------ −E[min(exp(10·(min_i Q̄_i(s, a) − V(s))/α), 100)·log π(a | s)] (code: update_actor; difference 3)
        with th.no_grad():
            values = self.value(states)
            advantages = target_q - values
            weights = exponential_weights(advantages, self.weight_scale / self.alpha, self.max_weight)  # (B,)
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
            "clipped_share": (weights >= self.max_weight).float().mean(),
            "exp_clipped_share": exponents_cut.float().mean(),
        }

    def watch(self, metrics: dict[str, float]) -> None:
        """Warn once when α is so small beside Q − V that the limit of the exponent decides what V learns."""
        share = metrics.get("exp_clipped_share", 0.0)
        if share > WARN_SHARE:
            effect = (
                "with official_clip=True their loss only pushes V down, without end where V is low enough"
                if self.official_clip
                else "V is then no longer alpha·log E[exp(Q/alpha)]"
            )
            self.monitor.warn_once(
                "exp_clipped_share",
                f"Up to update {self._n_updates}, {share:.0%} of the rows had (Q − V)/alpha above exponent_clip="
                f"{self.exponent_clip:g}: {effect}. The rewards are too large for alpha={self.alpha:g}: raise alpha, or scale "
                "the rewards with reward_transform.",
            )


def exponential_value_loss(q: Tensor, values: Tensor, alpha: float, clip: float, official_clip: bool = False) -> Tensor:
    """
    (exp(x) + V/α)/exp(M) with x = (Q − V)/α, and above the clip c the tangent e^c·(1 + x − c) instead of exp(x). Where its
    mean is smallest, and no x above c, V = α·log E[exp(Q/α)].

    :param q: Q of the data's actions, (B,)
    :param values: V of their states, (B,)
    :param alpha: α
    :param clip: c
    :param official_clip: e^c instead of the tangent, without a gradient
    :return: (B,)
    """
    assert q.shape == values.shape
    exponents = (q - values) / alpha
    cut = exponents.clamp_max(clip)
    largest = cut.detach().max().clamp_min(-1.0)  # M
    exponentials = (cut - largest).exp()
    if not official_clip:
        exponentials = exponentials * (1.0 + (exponents - clip).clamp_min(0.0))
    return exponentials + (-largest).exp() * values / alpha
