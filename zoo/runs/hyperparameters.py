"""Hyper-parameters from YAML files and from the command line: values only, never code."""

import ast
import inspect
import json
import re
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stable_baselines3.common.utils import LinearSchedule

from sb3_genoffline.common.arguments import Argument, ArgumentTable, PositiveInt, nearest
from sb3_genoffline.common.offline_algorithm import AnyAlgorithm
from sb3_genoffline.errors import UserError
from sb3_genoffline.files.untrusted import short
from sb3_genoffline.registry import ALGOS

from . import reading, small
from .reading import named_values

_OWN = ("n_timesteps", "policy", "env_kwargs")
_FLAGS = {"seed": "--seed", "verbose": "--verbose", "tensorboard_log": "-tb"}
_NUMBER = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?")
_LONGEST_NUMBER = 100
_VERSION = re.compile(r"-v\d+$")
_MODULES = ("nn", "th.nn", "torch.nn", "optim", "th.optim", "torch.optim")
_WORDS = {"true": True, "false": False, "null": None}
_N_TIMESTEPS = Argument("n_timesteps", PositiveInt, 1)
_ENV_KWARGS = Argument("env_kwargs", dict[str, Any] | None, None)


@dataclass(frozen=True)
class Hyperparameters:
    """
    What a run is made of.

    :param plain: all values as plain data, as the run's ``config.yml`` keeps them
    :param arguments: keyword arguments of the algorithm's constructor
    :param n_timesteps: number of gradient updates
    :param policy: name of the policy class
    :param env_kwargs: arguments of the evaluation environment
    :param entry: the key of the file that was used
    """

    plain: dict[str, Any]
    arguments: dict[str, Any]
    n_timesteps: int
    policy: str
    env_kwargs: dict[str, Any]
    entry: str


def load_hyperparameters(
    algo: str,
    dataset: str,
    profile: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    conf_file: str | Path | None = None,
) -> Hyperparameters:
    """
    Merge, later ones winning: the dataset's entry (or ``default``), the profile's ``default`` and entry, the overrides.

    :param algo: name in ``ALGOS``
    :param dataset: id of the dataset, or the name of its file
    :param profile: name below ``profiles:``, or a file of its own (``.yml``) with what stands below such a name
    :param overrides: by name; values as in YAML
    :param conf_file: YAML file to read instead of the algorithm's :func:`own_file`
    :raises UserError: for an unknown algorithm, profile or key (naming the nearest), or a value of the wrong type
    :raises NotFoundError: if there is no such file
    """
    file = read_settings(algo, conf_file)
    entry = find_entry(file.entries, dataset)
    if entry is None:
        raise UserError(f"{_short(file.path)} has neither an entry for {dataset!r} nor a `default`: add one.")
    merged = named_values(file.entries[entry], f"{file.path}, {entry},")
    if profile == small.PROFILE:
        plain = make_hyperparameters(ALGOS[algo], merged, entry)
        merged = small.made_small(ALGOS[algo], plain.plain, unnamed_defaults(algo, plain))
    if profile is not None and (profile != small.PROFILE or profile in file.profiles):
        overlays, where = file.profile(profile)
        for key in dict.fromkeys(["default", find_entry(overlays, dataset) or "default"]):
            merged = deep_merge(merged, named_values(overlays.get(key), f"{where} {key},"))
    merged = deep_merge(merged, overrides or {})
    return make_hyperparameters(ALGOS[algo], merged, entry)


@dataclass(frozen=True)
class SettingsFile:
    """
    A file of hyper-parameters.

    :param path: of it
    :param entries: settings by dataset
    :param profiles: overlays by name
    :param search: values to try by name of the setting, see ``python -m zoo tune``
    """

    path: Path
    entries: dict[str, Any]
    profiles: dict[str, Any]
    search: dict[str, Any]

    def profile(self, name: str) -> tuple[dict[str, Any], str]:
        """
        :param name: of a profile, or of a file that holds one
        :return: the overlays by dataset, and where they stand, for errors
        """
        if name.endswith((".yml", ".yaml")):
            return read_yaml(Path(name)), f"{name},"
        if name not in self.profiles:
            known = ", ".join([*self.profiles, small.PROFILE])
            raise UserError(
                f"--profile {name!r} is not in {_short(self.path)}{nearest(name, self.profiles)} There are: {known}."
            )
        where = f"{self.path}, profile {name},"
        return named_values(self.profiles[name], where), where


def read_settings(algo: str, conf_file: str | Path | None = None) -> SettingsFile:
    """
    :param algo: name in ``ALGOS``
    :param conf_file: YAML file to read instead of the algorithm's :func:`own_file`
    """
    if algo not in ALGOS:
        raise UserError(f"--algo {algo!r} is not known{nearest(algo, ALGOS)} There are: {', '.join(ALGOS)}.")
    path = own_file(ALGOS[algo]) if conf_file is None else Path(conf_file)
    content = {"default": {}} if conf_file is None and not path.is_file() else read_yaml(path)
    profiles, search = (named_values(content.pop(name, None), f"{path}, {name},") for name in ("profiles", "search"))
    return SettingsFile(path, content, profiles, search)


