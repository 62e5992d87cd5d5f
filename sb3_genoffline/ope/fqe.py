"""Fitted Q evaluation: the value of a policy from logged data, without running it."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
import torch as th
from stable_baselines3.common.callbacks import BaseCallback, CallbackList, ConvertCallback
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.type_aliases import MaybeCallback

from sb3_genoffline.common.arguments import Count, NonNegative, Positive, PositiveInt, PositiveShare, as_device
from sb3_genoffline.common.callbacks import OfflineProgressBarCallback
from sb3_genoffline.common.checked_calls import checked
from sb3_genoffline.common.conforming import misfit
from sb3_genoffline.common.fitting import Fit, FitListener, Fits
from sb3_genoffline.common.metrics import TrainingMonitor
from sb3_genoffline.common.optimizers import make_optimizer
from sb3_genoffline.common.policy_files import global_rng_preserved
from sb3_genoffline.data import OfflineDataset, load_dataset
from sb3_genoffline.data.buffers import OfflineBuffer
from sb3_genoffline.data.transforms import scale_actions
from sb3_genoffline.errors import UserError
from sb3_genoffline.files.archive import (
    PathOrFile,
)
from sb3_genoffline.files.untrusted import short
from sb3_genoffline.nets.ensembles import EnsembleQ
from sb3_genoffline.nets.network import frozen_copy
from sb3_genoffline.ope.acting import TargetPolicy, few_rows
from sb3_genoffline.ope.fqe_files import FitIdentity, digest_of, read_fit, write_fit
from sb3_genoffline.ope.metrics import Level
from sb3_genoffline.ope.q_fit import NextActions, QFit

_MANY_ROWS, _LOOKS = 500_000, 20


def as_rows(values: Any, name: str) -> np.ndarray:
    """
    :param values: float (B, n)
    :param name: of them, for the error
    :raises UserError: if they are no finite numbers in two axes
    """
    try:
        rows = np.asarray(values, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise UserError(f"{name} must be numbers, not {short(values)}.") from error
    if rows.ndim != 2 or not np.isfinite(rows).all():
        raise UserError(f"{name} of shape {rows.shape} must be finite numbers in two axes, (B, n).")
    return rows


class _Looks(BaseCallback, FitListener):
    """Notes the estimate from time to time."""

    def __init__(self, fqe: "FQE", every: int) -> None:
        super().__init__()
        self.fqe, self.every = fqe, every

    def _on_step(self) -> bool:
        return True

    def on_fit_step(self, fit: Fit, metrics: dict[str, float]) -> bool:
        if fit.step % self.every == 0:
            self.fqe.history.append((fit.step, float(self.fqe._member_values().mean())))
            self.fqe.clipped = metrics.get("fqe/clipped", self.fqe.clipped)
        return True


@dataclass(frozen=True)
class Estimate:
    """
    A policy's value.

    :param value: expected discounted return from the initial states
    :param interval: of ``value`` at ``level``
    :param level: of the interval
    :param spread: standard deviation over the members
    :param per_step: (1 − γ)·value, a mean reward per step
    """

    value: float
    interval: tuple[float, float]
    level: float
    spread: float
    per_step: float


class FQE:
    """
    Fitted Q evaluation (Le, Voloshin, Yue 2019, arXiv 1903.08738) in the form of DOPE's FQE-L2 (Fu et al. 2021): H Q-functions
    of a *fixed* policy, refitted to the data by temporal differences. It never reads the agent's own critic, which overrates
    it.

    Each member has its own target and its own resample of the episodes, so that their spread says how far to trust the mean.
    Rewards are divided by their standard deviation and never shifted, as a shift changes the ranking where episodes end.

    Differences from DOPE's code:

    1. An ensemble, of which the mean counts (d3rlpy takes the minimum, which is pessimistic).
    2. Targets are clipped to what is attainable: to [r_min, r_max]/(1 − γ), and to 0 as well where a row terminates.
    3. The action in the next state is the policy's own, drawn afresh or from a cache, not its mean with noise of 0.1.

    :param policy: an agent or policy of this library or SB3's, or anything with SB3's ``predict``
    :param dataset: whatever :func:`~sb3_genoffline.data.load_dataset` takes; raw rewards
    :param gamma: discount
    :param deterministic: judge ``predict(deterministic=True)``
    :param n_members: H
    :param n_action_samples: M, actions drawn in a state if the policy draws
    :param net_arch: hidden widths of the Q-functions
    :param learning_rate: of AdamW
    :param weight_decay: of AdamW
    :param batch_size: B
    :param tau: τ of the slow copy that targets come from
    :param clip_targets: see 2
    :param cache_actions: draw the actions of all next states once: exact if the policy does not draw, and then always done;
        ``"auto"`` does it for M·(number of rows) below what the updates would draw
    :param initial_observations: (n, S) states to start from; None: the first of each episode
    :param bootstrap: a resample of the episodes for each member; else they differ in their initial weights alone
    :param seed: of weights, resamples, batches and the policy's draws
    :param device: of the networks
    """

    @checked
    def __init__(
        self,
        policy: Any,
        dataset: Any,
        *,
        gamma: float = 0.99,
        deterministic: bool = True,
        n_members: PositiveInt = 5,
        n_action_samples: PositiveInt = 4,
        net_arch: Sequence[PositiveInt] = (256, 256),
        learning_rate: Positive = 3e-4,
        weight_decay: NonNegative = 1e-5,
        batch_size: PositiveInt = 256,
        tau: PositiveShare = 0.005,
        clip_targets: bool = True,
        cache_actions: bool | Literal["auto"] = "auto",
        initial_observations: np.ndarray | None = None,
        bootstrap: bool = True,
        seed: Count = 0,
        device: th.device | str = "auto",
    ) -> None:
        if not 0.0 < gamma < 1.0:
            raise UserError(f"gamma={gamma} must lie in (0, 1): the value of an endless task is not bounded otherwise.")
        self.dataset: OfflineDataset = load_dataset(dataset)
        self.gamma, self.seed, self.device = gamma, seed, as_device(device)
        self.policy = TargetPolicy(policy, self.dataset.action_space, deterministic, seed)
        self.cache_actions, self.net_arch, self.n_action_samples = cache_actions, tuple(net_arch), n_action_samples
        self.initial_observations = self._initial_observations(initial_observations)
        self.reward_scale = float(self.dataset.rewards.std(dtype=np.float64)) or 1.0
        self.monitor = TrainingMonitor(self.device)
        self.history: list[tuple[int, float]] = []
        """Updates and the estimate after them, looked at twenty times a fit."""
        self.clipped = 0.0
        """Share of the last targets beyond what is attainable."""
        rng = np.random.default_rng(seed)
        self._row_weights = self._resample(n_members, bootstrap, rng)
        self._settings: dict[str, Any] = {
            **{"gamma": gamma, "deterministic": deterministic, "n_members": n_members, "n_action_samples": n_action_samples},
            **{"net_arch": list(net_arch), "learning_rate": learning_rate, "weight_decay": weight_decay},
            **{"batch_size": batch_size, "tau": tau, "clip_targets": clip_targets, "cache_actions": cache_actions},
            **{"bootstrap": bootstrap, "seed": seed, "initial_observations": digest_of(self.initial_observations)},
        }
        self._fit = self._make_fit(n_members, batch_size, tau, clip_targets)

    def _initial_observations(self, given: np.ndarray | None) -> np.ndarray:
        first = self.dataset.observations[self.dataset.episode_starts]
        observations = first if given is None else as_rows(given, "initial_observations")
        if observations.shape[1:] != self.dataset.observation_space.shape or len(observations) == 0:
            raise UserError(
                f"initial_observations has shape {observations.shape}, but (n, {self.dataset.observation_space.shape[0]}) is "
                "expected: states as the data have them."
            )
        return np.array(observations, dtype=np.float32)

    @property
    def attainable(self) -> tuple[float, float]:
        """Least and largest value that the data's rewards allow: r/(1 − γ) of the extremes, and 0 where rows terminate."""
        rewards = self.dataset.rewards
        extremes = [float(rewards.min()), float(rewards.max()), *([0.0] if self.dataset.terminations.any() else [])]
        return min(extremes) / (1 - self.gamma), max(extremes) / (1 - self.gamma)

    def _resample(self, n_members: int, bootstrap: bool, rng: np.random.Generator) -> np.ndarray:
        """(H, E)"""
        n = self.dataset.n_episodes
        if not bootstrap:
            return np.ones((n_members, n), dtype=np.float32)
        return rng.multinomial(n, np.full(n, 1 / n), size=n_members).astype(np.float32)

    def _make_fit(self, n_members: int, batch_size: int, tau: float, clip_targets: bool) -> QFit:
        data = self.dataset
        spaces = (data.observation_space, data.action_space)
        buffer = OfflineBuffer(
            1, *spaces, self.device, dataset=data, reward_scale=1 / self.reward_scale, action_bound=1.0, seed=self.seed
        )
        mean, std = buffer.observation_statistics()
        with global_rng_preserved():
            th.manual_seed(self.seed)
            critic = EnsembleQ(n_members, spaces[0].shape[0], spaces[1].shape[0], self.net_arch, th.nn.ReLU, torch_init=True)
        critic = critic.to(self.device)
        target = frozen_copy(critic)
        weight_decay = self._settings["weight_decay"]
        optimizer = make_optimizer(
            th.optim.AdamW, critic.parameters(), self._settings["learning_rate"], weight_decay=weight_decay
        )
        bounds = tuple((1 - self.gamma) * value / self.reward_scale for value in self.attainable)
        return QFit(
            0,
            critic,
            target,
            optimizer,
            buffer=buffer,
            sampler=buffer.sampler,
            next_actions=NextActions(self.policy.with_seed(self.seed + 1), data.next_observations),
            row_weights=th.as_tensor(self._row_weights, device=self.device),
            episodes=np.repeat(np.arange(data.n_episodes), data.episode_lengths()),
            statistics=(mean, th.where(std > 0, std, 1.0)),
            gamma=self.gamma,
            tau=tau,
            batch_size=batch_size,
            bounds=(bounds[0], bounds[1]) if clip_targets else None,
        )

    @property
    def _kept_samples(self) -> int:
        """M of actions that are drawn once: frozen noise does not average out."""
        return 4 * self.n_action_samples if len(self.dataset) < _MANY_ROWS else self.n_action_samples

    def _prepare_next_actions(self, gradient_steps: int) -> None:
        n_rows = len(self.dataset)
        if not self.policy.draws(self.dataset.next_observations[:64]):
            self._fit.next_actions.prepare(1, cached=True)
            return
        kept = self._kept_samples
        cached = self.cache_actions is True
        if self.cache_actions == "auto":
            cached = n_rows * kept <= gradient_steps * self._fit.batch_size * self.n_action_samples
        self._fit.next_actions.prepare(kept if cached else self.n_action_samples, cached)

    # ------------------------------------------------------------------ fitting

    @checked
    def fit(
        self,
        gradient_steps: Count = 200_000,
        callback: MaybeCallback = None,
        log_interval: int | None = 1000,
        logger: Logger | None = None,
        progress_bar: bool = False,
    ) -> Self:
        """
        Fit the Q-functions, or go on fitting them.

        :param gradient_steps: updates, beyond those done
        :param callback: those that are a :class:`~sb3_genoffline.common.fitting.FitListener` are told
        :param log_interval: updates between two dumps of the logger
        :param logger: takes ``fqe/loss``, ``fqe/q_mean``, ``fqe/q_max_abs``, ``fqe/clipped``
        :param progress_bar: show one
        :return: self
        :raises DivergedError: when a metric is not finite any more
        """
        fit = self._fit
        if fit.next_actions.n == 0:
            self._prepare_next_actions(gradient_steps)
        fit.n_steps = fit.step + gradient_steps
        given = callback if isinstance(callback, list) else [] if callback is None else [callback]
        known = [item if isinstance(item, BaseCallback) else ConvertCallback(item) for item in given]
        bar = [OfflineProgressBarCallback()] if progress_bar else []
        fits = Fits()
        fits.begin([fit])
        listeners = CallbackList([*known, *bar, _Looks(self, max(1, fit.n_steps // _LOOKS))])
        fits.run(listeners, log_interval, logger or Logger(None, []), self.monitor)
        self.clipped = self.monitor.latest.get("fqe/clipped", self.clipped)
        if self.clipped > 0.05:
            self.monitor.warn_once(
                "clipped",
                f"{self.clipped:.0%} of the targets lie beyond what is attainable and are clipped: the policy's actions are "
                "unlike the data's, and the estimate is mostly the bound. Do not trust it.",
            )
        return self

    @property
    def drift(self) -> float:
        """Change of the estimate over the last tenth of the fit, as a share of its size; nan of a fit too short for it."""
        if len(self.history) < 3 or self._fit.step < _LOOKS:
            return float("nan")
        values = [value for _, value in self.history]
        return abs(values[-1] - values[-3]) / max(abs(values[-1]), 1e-12)

    # ------------------------------------------------------------------ values

    @th.no_grad()
    def predict_value(self, observations: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """
        Q of given actions.

        :param observations: (B, S)
        :param actions: (B, A), in the units of the data's action space
        :return: float64 (H, B), Q of each member in units of the rewards
        :raises UserError: if they have other shapes
        """
        observations, actions = as_rows(observations, "observations"), as_rows(actions, "actions")
        expected = (*self.dataset.observation_space.shape, *self.dataset.action_space.shape)
        if len(observations) != len(actions) or (observations.shape[1], actions.shape[1]) != expected:
            raise UserError(
                f"observations {observations.shape} and actions {actions.shape} must have the shapes (B, {expected[0]}) and "
                f"(B, {expected[1]})."
            )
        scaled = scale_actions(actions, self.dataset.action_space)
        return self._scores(observations, scaled[:, None])[:, :, 0]

    @th.no_grad()
    def _scores(self, observations: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """(B, S), (B, M, A) scaled -> (H, B, M)"""
        states = self._fit.standardised(th.as_tensor(np.array(observations, np.float32), device=self.device))
        scores = self._fit.critic.score_samples(states, th.tensor(actions, dtype=th.float32, device=self.device))
        return scores.double().cpu().numpy() * (self.reward_scale / (1.0 - self.gamma))

    def state_values(self, observations: np.ndarray, n_samples: int = 10) -> np.ndarray:
        """
        V: the mean Q of the policy's actions.

        :param observations: (B, S)
        :param n_samples: actions that the mean is taken over, if the policy draws
        :return: (H, B), V of each member
        """
        observations = as_rows(observations, "observations")
        width, wrong = self.dataset.observation_space.shape[0], misfit(n_samples, PositiveInt)
        if observations.shape[1] != width:
            raise UserError(f"observations {observations.shape} must be (B, {width}): states as the data have them.")
        if wrong is not None:
            raise UserError(f"n_samples={short(n_samples)} {wrong}.")
        n = n_samples if self.policy.draws(observations[:64]) else 1
        self.policy.restart()  # the same draws each time: looks differ by the Q-functions alone
        return np.asarray(self._scores(observations, self.policy.actions(observations, n)).mean(axis=2))

    def _member_values(self) -> np.ndarray:
        """(H,) value of the initial states, weighed by each member's resample if they are the data's."""
        values = self.state_values(self.initial_observations)
        if values.shape[1] != self._row_weights.shape[1]:
            return np.asarray(values.mean(axis=1))
        return np.asarray((values * self._row_weights).sum(axis=1) / self._row_weights.sum(axis=1))

    @checked
    def estimate(self, level: Level = 0.9) -> Estimate:
        """
        The value of the initial states: the members' mean, with Student's interval of their spread.

        :param level: of the interval
        """
        from scipy.stats import t

        if self._fit.step == 0:
            warnings.warn("FQE has made no update: call fit() before estimate().", stacklevel=2)
        values = self._member_values()
        value, spread = float(values.mean()), float(values.std(ddof=1)) if len(values) > 1 else float("nan")
        margin = float(t.ppf((1 + level) / 2, len(values) - 1)) * spread if len(values) > 1 else float("nan")
        return Estimate(value, (value - margin, value + margin), level, spread, (1 - self.gamma) * value)

    def td_error(self, dataset: Any = None) -> float:
        """
        How far Q is from its own target: a fit's error, not the policy's value.

        :param dataset: rows that were not fitted, for example; None: those that were
        :return: mean of (Q(s, a) − r − γ·m·Q(s', π(s')))², Q the members' mean, in squared units of the rewards
        """
        data = self.dataset if dataset is None else load_dataset(dataset)
        q = self.predict_value(data.observations, data.actions).mean(0)
        following = self.state_values(data.next_observations, self.n_action_samples).mean(0)
        return float(np.square(q - data.rewards - self.gamma * ~data.terminations * following).mean())

    # ------------------------------------------------------------------ files

    @property
    def n_updates(self) -> int:
        """Updates made so far."""
        return self._fit.step

    def save(self, path: PathOrFile) -> None:
        """
        Write all that going on needs but policy and data.

        :param path: file name (``.zip`` is added) or open binary file
        """
        write_fit(path, self._fit, self.history, self.clipped, self._identity())

    def load(self, path: PathOrFile) -> Self:
        """
        Go on where :meth:`save` was called; make this one with the same policy, data and arguments (the device may differ).

        :param path: file name or open binary file
        :return: self, which is as it was if the file is refused
        :raises CheckpointError: if the file holds something else
        :raises UserError: if it was fitted on other data, with other arguments, or for another policy
        """
        self.history, self.clipped = read_fit(path, self._fit, self._identity(), self._ways_to_draw())
        return self

    def _identity(self) -> FitIdentity:
        return FitIdentity(self.dataset.fingerprint, self._settings, self.policy, few_rows(self.dataset))

    def _ways_to_draw(self) -> set[tuple[int, bool]]:
        """(M, cached) that some number of updates asks for."""
        if not self.policy.draws(self.dataset.next_observations[:64]):
            return {(1, True)}
        ways = {True: (self._kept_samples, True), False: (self.n_action_samples, False)}
        return {*ways.values()} if self.cache_actions == "auto" else {ways[bool(self.cache_actions)]}
