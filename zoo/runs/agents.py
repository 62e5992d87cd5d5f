"""Which agent a command is about, and in which environment it acts."""

import argparse
from pathlib import Path

from sb3_genoffline.common.offline_algorithm import AnyAlgorithm
from sb3_genoffline.data import OfflineDataset, load_dataset
from sb3_genoffline.errors import NotFoundError, UserError
from sb3_genoffline.registry import ALGOS, load_agent

from .envs import EnvFactory, env_factory
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
    add("--env-kwargs", nargs="+", metavar="NAME:VALUE", help="arguments of the environment")
    add("--device", type=device, default="auto", help="cpu, cuda or auto")


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
    env_id = args.env
    dataset = None if env_id is not None else _dataset_of(model, args.dataset, args.model is not None)
    unknown = dataset is None or (dataset.env_spec is None and dataset.eval_env_spec is None)
    if env_id is None and unknown and run is not None:
        env_id = run.config()["environment"]
    return model, env_factory(dataset, env_id, **parse_pairs(args.env_kwargs)), path, checkpoint


def _checkpoint_name(path: Path, run: Run | None) -> str:
    stem = path.name.removesuffix(".zip")
    if run is None or stem == run.name:
        return "last"
    return "best" if stem == "best_model" else stem.removeprefix("rl_model_").removesuffix("_steps")


def _dataset_of(model: AnyAlgorithm, named: str | None, needed: bool) -> OfflineDataset | None:
    """
    The agent's dataset if it is on this machine; for its environment only, which the agent's run may know too.

    :param named: by the user
    :param needed: nothing else is asked of the name, so it has to be right
    """
    source = named if named is not None else model.dataset_info.get("id")
    try:
        return None if source is None else load_dataset(source)
    except UserError as error:
        if named is not None and (needed or not isinstance(error, NotFoundError)):
            raise
        return None  # the id of data that were no Minari dataset: the stem of a file's name
