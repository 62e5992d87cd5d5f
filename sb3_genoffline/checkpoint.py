"""Reading an agent of whatever algorithm of ours, from an archive or a folder."""

from pathlib import Path
from typing import Any

import torch as th

from sb3_genoffline.common.envs import EnvLike
from sb3_genoffline.common.offline_algorithm import OfflineAlgorithm
from sb3_genoffline.common.pretrained import CONFIG, read_config
from sb3_genoffline.files.archive import CheckpointError, read_archive, with_zip_suffix
from sb3_genoffline.files.untrusted import parse_json, short
from sb3_genoffline.registry import ALGOS


def load_agent(
    path: str | Path, env: EnvLike | None = None, device: th.device | str = "auto", **changes: Any
) -> OfflineAlgorithm:
    """
    Read an agent of ours and find its class. Nothing is unpickled.

    :param path: an archive of ``save``, with or without ``.zip``, or a folder of ``save_pretrained``
    :param env: environment for ``learn``; not needed to predict or to train offline
    :param device: of the networks
    :param changes: hyper-parameters to change
    :raises FileNotFoundError: if there is no such file or folder
    :raises CheckpointError: if it can't be read, or is of no algorithm of ours
    :raises ValueError: if the environment's spaces are not the agent's
    """
    path = Path(path)
    if path.is_dir() and ((path / CONFIG).is_file() or not with_zip_suffix(path).is_file()):
        return _class_of(ALGOS, read_config(path)["algo"], path).from_pretrained(path, env, device, **changes)
    data = read_archive(path).get("data", b"")
    found = parse_json(data, f"{path}: the member 'data'", strict=False) if data else {}
    if "algorithm" not in found:  # no agent, or not ours: load says so
        return next(iter(ALGOS.values())).load(path)
    classes = {cls.__name__: cls for cls in ALGOS.values()}
    return _class_of(classes, found["algorithm"], path).load(path, env, device, **changes)


def _class_of(classes: dict[str, type[OfflineAlgorithm]], name: Any, path: Path) -> type[OfflineAlgorithm]:
    cls = classes.get(name) if isinstance(name, str) else None
    if cls is None:
        raise CheckpointError(
            f"{path} is of the algorithm {short(name)}, and this version knows {', '.join(classes)}: upgrade sb3-genoffline, "
            "or load it with the class that saved it."
        )
    return cls
