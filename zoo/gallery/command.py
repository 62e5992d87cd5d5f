"""
Write the results of a checkout as a static site: leaderboards, datasets, agents with films, ablations, speed.

The folder needs no network and no server: open its `index.html`, or put it on any web server.
"""

from __future__ import annotations

import argparse

from ..runs.flags import a_folder, new_folder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """:param parser: takes the flags of ``python -m zoo gallery``"""
    add = parser.add_argument
    add("-o", "--output", type=new_folder, default="site", help="folder of the site; a gallery that is there is replaced")
    add("--benchmarks", type=a_folder, default="zoo/benchmarks", metavar="DIR", help="of plans NAME.yml with NAME/records")
    add("--agents", type=a_folder, default="hub_models", metavar="DIR", help="with a published agent per folder")
    add(
        "--datasets",
        type=a_folder,
        default="zoo/figures/datasets",
        metavar="DIR",
        help="with what `python -m zoo inspect --json FILE.json -o FILE.png` wrote of each dataset",
    )
    add("--pages", type=a_folder, default=".", metavar="DIR", help="the checkout whose pages have ablations and speeds")


def main(args: argparse.Namespace) -> None:
    """:param args: as parsed with :func:`add_arguments`"""
    from .contents import read_contents
    from .site import write_site

    contents = read_contents(args.benchmarks, args.agents, args.datasets, args.pages)
    for missing in contents.missing:
        print(f"left out: {missing}")
    print(f"wrote {write_site(contents, args.output)}")
