"""The policy of Diffuser: a diffusion model of windows, a network that expects their return, and planning with both."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.type_aliases import Schedule
from torch import Tensor

from sb3_genoffline.common.arguments import Bounds, DiffusionSteps, NCandidates, NoiseScale, NonNegative, Widths
from sb3_genoffline.common.policies import OfflinePolicy, without_zeros
from sb3_genoffline.deploy.acting import Acting
from sb3_genoffline.errors import UserError
from sb3_genoffline.generative.window_diffusion import WindowDiffusion, plan_windows
from sb3_genoffline.nets.blocks import is_undivided, state_blocks
from sb3_genoffline.nets.network import frozen_copy
from sb3_genoffline.nets.temporal_unet import TemporalUNet, TemporalValue

Horizon = Annotated[int, Bounds(1, 512)]
GuideSteps = Annotated[int, Bounds(0, 1_000)]
UnguidedSteps = Annotated[int, Bounds(0, 10_000)]
Normalizer = Literal["gaussian", "limits"]

PLANNED_TOGETHER = 2048
"""Windows that are denoised at once, at most, unless one environment has more."""


class Plans(NamedTuple):
    """
    The best plan of each of n environments.

    :param observations: (n, H, S), raw; the first is the present one
    :param actions: (n, H, A), in [−1, 1]
    :param values: (n,), the return that is expected of them
    """

    observations: Tensor
    actions: Tensor
    values: Tensor


class Ahead(NamedTuple):
    """
    What a policy that plans every k steps keeps of n environments.

    :param actions: (n, k, A), of the plans, in [−1, 1]
    :param step: int64 (n,), how many of them are done
    """

    actions: np.ndarray
    step: np.ndarray


class ActingByPlans(Acting):
    """Plans, and returns as many actions of the plan as are executed before the next."""

    results = ("action", "plan")

    @property
    def n_actions(self) -> int:
        """Of a plan."""
        return int(min(self.policy.replan_every, self.policy.horizon))

    def act(self, observations: Tensor, memory: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """The first action (B, A) and the first k (B, k, A)."""
        plans = self.policy.plan(observations, None if self.deterministic else 1)
        ahead = self.unscaled(plans.actions[:, : self.n_actions])
        return ahead[:, 0], ahead


class DiffuserPolicy(OfflinePolicy):
    """
    Acts by planning with the slow copies of its networks: windows that begin in the present state are denoised, uphill in the
    return that is expected of them, and the first action of one is executed. ``predict(deterministic=True)`` makes
    ``n_plans`` of each observation and takes the best, ``deterministic=False`` makes one. All are samples:
    ``model.set_acting_seed(seed)`` before makes them the same again.

    With ``replan_every=k`` above 1 the first k actions of a plan are executed before the next is made. The plans are then the
    ``state`` of ``predict(observation, state, episode_start)``.

    :param observation_space: flat Box
    :param action_space: bounded Box
    :param lr_schedule: unused: the algorithm owns the optimizers
    :param horizon: H, steps of a plan
    :param n_diffusion_steps: T
    :param n_plans: of which the best is taken
    :param acting_noise_scale: factor of all noise that plans are sampled from; the paper's is 1
    :param guide_scale: how far each move of the guide goes; 0 plans what the data would do
    :param n_guide_steps: moves of the guide before a step of denoising
    :param guide_stop: the last steps of denoising that are not guided
    :param replan_every: actions of a plan that are executed, at most the plan's
    :param channels: of the networks' levels
    :param attention: linear attention in the diffusion's levels
    :param normalizer: ``"limits"``: plans stay within the data's extremes, which are ±1 in windows
    """

    acts_with_targets = ("diffusion_target", "value_target")
    sized_by = ("channels", "attention")
    acting_settings = ("n_plans", "acting_noise_scale", "guide_scale", "n_guide_steps", "guide_stop", "replan_every")
    action_mean: Tensor
    action_std: Tensor

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        lr_schedule: Schedule,
        *,
        horizon: Horizon = 32,
        n_diffusion_steps: DiffusionSteps = 20,
        n_plans: NCandidates = 64,
        acting_noise_scale: NoiseScale = 1.0,
        guide_scale: NonNegative = 0.1,
        n_guide_steps: GuideSteps = 2,
        guide_stop: UnguidedSteps = 2,
        replan_every: Horizon = 1,
        channels: Widths = (32, 64, 128, 256),
        attention: bool = False,
        normalizer: Normalizer = "gaussian",
        **kwargs: Any,
    ) -> None:
        super().__init__(observation_space, action_space, lr_schedule, **kwargs)
        self.normalizer = normalizer
        self.horizon = horizon
        self.n_plans = n_plans
        self.acting_noise_scale = acting_noise_scale
        self.guide_scale = guide_scale
        self.n_guide_steps = n_guide_steps
        self.guide_stop = guide_stop
        self.replan_every = replan_every
        self.register_buffer("action_mean", th.zeros(self.action_dim))
        self.register_buffer("action_std", th.ones(self.action_dim))
        width = self.action_dim + self.state_dim
        network = TemporalUNet(width, horizon, channels, attention)
        self.diffusion = WindowDiffusion(network, self.state_dim, n_diffusion_steps)
        self.value = TemporalValue(width, horizon, channels)
        self.diffusion_target = frozen_copy(self.diffusion)
        self.value_target = frozen_copy(self.value)

    @property
    def has_memory(self) -> bool:
        """Whether plans are kept from step to step."""
        return self.replan_every > 1

    def set_action_statistics(self, mean: Tensor, std: Tensor) -> None:
        """
        From now on actions are standardised in windows.

        :param mean: (A,) of the actions in [−1, 1]; or the middle of their limits
        :param std: (A,), or half of what lies between the limits; a constant column gets 1
        """
        self.action_mean.copy_(mean)
        self.action_std.copy_(without_zeros(std))

    def windows(self, observations: Tensor, actions: Tensor) -> Tensor:
        """
        Observations and actions as the networks see them.

        :param observations: (B, H, S), raw
        :param actions: (B, H, A), in [−1, 1]
        :return: (B, H, A + S), standardised
        """
        states = self.normalize_observations(observations.flatten(0, 1)).view_as(observations)
        return th.cat([(actions - self.action_mean) / self.action_std, states], dim=-1)

    def raw(self, windows: Tensor) -> tuple[Tensor, Tensor]:
        """
        The way back from :meth:`windows`, for windows that were planned.

        :param windows: (n, H, A + S), standardised
        :return: states (n, H, S), raw, and actions (n, H, A), in [−1, 1]
        """
        if self.normalizer == "limits":
            windows = windows.clamp(-1.0, 1.0)
        actions, states = th.split(windows, [self.action_dim, self.state_dim], dim=-1)
        actions = (actions.nan_to_num() * self.action_std + self.action_mean).clamp(-1.0, 1.0)
        return states * self.obs_std + self.obs_mean, actions

    def plan(self, observations: Tensor, n_plans: int | None = None) -> Plans:
        """
        Where a guide that is far too strong leaves no number, an action is the data's mean, and other plans are better.
        From an observation with NaN, actions are NaN.

        :param observations: (n, S), raw
        :param n_plans: of each, of which the best is taken (None: as the policy is set)
        """
        n_plans = self.n_plans if n_plans is None else n_plans
        states = self.normalize_observations(observations)
        if is_undivided() or not len(states):
            windows, values = self._best(states, n_plans)
        else:
            found = [self._best(states[rows], n_plans) for rows in state_blocks(len(states), n_plans, PLANNED_TOGETHER)]
            windows, values = (th.cat(parts) for parts in zip(*found, strict=True))
        states, actions = self.raw(windows)
        return Plans(states, actions.where(~observations.isnan().any(1)[:, None, None], th.nan), values)

    def _best(self, states: Tensor, n_plans: int) -> tuple[Tensor, Tensor]:
        """Of (n, S) standardised states the best windows (n, H, A + S), and their values (n,)."""

        def value(windows: Tensor, t: Tensor) -> Tensor:
            said: Tensor = self.value_target(windows, t.expand(windows.shape[0]))
            return said

        present = states.repeat_interleave(n_plans, dim=0)
        shape = (self.horizon, self.action_dim + self.state_dim)
        windows, values = plan_windows(
            self.diffusion_target.predict_clean,
            value,
            self.diffusion.schedule,
            self.acting_noise_scale * self.acting_noise(self.diffusion.n_steps, present.shape[0], *shape),
            present,
            guide_scale=self.guide_scale,
            n_guide_steps=self.n_guide_steps,
            guide_stop=self.guide_stop,
        )
        best_values, best = values.nan_to_num(nan=-th.inf).view(-1, n_plans).max(dim=1)
        return windows.view(-1, n_plans, *shape)[th.arange(states.shape[0]), best], best_values

    def forward(self, observation: Tensor, deterministic: bool = False) -> Tensor:
        return self._predict(observation, deterministic)

    def _predict(self, observation: Tensor, deterministic: bool = False) -> Tensor:  # type: ignore[override]
        return self.plan(observation, None if deterministic else 1).actions[:, 0]

    def predict(
        self,
        observation: np.ndarray | dict[str, np.ndarray],
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        """
        Plan in one or several environments, or go on with the plans that ``state`` holds.

        :param observation: one or a batch of n
        :param state: that the last call returned, which stays as it is; None: all n begin an episode
        :param episode_start: bool (n,), which begin one, so that their plans are forgotten (None: with a state, none)
        :param deterministic: the best of the plans, instead of the only one
        :return: action or actions, and the state with what is left of the plans, :class:`Ahead`; with ``replan_every=1`` the
            state is passed through
        :raises UserError: if the state is of another number of environments, or no state
        """
        if not self.has_memory:
            return super().predict(observation, state, episode_start, deterministic)
        self.set_training_mode(False)
        rows, is_batch = self.obs_to_tensor(observation)
        assert isinstance(rows, Tensor)
        n = len(rows)
        ahead = self._nothing_ahead(n) if state is None else self._checked(state, n)
        new = ahead.step >= ahead.actions.shape[1]
        if episode_start is not None:
            new = new | np.asarray(episode_start, dtype=bool)
        planned, step = ahead.actions.copy(), np.where(new, 0, ahead.step)
        if new.any():
            with th.no_grad():
                plans = self.plan(rows[th.as_tensor(new, device=rows.device)], None if deterministic else 1)
            planned[new] = plans.actions[:, : planned.shape[1]].cpu().numpy()
        actions = self.unscale_action(planned[np.arange(n), step]).reshape(-1, *(self.action_space.shape or ()))
        return (actions if is_batch else actions[0]), Ahead(planned, step + 1)

    def acting_module(self, deterministic: bool) -> Acting:
        """
        What an ONNX file of the policy holds.

        :param deterministic: as in :meth:`predict`
        """
        return ActingByPlans(self, deterministic) if self.has_memory else super().acting_module(deterministic)

    def _nothing_ahead(self, n: int) -> Ahead:
        n_kept = min(self.replan_every, self.horizon)
        dtype = th.zeros((), dtype=self.obs_mean.dtype).numpy().dtype
        return Ahead(np.zeros((n, n_kept, self.action_dim), dtype), np.full(n, n_kept))

    def _checked(self, state: Sequence[Any], n: int) -> Ahead:
        wanted = [part.shape for part in self._nothing_ahead(n)]
        found = [np.shape(part) for part in state] if isinstance(state, tuple | list) else type(state).__name__
        if found != wanted:
            raise UserError(
                f"The state is not a plan for {n} environments with replan_every={self.replan_every}: its arrays have the "
                f"shapes {found}, not {wanted}. Pass what the last predict returned, or None."
            )
        return Ahead(*state)
