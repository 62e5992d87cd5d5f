"""Datasets from Minari, in any of its storages."""

import difflib
import functools
import hashlib
import json
import os
import re
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces

from sb3_genoffline.data.dataset import OfflineDataset
from sb3_genoffline.data.environments import GivenEnv, make_from_spec, recorded, resolve_env, spec_from_json
from sb3_genoffline.data.flattening import flat_observation_space, flatten_observations, spaces_differ
from sb3_genoffline.data.reading.bounds import check_storage
from sb3_genoffline.data.reading.cache import built_in_memory, cached_arrays
from sb3_genoffline.data.reading.columns import Columns
from sb3_genoffline.data.scores import check_reference
from sb3_genoffline.data.validation import check_action_space, lossy_columns, numeric_array, warn_of_lost_digits
from sb3_genoffline.errors import DownloadError, NotFoundError, UserError, printable
from sb3_genoffline.files.nearby import near_files
from sb3_genoffline.files.untrusted import short
from sb3_genoffline.program import PROGRAM

_SPACES = ("observation_space", "action_space")
_ID = re.compile(r"(?:[-\w]{2,}/)*[-\w]+-v\d+")


class NoSuchDatasetError(NotFoundError):
    """An id that no dataset on this machine has, or that no dataset can have."""


def is_dataset_id(text: Any) -> bool:
    """Whether it has the form of a dataset's id, so that it is no path."""
    return isinstance(text, str) and _ID.fullmatch(text) is not None


def from_minari_id(
    dataset_id: str, download: bool = False, cache: bool = True, env: Any = None, trust_env: bool = False
) -> OfflineDataset:
    """
    :param dataset_id: ``(namespace/)*name-v<number>``.
    :param download: Fetch it from Minari's remote if it is not on this machine.
    :param cache: Use the flat cache.
    :param env: As in :func:`from_minari`.
    :param trust_env: Likewise.
    :raises NotFoundError: For a malformed id, or if it is not on this machine; names the nearest ones and how to get it.
    :raises UserError: For a damaged dataset.
    :raises DownloadError: If the download fails.
    """
    if not is_dataset_id(dataset_id):
        raise NoSuchDatasetError(
            f"{short(dataset_id)} is neither a file nor a dataset id; ids look like mujoco/hopper/medium-v0: namespaces of "
            f"two or more characters, a name, and a version -v<number>{near_files(dataset_id)}{_suggest(dataset_id)}"
        )
    folder = _root() / dataset_id
    fetched = download and not (folder / "data").exists()
    if fetched:
        _download(dataset_id, folder)
    try:
        dataset = from_minari(open_minari(dataset_id, env, trust_env), cache, env, trust_env)
    except _DamagedError as error:
        if not fetched:
            raise
        shutil.rmtree(folder)
        raise DownloadError(f"{dataset_id} arrived damaged and was removed again: repeat the download.") from error
    return dataset if dataset.id == dataset_id else dataset.replace(id=dataset_id)  # whatever its metadata call it


def _root() -> Path:
    """Where Minari's datasets are on this machine."""
    if "MINARI_DATASETS_PATH" not in os.environ and os.path.expanduser("~").startswith("~"):
        raise UserError(
            "This user has no home folder (HOME is not set), where Minari looks for datasets: set MINARI_DATASETS_PATH to the "
            "folder that holds them."
        )
    import minari

    # absolute: below a relative root Minari does not find the files whose sizes it adds up
    return Path(minari.storage.datasets_root_dir.get_dataset_path("")).absolute()


def _download(dataset_id: str, folder: Path) -> None:
    """Fetch it whole or not at all; nothing of it is opened. Its data are not there yet."""
    import minari

    try:
        minari.download_dataset(dataset_id)
    except BaseException as error:
        shutil.rmtree(folder, ignore_errors=True)
        if not isinstance(error, Exception):
            raise
        raise DownloadError(
            f"{dataset_id} could not be downloaded: {type(error).__name__}: {error}. Check the id and the network "
            f"(MINARI_REMOTE sets another remote).{_suggest(dataset_id)}"
        ) from error
    if not (folder / "data").exists():
        raise DownloadError(f"{dataset_id} could not be downloaded: nothing arrived.{_suggest(dataset_id)}")


