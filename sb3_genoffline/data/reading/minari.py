"""Datasets from Minari, in any of its storages."""

import difflib
import hashlib
import re
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from sb3_genoffline.data.dataset import OfflineDataset
from sb3_genoffline.data.flattening import flat_observation_space, flatten_observations
from sb3_genoffline.data.reading.cache import Arrays, cached_arrays
from sb3_genoffline.data.scores import check_reference
from sb3_genoffline.data.validation import check_action_space, numeric_array
from sb3_genoffline.errors import DownloadError, NotFoundError, UserError

_ID = re.compile(r"(?:[-\w]{2,}/)*[-\w]+-v\d+")


def from_minari_id(dataset_id: str, download: bool = False, cache: bool = True) -> OfflineDataset:
    """
    :param dataset_id: ``(namespace/)*name-v<number>``.
    :param download: Fetch it from Minari's remote if it is not on this machine.
    :param cache: Use the flat cache.
    :raises UserError: For a malformed id, naming the nearest ones, or a damaged dataset.
    :raises NotFoundError: If it is not on this machine, naming the nearest ids and how to get it.
    :raises DownloadError: If the download fails.
    """
    import minari

    if not _ID.fullmatch(dataset_id):
        raise UserError(
            f"{dataset_id!r} is neither a file nor a dataset id; ids look like mujoco/hopper/medium-v0: namespaces of two or "
            f"more characters, a name, and a version -v<number>.{_suggest(dataset_id)}"
        )
    folder = Path(minari.storage.datasets_root_dir.get_dataset_path(dataset_id))
    fetched = download and not (folder / "data").exists()
    try:
        return from_minari(_open(dataset_id, download), cache)
    except _DamagedError as error:
        if not fetched:
            raise
        shutil.rmtree(folder)
        raise DownloadError(f"{dataset_id} arrived damaged and was removed again: repeat the download.") from error


def _open(dataset_id: str, download: bool) -> Any:
    """The ``minari.MinariDataset``; its episodes are not read yet."""
    import minari

    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*Gym.*", category=DeprecationWarning)
            return minari.load_dataset(dataset_id, download=download)
    except FileNotFoundError as error:
        if download:
            raise DownloadError(f"{dataset_id} could not be downloaded: {error}") from error
        how = "download=True fetches it if Minari's remote has it"
        if dataset_id.startswith("genoffline/"):
            how = f"`python -m zoo collect {dataset_id}` makes it"
        raise NotFoundError(f"The dataset {dataset_id} is not on this machine; {how}.{_suggest(dataset_id)}") from error
    except Exception as error:
        if download and not (minari.storage.datasets_root_dir.get_dataset_path(dataset_id) / "data").exists():
            raise DownloadError(
                f"{dataset_id} could not be downloaded: {type(error).__name__}: {error}. Check the id and the network "
                f"(MINARI_REMOTE sets another remote).{_suggest(dataset_id)}"
            ) from error
        if isinstance(error, ImportError) or "does not support the dataset" in str(error):
            raise  # a missing pyarrow, another Minari version: Minari says what to install
        raise _damaged(dataset_id, error) from error


def from_minari(dataset: Any, cache: bool = True) -> OfflineDataset:
    """
    :param dataset: A ``minari.MinariDataset``; of a filtered one, its episodes only.
    :param cache: Use the flat cache.
    :return: Its transitions. An episode that ends without termination is marked truncated at its last row. Reference scores
        come from the metadata, else from the bundled table.
    :raises UserError: For discrete or image spaces, a damaged storage, an episode whose arrays do not fit together, no data.
    """
    observation_space = flat_observation_space(dataset.observation_space)
    check_action_space(dataset.action_space)
    indices = np.asarray(dataset.episode_indices, dtype=np.int64)
    if cache:
        whole = np.array_equal(indices, np.arange(dataset.storage.total_episodes))
        variant = "" if whole else hashlib.sha256(indices.tobytes()).hexdigest()
        files = [path for path in Path(dataset.storage.data_path).rglob("*") if path.is_file()]
        arrays: dict[str, Any] = cached_arrays(dataset.id, files, lambda: _read_episodes(dataset), variant)
    else:
        arrays = _read_episodes(dataset)
    low, high = _reference(dataset)
    return OfflineDataset(
        **arrays,
        observation_space=observation_space,
        action_space=dataset.action_space,
        id=dataset.id,
        env_spec=dataset.env_spec,
        eval_env_spec=getattr(dataset, "_eval_env_spec", None),
        ref_min_score=low,
        ref_max_score=high,
    )


