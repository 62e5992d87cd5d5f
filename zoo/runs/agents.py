"""Which agent a command is about, and in which environment it acts."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sb3_genoffline.common.offline_algorithm import AnyAlgorithm
from sb3_genoffline.data import OfflineDataset, load_dataset
from sb3_genoffline.data.reading.minari import is_dataset_id
from sb3_genoffline.errors import NotFoundError, UserError
from sb3_genoffline.registry import ALGOS, load_agent

from .envs import EnvFactory, env_of_run, recorded_env
from .flags import a_folder, algorithm, count, device, positive
from .folders import Run, find_run, run_of
from .hyperparameters import parse_pairs


def add_agent_arguments(parser: argparse.ArgumentParser) -> None:
    """:param parser: takes the flags that say which agent, shared with ``enjoy``"""
    add = parser.add_argument
    add("--algo", type=algorithm, default="dac", help=f"algorithm: {', '.join(ALGOS)}")
    add("--dataset", help="dataset that the agent was trained on")
    add("-f", "--folder", "--log-folder", type=a_folder, default="logs", help="root of the logs")
    add("--exp-id", type=count, default=0, help="number of the run (0: the latest)")
    add("--model", metavar="ZIP", help="an agent's file, instead of --algo, --dataset and --exp-id")
    which = parser.add_mutually_exclusive_group().add_argument
    which("--load-best", action="store_true", help="the best checkpoint of the run instead of the last")
    which("--load-checkpoint", type=positive, metavar="N", help="the checkpoint after N updates instead of the last")
    add("--deterministic", action=argparse.BooleanOptionalAction, default=True, help="see the policy's docstring")
    add("--stochastic", dest="deterministic", action="store_false", help="the same as --no-deterministic")
    add("--env", help="environment (default: the dataset's)")
    add("--env-kwargs", nargs="+", metavar="NAME:VALUE", help="its arguments, over those of the training")
    add_trust_argument(parser)
    add("--device", type=device, default="auto", help="cpu, cuda or auto")


def add_trust_argument(parser: argparse.ArgumentParser) -> None:
    """:param parser: takes the flag of every command that builds an environment which files may name"""
    parser.add_argument(
        "--trust-env", action="store_true", help="build the environment that data or a run record, whatever code it names"
    )


def agent_and_env(args: argparse.Namespace) -> tuple[AnyAlgorithm, EnvFactory, Path, str]:
    """
    :param args: as parsed with :func:`add_agent_arguments`
    :return: the agent, a function that makes its environment, the agent's file, and which checkpoint it is
    """
    if args.model is not None:
        if args.load_best or args.load_checkpoint or args.exp_id:
            raise UserError("--model names the agent's file itself: leave out --load-best, --load-checkpoint and --exp-id.")
        path, run = Path(args.model), run_of(args.model)
        checkpoint = _checkpoint_name(path, run)
    elif args.dataset is None:
        raise UserError("Which agent? Give --dataset (and --algo, -f, --exp-id), or --model with the agent's file.")
    else:
        run = find_run(args.folder, args.algo, args.dataset, args.exp_id)
        checkpoint = "best" if args.load_best else str(args.load_checkpoint or "last")
        path = run.checkpoint(checkpoint)
    model = load_agent(path, device=args.device)
    return model, _env_of(model, run, args), path, checkpoint


def _checkpoint_name(path: Path, run: Run | None) -> str:
    stem = path.name.removesuffix(".zip")
    if run is None or stem == run.name:
        return "last"
    return "best" if stem == "best_model" else stem.removeprefix("rl_model_").removesuffix("_steps")


def _env_of(model: AnyAlgorithm, run: Run | None, args: argparse.Namespace) -> EnvFactory:
    data = None
    if args.env is None:
        try:
            data = data_of_agent(model, run, args.dataset)
        except NotFoundError:
            if args.dataset is not None and args.model is not None:
                raise
            # its run may tell
        except UserError:
            if args.dataset is not None and (run is None or not recorded_env(run).asked_for):
                raise
    return env_of_run(run, data, args.env, parse_pairs(args.env_kwargs), args.trust_env)


def data_of_agent(
    model: AnyAlgorithm,
    run: Run | None,
    named: str | None = None,
    load: Callable[..., OfflineDataset] | None = None,
    env: Any = None,
) -> OfflineDataset:
    """
    The data that an agent was trained on. An agent may name a Minari dataset of
    this machine. Its run may name a file, which counts only if it holds what the agent says it was trained on: files of others
    do not choose what is read into a training or a picture.

    :param model: the agent
    :param run: that it lies in, if it lies in one
    :param named: data that the user named instead
    :param load: takes an id or a file, and ``env`` (None: ``load_dataset``)
    :param env: has the spaces where the data have none (None: the agent has)
    :raises NotFoundError: if they are not on this machine
    :raises UserError: if they are not known
    """
    given = env
    load, env = load or load_dataset, env or (model.observation_space, model.action_space)
    if named is not None:
        return load(named, env=env)
    file = None if run is None else run.arguments().get("dataset")
    if isinstance(file, str) and Path(file).is_absolute():
        data = load(file, env=env) if Path(file).is_file() else None
        if data is None or data.fingerprint != model.dataset_info.get("fingerprint"):
            bounds = " (or --env has other bounds than the one of the training)" if given is not None else ""
            other = f"holds other data than the agent was trained on{bounds}"
            what = "is not there any more" if data is None else other
            raise NotFoundError(f"{file}, which the run names, {what}: give the data with --dataset.")
        return data
    source = model.dataset_info.get("id")
    if not is_dataset_id(source):
        raise UserError("The agent does not name its data, or they were a file: give them with --dataset.")
    return load(source, env=env)
