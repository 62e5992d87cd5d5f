"""
Agents in files: what is written, and the one way back.

An archive (``agent.zip``) has the members ``data`` (JSON: algorithm, spaces, hyper-parameters, counters, dataset),
``policy.safetensors`` and, for resuming, ``training.json`` with ``training.safetensors``. A folder, as on the Hub, has
``config.json`` and ``model.safetensors``: what acting needs. Both are read once, into an :class:`AgentFile`, checked, and
built.
"""

import copy
import difflib
import json
import math
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import stable_baselines3
import torch as th
from stable_baselines3.common.utils import get_system_info
from torch import Tensor

from sb3_genoffline.common.arguments import as_device
from sb3_genoffline.common.envs import EnvLike, as_env, check_agent_spaces
from sb3_genoffline.common.policy_files import (
    arguments_from_json,
    arguments_to_json,
    blamed_on,
    facts_of,
    global_rng_preserved,
    load_tensors_into,
    plain_names,
    sizing,
    space_of,
)
from sb3_genoffline.errors import ExistsError, NotFoundError, UnknownArgumentError, UserError
from sb3_genoffline.files.archive import (
    FORMAT_VERSION,
    CheckpointError,
    PathOrFile,
    pack_tensors,
    parse_tensors,
    read_archive,
    read_tensors,
    space_to_json,
    tree_from_members,
    tree_to_members,
    write_archive,
)
from sb3_genoffline.files.manifest import MANIFEST, open_folder
from sb3_genoffline.files.pair import CONFIG, WEIGHTS, WEIGHTS_KEY, read_pair, replace_pair
from sb3_genoffline.files.untrusted import check_sizes, entry, parse_json, short
from sb3_genoffline.files.writing import put_back, standing, write_errors
from sb3_genoffline.version import __version__

COUNTERS = ("num_timesteps", "_total_timesteps", "_n_updates", "_episode_num", "_current_progress_remaining")
_TRAINING = ("training.json", "training.safetensors")
_STATISTICS = ("obs_mean", "obs_std")
_NOT_OF_A_FILE = {"policy", "policy_class", "_init_setup_model"}
# Formats before 2 named the algorithm of an archive by its class
_NAMES_OF_FORMAT_1 = {"TD3BC": "td3_bc"}


def describe(agent: Any) -> dict[str, Any]:
    """What an agent is, as plain data: all but its tensors."""
    table = type(agent).argument_table()
    return {
        "format_version": FORMAT_VERSION,
        "algo": type(agent).name,
        "policy_class": agent.policy_class.__name__,
        "observation_space": space_to_json(agent.observation_space),
        "action_space": space_to_json(agent.action_space),
        "hyperparameters": arguments_to_json({name: _kept(agent, name) for name in table.arguments}),
        "counters": {name: getattr(agent, name) for name in COUNTERS},
        "dataset": agent.dataset_info,
        **({} if agent.policy.fitted_model is None else {"fitted_with": agent.policy.fitted_with}),
        "versions": {
            "sb3_genoffline": __version__,
            "stable_baselines3": stable_baselines3.__version__,
            "torch": th.__version__,
        },
    }


def _kept(agent: Any, name: str) -> Any:
    if not hasattr(agent, name):
        raise UserError(f"{type(agent).__name__} has no attribute {name!r}: a constructor keeps each argument under its name.")
    return getattr(agent, name)


def _check_there_is_an_agent(agent: Any) -> None:
    if not hasattr(agent, "policy"):
        raise UserError("There is nothing to save yet: the agent gets its networks from an env or in learn_offline().")


def _on_cpu(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.cpu().contiguous() for name, tensor in plain_names(state).items()}


def save_archive(agent: Any, path: PathOrFile, exclude: set[str], include: set[str]) -> None:
    """
    Write an agent to one file, atomically.

    :param agent: an ``OfflineAlgorithm``
    :param path: file name (``.zip`` is added) or open binary file
    :param exclude: ``"training"``, what only resuming needs, and hyper-parameters
    :param include: of those, what is written all the same
    :raises UserError: for a name that can't be left out, or can't be written
    """
    _check_there_is_an_agent(agent)
    left_out = left_out_of(agent, exclude, include)
    whole = "training" not in left_out
    policy = agent.policy.state_dict() if whole else agent.policy.acting_state_dict()
    data = describe(agent)
    data["hyperparameters"] = {name: value for name, value in data["hyperparameters"].items() if name not in left_out}
    members = {
        "data": json.dumps(data, indent=2).encode(),
        "policy.safetensors": pack_tensors(_on_cpu(policy)),
        "_stable_baselines3_version": stable_baselines3.__version__.encode(),
        "system_info.txt": get_system_info(print_info=False)[1].encode(),
    }
    if whole:
        members |= tree_to_members(agent.training_state(), "training")
    write_archive(path, members)


