"""Train an agent on a dataset. Flags are rl-zoo's; `-n` counts gradient updates and `--dataset` names the data."""

import argparse
from functools import partial
from pathlib import Path
from typing import Any

from sb3_genoffline.data import OfflineDataset
from sb3_genoffline.errors import UserError
from sb3_genoffline.registry import ALGOS, load_agent

from .collect.lookup import find_dataset
from .runs.agents import add_trust_argument, data_of_agent
from .runs.envs import env_of_run, recorded_env
from .runs.folders import run_of
from .runs.hyperparameters import parse_pairs
from .runs.learning import train


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """:param parser: takes the flags of ``python -m zoo train``"""
    add = parser.add_argument
    add("--algo", default="dac", help=f"algorithm: {', '.join(ALGOS)}")
    add("--dataset", help="Minari id, D4RL file (.hdf5) or .npz; may be left out with -i of an agent in a run folder")
    add("--env", help="environment to evaluate in (default: the dataset's)")
    add("-tb", "--tensorboard-log", metavar="FOLDER", help="root of tensorboard logs")
    add("-i", "--trained-agent", metavar="ZIP", help="checkpoint to resume from, exactly")
    add("-n", "--n-timesteps", type=int, help="gradient updates in all (default: the hyper-parameters')")
    add("--num-threads", type=int, default=-1, help="threads of torch (default: torch's choice)")
    add("--log-interval", type=int, default=-1, help="updates between two log entries (-1: 1000, -2: no logging)")
    add("--eval-freq", type=int, help="updates between evaluations (default: 20 a run, at least every 10,000; 0: none)")
    add("--eval-episodes", type=int, default=10, help="episodes of an evaluation")
    add("--n-eval-envs", type=int, help="environments stepped together (default: one per episode, at most 10)")
    add(
        "--save-freq",
        type=int,
        default=-1,
        help="updates between checkpoints that are kept (-1: only the last, which is renewed every 10,000 updates)",
    )
    add("--save-replay-buffer", action="store_true", help="also save the sampler's state in a file of its own")
    add("-f", "--log-folder", default="logs", help="root of the logs")
    add("--seed", type=int, default=-1, help="seed (-1: a random one, which is recorded)")
    add("--device", default="auto", help="cpu, cuda or auto")
    add("--verbose", type=int, default=1, help="0 silent, 1 progress, 2 tables")
    add("--env-kwargs", nargs="+", metavar="NAME:VALUE", help="arguments of the environment")
    add("--eval-env-kwargs", nargs="+", metavar="NAME:VALUE", help="the same, over --env-kwargs")
    add_trust_argument(parser)
    add("-params", "--hyperparams", nargs="+", metavar="NAME:VALUE", help="hyper-parameters over those of the file")
    add("-conf", "--conf-file", help="YAML file instead of the algorithm's own hyperparameters.yml")
    add("--profile", help="overlay of the hyper-parameter file, such as cpu")
    add("-uuid", "--uuid", action="store_true", help="append a uuid to the run's folder")
    add("-P", "--progress", action=argparse.BooleanOptionalAction, default=True, help="show a progress bar")
    add("--collect", action="store_true", help="collect a dataset of ours that is not there yet")
    add("--download", action="store_true", help="fetch a Minari dataset that is not there yet")


def main(args: argparse.Namespace) -> None:
    """:param args: as parsed with :func:`add_arguments`"""
    if args.num_threads > 0:
        import torch

        torch.set_num_threads(args.num_threads)
    if args.dataset is None and args.trained_agent is None:
        raise UserError("--dataset is missing: name the data to train on, for example --dataset mujoco/hopper/medium-v0.")
    if args.dataset is not None and Path(args.dataset).is_file():
        args.dataset = str(Path(args.dataset).resolve())  # so that the run goes on from anywhere
    train(
        args.algo,
        find_data(args),
        n_timesteps=args.n_timesteps,
        profile=args.profile,
        hyperparameters=parse_pairs(args.hyperparams),
        conf_file=args.conf_file,
        trained_agent=args.trained_agent,
        log_folder=args.log_folder,
        tensorboard_log=args.tensorboard_log,
        unique=args.uuid,
        env_id=args.env,
        env_kwargs=given_env_kwargs(args),
        trust_env=args.trust_env,
        eval_freq=args.eval_freq,
        eval_episodes=args.eval_episodes,
        n_eval_envs=args.n_eval_envs,
        save_freq=args.save_freq,
        save_replay_buffer=args.save_replay_buffer,
        log_interval={-1: 1000, -2: None}.get(args.log_interval, args.log_interval),
        seed=args.seed,
        device=args.device,
        verbose=args.verbose,
        progress=args.progress and args.verbose > 0,
        arguments=vars(args),
    )


def find_data(args: argparse.Namespace) -> OfflineDataset:
    """
    The data to train on. What they do not have, as the bounds of their actions, is the environment's, if one is named now or
    was when the agent's training began; else the agent's.
    """
    find = partial(find_dataset, download=args.download, collect=args.collect, trust_env=args.trust_env)
    run = None if args.trained_agent is None else run_of(args.trained_agent)
    recorded = None if run is None else recorded_env(run)
    env = None
    if args.env is not None or (recorded is not None and recorded.asked_for):
        env = env_of_run(run, None, args.env, given_env_kwargs(args), args.trust_env)()
    try:
        if args.trained_agent is None:
            return find(args.dataset, env=env)
        return data_of_agent(load_agent(args.trained_agent, device="cpu"), run, args.dataset, find, env)
    finally:
        if env is not None:
            env.close()


def given_env_kwargs(args: argparse.Namespace) -> dict[str, Any]:
    """Arguments of the environment that the user gives."""
    return {**parse_pairs(args.env_kwargs), **parse_pairs(args.eval_env_kwargs)}
