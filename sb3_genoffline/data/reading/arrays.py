"""Datasets from flat arrays by name, as a dict, an HDF5 file in D4RL's layout or a ``.npz`` file has them."""

import contextlib
import math
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces

from sb3_genoffline.data.antmaze import TERMINALS
from sb3_genoffline.data.chain import SINGLE, chain_breaks, chain_ends
from sb3_genoffline.data.dataset import OfflineDataset
from sb3_genoffline.data.environments import resolve_env
from sb3_genoffline.data.flattening import flat_observation_space, flatten_observations, is_image
from sb3_genoffline.data.scores import reference_key
from sb3_genoffline.data.validation import flag_rows, float_rows, numeric_array
from sb3_genoffline.errors import UserError

# Our name of each array, and the names it may come under.
KEYS = {
    "observations": ("observations", "obs"),
    "actions": ("actions",),
    "rewards": ("rewards",),
    "next_observations": ("next_observations", "next_obs"),
    "terminations": TERMINALS,
    "truncations": ("truncations", "timeouts"),
    "episode_ends": ("episode_ends",),
    "observation_space": ("observation_space",),
    "action_space": ("action_space",),
}
REQUIRED = ("observations", "actions", "rewards", "terminations")
# Where the user marked ends, a row that is not marked is one only if the state leaps by so many mean steps behind it.
_LEAP = 10.0
# Step limits of the D4RL tasks whose files may lack a `timeouts` array.
STEP_LIMITS = {"hopper": 1000, "halfcheetah": 1000, "walker2d": 1000, "ant": 1000, "antmaze": 1000}


def from_arrays(arrays: Mapping[str, Any], env: Any = None, name: str = "the dict", id: str | None = None) -> OfflineDataset:
    """
    Build a dataset from flat arrays, one row per step.

    Accepted keys (the first of each is ours): ``observations``/``obs``, ``actions``, ``rewards``,
    ``terminations``/``terminals``/``dones`` (true ends only, not time-outs), and optionally
    ``next_observations``/``next_obs``, ``truncations``/``timeouts``, ``episode_ends``, ``observation_space`` and
    ``action_space`` (a ``Box``, or its bounds ``[low, high]``, two numbers or two rows, as a file can hold them). D4RL's
    ``infos/...`` and ``metadata/...`` are ignored. ``dones`` may include time-outs if these are given too: as in SB3, a step
    that is both then counts as a time-out.

    **With** ``next_observations`` every row is kept.

    **Without** them row i's next observation is row i + 1's observation, as in D4RL's "q-learning" view. Rows flagged as
    time-outs have no valid next observation and are dropped, terminal or not; the row before is marked truncated unless it is
    terminal. A last row that is neither is dropped too. If there is no ``truncations``/``timeouts`` key, rows that reach the
    step limit (from ``env``, or known for D4RL names) are dropped instead. Two things differ from D4RL's view: a terminal row
    gets its *own* observation as its next one, where D4RL puts the first of another episode (it is never bootstrapped from, so
    only a leak is lost), and a terminal last row, which needs no next one, is kept.

    An episode ends at a termination, a time-out, where the next observation is not the next row's observation, and at the last
    row; ends that are not terminations are marked as truncations, but for the last row's: what the arrays don't end there is
    an episode that the log has cut, which stays unmarked. The next observation may differ by rounding in the type the
    arrays come in, and by a hundredth of the mean step of the column. Where time-outs are marked they count: an unmarked row
    ends an episode only where the state leaps by more than ten mean steps, with a warning. Given ``episode_ends`` count
    instead of all this; they need ``next_observations``.

    :param arrays: The arrays by name.
    :param env: Environment or id that gives the spaces. Without it observations are unbounded and actions lie in [-1, 1].
    :param name: What to call the source in an error.
    :param id: Id of the dataset.
    :raises UserError: If a needed key is missing or a key is not known.
    :raises UserError: On bad contents.
    """
    found = _known_keys(arrays, name)
    observation_space, action_space, spec = _spaces(found, env)
    raw: dict[str, Any] = {
        "observations": found["observations"],
        "actions": found["actions"],
        "rewards": found["rewards"],
        "terminations": flag_rows("terminations", found["terminations"]),
    }
    timeouts = flag_rows("truncations", found["truncations"]) if "truncations" in found else None
    has_next = "next_observations" in found
    if has_next:
        raw["next_observations"] = found["next_observations"]
    for key in ("observations", "next_observations"):
        if key in raw:
            raw[key] = _flat_rows(key, raw[key], observation_space)
    raw["actions"] = _rows("actions", raw["actions"])
    raw["rewards"] = float_rows("rewards", raw["rewards"], None)
    n_rows = len(raw["observations"])
    for key, array in [*raw.items(), ("truncations", timeouts)]:
        if array is not None and len(array) != n_rows:
            raise UserError(
                f"{key} in {name} has {len(array)} rows, but observations has {n_rows}. "
                "Every array needs one row per transition."
            )
    if n_rows == 0:
        raise UserError(f"{name} is empty: it holds no transition. At least one is needed.")
    if "dones" in arrays and timeouts is not None:
        raw["terminations"] = raw["terminations"] & ~timeouts

    episode_ends = found.get("episode_ends")
    if not has_next:
        if episode_ends is not None:
            raise UserError(
                f"{name} has episode_ends but no next_observations; give both, or use truncations to mark the ends."
            )
        if timeouts is None:
            timeouts = _limit_rows(raw["terminations"], _step_limit(spec, id), name)
        raw, timeouts = _q_learning_view(raw, timeouts, name)
    if timeouts is None:
        timeouts = np.zeros(n_rows, dtype=np.bool_)
    ended = raw["terminations"] | timeouts
    if episode_ends is None:
        ends_here = _ends(raw, timeouts, max(map(_eps, (found["observations"], found.get("next_observations")))), name)
        episode_ends = np.flatnonzero(ends_here) + 1
        ends_here[-1] = ended[-1]  # the log may stop in the middle of an episode
    else:
        ends_here = np.zeros(n_rows, dtype=np.bool_)
        inside = numeric_array("episode_ends", episode_ends).astype(np.int64) - 1
        ends_here[inside[(inside >= 0) & (inside < n_rows)]] = True
    return OfflineDataset(
        **raw,
        truncations=timeouts | (ends_here & ~raw["terminations"]),
        observation_space=flat_observation_space(observation_space),
        action_space=action_space if action_space is not None else _unit_box(raw["actions"]),
        episode_ends=episode_ends,
        id=id,
        env_spec=spec,
    )


