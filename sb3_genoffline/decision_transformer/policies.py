"""The policy of Decision Transformer, and the history that it acts by."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Generic, NamedTuple, TypeVar, cast

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.type_aliases import Schedule
from torch import Tensor, nn

from sb3_genoffline.common.arguments import Bounds, Positive, PositiveInt
from sb3_genoffline.common.policies import OfflinePolicy
from sb3_genoffline.decision_transformer.network import ReturnTransformer
from sb3_genoffline.deploy.acting import EPISODE_START, NEXT_STATE, REWARD, STATE, Acting
from sb3_genoffline.errors import UserError
from sb3_genoffline.nets.blocks import is_undivided

ContextLength = Annotated[int, Bounds(1, 1_000)]
EpisodeSteps = Annotated[int, Bounds(1, 10_000)]
Array = TypeVar("Array")
_KEPT = ("observations", "actions", "returns_to_go", "step")


class History(NamedTuple, Generic[Array]):
    """
    What a policy remembers of n environments: the last K steps of each, at the end of the arrays.

    :param observations: (n, K, S), raw
    :param actions: (n, K, A), in [−1, 1]; the last one was returned, and may not have been executed yet
    :param returns_to_go: (n, K), scaled
    :param length: int64 (n,), steps remembered, at most K
    :param step: int64 (n,), of the episode: 0 is its first
    :param reward: (n,), what the last action has earned so far; NaN where nothing was told
    """

    observations: Array
    actions: Array
    returns_to_go: Array
    length: Array
    step: Array
    reward: Array


class ActingByHistory(Acting):
    """Acts by the history, which goes in and comes out."""

    results = ("action", *(f"{NEXT_STATE}{name}" for name in _KEPT))

    def __init__(self, policy: Any, deterministic: bool) -> None:
        super().__init__(policy, deterministic)
        self.first_return = policy.first_return()

    @property
    def facts(self) -> dict[str, str]:
        """What is asked for at the start of an episode."""
        return {"target_return": f"{self.first_return:.9g}"}

    @property
    def memory(self) -> Mapping[str, tuple[int, ...]]:
        """Where an episode begins, the last reward, and the history but for its length, which follows from the step."""
        k = self.policy.context_length
        shapes = ((k, self.policy.state_dim), (k, self.policy.action_dim), (k,), ())
        return {EPISODE_START: (), REWARD: ()} | {f"{STATE}{name}": shape for name, shape in zip(_KEPT, shapes, strict=True)}

    def act(self, observations: Tensor, memory: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Actions (B, A), and what the next call takes."""
        starts, reward, observed, done, returns_to_go, step = memory
        length = (step + 1.0).clamp(max=self.policy.context_length)
        past = History(observed, done, returns_to_go, length, step, reward)
        history = self.policy.extended(past, observations, starts > 0.5, self.first_return)
        actions = self.policy.next_actions(history)
        done = th.cat([history.actions[:, :-1], actions.unsqueeze(1)], dim=1)
        return self.unscaled(actions), history.observations, done, history.returns_to_go, history.step