def open_minari(dataset_id: str, env: Any = None, trust_env: bool = False) -> Any:
    """
    Minari itself builds the environment that metadata record where a space is missing; so the storage is opened here.

    :param dataset_id: of a dataset on this machine
    :param env: As in :func:`from_minari`.
    :param trust_env: Likewise.
    :return: The ``minari.MinariDataset``; its episodes are not read yet.
    """
    from minari import MinariDataset
    from minari.dataset._storages import get_minari_storage
    from minari.serialization import deserialize_space

    folder = _root() / dataset_id / "data"
    if not folder.exists():
        how = "download=True fetches it if Minari's remote has it"
        if dataset_id.startswith("genoffline/"):
            how = f"`{PROGRAM} collect {dataset_id}` makes it if it is one that `{PROGRAM} datasets` lists"
        elif re.fullmatch(r"[a-z0-9]+(-[a-z]+)+-v\d", dataset_id):
            how = f"if it is D4RL's, load its file, as load_dataset('{dataset_id}.hdf5'); Minari's have other names"
        raise NoSuchDatasetError(f"The dataset {dataset_id} is not on this machine; {how}.{_suggest(dataset_id)}")
    try:
        metadata = dict(json.loads((folder / "metadata.json").read_text()))
        found = {name: deserialize_space(metadata[name]) if name in metadata else None for name in _SPACES}
    except Exception as error:  # whatever a damaged description raises
        raise _damaged(dataset_id, error) from error
    if None in found.values():
        given = _env_of_spaces(dataset_id, metadata, [name for name, space in found.items() if space is None], env, trust_env)
        found = {name: getattr(given, name) if space is None else space for name, space in found.items()}
    try:
        encoded = bool(metadata.get("jpeg_encoding", True))
        storage = get_minari_storage(metadata["data_format"])(
            folder, *(found[name] for name in _SPACES), jpeg_encoding=encoded
        )
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*Gym.*", category=DeprecationWarning)
            return MinariDataset(storage)
    except Exception as error:
        if isinstance(error, ImportError):
            raise  # a missing pyarrow: Minari says what to install
        if "does not support the dataset" in str(error):
            raise UserError(f"{dataset_id} can't be read by the Minari that is installed: {error}") from error
        raise _damaged(dataset_id, error) from error


def _env_of_spaces(dataset_id: str, metadata: dict[str, Any], missing: list[str], env: Any, trust_env: bool) -> GivenEnv:
    """The environment that has the spaces that metadata lack: the user's, else the recorded one if it may be made."""
    if env is not None:
        return resolve_env(env)
    problem = f"The metadata of {dataset_id} have no {' and no '.join(missing)}"
    spec = spec_from_json(metadata.get("env_spec"), dataset_id, trust_env)
    if spec is None:
        raise UserError(f"{problem}, and record no environment that has one: give it, load_dataset(..., env=<environment>).")
    try:
        made = make_from_spec(spec)
    except Exception as error:  # whatever an environment's constructor raises
        raise UserError(f"{problem}, and the environment that has one is not made: {error}") from error
    given = GivenEnv(made.observation_space, made.action_space, spec, True)
    made.close()
    return given


def from_minari(dataset: Any, cache: bool = True, env: Any = None, trust_env: bool = False) -> OfflineDataset:
    """
    :param dataset: A ``minari.MinariDataset``; of a filtered one, its episodes only.
    :param cache: Use the flat cache.
    :param env: Environment whose action space is taken where the dataset's has no finite bounds, and whose spaces where its
        metadata have none.
    :param trust_env: Take the environments that its metadata record for one's own.
    :return: Its transitions. An episode that ends without termination is marked truncated at its last row. Reference scores
        come from the metadata, else from the bundled table.
    :raises UserError: For discrete or image spaces, a damaged storage, an episode whose arrays do not fit together, no data.
    """
    observation_space = flat_observation_space(dataset.observation_space)
    action_space = _bounded(dataset.action_space, env)
    check_action_space(action_space)
    indices = np.asarray(dataset.episode_indices, dtype=np.int64)
    files = [path for path in Path(dataset.storage.data_path).rglob("*") if path.is_file()]
    read = functools.partial(_read_episodes, dataset, files)

    def described(arrays: Mapping[str, Any], **more: Any) -> OfflineDataset:
        return OfflineDataset(**arrays, observation_space=observation_space, action_space=action_space, **more)

    if cache:
        whole = np.array_equal(indices, np.arange(dataset.storage.total_episodes))
        variant = "" if whole else hashlib.sha256(indices.tobytes()).hexdigest()
        if action_space is not dataset.action_space:
            variant += f" {action_space.low.tolist()} {action_space.high.tolist()}"
        arrays = cached_arrays(dataset.id, files, read, variant, check=described)
    else:
        arrays = built_in_memory(read)
    low, high = _reference(dataset)
    return described(
        arrays,
        id=dataset.id,
        env_spec=recorded(dataset.env_spec, trust_env),
        eval_env_spec=recorded(getattr(dataset, "_eval_env_spec", None), trust_env),
        ref_min_score=low,
        ref_max_score=high,
    )


