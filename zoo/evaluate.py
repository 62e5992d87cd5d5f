"""Evaluate a trained agent and write results.json, protocol included."""

import argparse
from pathlib import Path

from .runs.agents import add_agent_arguments, agent_and_env
from .runs.flags import json_file, positive, seed_number
from .runs.folders import run_of
from .runs.scoring import EVAL_SEED, evaluate, summary
from .runs.writing import write_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """:param parser: takes the flags of ``python -m zoo evaluate``"""
    add_agent_arguments(parser)
    add = parser.add_argument
    add("-n", "--n-episodes", type=positive, help="episodes (default: 10; 100 for antmaze)")
    add("--n-envs", type=positive, help="environments stepped together (default: one per episode, at most 10)")
    add("--seed", type=seed_number, default=EVAL_SEED, help="seed of the episodes")
    add(
        "-o",
        "--output",
        type=json_file,
        help="file to write (default: results.json, or results_<checkpoint>.json, beside the agent)",
    )


def main(args: argparse.Namespace) -> None:
    """:param args: as parsed with :func:`add_arguments`"""
    model, make, path, checkpoint = agent_and_env(args)
    run = run_of(path)
    data = {} if run is None else run.config().get("dataset") or {}
    result = evaluate(
        model,
        make,
        args.n_episodes,
        n_envs=args.n_envs,
        deterministic=args.deterministic,
        eval_seed=args.seed,
        checkpoint=checkpoint,
        behavior_success_rate=data.get("success_rate"),
    )
    suffix = "" if checkpoint == "last" else f"_{checkpoint}"
    output = Path(args.output) if args.output else path.parent / f"results{suffix}.json"
    write_json(output, result)
    print(summary(result) + f"\nwrote {output}")
