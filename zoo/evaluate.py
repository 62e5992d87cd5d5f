"""Evaluate a trained agent and write results.json, protocol included; or compare ways to act, and write sweep_NAME.json."""

import argparse
from pathlib import Path
from typing import Any

from sb3_genoffline.errors import UserError

from .runs.agents import add_agent_arguments, agent_and_env
from .runs.evaluations import late_evaluations
from .runs.flags import json_file, positive, seed_number
from .runs.folders import run_of
from .runs.scoring import CHOOSING_SEEDS, EVAL_SEED, check_seed, evaluate, summary
from .runs.sweeping import sweep, sweep_table
from .runs.writing import write_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """:param parser: takes the flags of ``python -m zoo evaluate``"""
    add_agent_arguments(parser)
    add = parser.add_argument
    add("-n", "--n-episodes", type=positive, help="episodes (default: 10; 100 for antmaze)")
    add("--n-envs", type=positive, help="environments stepped together (default: one per episode, at most 10)")
    seeds = f"{EVAL_SEED}; of a sweep {CHOOSING_SEEDS.start}"
    add("--seed", type=seed_number, help=f"seed of the episodes (default: {seeds})")
    add(
        "--sweep",
        nargs="+",
        metavar=("NAME", "VALUE"),
        help="evaluate the agent with each value of a setting of acting, such as acting_noise_scale, on separate episodes",
    )
    add(
        "-o",
        "--output",
        type=json_file,
        help="file to write (default: results.json, or results_<checkpoint>.json, next to the agent)",
    )


def main(args: argparse.Namespace) -> None:
    """:param args: as parsed with :func:`add_arguments`"""
    name, *values = args.sweep or [None]
    if name and not values:
        raise UserError(f"--sweep {name} needs values: --sweep {name} 0 0.5 1.")
    default = CHOOSING_SEEDS.start if name else EVAL_SEED
    seed = check_seed(default if args.seed is None else args.seed, chooses=bool(name))
    model, make, path, checkpoint = agent_and_env(args)
    run = run_of(path)
    data = {} if run is None else run.config().get("dataset") or {}
    protocol: dict[str, Any] = {
        "n_eval_episodes": args.n_episodes,
        "n_envs": args.n_envs,
        "deterministic": args.deterministic,
        "eval_seed": seed,
        "checkpoint": checkpoint,
        "behavior_success_rate": data.get("success_rate"),
    }
    if name:
        result = sweep(model, make, name, values, **protocol)
    else:
        late = late_evaluations(run) if run is not None and checkpoint == "last" else None
        result = evaluate(model, make, **protocol) | {"last_evaluations": late}
    suffix = "" if checkpoint == "last" else f"_{checkpoint}"
    stem = f"sweep_{name}" if name else "results"
    output = Path(args.output) if args.output else path.parent / f"{stem}{suffix}.json"
    write_json(output, result)
    print((sweep_table(result) if name else summary(result)) + f"\nwrote {output}")
