"""A dataset by its name: on this machine, fetched, or collected now."""

from typing import Any

from sb3_genoffline.data import OfflineDataset, load_dataset
from sb3_genoffline.errors import NotFoundError


def find_dataset(
    source: str, download: bool = False, collect: bool = False, env: Any = None, trust_env: bool = False
) -> OfflineDataset:
    """
    :param source: Minari id or file
    :param download: fetch it from Minari's remote if it is not here
    :param collect: make it if it is one of ours and not here
    :param env: the user's environment, which has the spaces that the data lack, or an agent's two spaces
    :param trust_env: trust the environments that the data record, whatever code they name
    """
    try:
        return load_dataset(source, download=download, env=env, trust_env=trust_env)
    except FileNotFoundError as error:
        from ..recipes import collectible
        from .make import collect as collect_dataset

        ours = source in collectible()
        if not (collect and ours):
            flag = "the flag --collect does it now" if ours else "the flag of train is --download"
            raise NotFoundError(f"{error} ({flag})") from error
    print(f"collecting {source} ...", flush=True)
    collect_dataset(source)
    return load_dataset(source, env=env)
