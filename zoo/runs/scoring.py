"""How well an agent acts, and by which protocol that was measured."""

import datetime
from collections.abc import Mapping
from typing import Any

import numpy as np
from stable_baselines3.common.evaluation import evaluate_policy

from sb3_genoffline.common.envs import check_agent_spaces
from sb3_genoffline.common.evaluation import with_rewards
from sb3_genoffline.common.offline_algorithm import AnyAlgorithm
from sb3_genoffline.data.scores import ScoreScale, known_reference
from sb3_genoffline.errors import UserError, printable

from .envs import EnvFactory, env_id_of, eval_envs, own_spec
from .provenance import versions

EVAL_SEED = 20_000
"""Of the episodes that results are told from; the environments have the seeds from there on."""
CHOOSING_SEEDS = range(1_000, 10_000)
"""Of the episodes that checkpoints and settings are chosen on: evaluations on the way, and sweeps."""
BOOTSTRAPS = 10_000


def evaluate(
    model: AnyAlgorithm,
    make: EnvFactory,
    n_eval_episodes: int | None = None,
    *,
    n_envs: int | None = None,
    deterministic: bool = True,
    eval_seed: int = EVAL_SEED,
    checkpoint: str = "last",
    behavior_success_rate: float | None = None,
) -> dict[str, Any]:
    """
    Run episodes from fixed seeds and say how: the same call gives the same numbers.

    Environment i is seeded with ``eval_seed + i``; SB3's ``evaluate_policy`` divides the episodes over the environments
    beforehand, so short episodes are not counted more often. In AntMaze and PointMaze the score is 100 · the share of episodes
    in which the goal was reached at any step, whatever the rewards.

    :param model: the agent
    :param make: makes an environment
    :param n_eval_episodes: number of episodes (None: 100 in AntMaze, as in the papers, else 10)
    :param n_envs: environments stepped together (None: one per episode, at most 10)
    :param deterministic: act by ``predict(deterministic=True)``
    :param eval_seed: seed of the environments and of the policy's sampling
    :param checkpoint: what is evaluated: ``"last"``, ``"best"`` or a number of steps
    :param behavior_success_rate: share of the data's episodes that reach the goal, if it is a maze and known
    :return: rl-zoo's keys, the protocol, and scores on D4RL's scale where the reference returns are known
    """
    if n_eval_episodes is not None and n_eval_episodes < 1:
        raise UserError(f"n_eval_episodes={n_eval_episodes}: at least one episode is needed.")
    n_envs = min(n_eval_episodes or 100, n_envs or 10)
    envs = eval_envs(make, n_envs)
    info, successes = model.dataset_info, []

    def note_success(local: dict[str, Any], _: dict[str, Any]) -> None:
        if local["done"] and "is_success" in local["info"]:
            successes.append(bool(local["info"]["is_success"]))

    try:
        env_id, env_spec = env_id_of(envs), own_spec(envs)
        if n_eval_episodes is None:
            n_eval_episodes = default_episodes(info.get("id"), env_id)
        check_agent_spaces((model.observation_space, model.action_space), (envs.observation_space, envs.action_space))
        envs.seed(eval_seed)
        model.policy.seed_acting(eval_seed)
        rewards, lengths = evaluate_policy(
            model,
            envs,
            n_eval_episodes,
            deterministic=deterministic,
            return_episode_rewards=True,
            callback=with_rewards(model, note_success),
        )
    finally:
        envs.close()
    returns, interval = np.array(rewards), bootstrap_ci(np.array(rewards))
    low, high = info.get("ref_min_score"), info.get("ref_max_score")
    if low is None or high is None:  # data of your own, in an environment that has a scale
        low, high = known_reference(env_id) or (None, None)
    result: dict[str, Any] = {
        "mean_reward": float(returns.mean()),
        "std_reward": float(returns.std()),
        "is_deterministic": deterministic,
        "n_eval_episodes": n_eval_episodes,
        "eval_datetime": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "algo": model.name,
        "dataset": info.get("id"),
        "dataset_fingerprint": info.get("fingerprint"),
        "env_id": env_id,
        "env_spec": env_spec,
        "checkpoint": checkpoint,
        "gradient_steps": model.num_timesteps,
        "seed": model.seed,
        "eval_seed": eval_seed,
        "n_eval_envs": n_envs,
        "mean_reward_ci95": interval,
        "success_rate": float(np.mean(successes)) if successes else None,
        "success_rate_ci95": bootstrap_ci(np.array(successes, dtype=float)) if successes else None,
        "normalized_score": None,
        "normalized_score_ci95": None,
        "behavior_mean_reward": info.get("mean_return"),
        "behavior_normalized_score": None,
        "ref_min_score": low,
        "ref_max_score": high,
        "protocol": None,
    }
    # an environment that does not tell successes can only be scored by returns
    names = (info.get("id"), env_id) if successes else ()
    scale = ScoreScale.known(*names, low=low, high=high)
    if scale is not None:
        result |= _scores(scale, result, behavior_success_rate)
    result |= {name: value for name, value in _acting_settings(model).items() if name not in result}
    return {**result, "returns": returns.tolist(), "lengths": np.array(lengths).tolist(), "versions": versions()}


