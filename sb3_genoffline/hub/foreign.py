"""
Agents of stable-baselines3 and sb3-contrib, made ready to act without unpickling anything.

Their archives hold pickles wherever JSON has no word (classes, spaces, schedules), and beside each pickle its parts as text.
Here the pickles are never touched: the algorithm and its policy are found among those that these libraries have, spaces and
network shapes are read from the text, and the weights by ``torch.load(weights_only=True)``.
"""

import ast
import inspect
import io
import pickle
import pickletools
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common import torch_layers
from stable_baselines3.common.base_class import BaseAlgorithm
from torch import Tensor, nn

from sb3_genoffline.common.envs import spaces_only
from sb3_genoffline.common.policy_files import blamed_on, global_rng_preserved
from sb3_genoffline.data.flattening import spaces_differ
from sb3_genoffline.errors import UserError, printable
from sb3_genoffline.files.archive import CheckpointError, read_archive, write_archive
from sb3_genoffline.files.untrusted import MAX_SPACE_DIM, check_sizes, check_tensors, parse_json, short

_PICKLE = ":serialized:"
_SB3, _CONTRIB = "stable_baselines3", "sb3_contrib"
# Beginning of a file's name -> class
_BY_NAME = {
    **{name.lower(): (_SB3, name) for name in ("A2C", "DDPG", "DQN", "PPO", "SAC", "TD3")},
    **{name.lower(): (_CONTRIB, name) for name in ("ARS", "CrossQ", "MaskablePPO", "QRDQN", "RecurrentPPO", "TQC", "TRPO")},
    "ppo_mask": (_CONTRIB, "MaskablePPO"),
    "ppo_lstm": (_CONTRIB, "RecurrentPPO"),
}
_BY_POLICY = {
    **{f"{_SB3}.{name}.policies": (_SB3, name.upper()) for name in ("dqn", "sac", "td3")},
    **{f"{_CONTRIB}.{name}.policies": _BY_NAME[name] for name in ("ars", "crossq", "qrdqn", "tqc")},
    f"{_CONTRIB}.common.maskable.policies": (_CONTRIB, "MaskablePPO"),
    f"{_CONTRIB}.common.recurrent.policies": (_CONTRIB, "RecurrentPPO"),
}
# Nothing large for an agent that only acts
_SMALL_REPLAY, _SMALL_ROLLOUT = {"buffer_size": 1}, {"n_steps": 2, "batch_size": 2}
_KEPT = {"gamma": float, "use_sde": bool, "sde_sample_freq": int}
_CLASSES: dict[str, type] = {
    **{
        f"torch.nn.modules.activation.{cls.__name__}": cls
        for cls in (nn.ReLU, nn.Tanh, nn.ELU, nn.GELU, nn.SiLU, nn.LeakyReLU)
    },
    **{
        f"{cls.__module__}.{cls.__name__}": cls
        for cls in (torch_layers.FlattenExtractor, torch_layers.NatureCNN, torch_layers.CombinedExtractor)
    },
}
_TENSOR_PARTS = re.compile(r"torch \w+Storage|torch\._utils _rebuild_(tensor_v2|parameter)|collections OrderedDict")
_NOT_TO_ACT = (
    *("learning_rate", "lr_schedule", "clip_range", "clip_range_vf", "exploration_schedule", "train_freq", "target_entropy"),
    *("replay_buffer_class", "rollout_buffer_class", "replay_buffer_kwargs", "rollout_buffer_kwargs", "action_noise"),
    *("_last_obs", "_last_original_obs", "_last_episode_starts", "_last_lstm_states", "ep_info_buffer", "ep_success_buffer"),
    *("policy_class", "policy_kwargs", "observation_space", "action_space", "_vec_normalize_env"),
)