def left_out_of(agent: Any, exclude: set[str], include: set[str]) -> set[str]:
    """
    SB3's ``exclude`` and ``include``, the latter of which counts where a name is in both.

    :param agent: an ``OfflineAlgorithm``
    :param exclude: names
    :param include: names
    :return: what is not written and would be without them
    :raises UserError: for a name that is unknown, can't be left out, or can't be written
    """
    arguments, cls = type(agent).argument_table().arguments, type(agent).__name__
    fixed = {*COUNTERS, *agent.policy_arguments(), "policy_kwargs", "dataset_info", "policy_class"}
    fixed |= {*agent.fitted_model_units}
    fixed |= {"observation_space", "action_space", *agent.state.networks, *agent.state.variables}
    fixed |= {f"{name}_optimizer" for name in agent.state.plans}
    never = (set(agent._excluded_save_params()) | vars(agent).keys()) - arguments.keys() - fixed - {"policy"}
    known = arguments.keys() | fixed | never | {"training", "policy"}
    for name in sorted(exclude | include):
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            raise UserError(f"A saved {cls} has no {name!r}{f': do you mean {near[0]!r}?' if near else '.'}")
    for name in sorted(include & never):
        how = "use save_replay_buffer()" if name == "replay_buffer" else "give or set it again when the agent is loaded"
        raise UserError(f"{name!r} can't be a part of a saved {cls}: {how}.")
    for name in sorted(exclude & (fixed | {"policy"}) - include):
        raise UserError(
            f"{name!r} can't be left out of a saved {cls}, which could not be made again without it. What can be: 'training' "
            "(optimizers, generators, sampler), and hyper-parameters, which then are the defaults."
        )
    return exclude - include


def save_folder(agent: Any, folder: Path) -> None:
    """
    Write ``config.json`` and ``model.safetensors``, atomically: whoever reads finds the old agent or the new one.

    :param agent: an ``OfflineAlgorithm``
    :param folder: is made; files of these names are replaced
    :raises ExistsError: if the folder has a manifest
    :raises NotWrittenError: if the system refuses it
    """
    _check_there_is_an_agent(agent)
    with write_errors(folder):
        put_back(folder)
    if (folder / MANIFEST).exists():
        raise ExistsError(
            f"{folder} holds a published agent: {MANIFEST} lists its files, and its card and results are of that agent. Save "
            "into another folder, or replace all of it with write_agent_folder(..., overwrite=True)."
        )
    cls = type(agent)
    if agent.policy_class not in cls.policy_aliases.values():
        raise UserError(
            f"The policy class {agent.policy_class.__name__} is not one of {cls.__name__}'s, and no other is ever loaded from "
            "a folder. Use save(), and load(custom_objects={'policy_class': ...})."
        )
    if agent.policy.obs_mean.dtype != th.float32:
        raise UserError(f"The agent's weights are {agent.policy.obs_mean.dtype}: only float32 ones can be published.")
    tensors = _on_cpu(agent.policy.acting_state_dict())
    for name, tensor in tensors.items():
        if bool(tensor.isnan().any()):
            raise UserError(f"The agent's {name} is not a number any more: such an agent can't act, so it is not saved.")
    mean, std = (tensors.pop(name) for name in _STATISTICS)
    known = bool((mean != 0).any() or (std != 1).any())
    config = describe(agent)
    config["observation_statistics"] = {"mean": mean.tolist(), "std": std.tolist()} if known else None
    for space in ("observation_space", "action_space"):
        bounds = {key: [_bound(value) for value in config[space][key]] for key in ("low", "high")}
        config[space] = config[space] | bounds

    def text(digest: str) -> bytes:
        try:
            return (json.dumps(config | {WEIGHTS_KEY: digest}, indent=2, allow_nan=False) + "\n").encode()
        except ValueError as error:
            raise UserError(f"A setting of the agent is not a finite number, which JSON does not have: {config}") from error

    replace_pair(folder, text, pack_tensors(tensors, {"format": "pt"}))


