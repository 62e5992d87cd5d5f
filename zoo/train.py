"""
Train an agent on a dataset. Flags are rl-zoo's; `-n` counts gradient updates and `--dataset` names the data.

Ctrl-C and SIGTERM (docker stop, Slurm, systemd) end it after the current update: it saves and exits with 130 or 143; a second
signal ends it at once. The same command then resumes the unfinished run; `--no-resume` starts a new one. Once a run is
finished, the same command starts the next one, with the next number.
"""

import argparse
import os
from functools import partial
from pathlib import Path
from typing import Any, get_args

from sb3_genoffline.data import OfflineDataset
from sb3_genoffline.errors import UserError
from sb3_genoffline.registry import ALGOS, load_agent

from .collect.lookup import find_dataset
from .runs.agents import add_trust_argument, data_of_agent
from .runs.envs import env_of_run, recorded_env
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
from .runs.learning import TrainedRun, train
from .runs.provenance import command_line
from .runs.settings import remembered
from .runs.stopping import Stopped, advised
from .runs.tracking import Service, Tracking


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """:param parser: takes the flags of ``python -m zoo train``"""
    add = parser.add_argument
    add("--algo", type=algorithm, help=f"algorithm (default: dac; with -i, the agent's): {', '.join(ALGOS)}")
    add("--dataset", help="Minari id, D4RL file (.hdf5) or .npz; optional if -i names an agent in a run folder")
    add("--env", help="environment to evaluate in (default: the dataset's); your own as my_module:MyEnv-v0")
    add("-tb", "--tensorboard-log", type=new_folder, metavar="FOLDER", help="root of tensorboard logs")
    add(
        "-i",
        "--trained-agent",
        metavar="ZIP",
        help="checkpoint to resume from, exactly, with its run's options unless you give others. The last agent of a run "
        "resumes in the run's folder; from any other, or with other data or -params, a new run branches off",
    )
    add("--resume", action=argparse.BooleanOptionalAction, help="resume an unfinished run of the same command (default)")
    add("-n", "--n-timesteps", type=positive, help="gradient updates in all (default: the hyper-parameters')")
    add("--num-threads", type=chosen_or_threads, help="threads of torch (default: torch's choice)")
    add("--log-interval", type=log_interval, help="updates between two log entries (default: 1000; -2: no logging)")
    add(
        "--eval-freq",
        type=never_or_every,
        help="updates between evaluations (default: 20 a run, at least every 10,000; 0: none)",
    )
    add("--eval-episodes", type=positive, help="episodes of an evaluation (default: 10)")
    add("--n-eval-envs", type=positive, help="environments stepped together (default: one per episode, at most 10)")
    add(
        "--save-freq",
        type=never_or_every,
        help="updates between checkpoints to keep (default: only the last one, renewed every 10,000)",
    )
    add("--save-replay-buffer", action="store_true", default=None, help="also save the sampler's state in a separate file")
    add("-f", "--log-folder", type=new_folder, help="root of the logs (default: logs; with -i, where the agent's run is)")
    add("--seed", type=random_or_seed, help="seed (default: a random one, which is recorded)")
    add("--device", type=device, help="cpu, cuda or auto (default)")
    add("--verbose", type=count, choices=(0, 1, 2), help="0 silent, 1 progress (default), 2 tables")
    add("--env-kwargs", nargs="+", metavar="NAME:VALUE", help="arguments of the environment")
    add(
        "--eval-env-kwargs", nargs="+", metavar="NAME:VALUE", help="arguments of the evaluation environment, over --env-kwargs"
    )
    add_trust_argument(parser)
    add("-params", "--hyperparams", nargs="+", metavar="NAME:VALUE", help="hyper-parameters that override the file's")
    add("-conf", "--conf-file", help="YAML file instead of the algorithm's own hyperparameters.yml")
    add("--profile", help="profile in the hyper-parameter file, such as cpu; or a file that `tune` wrote")
    add("-uuid", "--uuid", action="store_true", default=None, help="append a uuid to the run's folder")
    add("-P", "--progress", action=argparse.BooleanOptionalAction, help="show a progress bar (default)")
    add(
        "--track",
        nargs="?",
        const="wandb",
        choices=get_args(Service),
        help="log the run to Weights & Biases (wandb, the default) or MLflow (mlflow); without this flag nothing is sent",
    )
    add("--wandb-project-name", metavar="NAME", help="project, or MLflow's experiment (default: sb3-genoffline)")
    add("--wandb-entity", metavar="NAME", help="W&B's user or team (default: your own)")
    add("-tags", "--wandb-tags", nargs="+", metavar="TAG", help="tags of the tracked run")
    add("--collect", action="store_true", help="collect a genoffline dataset if it is missing")
    add("--download", action="store_true", help="download a Minari dataset if it is missing")


