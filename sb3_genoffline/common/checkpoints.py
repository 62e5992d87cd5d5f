"""``save`` and ``load`` with SB3's verbs and no pickles: JSON, safetensors, atomic writes, exact resume."""

import json
import random
import warnings
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, Self

import numpy as np
import stable_baselines3
import torch as th
from stable_baselines3.common.utils import get_device, get_system_info

from sb3_genoffline.common.arguments import hyperparameter_from_json, hyperparameter_to_json
from sb3_genoffline.common.envs import EnvLike, as_env, check_agent_spaces
from sb3_genoffline.common.policies import OfflinePolicy
from sb3_genoffline.files.archive import (
    FORMAT_VERSION,
    CheckpointError,
    PathOrFile,
    read_archive,
    read_tensors,
    space_to_json,
    tree_from_members,
    tree_to_members,
    write_archive,
)
from sb3_genoffline.files.untrusted import (
    box_from_json,
    check_arguments,
    check_sizes,
    check_tensors,
    entry,
    parse_json,
    short,
)
from sb3_genoffline.version import __version__

COUNTERS = ("num_timesteps", "_total_timesteps", "_n_updates", "_episode_num", "_current_progress_remaining")


@contextmanager
def global_rng_preserved() -> Iterator[None]:
    """Leave Python's, numpy's and torch's global generators as they were found."""
    python_state, numpy_state = random.getstate(), np.random.get_state()
    with th.random.fork_rng():
        try:
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)


def describe(algorithm: Any) -> dict[str, Any]:
    """What an agent is, as plain data: all but its tensors."""
    hyperparameters = {name: getattr(algorithm, name) for name in algorithm.hyperparameter_names()}
    return {
        "policy_class": algorithm.policy_class.__name__,
        "observation_space": space_to_json(algorithm.observation_space),
        "action_space": space_to_json(algorithm.action_space),
        "hyperparameters": {name: hyperparameter_to_json(name, value) for name, value in hyperparameters.items()},
        "counters": {name: getattr(algorithm, name) for name in COUNTERS},
        "dataset": algorithm.dataset_info,
        "versions": {
            "sb3_genoffline": __version__,
            "stable_baselines3": stable_baselines3.__version__,
            "torch": th.__version__,
        },
    }


def build_agent(
    cls: Any,
    data: dict[str, Any],
    name: str,
    n_stored: int,
    env: EnvLike | None,
    device: th.device | str,
    policy_class: type | None,
    changes: dict[str, Any],
) -> Any:
    """
    Make an agent from its description, which is not trusted: everything is checked before it is used or built.

    :param cls: class of the agent
    :param data: as :func:`describe` returns
    :param name: of the file, for errors
    :param n_stored: entries that the file of the weights holds
    :param env: environment or None
    :param device: of the networks
    :param policy_class: in the place of the one that is named
    :param changes: hyper-parameters to change
    :return: the agent, its tensors new
    :raises CheckpointError: if the description is wrong
    :raises ValueError: if the environment's spaces are not the agent's, or a change is wrong
    """
    if policy_class is None:
        named = {policy.__name__: policy for policy in cls.policy_aliases.values()}
        policy_name = entry(data, "policy_class", str, name)
        policy_class = named.get(policy_name)
        if policy_class is None:
            raise CheckpointError(
                f"The agent's policy class {short(policy_name)} is not one of {cls.__name__}'s. If you know it, load the "
                "agent's archive with custom_objects={'policy_class': that class}."
            )
    observation_space, action_space = (
        box_from_json(entry(data, key, dict[str, Any], name), f"{name}: {key}")
        for key in ("observation_space", "action_space")
    )
    counters = entry(data, "counters", dict[str, Any], name)
    numbers = {key: entry(counters, key, float if key == COUNTERS[-1] else int, name) for key in COUNTERS}
    dataset = entry(data, "dataset", dict[str, str | float | bool | None], name)
    stored = entry(data, "hyperparameters", dict[str, Any], name)
    source, device = (observation_space, action_space) if env is None else as_env(env), get_device(device)

    def make(arguments: dict[str, Any]) -> Any:
        return cls(policy_class, source, device=device, _init_setup_model=False, **arguments)

    with global_rng_preserved(), blamed_on(name):
        known = {key: hyperparameter_from_json(key, stored[key]) for key in cls.hyperparameter_names() if key in stored}
        check_arguments(known, cls, CheckpointMixin)
        model = make(known)
    with global_rng_preserved():
        model = make(known | changes) if changes else model  # a change that is wrong is no fault of the file
    with blamed_on(name):
        arguments = model._policy_arguments() | model.policy_kwargs
        check_arguments(arguments, policy_class, OfflinePolicy, strict=True)
        check_sizes(arguments, observation_space.shape[0], action_space.shape[0], n_stored)
    check_agent_spaces((observation_space, action_space), (model.observation_space, model.action_space))
    with global_rng_preserved(), nullcontext() if changes else blamed_on(name):
        model._setup_model()
    model.__dict__.update(numbers)
    model.dataset_info = dataset
    return model


