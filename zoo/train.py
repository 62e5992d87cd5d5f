"""Train an agent on a dataset. Flags are rl-zoo's; `-n` counts gradient updates and `--dataset` names the data."""

import argparse

from sb3_genoffline.errors import UserError
from sb3_genoffline.registry import ALGOS

from .collect.lookup import find_dataset
from .runs.flags import (
    algorithm,
    chosen_or_threads,
    count,
    device,
    log_interval,
    never_or_every,
    new_folder,
    positive,
    random_or_seed,
)
from .runs.folders import run_of
from .runs.hyperparameters import parse_pairs
from .runs.learning import train


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """:param parser: takes the flags of ``python -m zoo train``"""
    add = parser.add_argument
    add("--algo", type=algorithm, default="dac", help=f"algorithm: {', '.join(ALGOS)}")
    add("--dataset", help="Minari id, D4RL file (.hdf5) or .npz; may be left out with -i of an agent in a run folder")
    add("--env", help="environment to evaluate in (default: the dataset's)")
    add("-tb", "--tensorboard-log", type=new_folder, metavar="FOLDER", help="root of tensorboard logs")
    add("-i", "--trained-agent", metavar="ZIP", help="checkpoint to resume from, exactly")
    add("-n", "--n-timesteps", type=positive, help="gradient updates in all (default: the hyper-parameters')")
    add("--num-threads", type=chosen_or_threads, default=-1, help="threads of torch (default: torch's choice)")
    add(
        "--log-interval",
        type=log_interval,
        default=-1,
        help="updates between two log entries (-1: 1000, -2: no logging)",
    )
    add(
        "--eval-freq",
        type=never_or_every,
        help="updates between evaluations (default: 20 a run, at least every 10,000; 0 or -1: none)",
    )
    add("--eval-episodes", type=positive, default=10, help="episodes of an evaluation")
    add("--n-eval-envs", type=positive, help="environments stepped together (default: one per episode, at most 10)")
    add(
        "--save-freq",
        type=never_or_every,
        default=-1,
        help="updates between checkpoints that are kept (-1 or 0: only the last, which is renewed every 10,000 updates)",
    )
    add("--save-replay-buffer", action="store_true", help="also save the sampler's state in a file of its own")
    add("-f", "--log-folder", type=new_folder, default="logs", help="root of the logs")
    add("--seed", type=random_or_seed, default=-1, help="seed (-1: a random one, which is recorded)")
    add("--device", type=device, default="auto", help="cpu, cuda or auto")
    add("--verbose", type=count, choices=(0, 1, 2), default=1, help="0 silent, 1 progress, 2 tables")
    add("--env-kwargs", nargs="+", metavar="NAME:VALUE", help="arguments of the environment")
    add("--eval-env-kwargs", nargs="+", metavar="NAME:VALUE", help="the same, over --env-kwargs")
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
    dataset = args.dataset
    if dataset is None:
        run = run_of(args.trained_agent) if args.trained_agent else None
        dataset = run.config()["dataset"]["id"] if run is not None else None
        if dataset is None:
            raise UserError("--dataset is missing: name the data to train on, for example --dataset mujoco/hopper/medium-v0.")
    train(
        args.algo,
        find_dataset(dataset, args.download, args.collect),
        n_timesteps=args.n_timesteps,
        profile=args.profile,
        hyperparameters=parse_pairs(args.hyperparams),
        conf_file=args.conf_file,
        trained_agent=args.trained_agent,
        log_folder=args.log_folder,
        tensorboard_log=args.tensorboard_log,
        unique=args.uuid,
        env_id=args.env,
        env_kwargs={**parse_pairs(args.env_kwargs), **parse_pairs(args.eval_env_kwargs)},
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
