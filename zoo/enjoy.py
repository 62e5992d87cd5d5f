"""Watch a trained agent, or film it to mp4 without a display or a system ffmpeg."""

import argparse
import os
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

from .runs.agents import add_agent_arguments, agent_and_env
from .runs.envs import env_for_pictures
from .runs.film import Play, RenderingError, film, play
from .runs.flags import film_file, pixels, positive, seed_number


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """:param parser: takes the flags of ``python -m zoo enjoy``"""
    add_agent_arguments(parser)
    add = parser.add_argument
    add(
        "-n",
        "--n-timesteps",
        "--video-length",
        type=positive,
        default=1000,
        help="environment steps to play or film",
    )
    how = parser.add_mutually_exclusive_group().add_argument
    how("--video", type=film_file, metavar="MP4", help="film to this file instead of opening a window")
    how("--no-render", action="store_true", help="only print the episodes")
    add("--fps", type=positive, default=25, help="frames per second of the film")
    add("--width", type=pixels, default=320, help="width of the film")
    add("--height", type=pixels, default=240, help="height of the film")
    add("--seed", type=seed_number, default=0, help="seed of the first episode")


def main(args: argparse.Namespace) -> None:
    """:param args: as parsed with :func:`add_arguments`"""
    model, make, path, checkpoint = agent_and_env(args)
    common: dict[str, Any] = {"seed": args.seed, "deterministic": args.deterministic}
    if args.video:
        played = film(model, make, args.video, args.n_timesteps, fps=args.fps, width=args.width, height=args.height, **common)
    elif args.no_render:
        played = play(model, make(), args.n_timesteps, **common)
    elif os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY") or sys.platform in ("win32", "darwin"):
        played = play(model, env_for_pictures(make, "human", args.width, args.height), args.n_timesteps, **common)
    else:
        raise RenderingError("There is no display to open a window on: use --video film.mp4, or --no-render.")
    for line in report(played):
        print(line)
    if args.video:
        print(f"wrote {args.video}: {played.n_frames} pictures of {path} ({checkpoint}) in {played.seconds:.1f} s")


def report(played: Play) -> Iterator[str]:
    """A line per episode, and their mean."""
    for number, (total, length) in enumerate(zip(played.returns, played.lengths, strict=True), start=1):
        yield f"episode {number}: return {total:.1f}, {length} steps"
    if played.returns:
        yield f"{len(played.returns)} episode{'s' * (len(played.returns) > 1)}, mean return {np.mean(played.returns):.1f}"
    else:
        yield f"no episode ended within {played.n_steps} steps"
