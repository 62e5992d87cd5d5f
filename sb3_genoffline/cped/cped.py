"""Constrained Policy optimization with Explicit behavior Density (Zhang et al., NeurIPS 2023, arXiv 2301.12130)."""

import math
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, NamedTuple, Self, Unpack

import torch as th
from stable_baselines3.common.policies import BasePolicy
from torch import Tensor
from torch.nn.functional import mse_loss

from sb3_genoffline.common.actor_critic import ActorCriticAlgorithm, smoothed
from sb3_genoffline.common.arguments import (
    Betas,
    Bounds,
    Count,
    Fixed,
    NonNegative,
    Normalized,
    Positive,
    PositiveInt,
    Rate,
    RewardTransform,
    Share,
    TakenOver,
)
from sb3_genoffline.common.envs import EnvLike
from sb3_genoffline.common.fitting import Fit
from sb3_genoffline.common.keywords import OfflineArguments
from sb3_genoffline.common.multiplier import multiplier_step
from sb3_genoffline.common.optimizers import check_can_skip, gradient_step
from sb3_genoffline.cped.fit import DensityFit, DensityTrainer
from sb3_genoffline.cped.multiplier import (
    AlphaMode,
    Constraint,
    Epsilon,
    check_epsilon,
    check_schedule,
)
from sb3_genoffline.cped.official import official_arguments
from sb3_genoffline.cped.phase import CPEDPhase, phase_of
from sb3_genoffline.cped.policies import FlowDensityPolicy
from sb3_genoffline.cped.watching import LARGEST_LOSS, watch
from sb3_genoffline.data.buffers import TransitionBatch
from sb3_genoffline.errors import UserError
from sb3_genoffline.files.archive import PathOrFile
from sb3_genoffline.generative.behavior import Density
from sb3_genoffline.generative.flow import FlowName
from sb3_genoffline.generative.flow_gan import Discriminator, Divergence, FlowGAN, Interpolation
from sb3_genoffline.nets.actors import DeterministicActor
from sb3_genoffline.nets.ensembles import soft_update

_AT_BOUND = 0.99  # |a| of an action component that counts as at its bound


class CPEDNoise(NamedTuple):
    """
    The random numbers of one update of the actor-critic.

    :param smoothing: (B, A) standard normal, noise on the target action
    """

    smoothing: Tensor


