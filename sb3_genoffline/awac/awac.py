"""Advantage Weighted Actor-Critic (Nair et al., 2020, arXiv 2006.09359)."""

from typing import ClassVar, Literal, NamedTuple, Unpack

import torch as th
from stable_baselines3.common.policies import BasePolicy
from torch import Tensor

from sb3_genoffline.awac.policies import AWACPolicy
from sb3_genoffline.common.actor_critic import ActorCriticAlgorithm
from sb3_genoffline.common.arguments import NonNegative, Normalized, Positive, PositiveInt, Rate, RewardTransform
from sb3_genoffline.common.envs import EnvLike
from sb3_genoffline.common.keywords import OfflineArguments
from sb3_genoffline.common.optimizers import gradient_step
from sb3_genoffline.data.buffers import TransitionBatch
from sb3_genoffline.nets.actors import GaussianActor
from sb3_genoffline.nets.ensembles import soft_update

Weighting = Literal["softmax", "exp"]


class AWACNoise(NamedTuple):
    """
    The random numbers of one update, standard normal.

    :param next_action: (B, A), for the action of the target
    :param baseline: (B, A), for the action that the data's is compared with
    """

    next_action: Tensor
    baseline: Tensor


class AWAC(ActorCriticAlgorithm[AWACNoise]):
    """
    Advantage Weighted Actor-Critic: critics of the actor's own actions, and an actor that imitates the data's actions weighted
    by how much better than its own they are.

    Paper: Nair, Gupta, Dalal, Levine, "AWAC: Accelerating online reinforcement learning with offline datasets", 2020,
    https://arxiv.org/abs/2006.09359. The defaults are those of the authors' script for Gym-MuJoCo (rlkit,
    ``examples/awac/mujoco/awac1.py``).

    Where the authors' code says more than the paper, and where this differs from it:

    1. The weights are softmax(A/λ) over the batch, times B, as in the code (``weighting="softmax"``): their mean is 1 whatever
       the scale of the advantages. The paper's equation, exp(A/λ), is ``weighting="exp"``, clipped at ``max_weight``.
    2. A is the smaller Q of the data's action minus the smaller Q of one sample of the actor (code; the paper has V^π(s)).
    3. The actor sees the critics after their step of this update (algorithm 1); in the code before it.
    4. Samples of the actor are clipped to the box before a critic judges them; the Gaussian is on the action itself, its mean
       squashed, and a sigmoid keeps log σ in (−6, 0), as in the code.
    5. Layers start as PyTorch's do; in the code hidden biases at 0 and the last layers within ± 1e-3 (actor) and ± 3e-3
       (critics).
    6. 1M updates, as in later comparisons of offline methods; the paper makes 25,000 before it goes online, the script 50,000.
    7. Batches are slices of random permutations; ``replacement=True`` draws as the code does.
    8. Actions are clipped to ± (1 − 1e-5).

    :param policy: ``"AWACPolicy"`` (alias ``"MlpPolicy"``) or a class
    :param env: see :class:`~sb3_genoffline.common.learner.Learner`
    :param learning_rate: of the actor, and of the critics unless ``critic_learning_rate`` is given
    :param batch_size: B
    :param lam: λ > 0, the temperature: large values are behaviour cloning
    :param weighting: ``"softmax"`` or ``"exp"``
    :param max_weight: largest weight of ``"exp"``
    :param actor_weight_decay: L2 penalty of Adam on the actor's parameters
    :param kwargs: the remaining arguments of :class:`~sb3_genoffline.common.learner.Learner`
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {"AWACPolicy": AWACPolicy, "MlpPolicy": AWACPolicy}
    default_gradient_steps = 1_000_000
    actor: GaussianActor

    def __init__(
        self,
        policy: str | type[AWACPolicy],
        env: EnvLike | None = None,
        learning_rate: Rate = 3e-4,
        critic_learning_rate: Rate | None = None,
        *,
        lam: Positive = 2.0,
        weighting: Weighting = "softmax",
        max_weight: Positive = 100.0,
        actor_weight_decay: NonNegative = 1e-4,
        batch_size: PositiveInt = 1024,
        lr_decay_steps: PositiveInt | None = None,
        max_grad_norm: Positive | None = None,
        reward_transform: RewardTransform = None,
        normalize_observations: Normalized = False,
        **kwargs: Unpack[OfflineArguments],
    ) -> None:
        self.lam = lam
        self.weighting = weighting
        self.max_weight = max_weight
        self.actor_weight_decay = actor_weight_decay
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
        """As the base; Adam's L2 penalty is on the actor alone."""
        self.add_networks("actor", "critic", "critic_target")
        self.add_optimizer("actor", self.actor.parameters(), options=lambda agent: {"weight_decay": agent.actor_weight_decay})
        self.add_optimizer("critic", self.critic.parameters())

    def overestimation_hint(self) -> str:
        """The arguments that help."""
        return (
            f"What helps: more imitation (lam above {self.lam}), rewards on a smaller scale (reward_transform), or LayerNorm "
            "(policy_kwargs=dict(critic_layer_norm=True))."
        )

    def draw_noise(self, batch_size: int) -> AWACNoise:
        """The random numbers of one update from this algorithm's generator."""
        return AWACNoise(*self.normal_noise(2, batch_size, self.policy.action_dim))

    def update(self, batch: TransitionBatch, noise: AWACNoise) -> dict[str, Tensor]:
        """
        One gradient step (algorithm 1).

        :param batch: B transitions
        :param noise: all random numbers of the step
        :return: scalars to log, on the device
        """
        states = self.policy.normalize_observations(batch.observations)  # (B, S)
        next_states = self.policy.normalize_observations(batch.next_observations)

        # ------ E[(Q_i(s, a) − y)²], y = r + γ·m·min_i Q̄_i(s', a'), a' ~ π(s')
        with th.no_grad():
            next_actions = self.actor.sample(next_states, noise.next_action).clamp(-1.0, 1.0)
            target = self.td_target(batch, self.critic_target(next_states, next_actions).amin(0))
        info = self.critic_step(states, batch.actions, target)

        # ------ −E[w·log π(a | s)], w from A = min_i Q_i(s, a) − min_i Q_i(s, a_π), a_π ~ π(s)
        with th.no_grad():
            own_actions = self.actor.sample(states, noise.baseline).clamp(-1.0, 1.0)
            advantages = self.critic(states, batch.actions).amin(0) - self.critic(states, own_actions).amin(0)  # (B,)
            weights = self.weights(advantages)
        actor_loss = -(weights * self.actor.log_prob(states, batch.actions)).mean()
        gradient_step(self.actor_optimizer, actor_loss, self.actor_rate_now(), self.max_grad_norm)

        soft_update(self.critic, self.critic_target, self.tau)
        return info | {
            "actor_loss": actor_loss.detach(),
            "advantage_mean": advantages.mean(),
            "weight_max": weights.max(),
            "actor_std": self.actor.std().detach().mean(),
        }

    def weights(self, advantages: Tensor) -> Tensor:
        """
        What a row's log-likelihood counts.

        :param advantages: (B,)
        :return: (B,), not negative
        """
        if self.weighting == "exp":
            return (advantages / self.lam).exp().clamp_max(self.max_weight)
        return len(advantages) * (advantages / self.lam).softmax(0)
