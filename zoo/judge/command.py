"""
Rank the checkpoints of all runs on a dataset from the logged data alone, by fitted Q evaluation and weighted doubly robust
estimates on held-out episodes. No environment is built, except by --truth, which measures how good the ranking is.
"""

import argparse
import inspect
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sb3_genoffline.common.arguments import nearest
from sb3_genoffline.errors import UserError, printable
from sb3_genoffline.files.untrusted import short
from sb3_genoffline.ope import FQE, OfflineReport, evaluate_offline
from sb3_genoffline.ope.kept_fits import kept_fit
from sb3_genoffline.ope.report import n_held_out
from sb3_genoffline.program import PROGRAM

from ..collect.lookup import find_dataset
from ..runs.agents import add_trust_argument
from ..runs.envs import Recorded, env_factory, try_out
from ..runs.flags import a_folder, algorithm, device, inner_share, json_file, picture_file, positive, seed_number
from ..runs.folders import dataset_name
from ..runs.hyperparameters import parse_pairs
from ..runs.provenance import command_line, versions
from ..runs.stopping import advised
from ..runs.writing import finite, write_json
from .candidates import check_spaces, find_checkpoints, load_candidates, trained_elsewhere, unfinished_runs
from .truth import Truth, compared, play, table

FEW_TO_COMPARE = 8
_FLAGS = {"gamma": "--gamma", "seed": "--seed", "device": "--device", "n_action_samples": "--action-samples"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """:param parser: takes the flags of ``python -m zoo judge``"""
    add = parser.add_argument
    add("--dataset", required=True, help="Minari id or file that the agents were trained on")
    add("-f", "--folder", "--log-folder", type=a_folder, default="logs", help="root of the logs")
    add("--algo", type=algorithm, nargs="+", default=(), help="judge the runs of these algorithms alone (default: all)")
    add("-n", "--n-timesteps", type=positive, default=50_000, help="updates per fit of a Q-function (default: 50,000)")
    add("--held-out", type=inner_share, default=0.2, help="share of the episodes that no fit sees (default: 0.2)")
    add("--action-samples", type=positive, default=4, help="actions that a policy which draws has in a state (default: 4)")
    add("--gamma", type=inner_share, help="discount, above 0 and below 1 (default: the agents')")
    add("--seed", type=seed_number, default=0, help="seed of all random numbers")
    add("--fqe-only", action="store_true", help="skip the doubly robust estimates, which need a density of the behaviour")
    add(
        "-params",
        "--hyperparams",
        nargs="+",
        metavar="NAME:VALUE",
        help="arguments of FQE, such as tau:0.02 net_arch:[128,128] (help(sb3_genoffline.ope.FQE) has them)",
    )
    add("--fits", type=a_folder, metavar="FOLDER", help="save every fit here as it goes: the same command then resumes")
    add("--device", type=device, default="auto", help="cpu, cuda or auto")
    add(
        "--truth",
        type=positive,
        metavar="N",
        help="afterwards, run N episodes per agent in the simulator and measure how good the ranking was",
    )
    add("--env", help="environment for --truth (default: the dataset's)")
    add("--json", type=json_file, metavar="FILE", help="write everything to this file")
    add("-o", "--output", type=picture_file, help="picture to write, as PNG and SVG (default: logs/judge/<dataset>.png)")
    add_trust_argument(parser)


def main(args: argparse.Namespace) -> None:
    """:param args: as parsed with :func:`add_arguments`"""
    of_fits = fit_arguments(args.hyperparams)
    paths = find_checkpoints(args.folder, args.dataset, args.algo)
    agents, refused = load_candidates(paths, args.device)
    first = next(iter(agents.values()))
    spaces = (first.observation_space, first.action_space)  # where the data have none
    data = find_dataset(args.dataset, env=spaces, trust_env=args.trust_env)
    check_spaces(agents, data)
    if not args.fqe_only and round(args.held_out * data.n_episodes) < 2:
        raise UserError(
            f"--held-out {args.held_out:g} leaves fewer than two of {data.n_episodes} episodes for doubly robust estimates: "
            "give a larger share, or --fqe-only."
        )
    make = env_factory(data, args.env, recorded=Recorded(trusted=args.trust_env))
    if args.truth:
        try_out(make)
    elsewhere = trained_elsewhere({name: paths[name] for name in agents}, data)
    for sentence in [*refused, *([elsewhere] if elsewhere else [])]:
        print(sentence)
    for name in unfinished_runs(args.folder, args.dataset, args.algo):
        print(f"{name} is of a run that was interrupted: it is judged as it stands")
    also = "" if args.fqe_only else ", and a density of the behaviour (--fqe-only spares it)"
    apart = f"{n_held_out(data, args.held_out):,} of {data.n_episodes:,} episodes"
    begun = [] if args.fits is None else [name for name in agents if kept_fit(Path(args.fits), name).is_file()]
    if begun:
        print(f"{args.fits} has fits of {len(begun)} of them from before, which go on where they stopped")
    number = "one agent" if len(agents) == 1 else f"{len(agents)} agents"
    print(f"judging {number}: a fit of {args.n_timesteps:,} updates for each and for the data{also}")
    measured = "TD errors are" if args.fqe_only else "TD errors and WDR are"
    print(
        f"{apart} are held out of the agents' fits; {measured} measured on them (the data's own value is fitted on all)",
        flush=True,
    )
    try:
        report = evaluate_offline(
            agents,
            data,
            estimators=("fqe",) if args.fqe_only else ("fqe", "wdr"),
            gamma=args.gamma,
            gradient_steps=args.n_timesteps,
            n_action_samples=args.action_samples,
            held_out=args.held_out,
            seed=args.seed,
            device=args.device,
            weighting={"device": args.device},
            fits=args.fits,
            progress_bar=sys.stderr.isatty(),
            **of_fits,
        )
    except KeyboardInterrupt as stop:
        raise advised(stop, _how_to_go_on(args.fits)) from None
    print(report.table())
    print(agreement(report))
    export = [*PROGRAM.split(), "export", "--model", str(paths[report.best()])]
    print(f"an ONNX file of it: {printable(shlex.join(export))}")
    from .pictures import plot_report, plot_truth

    output = Path(args.output) if args.output else Path("logs") / "judge" / f"{dataset_name(args.dataset)}.png"
    files, found = plot_report(report, output), report.as_dict() | {"left_out": refused}
    found |= {"command": command_line(), "versions": versions()}
    if args.truth:
        truth: dict[str, Truth] = {}
        for name, agent in agents.items():
            truth[name] = play(agent, make, args.truth, report.gamma)
        found |= compared(report, truth)
        print(table(found))
        files += plot_truth(report, truth, output.with_name(f"{output.stem}-truth.png"))
    if args.json:
        write_json(Path(args.json), finite(found))
        files.append(Path(args.json))
    for file in files:
        print(f"wrote {file}")


def _how_to_go_on(fits: str | None) -> str:
    if fits is None:
        return "nothing is kept of the fits; --fits FOLDER would have kept them"
    return f"fits are kept in {fits}, each after every tenth of its updates; to resume, run the same command: {command_line()}"


def fit_arguments(pairs: Sequence[str] | None) -> dict[str, Any]:
    """
    :param pairs: ``name:value`` of FQE's arguments
    :return: by name
    :raises UserError: naming one that is not FQE's, or that a flag stands for
    """
    found, known = parse_pairs(pairs), {*inspect.signature(FQE).parameters} - {"policy", "dataset", "initial_observations"}
    for name in found:
        if name in _FLAGS:
            raise UserError(f"-params {name}: FQE's {name} is {_FLAGS[name]} here.")
        if name not in known:
            raise UserError(f"-params {short(name)} is not an argument of FQE{nearest(name, known)}")
    return found


def agreement(report: OfflineReport) -> str:
    """How far the two estimators rank alike, and whether the best policy is better than the data."""
    best, rho, n = report.best(), report.agreement, len(report.judgements)
    low, high = report.judgements[best].fqe.interval
    beside = ", which is not surely better than the data"
    if low > report.data_value:
        beside = f", whose interval is above the data's {report.data_value:.4g}"
    elif high < report.data_value:
        beside = ", which is worse than the data: keep what was done, or fit longer (-n) if estimates still move"
    lines = [f"best: {best}{beside}"]
    if rho is not None:
        few = ": few, so read little into it" if n < FEW_TO_COMPARE else ""
        lines.append(f"agreement of FQE and WDR: rank correlation {rho:.2f} over {n} policies{few}")
    return "\n".join(lines)
