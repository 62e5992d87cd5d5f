"""Setting an argument on a live agent works at once, and a copy by file agrees; or it is refused and nothing has changed."""

import io
from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin

import pytest
import torch as th
from stable_baselines3.common.utils import LinearSchedule
from worlds import KINDS, differing, make_agent, members, snapshot

from sb3_genoffline import ALGOS, OfflineDataset, UserError
from sb3_genoffline.common.arguments import Argument
from sb3_genoffline.common.offline_algorithm import OfflineAlgorithm

# For arguments of which no rule gives another value
OTHERS: dict[str, list[Any]] = {
    "learning_rate": [5e-4, LinearSchedule(1e-3, 1e-4, 0.5)],
    "critic_learning_rate": [None, 5e-4, LinearSchedule(1e-3, 1e-4, 0.5)],
    "train_freq": [(3, "step"), (1, "episode")],
    "reward_transform": [None, "iql_antmaze"],
    "policy_kwargs": [{"net_arch": [4]}],
    "flow_betas": [[0.5, 0.9]],
    "discriminator_betas": [[0.4, 0.8]],
    "alpha_schedule": ["antmaze", [[0, 3.0], [2, 1.0]]],
    "density": ["a-file"],
    "q_sampler": ["a-file"],
    "behavior": ["a-file"],
    "behavior_and_q": ["a-file"],
}


BEFORE_TRAINING = (*KINDS, "cped", "dac")


def literals(hint: Any) -> Iterator[Any]:
    if get_origin(hint) is Literal:
        yield from get_args(hint)
    else:
        for part in get_args(hint):
            yield from literals(part)


def accepts(argument: Argument, value: Any) -> bool:
    try:
        argument.check(value)
    except UserError:
        return False
    return True


def other_values(argument: Argument, current: Any) -> list[Any]:
    """Valid values that are not the current one: one number, and each word."""
    if argument.name in OTHERS:
        return OTHERS[argument.name]
    if isinstance(current, bool):
        return [not current]
    numbers = [current / 2, current + 1, current * 2] if isinstance(current, int | float) else []
    found = [value for value in [*numbers, 0.5, 1, 2, 3] if accepts(argument, value) and argument.check(value) != current][:1]
    found += [word for word in literals(argument.hint) if word != current]
    return found + ([None] if accepts(argument, None) and current is not None else [])


def copy_of(model: OfflineAlgorithm, source: bytes | None = None) -> OfflineAlgorithm:
    file = io.BytesIO(source or b"")
    if source is None:
        model.save(file)
        file.seek(0)
    return type(model).load(file, device="cpu")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("algo", "n_updates"), [*((algo, 3) for algo in ALGOS), *((algo, 0) for algo in BEFORE_TRAINING)])
def test_a_live_setting_works_at_once_or_is_refused_and_leaves_the_agent(
    algo: str, dataset: OfflineDataset, n_updates: int
) -> None:
    live = make_agent(algo)
    if n_updates:
        live.learn_offline(dataset, n_updates, log_interval=None)
    before, start = snapshot(live), io.BytesIO()
    live.save(start)
    scratch = copy_of(live, start.getvalue())
    rounds: list[dict[str, Any]] = []
    for name, argument in ALGOS[algo].argument_table().arguments.items():
        values = other_values(argument, getattr(live, name))
        assert values, f"no other value of {name} is known"
        for number, value in enumerate(values):
            try:
                setattr(scratch, name, value)
            except UserError as error:
                assert name in str(error), f"{error} does not name {name}"
                try:
                    setattr(live, name, value)
                except UserError:
                    continue
                live = copy_of(live, start.getvalue())  # it was refused beside the values before it only
            rounds += [{}] if number >= len(rounds) else []
            rounds[number][name] = value
    assert differing(before, snapshot(live)) == [], "a refused setting has left a trace"
    while rounds:  # all arguments at once, as long as they go together
        settings, apart = rounds.pop(), dict[str, Any]()
        model = copy_of(live, start.getvalue())
        for name, value in settings.items():
            try:
                setattr(model, name, value)
            except UserError:
                apart[name] = value
        if len(apart) == len(settings):  # it was taken beside a setting that does without the fitted model
            assert apart.keys() <= set(ALGOS[algo].fitted_model_units), apart
            continue
        rounds += [apart] if apart else []
        copy = copy_of(model)
        for one in (model, copy):
            one.learn_offline(dataset, 2, log_interval=None, reset_num_timesteps=False)
        assert differing(snapshot(model), snapshot(copy)) == [], settings


def test_what_a_setting_restarts_is_said_by_the_agent(dataset: OfflineDataset) -> None:
    model: Any = make_agent("dac").learn_offline(dataset, 3)
    moved = model.eta_tensor.clone()
    model.eta = 0.25
    assert model.eta_tensor == 0.25 and not th.equal(moved, model.eta_tensor)
    assert members(model).keys() == members(copy_of(model)).keys()