class CPED(ActorCriticAlgorithm[CPEDNoise]):
    """
    Constrained Policy optimization with Explicit behavior Density: a flow-GAN learns the density of behaviour; a TD3-like
    actor may go wherever that density says that data live, by a Lagrangian on its negative log-likelihood (NLL).

    Paper: Zhang, Zhang, Wang, Jing, "Constrained Policy optimization with Explicit Behavior Density for Offline Reinforcement
    Learning", NeurIPS 2023, https://arxiv.org/abs/2301.12130. :meth:`learn_offline` first fits the density (progress bar
    and log keys ``flow/`` of its own; left out if there is a fitted one), then trains actor and critics, whose updates
    ``num_timesteps`` counts. The defaults are recommended ones; :meth:`official` gives the released code's.

    The paper was released with two codes that differ from it and from each other. The log shipped with the first ends at a
    normalised score of about 44 on hopper-medium-v2 (57 at its best hundred epochs), far from the published 100.1, and no
    other log is public: the published table is not promised here.

    1. α follows dual gradient descent, as the paper says; both codes follow a hand-made schedule
       (``alpha_mode="schedule"``), here counted from the start of the actor-critic, since counting the flow's steps too turns
       α negative.
    2. ε matters, as in the paper: by default the mean NLL of the batch's own actions. In both codes it cancels out of every
       gradient.
    3. The density is p(a | s) by a spline flow; the codes model p(s, a) (``flow="nice"``), whose gradient in a is the same.
    4. The density is fitted first and frozen (second code); the paper, and the first code up to update 500,000, go on fitting
       (``flow_joint_steps``).
    5. The discriminator makes one step per step of the flow; the codes have 1 : 5 and 5 : 1, the paper does not say.
    6. WGAN-GP as published: penalty weight 10, uniform interpolation, one score; the codes have 0.5, normal, and S + A scores.
    7. The adversarial term's weight is 1, as in the codes, where it is the likelihood that carries λ = 1.
    8. The backup uses the target actor's action with noise (codes); the paper's equation has max over actions.
    9. The noisy target action is clipped to the box, as in TD3; the codes do not (``clip_target_action=False``).
    10. The actor climbs min(Q1, Q2), without normalisation (codes); the paper writes Q.
    11. ``flow="nice"`` has four couplings (second code; two in the first).
    12. Adam's β2 for the flow is 0.999; 0.01 in the codes is likely a slip.
    13. Sampling inverts the flow exactly; the codes undo its layers in the wrong order. This is mended in :meth:`official`
        too, as is their reseeding of the global generators in every call of the flow, which made the target noise constant.
    14. Early stopping on held-out rows, dequantisation, a density that ends at the bounds (``flow_squash``) and LayerNorm in
        the critics (``critic_layer_norm``, both in ``policy_kwargs``), the actor's gradient clip, ``q_normalize``,
        ``normalize_observations``, and ``constraint="distance"``, which has no density at all: not in the codes.
    15. Target networks start as copies; in the codes they start on their own and have converged before learning starts.
    16. The flow's step draws latents of its own; in the codes it scores the samples that the discriminator has just seen.
    17. The codes divide what enters each layer of the flow by √(1 + 1e-6), the remains of a norm; that is left out.
    18. Steps of critics and actor whose loss is not finite, or beyond ±1e7, are skipped and counted; a hundred in a row, or a
        |Q| above ``max_abs_q``, end the training. The codes skip the actor's steps above 1e7, and those of the flow and its
        discriminator that are not finite, and never stop.

    :param policy: ``"FlowDensityPolicy"`` (alias ``"MlpPolicy"``) or a class
    :param env: see :class:`~sb3_genoffline.common.learner.Learner`
    :param learning_rate: of the actor (3e-4 on antmaze in the released code)
    :param critic_learning_rate: of the critics
    :param flow: ``"spline"`` or ``"affine"``, conditional flows, or ``"nice"``, the codes' joint density
    :param flow_steps: steps that fit the density, at most
    :param flow_batch_size: rows of such a step, drawn with replacement
    :param flow_learning_rate: of the flow
    :param flow_betas: Adam's β of the flow
    :param flow_eps: Adam's ε of the flow
    :param discriminator_learning_rate: of the discriminator
    :param discriminator_betas: Adam's β of the discriminator
    :param divergence: what the discriminator estimates: ``"wgan"``, ``"ce"``, ``"hellinger"``, ``"rkl"``, ``"kl"``, ``"tv"``
        or ``"lsgan"``
    :param adv_weight: weight of the adversarial loss beside the NLL; 0: maximum likelihood alone
    :param gp_weight: weight of WGAN's gradient penalty
    :param gp_interpolation: ``"uniform"`` or, as in the codes, ``"normal"``
    :param instance_noise: std of noise on the data that the discriminator sees (1 in the first code)
    :param n_critic_steps: discriminator steps per step of the flow; ``flow_steps`` counts the former
    :param vector_discriminator: S + A scores that are averaged
    :param dequantization: half-width of uniform noise on the actions that the flow learns from: keeps saturated actions from
        driving the NLL to −∞
    :param held_out: share of the rows kept for early stopping; 0: none
    :param flow_eval_every: steps between two looks at their NLL
    :param flow_patience: looks without a new best before the flow stops
    :param standardize_context: the density sees standardised observations
    :param density: a fitted :class:`~sb3_genoffline.generative.behavior.Density`, or a file of
        :meth:`save_fitted_model`, instead of fitting one; None once it is taken over
    :param flow_joint_steps: updates of the actor-critic during which the density goes on learning
    :param constraint: what α weighs: ``"nll"`` of the actor's action, or the squared ``"distance"`` to the data's action,
        over ``2 * distance_std ** 2``: the NLL of a normal distribution about that, up to a constant
    :param distance_std: standard deviation of that distribution
    :param alpha_mode: ``"dual"``, ``"schedule"`` or ``"fixed"``
    :param alpha: α at the start of ``"dual"``, or the ``"fixed"`` one; fixed at 0 there is no constraint and no density
    :param alpha_learning_rate: of log α, which stays in [−5, 10]
    :param alpha_sgd: plain steps on log α instead of Adam's
    :param alpha_schedule: ``"mujoco"``, ``"antmaze"`` (the second code's), or pairs (first update, α)
    :param epsilon: ``"batch_mean"``: the mean NLL of the batch's actions; ``"quantile"``: that of the data's NLL; or a number
    :param epsilon_quantile: q of ``"quantile"``
    :param warmup_steps: updates before the actor moves (20,000 in the first code, 0 in the second)
    :param critic_start: updates before the critics learn
    :param q_start: updates before Q enters the actor's loss, and α moves; until then the actor only lowers its NLL
    :param q_normalize: divide Q by its mean absolute value in the actor's loss (SPOT's)
    :param policy_delay: updates per update of the actor and the targets
    :param target_policy_noise: std of the noise on the target action
    :param target_noise_clip: its largest absolute value
    :param clip_target_action: clip the noisy target action to [−1, 1]
    :param max_grad_norm: L2 clip of the actor's gradient
    :param max_abs_q: training ends with a message when |Q| passes this
    :param kwargs: the remaining arguments of :class:`~sb3_genoffline.common.learner.Learner`
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {
        "FlowDensityPolicy": FlowDensityPolicy,
        "MlpPolicy": FlowDensityPolicy,
    }
    default_gradient_steps = 1_000_000
    baselines: ClassVar[dict[str, dict[str, Any]]] = {"no constraint": {"alpha_mode": "fixed", "alpha": 0}}
    fitted_model_arguments = (
        "the same spaces, the same flow, and policy_kwargs=dict(flow_net_arch=..., flow_transforms=..., flow_bins=..., "
        "flow_squash=...)"
    )
    policy: FlowDensityPolicy
    actor: DeterministicActor
    actor_target: DeterministicActor
    log_alpha: Tensor
    skipped: Tensor
    skipped_in_a_row: Tensor
    discriminator: Discriminator
    alpha_optimizer: th.optim.Optimizer
    density_optimizer: th.optim.Optimizer
    discriminator_optimizer: th.optim.Optimizer

    def __init__(
        self,
        policy: str | type[FlowDensityPolicy],
        env: EnvLike | None = None,
        learning_rate: Rate = 1e-4,
        critic_learning_rate: Rate | None = 3e-4,
        *,
        flow: FlowName = "spline",
        flow_steps: PositiveInt = 100_000,
        flow_batch_size: PositiveInt = 256,
        flow_learning_rate: NonNegative = 3e-4,
        flow_betas: Betas = (0.9, 0.999),
        flow_eps: NonNegative = 1e-8,
        discriminator_learning_rate: NonNegative = 1e-4,
        discriminator_betas: Betas = (0.5, 0.9),
        divergence: Divergence = "wgan",
        adv_weight: NonNegative = 1.0,
        gp_weight: NonNegative = 10.0,
        gp_interpolation: Interpolation = "uniform",
        instance_noise: NonNegative = 0.0,
        n_critic_steps: PositiveInt = 1,
        vector_discriminator: Annotated[bool, Fixed("shapes the discriminator, which is made")] = False,
        dequantization: Share = 0.01,
        held_out: Annotated[float, Bounds(0.0, 1.0, open_high=True)] = 0.05,
        flow_eval_every: PositiveInt = 1000,
        flow_patience: PositiveInt = 10,
        standardize_context: bool = True,
        density: Annotated[Density | PathOrFile | None, TakenOver] = None,
        flow_joint_steps: Count = 0,
        constraint: Constraint = "nll",
        distance_std: Positive = 0.6,
        alpha_mode: AlphaMode = "dual",
        alpha: NonNegative = 1.0,
        alpha_learning_rate: NonNegative = 1e-3,
        alpha_sgd: Annotated[bool, Fixed("decides which optimizer moves alpha")] = False,
        alpha_schedule: str | Sequence[Sequence[float]] = "mujoco",
        epsilon: Epsilon | float = "batch_mean",
        epsilon_quantile: Annotated[float, Bounds(0.0, 1.0, open_high=True)] = 0.95,
        warmup_steps: Count = 0,
        critic_start: Count = 30_000,
        q_start: Count = 50_000,
        q_normalize: bool = False,
        policy_delay: PositiveInt = 2,
        target_policy_noise: NonNegative = 0.2,
        target_noise_clip: NonNegative = 0.5,
        clip_target_action: bool = True,
        max_abs_q: Positive | None = 1e4,
        batch_size: PositiveInt = 256,
        lr_decay_steps: PositiveInt | None = None,
        max_grad_norm: Positive | None = 10.0,
        reward_transform: RewardTransform = None,
        normalize_observations: Normalized = False,
        **kwargs: Unpack[OfflineArguments],
    ) -> None:
        self.flow = flow
        self.flow_steps = flow_steps
        self.flow_batch_size = flow_batch_size
        self.flow_learning_rate = flow_learning_rate
        self.flow_betas = flow_betas
        self.flow_eps = flow_eps
        self.discriminator_learning_rate = discriminator_learning_rate
        self.discriminator_betas = discriminator_betas
        self.divergence = divergence
        self.adv_weight = adv_weight
        self.gp_weight = gp_weight
        self.gp_interpolation = gp_interpolation
        self.instance_noise = instance_noise
        self.n_critic_steps = n_critic_steps
        self.vector_discriminator = vector_discriminator
        self.dequantization = dequantization
        self.held_out = held_out
        self.flow_eval_every = flow_eval_every
        self.flow_patience = flow_patience
        self.standardize_context = standardize_context
        self.density = density
        self.flow_joint_steps = flow_joint_steps
        self.constraint = constraint
        self.distance_std = distance_std
        self.alpha_mode = alpha_mode
        self.alpha = alpha
        self.alpha_learning_rate = alpha_learning_rate
        self.alpha_sgd = alpha_sgd
        self.alpha_schedule = alpha_schedule
        self.epsilon = epsilon
        self.epsilon_quantile = epsilon_quantile
        self.warmup_steps = warmup_steps
        self.critic_start = critic_start
        self.q_start = q_start
        self.q_normalize = q_normalize
        self.policy_delay = policy_delay
        self.target_policy_noise = target_policy_noise
        self.target_noise_clip = target_noise_clip
        self.clip_target_action = clip_target_action
        self.max_abs_q = max_abs_q
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
        if self.alpha == 0 and self.alpha_mode == "dual":
            raise UserError("alpha=0 must be positive, or 0 with alpha_mode='fixed'.")
        check_schedule(self.alpha_schedule)
        check_epsilon(self.epsilon, self.constraint, dual=self.alpha_mode == "dual", joint=self.flow == "nice")
        if self.flow_joint_steps > 0 and self.epsilon == "quantile":
            raise UserError("epsilon='quantile' is measured once: with flow_joint_steps > 0 use epsilon='batch_mean'.")

    @classmethod
    def official(
        cls,
        policy: str | type[FlowDensityPolicy] = "FlowDensityPolicy",
        env: EnvLike | None = None,
        antmaze: bool = False,
        **kwargs: Any,
    ) -> Self:
        """
        The second released code's settings, with its wrong inverse and its reseeding mended.

        :param policy: see the class
        :param env: see the class
        :param antmaze: the antmaze commands' settings, not Gym-MuJoCo's
        :param kwargs: arguments over those
        """
        return cls(policy, env, **official_arguments(antmaze) | kwargs)

    @property
    def constrained(self) -> bool:
        """Whether the actor is held to the data at all."""
        return self.alpha_mode != "fixed" or self.alpha > 0

    def policy_arguments(self) -> dict[str, Any]:
        """See :meth:`~sb3_genoffline.common.learner.Learner.policy_arguments`."""
        return {"flow": self.flow}

    def usual_gradient_steps(self) -> int:
        """A million; on antmaze the released code makes so many in all, those of the flow included."""
        flow_steps = self.flow_steps if self.alpha_schedule == "antmaze" else 0
        return max(self.default_gradient_steps - flow_steps, 1)

    def fit_arguments(self) -> tuple[str, ...]:
        """Arguments of the density's fit; those of its losses count during ``flow_joint_steps`` too."""
        return (
            *("flow_steps", "flow_batch_size", "held_out", "flow_eval_every", "flow_patience", "standardize_context"),
            *("flow_learning_rate", "flow_betas", "flow_eps", "discriminator_learning_rate", "discriminator_betas"),
            *("divergence", "adv_weight", "gp_weight", "gp_interpolation", "instance_noise", "n_critic_steps"),
            *("vector_discriminator", "dequantization", "epsilon_quantile", "flow_joint_steps"),
        )

    def declare_state(self) -> None:
        """Actor and critics, α, what was skipped, and for the density its discriminator and both optimizers."""
        super().declare_state()
        plan = self.state.plans["actor"]  # the critics' is of the same class
        check_can_skip(plan.cls, plan.all_options(self))
        self.add_variable("log_alpha", lambda agent: math.log(max(agent.alpha, 1e-30)), argument="alpha", requires_grad=True)
        self.add_optimizer("alpha", [self.log_alpha], th.optim.SGD if self.alpha_sgd else th.optim.Adam)
        self.add_variable("skipped", lambda _: 0.0)
        self.add_variable("skipped_in_a_row", lambda _: [0.0, 0.0])  # of the critics, of the actor
        pair_dim = self.policy.state_dim + self.policy.action_dim
        self.add_network("discriminator", Discriminator(pair_dim, n_scores=pair_dim if self.vector_discriminator else 1))
        self.add_optimizer(
            "density",
            self.policy.density.parameters(),
            th.optim.Adam,
            lambda agent: {"betas": agent.flow_betas, "eps": agent.flow_eps},
        )
        self.add_optimizer(
            "discriminator",
            self.discriminator.parameters(),
            th.optim.Adam,
            lambda agent: {"betas": agent.discriminator_betas},
        )

    def density_trainer(self) -> DensityTrainer:
        """What makes the steps of the flow and of its discriminator."""
        return DensityTrainer(
            self.policy.density,
            self.discriminator,
            FlowGAN(self.divergence, self.adv_weight, self.gp_weight, self.gp_interpolation, self.instance_noise),
            self.density_optimizer,
            self.discriminator_optimizer,
            self.n_critic_steps,
            self.dequantization,
            (self.flow_learning_rate, self.discriminator_learning_rate),
            self.generator,
        )

    def overestimation_hint(self) -> str:
        """The arguments that help."""
        return (
            f"What helps: a tighter constraint (epsilon={self.epsilon!r}, or alpha_mode='fixed' with alpha above "
            f"{self.alpha}), a better density (more flow_steps), or LayerNorm (policy_kwargs=dict(critic_layer_norm=True))."
        )

    # ------------------------------------------------------------------ the density of behaviour

    def uses_fitted_model(self) -> bool:
        """Without a constraint, or with one on the distance, there is no density."""
        return self.constrained and self.constraint == "nll"

    def make_fits(self) -> list[Fit]:
        """The density's, on raw states; it standardises them by itself."""
        policy, (states, actions) = self.policy, self.offline_rows()
        if self.standardize_context:
            assert self.replay_buffer is not None
            policy.density.set_state_statistics(*(value.to(states) for value in self.replay_buffer.observation_statistics()))
        fit = DensityFit(
            self.flow_steps,
            self.density_trainer(),
            policy,
            states,
            actions,
            batch_size=self.flow_batch_size,
            held_out=self.held_out,
            eval_every=self.flow_eval_every,
            patience=self.flow_patience,
            quantile=self.epsilon_quantile,
            freeze=self.flow_joint_steps == 0,
            seed=self._buffer_seed % 2**62 + 1,
        )
        return [fit]

    def set_fitted_model(self, source: Any) -> None:
        """
        Take over a fitted density; nothing is fitted then, and what NLLs the data have is measured again.

        :param source: a density, or a file of :meth:`save_fitted_model`
        """
        super().set_fitted_model(source)
        for unknown in (self.policy.nll_threshold, self.policy.nll_q99):
            unknown.fill_(math.inf)

    def meet_data(self, new: bool) -> None:
        """Measure what NLLs the data have under a density that has not seen them."""
        unknown = new or bool(self.policy.nll_q99.isinf())
        if unknown and self.replay_buffer is not None and self.replay_buffer.n_offline > 0:
            self.policy.note_usual_nll(*self.offline_rows(), self.epsilon_quantile)
        elif unknown and self.epsilon == "quantile":
            raise UserError(
                "epsilon='quantile' is measured on offline rows, and there are none: call set_dataset(dataset) first, or "
                "use epsilon='batch_mean' or a number."
            )

    # ------------------------------------------------------------------ the actor-critic

    def draw_noise(self, batch_size: int) -> CPEDNoise:
        """The random numbers of one update from this algorithm's generator."""
        return CPEDNoise(self.normal_noise(batch_size, self.policy.action_dim))

    def phase(self) -> CPEDPhase:
        """Which parts run."""
        return phase_of(self)

    def update(self, batch: TransitionBatch, noise: CPEDNoise) -> dict[str, Tensor]:
        """
        One gradient step of the actor-critic (slides' algorithm 1).

        :param batch: B transitions
        :param noise: all random numbers of the step
        :return: scalars to log, on the device
        """
        phase = self.phase()
        states = self.policy.normalize_observations(batch.observations)  # (B, S)
        info: dict[str, Tensor] = {}
        if phase.density:
            self.policy.density.requires_grad_(True)
            flow_info = self.density_trainer().step(batch.observations, batch.actions, phase.flow)
            info |= {f"flow_{name}": value for name, value in flow_info.items()}
            self.policy.density.requires_grad_(False)

        if phase.critics:
            target = self.critic_targets(batch, noise)  # (B,)
            q = self.critic(states, batch.actions)  # (2, B)
            critic_loss = 2.0 * mse_loss(q, target.expand_as(q))  # summed over the critics
            skip = self._too_large(critic_loss, 0)
            gradient_step(self.critic_optimizer, critic_loss, self.critic_rate_now(), skip=skip)
            q = q.detach()
            info |= {
                "critic_loss": th.where(skip, 0.0, critic_loss.detach()),
                "q_mean": q.mean(),
                "q_min": q.min(),
                "q_max": q.max(),
            }

        if phase.targets:
            if phase.actor:
                info |= self.actor_step(batch, states)
            soft_update(self.critic, self.critic_target, self.tau)
            soft_update(self.actor, self.actor_target, self.tau)
        return info | {"skipped": self.skipped.clone()}

    @th.no_grad()
    def critic_targets(self, batch: TransitionBatch, noise: CPEDNoise) -> Tensor:
        """y = r + γ·m·min_i Q̄_i(s', π̄(s') + n), n clipped normal noise: (B,)."""
        next_states = self.policy.normalize_observations(batch.next_observations)
        next_actions = self.actor_target(next_states)
        next_actions = smoothed(next_actions, noise.smoothing, self.target_policy_noise, self.target_noise_clip)
        if self.clip_target_action:
            next_actions = next_actions.clamp(-1.0, 1.0)
        return self.td_target(batch, self.critic_target(next_states, next_actions).amin(0))

    def actor_step(self, batch: TransitionBatch, states: Tensor) -> dict[str, Tensor]:
        """
        Descend −E[min_i Q_i(s, π(s))] + α·E[−log p(π(s) | s)], or α·E[‖π(s) − a‖²/(2σ²)], then move α by how far that mean is
        from ε.

        :param batch: B transitions
        :param states: (B, S) as the actor sees them
        :return: scalars to log
        """
        with_q = self.phase().with_q
        actions = self.actor(states)  # (B, A)
        loss = actions.new_zeros(())
        info = {"bound_share": (actions.detach().abs() > _AT_BOUND).float().mean()}
        if with_q:
            q = self.critic(states, actions).amin(0)  # (B,)
            scale = q.detach().abs().mean().clamp_min(1e-6) if self.q_normalize else 1.0
            loss = loss - q.mean() / scale
            info["actor_q"] = q.detach().mean()
        if self.constrained:
            cost, cost_info = self.constraint_cost(batch, actions)  # scalar
            alpha = self.alpha_now()
            loss = loss + alpha * cost
            info |= {"alpha": alpha, **cost_info}
        if not (with_q or self.constrained):
            return info
        skip = self._too_large(loss, 1)
        gradient_step(self.actor_optimizer, loss, self.actor_rate_now(), self.max_grad_norm, skip)
        info["actor_loss"] = loss.detach()
        info = {name: th.where(skip, 0.0, value) for name, value in info.items()}  # a skipped step is counted, not averaged
        if self.constrained:
            threshold = self.threshold(batch)
            info["epsilon"] = threshold
            if self.alpha_mode == "dual" and with_q:  # α rises where the constraint is violated
                gap = th.where(skip, 0.0, cost.detach()) - threshold  # of no account where the step is skipped
                gain = self.log_alpha * gap
                multiplier_step(self.log_alpha, self.alpha_optimizer, gain, self.alpha_learning_rate, skip)
        return info

    def constraint_cost(self, batch: TransitionBatch, actions: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """
        What α weighs: E[−log p(π(s) | s)], or E[‖π(s) − a‖²/(2σ²)].

        :param batch: B transitions
        :param actions: π(s), (B, A)
        :return: a scalar, and scalars to log
        """
        if self.constraint == "distance":
            distance = (actions - batch.actions).square().sum(-1).mean() / (2.0 * self.distance_std**2)
            return distance, {"distance": distance.detach()}
        nll = self.policy.nll(batch.observations, actions)  # (B,)
        share = (nll.detach() > self.policy.nll_q99).float().mean()
        return nll.mean(), {"nll_pi": nll.detach().mean(), "violation_share": share}

    def alpha_now(self) -> Tensor:
        """α of the coming actor update."""
        scheduled = self.phase().alpha
        if scheduled is not None:
            return th.full_like(self.log_alpha, scheduled, requires_grad=False)
        return self.log_alpha.detach().exp()

    @th.no_grad()
    def threshold(self, batch: TransitionBatch) -> Tensor:
        """ε in nats (or a distance), a scalar on the device; of a distance that no number is given for, 0."""
        if self.constraint == "distance" and isinstance(self.epsilon, str):
            return th.zeros_like(self.log_alpha, requires_grad=False)
        if self.epsilon == "batch_mean":
            return self.policy.nll(batch.observations, batch.actions).mean()
        if self.epsilon == "quantile":
            return self.policy.nll_threshold
        return th.full_like(self.log_alpha, float(self.epsilon), requires_grad=False)

    def _too_large(self, loss: Tensor, whose: int) -> Tensor:
        """Whether a step is to be skipped; counted on the device, in a row for critics (0) and actor (1) apart."""
        with th.no_grad():
            skip = ~(loss.abs() < LARGEST_LOSS)  # NaN too
            self.skipped += skip
            in_a_row = self.skipped_in_a_row[whose]
            in_a_row.copy_((in_a_row + 1) * skip)
        return skip

    def watch(self, metrics: dict[str, float]) -> None:
        """See :func:`~sb3_genoffline.cped.watching.watch`."""
        watch(self, metrics)
