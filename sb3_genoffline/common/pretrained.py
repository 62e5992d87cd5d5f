"""``save_pretrained`` and ``from_pretrained``: a folder of JSON and safetensors with what acting needs, as the Hub has it."""

import json
import math
from pathlib import Path
from typing import Any, Self

import torch as th

from sb3_genoffline.common.checkpoints import build_agent, describe
from sb3_genoffline.common.envs import EnvLike
from sb3_genoffline.files.archive import (
    FORMAT_VERSION,
    CheckpointError,
    parse_tensors,
    replace_file,
    save_tensors,
)
from sb3_genoffline.files.manifest import read_listed
from sb3_genoffline.files.untrusted import check_tensors, entry, parse_json, short
from sb3_genoffline.version import __version__

CONFIG, WEIGHTS = "config.json", "model.safetensors"
_STATISTICS = ("obs_mean", "obs_std")


def algorithm_name(cls: type) -> str:
    """The name of an algorithm: that of its folder, ``dac``; of one that has none here its class's in small letters."""
    package, *rooms = cls.__module__.split(".")
    return rooms[0] if package == "sb3_genoffline" and len(rooms) > 1 else cls.__name__.lower()


class PretrainedMixin:
    """Folders for :class:`~sb3_genoffline.common.offline_algorithm.OfflineAlgorithm`."""

    def save_pretrained(self, folder: str | Path) -> Path:
        """
        Write ``config.json`` and ``model.safetensors``: all that acting needs. Optimizers are left out, and of each network
        and its target the one that the policy does not act with. (``save`` keeps everything.)

        :param folder: is made; files of these names are replaced
        :return: the folder
        :raises ValueError: if a hyper-parameter can't be stored as plain data, or a weight is not finite
        """
        algorithm: Any = self
        if not hasattr(algorithm, "policy"):
            raise ValueError("There is nothing to save yet: the agent gets its networks from an env or in learn_offline().")
        if algorithm.policy_class not in type(self).policy_aliases.values():  # type: ignore[attr-defined]
            raise ValueError(
                f"The policy class {algorithm.policy_class.__name__} is not one of {type(self).__name__}'s, and no other is "
                "ever loaded from a folder. Use save(), and load(custom_objects={'policy_class': ...})."
            )
        if algorithm.policy.obs_mean.dtype != th.float32:
            raise ValueError(f"The agent's weights are {algorithm.policy.obs_mean.dtype}: only float32 ones can be published.")
        tensors = {name: tensor.cpu().contiguous() for name, tensor in algorithm.policy.acting_state_dict().items()}
        for name, tensor in tensors.items():
            if bool(tensor.isnan().any()):
                raise ValueError(f"The agent's {name} is not a number any more: such an agent can't act, so it is not saved.")
        mean, std = (tensors.pop(name) for name in _STATISTICS)
        known = bool((mean != 0).any() or (std != 1).any())
        config = {
            "format_version": FORMAT_VERSION,
            "algo": algorithm_name(type(self)),
            **describe(algorithm),
            "observation_statistics": {"mean": mean.tolist(), "std": std.tolist()} if known else None,
        }
        for space in ("observation_space", "action_space"):
            bounds = {key: [_bound(value) for value in config[space][key]] for key in ("low", "high")}
            config[space] = config[space] | bounds
        try:
            text = json.dumps(config, indent=2, allow_nan=False) + "\n"
        except ValueError as error:
            raise ValueError(f"A setting of the agent is no finite number, which JSON does not have: {config}") from error
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        metadata = {"format": "pt"}
        replace_file(folder / WEIGHTS, save_tensors(tensors, metadata))
        replace_file(folder / CONFIG, text.encode())
        return folder

    @classmethod
    def from_pretrained(
        cls, folder: str | Path, env: EnvLike | None = None, device: th.device | str = "auto", **changes: Any
    ) -> Self:
        """
        Read an agent that acts bit for bit as the saved one. Nothing is unpickled, no code from the files runs, and global
        random generators stay as they are. If there is a ``manifest.json``, both files are compared with it.

        The agent can be trained on: the target networks (or the networks that they follow, where the policy acts with the
        target) start as copies, optimizers and multipliers afresh. To go on exactly, use ``load`` on a whole archive.

        :param folder: as :meth:`save_pretrained` or ``write_agent_folder`` wrote it
        :param env: environment for ``learn``; not needed to predict or to train offline
        :param device: of the networks
        :param changes: hyper-parameters to change
        :raises FileNotFoundError: if there is no such folder or file
        :raises CheckpointError: if a file is damaged, newer than this version, another algorithm's, or not to be trusted
        :raises ValueError: if the environment's spaces are not the agent's
        """
        folder = Path(folder)
        config = read_config(folder)
        name = str(folder / CONFIG)
        if config["algo"] != algorithm_name(cls):
            raise CheckpointError(
                f"{name} is of a {short(config['algo'])} agent, not of {cls.__name__}: use its own class, or "
                "sb3_genoffline.load_from_hub(folder), which finds it."
            )
        own = cls.hyperparameter_names()  # type: ignore[attr-defined]
        unknown = sorted(entry(config, "hyperparameters", dict[str, Any], name).keys() - own)
        if unknown:
            raise CheckpointError(
                f"{name} has the hyper-parameter {short(unknown[0])}, which {cls.__name__} does not: upgrade sb3-genoffline."
            )
        found = parse_tensors(read_listed(folder, WEIGHTS), str(folder / WEIGHTS))
        n_stored = sum(tensor.numel() for tensor in found.values())
        model: Any = build_agent(cls, config, name, n_stored, env, device, None, changes)
        policy = model.policy
        expected = {key: tensor for key, tensor in policy.acting_state_dict().items() if key not in _STATISTICS}
        check_tensors(found, expected, str(folder / WEIGHTS))
        statistics = entry(config, "observation_statistics", dict[str, list[float]] | None, name)
        if statistics is not None:
            found |= zip(_STATISTICS, _statistics(statistics, policy.state_dim, name), strict=True)
        policy.load_state_dict(policy.with_spare_modules(policy.acting_state_dict() | found))
        return model


