"""The policy that is judged, as actions for given observations; asking it leaves it as it was."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces

from sb3_genoffline.common.policies import OfflinePolicy
from sb3_genoffline.common.policy_files import global_rng_preserved
from sb3_genoffline.data import OfflineDataset
from sb3_genoffline.data.blocks import row_blocks
from sb3_genoffline.data.transforms import scale_actions
from sb3_genoffline.errors import UserError
from sb3_genoffline.files.untrusted import short

_PROBE_SEED, _ALIKE = 0, 1e-3


@dataclass(frozen=True)
class Probe:
    """
    What a policy does in a few states, by which it is told from others.

    :param actions: (K, A) scaled to [−1, 1]; None of a policy that draws from numbers which nobody can repeat
    :param deterministic: asked so
    :param device: kind of device that it draws on; None of one that does not draw
    """

    actions: np.ndarray | None
    deterministic: bool
    device: str | None

    def as_dict(self) -> dict[str, Any]:
        """For a file."""
        actions = None if self.actions is None else th.as_tensor(self.actions)
        return {"actions": actions, "deterministic": self.deterministic, "device": self.device}

    def matches(self, other: "Probe | dict[str, Any]") -> bool:
        """
        :param other: probed in the same states, or what :meth:`as_dict` returned, which is not trusted
        :return: False if it is another policy; draws on another kind of device tell nothing
        """
        theirs = other if isinstance(other, Probe) else Probe(other["actions"], other["deterministic"], other["device"])
        if theirs.deterministic is not self.deterministic:
            return False
        if self.actions is None or theirs.actions is None:
            return self.actions is theirs.actions
        if self.device != theirs.device:
            return self.device is not None and theirs.device is not None
        actions = np.asarray(theirs.actions)
        return actions.shape == self.actions.shape and bool(np.allclose(actions, self.actions, rtol=0.0, atol=_ALIKE))


class TargetPolicy:
    """
    Actions of any agent or policy with SB3's ``predict``, scaled to [−1, 1]. What it draws comes from a stream of random
    numbers of its own: the agent's training and acting streams stand afterwards where they stood.

    :param model: an agent or policy of this library or SB3's, or anything with ``predict(observations, deterministic=...)``
    :param action_space: bounded Box of the data
    :param deterministic: ask for ``predict(deterministic=True)``, which still draws where the policy chooses among samples
    :param seed: of its stream
    """

    def __init__(self, model: Any, action_space: spaces.Box, deterministic: bool = True, seed: int = 0) -> None:
        if isinstance(model, type):
            raise UserError(f"{model.__name__} is a class, not an agent: make and train one, or load one.")
        if not callable(getattr(model, "predict", None)):
            raise UserError(f"{type(model).__name__} has no predict, so it can't be judged: give an agent or a policy.")
        self.model, self.action_space, self.deterministic = model, action_space, deterministic
        policy = getattr(model, "policy", model)
        self._policy = policy if isinstance(policy, OfflinePolicy) else None
        check_acts_by_observation(model)
        self.seed = seed
        self._generator = None if self._policy is None else th.Generator(self._policy.device)
        self.restart()

    def with_seed(self, seed: int) -> "TargetPolicy":
        """:param seed: of the stream of the same policy that is returned"""
        return TargetPolicy(self.model, self.action_space, self.deterministic, seed)

    def probe(self, observations: np.ndarray) -> Probe:
        """
        :param observations: (K, S) few states
        :return: what it does there, with a stream of its own
        """
        other = self.with_seed(_PROBE_SEED)
        first, second = other.actions(observations)[:, 0], other.actions(observations)[:, 0]
        other.restart()
        if not np.array_equal(other.actions(observations)[:, 0], first):
            return Probe(None, self.deterministic, None)
        device = "cpu" if self._policy is None else self._policy.device.type
        return Probe(first, self.deterministic, None if np.array_equal(first, second) else device)

    def restart(self) -> None:
        """Restart the stream of random numbers."""
        self._state = th.Generator().manual_seed(self.seed).get_state()
        if self._generator is not None:
            self._generator.manual_seed(self.seed)

    def stream(self) -> list[th.Tensor]:
        """Where the stream of random numbers stands."""
        return [self._state] if self._generator is None else [self._state, self._generator.get_state()]

    def set_stream(self, stream: list[th.Tensor]) -> None:
        """:param stream: as :meth:`stream` returns it"""
        self._state = stream[0].cpu()
        if self._generator is not None:
            self._generator.set_state(stream[1].cpu())

    def actions(self, observations: np.ndarray, n: int = 1) -> np.ndarray:
        """
        :param observations: (B, S) as in the data
        :param n: actions for each
        :return: float32 (B, n, A), in [−1, 1]
        :raises UserError: if what the policy returns are no actions of the space, or not finite
        """
        drawn = np.empty((len(observations), n, *self.action_space.shape), dtype=np.float32)
        with self._own_stream():
            for block in row_blocks(len(observations)):
                rows = np.repeat(observations[block], n, axis=0)
                chosen, _ = self.model.predict(rows, deterministic=self.deterministic)
                drawn[block] = self._checked(np.asarray(chosen), len(rows)).reshape(-1, n, *self.action_space.shape)
        return drawn

    def _checked(self, actions: np.ndarray, n_rows: int) -> np.ndarray:
        expected = (n_rows, *self.action_space.shape)
        if actions.shape != expected:
            raise UserError(f"The policy returned actions of shape {actions.shape} for {n_rows} observations, not {expected}.")
        if not np.isfinite(actions).all():
            raise UserError("The policy returned actions that are not finite: it can't be judged.")
        return scale_actions(np.clip(actions, self.action_space.low, self.action_space.high), self.action_space)

    def draws(self, observations: np.ndarray) -> bool:
        """
        :param observations: (B, S)
        :return: whether two calls give different actions
        """
        return not np.array_equal(self.actions(observations), self.actions(observations))

    @contextmanager
    def _own_stream(self) -> Iterator[None]:
        with global_rng_preserved():
            th.set_rng_state(self._state)
            policy = self._policy
            if policy is None:
                yield
            else:
                kept, policy._acting_generator = policy._acting_generator, self._generator
                try:
                    yield
                finally:
                    policy._acting_generator = kept
            self._state = th.get_rng_state()


def check_acts_by_observation(model: Any) -> None:
    """
    :param model: an agent or a policy
    :raises UserError: if its actions depend on more than the observation: logged rows can't judge those
    """
    policy = getattr(model, "policy", model)
    if getattr(policy, "has_memory", False):
        raise UserError(
            f"{type(policy).__name__} acts by its history, and what is judged here acts by the observation alone: "
            "evaluate it in its environment."
        )


def few_rows(dataset: OfflineDataset) -> np.ndarray:
    """
    :param dataset: rows
    :return: (K, S) states that policies are told apart by, from all over the data
    """
    return np.asarray(dataset.observations[np.unique(np.linspace(0, len(dataset) - 1, 32).astype(int))])


def one_each(values: Any, n_rows: int, name: str) -> np.ndarray:
    """
    :param values: what a function of rows returned
    :param n_rows: B
    :param name: of the function, for the error
    :return: (B,)
    :raises UserError: if they are no finite number for each row
    """
    return _returned(values, (n_rows,), name)


def _returned(values: Any, shape: tuple[int, ...], name: str) -> np.ndarray:
    try:
        found = np.asarray(values)
        good = bool(np.isfinite(found).all())
    except (TypeError, ValueError) as error:
        raise UserError(f"{name} returned {short(values)}, which are no numbers: return an array {shape}.") from error
    if found.shape != shape:
        raise UserError(f"{name} returned an array of shape {found.shape} for {shape[0]} rows: return one of shape {shape}.")
    if not good:
        raise UserError(f"{name} returned numbers that are not finite: nothing can be said of them, so mend it.")
    return found


def actions_of(values: Any, dataset: OfflineDataset, n_rows: int, name: str) -> np.ndarray:
    """
    :param values: what a policy returned
    :param dataset: whose actions they stand beside
    :param n_rows: B
    :param name: of the policy, for the error
    :return: (B, A)
    :raises UserError: if they are no finite actions, one for each row
    """
    return _returned(values, (n_rows, *dataset.action_space.shape), name)