DEFAULTS: dict[str, Any] = {
    "num_threads": -1,
    "log_interval": -1,
    "eval_episodes": 10,
    "save_freq": -1,
    "save_replay_buffer": False,
    "log_folder": "logs",
    "seed": -1,
    "device": "auto",
    "verbose": 1,
    "uuid": False,
    "progress": True,
    "resume": True,
}


def main(args: argparse.Namespace) -> None:
    """:param args: as parsed with :func:`add_arguments`"""
    try:
        trained = train_as_asked(args)
    except KeyboardInterrupt as stop:
        raise advised(stop, f"training had not begun; start again with the same command: {command_line()}") from None
    if trained.signal is not None:
        raise Stopped(trained.signal, trained.outlook)


def train_as_asked(args: argparse.Namespace) -> TrainedRun:
    """:param args: as parsed with :func:`add_arguments`"""
    options = with_defaults(args)
    if options.num_threads > 0:
        import torch

        torch.set_num_threads(min(options.num_threads, os.cpu_count() or 1))
    if args.dataset is None and args.trained_agent is None:
        raise UserError("--dataset is missing: name the data to train on, for example --dataset mujoco/hopper/medium-v0.")
    tracking = asked_tracking(args)
    return train(
        options.algo,
        find_data(args),
        n_timesteps=options.n_timesteps,
        profile=options.profile,
        hyperparameters=parse_pairs(options.hyperparams),
        conf_file=options.conf_file,
        trained_agent=options.trained_agent,
        log_folder=options.log_folder,
        tensorboard_log=options.tensorboard_log,
        unique=options.uuid,
        env_id=args.env,
        env_kwargs=given_env_kwargs(args),
        trust_env=args.trust_env,
        eval_freq=options.eval_freq,
        eval_episodes=options.eval_episodes,
        n_eval_envs=options.n_eval_envs,
        save_freq=options.save_freq,
        save_replay_buffer=options.save_replay_buffer,
        log_interval={-1: 1000, -2: None}.get(options.log_interval, options.log_interval),
        seed=options.seed,
        device=options.device,
        verbose=options.verbose,
        progress=options.progress and options.verbose > 0,
        resume=options.resume,
        arguments=vars(options),
        tracking=tracking,
    )


def asked_tracking(args: argparse.Namespace) -> Tracking | None:
    """
    :param args: as parsed with :func:`add_arguments`
    :return: where the run is to be told of; None: nowhere
    :raises UserError: if something is said of a tracking that is not asked for
    """
    words = {
        "project": args.wandb_project_name,
        "entity": args.wandb_entity,
        "tags": args.wandb_tags and tuple(args.wandb_tags),
    }
    given = {name: value for name, value in words.items() if value is not None}
    if args.track is not None:
        return Tracking(args.track, **given)
    if given:
        raise UserError("--wandb-project-name, --wandb-entity and -tags are of a run that is tracked: add --track.")
    return None


def with_defaults(args: argparse.Namespace) -> argparse.Namespace:
    """
    :param args: options as given, None where they are not
    :return: with what the run of ``-i`` has kept, and the defaults, instead of those that are not given
    """
    given = {name: value for name, value in vars(args).items() if value is not None}
    if isinstance(given.get("dataset"), str) and Path(given["dataset"]).is_file():
        given["dataset"] = str(Path(given["dataset"]).resolve())  # so that the run goes on from anywhere
    run = run_of(args.trained_agent) if args.trained_agent else None
    kept: dict[str, Any] = {} if args.trained_agent else {"algo": "dac"}
    if run is not None:
        kept = {"dataset": run.config()["dataset"].get("id"), "log_folder": str(run.folder.parents[1]), **remembered(run)}
    return argparse.Namespace(**{**dict.fromkeys(vars(args)), **DEFAULTS, **kept, **given})


def find_data(args: argparse.Namespace) -> OfflineDataset:
    """
    The data to train on. What they do not have, as the bounds of their actions, is the environment's, if one is named now or
    was when the agent's training began; else the agent's.
    """
    find = partial(find_dataset, download=args.download, collect=args.collect, trust_env=args.trust_env)
    run = None if args.trained_agent is None else run_of(args.trained_agent)
    env = None
    if args.env is not None or (run is not None and recorded_env(run).asked_for):
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
