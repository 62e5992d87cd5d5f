"""
Choose an algorithm's hyper-parameters: Optuna over the `search:` block of its hyperparameters.yml. Trials are judged on
held-out logged episodes, or by a simulator (--objective simulator); those that fall behind end early.

Stop or kill it: the same command resumes, and more --trials extend the search. The best setting is a file that
`python -m zoo train --profile FILE` reads.
"""

import argparse
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

from sb3_genoffline.errors import UserError, printable
from sb3_genoffline.registry import ALGOS

from ..benchmark.records import DONE, FAILED
from ..benchmark.starting import add_job_arguments, starter
from ..collect.lookup import find_dataset
from ..runs.envs import env_factory, try_out
from ..runs.flags import a_folder, algorithm, device, positive, seed_number, share
from ..runs.folders import dataset_name
from ..runs.hyperparameters import parse_pairs
from ..runs.provenance import command_line
from ..runs.scoring import CHOOSING_SEEDS
from ..runs.stopping import advised
from .checks import check_trials
from .objectives import OBJECTIVES, SIMULATOR
from .plan import TunePlan, Wish, check_objective
from .results import notes_on, ranked, results_of, write_results
from .revealing import reveal
from .study import load_optuna
from .trials import sentence
from .tuner import Ended, Tuner


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """:param parser: takes the flags of ``python -m zoo tune``"""
    add = parser.add_argument
    add("--algo", type=algorithm, required=True, help=f"algorithm: {', '.join(ALGOS)}")
    add("--dataset", required=True, help="Minari id or file to train and judge on")
    add("--trials", type=positive, default=20, help="settings to try in total, earlier calls included (default: 20)")
    objectives = "; ".join(f"{name}: {objective.what}" for name, objective in OBJECTIVES.items()).replace("%", "%%")
    add("--objective", choices=OBJECTIVES, default="fqe", help=f"what is best (default: fqe). {objectives}")
    add("--scores", type=positive, default=3, help="how often a trial is scored, its end included (default: 3)")
    add("--prune", action=argparse.BooleanOptionalAction, default=True, help="end trials that fall behind (default)")
    add("--held-out", type=share, default=0.2, help="share of the episodes held out of all trainings (default: 0.2)")
    add(
        "--fit-steps",
        type=positive,
        default=20_000,
        help="updates of FQE; intermediate scores use a quarter (default: 20,000)",
    )
    add("--episodes", type=positive, default=10, help="episodes of each score of the simulator (default: 10)")
    add("--reveal", type=positive, metavar="N", help="finally play N episodes of each trial in the simulator, for the report")
    add(
        "--search",
        nargs="+",
        metavar="NAME:VALUES",
        help="search space instead of the file's: alpha:[1,2.5] tau:dict(low=0.005,high=0.05)",
    )
    add(
        "-params",
        "--hyperparams",
        nargs="+",
        metavar="NAME:VALUE",
        help="hyper-parameters of all trials, which are not searched",
    )
    add("-n", "--n-timesteps", type=positive, help="gradient updates of a trial (default: the hyper-parameters')")
    add("-conf", "--conf-file", help="YAML file instead of the algorithm's own hyperparameters.yml")
    add("--profile", help="profile in the hyper-parameter file, such as cpu")
    add("-f", "--folder", "--log-folder", type=a_folder, default="logs/tune", help="root of the searches (default: logs/tune)")
    add("--env", help="environment of the simulator (default: the dataset's)")
    add("--seed", type=seed_number, default=0, help="seed of all trainings, the split and the search")
    add("--device", type=device, default="auto", help="cpu, cuda or auto")
    add("--collect", action="store_true", help="collect a genoffline dataset if it is missing")
    add_job_arguments(parser)


def main(args: argparse.Namespace) -> None:
    """:param args: as parsed with :func:`add_arguments`"""
    load_optuna()
    plan = _plan(args)
    folder = Path(args.folder) / f"{args.algo}-{dataset_name(args.dataset)}"
    tuner = Tuner(plan, folder, args.trials, args.prune, lambda text: print(f"{datetime.now():%H:%M:%S} {text}", flush=True))
    start, parallel = starter(args, module=f"{__package__}.job")
    failures: list[str] = []
    try:
        with closing(tuner.run(start, parallel)) as events:
            for ended in events:
                if ended is not None:
                    write_results(plan, tuner.study, folder, final=False)
                    _tell(ended, failures)
        if args.reveal:
            for line in reveal(folder, args.reveal):
                print(f"{datetime.now():%H:%M:%S} {line}", flush=True)
    except KeyboardInterrupt as stop:
        raise advised(stop, f"to resume, run the same command: {command_line()}") from None
    results = results_of(plan, tuner.study, folder)
    best = ranked(plan, results)
    for file in write_results(plan, tuner.study, folder):
        print(f"wrote {file}")
    if tuner.left_over:
        print(f"{tuner.left_over} trials were interrupted: the same command resumes")
    if not best:
        failures = failures or [result.error for result in results if result.error is not None]
        why = "The same command resumes." if tuner.left_over else f"jobs/ in {folder} has their records and logs."
        raise UserError(f"No trial came to its end. {failures[-1] if failures else why}")
    print(f"best: trial {best[0].number}, {_setting(best[0].settings)}: {best[0].value:.4g}")
    for note in notes_on(plan, results):
        print(note)


def _plan(args: argparse.Namespace) -> TunePlan:
    """What is asked for, once it is known that it can be done."""
    data = find_dataset(args.dataset, collect=args.collect, env=args.env)
    objective: dict[str, Any] = {"objective": args.objective, "scores": args.scores}
    if args.objective == SIMULATOR:
        objective |= {"episodes": args.episodes, "eval_seed": CHOOSING_SEEDS.start}
    else:
        objective |= {"held_out": args.held_out}
    if args.objective.startswith("fqe"):
        objective |= {"fit_steps": args.fit_steps}
    overrides = parse_pairs(args.hyperparams)
    if args.n_timesteps is not None:
        overrides["n_timesteps"] = args.n_timesteps
    wish = Wish(
        args.algo,
        str(Path(args.dataset).resolve()) if Path(args.dataset).is_file() else args.dataset,
        args.seed,
        objective,
        args.device,
        args.profile,
        overrides,
        None if args.search is None else parse_pairs(args.search),
        args.conf_file,
        args.env,
    )
    check_objective(objective, data)
    plan = TunePlan(wish, data)
    if args.objective == SIMULATOR or args.reveal:
        try_out(env_factory(data, args.env, plan.base.env_kwargs))
    check_trials(plan)
    return plan


def _tell(ended: Ended, failures: list[str]) -> None:
    scores = ended.record.get("scores") or [{}]
    text = {DONE: f"{scores[-1].get('value', 0.0):.4g}"}.get(ended.state, ended.state)
    if ended.state == FAILED:
        failures.append(sentence(ended.record.get("error")))
        text = f"failed: {failures[-1]}"
    print(f"{datetime.now():%H:%M:%S} trial {ended.number}, {_setting(ended.settings)}: {text}", flush=True)


def _setting(values: dict[str, Any]) -> str:
    return printable(", ".join(f"{name} {value}" for name, value in values.items()))