def _ends(raw: dict[str, Any], timeouts: np.ndarray, eps: float, name: str) -> np.ndarray:
    """The last rows of episodes whose ends are not given by number; bool ``(N,)``."""
    marked = np.asarray(raw["terminations"] | timeouts)
    marked[-1] = True
    if not timeouts.any():
        return np.asarray(marked | chain_ends(raw["observations"], raw["next_observations"], eps))
    leaps = np.append(chain_breaks(raw["observations"], raw["next_observations"], eps, _LEAP), False) & ~marked
    if leaps.any():
        warnings.warn(
            f"In {name} the state leaps in {leaps.sum()} rows that are not marked as time-outs or terminations, first "
            f"behind row {np.argmax(leaps)}: the next observation is far from the next row's observation. Episodes are cut "
            "there; give episode_ends if they are not.",
            stacklevel=4,
        )
    return np.asarray(marked | leaps)


def _eps(values: Any) -> float:
    """Rounding of the type that observations come in, nested or not; that of float32 at least, which they are stored in."""
    if isinstance(values, Mapping | tuple):
        return max([SINGLE, *map(_eps, values.values() if isinstance(values, Mapping) else values)])
    dtype = getattr(values, "dtype", None)
    return max(SINGLE, float(np.finfo(dtype).eps)) if isinstance(dtype, np.dtype) and dtype.kind == "f" else SINGLE


