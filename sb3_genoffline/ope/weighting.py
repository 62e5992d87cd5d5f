"""Importance weighting and doubly robust estimates on a fitted density of behaviour."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch as th
from torch import Tensor

from sb3_genoffline.common.arguments import Count, Positive, PositiveInt, Share, Widths, as_device
from sb3_genoffline.common.checked_calls import checked
from sb3_genoffline.common.optimizers import gradient_step
from sb3_genoffline.common.policy_files import global_rng_preserved
from sb3_genoffline.data import OfflineDataset, load_dataset
from sb3_genoffline.data.blocks import row_blocks
from sb3_genoffline.data.transforms import scale_actions
from sb3_genoffline.errors import UserError
from sb3_genoffline.files.untrusted import short
from sb3_genoffline.generative.flow import ConditionalFlow
from sb3_genoffline.ope import estimators
from sb3_genoffline.ope.acting import TargetPolicy, few_rows, one_each
from sb3_genoffline.ope.fqe import FQE

LogProb = Callable[[np.ndarray, np.ndarray], np.ndarray]
_LEARNING_RATE, _BATCH = 1e-3, 256


def kernel_log_density(actions: np.ndarray, samples: np.ndarray, width: float) -> np.ndarray:
    """
    Log density of a mixture of Gaussians around samples of a policy, normalised in any number of dimensions.

    :param actions: (B, A)
    :param samples: (B, M, A)
    :param width: standard deviation h of each Gaussian
    :return: (B,)
    """
    exponents = -np.square((samples - actions[:, None]) / width).sum(axis=2) / 2  # (B, M)
    largest = exponents.max(axis=1, keepdims=True)
    mixture = np.log(np.exp(exponents - largest).mean(axis=1)) + largest[:, 0]
    return np.asarray(mixture - actions.shape[1] * (0.5 * math.log(2 * math.pi) + math.log(width)))


def fit_behaviour(
    dataset: OfflineDataset, rows: np.ndarray, n_steps: int, seed: int, device: th.device, net_arch: tuple[int, ...]
) -> ConditionalFlow:
    """
    A spline flow of the logged actions, log b(a | s) of actions scaled to [−1, 1].

    :param dataset: the data
    :param rows: (K,) those that it is fitted to
    :param n_steps: updates of Adam
    :param seed: of weights and batches
    :param device: of the flow
    :param net_arch: hidden widths
    """
    states, actions = _pairs(dataset, rows, device)
    with global_rng_preserved():
        th.manual_seed(seed)
        flow = ConditionalFlow(states.shape[1], actions.shape[1], net_arch=net_arch).to(device)
    std = states.std(0, correction=0)
    flow.set_state_statistics(states.mean(0), std)
    generator = th.Generator(device)
    generator.manual_seed(seed)
    optimizer = th.optim.Adam(flow.parameters(), lr=_LEARNING_RATE)
    for _ in range(n_steps):
        drawn = th.randint(len(states), (_BATCH,), generator=generator, device=device)
        gradient_step(optimizer, flow.loss(states[drawn], actions[drawn]), _LEARNING_RATE, 10.0)
    return flow.requires_grad_(False)


def _pairs(dataset: OfflineDataset, rows: np.ndarray, device: th.device) -> tuple[Tensor, Tensor]:
    states = th.as_tensor(dataset.observations[rows], device=device)
    return states, th.as_tensor(scale_actions(dataset.actions[rows], dataset.action_space), device=device)


def _log_density(values: Any, n_rows: int, name: str) -> np.ndarray:
    """(B,) of a given function; −∞ is the logarithm of a density of 0."""
    try:
        found = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        return one_each(values, n_rows, name)
    one_each(np.where(np.isneginf(found), 0.0, found), n_rows, name)
    return found


class ImportanceWeighting:
    """
    Per-step log ratios of a policy to a fitted density of behaviour, and the estimates that they give.

    The density is cross-fitted: episodes are split into folds, and each step is weighed by a flow that has not seen its
    episode, as a density that has is too sure of it.

    A policy without a density of its own (a deterministic one, or a sampled one) is smoothed: Gaussians of ``kernel_width``
    around its samples. *The smoothed policy is another policy*, and these are its values.

    :param policy: see :class:`~sb3_genoffline.ope.fqe.FQE`
    :param dataset: whatever :func:`~sb3_genoffline.data.load_dataset` takes
    :param gamma: discount
    :param log_prob: exact log π(a | s) of actions scaled to [−1, 1], ``(observations, actions) -> (B,)``; None: the kernel
    :param behavior_log_prob: likewise of the behaviour, if it is known; None: it is fitted
    :param deterministic: judge ``predict(deterministic=True)``
    :param kernel_width: h, in actions scaled to [−1, 1]
    :param n_action_samples: M, samples of a policy that draws
    :param clip: bounds of each step's log ratio (None: none)
    :param n_folds: of the cross-fit, at least 2
    :param n_steps: updates of each flow
    :param net_arch: hidden widths of the flows
    :param seed: of folds, flows and draws
    :param device: of the flows
    :raises UserError: if there are fewer episodes than folds
    """

    @checked
    def __init__(
        self,
        policy: Any,
        dataset: Any,
        *,
        gamma: Share = 0.99,
        log_prob: LogProb | None = None,
        behavior_log_prob: LogProb | None = None,
        deterministic: bool = True,
        kernel_width: Positive = 0.1,
        n_action_samples: PositiveInt = 16,
        clip: tuple[float, float] | None = (-6.0, 2.0),
        n_folds: Count = 2,
        n_steps: Count = 5_000,
        net_arch: Widths = (128, 128),
        seed: Count = 0,
        device: th.device | str = "auto",
    ) -> None:
        self.dataset: OfflineDataset = load_dataset(dataset)
        self.gamma = gamma
        if clip is not None and clip[0] > clip[1]:
            raise UserError(f"clip={clip} must be the lower bound and the upper one.")
        if behavior_log_prob is None and not 2 <= n_folds <= self.dataset.n_episodes:
            raise UserError(
                f"n_folds={n_folds} must lie between 2 and the number of episodes, {self.dataset.n_episodes}: each step is "
                "weighed by a density that was fitted to other episodes."
            )
        self.policy = target = TargetPolicy(policy, self.dataset.action_space, deterministic, seed)
        scaled = scale_actions(self.dataset.actions, self.dataset.action_space)
        states = self.dataset.observations
        if log_prob is None:
            samples = target.actions(states, n_action_samples if target.draws(states[:64]) else 1)
            self.log_pi = kernel_log_density(scaled, samples, kernel_width)
        else:
            self.log_pi = _log_density(log_prob(states, scaled), len(states), "log_prob")
        if behavior_log_prob is None:
            self.log_b = self._cross_fitted(n_folds, n_steps, tuple(net_arch), seed, as_device(device))
        else:
            self.log_b = _log_density(behavior_log_prob(states, scaled), len(states), "behavior_log_prob")
        rewards = self.dataset.rewards.astype(np.float64)
        ends = self.dataset.episode_ends
        with np.errstate(invalid="ignore"):
            ratios = self.log_pi - self.log_b
        if np.isnan(ratios).any():
            row = int(np.flatnonzero(np.isnan(ratios))[0])
            raise UserError(
                f"The densities of policy and behaviour are both 0 in row {row}: the behaviour's can't be, it was done."
            )
        self.steps = estimators.steps_of(ratios, rewards, ends, clip, ~self.dataset.terminations[ends - 1])

    @th.no_grad()
    def _log_prob_of(self, flow: ConditionalFlow, rows: np.ndarray, device: th.device) -> np.ndarray:
        states, actions = _pairs(self.dataset, rows, device)
        parts = [flow.log_prob(states[block], actions[block]).double().cpu() for block in row_blocks(len(rows))]
        return th.cat(parts).numpy()

    def _cross_fitted(self, n_folds: int, n_steps: int, net_arch: tuple[int, ...], seed: int, device: th.device) -> np.ndarray:
        data = self.dataset
        folds = np.random.default_rng(seed).permutation(data.n_episodes) % n_folds
        fold_of_row = np.repeat(folds, data.episode_lengths())
        log_b = np.empty(len(data))
        for fold in range(n_folds):
            inside = fold_of_row == fold
            with th.enable_grad():
                flow = fit_behaviour(data, np.flatnonzero(~inside), n_steps, seed + fold, device, net_arch)
            log_b[inside] = self._log_prob_of(flow, np.flatnonzero(inside), device)
        return log_b

    @property
    def effective_sample_size(self) -> float:
        """At the step that half of the episodes reach: how many episodes carry the weight there."""
        half = int(np.median(self.dataset.episode_lengths())) - 1
        return float(estimators.effective_sample_size(self.steps)[half])

    def pdis(self) -> float:
        """Per-decision importance sampling; it leaves out what follows time-outs, as it has no Q."""
        return estimators.pdis(self.steps, self.gamma)

    def wpdis(self) -> float:
        """Weighted per-decision importance sampling; it leaves out what follows time-outs, as it has no Q."""
        return estimators.wpdis(self.steps, self.gamma)

    def wdr(self, fqe: FQE) -> float:
        """
        Weighted doubly robust. What follows an episode that did not terminate is V of its last state, as in FQE.

        :param fqe: fitted Q-functions of the same policy
        """
        return self._with_model(fqe, estimators.weighted_doubly_robust)

    def dr(self, fqe: FQE) -> float:
        """
        Doubly robust. What follows an episode that did not terminate is V of its last state, as in FQE.

        :param fqe: fitted Q-functions of the same policy
        """
        return self._with_model(fqe, estimators.doubly_robust)

    def _with_model(self, fqe: FQE, estimator: Callable[..., float]) -> float:
        data = self.dataset
        self._check_model(fqe)
        q = estimators.padded(fqe.predict_value(data.observations, data.actions).mean(0), data.episode_ends)
        v = estimators.padded(fqe.state_values(data.observations).mean(0), data.episode_ends)
        following = fqe.state_values(data.next_observations[data.episode_ends - 1]).mean(0)
        return estimator(self.steps, q, v, self.gamma, following)

    def _check_model(self, fqe: Any) -> None:
        """Whether Q-functions are of this policy and discount."""
        if not isinstance(fqe, FQE):
            raise UserError(f"fqe={short(fqe)} must be an FQE: fit one of the same policy and give it here.")
        if fqe.gamma != self.gamma:
            raise UserError(f"The FQE has gamma={fqe.gamma:g} and the weights {self.gamma:g}: make both with the same one.")
        for name in ("observation_space", "action_space"):
            theirs, ours = (getattr(dataset, name) for dataset in (fqe.dataset, self.dataset))
            if theirs != ours:
                raise UserError(f"The FQE's data have the {name} {theirs}, and these {ours}: give data of one task.")
        if fqe.policy.deterministic is not self.policy.deterministic:
            raise UserError(
                f"The FQE has deterministic={fqe.policy.deterministic} and the weights {self.policy.deterministic}: these are "
                "two policies, so make both with the same one."
            )
        states = few_rows(self.dataset)
        if fqe.policy.model is not self.policy.model and not self.policy.probe(states).matches(fqe.policy.probe(states)):
            raise UserError("The FQE is of another policy, whose actions differ from this one's: fit one of the same policy.")