def read_config(folder: Path) -> dict[str, Any]:
    """
    ``config.json``, so far checked that its format is known and its algorithm named.

    :param folder: of an agent
    :raises FileNotFoundError: if there is none
    :raises CheckpointError: if it is damaged or newer than this version
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no folder {folder} here. sb3_genoffline.load_from_hub loads from the Hub, too.")
    if not (folder / CONFIG).is_file():
        raise FileNotFoundError(f"{folder} is no agent's folder: it has no {CONFIG}.")
    name = str(folder / CONFIG)
    config = parse_json(read_listed(folder, CONFIG), name)
    version = entry(config, "format_version", int, name)
    if version > FORMAT_VERSION:
        raise CheckpointError(
            f"{name} has format {version}, newer than the {FORMAT_VERSION} that sb3-genoffline {__version__} reads: upgrade "
            "sb3-genoffline."
        )
    if version < 1:
        raise CheckpointError(f"{name} has format {version}, which there never was.")
    entry(config, "algo", str, name)
    return config


def _bound(value: float) -> float | str:
    return value if math.isfinite(value) else str(float(value))


def _statistics(statistics: dict[str, list[float]], state_dim: int, name: str) -> list[th.Tensor]:
    found = []
    for key in ("mean", "std"):
        values = th.tensor(entry(statistics, key, list[float], f"{name}, observation_statistics"), dtype=th.float32)
        if len(values) != state_dim or not values.isfinite().all() or (key == "std" and not (values > 0).all()):
            raise CheckpointError(
                f"{name}: the {key} of the observations is not {state_dim} finite numbers (above 0 for std)."
            )
        found.append(values)
    return found