def _known_keys(arrays: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The arrays under our names."""
    found: dict[str, Any] = {}
    accepted = ", ".join("/".join(names) for names in KEYS.values())
    for key, value in arrays.items():
        ours = next((ours for ours, names in KEYS.items() if key in names), None)
        if ours is None:
            if str(key).split("/")[0] in ("infos", "metadata"):
                continue
            raise UserError(f"{name} has the unknown key {key!r}. Accepted are: {accepted}.")
        if ours in found:
            raise UserError(f"{name} has {ours} twice, under {' and '.join(k for k in KEYS[ours] if k in arrays)}; keep one.")
        found[ours] = value
    missing = [" or ".join(repr(k) for k in KEYS[ours]) for ours in REQUIRED if ours not in found]
    if missing:
        raise UserError(f"{name} lacks {', '.join(missing)}; it has {sorted(map(str, arrays))}. Accepted are: {accepted}.")
    return found


def _spaces(found: dict[str, Any], env: Any) -> tuple[spaces.Space[Any], spaces.Box | None, Any]:
    """Observation space, action space if known, and env spec: from the dict, else from the env, else inferred."""
    observation_space: Any = found.get("observation_space")
    action_space: Any = found.get("action_space")
    spec = None
    if env is not None:
        env_observation_space, env_action_space, spec, _ = resolve_env(env)
        observation_space = env_observation_space if observation_space is None else observation_space
        action_space = env_action_space if action_space is None else action_space
    if action_space is not None and not isinstance(action_space, spaces.Space):
        action_space = _box_within(action_space, np.shape(found["actions"])[1:] or (1,))
    if observation_space is not None and not isinstance(observation_space, spaces.Space):
        raise UserError(f"observation_space is a {type(observation_space).__name__}, but a gymnasium space is needed.")
    if observation_space is None:
        if isinstance(found["observations"], Mapping | tuple):
            raise UserError("observations are nested, so their space is needed: give env= or the key observation_space.")
        array = numeric_array("observations", found["observations"])
        box = spaces.Box(0, 255, array.shape[1:], np.uint8) if array.dtype == np.uint8 else None
        if box is not None and is_image(box):
            observation_space = box
        else:
            observation_space = spaces.Box(-np.inf, np.inf, array.shape[1:] or (1,), np.float32)
    return observation_space, action_space, spec


def _flat_rows(name: str, values: Any, space: spaces.Space[Any]) -> np.ndarray:
    """Observations as float32 ``(N, obs_dim)``."""
    flat = flat_observation_space(space)
    if not isinstance(values, Mapping | tuple):
        array = numeric_array(name, values)
        if array.ndim == 2 and array.shape[1] == flat.shape[0]:  # flat already
            return float_rows(name, array, flat.shape[0])
        values = array[:, None] if array.ndim == 1 and flat.shape == (1,) else array
        if array.ndim > 2 and space.shape == (math.prod(array.shape[1:]),):  # the space of an agent, which is flat
            return float_rows(name, array.reshape(len(array), -1), flat.shape[0])
    return float_rows(name, flatten_observations(space, values, name), flat.shape[0])


def _rows(name: str, values: Any) -> np.ndarray:
    array = numeric_array(name, values)
    array = array[:, None] if array.ndim == 1 else array
    if name == "actions" and array.dtype.kind != "f":
        raise UserError(
            f"actions have dtype {array.dtype}: discrete actions are not supported. Convert continuous ones to float."
        )
    return float_rows(name, array, array.shape[1] if array.ndim == 2 else 0)


def _unit_box(actions: np.ndarray) -> spaces.Box:
    """The space of actions that nobody described: [-1, 1], if they fit."""
    largest = float(np.abs(actions).max(initial=0.0))
    if largest > 1 + 1e-4:
        row, column = (int(i) for i in np.argwhere(np.abs(actions) == largest)[0])
        raise UserError(
            f"actions[{row}, {column}] = {actions[row, column]} is outside [-1, 1], and no action space is given. "
            "Give env= (--env in the zoo), or the actuators' limits as action_space=[low, high] among the arrays."
        )
    return spaces.Box(-1.0, 1.0, (actions.shape[1],), np.float32)


def _box_within(bounds: Any, shape: tuple[int, ...]) -> spaces.Box:
    """The space of actions of a shape, from its bounds: two numbers, or two rows of them."""
    values = numeric_array("action_space", bounds)
    low = high = np.zeros(shape, np.float32)
    with contextlib.suppress(ValueError, TypeError), np.errstate(over="ignore"):
        low, high = (np.broadcast_to(bound, shape).astype(np.float32) for bound in values)
    if not (np.isfinite([low, high]).all() and (low < high).all()):
        raise UserError(
            f"action_space is {str(values.tolist())[:80]}; a spaces.Box or its bounds [low, high] are needed: two "
            f"numbers, or two rows of {shape[0]}, finite and the first below the second."
        )
    return spaces.Box(low, high, dtype=np.float32)


def _step_limit(spec: Any, id: str | None) -> int | None:
    """Steps after which an episode is cut, from the env, else known for a D4RL name."""
    if spec is not None and spec.max_episode_steps is not None:
        return int(spec.max_episode_steps)
    if id is not None and id.lower().startswith("antmaze") and "umaze" in id:
        return 700
    return STEP_LIMITS.get(reference_key(id) or "") if id is not None else None


def _limit_rows(terminations: np.ndarray, limit: int | None, name: str) -> np.ndarray:
    """Rows at which an episode reaches the step limit, counted from the last termination or limit; bool ``(N,)``."""
    if limit is None:
        raise UserError(
            f"{name} has neither next_observations nor truncations/timeouts, so it cannot be told where episodes were cut and "
            "which rows have a valid next observation. Give one of the two (truncations may be all zero), or an env= with a "
            "step limit."
        )
    rows = np.arange(len(terminations))
    starts = np.zeros(len(terminations), dtype=np.int64)
    starts[1:][terminations[:-1]] = rows[1:][terminations[:-1]]
    return np.asarray((rows - np.maximum.accumulate(starts)) % limit == limit - 1)


def _q_learning_view(raw: dict[str, np.ndarray], timeouts: np.ndarray, name: str) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Rows with their next observations, and where a dropped row cut an episode; see :func:`from_arrays`."""
    keep = ~timeouts
    keep[-1] &= raw["terminations"][-1]
    kept = np.flatnonzero(keep)
    if len(kept) == 0:
        raise UserError(
            f"{name} is empty: without next_observations, time-out rows and a last row that is not terminal have no "
            "next observation, and no other row is left."
        )
    following = kept + 1
    following[raw["terminations"][kept]] -= 1
    cut = np.zeros(len(kept), dtype=np.bool_)
    cut[:-1] = np.diff(kept) > 1
    cut[-1] = timeouts[-1]  # else the log stops in the middle of an episode
    view = {key: array[kept] for key, array in raw.items()}
    view["next_observations"] = raw["observations"][following]
    for array in view.values():
        array.flags.writeable = False
    return view, cut & ~view["terminations"]
