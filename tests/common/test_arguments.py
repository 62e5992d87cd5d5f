"""
Every argument of every algorithm and policy, against odd values: each is refused by a sentence that names the argument, or
makes an agent that trains, is saved, and goes on as if nothing had happened.
"""

import io
import re
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch as th
from worlds import ACTION_SPACE, OBSERVATION_SPACE, SHARED, TRAINING_SETTINGS, differing, small_settings, snapshot

from sb3_genoffline import ALGOS, OfflineDataset, UserError
from sb3_genoffline.common.arguments import Argument
from sb3_genoffline.common.learner import Learner
from sb3_genoffline.common.offline_algorithm import OfflineAlgorithm
from sb3_genoffline.common.policies import ActorCriticPolicy
from sb3_genoffline.errors import DivergedError

NUMBERS: list[Any] = [0, 1, 2, 0.5, True, False, 2.0, 0.0, -1, -0.5, np.int64(2), np.int32(-1), np.uint8(2), np.float32(0.5)]
NUMBERS += [np.float64(2.0), np.bool_(True), np.array(2), 2 + 0j, th.tensor(2), float("nan"), float("inf"), -float("inf")]
HUGE: list[Any] = [2**40, 2**70, 1e30, 1e39, -(2**70)]
OTHERS: list[Any] = ["", "2", "word", b"word", None, [], [2], [0.5, 0.5], [0, 0], [-1, 2], ["a"], (2, 2), np.array([2, 2]), {}]
OTHERS += [
    {"a": 1},
    {"pi": [2]},
    {"pi": [4], "qf": [4]},
    lambda progress: 1e-3,
    print,
    object(),
    int,
    th.nn.ReLU,
    th.nn.Linear,
]
OTHERS += [th.optim.SGD, [[0, 1.0]], [[0, float("nan")]], [None], {2}, range(3), ...]
# How much is made or done: what is too large here is for the machine to say
AMOUNTS = re.compile(r"^n_|_steps$|batch_size|buffer_size|^window$|stride$|^cd_n$|bins|transforms|latent_dim|layers|_dim$")
Key = tuple[str, str]
"""Where an argument is given, "" or "policy_kwargs", and its name."""


def make(algo: str, settings: dict[Key, Any], **more: Any) -> OfflineAlgorithm:
    arguments = SHARED | small_settings(algo)
    policy_kwargs = dict(arguments.pop("policy_kwargs"))
    for (where, name), value in settings.items():
        (policy_kwargs if where else arguments)[name] = value
    arguments = {"policy_kwargs": policy_kwargs} | arguments  # policy_kwargs itself may be among the settings
    return ALGOS[algo]("MlpPolicy", (OBSERVATION_SPACE, ACTION_SPACE), **(arguments | more))


def arguments_of(algo: str) -> Iterator[tuple[Key, Argument]]:
    """All of TD3+BC's; of the others those that they or their policies have themselves: what is shared is asked once."""
    cls = ALGOS[algo]
    policy: Any = cls.policy_aliases["MlpPolicy"]
    shared = (
        set() if algo == "td3_bc" else {*Learner.argument_table().arguments, *ActorCriticPolicy.argument_table().arguments}
    )
    for name, argument in cls.argument_table().arguments.items():
        if name not in shared:
            yield ("", name), argument
    for name, argument in policy.argument_table().arguments.items():
        known = name in cls.argument_table().arguments or name in shared
        if not known and not name.startswith("features_extractor"):  # see test_sb3_keys.py
            yield ("policy_kwargs", name), argument


def passes(argument: Argument, value: Any) -> bool:
    """Whether the table takes a value; if not, by a sentence that names the argument and ends in a full stop."""
    try:
        argument.check(value)
    except UserError as error:
        assert re.match(rf"{argument.name}=.+ (must|is|has|can't) .*\.$", str(error), re.S), str(error)
        assert len(str(error)) < 400, str(error)
        return False
    return True


