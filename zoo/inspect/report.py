"""A report on logged data for whoever is about to train on them, and what in it needs attention."""

import dataclasses
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from sb3_genoffline.data import OfflineDataset
from sb3_genoffline.errors import UserError

from . import measures
from .continuity import JUMP, Continuity, measure_continuity
from .coverage import Coverage, Repeats, measure_coverage, measure_repeats

TERMINATED_AT_LIMIT = 0.5
"""Share of the episodes as long as the step limit that end as terminations, from which they look like time-outs."""
MOSTLY = 0.5
"""Share of episodes of one step, or of rows that stay where they are, from which the rows look shuffled or not shifted."""
MANY_TERMINATIONS, ROUGH = 0.8, 0.5
"""Share of rows that terminate from which the flags look inverted; if all do, they look so below this roughness, since rows of
one-step tasks are independent."""
SATURATED = 0.05
"""Share of rows with an action dimension at a bound, from which a density has a point mass to cope with."""
HELD = 0.75
"""Of the rows on a bound, the share that stay there in the next row, above which they are no noise: it is 0.3 to 0.6 on the
way of TRPO's policies to medium, and 0.9 of a maze's controller."""
FEW_VALUES, FEW_VALUES_ROWS = 20, 1000
"""An action dimension with at most so many different values in at least so many rows is not continuous."""
SMALL_RANGE = 0.1
"""Part of the action space that actions use, below which they look logged on another scale."""
OUTLIER = 30.0
"""Distance of an observation from its column's mean, in standard deviations; one row of N can't exceed √N."""
SCALE_RATIO = 1e3
"""Largest standard deviation of an observation column over the smallest that is not 0."""
REPEATED = 0.01
"""Share of rows that are exact copies of another."""
LARGE_RETURN, SMALL_RETURN = 1e4, 1e-2
"""Largest discounted return beyond which networks of the usual initialisation learn a critic badly."""
LOOSE_BOUND = 20.0
"""max|r|/(1 − γ) over the largest discounted return in the data, from which the bound does not guard the critic."""
NARROW = 0.05
"""Standard deviation of actions, scaled to [−1, 1], at nearly equal states: below it behaviour is all but deterministic."""
FREE, NEAR = 0.9, 0.5
"""Share of the actions' variance that states leave unexplained from which behaviour looks random, if the nearest states are
nearer than this (in standard deviations per dimension): neighbours far away explain nothing."""

MOST_NAMED = 10
"""Columns that a finding names."""


@dataclass(frozen=True)
class Finding:
    """
    Something to look at before training.

    :param name: of the kind of finding
    :param text: what is wrong and what to do about it
    """

    name: str
    text: str


@dataclass(frozen=True, eq=False)
class Report:
    """
    What :func:`inspect_dataset` measures; the parts say what their numbers mean.

    :param id: of the data, if they have one
    :param fingerprint: SHA-256 of the contents
    :param n_transitions: rows
    :param n_episodes: episodes
    :param env_id: environment the data come from, if known
    :param observation_bounds: (2, S) lowest and highest of the observation space
    :param action_bounds: (2, A) lowest and highest of the action space
    :param episodes: lengths and ends
    :param continuity: how states move from row to row
    :param returns: of the episodes
    :param actions: by dimension
    :param observations: by column
    :param rewards: their scale and what they add up to
    :param repeats: exact copies
    :param coverage: of states and actions, on a sample
    """

    id: str | None
    fingerprint: str
    n_transitions: int
    n_episodes: int
    env_id: str | None
    observation_bounds: np.ndarray
    action_bounds: np.ndarray
    episodes: measures.Episodes
    continuity: Continuity
    returns: measures.Returns
    actions: measures.Actions
    observations: measures.Observations
    rewards: measures.Rewards
    repeats: Repeats
    coverage: Coverage

    @cached_property
    def findings(self) -> list[Finding]:
        """What needs attention; empty for data without a known flaw."""
        checks = (_check_episodes, _check_actions, _check_observations, _check_rewards, _check_repeats, _check_coverage)
        return [finding for check in checks for finding in check(self)]

    def as_dict(self) -> dict[str, Any]:
        """Everything, findings included, as plain data for JSON; a bound that does not exist is None."""
        return _plain(dataclasses.asdict(self) | {"findings": [dataclasses.asdict(finding) for finding in self.findings]})


