"""The policy of IDQL: a diffusion model of behaviour, twin critics, their slow copies, and a state value."""

from typing import Annotated, Any, Literal

from gymnasium import spaces
from stable_baselines3.common.type_aliases import Schedule
from torch import Tensor, nn

from sb3_genoffline.common.arguments import (
    Bounds,
    DiffusionSteps,
    NCandidates,
    NoiseScale,
    Positive,
    PositiveInt,
    Widths,
)
from sb3_genoffline.common.candidates import CandidatePolicy, draw_by
from sb3_genoffline.generative.diffusion import ActionDiffusion, BetaSchedule, xavier_init
from sb3_genoffline.generative.residual_noise import ResidualNoiseNetwork
from sb3_genoffline.idql.implicit import Objective, implicit_weights
from sb3_genoffline.nets.activations import Mish
from sb3_genoffline.nets.ensembles import EnsembleQ
from sb3_genoffline.nets.network import frozen_copy
from sb3_genoffline.nets.values import StateValue

Selection = Literal["best", "implicit"]


class IDQLPolicy(CandidatePolicy):
    """
    Acts by denoising with slow copies of actor and critics. ``predict(deterministic=True)`` samples ``n_action_samples``
    actions per observation and takes the one with the largest min_i Q̄_i; ``deterministic=False`` is one sample. With
    ``selection="implicit"`` both draw among the candidates, with probability ∝ w(min_i Q̄_i − V): τ above V and 1 − τ below it
    for the expectile, see :func:`~sb3_genoffline.idql.implicit.implicit_weights`. All are samples:
    ``model.set_acting_seed(seed)`` before makes them the same again.

    :param observation_space: flat Box
    :param action_space: bounded Box
    :param lr_schedule: unused: the algorithm owns the optimizers
    :param n_diffusion_steps: T
    :param beta_schedule: noise schedule
    :param n_action_samples: N, candidates when acting
    :param acting_noise_scale: factor of all noise that candidates are sampled from; the paper's is 1
    :param selection: ``"best"`` or ``"implicit"``
    :param value_objective: what V descended, of the draw
    :param expectile: its τ
    :param exponential_scale: its α
    :param net_arch: hidden widths of critics and V
    :param hidden_dim: width of the actor's residual blocks
    :param n_blocks: their number
    :param dropout: share of their inputs that is dropped in training
    :param time_dim: features of the diffusion's time
    :param activation_fn: of the actor
    :param value_layer_norm: LayerNorm on the states that V reads
    """

    acts_with_targets = ("actor_target", "critic_target")
    acting_settings = (
        *("n_action_samples", "acting_noise_scale", "selection"),
        *("value_objective", "expectile", "exponential_scale"),
    )

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        lr_schedule: Schedule,
        *,
        n_diffusion_steps: DiffusionSteps = 5,
        beta_schedule: BetaSchedule = "vp",
        n_action_samples: NCandidates = 64,
        acting_noise_scale: NoiseScale = 1.0,
        selection: Selection = "best",
        value_objective: Objective = "expectile",
        expectile: Annotated[float, Bounds(0.0, 1.0, open_low=True, open_high=True)] = 0.7,
        exponential_scale: Positive = 1.0,
        net_arch: Widths = (256, 256),
        hidden_dim: PositiveInt = 256,
        n_blocks: PositiveInt = 3,
        dropout: Annotated[float, Bounds(0.0, 1.0, open_high=True)] = 0.1,
        time_dim: PositiveInt = 64,
        activation_fn: type[nn.Module] = Mish,
        value_layer_norm: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(observation_space, action_space, lr_schedule, **kwargs)
        self.n_action_samples = n_action_samples
        self.acting_noise_scale = acting_noise_scale
        self.selection = selection
        self.value_objective = value_objective
        self.expectile = expectile
        self.exponential_scale = exponential_scale
        dims = self.state_dim, self.action_dim
        network = ResidualNoiseNetwork(*dims, hidden_dim, n_blocks, dropout, time_dim, activation_fn)
        self.actor = ActionDiffusion(network, n_diffusion_steps, beta_schedule)
        self.critic = EnsembleQ(2, *dims, net_arch, nn.ReLU)
        self.value = StateValue(self.state_dim, net_arch, nn.ReLU, input_norm=value_layer_norm)
        xavier_init(self.value)
        self.actor_target = frozen_copy(self.actor)
        self.critic_target = frozen_copy(self.critic)

    def sample_actions(self, states: Tensor, n_samples: int) -> Tensor:
        """See :meth:`~sb3_genoffline.common.candidates.CandidatePolicy.sample_actions`."""
        noise = self.acting_noise_scale * self.acting_noise(*self.actor_target.noise_shape(states.shape[0], n_samples))
        return self.actor_target.sample(states, noise, clip="step")

    def candidate_values(self, states: Tensor, candidates: Tensor) -> Tensor:
        """(B, S), (B, n, A) -> (B, n), min_i Q̄_i(s, a) − V(s)"""
        values: Tensor = self.critic_target.score_samples(states, candidates).amin(0) - self.value(states).unsqueeze(1)
        return values

    def choose(self, values: Tensor) -> Tensor:
        """See :meth:`~sb3_genoffline.common.candidates.CandidatePolicy.choose`."""
        if self.selection == "best":
            return super().choose(values)
        weights = implicit_weights(values, self.value_objective, self.expectile, self.exponential_scale)
        return draw_by(weights, 1, self.acting_generator).squeeze(1)

    def _predict(self, observation: Tensor, deterministic: bool = False) -> Tensor:  # type: ignore[override]
        return super()._predict(observation, deterministic or self.selection == "implicit")