def load_foreign(
    path: Path,
    env: Any = None,
    device: th.device | str = "auto",
    trust_remote_code: bool = False,
    members: dict[str, bytes] | None = None,
) -> BaseAlgorithm:
    """
    An agent of stable-baselines3 or sb3-contrib that acts as the saved one. It is made to act: optimizers, buffers, schedules
    and callbacks are new and small, so that to train it on, ``trust_remote_code`` is needed.

    :param path: of the archive; its name or its policy says which algorithm it is of
    :param env: environment, needed where the spaces can't be read from the text (Dict and Tuple spaces, very large boxes)
    :param device: of the networks
    :param trust_remote_code: load it as stable-baselines3 does, which runs whatever code is in it
    :param members: contents of the archive, if it was read already
    :raises CheckpointError: if it is damaged, of an unknown algorithm or policy, or not to be trusted
    :raises ValueError: if the environment's spaces are not the agent's
    """
    members = read_archive(path) if members is None else members
    if "data" not in members or "policy.pth" not in members:
        raise CheckpointError(f"{path} is not an agent of stable-baselines3: it has no member 'data' or 'policy.pth'.")
    data = parse_json(members["data"], f"{path}: the member 'data'", strict=False)
    cls = _algorithm(path, data)
    env = gym.make(env) if isinstance(env, str) else env
    if trust_remote_code:
        return cls.load(path, env=env, device=device)
    weights = _weights(members["policy.pth"], path)
    dropped = [key for key, value in data.items() if _is_pickle(value) and key not in _NOT_TO_ACT]
    arguments, unread = _policy_arguments(data.get("policy_kwargs"))
    if dropped or unread:
        warnings.warn(
            f"{path.name}: left out, as reading them would run code: {printable(', '.join(sorted([*dropped, *unread])))}. "
            "If the agent acts by them, it will act otherwise.",
            stacklevel=3,
        )
    stored = tuple(
        None if env is not None else _space(data.get(f"{kind}_space"), kind, path) for kind in ("observation", "action")
    )
    if env is None:
        env = spaces_only(*stored)  # type: ignore[arg-type]
    else:
        _compare_spaces(data, env, path)
    with global_rng_preserved(), blamed_on(str(path)):
        check_sizes(
            arguments,
            _dimension(env.observation_space),
            _dimension(env.action_space),
            len(members["policy.pth"]) // 4,
        )
        known = inspect.signature(cls.__init__).parameters
        kept = {name: data[name] for name, kind in _KEPT.items() if name in known and isinstance(data.get(name), kind)}
        buffers = _SMALL_REPLAY if "buffer_size" in known else _SMALL_ROLLOUT
        small = {name: value for name, value in buffers.items() if name in known}
        policy: Any = _policy_class(cls, data, env.observation_space)
        settings: dict[str, Any] = {**kept, **small, "policy_kwargs": arguments, "device": device}
        agent = cls(policy, env, **settings)
    check_tensors(weights, agent.policy.state_dict(), f"{path}: policy.pth")
    agent.policy.load_state_dict(weights)
    agent.policy.set_training_mode(False)
    steps = data.get("num_timesteps")
    agent.num_timesteps = steps if isinstance(steps, int) else 0
    return agent


def _is_pickle(value: Any) -> bool:
    return isinstance(value, dict) and _PICKLE in value


def _algorithm(path: Path, data: Mapping[str, Any]) -> type[BaseAlgorithm]:
    """Of the classes that these libraries have, the one that the policy or the file's name points to."""
    policy = data.get("policy_class")
    module = policy.get("__module__") if isinstance(policy, dict) else None
    named = _BY_NAME.get(path.name.partition("-")[0].lower().removesuffix(".zip"))
    place = _BY_POLICY.get(module) if isinstance(module, str) else None
    if place == (_SB3, "TD3") and named == (_SB3, "DDPG"):
        place = named
    if module == f"{_SB3}.common.policies":
        place = _BY_NAME["ppo" if "clip_range" in data else "trpo" if "cg_max_steps" in data else "a2c"]
    place = place or named
    if place is None:
        raise CheckpointError(
            f"{path} is not of an algorithm that is known here (its policy is of {short(module)}): rename it to begin as in "
            f"'sac-', with one of {', '.join(_BY_NAME)}; or load it with the class that saved it."
        )
    if place[0] == _CONTRIB:
        import sb3_contrib as library
    else:
        import stable_baselines3 as library  # type: ignore[no-redef]
    cls: type[BaseAlgorithm] = getattr(library, place[1])
    return cls


def _policy_class(cls: type[BaseAlgorithm], data: Mapping[str, Any], observation_space: spaces.Space[Any]) -> Any:
    aliases = cls.policy_aliases
    policy = data.get("policy_class")
    text = policy.get("__init__") if isinstance(policy, dict) else None
    found = re.match(r"<function (\w+)\.__init__", text) if isinstance(text, str) else None
    for known in aliases.values():
        if found and known.__name__ == found.group(1):
            return known
    by_space = "MultiInputPolicy" if isinstance(observation_space, spaces.Dict) else "CnnPolicy"
    image = len(observation_space.shape or ()) == 3 or isinstance(observation_space, spaces.Dict)
    return aliases.get(by_space if image else "MlpPolicy", next(iter(aliases.values())))


def _policy_arguments(stored: Any) -> tuple[dict[str, Any], list[str]]:
    """``policy_kwargs`` without what only training needs, and the names of those that can't be read."""
    found: dict[str, Any] = {}
    unread = []
    for name, value in (stored if isinstance(stored, dict) else {}).items():
        if name.startswith((":", "optimizer")):
            continue
        if isinstance(value, str) and _is_pickle(stored):
            try:
                value = _read_text(value)
            except (ValueError, SyntaxError, MemoryError, RecursionError, KeyError):
                unread.append(f"policy_kwargs[{name!r}]")
                continue
        found[name] = value
    return found, unread