def inspect_dataset(data: OfflineDataset, gamma: float = 0.99, seed: int = 0) -> Report:
    """
    Everything is measured on all rows, in one pass after another and little memory, but for what :class:`Coverage` holds and
    the number of different actions, which come from a random sample.

    :param data: any
    :param gamma: discount of the returns that a critic would learn
    :param seed: of the samples
    :raises UserError: for a discount outside [0, 1)
    """
    if not 0 <= gamma < 1:
        raise UserError(f"gamma={gamma} must lie in [0, 1): the discounted return has no bound otherwise.")
    observations = measures.measure_observations(data)
    spec = data.env_spec or data.eval_env_spec
    return Report(
        id=data.id,
        fingerprint=data.fingerprint,
        n_transitions=len(data),
        n_episodes=data.n_episodes,
        env_id=None if spec is None else spec.id,
        observation_bounds=np.stack([data.observation_space.low, data.observation_space.high]),
        action_bounds=np.stack([data.action_space.low, data.action_space.high]),
        episodes=measures.measure_episodes(data),
        continuity=measure_continuity(data, observations.std),
        returns=measures.measure_returns(data),
        actions=measures.measure_actions(data, seed),
        observations=observations,
        rewards=measures.measure_rewards(data, gamma),
        repeats=measure_repeats(data),
        coverage=measure_coverage(data, observations.mean, observations.std, seed),
    )


def _check_episodes(report: Report) -> Iterator[Finding]:
    ends = report.episodes
    if ends.terminated_at_limit > 0 and ends.terminated_at_limit >= TERMINATED_AT_LIMIT * ends.at_limit:
        limit = "a length that many share" if ends.limit_inferred else "the environment's step limit"
        yield Finding(
            "timeouts_as_terminations",
            f"{_some(ends.terminated_at_limit, ends.at_limit)} episodes of exactly {ends.step_limit} steps ({limit}) end by "
            "termination: time-outs may have been logged as terminations, and the critic would learn that nothing follows "
            "them. Pass them as truncations instead.",
        )
    if ends.above_limit and not ends.limit_inferred:
        yield Finding(
            "longer_than_limit",
            f"{ends.above_limit:,} episodes are longer than the environment's {ends.step_limit} steps: ends were not logged. "
            "Pass truncations or episode_ends; until then their returns are those of several episodes.",
        )
    if ends.flags_inside:
        yield Finding(
            "flags_inside_episodes",
            f"{ends.flags_inside:,} rows inside episodes are marked as terminated or truncated: episode_ends and the flags "
            "contradict each other. Leave episode_ends out to let the flags say where episodes end.",
        )
    if ends.gaps:
        yield Finding(
            "gaps",
            f"In {ends.gaps:,} rows inside episodes the next observation is not the observation of the row after them: ends "
            "were not logged, rows are missing, or observations were changed after logging. Pass truncations or episode_ends "
            "at the gaps; otherwise windows of several steps reach across them.",
        )
    if report.n_episodes == 1 and ends.step_limit is None:
        jumps = report.continuity.jumps
        seen = f", though in {jumps:,} of them the state moves more than {JUMP:.0f} times as far as usual" if jumps else ""
        yield Finding(
            "one_episode",
            f"All {report.n_transitions:,} rows are one episode{seen}: episode ends seem to be missing. Pass terminations, "
            "truncations or episode_ends, or values flow from each episode into the one before it. This is only right for a "
            "log without resets.",
        )
    if ends.termination_share > MANY_TERMINATIONS and (ends.lengths[2] > 1 or report.continuity.roughness < ROUGH):
        yield Finding(
            "mostly_terminations",
            f"{_percent(ends.termination_share)} of the rows are terminations, and a critic learns that nothing follows "
            "those: the flags look inverted, 1 where the episode continues. Pass 1 − flags.",
        )
    if ends.single_steps > MOSTLY * report.n_episodes:
        yield Finding(
            "shuffled_rows",
            f"{ends.single_steps:,} of {report.n_episodes:,} episodes are one step long without a termination: the rows look "
            "shuffled. Returns and windows (QDQ) mean nothing then; load the log in time order.",
        )
    if ends.standing > MOSTLY:
        yield Finding(
            "next_observations_not_shifted",
            f"{_percent(ends.standing)} of the rows that do not terminate have their own observation as the next one: "
            "next_observations look like a copy of observations. Shift them by one step within each episode.",
        )


