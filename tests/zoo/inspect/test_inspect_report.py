"""What the inspection of a dataset measures, and that each finding has data that trigger it and clean data that do not."""

import json
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec

from sb3_genoffline.data import OfflineDataset, load_dataset
from zoo.inspect import coverage, measures
from zoo.inspect.measures import discounted_returns, measure_episodes, measure_observations
from zoo.inspect.report import Report, inspect_dataset

LIMIT = 60
SPEC = EnvSpec("Walk-v0", entry_point="nowhere:Walk", max_episode_steps=LIMIT)


def make_clean() -> OfflineDataset:
    """Episodes of a damped random walk; the actions follow the state with noise. Three of four are cut at the limit."""
    generator = np.random.default_rng(0)
    lengths = np.where(np.arange(40) % 4 == 0, generator.integers(20, LIMIT - 1, 40), LIMIT)
    states = []
    for length in lengths:
        state = [generator.normal(size=3)]
        for _ in range(length):
            state.append(0.9 * state[-1] + 0.4 * generator.normal(size=3))
        states.append(np.array(state, dtype=np.float32))
    observations = np.concatenate([walk[:-1] for walk in states])
    last = np.zeros(len(observations), dtype=bool)
    last[np.cumsum(lengths) - 1] = True
    at_limit = np.repeat(lengths == LIMIT, lengths)
    noise = 0.15 * generator.normal(size=(len(observations), 2))
    return OfflineDataset(
        observations=observations,
        actions=np.clip(0.5 * np.tanh(observations[:, :2]) + noise, -0.95, 0.95),
        rewards=generator.normal(1.0, 0.3, len(observations)),
        next_observations=np.concatenate([walk[1:] for walk in states]),
        terminations=last & ~at_limit,
        truncations=last & at_limit,
        observation_space=spaces.Box(-np.inf, np.inf, (3,), np.float32),
        action_space=spaces.Box(-1.0, 1.0, (2,), np.float32),
        env_spec=SPEC,
        ref_min_score=0.0,
        ref_max_score=100.0,
    )


CLEAN = make_clean()


def with_states(function: Callable[[np.ndarray], np.ndarray]) -> OfflineDataset:
    """Both observations changed alike."""
    return CLEAN.replace(observations=function(CLEAN.observations), next_observations=function(CLEAN.next_observations))


def with_column(name: str, column: int, values: Any) -> OfflineDataset:
    rows = getattr(CLEAN, name).copy()
    rows[:, column] = values
    return CLEAN.replace(**{name: rows})


def with_rows(name: str, rows: Any, values: Any) -> OfflineDataset:
    changed = getattr(CLEAN, name).copy()
    changed[rows] = values
    return CLEAN.replace(**{name: changed}, episode_ends=CLEAN.episode_ends)


def rewards_at_ends() -> np.ndarray:
    rewards = np.zeros(len(CLEAN), dtype=np.float32)
    rewards[CLEAN.episode_ends - 1] = 1.0
    return rewards


def terminated_everywhere(spec: EnvSpec | None) -> OfflineDataset:
    ends = CLEAN.terminations | CLEAN.truncations
    return CLEAN.replace(terminations=ends, truncations=np.zeros_like(ends), env_spec=spec)


def shuffled() -> OfflineDataset:
    order = np.random.default_rng(0).permutation(len(CLEAN))
    names = ("observations", "actions", "rewards", "next_observations", "terminations")
    return load_dataset({name: getattr(CLEAN, name)[order] for name in names})


def without_ends() -> OfflineDataset:
    """What a log gives of which only states, actions and rewards are known."""
    columns: dict[str, Any] = {name: getattr(CLEAN, name) for name in ("observations", "actions", "rewards")}
    return load_dataset(columns | dict.fromkeys(("terminals", "timeouts"), np.zeros(len(CLEAN))))


def inverted() -> OfflineDataset:
    return CLEAN.replace(terminations=~CLEAN.terminations, truncations=np.zeros(len(CLEAN), dtype=bool), episode_ends=None)


def spike(rows: np.ndarray) -> np.ndarray:
    return np.where(rows == CLEAN.observations[7, 1], np.float32(1e4), rows)


