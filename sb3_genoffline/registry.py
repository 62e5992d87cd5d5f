"""The algorithms by name, and reading an agent of whichever it is."""

from pathlib import Path
from typing import Any

import torch as th

from sb3_genoffline.awac import AWAC
from sb3_genoffline.bc import BC
from sb3_genoffline.common.envs import EnvLike
from sb3_genoffline.common.offline_algorithm import AnyAlgorithm
from sb3_genoffline.common.saving import AgentFile
from sb3_genoffline.cped import CPED
from sb3_genoffline.cql import CQL
from sb3_genoffline.dac import DAC
from sb3_genoffline.dql import DQL
from sb3_genoffline.files.archive import CheckpointError, with_zip_suffix
from sb3_genoffline.files.untrusted import short
from sb3_genoffline.iql import IQL
from sb3_genoffline.qdq import QDQ
from sb3_genoffline.spot import SPOT
from sb3_genoffline.td3_bc import TD3BC

ALGOS: dict[str, type[AnyAlgorithm]] = {cls.name: cls for cls in (AWAC, BC, CPED, CQL, DAC, DQL, IQL, QDQ, SPOT, TD3BC)}


def load_agent(path: str | Path, env: EnvLike | None = None, device: th.device | str = "auto", **changes: Any) -> AnyAlgorithm:
    """
    Read an agent of ours and find its class. Nothing is unpickled.

    :param path: an archive of ``save``, with or without ``.zip``, or a folder of ``save_pretrained``
    :param env: environment for ``learn``; not needed to predict or to train offline
    :param device: of the networks
    :param changes: hyper-parameters to change
    :raises FileNotFoundError: if there is no such file or folder
    :raises CheckpointError: if it can't be read, or is of no algorithm of ours
    :raises UserError: if the environment's spaces are not the agent's, or a change is wrong
    """
    path = Path(path)
    if path.is_dir() and not (path / "config.json").is_file() and with_zip_suffix(path).is_file():
        path = with_zip_suffix(path)
    return build_agent(AgentFile.read(path), env, device, **changes)


def build_agent(file: AgentFile, env: EnvLike | None = None, device: th.device | str = "auto", **changes: Any) -> AnyAlgorithm:
    """:func:`load_agent` of a file that was read."""
    cls = ALGOS.get(file.algo)
    if cls is None:
        raise CheckpointError(
            f"{file.name} is of the algorithm {short(file.algo)}, and this version knows {', '.join(ALGOS)}: upgrade "
            "sb3-genoffline, or register the package that brings it."
        )
    return file.build(cls, env, device, None, changes)  # type: ignore[no-any-return]
