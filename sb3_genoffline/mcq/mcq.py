"""Mildly Conservative Q-learning (Lyu et al., NeurIPS 2022, arXiv 2206.04745)."""

from typing import Any, ClassVar, NamedTuple, Unpack

import torch as th
from stable_baselines3.common.policies import BasePolicy
from torch import Tensor

from sb3_genoffline.common.arguments import (
    NonNegative,
    Normalized,
    Positive,
    PositiveInt,
    PositiveShare,
    Rate,
    RewardTransform,
    SampleCount,
)
from sb3_genoffline.common.behavior_vae import BehaviorVAEAlgorithm
from sb3_genoffline.common.envs import EnvLike
from sb3_genoffline.common.keywords import OfflineArguments
from sb3_genoffline.common.optimizers import gradient_step
from sb3_genoffline.data.buffers import TransitionBatch
from sb3_genoffline.errors import UserError
from sb3_genoffline.mcq.policies import MCQPolicy
from sb3_genoffline.nets.actors import SquashedGaussianActor
from sb3_genoffline.nets.ensembles import soft_update


class MCQNoise(NamedTuple):
    """
    The random numbers of one update, all standard normal. "Both" are the B states and the B next ones.

    :param vae: (B, 1, Z), of the VAE's own step
    :param actor: (B, A), of the action that climbs Q and sets the entropy's weight
    :param target: (B, A), of the next action in the target
    :param latents: (2B, N, Z), of N actions of the VAE at both
    :param outside: (2B, N, A), of N actions of the actor at both
    """

    vae: Tensor
    actor: Tensor
    target: Tensor
    latents: Tensor
    outside: Tensor