def _reference(dataset: Any) -> tuple[float | None, float | None]:
    """The reference scores of the metadata; none, with a warning, if no score can be normalised with them."""
    low, high = (dataset.storage.metadata.get(name) for name in ("ref_min_score", "ref_max_score"))
    try:
        check_reference(low, high)
    except UserError as error:
        warnings.warn(f"The metadata of {dataset.id} hold no scale of scores and are not used for one: {error}", stacklevel=3)
        return None, None
    return low, high


def _read_episodes(dataset: Any) -> Arrays:
    """All transitions as flat read-only arrays; checked by building a dataset of them."""
    columns: dict[str, list[np.ndarray]] = {name: [] for name in ("observations", "actions", "rewards", "next_observations")}
    columns |= {"terminations": [], "truncations": []}
    lengths = []
    try:
        for episode in dataset.storage.get_episodes(dataset.episode_indices):
            length = len(episode["rewards"])
            if length == 0:
                continue
            _add_episode(columns, episode, dataset, length)
            lengths.append(length)
    except (OSError, KeyError, RuntimeError, AssertionError) as error:
        raise _damaged(dataset.id, error) from error
    if not lengths:
        raise UserError(f"The dataset {dataset.id} is empty: it holds no transition. At least one is needed.")
    if sum(lengths) != dataset.total_steps:
        warnings.warn(
            f"The metadata of {dataset.id} speak of {dataset.total_steps} steps, but its storage holds {sum(lengths)}; "
            "what the storage holds is used.",
            stacklevel=2,
        )
    rows: dict[str, Any] = {name: np.concatenate(parts) for name, parts in columns.items()}
    checked = OfflineDataset(
        **rows,
        observation_space=flat_observation_space(dataset.observation_space),
        action_space=dataset.action_space,
        episode_ends=np.cumsum(lengths),
    )
    return {name: getattr(checked, name) for name in (*columns, "episode_ends")}


def _add_episode(columns: dict[str, list[np.ndarray]], episode: dict[str, Any], dataset: Any, length: int) -> None:
    """Append the rows of one episode of ``length`` steps, which has ``length + 1`` observations."""
    where = f"episode {episode['id']} of {dataset.id}"
    observations = flatten_observations(dataset.observation_space, episode["observations"], f"observations of {where}")
    arrays = {
        name: numeric_array(f"{name} of {where}", episode[name])
        for name in ("actions", "rewards", "terminations", "truncations")
    }
    for name, array, expected in [("observations", observations, length + 1), *((n, a, length) for n, a in arrays.items())]:
        if len(array) != expected:
            raise UserError(
                f"{name} of {where} has {len(array)} rows, but {expected} are expected: an episode of {length} steps has "
                f"{length + 1} observations. Remove or record the episode again."
            )
    with np.errstate(over="ignore"):
        observations = observations.astype(np.float32)
    truncations = arrays["truncations"].astype(np.bool_)
    truncations[-1] |= not arrays["terminations"][-1]
    columns["observations"].append(observations[:-1])
    columns["next_observations"].append(observations[1:])
    columns["actions"].append(arrays["actions"])
    columns["rewards"].append(arrays["rewards"])
    columns["terminations"].append(arrays["terminations"].astype(np.bool_))
    columns["truncations"].append(truncations)


class _DamagedError(UserError):
    """The files of a dataset can't be read."""


def _damaged(dataset_id: str, error: Exception) -> _DamagedError:
    return _DamagedError(
        f"The files of the dataset {dataset_id} are truncated or damaged ({type(error).__name__}: {error}). "
        "Delete it (minari.delete_dataset) and download or collect it again."
    )


def _suggest(dataset_id: str) -> str:
    """The ids on this machine nearest to this one, as a sentence."""
    import minari

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            local = list(minari.list_local_datasets())
    except Exception:  # a broken dataset folder must not hide the error being reported
        return ""
    close = difflib.get_close_matches(dataset_id, local, n=3, cutoff=0.5)
    return f" Nearest on this machine: {', '.join(close)}." if close else ""
