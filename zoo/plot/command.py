"""Draw `curves`, the `bandit`, QDQ's `uncertainty`, CPED's `density`, a `maze`, `plans`, a `sweep`, or two codes `beside`."""

import argparse
from typing import Any


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """:param parser: takes the flags of ``python -m zoo plot``"""
    from . import bandit, beside, curves, density, maze, plans, sweep, uncertainty

    modules: dict[str, Any] = {"curves": curves, "bandit": bandit, "uncertainty": uncertainty, "density": density}
    modules |= {"maze": maze, "plans": plans, "sweep": sweep, "beside": beside}
    what = parser.add_subparsers(dest="what", required=True, metavar=f"{{{','.join(modules)}}}")
    for name, module in modules.items():
        child = what.add_parser(name, help=(module.__doc__ or "").partition("\n")[0], description=module.__doc__)
        module.add_arguments(child)
        child.set_defaults(run=module.main)


def main(args: argparse.Namespace) -> None:
    """:param args: as parsed with :func:`add_arguments`"""
    args.run(args)