FLAWS: dict[str, tuple[Callable[[], OfflineDataset], str]] = {
    "timeouts_as_terminations": (
        lambda: terminated_everywhere(SPEC),
        "All 30 episodes of exactly 60 steps (the environment's",
    ),
    "longer_than_limit": (
        lambda: CLEAN.replace(env_spec=EnvSpec("Walk-v0", max_episode_steps=59)),
        "30 episodes are longer than the environment's 59 steps",
    ),
    "one_episode": (without_ends, "rows are one episode: episode ends seem to be missing"),
    "mostly_terminations": (inverted, "100% of the rows are terminations, and a critic"),
    "flags_inside_episodes": (lambda: with_rows("truncations", [3, 5], True), "2 rows inside episodes are marked"),
    "gaps": (lambda: with_rows("next_observations", [4, 9], 0.5), "In 2 rows inside episodes the next observation is not"),
    "shuffled_rows": (shuffled, "episodes are one step long without a termination"),
    "next_observations_not_shifted": (lambda: CLEAN.replace(next_observations=CLEAN.observations), "100% of the rows"),
    "clipped_noise": (
        lambda: with_column("actions", 1, np.clip(np.random.default_rng(0).normal(size=len(CLEAN)), -1, 1)),
        "exactly at a bound in that share of rows: wide noise was clipped there",
    ),
    "held_at_bounds": (
        lambda: with_column("actions", 1, np.clip(4 * CLEAN.observations[:, 1], -1, 1)),
        "not noise but a controller that pushes as hard as it may",
    ),
    "saturated_actions": (
        lambda: with_column("actions", 1, np.clip(4 * CLEAN.actions[:, 1], -0.9995, 0.9995)),
        "Action dimension 1 (",
    ),
    "few_action_values": (
        lambda: with_column("actions", 0, 0.5 * np.sign(CLEAN.actions[:, 0])),
        "Action dimension 0 (2 values) is not continuous",
    ),
    "small_actions": (lambda: CLEAN.replace(actions=0.08 * CLEAN.actions), "The actions use at most 7% of the action space"),
    "constant_actions": (lambda: with_column("actions", 1, 1.0), "Action dimension 1 is constant"),
    "constant_observations": (
        lambda: with_states(lambda rows: rows * np.float32([1, 0, 1]) + np.float32([0, 0.1, 0])),
        "Observation column 1 is constant",
    ),
    "outliers": (lambda: with_states(spike), "Observation column 1 ("),
    "scales_differ": (lambda: with_states(lambda rows: rows * np.float32([1, 1, 1e4])), "normalize_observations=True"),
    "outside_observation_space": (
        lambda: CLEAN.replace(observation_space=spaces.Box(np.float32([-1, -9, -9]), np.float32([1, 9, 9]))),
        "Observation column 0 (",
    ),
    "constant_reward": (lambda: CLEAN.replace(rewards=np.full(len(CLEAN), 0.5)), "Every reward is 0.5"),
    "sparse_rewards": (lambda: CLEAN.replace(rewards=rewards_at_ends()), "98% of the rewards are 0 (sparse)"),
    "equal_returns": (lambda: CLEAN.replace(rewards=rewards_at_ends()), "All episodes return 1"),
    "return_scale": (lambda: CLEAN.replace(rewards=1e4 * CLEAN.rewards), "Discounted returns reach"),
    "loose_bound": (
        lambda: CLEAN.replace(rewards=1.0 - 2.0 * (np.arange(len(CLEAN)) % 2)),
        "max|r|/(1 − gamma) = 100 is",
    ),
    "repeated_rows": (lambda: CLEAN.select_episodes([*range(40), *range(40)]), "(50%) are exact copies"),
    "repeated_episodes": (lambda: CLEAN.select_episodes([*range(40), 3]), "1 of 41 episodes are exact copies"),
    "narrow_behavior": (
        lambda: CLEAN.replace(actions=0.2 * np.tanh(0.5 * CLEAN.observations[:, :2])),
        "a nearly deterministic policy",
    ),
    "random_behavior": (
        lambda: CLEAN.replace(actions=np.random.default_rng(1).uniform(-0.9, 0.9, (len(CLEAN), 2))),
        "looks random",
    ),
}


def test_clean_data_have_no_finding() -> None:
    assert inspect_dataset(CLEAN).findings == []


@pytest.mark.parametrize("name", FLAWS)
def test_each_flaw_is_found_and_named(name: str) -> None:
    flawed, phrase = FLAWS[name]
    texts = {finding.name: finding.text for finding in inspect_dataset(flawed()).findings}
    assert phrase in texts[name]
    assert texts.keys() <= FLAWS.keys()