def _check_actions(report: Report) -> Iterator[Finding]:
    actions = report.actions
    constant = actions.std == 0
    few = ~constant & (actions.n_values <= FEW_VALUES)
    clipped = ~constant & ~few & (actions.clipped > SATURATED)
    if clipped.any():
        yield _at_bounds(actions, clipped)
    saturated = ~constant & ~clipped & (actions.saturated > SATURATED)
    if saturated.any():
        yield Finding(
            "saturated_actions",
            f"{_columns('Action dimension', saturated, actions.saturated, _percent)} saturated, at a bound in that share of "
            "rows: a density with artanh or logit squashing needs dequantisation (CPED: dequantization=0.1), and one on the "
            "closed box has to fit point masses.",
        )
    if few.any() and actions.value_rows >= FEW_VALUES_ROWS:
        yield Finding(
            "few_action_values",
            f"{_columns('Action dimension', few, actions.n_values, '{} values'.format)} not continuous: a density becomes a "
            "set of spikes. Use dequantisation (CPED: dequantization of half the distance between values, scaled to [−1, 1]).",
        )
    width = float((actions.high - actions.low).max()) / 2
    if 0 < width < SMALL_RANGE:
        yield Finding(
            "small_actions",
            f"The actions use at most {_percent(width)} of the action space: they may have been logged on another scale. Give "
            "the action space they belong to, or rescale them to it.",
        )
    if constant.any():
        yield Finding(
            "constant_actions",
            f"{_columns('Action dimension', constant)} constant: nothing can be learned about other values, and a density "
            "has a spike. Leave it out, or expect the agent to repeat it.",
        )


def _at_bounds(actions: measures.Actions, clipped: np.ndarray) -> Finding:
    """
    What it means that actions lie exactly on a bound: noise that was clipped, or a controller that pushes as hard as it may.

    :param actions: of the data
    :param clipped: (A,) the dimensions in question
    """
    said = f"{_columns('Action dimension', clipped, actions.clipped, _percent)} exactly at a bound in that share of rows"
    spikes = "CPED's density has spikes that its actor runs into (constraint='distance' has none)"
    held = float(np.average(actions.held[clipped], weights=actions.clipped[clipped]))
    if held > HELD:
        return Finding(
            "held_at_bounds",
            f"{said}, and in {_percent(held)} of these still in the next row: not noise but a controller that pushes as "
            f"hard as it may. {spikes}; other algorithms are right to act at the bounds as the data do.",
        )
    return Finding(
        "clipped_noise",
        f"{said}: wide noise was clipped there, as in PPO, TRPO or TD3 (SAC squashes its own). Algorithms that model the "
        f"actions' distribution suffer (CPED, SPOT, QDQ, DAC, DQL): {spikes}, diffusion policies act with the noise "
        "(acting_noise_scale below 1), QDQ's backup samples it (mean_backup=True). Those that average it away (BC, TD3+BC, "
        "IQL, AWAC) don't, and may act far better than the data.",
    )


def _check_observations(report: Report) -> Iterator[Finding]:
    columns = report.observations
    constant = columns.std == 0
    if constant.any():
        yield Finding(
            "constant_observations",
            f"{_columns('Observation column', constant)} constant: the standard deviation is 0 and plain normalisation "
            "divides by it (normalize_observations=True here uses 1). Is it a sensor that was not logged? The agent is "
            "untrained on other values.",
        )
    outlying = columns.outlier > OUTLIER
    if outlying.any():
        yield Finding(
            "outliers",
            f"{_columns('Observation column', outlying, columns.outlier, '{:.0f} standard deviations'.format)} from the mean "
            "at the extreme: broken sensor values, or a heavy tail. Repair or clip them; they dominate the column's scale and "
            "what the networks see.",
        )
    moving = columns.std[~constant]
    if len(moving) and moving.max() > SCALE_RATIO * moving.min():
        yield Finding(
            "scales_differ",
            f"The standard deviations of the observation columns span {moving.min():.3g} to {moving.max():.3g}: the networks "
            "see only the large columns. Train with normalize_observations=True.",
        )
    if columns.outside.any():
        yield Finding(
            "outside_observation_space",
            f"{_columns('Observation column', columns.outside > 0, columns.outside, _percent)} outside the observation space "
            "in that share of rows: other units, or data of another environment. Give the space they belong to.",
        )


