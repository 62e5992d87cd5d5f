"""IDQL (Hansen-Estruch, Kostrikov, Janner, Kuba & Levine 2023, arXiv 2304.10573)."""

from functools import partial
from typing import Annotated, Any, ClassVar, NamedTuple, Unpack

import torch as th
from stable_baselines3.common.policies import BasePolicy
from torch import Tensor

from sb3_genoffline.common.actor_critic import ActorCriticAlgorithm
from sb3_genoffline.common.arguments import (
    Bounds,
    DiffusionSteps,
    NCandidates,
    NoiseScale,
    NonNegative,
    Normalized,
    Positive,
    PositiveInt,
    PositiveShare,
    Rate,
    RewardTransform,
)
from sb3_genoffline.common.envs import EnvLike
from sb3_genoffline.common.keywords import OfflineArguments
from sb3_genoffline.common.optimizers import gradient_step
from sb3_genoffline.data.buffers import TransitionBatch
from sb3_genoffline.generative.diffusion import ActionDiffusion, BetaSchedule
from sb3_genoffline.idql.implicit import Objective, convex_loss
from sb3_genoffline.idql.policies import IDQLPolicy, Selection
from sb3_genoffline.nets.ensembles import soft_update
from sb3_genoffline.nets.values import StateValue


class IDQLNoise(NamedTuple):
    """
    All random numbers of one update.

    :param t: (B,) integers uniform in 1..T
    :param eps: (B, A) standard normal, the noise added to the data's actions
    :param dropout: (B, blocks, width) uniform in [0, 1), of the actor's dropout; None without it
    """

    t: Tensor
    eps: Tensor
    dropout: Tensor | None