@pytest.mark.parametrize(
    "name", sorted(FLAWS.keys() - {"shuffled_rows", "next_observations_not_shifted", "constant_reward", "sparse_rewards"})
)
def test_a_flaw_is_not_taken_for_another(name: str) -> None:
    found = {finding.name for finding in inspect_dataset(FLAWS[name][0]()).findings}
    together = {  # what follows from the flaw
        "equal_returns": {"sparse_rewards", "loose_bound"},
        "repeated_rows": {"repeated_episodes"},
        "repeated_episodes": {"repeated_rows"},
        "mostly_terminations": {"gaps", "loose_bound"},
        "small_actions": {"narrow_behavior"},
    }
    assert found == {name} | together.get(name, set())


def test_jumps_of_the_state_count_the_ends_that_were_not_logged() -> None:
    starts = np.random.default_rng(0).normal(size=(50, 3))
    slow = np.concatenate([start + np.linspace(0, 0.01, 40)[:, None] for start in starts])
    arrays = {"observations": slow, "actions": np.zeros((2000, 1)), "rewards": np.ones(2000)}
    arrays |= dict.fromkeys(("terminals", "timeouts"), np.zeros(2000))
    findings = {finding.name: finding.text for finding in inspect_dataset(load_dataset(arrays)).findings}
    assert "rows are one episode, though in 49 of them the state moves more than 10 times as far" in findings["one_episode"]
    assert "equal_returns" not in findings, "one episode is no comparison"
    limited = load_dataset(arrays).replace(env_spec=EnvSpec("Walk-v0", max_episode_steps=2000))
    assert "one_episode" not in {finding.name for finding in inspect_dataset(limited).findings}, "it is as long as it may be"


def test_rows_that_all_terminate_are_one_step_tasks_if_they_are_independent_and_else_a_log_with_masks() -> None:
    def names(data: OfflineDataset) -> set[str]:
        everywhere = np.ones(len(data), dtype=bool)
        data = data.replace(terminations=everywhere, truncations=~everywhere, episode_ends=None)
        return {finding.name for finding in inspect_dataset(data).findings}

    states = np.random.default_rng(0).normal(size=CLEAN.observations.shape)
    assert "mostly_terminations" in names(CLEAN)
    assert "mostly_terminations" not in names(CLEAN.replace(observations=states))
    assert "mostly_terminations" not in names(CLEAN.replace(observations=np.zeros_like(states)))


def test_a_maze_is_scored_by_its_success_whatever_the_returns() -> None:
    rewards = np.zeros(len(CLEAN))
    for first in CLEAN.episode_starts[:10]:
        rewards[first : first + 11] = 1.0  # it goes on at the goal
    maze = CLEAN.replace(id="D4RL/antmaze/umaze-v1", rewards=rewards, ref_min_score=0.0, ref_max_score=1.0)
    returns = inspect_dataset(maze).returns
    assert (returns.success_rate, returns.score_mean, returns.score_std, returns.references) == (0.25, 25.0, None, None)
    assert inspect_dataset(CLEAN).returns.success_rate is None


def test_small_returns_are_a_finding_too() -> None:
    assert [f.name for f in inspect_dataset(CLEAN.replace(rewards=1e-5 * CLEAN.rewards)).findings] == ["return_scale"]


def test_a_step_limit_that_nobody_stated_is_inferred_from_a_length_that_many_share() -> None:
    report = inspect_dataset(terminated_everywhere(None))
    assert (report.episodes.step_limit, report.episodes.limit_inferred) == (LIMIT, True)
    assert "(a length that many share) end by termination" in report.findings[0].text
    bandit = terminated_everywhere(None).replace(terminations=np.ones(len(CLEAN), dtype=bool), episode_ends=None)
    assert inspect_dataset(bandit).episodes.step_limit is None, "tasks of one step have no step limit"


def test_ends_are_counted_by_their_kind() -> None:
    short = CLEAN.select_episodes([1, 2, 3, 4])
    last = short.episode_ends - 1
    terminations, truncations = np.zeros((2, len(short)), dtype=bool)
    terminations[last[[0, 1]]] = truncations[last[[1, 2]]] = True
    ends = measure_episodes(short.replace(terminations=terminations, truncations=truncations, episode_ends=short.episode_ends))
    assert (ends.terminated, ends.both, ends.truncated, ends.cut) == (1, 1, 1, 1)
    assert (ends.at_limit, ends.terminated_at_limit, ends.gaps, ends.flags_inside) == (3, 2, 0, 0)
    assert ends.lengths == (int(short.episode_lengths()[3]), 60.0, 60)