class MCQ(BehaviorVAEAlgorithm[MCQNoise]):
    """
    Mildly Conservative Q-learning: SAC whose critics learn, beside the Bellman equation at the data's actions, that the
    policy's actions are worth no more than the best of some actions of a VAE of behaviour. So actions outside the data get a
    sensible value instead of being pushed down.

    Paper: Lyu, Ma, Li, Lu, "Mildly Conservative Q-Learning for Offline Reinforcement Learning", NeurIPS 2022,
    https://arxiv.org/abs/2206.04745. Its code is https://github.com/dmksjfl/MCQ at 1f27c77, which today has no licence and of
    which nothing is copied. The paper's text could not be read again for this.

    Where the authors' code says more than the paper, and where this differs from it:

    1. The pseudo-target y' is as it comes. Since September 2022 the code raises it to at least 0 on all tasks: where values
       are negative, as with AntMaze's rewards less 1, every action outside the data then gets the best value there is. That
       is ``target_floor=0.0``; it warns once if the data's mean reward says that values are below the floor.
    2. The policy's actions are drawn to y' from above and from below. Since then the code has, for five Gym-MuJoCo sets, only
       what exceeds y' − 5, and only where the n-th action is at least √0.1 away from the VAE's n-th
       (``one_sided=True, margin=5.0, gate_distance=0.1``), and for four Maze2D sets only what exceeds y' (``one_sided=True``).
       The profile ``official`` has the floor for all sets and this for those five.
    3. y' takes the best of N actions for each critic, then the smaller of both; the online critics judge (code). Both critics
       judge the same N actions; in the code each draws its own.
    4. Three hidden layers of 400 (code: its configuration says two, its module adds one).
    5. The VAE's loss is a sum over actions and latents (code), A times ours with ``beta=2``, which is the same to Adam.
    6. The target has SAC's entropy term; the entropy's weight moves first (code).
    7. log σ is within [−5, 2] (code), not within SAC's [−20, 2].
    8. Batches are slices of random permutations; ``replacement=True`` draws as the code does.
    9. Actions are clipped to ± (1 − 1e-5).

    :param policy: ``"MCQPolicy"`` (alias ``"MlpPolicy"``) or a class
    :param env: see :class:`~sb3_genoffline.common.learner.Learner`
    :param learning_rate: of the actor and of the entropy's weight, and of the critics unless ``critic_learning_rate`` is given
    :param critic_learning_rate: of the critics (None: ``learning_rate``)
    :param lam: λ in (0, 1], weight of the Bellman error; 1 − λ is that of the policy's actions. 1 is SAC. It is chosen by
        dataset, see ``mcq/hyperparameters.yml``
    :param n_actions: N, actions of the VAE and of the policy for each state
    :param latent_clip: the VAE's latents are clipped to ± this where actions are drawn
    :param vae_learning_rate: of the VAE
    :param beta: β, weight of the VAE's KL term; the smaller, the finer actions are told apart
    :param target_floor: smallest y' (None: none), see 1
    :param one_sided: only values above y' − ``margin`` are lowered, see 2
    :param margin: see ``one_sided``
    :param gate_distance: squared distance to the VAE's action from which on a policy's action counts (None: all do), see 2
    :param target_entropy: of SAC (None: minus the number of action dimensions)
    :param kwargs: the remaining arguments of :class:`~sb3_genoffline.common.learner.Learner`
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {"MCQPolicy": MCQPolicy, "MlpPolicy": MCQPolicy}
    baselines: ClassVar[dict[str, dict[str, Any]]] = {"no conservatism": {"lam": 1}}
    default_gradient_steps = 1_000_000
    policy: MCQPolicy
    actor: SquashedGaussianActor
    log_entropy_weight: Tensor
    entropy_optimizer: th.optim.Optimizer

    def __init__(
        self,
        policy: str | type[MCQPolicy],
        env: EnvLike | None = None,
        learning_rate: Rate = 3e-4,
        critic_learning_rate: Rate | None = None,
        *,
        lam: PositiveShare = 0.7,
        n_actions: SampleCount = 10,
        latent_clip: Positive = 0.5,
        vae_learning_rate: Rate = 1e-3,
        beta: Positive = 2.0,
        target_floor: float | None = None,
        one_sided: bool = False,
        margin: NonNegative = 0.0,
        gate_distance: NonNegative | None = None,
        target_entropy: float | None = None,
        batch_size: PositiveInt = 256,
        lr_decay_steps: PositiveInt | None = None,
        max_grad_norm: Positive | None = None,
        reward_transform: RewardTransform = None,
        normalize_observations: Normalized = False,
        **kwargs: Unpack[OfflineArguments],
    ) -> None:
        self.lam = lam
        self.n_actions = n_actions
        self.latent_clip = latent_clip
        self.target_floor = target_floor
        self.one_sided = one_sided
        self.margin = margin
        self.gate_distance = gate_distance
        self.target_entropy = target_entropy
        super().__init__(
            policy,
            env,
            learning_rate,
            critic_learning_rate,
            vae_learning_rate=vae_learning_rate,
            beta=beta,
            batch_size=batch_size,
            lr_decay_steps=lr_decay_steps,
            max_grad_norm=max_grad_norm,
            reward_transform=reward_transform,
            normalize_observations=normalize_observations,
            **kwargs,
        )

    def check_arguments(self) -> None:
        """A margin says how far below y' a value is lowered, which only ``one_sided`` does."""
        if self.margin > 0 and not self.one_sided:
            raise UserError(f"margin={self.margin} has no effect without one_sided=True.")

    def declare_state(self) -> None:
        """Actor, critics, VAE, and the logarithm of the entropy's weight, with an optimizer each."""
        super().declare_state()
        self.add_variable("log_entropy_weight", lambda _: 0.0, requires_grad=True)
        self.add_optimizer("entropy", [self.log_entropy_weight], th.optim.Adam)

    def overestimation_hint(self) -> str:
        """The arguments that help."""
        return f"What helps: a smaller lam={self.lam}, or LayerNorm (policy_kwargs=dict(critic_layer_norm=True))."

    def draw_noise(self, batch_size: int) -> MCQNoise:
        """The random numbers of one update from this algorithm's generator."""
        b, n, action_dim, latent_dim = batch_size, self.n_actions, self.policy.action_dim, self.vae.latent_dim
        return MCQNoise(
            vae=self.normal_noise(b, 1, latent_dim),
            actor=self.normal_noise(b, action_dim),
            target=self.normal_noise(b, action_dim),
            latents=self.normal_noise(2 * b, n, latent_dim),
            outside=self.normal_noise(2 * b, n, action_dim),
        )

    def update(self, batch: TransitionBatch, noise: MCQNoise) -> dict[str, Tensor]:
        """
        One gradient step, in the code's order.

        :param batch: B transitions
        :param noise: all random numbers of the step
        :return: scalars to log, on the device
        """
        states = self.policy.normalize_observations(batch.observations)  # (B, S)
        next_states = self.policy.normalize_observations(batch.next_observations)
        rate = self.actor_rate_now()

        # ------ E[(â − a)²] + β·E[KL(q(z | s, a) ‖ N(0, I))]
        info = self.vae_step(states, batch.actions, noise.vae)

        # ------ SAC's entropy weight: −log α·E[log π(a|s) + H], whose target entropy H is −A
        actions, log_prob = self.actor.sample(states, noise.actor)  # (B, A), (B,)
        wanted = -self.policy.action_dim if self.target_entropy is None else self.target_entropy
        gradient_step(self.entropy_optimizer, -self.log_entropy_weight * (log_prob.detach() + wanted).mean(), rate)
        entropy_weight = self.log_entropy_weight.detach().exp()

        # ------ λ·Σ_i E[(Q_i(s, a) − y)²] + (1 − λ)·Σ_i E[(Q_i(s, a_n) − y'(s))²], the latter over s and s', a_n ~ π
        with th.no_grad():
            target = self.bellman_target(batch, next_states, noise.target, entropy_weight)  # y, (B,)
            both = th.cat([states, next_states])  # (2B, S)
            proposed = self.vae.decode(both, noise.latents.clamp(-self.latent_clip, self.latent_clip))  # (2B, N, A)
            outside = self.actor.sample(both, noise.outside)[0]  # (2B, N, A)
            pseudo_target = best_value(self.critic.score_samples(both, proposed))  # y', (2B,)
            if self.target_floor is not None:
                info["floored_share"] = (pseudo_target < self.target_floor).float().mean()
                pseudo_target = pseudo_target.clamp_min(self.target_floor)
        q, outside_q = self.critic(states, batch.actions), self.critic.of_samples(both, outside)  # (2, B), (2, 2B, N)
        errors = self.outside_errors(outside_q, pseudo_target, outside, proposed)
        td_loss = (q - target).square().mean(1)  # (2,)
        critic_loss = self.lam * td_loss + (1.0 - self.lam) * errors.square().mean((1, 2))
        gradient_step(self.critic_optimizer, critic_loss.sum(), self.critic_rate_now(), self.max_grad_norm)

        # ------ E[α·log π(a|s) − min_i Q_i(s, a)], a ~ π(·|s), the critics have moved
        actor_loss = (entropy_weight * log_prob - self.critic(states, actions).amin(0)).mean()
        gradient_step(self.actor_optimizer, actor_loss, rate, self.max_grad_norm)

        soft_update(self.critic, self.critic_target, self.tau)
        outside_value, pseudo_value = outside_q.detach().mean(), pseudo_target.mean()
        return info | {
            "critic_loss": td_loss.detach().sum(),
            "q_mean": q.detach().mean(),
            "outside_loss": errors.detach().square().mean((1, 2)).sum(),
            "outside_q": outside_value,
            "pseudo_target": pseudo_value,
            "outside_gap": outside_value - pseudo_value,
            "actor_loss": actor_loss.detach(),
            "entropy": -log_prob.detach().mean(),
            "entropy_weight": entropy_weight,
        }

    @th.no_grad()
    def bellman_target(self, batch: TransitionBatch, next_states: Tensor, noise: Tensor, entropy_weight: Tensor) -> Tensor:
        """
        y = r + γ·m·(min_i Q̄_i(s', a') − α·log π(a'|s')), a' ~ π(·|s').

        :param batch: B transitions
        :param next_states: (B, S)
        :param noise: (B, A)
        :param entropy_weight: α
        :return: (B,)
        """
        actions, log_prob = self.actor.sample(next_states, noise)
        return self.td_target(batch, self.critic_target(next_states, actions).amin(0) - entropy_weight * log_prob)

    def outside_errors(self, q: Tensor, pseudo_target: Tensor, outside: Tensor, proposed: Tensor) -> Tensor:
        """
        What the critics' values of the policy's actions are off by.

        :param q: of the policy's actions, (2, B, N)
        :param pseudo_target: y', (B,): one for all N actions of a state
        :param outside: the policy's actions, (B, N, A)
        :param proposed: the VAE's actions, (B, N, A)
        :return: (2, B, N)
        """
        errors = q - (pseudo_target - self.margin).unsqueeze(-1)
        if self.one_sided:
            errors = errors.relu()
        if self.gate_distance is not None:
            errors = errors * ((outside - proposed).square().sum(-1) >= self.gate_distance)
        return errors

    def watch(self, metrics: dict[str, float]) -> None:
        """Warn of silent latents, and once where the floor is above what the data are worth."""
        super().watch(metrics)
        info = self.dataset_info
        if self.target_floor is None or not {"mean_return", "n_episodes", "n_transitions"} <= info.keys():
            return
        raw = info["mean_return"] * info["n_episodes"] / info["n_transitions"]
        reward = info.get("reward_scale", 1.0) * raw + info.get("reward_shift", 0.0)
        if reward < (1.0 - self.gamma) * self.target_floor:
            self.monitor.warn_once(
                "target_floor",
                f"A step of the data is worth {reward:.4g} on average, so that values lie below target_floor="
                f"{self.target_floor:g}: every action outside the data is taught to be better than the data's. Set "
                "target_floor=None, or a reward_transform that makes rewards positive.",
            )


def best_value(q: Tensor) -> Tensor:
    """
    The best of a state's actions for each critic, then the smaller of the critics; the other order gives less.

    :param q: (H, B, N)
    :return: (B,)
    """
    return q.amax(-1).amin(0)