class IDQL(ActorCriticAlgorithm[IDQLNoise]):
    r"""
    IQL's critics and a diffusion model of the behaviour, trained independently. When acting, the critics take the best of
    many samples of the model.

    Paper: Hansen-Estruch, Kostrikov, Janner, Kuba, Levine, "IDQL: implicit Q-learning as an actor-critic method with diffusion
    policies", 2023, https://arxiv.org/abs/2304.10573. The defaults are those of the authors' code at the time of the paper
    (philippe-eecs/IDQL at 6b071e7), whose scores the later, cheaper one is said not to reach.

    Where paper and code disagree, or where this differs from the code:

    1. The action is the best of the candidates, which the code evaluates; the draw by importance weights, which the paper
       writes, is ``selection="implicit"``.
    2. Of each batch's 2048 rows the actor has two updates of 1024, as the code's comments intend. Its slicing leaves the
       second one empty: a step without a gradient, which moves along Adam's decayed momentum, and a move of the slow copy.
    3. A denoising step clamps x_t, not x̂0 (code); x_T is not clamped.
    4. The actor's error is summed over action dimensions (code), and V and Q learn from the batch's first 256 rows (code).
    5. The critics' loss is summed over both; the code's is their mean. Adam makes no difference of a factor.
    6. All rows are trained on; the code holds 5% out for a validation loss.
    7. Batches are slices of random permutations; ``replacement=True`` draws as the code does.
    8. V's default loss is the expectile's, which the code's launcher uses. The code divides the quantile's weights of the draw
       by a signed u, which makes some of them negative; here it is \|u\|. The exponential is a straight line where α·u > 10.
    9. The later code's recipe is the profile ``head`` (``idql/hyperparameters.yml``).
    10. An ``acting_noise_scale`` other than 1 is an option the paper does not have.

    :param policy: ``"IDQLPolicy"`` (alias ``"MlpPolicy"``) or a class
    :param env: see :class:`~sb3_genoffline.common.learner.Learner`
    :param learning_rate: of the actor, and of critics and V unless ``critic_learning_rate`` is given
    :param critic_learning_rate: of critics and V (None: ``learning_rate``)
    :param lr_decay_steps: horizon of the cosine decay of the actor's rate, in updates of the actor; None: none
    :param batch_size: rows of an update
    :param critic_batch_size: of these, the rows that critics and V learn from
    :param actor_updates: steps of the actor in an update, which share the rows among them
    :param value_objective: the convex loss of Q − V that V descends: ``"expectile"``, ``"quantile"`` or ``"exponential"``, see
        :func:`~sb3_genoffline.idql.implicit.convex_loss`
    :param expectile: τ in (0, 1) of the expectile or the quantile: 0.5 is the mean or the median over the data's actions,
        towards 1 the best of them
    :param exponential_scale: α of the exponential, per unit of (transformed) reward: towards 0 V is the mean over the data's
        actions, the larger α, the nearer to the best of them
    :param n_diffusion_steps: T
    :param beta_schedule: ``"vp"``, ``"linear"`` or ``"cosine"``
    :param n_action_samples: N, candidates when acting (``predict(deterministic=True)``). They are drawn, so the action differs
        from call to call: ``model.set_acting_seed(seed)`` before makes it the same again.
    :param acting_noise_scale: factor of all noise that actions are sampled from when acting; training is not touched
    :param selection: ``"best"`` or ``"implicit"``, see :class:`~sb3_genoffline.idql.policies.IDQLPolicy`
    :param actor_tau: share of the actor that its slow copy takes over in each of its updates
    :param actor_weight_decay: of AdamW, for the actor
    :param reward_transform: the settings are made for returns that span 1000, which the default gives
    :param kwargs: the remaining arguments of :class:`~sb3_genoffline.common.learner.Learner`
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {"IDQLPolicy": IDQLPolicy, "MlpPolicy": IDQLPolicy}
    default_gradient_steps = 1_500_000
    further_networks = ("value",)
    actor: ActionDiffusion
    actor_target: ActionDiffusion
    value: StateValue
    value_optimizer: th.optim.Optimizer

    def __init__(
        self,
        policy: str | type[IDQLPolicy],
        env: EnvLike | None = None,
        learning_rate: Rate = 3e-4,
        critic_learning_rate: Rate | None = None,
        *,
        critic_batch_size: PositiveInt = 256,
        actor_updates: PositiveInt = 2,
        value_objective: Objective = "expectile",
        expectile: Annotated[float, Bounds(0.0, 1.0, open_low=True, open_high=True)] = 0.7,
        exponential_scale: Positive = 1.0,
        n_diffusion_steps: DiffusionSteps = 5,
        beta_schedule: BetaSchedule = "vp",
        n_action_samples: NCandidates = 64,
        acting_noise_scale: NoiseScale = 1.0,
        selection: Selection = "best",
        actor_tau: PositiveShare = 0.001,
        actor_weight_decay: NonNegative = 0.0,
        batch_size: PositiveInt = 2048,
        lr_decay_steps: PositiveInt | None = 3_000_000,
        max_grad_norm: Positive | None = None,
        reward_transform: RewardTransform = "iql_locomotion",
        normalize_observations: Normalized = False,
        **kwargs: Unpack[OfflineArguments],
    ) -> None:
        self.critic_batch_size = critic_batch_size
        self.actor_updates = actor_updates
        self.value_objective = value_objective
        self.expectile = expectile
        self.exponential_scale = exponential_scale
        self.n_diffusion_steps = n_diffusion_steps
        self.beta_schedule = beta_schedule
        self.n_action_samples = n_action_samples
        self.acting_noise_scale = acting_noise_scale
        self.selection = selection
        self.actor_tau = actor_tau
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

    def policy_arguments(self) -> dict[str, Any]:
        """See :meth:`~sb3_genoffline.common.learner.Learner.policy_arguments`."""
        names = ("n_diffusion_steps", "beta_schedule", *IDQLPolicy.acting_settings)
        return {name: getattr(self, name) for name in names}

    def declare_state(self) -> None:
        """Actor, critics and V, with an optimizer each; the actor's decays weights apart from the gradient."""
        super().declare_state()
        self.add_optimizer(
            "actor",
            self.actor.parameters(),
            options=lambda agent: {"weight_decay": agent.actor_weight_decay},
            usual=th.optim.AdamW,
        )
        self.add_optimizer("value", self.value.parameters())

    def overestimation_hint(self) -> str:
        """The arguments that help."""
        name = "exponential_scale" if self.value_objective == "exponential" else "expectile"
        return f"What helps: a smaller {name}={getattr(self, name)}, or policy_kwargs=dict(value_layer_norm=True)."

    def draw_noise(self, batch_size: int) -> IDQLNoise:
        """The random numbers of one update from this algorithm's generator."""
        factory: dict[str, Any] = {"generator": self.generator, "device": self.device}
        network: Any = self.actor.noise_net
        shape = (batch_size, network.n_blocks, network.width)
        return IDQLNoise(
            t=th.randint(1, self.n_diffusion_steps + 1, (batch_size,), **factory),
            eps=self.normal_noise(batch_size, self.policy.action_dim),
            dropout=th.rand(shape, **factory) if network.dropout > 0 else None,
        )

    def _rate_of_step(self, number: int) -> float:
        """The actor's learning rate at one of its steps of the coming update; the cosine counts these steps."""
        return self._decayed(self.learning_rate, self.actor_updates * self._n_updates + number)

    def update(self, batch: TransitionBatch, noise: IDQLNoise) -> dict[str, Tensor]:
        """
        One gradient step of critics and V, and ``actor_updates`` of the actor.

        :param batch: B transitions
        :param noise: all random numbers of the step
        :return: scalars to log, on the device
        """
        states = self.policy.normalize_observations(batch.observations)  # (B, S)

        # ------ E[Σ_A (ε_θ(√ᾱ_t·a + √(1 − ᾱ_t)·ε, s, t) − ε)²], on one part of the rows after the other
        noisy_actions = self.actor.add_noise(batch.actions, noise.eps, noise.t)
        share = -(-len(states) // self.actor_updates)
        losses = []
        for number, start in enumerate(range(0, len(states), share)):
            rows = slice(start, start + share)
            dropout = None if noise.dropout is None else noise.dropout[rows]
            predicted = self.actor(states[rows], noisy_actions[rows], noise.t[rows], dropout)
            loss = (predicted - noise.eps[rows]).square().sum(-1).mean()
            rate = self.number_now(partial(self._rate_of_step, number))
            gradient_step(self.actor_optimizer, loss, rate, self.max_grad_norm)
            soft_update(self.actor, self.actor_target, self.actor_tau)
            losses.append(loss.detach())

        # ------ E[f(min_i Q̄_i(s, a) − V(s))]
        rows_of_critics = TransitionBatch(*(column[: self.critic_batch_size] for column in batch))
        states, actions = states[: self.critic_batch_size], rows_of_critics.actions
        with th.no_grad():
            target_q = self.critic_target(states, actions).amin(0)  # (b,)
        values = self.value(states)
        value_loss = convex_loss(target_q - values, self.value_objective, self.expectile, self.exponential_scale).mean()
        gradient_step(self.value_optimizer, value_loss, self.critic_rate_now(), self.max_grad_norm)

        # ------ E[(r + γ·m·V(s') − Q_i(s, a))²] with the V of this update
        with th.no_grad():
            next_values = self.value(self.policy.normalize_observations(rows_of_critics.next_observations))
            target = self.td_target(rows_of_critics, next_values)
        info = self.critic_step(states, actions, target)

        soft_update(self.critic, self.critic_target, self.tau)
        return info | {
            "actor_loss": th.stack(losses).mean(),
            "value_loss": value_loss.detach(),
            "v_mean": values.detach().mean(),
        }
