"""SfBC (Chen, Lu, Ying, Su & Zhu, ICLR 2023, arXiv 2209.14548)."""

from typing import Annotated, Any, ClassVar, Unpack

import numpy as np
import torch as th
from stable_baselines3.common.policies import BasePolicy
from torch import Tensor
from torch.nn.functional import mse_loss

from sb3_genoffline.common.arguments import (
    DiffusionSteps,
    Fixed,
    NCandidates,
    NoiseScale,
    NonNegative,
    Normalized,
    Positive,
    PositiveInt,
    Rate,
    RewardTransform,
    Sharpness,
    TakenOver,
)
from sb3_genoffline.common.envs import EnvLike
from sb3_genoffline.common.fitting import Fit
from sb3_genoffline.common.keywords import OfflineArguments
from sb3_genoffline.common.offline_algorithm import OfflineAlgorithm
from sb3_genoffline.common.optimizers import gradient_step
from sb3_genoffline.data.batches import ReturnBatch
from sb3_genoffline.data.blocks import row_blocks
from sb3_genoffline.data.buffers import OfflineBuffer
from sb3_genoffline.data.returns import PlanningTarget, ReturnSampler
from sb3_genoffline.files.archive import PathOrFile
from sb3_genoffline.generative.score import ScoreBehaviour
from sb3_genoffline.nets.ensembles import EnsembleQ
from sb3_genoffline.nets.network import frozen_copy
from sb3_genoffline.sfbc.fit import BehaviorFit
from sb3_genoffline.sfbc.policies import SfBCPolicy, SolverOrder

_BLOCK = 2**12  # rows of which the planning actions are drawn together; another size is another draw


def soft_maximum(values: Tensor, alpha: float) -> Tensor:
    """
    Σ_j softmax_j(α·Q_j)·Q_j

    :param values: Q, (..., n)
    :param alpha: 0 is the mean, towards ∞ the maximum
    :return: (...)
    """
    return (th.softmax(alpha * values, dim=-1) * values).sum(-1)