_PROTOCOLS = {
    "success": "100 * success_rate, the share of episodes in which the goal is reached at any step",
    "return": "100 * (mean_reward - ref_min_score) / (ref_max_score - ref_min_score)",
}


def _scores(scale: ScoreScale, result: Mapping[str, Any], behavior_success_rate: float | None) -> dict[str, Any]:
    """A result on the scale on which a random policy has 0 and an expert 100."""

    def score(mean_reward: Any, success_rate: Any) -> Any:
        missing = success_rate if scale.kind == "success" else mean_reward
        return None if missing is None else scale.of(mean_reward, success_rate).tolist()

    return {
        "protocol": f"normalized_score: {_PROTOCOLS[scale.kind]}",
        "normalized_score": score(result["mean_reward"], result["success_rate"]),
        "normalized_score_ci95": score(result["mean_reward_ci95"], result["success_rate_ci95"]),
        "behavior_normalized_score": score(result["behavior_mean_reward"], behavior_success_rate),
    }


def _acting_settings(model: AnyAlgorithm) -> dict[str, Any]:
    """How the agent was told to act, and the words among its hyper-parameters: which kind of the algorithm it is."""
    acting = {name: getattr(model.policy, name) for name in model.policy.acting_settings}
    words = {name: getattr(model, name) for name, argument in model.argument_table().arguments.items() if argument.is_choice}
    return acting | words


def recorded_scale(record: Mapping[str, Any]) -> ScoreScale | None:
    """:param record: of a dataset, as ``OfflineDataset.summary`` makes it"""
    if record.get("success_rate") is not None:
        return ScoreScale("success")
    return ScoreScale.known(low=record["ref_min_score"], high=record["ref_max_score"])


def check_seed(seed: int, chooses: bool = False) -> int:
    """
    :param seed: of episodes
    :param chooses: whether something is chosen by them
    :return: the seed
    :raises UserError: if a result would be told from the episodes that something was chosen on, or the other way round
    """
    if chooses and seed not in CHOOSING_SEEDS:
        raise UserError(
            f"--seed {seed}: a sweep chooses, on episodes that no result is told from. Their seeds are {_CHOOSING}; the "
            f"default is {CHOOSING_SEEDS.start}."
        )
    if not chooses and seed in CHOOSING_SEEDS:
        raise UserError(
            f"--seed {seed}: on the episodes of the seeds {_CHOOSING} checkpoints and settings are chosen, so a score from "
            f"them is too good. Use others; the default is {EVAL_SEED}."
        )
    return seed


_CHOOSING = f"{CHOOSING_SEEDS.start} to {CHOOSING_SEEDS.stop - 1}"


def default_episodes(*names: str | None) -> int:
    """
    :param names: of the dataset and of the environment, as far as they are known
    :return: 100 for AntMaze, as in the papers, else 10
    """
    return 100 if any("antmaze" in name.lower() for name in names if name) else 10


def bootstrap_ci(values: np.ndarray, level: float = 0.95, seed: int = 0) -> list[float]:
    """
    Percentile bootstrap interval of the mean. Over the episodes of one agent it says how exactly this agent was measured, not
    how much trainings differ.

    :param values: (n,)
    :param level: coverage
    :param seed: of the resampling
    """
    draws = np.random.default_rng(seed).choice(values, (BOOTSTRAPS, len(values))).mean(axis=1)
    return [float(bound) for bound in np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])]


def said_of(late: Mapping[str, Any]) -> str:
    """:param late: of :func:`zoo.runs.evaluations.late_evaluations`"""
    number = len(late["each"])
    return "the only evaluation" if number == 1 else f"mean of the last {number} evaluations"


def summary(result: dict[str, Any]) -> str:
    """The result in two lines."""
    low, high = result["mean_reward_ci95"]
    algo, dataset, checkpoint, env_id = (printable(result[name]) for name in ("algo", "dataset", "checkpoint", "env_id"))
    text = (
        f"{algo} on {dataset}, {checkpoint} checkpoint ({result['gradient_steps']:,} updates): "
        f"{result['n_eval_episodes']} episodes of {env_id}\n"
        f"return {result['mean_reward']:.1f} ± {result['std_reward']:.1f} (95% of the mean: {low:.1f} to {high:.1f})"
    )
    if result["success_rate"] is not None:
        text += f", goal reached in {100 * result['success_rate']:.0f}%"
    if result["normalized_score"] is not None:
        text += f", normalised {result['normalized_score']:.1f}"
    if result["behavior_normalized_score"] is not None:
        text += f" (data: {result['behavior_normalized_score']:.1f})"
    late = result.get("last_evaluations")
    if late is not None:
        text += f"\n{said_of(late)} on the way: {late['mean']:.1f}"
    return text