def own_file(cls: type[AnyAlgorithm]) -> Path:
    """
    ``hyperparameters.yml`` beside the module of an algorithm, whoever wrote it. Where there is no such file, only the defaults
    of the constructors hold.
    """
    module = getattr(sys.modules.get(cls.__module__), "__file__", None)  # a class of a notebook has none
    return Path(module or f"{cls.name}/").with_name("hyperparameters.yml")


def read_yaml(path: Path) -> dict[str, Any]:
    """
    :param path: a YAML file with a mapping; tags that stand for Python objects are refused
    """
    if path.suffix not in (".yml", ".yaml"):
        raise UserError(f"{path} is not a YAML file (.yml, .yaml); hyper-parameters are values, so Python files are not read.")
    return reading.read_yaml(path, "YAML file")


def find_entry(content: Mapping[str, Any], dataset: str) -> str | None:
    """The key for a dataset: its id, else the same id in another version, else ``default`` (None if there is none either)."""
    stem = Path(dataset).stem if dataset.endswith((".hdf5", ".h5", ".npz")) else dataset
    names = [dataset, stem.replace("_", "-")]  # D4RL's files are named hopper_medium-v2
    for name in names:
        if name in content:
            return name
    unversioned = {_VERSION.sub("", key): key for key in content}
    for name in names:
        if _VERSION.sub("", name) in unversioned:
            return unversioned[_VERSION.sub("", name)]
    return "default" if "default" in content else None


def deep_merge(base: Mapping[str, Any], overlay: Mapping[str, Any]) -> dict[str, Any]:
    """``overlay`` over ``base``; where both hold a mapping (or a ``dict(...)`` string), key by key."""
    merged = dict(base)
    for key, value in overlay.items():
        old, new = parse_value(key, merged.get(key)), parse_value(key, value)
        both = isinstance(old, Mapping) and isinstance(new, Mapping)
        merged[key] = deep_merge(old, new) if both else new
    return merged


def parse_pairs(pairs: Sequence[str] | None) -> dict[str, Any]:
    """
    ``["rho:1.5", "policy_kwargs:dict(net_arch=[64, 64])"]`` as a mapping.

    :raises UserError: if there is no colon, or a value is code
    """
    result = {}
    for pair in pairs or ():
        key, colon, value = pair.partition(":")
        if not colon or not key:
            raise UserError(f"{short(pair)} is not a pair: write name:value, for example rho:1.5.")
        if key in result:
            raise UserError(f"{short(key)} is given twice: leave one out.")
        result[key] = parse_value(key, value)
    return result


