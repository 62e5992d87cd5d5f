"""Diffuser (Janner, Du, Tenenbaum & Levine, ICML 2022, arXiv 2205.09991)."""

from typing import Annotated, Any, ClassVar, NamedTuple, Unpack

import numpy as np
import torch as th
from stable_baselines3.common.policies import BasePolicy
from torch import Tensor, nn

from sb3_genoffline.common.arguments import (
    Count,
    DiffusionSteps,
    Fixed,
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
from sb3_genoffline.common.sequence_algorithm import SequenceAlgorithm
from sb3_genoffline.data.batches import SequenceBatch
from sb3_genoffline.data.buffers import OfflineBuffer
from sb3_genoffline.diffuser.policies import DiffuserPolicy, GuideSteps, Horizon, Normalizer, UnguidedSteps
from sb3_genoffline.errors import UserError
from sb3_genoffline.generative.window_diffusion import WindowDiffusion, loss_weights
from sb3_genoffline.nets.ensembles import soft_update
from sb3_genoffline.nets.temporal_unet import TemporalValue

_RETURNS = Fixed("decides which returns the value learns")


class WindowNoise(NamedTuple):
    """
    What turns B windows into noisy ones.

    :param t: (B,) integers uniform in 1..T
    :param eps: (B, H, A + S) standard normal
    """

    t: Tensor
    eps: Tensor


class DiffuserNoise(NamedTuple):
    """
    All random numbers of one update.

    :param diffusion: of the diffusion's loss
    :param value: of the value's
    """

    diffusion: WindowNoise
    value: WindowNoise


class Diffuser(SequenceAlgorithm[DiffuserNoise]):
    """
    A diffusion model of windows of episodes that plans: windows that begin in the present state are denoised, pushed uphill
    by a second network that expects the return of noisy windows. The first action of the best one is executed. Nothing is
    bootstrapped.

    Paper: Janner, Du, Tenenbaum, Levine, "Planning with diffusion for flexible behavior synthesis", ICML 2022,
    https://arxiv.org/abs/2205.09991. The defaults are those of the authors' code (jannerm/diffuser at 7ea4228), which made the
    scores of the paper's second version.

    Where paper and code disagree, or where this differs from the code:

    1. The network predicts the clean window, not the noise (code; the paper derives it for noise).
    2. The guide moves the noisy window, twice before each step, by the step's variance (code). The paper adds to the mean.
    3. A rate of 2e-4 and a million updates, windows of 4 steps for HalfCheetah (code); 4e-5, half as many, 32 (paper).
    4. 20 steps of denoising (code and second version); the first version had 100.
    5. The value learns beside the diffusion, from the same windows with noise of its own, in the first ``value_steps``
       updates; the code trains it apart. Neither training touches the other.
    6. The discount of the value's targets is 0.997, which the code's planner loads; its training has 0.99 unless told.
    7. Windows are slices of random permutations; ``replacement=True`` draws each afresh.
    8. Observations and actions are standardised by all rows, those of the last, cut episode too; constant columns stay as they
       are, where the code divides by 0.
    9. Actions of the data are clipped to ± (1 − 1e-5), those of plans to [−1, 1]; the code leaves both to the environment.
    10. The branch for Maze2D, which plans once between two states, and block stacking are not built; that branch's limits
        normaliser is: ``normalizer="limits"``.
    11. An ``acting_noise_scale`` other than 1 is an option the paper does not have.

    :param policy: ``"DiffuserPolicy"`` (alias ``"MlpPolicy"``) or a class
    :param env: see :class:`~sb3_genoffline.common.learner.Learner`
    :param learning_rate: of both networks
    :param horizon: H, steps of a window; it can be halved once less than there are ``channels``
    :param n_diffusion_steps: T
    :param n_plans: windows of which the best is taken (``predict(deterministic=True)``). They are drawn, so the action differs
        from call to call: ``model.set_acting_seed(seed)`` before makes it the same again.
    :param acting_noise_scale: factor of all noise that plans are sampled from when acting; training is not touched
    :param guide_scale: how far each move of the guide goes; 0 plans what the data would do
    :param n_guide_steps: moves of the guide before a step of denoising
    :param guide_stop: the last steps of denoising that are not guided
    :param replan_every: actions of a plan that are executed before the next is made, see
        :class:`~sb3_genoffline.diffuser.policies.DiffuserPolicy`; the code's is 1
    :param action_weight: weight of the first action in the diffusion's loss
    :param loss_discount: weight of each step of a window in that loss, of the one before it
    :param return_discount: of the returns that the value learns
    :param termination_penalty: added to the reward of a step that terminates its episode, in those returns
    :param normalizer: ``"gaussian"``: windows have mean 0 and standard deviation 1; ``"limits"``: the data's extremes become
        ±1, and plans go no further (code, for Maze2D)
    :param max_episode_steps: windows start early enough to end within so many steps of their episode
    :param value_steps: updates in which the value learns
    :param target_update_interval: updates between two moves of the slow copies, which take over the share ``tau``
    :param target_copy_steps: updates in which the copies are exact when they move
    :param kwargs: the remaining arguments of :class:`~sb3_genoffline.common.learner.Learner`; ``reward_transform`` and
        ``gamma`` have no effect: returns are those of the environment
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {"DiffuserPolicy": DiffuserPolicy, "MlpPolicy": DiffuserPolicy}
    default_gradient_steps = 1_000_000
    policy: DiffuserPolicy
    diffusion: WindowDiffusion
    diffusion_target: WindowDiffusion
    diffusion_optimizer: th.optim.Optimizer
    value: TemporalValue
    value_target: TemporalValue
    value_optimizer: th.optim.Optimizer

    def __init__(
        self,
        policy: str | type[DiffuserPolicy],
        env: EnvLike | None = None,
        learning_rate: Rate = 2e-4,
        *,
        horizon: Horizon = 32,
        n_diffusion_steps: DiffusionSteps = 20,
        n_plans: NCandidates = 64,
        acting_noise_scale: NoiseScale = 1.0,
        guide_scale: NonNegative = 0.1,
        n_guide_steps: GuideSteps = 2,
        guide_stop: UnguidedSteps = 2,
        replan_every: Horizon = 1,
        action_weight: NonNegative = 10.0,
        loss_discount: PositiveShare = 1.0,
        return_discount: Annotated[PositiveShare, _RETURNS] = 0.997,
        termination_penalty: Annotated[float, _RETURNS] = -100.0,
        normalizer: Annotated[Normalizer, Fixed("decides what the networks were trained on")] = "gaussian",
        max_episode_steps: Annotated[PositiveInt, Fixed("decides where windows start")] = 1000,
        value_steps: Count = 200_000,
        target_update_interval: PositiveInt = 10,
        target_copy_steps: Count = 2000,
        batch_size: PositiveInt = 64,
        lr_decay_steps: PositiveInt | None = None,
        max_grad_norm: Positive | None = None,
        reward_transform: RewardTransform = None,
        normalize_observations: Normalized = True,
        **kwargs: Unpack[OfflineArguments],
    ) -> None:
        self.horizon = horizon
        self.n_diffusion_steps = n_diffusion_steps
        self.n_plans = n_plans
        self.acting_noise_scale = acting_noise_scale
        self.guide_scale = guide_scale
        self.n_guide_steps = n_guide_steps
        self.guide_stop = guide_stop
        self.replan_every = replan_every
        self.action_weight = action_weight
        self.loss_discount = loss_discount
        self.return_discount = return_discount
        self.termination_penalty = termination_penalty
        self.normalizer = normalizer
        self.max_episode_steps = max_episode_steps
        self.value_steps = value_steps
        self.target_update_interval = target_update_interval
        self.target_copy_steps = target_copy_steps
        super().__init__(
            policy,
            env,
            learning_rate,
            batch_size=batch_size,
            lr_decay_steps=lr_decay_steps,
            max_grad_norm=max_grad_norm,
            reward_transform=reward_transform,
            normalize_observations=normalize_observations,
            **kwargs,
        )

    def check_arguments(self) -> None:
        """See :meth:`~sb3_genoffline.common.learner.Learner.check_arguments`."""
        if self.max_episode_steps <= self.horizon:
            raise UserError(
                f"max_episode_steps={self.max_episode_steps} has no room for windows of horizon={self.horizon} steps: use a "
                "larger one, or a smaller horizon."
            )
        if self.normalizer == "limits" and not self.normalize_observations:
            raise UserError(
                'normalizer="limits" scales observations to [−1, 1], and normalize_observations=False leaves them alone: '
                "leave one of the two out."
            )

    def policy_arguments(self) -> dict[str, Any]:
        """See :meth:`~sb3_genoffline.common.learner.Learner.policy_arguments`."""
        names = ("horizon", "n_diffusion_steps", "normalizer", *DiffuserPolicy.acting_settings)
        return {name: getattr(self, name) for name in names}

    def declare_state(self) -> None:
        """Diffusion and value, their slow copies, and an optimizer each."""
        self.add_networks("diffusion", "diffusion_target", "value", "value_target")
        self.add_optimizer("diffusion", self.diffusion.parameters())
        self.add_optimizer("value", self.value.parameters())

    def window_arguments(self) -> dict[str, Any]:
        """H steps or what is left of the episode, padded after, with the environment's returns of all that is left."""
        return {
            "horizon": self.horizon,
            "padding": "after",
            "discount": self.return_discount,
            "raw_returns": True,
            "termination_penalty": self.termination_penalty,
        }

    def count_windows(self, lengths: np.ndarray) -> np.ndarray:
        """The last row of an episode starts none, nor does one so late that the window could leave ``max_episode_steps``."""
        return np.asarray(np.maximum(np.minimum(lengths - 1, self.max_episode_steps - self.horizon), 0))

    def take_buffer(self, buffer: OfflineBuffer) -> None:
        """See :meth:`~sb3_genoffline.common.stored_learner.StoredLearner.take_buffer`."""
        super().take_buffer(buffer)
        if "fingerprint" in self.dataset_info:
            return
        observations, actions = self.offline_rows()
        if self.normalizer == "limits":
            self.policy.set_observation_statistics(*_middle_and_half(observations))
            self.policy.set_action_statistics(*_middle_and_half(actions))
        else:
            actions = actions.double()
            self.policy.set_action_statistics(actions.mean(0), actions.std(0, correction=0))

    def draw_noise(self, batch_size: int) -> DiffuserNoise:
        """The random numbers of one update from this algorithm's generator."""
        return DiffuserNoise(self._draw_window_noise(batch_size), self._draw_window_noise(batch_size))

    def _draw_window_noise(self, batch_size: int) -> WindowNoise:
        t = th.randint(1, self.n_diffusion_steps + 1, (batch_size,), generator=self.generator, device=self.device)
        return WindowNoise(t, self.normal_noise(batch_size, self.horizon, self.policy.action_dim + self.policy.state_dim))

    def phase(self) -> tuple[bool, float]:
        """Whether the coming update teaches the value, and the share of the networks that their copies take over."""
        update = self._n_updates
        share = 0.0 if update % self.target_update_interval else 1.0 if update < self.target_copy_steps else self.tau
        return update < self.value_steps, share

    def update(self, batch: SequenceBatch, noise: DiffuserNoise) -> dict[str, Tensor]:
        """
        One gradient step of the diffusion, and one of the value while it learns.

        :param batch: B windows
        :param noise: all random numbers of the step
        :return: scalars to log, on the device
        """
        teaches_value, share = self.phase()
        windows = self.policy.windows(batch.observations, batch.actions)  # (B, H, A + S), padding is a standardised 0

        # ------ E[w·(x̂0(x_t, t) − x_0)²], the present state of x_t and of x̂0 that of x_0
        noisy = self.diffusion.add_noise(windows, noise.diffusion.eps, noise.diffusion.t)
        errors = (self.diffusion(noisy, noise.diffusion.t) - windows).square()
        weighing = (self.policy.action_dim, self.action_weight, self.loss_discount)
        loss = (loss_weights(self.horizon, windows.shape[-1], *weighing, like=windows) * errors).mean()
        gradient_step(self.diffusion_optimizer, loss, self.rate_now(self.learning_rate), self.max_grad_norm)
        self._move_copy(self.diffusion, self.diffusion_target, share)
        first_action = errors.detach()[:, 0, : self.policy.action_dim].mean()
        info = {"diffusion_loss": loss.detach(), "first_action_loss": first_action}
        if not teaches_value:
            return info

        # ------ E[(J(x_t, t) − Σ_i γ^i·r_i)²], the sum over all that is left of the episode
        assert batch.returns_to_go is not None
        noisy = self.diffusion.add_noise(windows, noise.value.eps, noise.value.t)
        values = self.value(noisy, noise.value.t)
        value_loss = (values - batch.returns_to_go[:, 0]).square().mean()
        gradient_step(self.value_optimizer, value_loss, self.rate_now(self.learning_rate), self.max_grad_norm)
        self._move_copy(self.value, self.value_target, share)
        return info | {"value_loss": value_loss.detach(), "v_mean": values.detach().mean()}

    def _move_copy(self, online: nn.Module, target: nn.Module, share: float) -> None:
        if share > 0:
            soft_update(online, target, share)


def _middle_and_half(rows: Tensor) -> tuple[Tensor, Tensor]:
    """(N, D) -> (D,) the middle between the least and the largest, (D,) half the way from one to the other"""
    low, high = th.aminmax(rows, dim=0)
    return (low + high) / 2, (high - low) / 2
