"""
Write a trained agent as an ONNX file: raw observations in, actions in the environment's units out, without this library and
without PyTorch. Compares the file's actions with the agent's, and times both.
"""

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch as th

from sb3_genoffline.deploy.draws import BATCH, KINDS, NORMAL
from sb3_genoffline.errors import UserError, printable
from sb3_genoffline.files.untrusted import short

from .runs.agents import add_agent_arguments, agent_and_env
from .runs.envs import NoEnvironment
from .runs.flags import json_file, onnx_file, positive
from .runs.provenance import processor, versions
from .runs.writing import write_json

TIMED_SECONDS = 1.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """:param parser: takes the flags of ``python -m zoo export``"""
    add_agent_arguments(parser)
    add = parser.add_argument
    add("-o", "--output", type=onnx_file, help="file to write (default: the agent's name with .onnx, next to it)")
    add("--batch", type=positive, nargs="+", default=[1], help="observations per timed call (default: 1); several in turn")
    add("--json", type=json_file, metavar="FILE", help="write the times to this file")


def main(args: argparse.Namespace) -> None:
    """:param args: as parsed with :func:`add_arguments`"""
    if args.output and args.json:
        _check_different(args.output, args.json)
    model, make, path, _ = agent_and_env(args)
    output = Path(args.output or path.with_suffix(".onnx"))
    if args.json:
        _check_different(str(output), args.json)
    try:
        model.set_env(make())  # knows the names of Dict observations
    except NoEnvironment as error:
        if args.env is not None:
            raise
        print(f"Without an environment, which only names parts of Dict observations: {printable(str(error))}")
    print(f"writing {output} (seconds; minutes for a planner, whose guide's gradients go into the file)", flush=True)
    file = model.export_onnx(output, deterministic=args.deterministic)
    print(f"wrote {file}: {file.stat().st_size / 1024:.0f} KiB, acts as predict(deterministic={args.deterministic})")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    notes = json.loads(session.get_modelmeta().custom_metadata_map["inputs"])
    for each in [*session.get_inputs(), *session.get_outputs()]:
        print(f"  {printable(each.name):28}{' × '.join(map(str, each.shape)):24}{notes.get(each.name, 'output')}")
    record: dict[str, Any] = {
        "agent": path.stem,
        "processor": processor(),
        "versions": versions() | {"onnxruntime": onnxruntime.__version__},
        "ms": {},
    }
    for batch in args.batch:
        observations = np.zeros((batch, model.policy.state_dim), np.float32)
        ways: dict[str, Callable[[], Any]] = {
            "predict": partial(model.predict, observations, deterministic=args.deterministic),
            "onnxruntime": partial(act_at_zero, session, batch, np.random.default_rng(0)),
        }
        for name, seconds in call_times(ways).items():
            usual, fastest = 1e3 * median(seconds), 1e3 * min(seconds)
            print(f"{name:12}{usual:8.3f} ms a call of {batch} observation(s) on one thread, {fastest:.3f} ms the fastest")
            record["ms"].setdefault(str(batch), {})[name] = {"median": usual, "fastest": fastest}
    if args.json:
        write_json(Path(args.json), record)
        print(f"wrote {args.json}")


def _check_different(output: str, times: str) -> None:
    """:raises UserError: if the agent's file, which ends in .onnx whatever is asked for, is that of the times too"""
    file, other = Path(output), Path(times)
    file = file if file.suffix == ".onnx" else file.with_name(f"{file.name}.onnx")
    is_one = file.resolve() == other.resolve() or (file.is_file() and other.is_file() and file.samefile(other))
    if is_one:
        raise UserError(f"-o {short(output)} and --json {short(times)} are one file, {short(str(file))}: give two names.")


def act_at_zero(session: Any, batch: int, rng: np.random.Generator) -> Any:
    """
    Actions for observations that are 0, the random numbers drawn included.

    :param session: onnxruntime's, of a file of ours
    :param batch: number of observations
    :param rng: draws the random numbers
    """
    inputs = {}
    for given in session.get_inputs():
        shape = [batch if size == BATCH else size for size in given.shape]
        kind = given.name.partition("_")[0]
        draw: Callable[..., Any] = rng.standard_normal if kind == NORMAL else rng.random if kind in KINDS else np.zeros
        inputs[given.name] = draw(shape, dtype=np.float32)
    return session.run(["action"], inputs)[0]


def call_times(ways: dict[str, Callable[[], Any]]) -> dict[str, list[float]]:
    """
    Seconds of each call, on one thread.

    :param ways: to act, which take turns
    """
    threads = th.get_num_threads()
    th.set_num_threads(1)
    times: dict[str, list[float]] = {name: [] for name in ways}
    try:
        end = time.perf_counter() + TIMED_SECONDS
        while time.perf_counter() < end or len(times[next(iter(ways))]) < 3:
            for name, act in ways.items():
                start = time.perf_counter()
                act()
                times[name].append(time.perf_counter() - start)
    finally:
        th.set_num_threads(threads)
    return times
