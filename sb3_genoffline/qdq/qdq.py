"""Q-Distribution guided Q-learning (Zhang et al., NeurIPS 2024, arXiv 2410.20312)."""

from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Unpack

import numpy as np
import torch as th
from stable_baselines3.common.policies import BasePolicy
from torch import Tensor
from torch.nn.functional import mse_loss

from sb3_genoffline.common.actor_critic import ActorCriticAlgorithm, smoothed
from sb3_genoffline.common.arguments import (
    Bounds,
    Count,
    NonNegative,
    Normalized,
    Positive,
    PositiveInt,
    Rate,
    RewardTransform,
    SampleCount,
    Share,
    TakenOver,
)
from sb3_genoffline.common.envs import EnvLike
from sb3_genoffline.common.fitting import Fit
from sb3_genoffline.common.in_sample import exponential_weights
from sb3_genoffline.common.keywords import OfflineArguments
from sb3_genoffline.common.optimizers import gradient_step
from sb3_genoffline.common.policy_files import global_rng_preserved
from sb3_genoffline.data.buffers import TransitionBatch
from sb3_genoffline.data.windows import windowed_returns
from sb3_genoffline.errors import UserError
from sb3_genoffline.files.archive import PathOrFile
from sb3_genoffline.nets.actors import GaussianActor
from sb3_genoffline.nets.ensembles import soft_update
from sb3_genoffline.program import PROGRAM
from sb3_genoffline.qdq.diagnostics import detection_report, uncertainty_samples
from sb3_genoffline.qdq.fit import DistillationFit, QItems, TeacherFit, teacher_and_average
from sb3_genoffline.qdq.penalty import Penalty, penalized_value, penalty_weight, uncertain_actions
from sb3_genoffline.qdq.policies import ConsistencyQPolicy
from sb3_genoffline.qdq.sampler import ConsistencyQ

ActorObjective = Literal["q_bc", "awr"]
_DIAGNOSTIC_ROWS = 256
_AWR_SAMPLES, _AWR_LARGEST_WEIGHT = 30, 100.0


class QDQNoise(NamedTuple):
    """
    All random numbers of one update, standard normal.

    :param target_policy: (B, A), for a sample of the target actor
    :param smoothing: (B, A), noise on the target action
    :param q: (B, n), for the samples of the consistency model
    :param awr: (B, 30, A), for the baseline of ``actor_objective="awr"``
    """

    target_policy: Tensor
    smoothing: Tensor
    q: Tensor
    awr: Tensor | None = None