def _check_rewards(report: Report) -> Iterator[Finding]:
    rewards, quartiles = report.rewards, report.returns.quartiles
    if rewards.n_values == 1:
        yield Finding(
            "constant_reward",
            f"Every reward is {rewards.low:g}: no action is better than another, except by when it ends the episode. Were "
            "the rewards logged?",
        )
    elif rewards.sparse:
        yield Finding(
            "sparse_rewards",
            f"{_percent(rewards.mode_share)} of the rewards are {rewards.mode:g} (sparse): use a reward transform made for "
            'that, such as reward_transform="iql_antmaze" or "antmaze100", and report success rates.',
        )
    if quartiles[0] == quartiles[-1] and report.n_episodes > 1:
        yield Finding(
            "equal_returns",
            f"All episodes return {quartiles[0]:g}: reward transforms that divide by the spread of the returns "
            '("iql_locomotion", DAC\'s default, and "traj_normalize") fail. Pass reward_transform=None or another.',
        )
    largest = rewards.largest_attained
    if largest > LARGE_RETURN or 0 < largest < SMALL_RETURN:
        yield Finding(
            "return_scale",
            f"Discounted returns reach {largest:.3g} in magnitude (gamma {rewards.gamma:g}), far from the scale that networks "
            'start at: scale the rewards, for example reward_transform="iql_locomotion".',
        )
    if 0 < LOOSE_BOUND * largest < rewards.bound:
        yield Finding(
            "loose_bound",
            f"max|r|/(1 − gamma) = {rewards.bound:.4g} is {rewards.bound / largest:.0f} times the largest discounted return "
            f"of the data ({largest:.3g}): training warns of a critic only when its Q is beyond that bound "
            f"(train/q_over_bound), far too late here. Watch train/q_mean yourself: "
            f"it should stay near {largest:.3g} or below.",
        )


def _check_repeats(report: Report) -> Iterator[Finding]:
    repeats = report.repeats
    if repeats.rows > REPEATED * report.n_transitions:
        yield Finding(
            "repeated_rows",
            f"{repeats.rows:,} rows ({_percent(repeats.rows / report.n_transitions)}) are exact copies of an earlier row: "
            "they count twice, and leak from a training into a test split. Was a file joined with itself? Drop the copies.",
        )
    if repeats.episodes:
        yield Finding(
            "repeated_episodes",
            f"{repeats.episodes:,} of {report.n_episodes:,} episodes are exact copies of an earlier one: keep one of each "
            "(dataset.select_episodes), or split before you train and test.",
        )


def _check_coverage(report: Report) -> Iterator[Finding]:
    coverage = report.coverage
    if coverage.action_spread is None or coverage.unexplained is None or coverage.nearest is None:
        return
    if coverage.action_spread.max() < NARROW:
        yield Finding(
            "narrow_behavior",
            f"At nearly equal states the actions differ by {coverage.action_spread.max():.3f} of [−1, 1] at most (standard "
            "deviation): a nearly deterministic policy made the data. No agent can do much better than imitate it; add "
            "data of other policies, or noise on the actions.",
        )
    if coverage.unexplained.min() > FREE and coverage.nearest[1] < NEAR:
        yield Finding(
            "random_behavior",
            f"States explain at most {_percent(1 - coverage.unexplained.min())} of the actions' variance: the behaviour looks "
            "random. Staying near it is no guide; weight the critic more (DAC: a small eta), and expect little.",
        )


def _some(part: int, whole: int) -> str:
    return f"All {whole:,}" if part == whole else f"{part:,} of the {whole:,}"


def _percent(share: float) -> str:
    """Whole percents where they say enough."""
    percent = 100 * share
    return f"{percent:.0f}%" if percent >= 1 or percent == 0 else f"{percent:.2g}%"


def _columns(what: str, chosen: np.ndarray, values: np.ndarray | None = None, form: Callable[[Any], str] | None = None) -> str:
    """``Observation columns 2 (5%), 5 (7%) and 7 (6%) are``; at most ten are named."""
    named = [f"{i} ({form(values[i])})" if values is not None and form is not None else str(i) for i in np.flatnonzero(chosen)]
    if len(named) == 1:
        return f"{what} {named[0]} is"
    head, last = (
        (named[:-1], named[-1]) if len(named) <= MOST_NAMED else (named[:MOST_NAMED], f"{len(named) - MOST_NAMED} more")
    )
    return f"{what}s {', '.join(head)} and {last} are"


def _plain(value: Any) -> Any:
    """Numbers, strings, lists and dicts; None for what is not finite."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | list | tuple):
        return [_plain(item) for item in (value.tolist() if isinstance(value, np.ndarray) else value)]
    return None if isinstance(value, float) and not math.isfinite(value) else value
