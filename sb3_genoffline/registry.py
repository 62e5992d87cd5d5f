"""The algorithms by name: ours, those that other packages bring, and reading an agent of whichever it is."""

import functools
import re
import warnings
from collections.abc import Iterator, Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, TypeVar

import torch as th
from gymnasium import spaces

from sb3_genoffline.awac import AWAC
from sb3_genoffline.bc import BC
from sb3_genoffline.bcq import BCQ
from sb3_genoffline.bear import BEAR
from sb3_genoffline.common.envs import EnvLike
from sb3_genoffline.common.offline_algorithm import AnyAlgorithm, OfflineAlgorithm
from sb3_genoffline.common.policies import OfflinePolicy
from sb3_genoffline.common.policy_files import global_rng_preserved
from sb3_genoffline.common.saving import AgentFile
from sb3_genoffline.cped import CPED
from sb3_genoffline.cql import CQL
from sb3_genoffline.dac import DAC
from sb3_genoffline.decision_transformer import DecisionTransformer
from sb3_genoffline.diffuser import Diffuser
from sb3_genoffline.dql import DQL
from sb3_genoffline.eql import EQL
from sb3_genoffline.errors import UserError
from sb3_genoffline.files.archive import CheckpointError, with_zip_suffix
from sb3_genoffline.files.untrusted import short
from sb3_genoffline.idql import IDQL
from sb3_genoffline.iql import IQL
from sb3_genoffline.mcq import MCQ
from sb3_genoffline.onestep import Onestep
from sb3_genoffline.plas import PLAS
from sb3_genoffline.qdq import QDQ
from sb3_genoffline.sfbc import SfBC
from sb3_genoffline.spot import SPOT
from sb3_genoffline.sql import SQL
from sb3_genoffline.td3_bc import TD3BC
from sb3_genoffline.uwac import UWAC

ENTRY_POINTS = "sb3_genoffline.algorithms"
AlgorithmClass = TypeVar("AlgorithmClass", bound=type[AnyAlgorithm])


class Algorithms(Mapping[str, type[AnyAlgorithm]]):
    """
    Classes by name. Those of installed packages that declare the entry-point group ``sb3_genoffline.algorithms`` are imported
    when a name is not ours, or when all are listed; a file never chooses more than a name among them.
    """

    def __init__(self, *classes: type[AnyAlgorithm]) -> None:
        self._classes = {cls.name: cls for cls in classes}
        self._has_looked = False

    def add(self, cls: type[AnyAlgorithm]) -> None:
        """See :func:`register_algorithm`."""
        if not (isinstance(cls, type) and issubclass(cls, OfflineAlgorithm)):
            raise UserError(f"{short(cls)} can't be registered: it is not a class derived from OfflineAlgorithm.")
        if not (isinstance(cls.name, str) and re.fullmatch(r"[a-z][a-z0-9_]*", cls.name)):
            raise UserError(f"{cls.__name__}.name={cls.name!r} must be a word of a-z, 0-9 and _: it names files and folders.")
        aliases = cls.policy_aliases
        policies = aliases.values() if isinstance(aliases, Mapping) else ()
        if not policies or not all(isinstance(each, type) and issubclass(each, OfflinePolicy) for each in policies):
            raise UserError(
                f"{cls.__name__} has the policy_aliases {short(aliases)}: name its policy classes, derived from "
                "OfflinePolicy, as {'MlpPolicy': ...}."
            )
        _check_arguments(cls)
        known = self._classes.get(cls.name)
        if known is not None and known is not cls:
            raise UserError(
                f"The name {cls.name!r} of {cls.__module__}.{cls.__name__} is taken by {known.__module__}.{known.__name__}: "
                "set another `name` in the class."
            )
        self._classes[cls.name] = cls

    def _look(self) -> None:
        """Import what installed packages bring, once; one that fails is named and left out."""
        if self._has_looked:
            return
        self._has_looked = True
        for point in entry_points(group=ENTRY_POINTS):
            try:
                self.add(point.load())
            except (KeyboardInterrupt, GeneratorExit):
                raise
            except BaseException as error:  # SystemExit among them: one package must not take the others down
                warnings.warn(
                    f"The algorithm {point.name!r} of {point.value!r} (entry point {ENTRY_POINTS!r}) can't be used: "
                    f"{type(error).__name__}: {error}",
                    stacklevel=4,
                )

    def __getitem__(self, name: str) -> type[AnyAlgorithm]:
        if name not in self._classes:
            self._look()
        return self._classes[name]

    def __iter__(self) -> Iterator[str]:
        self._look()
        return iter(sorted(self._classes))

    def __len__(self) -> int:
        self._look()
        return len(self._classes)


