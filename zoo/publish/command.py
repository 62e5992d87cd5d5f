"""Make a folder of a trained agent for the Hugging Face Hub, and send it there when you say so."""

import argparse
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sb3_genoffline.errors import UserError, printable
from sb3_genoffline.files.writing import scratch_folder
from sb3_genoffline.hub.naming import check_repo_id, repo_name
from sb3_genoffline.hub.publishing import push_folder, write_agent_folder
from sb3_genoffline.registry import ALGOS

from ..runs.agents import add_trust_argument
from ..runs.flags import a_folder, algorithm, count, device, new_folder, positive, seed_number
from ..runs.scoring import EVAL_SEED, check_seed, summary
from .choice import Candidate, choose, choose_all
from .contents import (
    Settings,
    differences,
    make_curve,
    make_film,
    make_results,
    open_agent,
    public,
    source_of,
    training_command,
)
from .index import is_index, write_index


@dataclass(frozen=True)
class Target:
    """
    Where agents go.

    :param folder: an agent per folder
    :param organization: user or organisation on the Hub (None: not known yet)
    :param overwrite: rebuild the folder of an agent that has changed
    """

    folder: Path
    organization: str | None = None
    overwrite: bool = False

    def repo_id(self, name: str) -> str | None:
        """``organization/name``."""
        return None if self.organization is None else f"{self.organization}/{name}"


def publish(candidate: Candidate, name: str, target: Target, settings: Settings) -> Path | None:
    """
    Write an agent's folder. A film or a curve that cannot be made is left out, and said so.

    :param candidate: the run, and those of the other seeds
    :param name: of the folder and of the repository
    :param target: where it goes
    :param settings: checkpoint, protocol, film
    :return: the folder; None if it was there already, made from the same
    :raises UserError: if there is another one of this name, and it is not to be overwritten
    """
    folder, source = target.folder / name, source_of(candidate, settings)
    if folder.exists() and not target.overwrite:
        before = _source_in(folder)
        if before == source:
            return None
        what = "it was not made by this command" if before is None else f"other {', '.join(differences(before, source))}"
        raise UserError(f"{folder} is there already ({what}): --overwrite rebuilds it, -name gives another name.")
    model, make = open_agent(candidate.chosen.run, settings.checkpoint, settings)
    results = make_results(candidate, model, make, settings, lambda text: print(f"  {text} ...", flush=True))
    results["command"] = training_command(candidate.chosen)
    print("  " + summary(results).partition("\n")[2])
    with scratch_folder("publish") as scratch:
        curve = _if_possible("training curve", lambda: make_curve(candidate, scratch))
        film = None
        if settings.film_steps:
            print(f"  filming {settings.film_steps} steps ...", flush=True)
            film = _if_possible("film", lambda: make_film(model, make, scratch, settings.film_steps))
        chosen = candidate.chosen
        return write_agent_folder(
            model,
            folder,
            repo_id=target.repo_id(name),
            results=results,
            hyperparameters={chosen.dataset: public(chosen.config["hyperparameters"])},
            command=results["command"],
            curve=curve,
            film=film,
            training=settings.training,
            overwrite=target.overwrite,
        )


def _if_possible(what: str, make: Callable[[], Path]) -> Path | None:
    """A picture, or None and why."""
    try:
        return make()
    except (ValueError, OSError, RuntimeError) as error:
        print(f"  no {what}: {printable(error)}")
        return None


