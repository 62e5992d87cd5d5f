"""A policy of a diffusion actor, an ensemble of critics, and their targets."""

from typing import Any

import torch as th
from gymnasium import spaces
from stable_baselines3.common.type_aliases import Schedule
from torch import Tensor, nn

from sb3_genoffline.common.arguments import (
    DiffusionSteps,
    NCandidates,
    NetArch,
    NoiseScale,
    PositiveInt,
    Temperature,
    split_net_arch,
)
from sb3_genoffline.common.candidates import CandidatePolicy, draw_by
from sb3_genoffline.generative.diffusion import BetaSchedule, ConditionalDiffusion, ReverseVariance, SampleClip, SamplerName
from sb3_genoffline.nets.activations import Mish
from sb3_genoffline.nets.ensembles import EnsembleQ
from sb3_genoffline.nets.network import frozen_copy


class DiffusionPolicy(CandidatePolicy):
    """
    Acts by denoising. ``predict(deterministic=True)`` samples ``n_action_samples`` actions per observation and takes the one
    that the target critics like best; ``deterministic=False`` is one sample. The candidates are samples, so both differ from
    call to call: ``model.set_acting_seed(seed)`` before makes them the same again. Without critics (``use_critic=False``) both
    are one sample. The defaults are DAC's.

    A subclass with another judgement of the candidates overrides :meth:`candidate_values` and :meth:`choice_logits`.

    :param observation_space: flat Box
    :param action_space: bounded Box
    :param lr_schedule: unused: the algorithm owns the optimizers
    :param n_critics: H
    :param n_diffusion_steps: T
    :param beta_schedule: noise schedule
    :param n_action_samples: N_a, candidates when acting
    :param softmax_temperature: 0 takes the best candidate; above, a candidate is drawn with probability
        ∝ exp(Q / (temperature · mean |Q|)), the mean over the candidates
    :param sampler: ``"ddpm"``, ``"ddim"`` or ``"dpm_solver"``
    :param ddim_stride: stride of the last two
    :param acting_noise_scale: factor of all noise that actions are sampled from, the start x_T and what each step adds; the
        papers' is 1. At 0 there is one candidate, always the same
    :param clip_denoised: clamp x̂0 to [−1, 1] when sampling
    :param use_critic: False acts by imitation alone
    :param net_arch: hidden widths of the noise network and of the critics, or ``dict(pi=[...], qf=[...])``
    :param critic_activation_fn: activation of the critics
    :param critic_layer_norm: LayerNorm in the critics (not in the paper)
    :param residual: residual noise network
    :param torch_init: start actor and critics as ``nn.Linear`` does, instead of Xavier weights and zero biases
    :param variance: of DDPM's noise, see :class:`~sb3_genoffline.generative.diffusion.NoiseSchedule`
    """

    acts_with_targets = ("critic_target",)

    acting_settings = (
        *("n_action_samples", "softmax_temperature", "acting_noise_scale", "sampler", "ddim_stride"),
        *("clip_denoised", "use_critic"),
    )

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        lr_schedule: Schedule,
        *,
        n_critics: PositiveInt = 10,
        n_diffusion_steps: DiffusionSteps = 5,
        beta_schedule: BetaSchedule = "vp",
        n_action_samples: NCandidates = 10,
        softmax_temperature: Temperature = 0.0,
        acting_noise_scale: NoiseScale = 1.0,
        sampler: SamplerName = "ddpm",
        ddim_stride: DiffusionSteps = 1,
        clip_denoised: bool = True,
        use_critic: bool = True,
        net_arch: NetArch = (256, 256, 256),
        critic_activation_fn: type[nn.Module] = Mish,
        critic_layer_norm: bool = False,
        residual: bool = False,
        torch_init: bool = False,
        variance: ReverseVariance = "beta",
        **kwargs: Any,
    ) -> None:
        super().__init__(observation_space, action_space, lr_schedule, **kwargs)
        self.n_action_samples = n_action_samples
        self.softmax_temperature = softmax_temperature
        self.acting_noise_scale = acting_noise_scale
        self.sampler = sampler
        self.ddim_stride = ddim_stride
        self.clip_denoised = clip_denoised
        self.use_critic = use_critic
        actor_arch, critic_arch = split_net_arch(net_arch)
        self.actor = ConditionalDiffusion(
            self.state_dim, self.action_dim, n_diffusion_steps, beta_schedule, actor_arch, residual, torch_init, variance
        )
        self.critic = EnsembleQ(
            n_critics, self.state_dim, self.action_dim, critic_arch, critic_activation_fn, critic_layer_norm, torch_init
        )
        self.actor_target = frozen_copy(self.actor)
        self.critic_target = frozen_copy(self.critic)

    @property
    def n_candidates(self) -> int:
        """Without critics nobody could choose."""
        return self.n_action_samples if self.use_critic else 1

    def sample_actions(self, states: Tensor, n_samples: int) -> Tensor:
        """
        Denoise candidates, with random numbers of the acting stream.

        :param states: (B, S) normalised observations
        :param n_samples: n
        :return: (B, n, A), in [−1, 1]
        """
        noise = self.acting_noise_scale * self.acting_noise(*self.actor.noise_shape(states.shape[0], n_samples))
        clip: SampleClip = "clean" if self.clip_denoised else "none"
        actions = self.actor.sample(states, noise, sampler=self.sampler, ddim_stride=self.ddim_stride, clip=clip)
        return actions.clamp(-1.0, 1.0)

    def candidate_values(self, states: Tensor, candidates: Tensor) -> Tensor:
        """
        What :meth:`choose` goes by.

        :param states: (B, S) normalised observations
        :param candidates: (B, n, A)
        :return: (B, n), the mean of the target critics
        """
        return self.critic_target.score_samples(states, candidates).mean(0)

    def choose(self, values: Tensor) -> Tensor:
        """
        Take the best candidate, or draw one by a softmax of the values (``softmax_temperature``).

        :param values: (B, n) of the candidates
        :return: (B,) index of the candidate to act with
        """
        if self.softmax_temperature <= 0:
            return values.argmax(dim=1)
        probabilities = th.softmax(self.choice_logits(values), dim=1)
        return draw_by(probabilities, 1, self.acting_generator).squeeze(1)

    def choice_logits(self, values: Tensor) -> Tensor:
        """(B, n) values -> (B, n) logits of the draw, for a positive temperature"""
        scale = values.abs().mean(dim=1, keepdim=True) + 1e-6
        return values / (self.softmax_temperature * scale)
