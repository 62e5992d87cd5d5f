"""A dataset by its name: on this machine, fetched, or collected now."""

from typing import Any

from sb3_genoffline.common.arguments import nearest
from sb3_genoffline.data import OfflineDataset, load_dataset
from sb3_genoffline.data.reading.minari import NoSuchDatasetError, is_dataset_id, local_ids
from sb3_genoffline.errors import NotFoundError
from sb3_genoffline.files.nearby import near_files
from sb3_genoffline.files.untrusted import short
from sb3_genoffline.program import PROGRAM

from ..recipes import NAMESPACE, collectible


def find_dataset(
    source: str, download: bool = False, collect: bool = False, env: Any = None, trust_env: bool = False
) -> OfflineDataset:
    """
    :param source: Minari id or file
    :param download: fetch it from Minari's remote if it is not here
    :param collect: make it if it is one of ours and not here
    :param env: the user's environment, which has the spaces that the data lack, or an agent's two spaces
    :param trust_env: trust the environments that the data record, whatever code they name
    :raises NotFoundError: if it is not here, saying what it may have been meant to be, and how to get it
    """
    options: dict[str, Any] = {"env": env, "trust_env": trust_env}
    try:
        return load_dataset(source, **options)
    except NoSuchDatasetError:
        if not is_dataset_id(source) or not ((collect and source in collectible()) or download):
            raise NotFoundError(_why_not(source)) from None
    if collect and source in collectible():
        from .make import collect as collect_dataset

        print(f"collecting {source} ...", flush=True)
        collect_dataset(source)
        return load_dataset(source, **options)
    print(f"{source} is not on this machine: asking Minari's remote for it ...", flush=True)
    return load_dataset(source, download=True, **options)


def _why_not(source: str) -> str:
    """What to tell of a dataset that is not here."""
    if source in collectible():
        return (
            f"The dataset {source} is not on this machine: `{PROGRAM} collect {source}` makes it, and so does the flag "
            "--collect of train."
        )
    near = nearest(source, [*collectible(), *local_ids()])
    if not is_dataset_id(source):
        files = near_files(source)
        near = near if files == "." else files
        return f"{short(source)} is neither a file nor a dataset's id, which looks like mujoco/hopper/medium-v0{near}"
    how = "If Minari's remote has it, the flag --download of train and inspect fetches it."
    if source.startswith(f"{NAMESPACE}/"):
        how = f"`{PROGRAM} datasets` lists those that can be collected."
    return f"The dataset {source} is not on this machine{near} {how}"