def test_returns_and_scores_are_those_of_the_episodes() -> None:
    returns, measured = CLEAN.episode_returns(), inspect_dataset(CLEAN.replace(ref_min_score=10.0, ref_max_score=60.0)).returns
    assert (measured.mean, measured.std) == pytest.approx((returns.mean(), returns.std()))
    assert measured.quartiles == pytest.approx(np.percentile(returns, [0, 25, 50, 75, 100]))
    assert measured.score_quartiles == pytest.approx(2 * (measured.quartiles - 10))
    assert measured.counts.sum() == 40 and measured.edges[[0, -1]] == pytest.approx(measured.quartiles[[0, -1]])
    unknown = inspect_dataset(CLEAN.replace(ref_min_score=None, ref_max_score=None)).returns
    assert unknown.references is None and unknown.score_mean is None and unknown.score_quartiles is None


def test_actions_are_measured_on_the_scale_of_their_space() -> None:
    actions = np.linspace(-1, 1, len(CLEAN), dtype=np.float32)[:, None] * np.float32([1, 0.9])
    actions[:100, 1], actions[100:300, 1] = -0.9991, 0.998
    low, high = np.float32([0, -2]), np.float32([10, 2])
    moved = CLEAN.replace(actions=low + (actions + 1) / 2 * (high - low), action_space=spaces.Box(low, high))
    measured = inspect_dataset(moved).actions
    assert measured.mean == pytest.approx(actions.mean(axis=0), abs=1e-5)
    assert measured.std == pytest.approx(actions.std(axis=0), abs=1e-5)
    assert measured.at_low[1] == pytest.approx(100 / len(CLEAN)) and measured.at_high[1] == 0.0
    assert (measured.low, measured.high) == (pytest.approx(actions.min(axis=0)), pytest.approx(actions.max(axis=0)))


@pytest.mark.parametrize("gamma", [0.0, 0.9, 0.999])
def test_discounted_returns_are_the_sums_to_the_end_of_the_episode(gamma: float) -> None:
    expected = np.zeros(len(CLEAN))
    for start, end in zip(CLEAN.episode_starts, CLEAN.episode_ends, strict=True):
        following = 0.0
        for row in reversed(range(start, end)):
            expected[row] = following = CLEAN.rewards[row] + gamma * following
    assert discounted_returns(CLEAN, gamma) == pytest.approx(expected)


def test_all_rows_are_seen_once_however_many_there_are() -> None:
    n, jump = 150_000, 65_535  # the last row that is looked at together with the first
    walk = np.cumsum(np.random.default_rng(0).normal(size=(n + 1, 1)), axis=0).astype(np.float32) + 1000
    following = walk[1:].copy()
    following[jump] += 1
    data = OfflineDataset(
        observations=walk[:-1],
        actions=np.zeros((n, 1)),
        rewards=np.zeros(n),
        next_observations=following,
        terminations=np.zeros(n, dtype=bool),
        truncations=np.zeros(n, dtype=bool),
        observation_space=spaces.Box(-np.inf, walk[:-1].max(), (1,), np.float32),
        action_space=spaces.Box(-1, 1, (1,)),
    )
    columns = measure_observations(data)
    assert columns.mean[0] == pytest.approx(data.observations.mean(dtype=np.float64), rel=1e-12)
    assert columns.std[0] == pytest.approx(data.observations.std(dtype=np.float64), rel=1e-9)
    assert columns.outside[0] == 0.0, "the bound itself is inside"
    assert measure_episodes(data).gaps == 1


def test_repeated_rows_are_counted_though_the_episodes_differ() -> None:
    first, rest = CLEAN.select_episodes([1]), CLEAN.select_episodes(range(2, 40))
    names = ("observations", "actions", "rewards", "next_observations", "terminations", "truncations")
    arrays = {name: np.concatenate([getattr(part, name) for part in (rest, first, first)]) for name in names}
    n = len(rest) + len(first) + 25
    joined = CLEAN.replace(
        **{name: array[:n] for name, array in arrays.items()},
        episode_ends=[*rest.episode_ends, len(rest) + len(first), n],
    )
    assert vars(inspect_dataset(joined).repeats) == {"rows": 25, "episodes": 0}
    arrays["next_observations"][-len(first) :, 2] += 1  # all else is equal
    assert inspect_dataset(joined.replace(next_observations=arrays["next_observations"][:n])).repeats.rows == 0