def _bound(value: float) -> float | str:
    return value if math.isfinite(value) else str(float(value))


@dataclass(frozen=True)
class AgentFile:
    """
    What an archive or a folder holds, read once and not trusted.

    :param name: of the file, for errors
    :param algo: key of the algorithm
    :param data: as :func:`describe` makes it
    :param tensors: the policy's
    :param weights_name: of the file of the tensors, for errors
    :param training: members for resuming, not parsed yet; empty if there are none
    :param system_info: what the agent was saved on
    """

    name: str
    algo: str
    data: dict[str, Any]
    tensors: dict[str, Tensor]
    weights_name: str
    training: dict[str, bytes]
    system_info: str | None = None

    @classmethod
    def read(cls, path: PathOrFile) -> "AgentFile":
        """
        :param path: archive (with or without ``.zip``), folder, or open binary file
        :raises FileNotFoundError: if there is no such file
        :raises CheckpointError: if it is damaged, newer than this version, or not an agent of ours
        """
        if isinstance(path, str | Path) and standing(Path(path)).is_dir():
            return cls.from_folder(Path(path))
        return cls.from_members(read_archive(path), f"{path}")

    @classmethod
    def from_members(cls, members: dict[str, bytes], name: str, data: dict[str, Any] | None = None) -> "AgentFile":
        """
        :param members: of an archive
        :param name: of the archive
        :param data: the member ``data``, if it was parsed already
        """
        data = parse_data(members, name) if data is None else data
        if "format_version" not in data:
            raise CheckpointError(
                f"{name} was not saved by sb3_genoffline (it may be stable-baselines3's, whose zips hold pickles): load it "
                "with the class that saved it."
            )
        version = _check_version(data, name)
        if version == 1:
            algorithm = entry(data, "algorithm", str, name)
            data["algo"] = _NAMES_OF_FORMAT_1.get(algorithm, algorithm.lower())
        training: dict[str, bytes] = {key: members[key] for key in _TRAINING if key in members}
        if version == 1 and training:
            raise CheckpointError(
                f"{name} was saved by an earlier version, whose part for training this one does not read: its agent acts when "
                "loaded from its folder, and training has to start over."
            )
        tensors = read_tensors(members, "policy.safetensors")
        info = members.get("system_info.txt")
        text = None if info is None else info.decode(errors="replace")
        return cls(name, entry(data, "algo", str, name), data, tensors, "policy.safetensors", training, text)

    @classmethod
    def from_folder(cls, folder: Path) -> "AgentFile":
        """:param folder: of an agent; if it has a manifest, both files are compared with it"""
        folder = standing(folder)
        if not folder.is_dir():
            raise NotFoundError(f"There is no folder {folder} here. sb3_genoffline.load_from_hub loads from the Hub, too.")
        if not (folder / CONFIG).is_file():
            raise NotFoundError(f"{folder} is not an agent's folder: it has no {CONFIG}.")
        listed, name = open_folder(folder), str(folder / CONFIG)
        data, weights = read_pair(listed, lambda content: _parse_config(content, name))
        algo = entry(data, "algo", str, name)
        tensors = parse_tensors(weights, str(folder / WEIGHTS))
        statistics = entry(data, "observation_statistics", dict[str, list[float]] | None, name)
        n = space_of(data, "observation_space", name).shape[0]
        statistics = {"mean": [0.0] * n, "std": [1.0] * n} if statistics is None else statistics
        tensors |= {key: _statistics(statistics, key.removeprefix("obs_"), n, name) for key in _STATISTICS}
        return cls(name, algo, data, tensors, str(folder / WEIGHTS), {})

    def require(self, algo: str, owner: str) -> None:
        """
        :param algo: key of the class that is to be made
        :param owner: its name
        :raises CheckpointError: if the agent is another algorithm's
        """
        if self.algo != algo:
            raise CheckpointError(
                f"{self.name} holds a {short(self.algo)} agent, not one of {owner}: use its own class, or "
                "sb3_genoffline.load_agent(path), which finds it."
            )

    def build(
        self,
        cls: Any,
        env: EnvLike | None,
        device: th.device | str,
        policy_class: type | None,
        changes: dict[str, Any],
    ) -> Any:
        """
        Make the agent; everything is checked before it is used or built.

        :param cls: class of the agent
        :param env: environment or None
        :param device: of the networks
        :param policy_class: instead of the one that is named
        :param changes: hyper-parameters to change
        :raises CheckpointError: if the file is wrong
        :raises UserError: if the environment's spaces are not the agent's, or a change is wrong
        """
        self.require(cls.name, cls.__name__)
        policy_class = policy_class or self._policy_class(cls)
        observation_space, action_space = (
            space_of(self.data, key, self.name) for key in ("observation_space", "action_space")
        )
        counters = entry(self.data, "counters", dict[str, Any], self.name)
        numbers = {key: entry(counters, key, float if key == COUNTERS[-1] else int, self.name) for key in COUNTERS}
        dataset = entry(self.data, "dataset", dict[str, str | float | bool | None], self.name)
        stored = entry(self.data, "hyperparameters", dict[str, Any], self.name)
        stored = {name: value for name, value in stored.items() if name not in cls.retired_arguments}
        facts = facts_of(self.data, self.name)
        source, device = (observation_space, action_space) if env is None else as_env(env), as_device(device)

        def make(arguments: dict[str, Any]) -> Any:
            return cls(policy_class, source, device=device, _init_setup_model=False, **arguments)

        for name in changes.keys() & _NOT_OF_A_FILE:
            raise UnknownArgumentError(
                f"load takes no {name}: the file says what the agent is made of. For a policy class that {cls.__name__} has "
                "no name for, use custom_objects={'policy_class': ...}."
            )
        with global_rng_preserved(), blamed_on(self.name):
            known = arguments_from_json(stored, cls.argument_table())
            model = kept = make(known)
        if changes:
            with global_rng_preserved():
                model = make(known | changes)  # a change that is wrong is not a fault of the file
            changes = {  # as the agents have them: an argument that was given in another type of number is none
                key: value
                for key, value in changes.items()
                if key not in known or not _same(getattr(kept, key), getattr(model, key))
            }
        if "normalize_observations" in changes and dataset:
            raise UserError(
                f"normalize_observations can't be changed to {short(changes['normalize_observations'])} on a trained agent: "
                "it decides what the networks were trained on. Make a new agent."
            )
        n_stored = sum(tensor.numel() for tensor in self.tensors.values())
        with blamed_on(self.name):
            arguments = model.policy_arguments() | model.policy_kwargs
            shaping = sizing(arguments, model.policy_class.argument_table())
            check_sizes(shaping, observation_space.shape[0], action_space.shape[0], n_stored)
        check_agent_spaces((observation_space, action_space), (model.observation_space, model.action_space))
        self._check_shape(kept, model, changes)
        with global_rng_preserved(), nullcontext() if changes else blamed_on(self.name):
            model._setup_model()
        model.__dict__.update(numbers)
        model.dataset_info = dataset
        load_tensors_into(model.policy, self.tensors, self.weights_name)
        if self.training:
            changed = set(changes) | ({"optimizers"} if _optimizers_differ(kept, model) else set())
            with blamed_on(f"{self.name}, its part for training,"):
                model.load_training_state(tree_from_members(self.training, "training"), changed)
        model.recall_fit(facts, known)
        given = changes.get(model.policy.fitted_model or "")
        if given is not None:  # instead of the file's
            model.set_fitted_model(given)
            return model
        with nullcontext() if changes else blamed_on(self.name):
            model.check_loaded_fit(changes)
        return model

    def hand_weights_to(self, agent: Any) -> None:
        """
        Put weights, and optimizers and variables where they are there, into an agent of the same shape.

        :param agent: an ``OfflineAlgorithm``
        """
        before = copy.deepcopy(agent.policy.state_dict()), agent.policy.fitted_with
        load_tensors_into(agent.policy, self.tensors, self.weights_name)
        agent.policy.fitted_with = facts_of(self.data, self.name) or {}
        try:
            agent.check_loaded_fit([])
        except UserError:
            agent.policy.load_state_dict(before[0])
            agent.policy.fitted_with = before[1]
            raise
        agent.fits.forget()  # of the weights that were there
        agent.fits.met = entry(self.data, "dataset", dict[str, Any], self.name).get("fingerprint")
        if self.training:
            with blamed_on(f"{self.name}, its part for training,"):
                agent.state.load_state_dict(tree_from_members(self.training, "training"), set())

    def _check_shape(self, kept: Any, model: Any, changes: Mapping[str, Any]) -> None:
        """
        :param kept: agent with the file's hyper-parameters
        :param model: the same with those that were changed
        :param changes: which were
        :raises UserError: if they would give the weights another meaning
        """
        # as JSON: widths may be a list, a tuple or an array
        ours, theirs = (arguments_to_json({**agent.policy_kwargs, **agent.policy_arguments()}) for agent in (model, kept))
        optimizing = {"optimizer_class", "optimizer_kwargs"}
        for name in sorted((ours.keys() | theirs.keys()) - optimizing - {*model.policy_class.acting_settings}):
            if ours.get(name) != theirs.get(name):
                given = name if name in changes else "policy_kwargs" if name in model.policy_kwargs else min(changes)
                raise UserError(
                    f"{given} can't be changed to {short(changes[given])} in load: it shapes the policy, whose weights are in "
                    f"the file.{model._instead(given)}"
                )

    def _policy_class(self, cls: Any) -> type:
        named: dict[str, type] = {policy.__name__: policy for policy in cls.policy_aliases.values()}
        name = entry(self.data, "policy_class", str, self.name)
        if name not in named:
            raise CheckpointError(
                f"{self.name}: the policy class {short(name)} is not one of {cls.__name__}'s. If you know it, load the "
                "agent's archive with custom_objects={'policy_class': that class}."
            )
        return named[name]


