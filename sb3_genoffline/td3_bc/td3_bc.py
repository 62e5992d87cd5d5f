"""TD3+BC (Fujimoto & Gu, NeurIPS 2021, arXiv 2106.06860)."""

from typing import Any, ClassVar, Unpack

import torch as th
from stable_baselines3.common.policies import BasePolicy
from torch import Tensor
from torch.nn.functional import mse_loss

from sb3_genoffline.common.actor_critic import ActorCriticAlgorithm, smoothed
from sb3_genoffline.common.arguments import NonNegative, Normalized, Positive, PositiveInt, Rate, RewardTransform
from sb3_genoffline.common.envs import EnvLike
from sb3_genoffline.common.keywords import OfflineArguments
from sb3_genoffline.common.optimizers import gradient_step
from sb3_genoffline.common.policies import ActorCriticPolicy
from sb3_genoffline.data.buffers import TransitionBatch
from sb3_genoffline.nets.actors import DeterministicActor
from sb3_genoffline.nets.ensembles import soft_update


class TD3BC(ActorCriticAlgorithm[Tensor]):
    """
    TD3 whose actor's loss has one more term, the squared distance to the data's action.

    Paper: Fujimoto, Gu, "A minimalist approach to offline reinforcement learning", NeurIPS 2021,
    https://arxiv.org/abs/2106.06860.

    The defaults are the paper's. Differences from it and from the authors' code:

    1. λ divides by the mean of |Q1(s, π(s))|, as the code does; the paper's equation has the data's actions in it.
    2. The actor moves at updates 1, 3, 5, ...; in the code at 2, 4, 6, ...
    3. Batches are slices of random permutations; ``replacement=True`` draws as the code does.
    4. Actions are clipped to ± (1 − 1e-5).
    5. A constant observation column is left unscaled; the code adds 1e-3 to every standard deviation.

    :param policy: ``"MlpPolicy"`` or a class
    :param env: see :class:`~sb3_genoffline.common.learner.Learner`
    :param learning_rate: of actor and critics
    :param alpha: α; λ = α / E|Q| weighs Q against imitation (eq. 5); 0 is behaviour cloning
    :param policy_delay: updates of the critics per update of the actor and the targets
    :param target_policy_noise: std of the noise on the target action
    :param target_noise_clip: its largest absolute value
    :param normalize_observations: standardise observations (section 5; not on AntMaze)
    :param kwargs: the remaining arguments of :class:`~sb3_genoffline.common.learner.Learner`
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {"MlpPolicy": ActorCriticPolicy}
    baselines: ClassVar[dict[str, dict[str, Any]]] = {"imitation only": {"alpha": 0}}
    default_gradient_steps = 1_000_000
    actor: DeterministicActor
    actor_target: DeterministicActor

    def __init__(
        self,
        policy: str | type[ActorCriticPolicy],
        env: EnvLike | None = None,
        learning_rate: Rate = 3e-4,
        critic_learning_rate: Rate | None = None,
        *,
        alpha: NonNegative = 2.5,
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
        self.alpha = alpha
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

    def overestimation_hint(self) -> str:
        """The arguments that help."""
        return (
            f"What helps: more imitation (smaller alpha={self.alpha}), or LayerNorm "
            "(policy_kwargs=dict(critic_layer_norm=True))."
        )

    def draw_noise(self, batch_size: int) -> Tensor:
        """(B, A): the noise on the target actions."""
        return self.normal_noise(batch_size, self.policy.action_dim)

    def phase(self) -> bool:
        """Whether actor and targets move."""
        return self._n_updates % self.policy_delay == 0

    def update(self, batch: TransitionBatch, noise: Tensor) -> dict[str, Tensor]:
        """
        One gradient step.

        :param batch: B transitions
        :param noise: (B, A) standard normal
        :return: scalars to log, on the device
        """
        states = self.policy.normalize_observations(batch.observations)  # (B, S)
        next_states = self.policy.normalize_observations(batch.next_observations)

        # ------ y = r + γ·m·min_i Q̄_i(s', π̄(s') + n), n clipped normal noise
        with th.no_grad():
            next_actions = smoothed(self.actor_target(next_states), noise, self.target_policy_noise, self.target_noise_clip)
            next_q = self.critic_target(next_states, next_actions.clamp(-1.0, 1.0)).amin(0)
            target = self.td_target(batch, next_q)
        info = self.critic_step(states, batch.actions, target)

        # ------ −λ·E[Q_1(s, π(s))] + E[(π(s) − a)²], λ = α/E|Q_1(s, π(s))| (eqs. 3 and 5); the square is a mean over
        # action dimensions too
        if self.phase():
            actions = self.actor(states)
            q = self.critic.of_member(0, states, actions)  # (B,)
            weight = self.alpha / q.detach().abs().mean()
            bc_loss = mse_loss(actions, batch.actions)
            actor_loss = -weight * q.mean() + bc_loss
            gradient_step(self.actor_optimizer, actor_loss, self.actor_rate_now(), self.max_grad_norm)
            info |= {"actor_loss": actor_loss.detach(), "bc_loss": bc_loss.detach(), "q_weight": weight}
            soft_update(self.critic, self.critic_target, self.tau)
            soft_update(self.actor, self.actor_target, self.tau)
        return info
