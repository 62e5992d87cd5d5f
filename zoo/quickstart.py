"""Collect the stitching maze's data (once), train DAC and imitation on them, evaluate both, draw their walks, film DAC's."""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import multiprocessing
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sb3_genoffline.data import load_dataset
from sb3_genoffline.program import PROGRAM

from .runs.flags import new_folder, seed_number
from .runs.stopping import shielding_children

if TYPE_CHECKING:
    from .runs.folders import Run

ALGO, PROFILE = "dac", "quickstart"
IMITATION, IMITATION_PROFILE = "bc", "cpu"
DATASET = "genoffline/pointmaze/stitch-v0"
_UNDER_WAY = "under_way.json"


@dataclass(frozen=True)
class Sizes:
    """
    How much of everything.

    :param collect_steps: steps of the dataset (None: its own number)
    :param n_timesteps: updates of both trainings (None: what their profiles say)
    :param episodes: of the evaluations
    :param walks: of each agent in the picture
    :param film_steps: environment steps of the film
    """

    collect_steps: int | None = None
    n_timesteps: int | None = None
    episodes: int = 100
    walks: int = 50
    film_steps: int = 250


SMOKE = Sizes(collect_steps=2_000, n_timesteps=200, episodes=2, walks=2, film_steps=60)


def quickstart(
    log_folder: str | Path = "logs/quickstart", seed: int = 0, sizes: Sizes | None = None, verbose: bool = True
) -> dict[str, Any]:
    """
    The whole way from nothing to a film.

    Imitation (BC) trains in a process of its own beside DAC, one thread each.

    :param log_folder: where everything is written
    :param seed: of both trainings
    :param sizes: how much of everything
    :param verbose: show progress
    :return: what ``results.json`` holds
    """
    from sb3_genoffline.registry import load_agent

    from .plot.maze import plot_maze
    from .runs.envs import env_factory
    from .runs.film import film
    from .runs.writing import write_json

    sizes = sizes or Sizes()
    folder = Path(log_folder)
    folder.mkdir(parents=True, exist_ok=True)
    seconds: dict[str, float] = {}
    started = time.perf_counter()
    with _stage("collect", seconds, f"dataset {DATASET}", verbose):
        ensure_dataset(DATASET, sizes.collect_steps)
        data = load_dataset(DATASET)
    settings = _settings(folder, seed, sizes) | {"arguments": _under_way(folder, seed, sizes)}
    with _threads(1), _imitation(settings, sizes.episodes, folder) as imitation:
        with _stage("train", seconds, "train DAC, and imitation in a second process", verbose):
            run, rate = _train(ALGO, data, settings | {"profile": PROFILE}, progress=verbose, verbose=int(verbose))
        with _stage("evaluate", seconds, f"evaluate the last checkpoint in {sizes.episodes} episodes", verbose):
            result = _evaluate(run, data, sizes.episodes)
        with _stage("wait", seconds, "wait for imitation", verbose):
            bc = imitation()
    agents = {"DAC": load_agent(run.model_path, device="cpu"), "BC": load_agent(bc["model_path"], device="cpu")}
    with _threads(1), _stage("plot", seconds, f"draw {sizes.walks} walks of each", verbose):
        plot_maze(data, folder / "walks.png", {name: agents[name] for name in ("BC", "DAC")}, n_walks=sizes.walks)
    told = ("normalized_score", "normalized_score_ci95", "mean_length", "gradient_steps")
    result = {
        **result,
        **{f"bc_{name}": bc["result"][name] for name in told},
        "behavior_mean_length": float(data.episode_lengths().mean()),
        "profile": PROFILE,
        "updates_per_second": round(rate, 1),
        "bc_updates_per_second": round(bc["updates_per_second"], 1),
        "files": {"model": str(run.model_path), "bc_model": bc["model_path"], "walks": str(folder / "walks.png")},
    }
    write_json(folder / "results.json", result)  # before the film: a renderer that fails must not cost the numbers
    replay: Path | None = folder / "replay.mp4"
    with _stage("film", seconds, f"film {sizes.film_steps} steps", verbose):
        try:
            film(agents["DAC"], env_factory(data), folder / "replay.mp4", sizes.film_steps, seed=seed)
        except (ValueError, OSError, RuntimeError) as error:
            replay = None
            print(f"no film: {error}")
    seconds["total"] = time.perf_counter() - started
    result["files"]["replay"] = str(replay) if replay else None
    result["seconds"] = {name: round(value, 1) for name, value in seconds.items()}
    write_json(folder / "results.json", result)
    (folder / _UNDER_WAY).unlink()
    if verbose:
        show(result, folder / "results.json")
    return result