def _source_in(folder: Path) -> dict[str, Any] | None:
    """What a folder says it was made from."""
    try:
        return json.loads((folder / "results.json").read_text())["source"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def named(candidates: list[Candidate]) -> tuple[list[tuple[str, Candidate]], list[str]]:
    """
    Names of agents; of several that would have the same, the first in the order given has it.

    :return: names and agents, and a line for each agent that has no name
    """
    taken: dict[str, Candidate] = {}
    passed = []
    for candidate in candidates:
        trained = candidate.chosen
        name = repo_name(trained.algo, trained.dataset)
        if name in taken:
            passed.append(
                f"{trained.run.folder}: its name {name} is that of {taken[name].chosen.run.folder}; publish it by itself, "
                f"with --algo {trained.algo} --dataset {trained.dataset} and a -name"
            )
        else:
            taken[name] = candidate
    return list(taken.items()), passed


def tree(folder: Path) -> Iterator[str]:
    """Lines with the files of a folder and their sizes."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    sizes = [file.stat().st_size for file in files]
    names = [printable(file.relative_to(folder)) for file in files]
    width = max(len(name) for name in names)
    yield f"  {folder} ({len(files)} files, {sum(sizes) / 1024:,.1f} KB)"
    for number, (name, size) in enumerate(zip(names, sizes, strict=True), start=1):
        yield f"  {'└' if number == len(names) else '├'}── {name:{width}}  {size / 1024:9,.1f} KB"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """:param parser: takes the flags of ``python -m zoo publish``"""
    add = parser.add_argument
    add("--algo", type=algorithm, default="dac", help=f"algorithm: {', '.join(ALGOS)}")
    add("--dataset", help="dataset that the agent was trained on")
    add("-f", "--folder", "--log-folder", type=a_folder, default="logs", help="root of the logs")
    add("--exp-id", type=count, default=0, help="number of the run (0: the latest)")
    add("--all", action="store_true", help="publish one agent per algorithm and dataset below -f: the lowest seed's")
    add("--checkpoint", choices=["last", "best"], default="last", help="which checkpoint of the run")
    add("--index", action="store_true", help="only rewrite README.md of the output folder, from its agents")
    add("-orga", "--organization", metavar="NAME", help="your user name or organisation on the Hub")
    add("-name", "--repo-name", metavar="NAME", help="name of folder and repository (default: from --algo and --dataset)")
    add("-o", "--output", type=new_folder, default="hub_models", help="folder for the agents' folders")
    add(
        "--dry-run",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="write and list the folder, send nothing (default)",
    )
    add("--overwrite", action="store_true", help="rebuild the folder of an agent that has changed")
    add("-n", "--n-episodes", type=positive, help="episodes of each evaluation (default: 10; 100 for antmaze)")
    add("--seed", type=seed_number, default=EVAL_SEED, help="seed of the episodes")
    add("--film", action=argparse.BooleanOptionalAction, default=True, help="film the agent")
    add("--video-length", type=positive, default=1000, metavar="N", help="environment steps of the film")
    add("--act-only", action="store_true", help="leave out what only resuming needs")
    add("--env", help="environment to evaluate and film in (default: the dataset's)")
    add("--env-kwargs", nargs="+", metavar="NAME:VALUE", help="arguments of the environment (default: the training's)")
    add_trust_argument(parser)
    add("--device", type=device, default="auto", help="cpu, cuda or auto")
    add("-m", "--commit-message", metavar="TEXT", help="message of the commit on the Hub")
    add("--private", action="store_true", default=None, help="make a new repository private")
    add("--token", help="access token (default: HF_TOKEN, or that of `hf auth login`)")


def main(args: argparse.Namespace) -> None:
    """:param args: as parsed with :func:`add_arguments`"""
    if args.index:
        print(f"wrote {write_index(args.output, args.folder)}")
        return
    if not args.dry_run and args.organization is None:
        raise UserError("Sent where? Add -orga with your user name or organisation on the Hub.")
    if args.all and (args.repo_name or args.dataset or args.exp_id):
        raise UserError("--all finds and names the agents itself: leave out -name, --dataset and --exp-id.")
    passed: list[str] = []
    if args.all:
        candidates, passed = choose_all(args.folder)
        agents, without_name = named(candidates)
        passed += without_name
    elif args.dataset is None:
        raise UserError("Which agent? Give --dataset (and --algo, -f, --exp-id), or --all.")
    else:
        candidate = choose(args.folder, args.algo, args.dataset, args.exp_id)
        agents = [(args.repo_name or repo_name(candidate.chosen.algo, candidate.chosen.dataset), candidate)]
    for line in passed:
        print(f"passed over {printable(line)}")
    problems = []
    for name, candidate in agents:
        try:
            _publish_and_send(candidate, name, args)
        except (ValueError, OSError) as error:
            if not args.all:
                raise
            problems.append(f"{name}: {error}")
            print(f"  not published: {printable(error)}")
    if len(problems) < len(agents) and is_index(Path(args.output) / "README.md"):
        print(f"renewed {write_index(args.output, args.folder)}")
    if problems:
        raise UserError("\n".join([f"{len(problems)} of {len(agents)} agents were not published:", *problems]))


def _publish_and_send(candidate: Candidate, name: str, args: argparse.Namespace) -> None:
    check_repo_id(f"{args.organization or 'you'}/{name}")
    target = Target(Path(args.output), args.organization, args.overwrite)
    settings = Settings(
        checkpoint=args.checkpoint,
        n_episodes=args.n_episodes,
        eval_seed=check_seed(args.seed),
        film_steps=args.video_length if args.film else 0,
        training=not args.act_only,
        device=args.device,
        env_id=args.env,
        env_kwargs=None if args.env_kwargs is None else tuple(args.env_kwargs),
        trust_env=args.trust_env,
    )
    print(printable(f"{name}: {candidate.chosen.run.folder}, seed {candidate.chosen.seed}, {args.checkpoint} checkpoint"))
    for note in candidate.notes:
        print(f"  {printable(note)}")
    folder = publish(candidate, name, target, settings)
    if folder is None:
        folder = target.folder / name
        print(f"  unchanged: {folder} was made from the same checkpoints and settings")
    else:
        print("\n".join(tree(folder)))
    repo_id = target.repo_id(name)
    if args.dry_run:
        print(f"  nothing was sent; --no-dry-run -orga {args.organization or 'NAME'} sends it")
        return
    assert repo_id is not None
    options = {"token": args.token, "private": args.private, "commit_message": args.commit_message}
    print(f"  sent: {push_folder(folder, repo_id, **options)}")