def parse_data(members: Mapping[str, bytes], name: str) -> dict[str, Any]:
    """The member ``data`` of an archive, ours or stable-baselines3's."""
    if "data" not in members:
        raise CheckpointError(f"{name} does not hold an agent: the member 'data' is missing.")
    return parse_json(members["data"], f"{name}: the member 'data'", strict=False)


def _parse_config(content: bytes, name: str) -> dict[str, Any]:
    data = parse_json(content, name)
    _check_version(data, name)
    return data


def _same(kept: Any, given: Any) -> bool:
    """Whether an argument is given as it was kept."""
    return kept is given or (type(kept) is type(given) and bool(kept == given))


def _optimizers_differ(kept: Any, model: Any) -> bool:
    first, second = kept.policy_kwargs, model.policy_kwargs
    return any(first.get(name) != second.get(name) for name in ("optimizer_class", "optimizer_kwargs"))


def _check_version(data: dict[str, Any], name: str) -> int:
    version: int = entry(data, "format_version", int, name)
    if version > FORMAT_VERSION:
        raise CheckpointError(
            f"{name} has format {version}, newer than the {FORMAT_VERSION} that sb3-genoffline {__version__} reads: upgrade "
            "sb3-genoffline."
        )
    if version < 1:
        raise CheckpointError(f"{name} has format {version}, which does not exist.")
    return version


