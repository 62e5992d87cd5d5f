"""Implicit Q-Learning (Kostrikov, Nair & Levine, ICLR 2022, arXiv 2110.06169)."""

from typing import Annotated, Any, ClassVar, Unpack

import torch as th
from stable_baselines3.common.policies import BasePolicy
from torch import Tensor

from sb3_genoffline.common.arguments import Bounds, NonNegative, Rate
from sb3_genoffline.common.envs import EnvLike
from sb3_genoffline.common.in_sample import InSampleAlgorithm, InSampleArguments, expectile_loss, exponential_weights
from sb3_genoffline.common.optimizers import gradient_step
from sb3_genoffline.data.buffers import TransitionBatch
from sb3_genoffline.iql.policies import IQLPolicy
from sb3_genoffline.nets.ensembles import soft_update


class IQL(InSampleAlgorithm):
    """
    Implicit Q-Learning: V is an expectile of Q over the data's actions, Q a regression on V of the next state, and the actor
    imitates the data's actions weighted by their advantage. No action outside the data is ever judged.

    Paper: Kostrikov, Nair, Levine, "Offline reinforcement learning with implicit Q-learning", ICLR 2022,
    https://arxiv.org/abs/2110.06169. The defaults are those of Gym-MuJoCo; AntMaze's (expectile 0.9, temperature 10, rewards
    minus 1) are in ``iql/hyperparameters.yml``.

    Where the authors' code says more than the paper, and where this differs from it:

    1. V, actor, critics and targets move in each update, in this order (code); in algorithm 1 the actor comes after all.
    2. Advantages are the smaller target Q minus the V of this update (code).
    3. The Gaussian is on the action itself: its mean is squashed, its samples are not (code). One σ for all states, kept
       within e^−5 and e^2.
    4. Layers start as PyTorch's; orthogonal in the code, with a small scale for σ.
    5. No dropout by default; the actor's, which the paper has for Adroit, is ``policy_kwargs=dict(actor_dropout=...)``.
    6. Batches are slices of random permutations; ``replacement=True`` draws as the code does.

    :param policy: ``"IQLPolicy"`` (alias ``"MlpPolicy"``) or a class
    :param env: see :class:`~sb3_genoffline.common.learner.Learner`
    :param learning_rate: of actor, critics and V; ``critic_learning_rate`` is for the last two
    :param lr_decay_steps: K of the cosine decay of the actor's rate; None: none
    :param expectile: τ in (0, 1): 0.5 is the mean over the data's actions, towards 1 the best of them
    :param temperature: β, factor on the advantage in the exponent: 0 is behaviour cloning
    :param max_weight: largest weight exp(β·A)
    :param reward_transform: β is made for returns that span 1000, which the default gives
    :param kwargs: the remaining arguments of :class:`~sb3_genoffline.common.learner.Learner`
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {"IQLPolicy": IQLPolicy, "MlpPolicy": IQLPolicy}
    baselines: ClassVar[dict[str, dict[str, Any]]] = {"imitation only": {"temperature": 0}}

    def __init__(
        self,
        policy: str | type[IQLPolicy],
        env: EnvLike | None = None,
        learning_rate: Rate = 3e-4,
        critic_learning_rate: Rate | None = None,
        *,
        expectile: Annotated[float, Bounds(0.0, 1.0, open_low=True, open_high=True)] = 0.7,
        temperature: NonNegative = 3.0,
        **kwargs: Unpack[InSampleArguments],
    ) -> None:
        self.expectile = expectile
        self.temperature = temperature
        super().__init__(policy, env, learning_rate, critic_learning_rate, **kwargs)

    def overestimation_hint(self) -> str:
        """The arguments that help."""
        return f"What helps: a smaller expectile={self.expectile}, or LayerNorm (policy_kwargs=dict(critic_layer_norm=True))."

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

        # ------ E[L_τ(min_i Q̄_i(s, a) − V(s))] (eq. 5)
        value_loss = expectile_loss(target_q - self.value(states), self.expectile).mean()
        gradient_step(self.value_optimizer, value_loss, self.critic_rate_now(), self.max_grad_norm)

        # ------ −E[min(exp(β·(min_i Q̄_i(s, a) − V(s))), 100)·log π(a | s)] (eq. 7, clipped as in the code)
        with th.no_grad():
            values = self.value(states)
            weights = exponential_weights(target_q - values, self.temperature, self.max_weight)  # (B,)
        actor_loss = -(weights * self.actor.log_prob(states, batch.actions, noise)).mean()
        gradient_step(self.actor_optimizer, actor_loss, self.actor_rate_now(), self.max_grad_norm)

        # ------ E[(r + γ·m·V(s') − Q_i(s, a))²] (eq. 6)
        with th.no_grad():
            target = self.td_target(batch, self.value(next_states))
        info = self.critic_step(states, batch.actions, target)

        soft_update(self.critic, self.critic_target, self.tau)
        return info | {
            "actor_loss": actor_loss.detach(),
            "value_loss": value_loss.detach(),
            "v_mean": values.mean(),
            "weight_mean": weights.mean(),
            "clipped_share": (weights >= self.max_weight).float().mean(),
        }
