"""The part of CPED that is about the density of behaviour: its settings, its fitting, and sharing it."""

import math
from collections.abc import Sequence
from typing import Any

import torch as th
from stable_baselines3.common.type_aliases import Schedule

from sb3_genoffline.common.density_sharing import DensitySharingMixin
from sb3_genoffline.common.envs import EnvLike
from sb3_genoffline.common.offline_algorithm import OfflineAlgorithm, check_positive
from sb3_genoffline.common.pretraining import Phase
from sb3_genoffline.cped.policies import FlowDensityPolicy
from sb3_genoffline.cped.pretraining import DensityPhase, DensityTrainer
from sb3_genoffline.data.buffers import OfflineBuffer
from sb3_genoffline.files.archive import PathOrFile
from sb3_genoffline.generative.behavior import BehaviourModel, Density
from sb3_genoffline.generative.flow import FlowName
from sb3_genoffline.generative.flow_gan import Discriminator, Divergence, FlowGAN, Interpolation


class DensityAlgorithm(DensitySharingMixin, OfflineAlgorithm):
    """
    An offline algorithm that first fits the density of behaviour, by a flow-GAN.

    :param policy: see :class:`~sb3_genoffline.common.offline_algorithm.OfflineAlgorithm`
    :param env: see there
    :param learning_rate: see there
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
    :param density: a fitted :class:`~sb3_genoffline.generative.behavior.Density`, or a file of :meth:`save_density`,
        instead of fitting one; None once it is taken over
    :param kwargs: the remaining arguments of :class:`~sb3_genoffline.common.offline_algorithm.OfflineAlgorithm`
    """

    density_class = Density
    density_arguments = (
        "the same spaces, the same flow, and policy_kwargs=dict(flow_net_arch=..., flow_transforms=..., flow_bins=..., "
        "flow_squash=...)"
    )
    policy: FlowDensityPolicy
    replay_buffer: OfflineBuffer | None  # type: ignore[assignment]
    epsilon: str | float
    epsilon_quantile: float
    flow_joint_steps: int

    def __init__(
        self,
        policy: str | type[FlowDensityPolicy],
        env: EnvLike | None,
        learning_rate: float | Schedule,
        *,
        flow: FlowName = "spline",
        flow_steps: int = 100_000,
        flow_batch_size: int = 256,
        flow_learning_rate: float = 3e-4,
        flow_betas: Sequence[float] = (0.9, 0.999),
        flow_eps: float = 1e-8,
        discriminator_learning_rate: float = 1e-4,
        discriminator_betas: Sequence[float] = (0.5, 0.9),
        divergence: Divergence = "wgan",
        adv_weight: float = 1.0,
        gp_weight: float = 10.0,
        gp_interpolation: Interpolation = "uniform",
        instance_noise: float = 0.0,
        n_critic_steps: int = 1,
        vector_discriminator: bool = False,
        dequantization: float = 0.01,
        held_out: float = 0.05,
        flow_eval_every: int = 1000,
        flow_patience: int = 10,
        standardize_context: bool = True,
        density: Density | PathOrFile | None = None,
        **kwargs: Any,
    ) -> None:
        if not 0.0 <= held_out < 1.0:
            raise ValueError(f"held_out={held_out} must lie in [0, 1).")
        if not dequantization >= 0:
            raise ValueError(f"dequantization={dequantization} must not be negative.")
        check_positive(
            flow_steps=flow_steps,
            flow_batch_size=flow_batch_size,
            n_critic_steps=n_critic_steps,
            flow_eval_every=flow_eval_every,
            flow_patience=flow_patience,
        )
        self.flow: FlowName = flow
        self.flow_steps = flow_steps
        self.flow_batch_size = flow_batch_size
        self.flow_learning_rate = flow_learning_rate
        self.flow_betas = (float(flow_betas[0]), float(flow_betas[1]))
        self.flow_eps = flow_eps
        self.discriminator_learning_rate = discriminator_learning_rate
        self.discriminator_betas = (float(discriminator_betas[0]), float(discriminator_betas[1]))
        self.divergence: Divergence = divergence
        self.adv_weight = adv_weight
        self.gp_weight = gp_weight
        self.gp_interpolation: Interpolation = gp_interpolation
        self.instance_noise = instance_noise
        self.n_critic_steps = n_critic_steps
        self.vector_discriminator = vector_discriminator
        self.dequantization = dequantization
        self.held_out = held_out
        self.flow_eval_every = flow_eval_every
        self.flow_patience = flow_patience
        self.standardize_context = standardize_context
        self.density = density
        self.gan = FlowGAN(divergence, adv_weight, gp_weight, gp_interpolation, instance_noise)
        super().__init__(policy, env, learning_rate, **kwargs)

    def _policy_arguments(self) -> dict[str, Any]:
        return {"flow": self.flow}

    @property
    def constrained(self) -> bool:
        """Whether the density plays a part at all."""
        return True

    def _setup_training(self) -> None:
        pair_dim = self.policy.state_dim + self.policy.action_dim
        self.discriminator = Discriminator(pair_dim, n_scores=pair_dim if self.vector_discriminator else 1).to(self.device)
        self.density_optimizer = th.optim.Adam(
            self.policy.density.parameters(), self.flow_learning_rate, self.flow_betas, self.flow_eps, fused=True
        )
        self.discriminator_optimizer = th.optim.Adam(
            self.discriminator.parameters(), self.discriminator_learning_rate, self.discriminator_betas, fused=True
        )
        self.density_trainer = DensityTrainer(
            self.policy.density,
            self.discriminator,
            self.gan,
            self.density_optimizer,
            self.discriminator_optimizer,
            self.n_critic_steps,
            self.dequantization,
            (self.flow_learning_rate, self.discriminator_learning_rate),
            self.generator,
        )
        if self.density is not None:
            self.set_density(self.density)
            self.density = None

    def _make_phases(self) -> list[Phase]:
        policy: FlowDensityPolicy = self.policy
        if not self.constrained:
            return []
        buffer = self.replay_buffer
        if bool(policy.fitted):
            if bool(policy.nll_q99.isinf()):  # a density that was given
                self._meet_data()
            return []
        if buffer is None or buffer.n_offline == 0:
            raise ValueError(
                "The density is not fitted and there are no offline rows to fit it on: call learn_offline(dataset), pass a "
                "fitted density, or use alpha_mode='fixed' with alpha=0."
            )
        states, actions = self._offline_rows()
        if self.standardize_context:
            policy.density.set_state_statistics(*(value.to(states) for value in buffer.observation_statistics()))
        phase = DensityPhase(
            self.flow_steps,
            self.density_trainer,
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
        return [phase]

    def set_density(self, source: BehaviourModel | PathOrFile) -> None:
        """
        Take over a fitted density; nothing is fitted then, and what NLLs the data have is measured anew.

        :param source: a density, or a file of :meth:`save_density`
        :raises CheckpointError: if the file holds something else
        :raises ValueError: if its shape is not the policy's
        """
        super().set_density(source)
        for unknown in (self.policy.nll_threshold, self.policy.nll_q99):
            unknown.fill_(math.inf)

    def _meet_data(self) -> None:
        """Measure what NLLs the data have under a density that was given, and warn if it is another dataset's."""
        if self.replay_buffer is None or self.replay_buffer.n_offline == 0:
            if self.epsilon == "quantile":
                raise ValueError(
                    "epsilon='quantile' is measured on offline rows, and there are none: call set_dataset(dataset) first, or "
                    "use epsilon='batch_mean' or a number."
                )
            return
        self.policy.note_usual_nll(*self._offline_rows(), self.epsilon_quantile)
        self._compare_given_density(stacklevel=5)