def _bounded(space: Any, env: Any) -> Any:
    """The action space of a dataset, or that of the user's environment if only this one has finite bounds and they fit."""
    if env is None or not isinstance(space, spaces.Box) or space.is_bounded():
        return space
    given = resolve_env(env).action_space
    return given if spaces_differ(space, given) is None else space


def _reference(dataset: Any) -> tuple[float | None, float | None]:
    """The reference scores of the metadata; none, with a warning, if no score can be normalised with them."""
    low, high = (dataset.storage.metadata.get(name) for name in ("ref_min_score", "ref_max_score"))
    try:
        return check_reference(low, high)
    except UserError as error:
        name = printable(dataset.id)
        warnings.warn(f"The metadata of {name} have no usable scale of scores, which is left out: {error}", stacklevel=3)
        return None, None


def _read_episodes(dataset: Any, files: list[Path], columns: Columns) -> None:
    """All transitions as flat arrays, episode by episode."""
    try:
        check_storage(files)
    except (OSError, KeyError, RuntimeError) as error:
        raise _damaged(dataset.id, error) from error
    lengths: list[int] = []
    n_coarse, coarsest = 0, np.empty(0)  # episodes whose observations float32 does not hold, and the longest of them
    try:
        for episode in dataset.storage.get_episodes(dataset.episode_indices):
            length = len(episode["rewards"])
            if length == 0:
                continue
            observations = _add_episode(columns, episode, dataset, length)
            if len(lossy_columns(observations)):
                n_coarse, coarsest = n_coarse + 1, max(coarsest, observations, key=len)
            lengths.append(length)
        announced = dataset.total_steps
    except UserError:
        raise
    except (OSError, KeyError, RuntimeError, AssertionError, ValueError, TypeError) as error:
        raise _damaged(dataset.id, error) from error
    if not lengths:
        raise UserError(f"The dataset {dataset.id} is empty: it holds no transition. At least one is needed.")
    if 2 * n_coarse >= len(lengths):
        warn_of_lost_digits(f"observations of {dataset.id}", coarsest)
    if sum(lengths) != announced:
        warnings.warn(
            f"The metadata of {printable(dataset.id)} announce {announced} steps, but its storage holds "
            f"{sum(lengths)}; what the storage holds is used.",
            stacklevel=2,
        )
    columns.add("episode_ends", np.cumsum(lengths))


def _add_episode(columns: Columns, episode: dict[str, Any], dataset: Any, length: int) -> np.ndarray:
    """Append the rows of one episode of ``length`` steps; returns its ``length + 1`` observations as they were stored."""
    where = f"episode {episode['id']} of {dataset.id}"
    stored = flatten_observations(dataset.observation_space, episode["observations"], f"observations of {where}")
    arrays = {
        name: numeric_array(f"{name} of {where}", episode[name])
        for name in ("actions", "rewards", "terminations", "truncations")
    }
    for name, array, expected in [("observations", stored, length + 1), *((n, a, length) for n, a in arrays.items())]:
        if len(array) != expected:
            raise UserError(
                f"{name} of {where} has {len(array)} rows, but {expected} are expected: an episode of {length} steps has "
                f"{length + 1} observations. Remove or record the episode again."
            )
    with np.errstate(over="ignore"):
        observations = stored.astype(np.float32)
        columns.add("actions", arrays["actions"].astype(np.float32, copy=False))
        columns.add("rewards", arrays["rewards"].astype(np.float32, copy=False))
    truncations = arrays["truncations"].astype(np.bool_)
    truncations[-1] |= not arrays["terminations"][-1]
    columns.add("observations", observations[:-1])
    columns.add("next_observations", observations[1:])
    columns.add("terminations", arrays["terminations"].astype(np.bool_))
    columns.add("truncations", truncations)
    return stored


class _DamagedError(UserError):
    """The files of a dataset can't be read."""


def _damaged(dataset_id: str, error: Exception) -> _DamagedError:
    return _DamagedError(
        f"The files of the dataset {dataset_id} are truncated or damaged ({type(error).__name__}: {error}). "
        "Delete it (minari.delete_dataset) and download or collect it again."
    )


def local_ids() -> list[str]:
    """The ids of Minari's datasets on this machine, for the text of an error: none if they can't be listed."""
    try:
        _root()
        import minari

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return list(minari.list_local_datasets())
    except Exception:  # a broken dataset folder must not hide the error being reported
        return []


def _suggest(dataset_id: str) -> str:
    """The ids on this machine nearest to this one, as a sentence."""
    close = difflib.get_close_matches(dataset_id, local_ids(), n=3, cutoff=0.5)
    return f" Nearest on this machine: {', '.join(close)}." if close else ""