def _read_text(text: str) -> Any:
    cls = re.fullmatch(r"<class '([\w.]+)'>", text)
    if cls:
        return _CLASSES[cls.group(1)]
    if len(text) > 10_000:
        raise UserError("too long")
    return ast.literal_eval(text)


def _numbers(value: Any, count: int, uniform: Any) -> list[float]:
    """The numbers of an array that was printed; all the same if it was abridged and they are."""
    words = re.split(r"[\s,\[\]()]+", str(value).strip("[]() \n"))
    if "..." in words:
        words = [str(uniform)] * count
    if len(words) != count:
        raise UserError(f"{len(words)} numbers instead of {count}")
    return [float(word) for word in words]


def _space(stored: Any, kind: str, path: Path) -> spaces.Space[Any]:
    name = f"{path}: the {kind} space"
    kinds = re.search(r"spaces\.\w+\.(\w+)'", str(stored.get(":type:"))) if isinstance(stored, dict) else None
    try:
        if kinds is None or kinds.group(1) not in ("Box", "Discrete", "MultiDiscrete", "MultiBinary"):
            raise UserError(f"it is {kinds.group(1) if kinds else short(stored)}")
        if kinds.group(1) == "Box":
            shape = tuple(int(size) for size in re.findall(r"\d+", str(stored["_shape"])[:100]))
            count = int(np.prod(shape, dtype=object))
            if not 1 <= count <= MAX_SPACE_DIM or not re.fullmatch(r"(float|u?int)(8|16|32|64)", str(stored["dtype"])):
                raise UserError("its shape or dtype is out of bounds")
            dtype = np.dtype(str(stored["dtype"]))
            low, high = (
                np.array(_numbers(stored[key], count, stored.get(f"{key}_repr"))).reshape(shape).astype(dtype)
                for key in ("low", "high")
            )
            return spaces.Box(low, high, shape, dtype.type)
        if kinds.group(1) == "MultiDiscrete":
            sizes = [int(size) for size in re.findall(r"\d+", str(stored["nvec"]))]
        else:
            sizes = [int(str(stored["n"]))]
        if not sizes or not all(1 <= size <= MAX_SPACE_DIM for size in sizes) or sum(sizes) > MAX_SPACE_DIM:
            raise UserError("its size is out of bounds")
        if kinds.group(1) == "Discrete":
            return spaces.Discrete(sizes[0], start=int(str(stored.get("start") or 0)))
        return spaces.MultiDiscrete(sizes) if kinds.group(1) == "MultiDiscrete" else spaces.MultiBinary(sizes[0])
    except (KeyError, ValueError, TypeError, AssertionError, OverflowError, RecursionError) as error:
        raise CheckpointError(
            f"{name} can't be read without running code ({error}): pass env=, an environment that the agent was made for."
        ) from error


def _compare_spaces(data: Mapping[str, Any], env: Any, path: Path) -> None:
    for kind in ("observation", "action"):
        try:
            stored = _space(data.get(f"{kind}_space"), kind, path)
        except CheckpointError:
            continue  # the weights will say whether it fits
        difference = spaces_differ(stored, getattr(env, f"{kind}_space"))
        if difference is not None:
            raise UserError(
                f"The agent's {kind} space differs from the environment's: {difference} (agent against environment)."
            )


def _dimension(space: spaces.Space[Any]) -> int:
    return 512 if len(space.shape or ()) == 3 else int(spaces.flatdim(space))  # images go through a convolution first


def _check_opcodes(content: bytes) -> None:
    """PyTorch lets a file ask for more than plain tensors: sparse and meta ones, ``bytearray`` of any size."""
    for opcode, argument, _ in pickletools.genops(content):
        if opcode.name == "GLOBAL" and not _TENSOR_PARTS.fullmatch(str(argument)):
            raise UserError(f"it asks for {short(argument)}")


def _weights(content: bytes, path: Path) -> dict[str, Tensor]:
    try:
        members = read_archive(io.BytesIO(content))
        for name, member in members.items():
            if name.endswith(".pkl"):
                _check_opcodes(member)
        whole = io.BytesIO()
        write_archive(whole, members)  # what was checked, whatever another reader may see in the original
        whole.seek(0)
        weights = th.load(whole, map_location="cpu", weights_only=True)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: its member policy.pth is damaged or a zip bomb: {error}") from error
    except (pickle.UnpicklingError, RuntimeError, ValueError, TypeError, KeyError, EOFError, OSError, AttributeError) as error:
        reason = str(error).partition("\n")[0][:200]
        raise CheckpointError(
            f"{path}: its member policy.pth holds something other than tensors, or is damaged ({reason})."
        ) from error
    if not isinstance(weights, dict) or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in weights.items()):
        raise CheckpointError(f"{path}: its member policy.pth holds something other than tensors.")
    return weights