class QDQ(ActorCriticAlgorithm[QDQNoise]):
    """
    Q-Distribution guided Q-learning: a consistency model learns the distribution of truncated returns of (s, a) in the data;
    the spread H of its samples marks uncertain actions, whose Q-targets are penalised.

    Paper: Zhang, Fang, Shi, Wang, Jing, "Q-Distribution guided Q-learning for offline reinforcement learning: Uncertainty
    penalized Q-value via consistency model", NeurIPS 2024, https://arxiv.org/abs/2410.20312. :meth:`learn_offline` runs four
    phases: A, the windowed returns; B, a diffusion teacher on them; C, a consistency model distilled from it; D, a TD3-like
    actor-critic whose ``num_timesteps`` are counted. B and C have their own progress bars and log keys (``teacher/``,
    ``distillation/``), and are left out when there is a fitted model already.

    Where the paper's text and its released code disagree:

    1. ``alpha``, ``beta`` and ``lam`` per dataset are in ``qdq/hyperparameters.yml``: the code's values as each dataset's
       entry, table G.2's as the profile ``paper``; these differ, for walker2d in β too. The defaults are the code's
       halfcheetah α and β and hopper λ.
    2. antmaze-umaze-diverse has α = 0.01 in the code and 0.99 in the paper; the code's is in the table.
    3. B and C take 800,000 and 1,600,000 steps (code, and the counters in its checkpoints; the paper lost a zero).
    4. Outside U the multiplier is β for ``paper`` and 1 for the code's two antmaze modes, which the paper does not mention.
    5. The actor's Q-term is taken at the mean action and its second term is a behaviour-cloning log-likelihood (code); the
       paper samples the action and calls the second term entropy. AWR is the code's choice for five antmaze sets.
    6. The target action is a sample of the target actor's Gaussian when ``lam`` > 0, plus TD3's noise (code); the two noises
       are independent here, where the code reuses one random key.
    7. antmaze networks have two hidden layers in the code, three in the paper; the zoo's file follows the code.
    8. H is the population standard deviation (code; the paper's divides by n − 1).
    9. Actor and targets move every second update (code; algorithm 1: every update).
    10. The discount of a window counts from its start (code; the paper's exponent counts from the trajectory's).
    11. Trajectories of at most ``window`` steps give one item, and steps near a longer one's end none (code);
        ``full_coverage=True`` slides on to the end, which data of short episodes need.
    12. The consistency model starts from the teacher's weights and trains on all noise levels, as the consistency paper has
        it, which takes far fewer steps; the code starts at random and never trains the largest level
        (``cd_init="random", cd_first_index=1``: in the zoo's entries of the published datasets).
    13. Samples come from the trained weights, not their average (code; ``cd_average=True`` for the other).
    14. LayerNorm, which the code sets for antmaze-large, is in the critics only; here it has no learned scale and shift, and
        PyTorch's eps of 1e-5 instead of 1e-6.
    15. The critics' gradient is clipped to norm 10 and the actor's rate decays by a cosine that counts its own updates, so
        that it ends at half the rate after 1M updates (code; not in the paper).

    Differences from the released code:

    16. Batches of phases B and C are drawn with replacement; those of phase D are slices of random permutations, unless
        ``replacement=True``. The code draws each batch of all three afresh, its rows distinct.
    17. The average of phase C moves after steps 5, 10, 15, ...; in the code after 1, 6, 11, ...
    18. That average has the model's Fourier weights from the start; in the code it has its own, which are averaged too.
    19. 1/H is bounded by 1e6.
    20. ``mean_backup=True`` takes the target actor's mean in the backup whatever λ is: where the actor's σ has learned the
        data's noise, a sample values actions that the agent, which acts by its mean, does not take.
    21. ``penalty="floor"`` (pessimistic whatever the sign of Q and the scale of H), ``penalty="none"`` (w ≡ 1, no phases B and
        C), ``normalize_observations``, ``replacement``, other network sizes: options, off by default.

    :param policy: ``"ConsistencyQPolicy"`` (alias ``"MlpPolicy"``) or a class
    :param env: see :class:`~sb3_genoffline.common.learner.Learner`
    :param learning_rate: of the actor, and of the critics unless ``critic_learning_rate`` is given
    :param critic_learning_rate: of the critics (None: ``learning_rate``), without decay
    :param lr_decay_steps: horizon of the cosine decay of the actor's rate, in actor updates; None: none
    :param alpha: α, weight of the ordinary Bellman loss; 1 − α is that of the penalised one (eq. 7)
    :param beta: β, the quantile of a batch's H above which an action counts as uncertain, and the multiplier of the others
    :param lam: λ, weight of the log-likelihood of the data's actions in the actor's loss (γ in eq. 9)
    :param penalty: ``"paper"``, ``"antmaze_awr"``, ``"antmaze_q"``, ``"floor"`` or ``"none"``; see
        :func:`~sb3_genoffline.qdq.penalty.penalty_weight`
    :param q_floor: for ``"floor"``, the smallest value possible: 0 for rewards ≥ 0, else r_min/(1 − γ)
    :param actor_objective: ``"q_bc"`` (Q-term and log-likelihood) or ``"awr"`` (advantage-weighted log-likelihood)
    :param awr_temperature: factor on the advantage in AWR's exponent
    :param n_q_samples: n, samples that H is the spread of
    :param mean_backup: the target action is the target actor's mean, with ``lam`` > 0 too
    :param policy_delay: updates of the critics per update of the actor and the targets
    :param target_policy_noise: std of the noise on the target action
    :param target_noise_clip: its largest absolute value
    :param max_grad_norm: L2 clip of the critics' gradient
    :param window: W, rewards in a window of phase A
    :param stride: steps between the starts of two windows
    :param max_windows: windows per trajectory
    :param full_coverage: windows up to each trajectory's last step
    :param q_batch_size: batch size of phases B and C
    :param teacher_steps: of phase B
    :param teacher_learning_rate: Adam's, cosine decay to 0
    :param cd_steps: of phase C
    :param cd_learning_rate: RAdam's, cosine decay to 0
    :param cd_n: N, noise levels of the distillation
    :param cd_first_index: smallest index of the levels that are trained, 0 being the largest
    :param cd_init: start from the ``"teacher"`` or from ``"random"`` weights
    :param cd_ema: rate of the target's moving average
    :param cd_ema_every: steps between two moves of it
    :param cd_average: sample from the moving average
    :param q_sampler: a fitted :class:`~sb3_genoffline.qdq.sampler.ConsistencyQ`, or a file of
        :meth:`save_fitted_model`, instead of phases A to C; None once it is taken over
    :param kwargs: the remaining arguments of :class:`~sb3_genoffline.common.learner.Learner`
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {
        "ConsistencyQPolicy": ConsistencyQPolicy,
        "MlpPolicy": ConsistencyQPolicy,
    }
    fitted_model_arguments = "policy_kwargs=dict(q_net_arch=..., q_data_std=...)"
    fitted_model_units = ("gamma", "reward_transform", "normalize_observations")
    default_gradient_steps = 1_000_000
    baselines: ClassVar[dict[str, dict[str, Any]]] = {"no penalty": {"penalty": "none"}}
    policy: ConsistencyQPolicy
    actor: GaussianActor
    actor_target: GaussianActor

    def __init__(
        self,
        policy: str | type[ConsistencyQPolicy],
        env: EnvLike | None = None,
        learning_rate: Rate = 3e-4,
        critic_learning_rate: Rate | None = None,
        *,
        alpha: Share = 0.992,
        beta: Share = 0.9,
        lam: NonNegative = 0.8,
        penalty: Penalty = "paper",
        q_floor: float = 0.0,
        actor_objective: ActorObjective = "q_bc",
        awr_temperature: NonNegative = 6.0,
        n_q_samples: SampleCount = 50,
        mean_backup: bool = False,
        policy_delay: PositiveInt = 2,
        target_policy_noise: NonNegative = 0.2,
        target_noise_clip: NonNegative = 0.5,
        window: PositiveInt = 200,
        stride: PositiveInt = 10,
        max_windows: PositiveInt = 100,
        full_coverage: bool = False,
        q_batch_size: PositiveInt = 256,
        teacher_steps: PositiveInt = 800_000,
        teacher_learning_rate: NonNegative = 5e-4,
        cd_steps: PositiveInt = 1_600_000,
        cd_learning_rate: NonNegative = 4e-4,
        cd_n: Annotated[int, Bounds(2)] = 1000,
        cd_first_index: Count = 0,
        cd_init: Literal["teacher", "random"] = "teacher",
        cd_ema: Share = 0.005,
        cd_ema_every: PositiveInt = 5,
        cd_average: bool = False,
        q_sampler: Annotated[ConsistencyQ | PathOrFile | None, TakenOver] = None,
        batch_size: PositiveInt = 256,
        lr_decay_steps: PositiveInt | None = 1_000_000,
        max_grad_norm: Positive | None = 10.0,
        reward_transform: RewardTransform = None,
        normalize_observations: Normalized = False,
        **kwargs: Unpack[OfflineArguments],
    ) -> None:
        self.alpha = alpha
        self.beta = beta
        self.lam = lam
        self.penalty = penalty
        self.q_floor = q_floor
        self.actor_objective = actor_objective
        self.awr_temperature = awr_temperature
        self.n_q_samples = n_q_samples
        self.mean_backup = mean_backup
        self.policy_delay = policy_delay
        self.target_policy_noise = target_policy_noise
        self.target_noise_clip = target_noise_clip
        self.window = window
        self.stride = stride
        self.max_windows = max_windows
        self.full_coverage = full_coverage
        self.q_batch_size = q_batch_size
        self.teacher_steps = teacher_steps
        self.teacher_learning_rate = teacher_learning_rate
        self.cd_steps = cd_steps
        self.cd_learning_rate = cd_learning_rate
        self.cd_n = cd_n
        self.cd_first_index = cd_first_index
        self.cd_init = cd_init
        self.cd_ema = cd_ema
        self.cd_ema_every = cd_ema_every
        self.cd_average = cd_average
        self.q_sampler = q_sampler
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

    def check_arguments(self) -> None:
        """See :meth:`~sb3_genoffline.common.learner.Learner.check_arguments`."""
        if self.n_q_samples < 2:
            raise UserError(f"n_q_samples={self.n_q_samples} must be at least 2: H is a standard deviation.")
        if self.cd_first_index > self.cd_n - 2:
            raise UserError(f"cd_first_index={self.cd_first_index} must lie in 0..cd_n − 2, and cd_n is {self.cd_n}.")

    def policy_arguments(self) -> dict[str, Any]:
        """See :meth:`~sb3_genoffline.common.learner.Learner.policy_arguments`."""
        return {"learned_std": self.lam != 0 or self.actor_objective == "awr"}

    def overestimation_hint(self) -> str:
        """The arguments that help."""
        return (
            f"What helps: more of the penalised loss (smaller alpha={self.alpha}), a smaller beta={self.beta}, more imitation "
            f"(larger lam={self.lam}), or LayerNorm (policy_kwargs=dict(critic_layer_norm=True))."
        )

    # ------------------------------------------------------------------ the consistency model

    def fit_arguments(self) -> tuple[str, ...]:
        """Arguments of phases A to C."""
        return (
            *("window", "stride", "max_windows", "full_coverage", "q_batch_size", "teacher_steps", "teacher_learning_rate"),
            *("cd_steps", "cd_learning_rate", "cd_n", "cd_first_index", "cd_init", "cd_ema", "cd_ema_every", "cd_average"),
        )

    def uses_fitted_model(self) -> bool:
        """Without a penalty no uncertainty is asked for."""
        return self.penalty != "none"

    def make_fits(self) -> list[Fit]:
        """Phases B and C, on the Q dataset of phase A."""
        buffer = self.replay_buffer
        assert buffer is not None and buffer.dataset is not None
        windows = windowed_returns(
            buffer.dataset,
            self.gamma,
            self.window,
            self.stride,
            self.max_windows,
            self.full_coverage,
            buffer.reward_scale,
            buffer.reward_shift,
        )
        rows = buffer.rows_at(th.as_tensor(windows.rows, device=self.device))
        states = self.policy.normalize_observations(rows.observations)
        q = th.as_tensor(windows.returns, dtype=states.dtype, device=self.device)
        sampler = self.policy.q_sampler
        sampler.set_range(q)
        conditions = th.cat([states, rows.actions], dim=-1)
        items = QItems(conditions, sampler.normalize(q), self.q_batch_size, self.generator)
        with global_rng_preserved():
            th.manual_seed(self._buffer_seed + 1)
            teacher, target = teacher_and_average(sampler)
        return [
            TeacherFit(self.teacher_steps, items, teacher, self.teacher_learning_rate),
            DistillationFit(
                self.cd_steps,
                items,
                teacher,
                sampler,
                target,
                n_levels=self.cd_n,
                first_index=self.cd_first_index,
                from_teacher=self.cd_init == "teacher",
                learning_rate=self.cd_learning_rate,
                ema=self.cd_ema,
                ema_every=self.cd_ema_every,
                keep_average=self.cd_average,
            ),
        ]

    def uncertainty(self, observations: Any, actions: Any, n_samples: int | None = None, seed: int = 0) -> np.ndarray:
        """
        H(s, a): how far apart the returns are that the consistency model expects.

        :param observations: (B, S) raw
        :param actions: (B, A) in the units of the action space
        :param n_samples: n (None: ``n_q_samples``)
        :param seed: of the samples
        :return: (B,) in the units of the (transformed) rewards
        """
        self._require_fitted()
        states = self.policy.normalize_observations(th.as_tensor(np.array(observations), device=self.device))
        scaled = th.as_tensor(self.policy.scale_action(np.asarray(actions, dtype=np.float32)), device=self.device)
        generator = th.Generator(self.device).manual_seed(seed)
        shape = (len(states), n_samples or self.n_q_samples)
        noise = th.randn(shape, generator=generator, device=self.device, dtype=states.dtype)
        return self.policy.q_sampler.uncertainty(states, scaled, noise).cpu().numpy()

    def uncertainty_samples(self, n_rows: int = 2000, seed: int = 0) -> dict[str, Tensor]:
        """
        H at states of the dataset that the agent holds, for the data's actions, the policy's (μ(s)) and uniform ones.

        :param n_rows: rows that are drawn, with replacement
        :param seed: of the rows, of the random actions and of the samples
        :return: ``data``, ``policy`` and ``random``, each (n_rows,)
        """
        self._require_fitted()
        if self.replay_buffer is None:
            raise UserError("There are no rows to judge the uncertainty on: call model.set_dataset(dataset) first.")
        n_known = self.replay_buffer.n_offline or self.replay_buffer.size()
        generator = th.Generator(self.device).manual_seed(seed)
        rows = th.randint(n_known, (n_rows,), generator=generator, device=self.device)
        return uncertainty_samples(self.policy, self.replay_buffer.rows_at(rows), self.n_q_samples, generator)

    def uncertainty_report(self, n_rows: int = 2000, seed: int = 0) -> dict[str, float]:
        """
        Whether H tells the data's actions from others, on rows of the dataset that the agent holds.

        :param n_rows: rows that are drawn, with replacement
        :param seed: of the rows, of the random actions and of the samples
        :return: ``data``, ``policy``, ``random``: mean H of the data's actions, of the policy's (μ(s)) and of uniform ones
            at the same states; ``auc`` of telling random from data by H; ``above_q95``, the share of random actions whose H
            is above the 95% quantile of the data's (the paper's figure implies about 0.25)
        """
        return detection_report(self.uncertainty_samples(n_rows, seed))

    # ------------------------------------------------------------------ the actor-critic

    def draw_noise(self, batch_size: int) -> QDQNoise:
        """The random numbers of one update from this algorithm's generator, in a single draw."""
        action_dim = self.policy.action_dim
        n_awr = _AWR_SAMPLES if self.actor_objective == "awr" else 0
        n_q = self.n_q_samples if self.penalty != "none" else 0
        shapes = [(batch_size, action_dim), (batch_size, action_dim), (batch_size, n_q), (batch_size, n_awr, action_dim)]
        sizes = [th.Size(shape).numel() for shape in shapes]
        dtype = self.policy.obs_mean.dtype
        numbers = th.randn(sum(sizes), generator=self.generator, device=self.device, dtype=dtype)
        normal = th.split(numbers, sizes)
        return QDQNoise(*(part.view(shape) for part, shape in zip(normal, shapes, strict=True)))

    def phase(self) -> bool:
        """Whether actor and targets move."""
        return self._n_updates % self.policy_delay == 0

    def update(self, batch: TransitionBatch, noise: QDQNoise) -> dict[str, Tensor]:
        """
        One gradient step of phase D (paper, algorithm 1).

        :param batch: B transitions
        :param noise: all random numbers of the step
        :return: scalars to log, on the device
        """
        states = self.policy.normalize_observations(batch.observations)  # (B, S)
        next_states = self.policy.normalize_observations(batch.next_observations)

        # ------ L = α·L_H + (1 − α)·L_L (eq. 7), each summed over the two critics
        target_h, target_l, info = self.critic_targets(batch, next_states, noise)  # (B,), (B,)
        q = self.critic(states, batch.actions)  # (2, B)
        loss_h = 2.0 * mse_loss(q, target_h.expand_as(q))  # the mean over critics, times their number
        loss_l = 2.0 * mse_loss(q, target_l.expand_as(q))
        critic_loss = self.alpha * loss_h + (1.0 - self.alpha) * loss_l
        gradient_step(self.critic_optimizer, critic_loss, self.critic_rate_now(), self.max_grad_norm)
        losses = {"critic_loss": critic_loss, "loss_h": loss_h, "loss_l": loss_l, "q_mean": q.mean()}

        if self.phase():
            actor_loss, actor_info = self.actor_loss(states, batch.actions, noise)
            gradient_step(self.actor_optimizer, actor_loss, self.actor_rate_now(self.policy_delay))
            losses |= {"actor_loss": actor_loss, **actor_info}
            soft_update(self.critic, self.critic_target, self.tau)
            soft_update(self.actor, self.actor_target, self.tau)
        return info | {name: value.detach() for name, value in losses.items()}

    @th.no_grad()
    def target_actions(self, next_states: Tensor, noise: QDQNoise) -> Tensor:
        """
        a': with λ > 0 a sample of the target actor's Gaussian, unless ``mean_backup``, else its mean; clipped noise is added.

        :param next_states: (B, S)
        :param noise: of the update
        :return: (B, A) in [−1, 1]
        """
        if self.lam == 0 or self.mean_backup:
            base = self.actor_target(next_states)
        else:
            base = self.actor_target.sample(next_states, noise.target_policy)
        return smoothed(base, noise.smoothing, self.target_policy_noise, self.target_noise_clip).clamp(-1.0, 1.0)

    @th.no_grad()
    def critic_targets(
        self, batch: TransitionBatch, next_states: Tensor, noise: QDQNoise
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """
        y_H = r + γ·m·min Q̄(s', a') and y_L = r + γ·m·Q_L, Q_L the penalised value (eq. 8).

        :return: (B,), (B,), and scalars to log
        """
        next_actions = self.target_actions(next_states, noise)
        q = self.critic_target(next_states, next_actions).amin(0)  # (B,)
        if self.penalty == "none":
            target = self.td_target(batch, q)
            return target, target, {}
        h = self.policy.q_sampler.uncertainty(next_states, next_actions, noise.q)  # (B,)
        uncertain, threshold = uncertain_actions(h, self.beta)
        weight = penalty_weight(self.penalty, h, uncertain, self.beta)
        penalized = penalized_value(self.penalty, q, weight, self.q_floor)
        assert h.shape == q.shape == penalized.shape
        info = {
            "h_mean": h.mean(),
            "h_min": h.min(),
            "h_max": h.max(),
            "h_threshold": threshold,
            "uncertain_share": uncertain.float().mean(),
            "small_h_share": (h * self.beta < 1.0).float().mean(),  # 1/H > β
            "negative_q_share": (uncertain & (q < 0)).float().sum() / uncertain.sum().clamp_min(1),
            "bonus_share": (penalized > q).float().mean(),
            "weight_mean": weight.mean(),
        }
        return self.td_target(batch, q), self.td_target(batch, penalized), info

    def actor_loss(self, states: Tensor, actions: Tensor, noise: QDQNoise) -> tuple[Tensor, dict[str, Tensor]]:
        """
        −E[min Q(s, μ(s))] − λ·E[log π(a | s)] at the data's (s, a) (eq. 9), or AWR's −E[min(exp(6·A), 100)·log π(a | s)].

        :param states: (B, S)
        :param actions: (B, A), the data's
        :param noise: of the update
        :return: the loss, and scalars to log
        """
        log_prob = self.actor.log_prob(states, actions)  # (B,)
        info = {"log_prob": log_prob.mean(), "actor_std": self.actor.std().mean()}
        if self.actor_objective == "q_bc":
            q = self.critic(states, self.actor(states)).amin(0)  # (B,)
            return -q.mean() - self.lam * log_prob.mean(), info | {"actor_q": q.mean()}
        weight = self.awr_weights(states, actions, noise)
        saturated = (weight >= _AWR_LARGEST_WEIGHT).float().mean()
        return -(weight * log_prob).mean(), info | {"awr_weight": weight.mean(), "awr_saturated_share": saturated}

    @th.no_grad()
    def awr_weights(self, states: Tensor, actions: Tensor, noise: QDQNoise) -> Tensor:
        """
        min(exp(6·A), 100), A = min Q(s, a) − mean of min Q(s, ã) over 30 samples ã of the target actor: (B,).

        :param states: (B, S)
        :param actions: (B, A), the data's
        :param noise: of the update
        """
        assert noise.awr is not None
        sampled = self.actor_target.sample(states, noise.awr)  # (B, 30, A)
        baseline = self.critic.score_samples(states, sampled).amin(0).mean(1)
        advantage: Tensor = self.critic(states, actions).amin(0) - baseline
        return exponential_weights(advantage, self.awr_temperature, _AWR_LARGEST_WEIGHT)

    def watch(self, metrics: dict[str, float]) -> None:
        """Whether H detects anything, logged on a few rows, always the same; and a penalty that rewards."""
        if self.penalty != "none":
            report = self.uncertainty_report(_DIAGNOSTIC_ROWS)
            for name, value in report.items():
                self.logger.record(f"uncertainty/{name}", value)
            self.last_metrics.update({f"uncertainty/{name}": value for name, value in report.items()})
            if report["auc"] < 0.5:
                self.monitor.warn_once(
                    "auc",
                    f"The uncertainty H is no larger for random actions than for the data's (AUC {report['auc']:.2f}; blind "
                    "is 0.5): the penalty will not keep the policy near the data. More teacher_steps and cd_steps, "
                    f"full_coverage=True, or other windows may help; `{PROGRAM} plot uncertainty` draws it.",
                )
        share = metrics.get("bonus_share", 0.0)
        last = self.num_timesteps + 1 >= self._total_timesteps  # the update at hand is counted after its metrics are read
        if share <= 0.01 or not (self._n_updates > 1000 or last):  # Q starts around 0
            return
        floor = min(0.0, self.dataset_info.get("min_reward", 0.0)) / (1.0 - self.gamma) if self.gamma < 1 else -np.inf
        if self.penalty == "floor" and self.q_floor <= floor * (1.0 - 1e-4):
            return  # what is raised lay below every attainable value
        self.monitor.warn_once(
            "bonus",
            f"penalty={self.penalty!r} raises {share:.1%} of the target values instead of lowering them: Q < 0 for "
            f"{metrics['negative_q_share']:.1%} of the uncertain actions, and 1/H > beta for "
            f"{metrics['small_h_share']:.1%} of all. Use penalty='floor' with q_floor={floor:g} (r_min/(1 − gamma), or 0 "
            "where rewards are not negative).",
        )