def telling(values: list[Any]) -> list[Any]:
    """Of numbers the smallest, zero and the largest: what lies between is like the usual one. All that is no number."""
    numbers = [value for value in values if isinstance(value, int | float | np.number) and not isinstance(value, bool)]
    kept = {id(value) for value in (min(numbers), max(numbers), *(n for n in numbers if n == 0))} if numbers else set()
    return [value for value in values if id(value) in kept or not any(value is number for number in numbers)]


def trains_saves_and_goes_on(algo: str, settings: dict[Key, Any], data: OfflineDataset) -> None:
    """Two updates, a copy by file, one more update of both; they agree bit for bit."""
    model = make(algo, settings).learn_offline(data, 2, log_interval=None)
    file = io.BytesIO()
    model.save(file)
    loaded = type(model).load(file, device="cpu")
    assert differing(snapshot(model), snapshot(loaded)) == []
    for one in (model, loaded):
        one.learn_offline(data, 1, log_interval=None, reset_num_timesteps=False)
    assert differing(snapshot(model), snapshot(loaded)) == []


def goes_on_or_is_refused_by_name(algo: str, settings: dict[Key, Any], data: OfflineDataset) -> None:
    """All settings at once, as long as they go together; a refused one alone, and what diverges in halves, down to one."""
    try:
        trains_saves_and_goes_on(algo, settings, data)
        return
    except DivergedError:
        if len(settings) == 1:
            return  # the value was tried, and its numbers were noticed
        keys = sorted(settings, key=lambda key: "rate" not in key[1] and not key[1].endswith("_lr"))  # most likely too high
        apart = keys[: len(keys) // 2]
    except UserError as error:
        apart = [key for key in settings if re.search(rf"\b{key[1]}\b", str(error))][:1]
        assert apart, f"{error} names none of {settings}"
        if len(settings) == 1:
            return
    for keys in (apart, [key for key in settings if key not in apart]):
        goes_on_or_is_refused_by_name(algo, {key: settings[key] for key in keys}, data)


@pytest.mark.filterwarnings("ignore")
def test_an_odd_value_is_refused_by_name_or_trains_saves_and_resumes(algo: str, dataset: OfflineDataset) -> None:
    rounds: list[dict[Key, Any]] = [{("", name): value for name, value in TRAINING_SETTINGS.items()}]
    plain = make(algo, {}, _init_setup_model=False)
    for key, argument in arguments_of(algo):
        where, name = key
        refused = [value for value in [*NUMBERS, *HUGE, *OTHERS] if not passes(argument, value)]
        if name == "verbose":
            continue  # prints
        if refused:  # the constructor asks the table
            with pytest.raises(UserError, match=rf"\b{name}="):
                make(algo, {key: refused[0]})
        effects: dict[str, Any] = {}
        for value in [*NUMBERS, *HUGE, *OTHERS]:
            if not any(value is one for one in refused):
                effects.setdefault(repr(argument.check(value)), value)
        effects.pop(repr(getattr(plain, name, None)) if not where else "", None)
        values = [v for v in effects.values() if not (any(v is one for one in HUGE) and (AMOUNTS.search(name) or v != 2**40))]
        for number, value in enumerate(telling(values)):
            rounds += [{}] if number == len(rounds) else []
            rounds[number][key] = value
    for settings in rounds:
        goes_on_or_is_refused_by_name(algo, settings, dataset)


def test_every_argument_has_an_annotation_that_says_more_than_anything(algo: str) -> None:
    for (_, name), argument in arguments_of(algo):
        assert argument.hint is not Any, name


def test_numbers_become_plain_ones_and_what_is_no_number_stays_refused() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = make(
            "td3_bc", {("", "batch_size"): np.int64(7), ("", "policy_delay"): np.uint8(3), ("", "alpha"): np.float32(0.5)}
        )
    assert (type(model.batch_size), type(model.policy_delay), type(model.alpha)) == (int, int, float)
    for name, value in (
        ("policy_delay", True),
        ("policy_delay", 3.0),
        ("normalize_observations", 1),
        ("alpha", "2"),
        ("alpha", False),
    ):
        with pytest.raises(UserError, match=f"{name}={value!r} must be"):
            make("td3_bc", {("", name): value})