def _under_way(folder: Path, seed: int, sizes: Sizes) -> dict[str, Any]:
    """What the trainings of this quickstart are known by: those of an interrupted one that asked for the same, or new ones."""
    from .runs.reading import read_json
    from .runs.writing import write_json

    path, asked = folder / _UNDER_WAY, {"seed": seed, **asdict(sizes)}
    if path.is_file():
        known = read_json(path, "mark of an interrupted quickstart")
        if known.get("asked") == asked:
            return {"quickstart": known}
    begun = {"begun": datetime.datetime.now(datetime.UTC).isoformat(), "asked": asked}
    write_json(path, begun)
    return {"quickstart": begun}


def _train(algo: str, data: Any, settings: dict[str, Any], **more: Any) -> tuple[Run, float]:
    """
    Train, go on with what was interrupted, or take what has come to its end.

    :return: the run, and its updates per second
    :raises Stopped: if a signal came
    """
    from .runs.folders import list_runs
    from .runs.learning import train
    from .runs.stopping import Stopped

    for run in list_runs(settings["log_folder"], algo, DATASET):
        if run.summary().get("finished") and run.arguments() == settings["arguments"]:
            return run, run.summary()["updates_per_second"]
    trained = train(algo, data, **settings, resume=True, **more)
    if trained.signal is not None:
        raise Stopped(trained.signal)
    return trained.run, trained.updates_per_second


def ensure_dataset(dataset_id: str, steps: int | None = None) -> None:
    """Collect one of our datasets if it is not on this machine; say so if the one that is has another size."""
    from .collect.make import collect
    from .recipes import load_recipe

    try:
        found, expected = len(load_dataset(dataset_id)), load_recipe(dataset_id, steps).n_steps
    except FileNotFoundError:
        collect(dataset_id, steps=steps)
        return
    if found != expected:
        print(
            f"note: {dataset_id} on this machine has {found:,} steps, not the usual {expected:,}, so the outcome will differ; "
            f"`{PROGRAM} collect {dataset_id} --overwrite` makes the usual one."
        )


def _settings(folder: Path, seed: int, sizes: Sizes) -> dict[str, Any]:
    """Arguments of ``train`` that both trainings share. Nothing is chosen on the way, so nothing is evaluated there."""
    return {
        "n_timesteps": sizes.n_timesteps,
        "log_folder": str(folder),
        "seed": seed,
        "device": "cpu",
        "eval_freq": 0,
    }


def _evaluate(run: Run, data: Any, episodes: int) -> dict[str, Any]:
    """Evaluate the last checkpoint from its file, and write ``results.json`` beside it."""
    from sb3_genoffline.registry import load_agent

    from .runs.envs import env_factory
    from .runs.scoring import evaluate
    from .runs.writing import write_json

    success_rate = run.config()["dataset"]["success_rate"]
    agent = load_agent(run.model_path, device="cpu")
    result = evaluate(agent, env_factory(data), episodes, n_envs=episodes, behavior_success_rate=success_rate)
    write_json(run.model_path.parent / "results.json", result)
    return result | {"mean_length": sum(result["lengths"]) / episodes}


@contextlib.contextmanager
def _imitation(settings: dict[str, Any], episodes: int, folder: Path) -> Iterator[Callable[[], dict[str, Any]]]:
    """
    Train BC in a process of its own.

    :return: a function that waits for it and returns what :func:`_imitate` wrote
    """
    outcome, log = folder / "bc.json", folder / "bc.log"
    outcome.unlink(missing_ok=True)
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=_imitate, args=(settings, episodes, str(outcome), str(log)), daemon=True)
    with shielding_children():
        process.start()

    def wait() -> dict[str, Any]:
        process.join()
        if process.exitcode != 0 or not outcome.is_file():
            last = "\n".join(log.read_text().splitlines()[-20:]) if log.is_file() else "it wrote no log"
            raise RuntimeError(f"Training imitation failed (exit code {process.exitcode}); see {log}:\n{last}")
        return json.loads(outcome.read_text())

    try:
        yield wait
    finally:
        try:
            if process.is_alive():
                process.terminate()  # it saves
            process.join()
        except KeyboardInterrupt:
            process.kill()
            raise