class SfBC(OfflineAlgorithm[ReturnBatch, None]):
    """
    Selecting from behaviour candidates. A diffusion model imitates the data. A critic is regressed on returns, which are
    improved K − 1 times by planning on the data's own states: wherever actions of the behaviour's are worth more than what
    the data did, the return goes on from there. Acting draws candidates of the behaviour and mixes the best. There is no
    target network, and no action outside the behaviour's is ever asked about.

    Paper: Chen, Lu, Ying, Su, Zhu, "Offline reinforcement learning via high-fidelity generative behavior modeling", ICLR
    2023, https://arxiv.org/abs/2209.14548. Its code is https://github.com/ChenDRAG/SfBC at d384e9f.
    :meth:`learn_offline` first fits the behaviour (a progress bar and log keys ``behavior/`` of its own), unless there is a
    fitted one, then trains the critic, whose updates ``num_timesteps`` counts. One behaviour serves agents with other seeds
    and settings: :meth:`save_fitted_model` and ``behavior=...``.

    Where paper and code disagree, or where this differs from the code:

    1. A planned return is R_t = max(r_t + γ·R_{t+1}, V_t), as in the code; the paper has r_t + γ·max(R_{t+1}, V_{t+1}). The
       code's is never below V_t, in a terminal row too, so that actions worse than V are no longer told apart.
       ``planning_target="paper"`` is the paper's.
    2. Time-outs end a return as terminations do: nothing is bootstrapped (code).
    3. ``n_planning_iterations=2`` is one planning, as in the code, whose loop counts the returns of the data as the first.
    4. Planning ends an iteration of ``critic_steps`` updates and the next begins with the critic's first weights and a new
       Adam (code). The code's last iteration is one epoch shorter, 245 of 24,500 updates at a million rows.
    5. The behaviour is fitted on rows drawn with replacement; the code's epochs repeat the data until they are four million
       rows long, and shuffle them.
    6. ``n_selected`` candidates are drawn without replacement and their plain mean is taken (code): 4 on Gym-MuJoCo.
    7. The code's second critic, which is never trained, and its smaller network of behaviour, which is never used, are not
       built.
    8. In AntMaze the code leaves out episodes of less than 5 rows (``min_episode_length``), the last row of those that a time
       limit cut (kept here), and rewards of medium-play-v2 that lie outside the goal (kept here: look at them with
       ``python -m zoo inspect``).
    9. It does not go on online: the paper has no such form.
    10. An ``acting_noise_scale`` other than 1 is an option the paper does not have.

    :param policy: ``"SfBCPolicy"`` (alias ``"MlpPolicy"``) or a class
    :param env: see :class:`~sb3_genoffline.common.learner.Learner`
    :param learning_rate: of the critic
    :param behavior_learning_rate: of the behaviour
    :param behavior_steps: steps that fit it
    :param behavior: a fitted one, or a file of :meth:`save_fitted_model`, instead of fitting it; None once it is taken over
    :param n_planning_iterations: K; 1 regresses the critic on the data's returns alone
    :param critic_steps: updates of an iteration; the last one goes on as long as it is trained
    :param n_planning_samples: actions of the behaviour in each state that planning looks at, drawn once
    :param planning_alpha: α of the softmax over them, for Q in standard deviations of the returns
    :param planning_target: ``"code"`` or ``"paper"``, see 1
    :param n_action_samples: candidates when acting (``predict(deterministic=True)``). They are drawn, so the action differs
        from call to call: ``model.set_acting_seed(seed)`` before makes it the same again.
    :param acting_noise_scale: factor of all noise that candidates are sampled from when acting; training is not touched
    :param n_selected: candidates whose mean is the action
    :param selection_alpha: α of the draw among candidates, for Q in standard deviations of the returns
    :param n_solver_steps: evaluations of the behaviour's network for a sample
    :param solver_order: largest order of DPM-Solver's steps
    :param min_episode_length: rows of shorter episodes are left out
    :param batch_size: of behaviour and critic
    :param kwargs: the remaining arguments of :class:`~sb3_genoffline.common.learner.Learner`
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {"SfBCPolicy": SfBCPolicy, "MlpPolicy": SfBCPolicy}
    default_gradient_steps = 49_000
    goes_online = False
    baselines: ClassVar[dict[str, dict[str, Any]]] = {"no planning": {"n_planning_iterations": 1}}
    fitted_model_arguments = "the same spaces and policy_kwargs"
    fitted_model_units = ("normalize_observations",)
    policy: SfBCPolicy
    critic: EnsembleQ
    critic_start: EnsembleQ
    critic_optimizer: th.optim.Optimizer
    batches: ReturnSampler
    _drawn: tuple[Any, Tensor] | None = None
    """Actions that planning looks at, and the settings that they were drawn with. No file has them: they are drawn again."""

    def __init__(
        self,
        policy: str | type[SfBCPolicy],
        env: EnvLike | None = None,
        learning_rate: Rate = 1e-3,
        *,
        behavior_learning_rate: NonNegative = 1e-4,
        behavior_steps: PositiveInt = 586_200,
        behavior: Annotated[ScoreBehaviour | PathOrFile | None, TakenOver] = None,
        n_planning_iterations: PositiveInt = 2,
        critic_steps: PositiveInt = 24_500,
        n_planning_samples: NCandidates = 16,
        planning_alpha: Sharpness = 20.0,
        planning_target: PlanningTarget = "code",
        n_action_samples: NCandidates = 32,
        acting_noise_scale: NoiseScale = 1.0,
        n_selected: NCandidates = 4,
        selection_alpha: Sharpness = 100.0,
        n_solver_steps: DiffusionSteps = 15,
        solver_order: SolverOrder = 3,
        min_episode_length: Annotated[PositiveInt, Fixed("decides which rows are learned from")] = 1,
        batch_size: PositiveInt = 4096,
        lr_decay_steps: PositiveInt | None = None,
        max_grad_norm: Positive | None = None,
        reward_transform: RewardTransform = None,
        normalize_observations: Normalized = False,
        **kwargs: Unpack[OfflineArguments],
    ) -> None:
        self.behavior_learning_rate = behavior_learning_rate
        self.behavior_steps = behavior_steps
        self.behavior = behavior
        self.n_planning_iterations = n_planning_iterations
        self.critic_steps = critic_steps
        self.n_planning_samples = n_planning_samples
        self.planning_alpha = planning_alpha
        self.planning_target: PlanningTarget = planning_target
        self.n_action_samples = n_action_samples
        self.acting_noise_scale = acting_noise_scale
        self.n_selected = n_selected
        self.selection_alpha = selection_alpha
        self.n_solver_steps = n_solver_steps
        self.solver_order = solver_order
        self.min_episode_length = min_episode_length
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

    def policy_arguments(self) -> dict[str, Any]:
        """See :meth:`~sb3_genoffline.common.learner.Learner.policy_arguments`."""
        return {name: getattr(self, name) for name in SfBCPolicy.acting_settings}

    def declare_state(self) -> None:
        """The critic, its optimizer, and its first weights; the behaviour is the policy's, with an optimizer in its fit."""
        self.add_networks("critic")
        self.add_optimizer("critic", self.critic.parameters())
        self.add_network("critic_start", frozen_copy(self.critic))

    def make_sampler(self, buffer: OfflineBuffer) -> ReturnSampler:
        """Rows with their returns."""
        self._drawn = None
        settings: dict[str, Any] = {"min_episode_length": self.min_episode_length, "replacement": self.replacement}
        return ReturnSampler(buffer, self.gamma, **settings, seed=self._buffer_seed)

    def overestimation_hint(self) -> str:
        """The arguments that help."""
        return (
            f"What helps: planning_target='paper', whose returns are lower, a smaller n_planning_iterations="
            f"{self.n_planning_iterations}, or more critic_steps={self.critic_steps}, so that planning asks a better critic."
        )

    def usual_gradient_steps(self) -> int:
        """All iterations."""
        return self.n_planning_iterations * self.critic_steps

    # ------------------------------------------------------------------ the behaviour

    def fit_arguments(self) -> tuple[str, ...]:
        """What the behaviour's fit alone reads, and γ of the returns, which are there with it."""
        return ("behavior_steps", "behavior_learning_rate", "gamma")

    def make_fits(self) -> list[Fit]:
        """The behaviour's."""
        rate = self.behavior_learning_rate
        return [BehaviorFit(self.behavior_steps, self.policy, self.draw_for_fit, rate, self.generator)]

    def draw_for_fit(self) -> ReturnBatch:
        """A batch for the behaviour, drawn with replacement."""
        return self.batches.draw_by(self.generator, self.batch_size)

    def _begin_with_another_model(self) -> None:
        super()._begin_with_another_model()
        self._drawn = None

    # ------------------------------------------------------------------ planning

    def train(self, gradient_steps: int, batch_size: int) -> None:
        """
        Make gradient steps of the critic, and plan between two iterations.

        :param gradient_steps: number of updates, before each of which a planning may be due
        :param batch_size: B
        """
        for _ in range(gradient_steps):
            if self.batches.n_drawn >= self.critic_steps and self.batches.n_plans < self.n_planning_iterations - 1:
                self.plan()
            super().train(1, batch_size)

    @th.no_grad()
    def plan(self) -> None:
        """Improve the returns by what the critic says of the behaviour's actions, and begin again with its first weights."""
        actions, before = self.planning_actions(), self.batches.returns
        values = np.empty(len(actions))
        for block in row_blocks(len(actions), _BLOCK):
            states = self.policy.normalize_observations(self.batches.observations_at(block))
            q = self.policy.candidate_values(states, actions[block].to(self.device))
            values[block] = soft_maximum(q, self.planning_alpha).cpu().numpy()
        self.batches.replan(values, self.gamma, self.planning_target)
        self.critic.load_state_dict(self.critic_start.state_dict())
        self.critic_optimizer.state.clear()
        self.stepper.forget()
        after = self.batches.returns
        figures = {"return_mean": after.mean(), "return_std": after.std(), "raised_share": (after > before).mean()}
        for name, figure in figures.items():
            self.monitor.latest[f"plan/{name}"] = float(figure)
            self.logger.record(f"plan/{name}", float(figure))

    @th.no_grad()
    def planning_actions(self) -> Tensor:
        """
        Actions of the behaviour in the state of each row, drawn once and the same after a resume.

        :return: (N, n, A) in main memory
        """
        settings = (self.n_planning_samples, self.n_solver_steps, self.solver_order)
        if self._drawn is None or self._drawn[0] != settings:
            generator = th.Generator(self.device).manual_seed(self.batches.generator.initial_seed())
            shape, dtype = (self.n_planning_samples, self.policy.action_dim), self.policy.obs_mean.dtype
            actions = th.empty((len(self.batches), *shape), dtype=dtype)
            for block in row_blocks(len(actions), _BLOCK):
                states = self.policy.normalize_observations(self.batches.observations_at(block))
                noise = th.randn((len(states), *shape), generator=generator, device=self.device, dtype=dtype)
                actions[block] = self.policy.behave(states, noise).cpu()
            self._drawn = settings, actions
        return self._drawn[1]

    # ------------------------------------------------------------------ the critic

    def draw_noise(self, batch_size: int) -> None:
        """Nothing: an update has no random numbers of its own."""

    def update(self, batch: ReturnBatch, noise: None) -> dict[str, Tensor]:
        """
        One gradient step of the critic.

        :param batch: B rows
        :param noise: none
        :return: scalars to log, on the device
        """
        states = self.policy.normalize_observations(batch.observations)  # (B, S)

        # ------ E[(Q(s, a) − y)²], y = (R − mean)/max(std, 0.1) over all rows
        target = (batch.returns - batch.mean) / batch.scale
        q = self.critic(states, batch.actions)[0]  # (B,)
        loss = mse_loss(q, target)
        gradient_step(self.critic_optimizer, loss, self.rate_now(self.learning_rate), self.max_grad_norm)
        return {"critic_loss": loss.detach(), "q_mean": batch.mean + batch.scale * q.detach().mean()}