def _check_arguments(cls: type[AnyAlgorithm]) -> None:
    """:raises UserError: for an annotation that can't be read, or an argument whose name an agent has for something else"""
    for owner in (cls, *cls.policy_aliases.values()):
        try:
            arguments = owner.argument_table().arguments  # type: ignore[attr-defined]
        except Exception as error:
            raise UserError(f"The annotations of {owner.__name__}'s arguments can't be read: {error}.") from error
        if owner is cls:
            own = arguments.keys() - OfflineAlgorithm.argument_table().arguments.keys()
            for name in sorted(own & _attributes_of_agents()):
                raise UserError(
                    f"{cls.__name__} has an argument {name!r}, which is an attribute of every agent: name it otherwise."
                )


@functools.cache
def _attributes_of_agents() -> frozenset[str]:
    """Names that an argument can't have: methods, and what an agent keeps."""
    box = spaces.Box(-1.0, 1.0, (1,))
    with global_rng_preserved():
        agent = BC("MlpPolicy", (box, box), device="cpu")
    return frozenset({*dir(OfflineAlgorithm), *vars(agent), "batches"} - BC.argument_table().arguments.keys() - {"actor"})


ALGOS = Algorithms(
    AWAC,
    BC,
    BCQ,
    BEAR,
    CPED,
    CQL,
    DAC,
    DecisionTransformer,
    Diffuser,
    DQL,
    EQL,
    IDQL,
    IQL,
    MCQ,
    Onestep,
    PLAS,
    QDQ,
    SfBC,
    SPOT,
    SQL,
    TD3BC,
    UWAC,
)


def register_algorithm(cls: AlgorithmClass) -> AlgorithmClass:
    """
    Add an algorithm of your own, for the zoo, :func:`load_agent` and ``load_from_hub``; also as a decorator. An installed
    package does without: it declares the entry-point group ``sb3_genoffline.algorithms``.

    :param cls: derived from :class:`~sb3_genoffline.common.offline_algorithm.OfflineAlgorithm`; its ``name`` (the class's in
        lower case, if it sets none) must be free. A ``hyperparameters.yml`` beside its module is the zoo's.
    :return: the class
    :raises UserError: naming what is wrong with it
    """
    ALGOS.add(cls)
    return cls


def load_agent(path: str | Path, env: EnvLike | None = None, device: th.device | str = "auto", **changes: Any) -> AnyAlgorithm:
    """
    Read an agent and find its class. Nothing is unpickled.

    :param path: an archive of ``save``, with or without ``.zip``, or a folder of ``save_pretrained``
    :param env: environment for ``learn``; not needed to predict or to train offline
    :param device: of the networks
    :param changes: hyper-parameters to change
    :raises FileNotFoundError: if there is no such file or folder
    :raises CheckpointError: if it can't be read, or its algorithm is not registered
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
            f"{file.name} is of the algorithm {short(file.algo)}, and this installation knows {', '.join(ALGOS)}: upgrade "
            "sb3-genoffline, or install and register the package that brings it."
        )
    return file.build(cls, env, device, None, changes)  # type: ignore[no-any-return]
