"""Comparing what a file does with what the policy does."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch as th

from sb3_genoffline.deploy.acting import EPISODE_START, NEXT_STATE, REWARD, STATE, Acting
from sb3_genoffline.deploy.draws import DrawnInput, RecordedDraws
from sb3_genoffline.errors import UserError
from sb3_genoffline.files.untrusted import short
from sb3_genoffline.nets.blocks import undivided

_BATCHES, _CALLS = (1, 5), 3
_TOLERANCE = 1e-3  # of an action's range; candidates pass through many layers before one is chosen


def rehearse(
    agent: Any,
    acting: Acting,
    content: bytes,
    observations: Mapping[str, tuple[int, ...]],
    draws: Sequence[DrawnInput],
) -> None:
    """
    Let the file and the agent act side by side: once, or, if it remembers, in episodes that end at different times.

    :param agent: of this library
    :param acting: what the file was made of
    :param content: of the file
    :param observations: its inputs, and the shape of one observation in each
    :param draws: its inputs of random numbers
    :raises UserError: if the file does not act as the agent's ``predict``
    """
    session = _session(agent, content)
    for batch in _BATCHES:
        rng, state = np.random.default_rng(batch), None
        numbers = agent.policy.obs_mean.cpu().numpy().dtype
        kept = {name: np.zeros((batch, *shape), numbers) for name, shape in acting.memory.items()}
        starts, rewards = np.ones(batch, bool), np.zeros(batch)
        for _ in range(_CALLS if acting.memory else 1):
            told = {EPISODE_START: starts.astype(numbers), REWARD: rewards.astype(numbers)}
            flat = some_observations(agent.policy, batch, rng)
            with undivided(), untouched_stream(agent.policy), RecordedDraws() as recorded:
                expected, state = _acted(agent, acting, flat, state, starts)
            given = _divided(flat, observations) | {name: told.get(name, kept.get(name)) for name in acting.memory}
            for draw, (_, drawn) in zip(draws, recorded.numbers, strict=True):
                given[draw.name] = drawn.cpu().numpy().reshape(draw.sized(batch))
            found = dict(zip(acting.results, session.run(acting.results, given), strict=True))
            _compare_actions(agent, found.get("plan", found["action"][:, None]), expected, recorded.ties)
            kept = {name.replace(NEXT_STATE, STATE): part for name, part in found.items() if name.startswith(NEXT_STATE)}
            _compare_memory(agent, kept, state)
            starts, rewards = rng.random(batch) < 0.3, rng.normal(size=batch)
            agent.policy.observe_rewards(state, rewards)


def _session(agent: Any, content: bytes) -> Any:
    """:raises UserError: if onnxruntime can't run the file"""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors: that it can't fold a Mish of constants is none
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its classes have no base of their own
        numbers = agent.policy.obs_mean.dtype
        advice = (
            ""
            if numbers == th.float32
            else " It lacks some operations in this precision: train in single precision to export."
        )
        raise UserError(
            f"onnxruntime can't run the file of this {type(agent).__name__}, whose numbers are {numbers}: "
            f"{short(str(error))}{advice}"
        ) from error


def _acted(agent: Any, acting: Acting, flat: np.ndarray, state: Any, starts: np.ndarray) -> tuple[np.ndarray, Any]:
    """What the agent does in as many steps as a call of the file stands for, (B, k, A), and its state then."""
    expected = []
    for step in range(acting.n_actions):
        actions, state = agent.predict(flat, state, starts & (step == 0), deterministic=acting.deterministic)
        expected.append(actions)
    return np.stack(expected, axis=1), state


def _divided(flat: np.ndarray, observations: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """(B, S) as the file's inputs."""
    widths = np.cumsum([int(np.prod(shape)) for shape in observations.values()])[:-1]
    parts = zip(observations.items(), np.split(flat, widths, axis=1), strict=True)
    return {name: part.reshape(len(flat), *shape) for (name, shape), part in parts}


def _compare_actions(agent: Any, plans: np.ndarray, expected: np.ndarray, ties: Any) -> None:
    """:raises UserError: if they differ where rounding decided nothing"""
    space = agent.policy.action_space
    apart = (np.abs(plans - expected) / (space.high - space.low)).max(axis=(1, 2))
    wrong = ~(apart <= _TOLERANCE) & ~np.broadcast_to(np.asarray(ties), len(plans))
    if wrong.any():
        raise UserError(
            f"The file would not act as {type(agent).__name__}: for {len(plans)} observation(s) its actions are up to "
            f"{apart[wrong].max():.2g} of their range from predict's. Nothing was written."
        )


def _compare_memory(agent: Any, kept: Mapping[str, np.ndarray], state: Any) -> None:
    """:raises UserError: if the file would remember otherwise"""
    for name, part in kept.items():
        own = name.removeprefix(STATE)
        if not np.allclose(part, getattr(state, own), rtol=_TOLERANCE, atol=_TOLERANCE):
            raise UserError(
                f"The file would not act as {type(agent).__name__}: it would remember other {own} than predict. Nothing was "
                "written."
            )


def some_observations(policy: Any, batch: int, rng: np.random.Generator | None = None) -> np.ndarray:
    """(B, S) that are distributed as the data's where their statistics are known; without a generator always the same."""
    rng = rng or np.random.default_rng(batch)
    mean, std = policy.obs_mean.cpu().numpy(), policy.obs_std.cpu().numpy()
    numbers: np.ndarray = (mean + std * rng.normal(size=(batch, len(mean)))).astype(mean.dtype)
    return numbers


@contextmanager
def untouched_stream(policy: Any) -> Iterator[None]:
    """The stream of acting's random numbers stands afterwards where it stood."""
    generator = policy.acting_generator
    state = generator.get_state()
    try:
        yield
    finally:
        generator.set_state(state)
