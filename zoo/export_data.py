"""
Write a dataset as one HDF5 file in D4RL's layout, which D4RL's loaders and codes that are built on them read: there, under the
name of D4RL's own file in the folder that D4RL_DATASET_DIR names. `load_dataset(FILE)` gives the dataset back.
"""

import argparse
from pathlib import Path

from sb3_genoffline.data import export_hdf5
from sb3_genoffline.errors import ExistsError, printable

from .collect.lookup import find_dataset
from .runs.agents import add_trust_argument
from .runs.flags import hdf5_file


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """:param parser: takes the flags of ``python -m zoo export-data``"""
    add = parser.add_argument
    add("dataset", help="Minari id, or a file: .hdf5 in D4RL's layout, .npz")
    add("-o", "--output", type=hdf5_file, required=True, help="file to write, .hdf5")
    add("--env", help="environment whose spaces the data have, for files without spaces")
    add("--collect", action="store_true", help="make it if it is one of ours and not here")
    add("--download", action="store_true", help="fetch a Minari dataset that is not on this machine")
    add("--overwrite", action="store_true", help="replace a file that is there")
    add_trust_argument(parser)


def main(args: argparse.Namespace) -> None:
    """:param args: as parsed with :func:`add_arguments`"""
    if Path(args.output).is_file() and not args.overwrite:
        raise ExistsError(f"{printable(args.output)} exists already: --overwrite replaces it.")
    data = find_dataset(args.dataset, args.download, args.collect, args.env, args.trust_env)
    file = export_hdf5(data, args.output, args.overwrite)
    n_rows, n_episodes = len(data.rewards), len(data.episode_ends)
    print(f"wrote {file}: {n_rows:,} steps in {n_episodes:,} episodes, {file.stat().st_size / 1e6:.1f} MB")