@contextmanager
def blamed_on(name: str) -> Iterator[None]:
    """Whatever goes wrong inside is a fault of the file: a :class:`CheckpointError` that says so."""
    try:
        yield
    except CheckpointError:
        raise
    except Exception as error:
        raise CheckpointError(f"{name} describes no agent that can be made ({type(error).__name__}: {error}).") from error


def _known(name: Any, names: Collection[str]) -> str:
    if name not in names:
        raise CheckpointError(
            f"The part for training has {short(name)}, and the agent only {', '.join(sorted(names))}: refused."
        )
    return name


class CheckpointMixin:
    """
    Saving and loading for :class:`~sb3_genoffline.common.offline_algorithm.OfflineAlgorithm`.

    The archive is a zip as SB3's, with the members ``data`` (JSON: class, spaces, hyper-parameters, counters, dataset),
    ``policy.safetensors``, and ``training.json``/``training.safetensors`` (optimizers, generators, sampler, algorithm state),
    which only resuming needs. As in SB3, rows collected online are not in it: see :meth:`save_replay_buffer`.
    """

    def save(self, path: PathOrFile, exclude: Iterable[str] | None = None, include: Iterable[str] | None = None) -> None:
        """
        Write the agent to one file, atomically: a killed process leaves the old file or the new one.

        :param path: file name (``.zip`` is added) or open binary file
        :param exclude: ``["training"]`` leaves out what only resuming needs: optimizers, generators, sampler, and of each
            network and its target the one that the policy does not act with
        :param include: accepted for SB3's signature; everything is included by default
        :raises ValueError: if a hyper-parameter can't be stored as plain data
        """
        algorithm: Any = self
        if not hasattr(algorithm, "policy"):
            raise ValueError("There is nothing to save yet: the agent gets its networks from an env or in learn_offline().")
        data = {"format_version": FORMAT_VERSION, "algorithm": type(self).__name__, **describe(algorithm)}
        whole = "training" not in set(exclude or ())
        state = algorithm.policy.state_dict() if whole else algorithm.policy.acting_state_dict()
        policy = {name: tensor.cpu().contiguous() for name, tensor in state.items()}
        members = {
            "data": json.dumps(data, indent=2).encode(),
            "policy.safetensors": tree_to_members(policy, "policy")["policy.safetensors"],
            "_stable_baselines3_version": stable_baselines3.__version__.encode(),
            "system_info.txt": get_system_info(print_info=False)[1].encode(),
        }
        if whole:
            members |= tree_to_members(self._training_state(), "training")
        write_archive(path, members)

    def _training_state(self) -> dict[str, Any]:
        algorithm: Any = self
        modules, variables = algorithm._get_torch_save_params()
        buffer_state = algorithm._pending_buffer_state
        if algorithm.replay_buffer is not None:
            buffer_state = algorithm.replay_buffer.state_dict(online_rows=False)
        return {
            "optimizers": {name: getattr(self, name).state_dict() for name in modules if name != "policy"},
            "variables": {name: getattr(self, name) for name in variables},
            "device": algorithm.device.type,
            "generator": algorithm.generator.get_state(),
            "buffer": buffer_state,
            "phase": algorithm._phases[0].state_dict() if algorithm._phases else algorithm._pending_phase_state,
        }

    def _load_training_state(self, state: dict[str, Any], changed: set[str]) -> None:
        algorithm: Any = self
        self._load_optimizers(state["optimizers"])
        for name, value in state["variables"].items():
            if name not in changed:
                getattr(self, _known(name, algorithm._get_torch_save_params()[1])).data.copy_(value)
        algorithm._pending_phase_state = state.get("phase")
        if state.get("device", algorithm.device.type) != algorithm.device.type:
            warnings.warn(
                f"The agent was trained on {state['device']} and is loaded on {algorithm.device.type}, which draws other "
                "random numbers: training goes on from the same weights, not bit for bit.",
                stacklevel=3,
            )
            return
        algorithm.generator.set_state(state["generator"])
        algorithm._pending_buffer_state = state["buffer"]

    def _load_optimizers(self, states: dict[str, Any]) -> None:
        algorithm: Any = self
        names = set(algorithm._get_torch_save_params()[0]) - {"policy"}  # whose weights were checked, these are not
        for name, state in states.items():
            getattr(self, _known(name, names)).load_state_dict(state)

    @classmethod
    def load(
        cls,
        path: PathOrFile,
        env: EnvLike | None = None,
        device: th.device | str = "auto",
        custom_objects: dict[str, Any] | None = None,
        print_system_info: bool = False,
        force_reset: bool = True,
        **kwargs: Any,
    ) -> Self:
        """
        Read an agent. Nothing is unpickled, no code from the file runs, and global random generators stay as they are.
        ``learn_offline(same_dataset, ..., reset_num_timesteps=False)`` then goes on bit for bit; the stream of random numbers
        that actions are sampled with restarts from the seed.

        :param path: file name (with or without ``.zip``) or open binary file
        :param env: environment for ``learn``; not needed to predict or to train offline
        :param device: of the networks
        :param custom_objects: ``{"policy_class": cls}`` for a policy class that the algorithm has no name for
        :param print_system_info: print what the agent was saved on
        :param force_reset: accepted for SB3's signature; a loaded agent always resets its environment
        :param kwargs: hyper-parameters to change
        :raises FileNotFoundError: if there is no such file
        :raises CheckpointError: if the file is damaged, newer than this version, or not this class's
        :raises ValueError: if the environment's spaces are not the agent's
        """
        members = read_archive(path)
        data = cls._read_data(path, members)
        if print_system_info:
            print("== SAVED MODEL SYSTEM INFO ==")
            text = members.get("system_info.txt", b"not recorded").decode(errors="replace")
            print("\n".join(line if line.isprintable() else repr(line) for line in text.splitlines()))
        tensors = read_tensors(members, "policy.safetensors")
        n_stored = sum(tensor.numel() for tensor in tensors.values())
        policy_class = (custom_objects or {}).get("policy_class")
        model: Any = build_agent(cls, data, f"{path}", n_stored, env, device, policy_class, kwargs)
        model._set_policy_tensors(tensors)
        if "training.json" in members:
            # the variable of a hyper-parameter that the caller changes (eta_tensor, log_alpha) starts from the new value
            changed = {form.format(name) for name in kwargs for form in ("{}_tensor", "log_{}")}
            state = tree_from_members(members, "training")
            with blamed_on(f"{path}, its part for training,"):
                model._load_training_state(state, changed)
        return model

    @classmethod
    def _read_data(cls, path: Any, members: dict[str, bytes]) -> dict[str, Any]:
        if "data" not in members:
            raise CheckpointError(f"{path} holds no agent: the member 'data' is missing.")
        data = parse_json(members["data"], f"{path}: the member 'data'", strict=False)
        if "format_version" not in data:
            raise CheckpointError(
                f"{path} was not saved by sb3_genoffline (it may be stable-baselines3's, whose zips hold pickles): load it "
                "with the class that saved it."
            )
        if entry(data, "format_version", int, f"{path}") > FORMAT_VERSION:
            raise CheckpointError(
                f"{path} has format {data['format_version']}, newer than the {FORMAT_VERSION} this version reads: upgrade "
                "sb3-genoffline."
            )
        if entry(data, "algorithm", str, f"{path}") != cls.__name__:
            raise CheckpointError(
                f"{path} holds a {data['algorithm']} agent: use {data['algorithm']}.load, not {cls.__name__}.load."
            )
        return data

    def _set_policy_tensors(self, tensors: dict[str, th.Tensor]) -> None:
        policy: OfflinePolicy = self.policy  # type: ignore[attr-defined]
        whole = policy.with_spare_modules(tensors) if tensors.keys() == policy.acting_state_dict().keys() else tensors
        check_tensors(whole, policy.state_dict(), "policy.safetensors")
        policy.load_state_dict(whole)

    def set_parameters(self, load_path_or_dict: Any, exact_match: bool = True, device: th.device | str = "auto") -> None:
        """
        Take over weights (and optimizers) into this agent.

        :param load_path_or_dict: an archive of ours, or a dict as ``get_parameters`` returns
        :param exact_match: see SB3
        :param device: see SB3
        """
        if isinstance(load_path_or_dict, dict):
            super().set_parameters(load_path_or_dict, exact_match, device)  # type: ignore[misc]
            return
        members = read_archive(load_path_or_dict)
        self._read_data(load_path_or_dict, members)
        self._set_policy_tensors(read_tensors(members, "policy.safetensors"))
        if "training.json" in members:
            state = tree_from_members(members, "training")
            with blamed_on(f"{load_path_or_dict}, its part for training,"):
                self._load_optimizers(state["optimizers"])

    def save_replay_buffer(self, path: PathOrFile) -> None:
        """
        Write the buffer's online rows and where its sampler stands, without a pickle; offline rows are the dataset's.

        :param path: file name (``.zip`` is added) or open binary file
        """
        if self.replay_buffer is None:  # type: ignore[attr-defined]
            raise ValueError("There is no buffer to save: call learn_offline(), set_dataset() or learn() first.")
        write_archive(path, tree_to_members(self.replay_buffer.state_dict(), "buffer"))  # type: ignore[attr-defined]

    def load_replay_buffer(self, path: PathOrFile, truncate_last_traj: bool = True) -> None:
        """
        Read what :meth:`save_replay_buffer` wrote; call ``set_dataset`` before, so that offline rows are there.

        :param path: file name or open binary file
        :param truncate_last_traj: accepted for SB3's signature
        """
        algorithm: Any = self
        if algorithm.replay_buffer is None:
            algorithm.replay_buffer = algorithm._make_buffer(
                None, algorithm.dataset_info.get("reward_scale", 1.0), algorithm.dataset_info.get("reward_shift", 0.0)
            )
        algorithm.replay_buffer.load_state_dict(tree_from_members(read_archive(path), "buffer"))