class DecisionTransformerPolicy(OfflinePolicy):
    """
    Acts by its last K steps, and by the return that it is asked for less the rewards so far. The history is the ``state`` of
    ``predict(observation, state, episode_start)``, as of any recurrent policy of SB3; without it each observation begins an
    episode. SB3 passes no rewards: :meth:`observe_rewards` takes them. ``deterministic`` makes no difference.

    :param observation_space: flat Box
    :param action_space: bounded Box
    :param lr_schedule: unused: the algorithm owns the optimizer
    :param context_length: K
    :param target_return: asked for at the start of an episode (None: the largest of the training data)
    :param return_scale: returns are divided by it
    :param max_episode_steps: rows of the table of steps; later steps have its last row
    :param embed_dim: width of a token
    :param n_layers: of the transformer
    :param n_heads: of its attention
    :param dropout: share that is dropped in training
    :param activation_fn: of its MLPs
    """

    has_memory = True
    sized_by = ("embed_dim", "n_layers", "n_heads")
    acting_settings = ("target_return",)
    largest_return: Tensor

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        lr_schedule: Schedule,
        *,
        context_length: ContextLength = 20,
        target_return: float | None = None,
        return_scale: Positive = 1000.0,
        max_episode_steps: EpisodeSteps = 1000,
        embed_dim: PositiveInt = 128,
        n_layers: PositiveInt = 3,
        n_heads: PositiveInt = 1,
        dropout: Annotated[float, Bounds(0.0, 1.0, open_high=True)] = 0.1,
        activation_fn: type[nn.Module] = nn.ReLU,
        **kwargs: Any,
    ) -> None:
        super().__init__(observation_space, action_space, lr_schedule, **kwargs)
        self.context_length = context_length
        self.target_return = target_return
        self.return_scale = return_scale
        shape: Any = (max_episode_steps, embed_dim, n_layers, n_heads, dropout, activation_fn)
        self.actor = ReturnTransformer(self.state_dim, self.action_dim, *shape)
        self.register_buffer("largest_return", th.zeros(()))
        self._has_warned = False

    def forward(self, observation: Tensor, deterministic: bool = False) -> Tensor:
        return self._predict(observation, deterministic)

    def _predict(self, observation: Tensor, deterministic: bool = False) -> Tensor:  # type: ignore[override]
        """Of observations that each begin an episode."""
        n = len(observation)
        return self.next_actions(
            self.extended(
                _as_tensors(self._empty(n)), observation.flatten(1).cpu(), th.ones(n, dtype=th.bool), self.first_return()
            )
        )

    def predict(
        self,
        observation: np.ndarray | dict[str, np.ndarray],
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        """
        Act in one or several environments by the history that ``state`` holds, as SB3's recurrent policies do.

        :param observation: one or a batch of n
        :param state: that the last call returned, which stays as it is; None: all n begin an episode
        :param episode_start: bool (n,), which begin one (None: with a state, none)
        :param deterministic: no difference
        :return: action or actions, and the state with them: a :class:`History`
        :raises UserError: if the state is of another number of environments, or no state
        """
        self.set_training_mode(False)
        rows, is_batch = self.obs_to_tensor(observation)
        assert isinstance(rows, Tensor)
        n = len(rows)
        past = self._empty(n) if state is None else self._checked(state, n)
        begins = np.broadcast_to(np.asarray(state is None or (episode_start is not None and episode_start), bool), n)
        self._warn_of_missing_rewards(~begins & np.isnan(past.reward))
        with th.no_grad():
            new = self.extended(_as_tensors(past), rows.flatten(1).cpu(), th.as_tensor(begins.copy()), self.first_return())
            new.actions[:, -1] = self.next_actions(new).cpu()
        history = History(*(part.numpy() for part in new))
        actions = self.unscale_action(history.actions[:, -1]).reshape(n, *(self.action_space.shape or ()))
        return (actions if is_batch else actions[0]), history

    def observe_rewards(self, state: Any, rewards: Any, which: Any = slice(None)) -> None:
        """
        Tell what the actions of the last ``predict`` were rewarded with. The state keeps it for the next call.

        :param state: that ``predict`` returned
        :param rewards: (n,), as the environments gave them
        :param which: environments whose rewards these are (default: all)
        """
        earned = History(*state).reward
        earned[which] = np.nan_to_num(earned[which]) + rewards

    def first_return(self) -> float:
        """What is asked for at the start of an episode, in the environment's units."""
        return self.largest_return.item() if self.target_return is None else self.target_return

    def extended(self, past: History[Tensor], observations: Tensor, begins: Tensor, first_return: float) -> History[Tensor]:
        """
        Histories that go on by an observation, and the return that is left to ask for.

        :param past: of n environments
        :param observations: (n, S), the new ones
        :param begins: bool (n,), whether an episode begins with them
        :param first_return: what is asked for then
        :return: the history with them, whose last actions are 0
        """
        left = past.returns_to_go[:, -1] - past.reward.nan_to_num() / self.return_scale
        asked = th.where(begins, first_return / self.return_scale, left)
        now = (observations, th.zeros_like(past.actions[:, 0]), asked)
        observed, actions, returns_to_go = (
            th.cat([kept[:, 1:], new.to(kept.dtype).unsqueeze(1)], dim=1) for kept, new in zip(past[:3], now, strict=True)
        )
        length = (th.where(begins, 0, past.length) + 1).clamp(max=self.context_length)
        step = th.where(begins, 0, past.step + 1)
        return History(observed, actions, returns_to_go, length, step, th.full_like(past.reward, th.nan))

    def _warn_of_missing_rewards(self, untold: np.ndarray) -> None:
        """:param untold: bool (n,), whose last action was rewarded with we don't know what"""
        if untold.any() and not self._has_warned:
            self._has_warned = True
            warnings.warn(
                f"{type(self).__name__} was told no reward for its last action, so it keeps asking for the same return. "
                "With evaluate_policy use `callback=with_rewards(model)`, in a training OfflineEvalCallback, and in a loop of "
                "your own `model.policy.observe_rewards(state, rewards)` after each step.",
                stacklevel=4,
            )

    def _empty(self, n: int) -> History[np.ndarray]:
        dtype = th.zeros((), dtype=self.obs_mean.dtype).numpy().dtype
        k = self.context_length
        whole = np.zeros(n, dtype=np.int64)
        arrays = np.zeros((n, k, self.state_dim), dtype), np.zeros((n, k, self.action_dim), dtype), np.zeros((n, k))
        return History(*arrays, whole, whole.copy(), np.full(n, np.nan))

    def _checked(self, state: Sequence[Any], n: int) -> History[np.ndarray]:
        wanted = [part.shape for part in self._empty(n)]
        found = [np.shape(part) for part in state] if isinstance(state, tuple | list) else type(state).__name__
        if found != wanted:
            raise UserError(
                f"The state is not a history of {n} environments: its arrays have the shapes {found}, not {wanted}. Pass what "
                "the last predict returned, or None."
            )
        return History(*state)

    def next_actions(self, history: History[Tensor]) -> Tensor:
        """Actions (n, A) in [−1, 1] for the last step of each history."""
        before = th.arange(self.context_length - 1, -1, -1, device=history.step.device)
        valid = (before < history.length.unsqueeze(1)).to(self.device)
        timesteps = (history.step.unsqueeze(1) - before).clamp(min=0).to(self.device, th.int64)
        observations, actions, returns_to_go = (part.to(self.device, self.obs_mean.dtype) for part in history[:3])
        states = self.normalize_observations(observations.flatten(0, 1)).view_as(observations)
        parts = (states, actions, returns_to_go, timesteps, valid)
        if is_undivided() or self.device.type != "cpu" or not len(states):
            return cast(Tensor, self.actor(*parts))[:, -1]
        # one at a time: among others, and elsewhere in memory, products are rounded otherwise
        return th.cat([self.actor(*(part[[row]] for part in parts))[:, -1] for row in range(len(states))])

    def acting_module(self, deterministic: bool) -> Acting:
        """
        What an ONNX file of the policy holds.

        :param deterministic: as in :meth:`predict`
        """
        return ActingByHistory(self, deterministic)


def _as_tensors(history: History[np.ndarray]) -> History[Tensor]:
    return History(*(th.from_numpy(np.array(part)) for part in history))