def parse_value(name: str, value: Any) -> Any:
    """
    A value of a YAML file or of the command line: strings that spell a number, a list, a mapping or ``dict(a=1)`` become
    that; other strings stay strings. Nothing is evaluated.

    :raises UserError: for a string that spells anything else with brackets or a call
    """
    if isinstance(value, Mapping):
        return {key: parse_value(key, item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [parse_value(name, item) for item in value]
    if not isinstance(value, str):
        return value
    text = value.strip()
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    number = as_number(text)
    if number is not None:
        return number
    try:
        return _plain(ast.parse(text, mode="eval").body)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        if set(text) & set("()[]{}\n;="):
            raise UserError(
                f"{name}={value!r} is not a plain value ({error}): use numbers, words, lists, mappings or dict(name=value)."
            ) from error
    return text


def as_number(word: str) -> int | float | None:
    """The number that a word spells, if it spells one; ``1e6`` is a whole number, ``32.0`` is none."""
    if _NUMBER.fullmatch(word) is None or len(word) > _LONGEST_NUMBER:
        return None
    if not set(word) & set(".eE"):
        return int(word)
    value = float(word)
    return int(value) if set(word) & set("eE") and value.is_integer() else value


def _plain(node: ast.expr) -> Any:
    """The value of a literal expression, in which a name is a word; calls other than ``dict(...)`` are refused."""
    if isinstance(node, ast.Constant) and not isinstance(node.value, bytes | complex) and node.value is not ...:
        return node.value
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        value = _plain(node.operand)
        if isinstance(value, int | float):
            return -value
    if isinstance(node, ast.List | ast.Tuple):
        return [_plain(item) for item in node.elts]
    if isinstance(node, ast.Dict) and all(isinstance(key, ast.Constant) for key in node.keys):
        return {key.value: _plain(value) for key, value in zip(node.keys, node.values, strict=True)}  # type: ignore[union-attr]
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "dict" and not node.args:
        names = [keyword.arg for keyword in node.keywords]
        if None not in names:  # dict(**other)
            return {keyword.arg: _plain(keyword.value) for keyword in node.keywords}
    if isinstance(node, ast.Name):
        return _WORDS.get(node.id.lower(), node.id)
    if isinstance(node, ast.Attribute) and ast.unparse(node.value) in _MODULES:
        return node.attr  # rl-zoo's way to write an activation, nn.ReLU
    raise ValueError(f"{ast.unparse(node)!r} is not allowed")


def make_hyperparameters(cls: type[AnyAlgorithm], values: Mapping[str, Any], entry: str = "") -> Hyperparameters:
    """
    Turn names of schedules, activations and optimizers into objects, and let the tables of the algorithm and of its policy
    check everything.

    :param cls: the algorithm
    :param values: all hyper-parameters by name
    :param entry: where they come from
    :raises UserError: naming the key and the nearest known ones, or the value and what is allowed
    """
    table = cls.argument_table()
    plain = {}
    for key, raw in values.items():
        if key in _FLAGS:
            raise UserError(f"{key} is not a hyper-parameter here: use the flag {_FLAGS[key]}.")
        if key not in table.arguments and key not in table.refused and key not in _OWN:
            known = [name for name in (*_OWN, *table.arguments) if name not in _FLAGS]
            raise UserError(f"{cls.__name__} has no hyper-parameter {key!r}{nearest(key, known)}")
        plain[key] = parse_value(key, raw)
    env_kwargs = _ENV_KWARGS.check(plain.get("env_kwargs")) or {}
    plain["n_timesteps"] = _N_TIMESTEPS.check(plain.get("n_timesteps", cls.default_gradient_steps))
    policy = plain.setdefault("policy", next(iter(cls.policy_aliases)))
    if not isinstance(policy, str) or policy not in cls.policy_aliases:
        raise UserError(f"policy={short(policy)} is not known{nearest(policy, cls.policy_aliases)}")
    arguments = table.check({key: _as_object(key, value, table) for key, value in plain.items() if key not in _OWN})
    if arguments.get("policy_kwargs") is not None:
        policy_table: ArgumentTable = cls.policy_aliases[policy].argument_table()  # type: ignore[attr-defined]
        kwargs = {key: _as_object(key, value, policy_table) for key, value in arguments["policy_kwargs"].items()}
        arguments["policy_kwargs"] = policy_table.check(kwargs, "policy_kwargs: ")
    return Hyperparameters(plain, arguments, plain["n_timesteps"], policy, env_kwargs, entry)


def _as_object(key: str, value: Any, table: ArgumentTable) -> Any:
    """What a word stands for: ``lin_3e-4`` a schedule, ``relu`` or ``nn.ReLU`` a class; other values as they are."""
    if not isinstance(value, str) or key not in table.arguments:
        return value
    if key.endswith("learning_rate"):
        return _schedule(key, value)
    classes = table.arguments[key].classes
    if not classes:
        return value
    name = value.rpartition(".")[2].lower().replace("_", "")
    for known, cls in classes.items():
        if known.lower() == name:
            return cls
    raise UserError(
        f"{table.owner}: {key}={value!r} is not known{nearest(name, map(str.lower, classes))} Use one of {', '.join(classes)}."
    )


def unnamed_defaults(algo: str, hyperparameters: Hyperparameters) -> dict[str, Any]:
    """
    What holds where the hyper-parameters say nothing: the defaults of the constructors of the algorithm and of its policy.

    :param algo: name in ``ALGOS``
    :param hyperparameters: of it
    :return: plain data by name, those of the policy under ``policy_kwargs``
    """
    cls = ALGOS[algo]
    own = cls.argument_table().arguments
    policy = cls.policy_aliases[hyperparameters.policy].argument_table().arguments  # type: ignore[attr-defined]
    given = hyperparameters.arguments.get("policy_kwargs") or {}
    return {
        **plain_defaults(own, {*hyperparameters.plain, *_FLAGS, "policy_kwargs"}),
        "policy_kwargs": plain_defaults(policy, {*given, *own}),
    }


def plain_defaults(arguments: Mapping[str, Argument], besides: Collection[str]) -> dict[str, Any]:
    """Defaults as plain data, of all arguments but those named in ``besides``."""
    found = {
        name: argument.default
        for name, argument in arguments.items()
        if argument.default is not inspect.Parameter.empty and name not in besides
    }
    return dict(json.loads(json.dumps(found, default=lambda value: getattr(value, "__name__", type(value).__name__))))


def _schedule(name: str, text: str) -> LinearSchedule:
    """``lin_3e-4``: linear from 3e-4 to 0 over the run."""
    kind, _, number = text.partition("_")
    if kind != "lin" or not _NUMBER.fullmatch(number):
        raise UserError(f"{name}={text!r} is not a schedule: use a number, or lin_3e-4 for a linear decay from 3e-4 to 0.")
    return LinearSchedule(float(number), 0.0, 1.0)


def _short(path: Path) -> str:
    """``dac/hyperparameters.yml`` of our own files, which all have the same name; of others the path as it was given."""
    return f"{path.parent.name}/{path.name}" if path in map(own_file, ALGOS.values()) else str(path)