def test_neighbors_are_the_nearest_states_of_other_episodes() -> None:
    measured = inspect_dataset(CLEAN).coverage
    states = (CLEAN.observations - CLEAN.observations.mean(axis=0)) / CLEAN.observations.std(axis=0)
    episode = np.repeat(np.arange(40), CLEAN.episode_lengths())
    nearest, variance = [], []
    for row in coverage.sample_rows(len(CLEAN), coverage.QUERY_ROWS, 1):
        distance = np.linalg.norm(states - states[row], axis=1)
        distance[episode == episode[row]] = np.inf
        chosen = np.argsort(distance)[:10]
        nearest.append(distance[chosen[0]] / np.sqrt(3))
        variance.append(CLEAN.actions[chosen].var(axis=0, ddof=1))
    assert measured.nearest == pytest.approx(np.quantile(nearest, [0.05, 0.5, 0.95]), rel=1e-3)
    assert measured.action_spread == pytest.approx(np.sqrt(np.mean(variance, axis=0)), rel=1e-3)
    assert measured.unexplained == pytest.approx(np.mean(variance, axis=0) / CLEAN.actions.var(axis=0), rel=1e-3)
    assert 0.15 < measured.action_spread.min() < 0.2, "the noise of the actions, 0.15, and a little of the states' distance"


def test_neighbors_of_states_that_are_all_equal_are_drawn_at_random() -> None:
    generator = np.random.default_rng(0)
    one_state = CLEAN.replace(
        observations=np.ones_like(CLEAN.observations),
        next_observations=np.ones_like(CLEAN.observations),
        actions=generator.choice([-0.5, 0.5], (len(CLEAN), 2)),
    )
    measured = inspect_dataset(one_state).coverage
    assert measured.effective_dims == 0 and measured.nearest == pytest.approx([0, 0, 0])
    assert measured.action_spread == pytest.approx([0.5, 0.5], abs=0.02)


def test_effective_dimensions_count_what_moves_on_its_own() -> None:
    def dims(columns: list[int]) -> float:
        space = spaces.Box(-np.inf, np.inf, (len(columns),), np.float32)
        states = {name: getattr(CLEAN, name)[:, columns] for name in ("observations", "next_observations")}
        return inspect_dataset(CLEAN.replace(**states, observation_space=space)).coverage.effective_dims

    assert dims([0, 0, 0]) == pytest.approx(1.0, abs=1e-3)
    assert dims([0, 1, 2]) == pytest.approx(3.0, abs=0.1)
    assert dims([0, 1, 2, 2]) == pytest.approx(16 / 6, abs=0.1)


def test_one_episode_has_no_others_to_compare_with() -> None:
    measured = inspect_dataset(CLEAN.select_episodes([1])).coverage
    assert measured.nearest is measured.action_spread is measured.unexplained is None


def test_a_report_is_plain_json_and_the_same_for_the_same_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coverage, "POOL_ROWS", 500)
    monkeypatch.setattr(coverage, "QUERY_ROWS", 100)

    def as_json(report: Report) -> str:
        return json.dumps(report.as_dict(), allow_nan=False)

    first = as_json(inspect_dataset(CLEAN, seed=3))
    assert as_json(inspect_dataset(CLEAN, seed=3)) == first != as_json(inspect_dataset(CLEAN, seed=4))
    content = json.loads(first)
    assert content["fingerprint"] == CLEAN.fingerprint and content["env_id"] == "Walk-v0"
    assert content["observation_bounds"] == [[None] * 3] * 2 and content["action_bounds"] == [[-1, -1], [1, 1]]
    assert (content["coverage"]["n_pool"], content["coverage"]["n_queries"]) == (500, 100)


@pytest.mark.parametrize("gamma", [1.0, -0.1, float("nan")])
def test_a_discount_without_a_bound_is_refused(gamma: float) -> None:
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\)"):
        inspect_dataset(CLEAN, gamma)


@pytest.mark.parametrize("size", [3, 100])
def test_actions_are_held_at_a_bound_within_an_episode_alone(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measures, "chunks", partial(measures.chunks, size=size))
    actions = np.array([[1, 1, 1, 1, 1, -1, -1, -1], 8 * [0.5]]).T
    ends = np.arange(8) == 2  # the first three rows are an episode
    rows = {"observations": np.arange(8.0)[:, None], "next_observations": np.arange(1.0, 9.0)[:, None], "rewards": np.zeros(8)}
    data = load_dataset({**rows, "actions": actions, "terminals": ends})
    held = measures.measure_actions(data, 0).held
    assert held.tolist() == [pytest.approx(5 / 6), 0.0]  # of 6 rows on a bound that another follows, 5 stay on theirs
