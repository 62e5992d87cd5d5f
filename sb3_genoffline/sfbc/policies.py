"""The policy of SfBC: a diffusion model of behaviour, and one critic that chooses among its samples."""

from typing import Any, Literal

import torch as th
from gymnasium import spaces
from stable_baselines3.common.type_aliases import Schedule
from torch import Tensor, nn

from sb3_genoffline.common.arguments import (
    DiffusionSteps,
    NCandidates,
    NoiseScale,
    PositiveInt,
    Sharpness,
    Widths,
)
from sb3_genoffline.common.candidates import CandidatePolicy, draw_by
from sb3_genoffline.generative.score import ScoreBehaviour
from sb3_genoffline.nets.ensembles import EnsembleQ

SolverOrder = Literal[1, 2, 3]
_LEAD = 40.0  # of a logit over the n-th best one, at most: so far none of the n best is without a chance


class SfBCPolicy(CandidatePolicy):
    """
    ``predict(deterministic=True)`` draws ``n_action_samples`` actions of the behaviour per observation, then ``n_selected`` of
    them without replacement, with probability ∝ exp(``selection_alpha``·Q), and takes their mean;
    ``deterministic=False`` is one action of the behaviour. Both are samples:
    ``model.set_acting_seed(seed)`` before makes them the same again. Q is in standard deviations of the returns of the data.

    :param observation_space: flat Box
    :param action_space: bounded Box
    :param lr_schedule: unused: the algorithm owns the optimizers
    :param n_action_samples: M, candidates when acting
    :param acting_noise_scale: factor of the noise that candidates are made of; the paper's is 1
    :param n_selected: n, those whose mean is the action (all where there are fewer)
    :param selection_alpha: α of the softmax; the larger, the nearer to the n best
    :param n_solver_steps: evaluations of the behaviour's network for a sample
    :param solver_order: largest order of DPM-Solver's steps
    :param net_arch: hidden widths of the critic
    :param behavior_net_arch: widths of the behaviour's U-net on its way down
    :param time_dim: features of the diffusion's time, and of the state (even)
    :param embed_dim: width of what they become
    :param activation_fn: of both networks
    """

    fitted_model = "behavior"
    acting_settings = (
        *("n_action_samples", "acting_noise_scale", "n_selected", "selection_alpha", "n_solver_steps", "solver_order"),
    )
    fitted: Tensor

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        lr_schedule: Schedule,
        *,
        n_action_samples: NCandidates = 32,
        acting_noise_scale: NoiseScale = 1.0,
        n_selected: NCandidates = 4,
        selection_alpha: Sharpness = 100.0,
        n_solver_steps: DiffusionSteps = 15,
        solver_order: SolverOrder = 3,
        net_arch: Widths = (256, 256),
        behavior_net_arch: Widths = (512, 256, 128),
        time_dim: PositiveInt = 32,
        embed_dim: PositiveInt = 128,
        activation_fn: type[nn.Module] = nn.SiLU,
        **kwargs: Any,
    ) -> None:
        super().__init__(observation_space, action_space, lr_schedule, **kwargs)
        self.n_action_samples, self.n_selected, self.selection_alpha = n_action_samples, n_selected, selection_alpha
        self.acting_noise_scale = acting_noise_scale
        self.n_solver_steps, self.solver_order = n_solver_steps, solver_order
        dims = self.state_dim, self.action_dim
        self.behavior = ScoreBehaviour(*dims, behavior_net_arch, time_dim, embed_dim, activation_fn).requires_grad_(False)
        self.critic = EnsembleQ(1, *dims, net_arch, activation_fn, torch_init=True)
        self.register_buffer("fitted", th.zeros((), dtype=th.bool))

    def behave(self, states: Tensor, noise: Tensor) -> Tensor:
        """
        Actions of the behaviour's model, by DPM-Solver.

        :param states: (B, S) normalised observations
        :param noise: (B, n, A) standard normal
        :return: (B, n, A), actions of the behaviour, not clipped
        """
        return self.behavior.sample(states, noise, n_steps=self.n_solver_steps, order=self.solver_order)

    def sample_actions(self, states: Tensor, n_samples: int) -> Tensor:
        """(B, S) -> (B, n, A), which :meth:`pick` clips"""
        noise = self.acting_noise_scale * self.acting_noise(states.shape[0], n_samples, self.action_dim)
        return self.behave(states, noise)

    def candidate_values(self, states: Tensor, candidates: Tensor) -> Tensor:
        """(B, S), (B, n, A) -> (B, n), Q in standard deviations of the returns"""
        return self.critic.score_samples(states, candidates)[0]

    def selection_probabilities(self, values: Tensor) -> Tensor:
        """(B, M) values -> (B, M), softmax of α·Q, with a limit to how far the best may be ahead of the n-th best"""
        logits = self.selection_alpha * values
        n = min(self.n_selected, values.shape[1])
        return th.softmax(logits.minimum(logits.topk(n).values[:, -1:] + _LEAD), dim=1)

    def pick(self, candidates: Tensor, values: Tensor) -> Tensor:
        """See :meth:`~sb3_genoffline.common.candidates.CandidatePolicy.pick`: the mean of those that are drawn."""
        n = min(self.n_selected, values.shape[1])
        drawn = draw_by(self.selection_probabilities(values), n, self.acting_generator)  # (B, n)
        return candidates.gather(1, drawn.unsqueeze(2).expand(-1, -1, candidates.shape[2])).mean(1)

    def _predict(self, observation: Tensor, deterministic: bool = False) -> Tensor:  # type: ignore[override]
        return super()._predict(observation, deterministic).clamp(-1.0, 1.0)