def _statistics(statistics: dict[str, list[float]], key: str, n: int, name: str) -> Tensor:
    values = th.tensor(entry(statistics, key, list[float], f"{name}, observation_statistics"), dtype=th.float32)
    if len(values) != n or not values.isfinite().all() or (key == "std" and not (values > 0).all()):
        raise CheckpointError(f"{name}: the {key} of the observations must be {n} finite numbers (above 0 for std).")
    return values


def split_custom_objects(custom_objects: Mapping[str, Any] | None, cls: Any) -> tuple[type | None, dict[str, Any]]:
    """
    SB3's way to change what a file holds.

    :param custom_objects: by name: ``policy_class``, and hyper-parameters
    :param cls: class of the agent
    :return: the policy class, if it is there, and the hyper-parameters
    :raises UserError: for any other name, or a class that is no policy of ours
    """
    if not isinstance(custom_objects, Mapping | None):
        raise UserError(f"custom_objects={short(custom_objects)} must be a mapping, from names to values.")
    objects = dict(custom_objects or {})
    policy_class = objects.pop("policy_class", None)
    if policy_class is not None and not hasattr(policy_class, "check_arguments"):
        raise UserError(f"custom_objects: policy_class={short(policy_class)} must be a class derived from OfflinePolicy.")
    table = cls.argument_table()
    for name in objects:
        if name not in table.arguments:
            raise UserError(
                f"custom_objects has {name!r}, and nothing of that name is stored in a file of {cls.__name__}: it may hold "
                "'policy_class' and hyper-parameters."
            )
    return policy_class, objects
