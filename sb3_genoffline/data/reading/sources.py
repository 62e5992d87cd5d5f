"""One function that turns any source of logged data into an :class:`OfflineDataset`."""

import os
import zipfile
from collections.abc import Mapping
from typing import Any

from sb3_genoffline.data.dataset import OfflineDataset
from sb3_genoffline.data.environments import GivenEnv, check_compatible, resolve_env
from sb3_genoffline.data.reading.arrays import from_arrays
from sb3_genoffline.data.reading.files import from_hdf5, from_npz
from sb3_genoffline.data.reading.minari import from_minari, from_minari_id
from sb3_genoffline.data.reading.paths import expanded
from sb3_genoffline.data.reading.pickled import read_replay_buffer
from sb3_genoffline.data.reading.replay import from_offline_buffer, from_replay_buffer
from sb3_genoffline.errors import UserError

HDF5_SUFFIXES = (".hdf5", ".h5")
SOURCES = (
    "a Minari id or MinariDataset, an HDF5 file in D4RL's layout (.hdf5, .h5), a .npz file, a dict of arrays, "
    "an SB3 ReplayBuffer or the .pkl it was saved in, or an OfflineDataset"
)


def load_dataset(
    source: Any, *, download: bool = False, env: Any = None, cache: bool = True, trust_env: bool = False
) -> OfflineDataset:
    """
    Load logged data from a file, an id, arrays or a replay buffer.

    Row t is one step: ``next_observations[t]`` followed ``actions[t]`` in ``observations[t]``, across episode borders too.
    Dict observations (goal environments) are flattened with their keys in alphabetical order, which is what
    ``gymnasium.wrappers.FlattenObservation`` does; ``dataset.make_env()`` gives an environment that does the same.

    :param source: One of

        - the id of a Minari dataset, or a ``MinariDataset``;
        - the path of an HDF5 file in D4RL's layout (``.hdf5``, ``.h5``), or of a ``.npz`` file with the same keys (``~`` is
          the home folder); :func:`~sb3_genoffline.data.reading.arrays.from_arrays` says what happens at time-outs;
        - a dict of arrays ``observations, actions, rewards, terminations``, optionally ``next_observations, truncations, …``;
        - an SB3 ``ReplayBuffer``, whose actions are taken as scaled to [-1, 1], as SB3 stores them, or the buffer of an agent
          of this library: the dataset it was trained on and the steps it has made since;
        - the path of a replay buffer that SB3 saved (``.pkl``), whose numbers are read without unpickling it;
        - an ``OfflineDataset``, which is returned as it is.
    :param download: Fetch a Minari dataset that is not on this machine.
    :param env: Environment, id or spec. Its spaces are used where the source has none (or actions without finite bounds), else
        they must fit the source's. It takes the place of environments that the source records: ``make_env()`` makes this one.
    :param cache: Keep Minari datasets, and files with more than 1 GiB of arrays, in a flat, memory-mapped cache
        (``$SB3_GENOFFLINE_CACHE`` or ``~/.cache/sb3_genoffline``); rebuilt when the files change. They may be larger than the
        memory; a file then needs ``next_observations``.
    :param trust_env: Trust the environments that a file or Minari's metadata record, whatever code they name. Without it
        ``make_env()`` makes those alone that are registered on this machine and have plain values as arguments.
    :return: The checked dataset.
    :raises UserError: On bad contents, naming the array, the row, the value and the fix.
    :raises NotFoundError: If there is no such file or dataset, naming the nearest.
    :raises UserError: If a dict or file lacks an array.
    :raises UserError: If the source is none of these.
    """
    given = None if env is None else resolve_env(env)
    dataset = _load(source, download, given, cache, trust_env)
    if given is not None:
        check_compatible(dataset, given.observation_space, given.action_space)
        if (given.spec is not None and source is not env) or given.acts:
            dataset = dataset.replace(env_spec=given.spec, eval_env_spec=None)
    return dataset


def _load(source: Any, download: bool, env: GivenEnv | None, cache: bool, trust_env: bool) -> OfflineDataset:
    if isinstance(source, OfflineDataset):
        return source
    if isinstance(source, Mapping):
        return from_arrays(source, env)
    if isinstance(source, str | os.PathLike):
        path = expanded(source)
        suffix = path.suffix.lower()
        if suffix in HDF5_SUFFIXES:
            return from_hdf5(path, env, trust_env, cache)
        if suffix == ".npz":
            return from_npz(path, env, cache)
        if suffix == ".pkl" and path.is_file() and not zipfile.is_zipfile(path):
            return from_replay_buffer(read_replay_buffer(path)).replace(id=path.stem)
        if suffix == ".pkl" or path.name.lower().endswith(".pkl.zip"):
            raise UserError(
                f"{path} is a saved replay buffer of an agent of this library, which holds the steps that it made and not its "
                "dataset: load_replay_buffer(path) on the agent, then load_dataset(model.replay_buffer)."
            )
        if isinstance(source, os.PathLike) or path.is_file():
            raise UserError(
                f"{path} has the suffix {path.suffix!r}; files can be {', '.join(HDF5_SUFFIXES)} or .npz. "
                "Read a CSV or other table with numpy or pandas and pass a dict of arrays (or write them with np.savez and "
                "name the .npz): sb3_genoffline/data/README.md has the code."
            )
        return from_minari_id(str(source), download, cache, env, trust_env)
    if _is_a(source, "minari.dataset.minari_dataset", "MinariDataset"):
        return from_minari(source, cache, env, trust_env)
    if _is_a(source, "sb3_genoffline.data.buffers", "OfflineBuffer"):
        return from_offline_buffer(source)
    if _is_a(source, "stable_baselines3.common.buffers", "ReplayBuffer"):
        return from_replay_buffer(source)
    if _is_a(source, "pandas.core.frame", "DataFrame") or hasattr(source, "to_numpy"):
        raise UserError(
            "A table does not say which of its columns are observations, actions and ends of episodes: take them out into a "
            "dict of arrays, as {'observations': table[[...]].to_numpy(), ...}; sb3_genoffline/data/README.md has the code."
        )
    kind = type(source).__name__
    raise UserError(f"A dataset cannot be loaded from {'an' if kind[0] in 'aeiouAEIOU' else 'a'} {kind}. It can be {SOURCES}.")


def _is_a(value: Any, module: str, name: str) -> bool:
    """``isinstance`` without importing the class's package, which takes a while and is not needed for other sources."""
    return any(base.__module__ == module and base.__name__ == name for base in type(value).__mro__)