def _imitate(settings: dict[str, Any], episodes: int, outcome: str, log: str) -> None:
    """Train and evaluate BC; what is printed goes to a file."""
    from .runs.stopping import Stopped, stoppable
    from .runs.writing import write_json

    with open(log, "w") as file, contextlib.redirect_stdout(file), contextlib.redirect_stderr(file), _threads(1):
        try:
            with stoppable(child=True):
                data = load_dataset(DATASET)
                run, rate = _train(IMITATION, data, settings | {"profile": IMITATION_PROFILE}, progress=False, verbose=1)
                result = _evaluate(run, data, episodes)
        except Stopped as stop:
            print(stop)
            sys.exit(stop.code)
        except BaseException:
            traceback.print_exc()
            raise
    write_json(Path(outcome), {"model_path": str(run.model_path), "result": result, "updates_per_second": rate})


@contextlib.contextmanager
def _stage(name: str, seconds: dict[str, float], text: str, verbose: bool) -> Iterator[None]:
    """Announce and time a stage."""
    if verbose:
        print(f"\n== {text}", flush=True)
    started = time.perf_counter()
    yield
    seconds[name] = time.perf_counter() - started


@contextlib.contextmanager
def _threads(number: int) -> Iterator[None]:
    """Let torch use so many threads: two trainings of small nets share a machine best with one each."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def _data_below(folder: Path) -> Iterator[None]:
    """Keep datasets and their cache in a folder, for this process and those it starts."""
    places = {"MINARI_DATASETS_PATH": folder / "minari", "SB3_GENOFFLINE_CACHE": folder / "cache"}
    before = {name: os.environ.get(name) for name in places}
    os.environ.update({name: str(place.resolve()) for name, place in places.items()})
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def resuming(command: str) -> str:
    """:param command: of this process; beside it stands what was typed if make started it"""
    _, _, words = command.partition(" quickstart")
    if not os.environ.get("MAKELEVEL"):
        return command
    return f"""make quickstart{f' ARGS="{words.strip()}"' if words.strip() else ""} (or, in .venv, {command})"""


def show(result: dict[str, Any], path: Path) -> None:
    """Print the outcome as a small table."""
    names = {"the data": "behavior_", "imitation (BC)": "bc_", "DAC": ""}
    rows = [
        (name, *(result.get(prefix + key) for key in ("normalized_score", "normalized_score_ci95", "mean_length")))
        for name, prefix in names.items()
    ]
    episodes = f"{result['n_eval_episodes']} episodes, last checkpoint, seed {result['seed']}"
    print(f"\n{result['dataset']}: share that arrives ({episodes}); the data's arrivals all start halfway")
    cells = [
        (name, f"{score:.1f}%", f"{ci[0]:.1f} to {ci[1]:.1f}" if ci else "", f"{length:.0f}")
        for name, score, ci, length in rows
    ]
    try:
        from rich.console import Console
        from rich.table import Table

        table = Table("policy", "arrives", "95% of the mean", "steps of an episode")
        for row in cells:
            table.add_row(*row)
        Console().print(table)
    except ImportError:
        for name, score, interval, length in cells:
            print(f"  {name:16}{score:>8}  {interval:16}{length:>6} steps")
    times = ", ".join(f"{name} {value:.0f} s" for name, value in result["seconds"].items())
    print(f"{result['gradient_steps']:,} updates at {result['updates_per_second']:.0f}/s; {times}")
    for name, file in {**result["files"], "results": path}.items():
        print(f"{name:9}{file}")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """:param parser: takes the flags of ``python -m zoo quickstart``"""
    add = parser.add_argument
    add("--smoke", action="store_true", help="tiny sizes and a dataset of its own: tests the way in a minute, learns nothing")
    add("-f", "--log-folder", type=new_folder, default="logs/quickstart", help="where everything is written")
    add("--seed", type=seed_number, default=0, help="seed of both trainings")


def main(args: argparse.Namespace) -> None:
    """:param args: as parsed with :func:`add_arguments`"""
    from .runs.provenance import command_line
    from .runs.stopping import advised

    folder = Path(args.log_folder)
    try:
        if not args.smoke:
            quickstart(folder, args.seed)
            return
        with _data_below(folder):
            quickstart(folder, args.seed, SMOKE)
    except KeyboardInterrupt as stop:
        raise advised(stop, f"to resume, run the same command: {resuming(command_line())}") from None
