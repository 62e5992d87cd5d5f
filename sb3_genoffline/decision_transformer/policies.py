"""The policy of Decision Transformer, and the history that it acts by."""

import warnings
from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.type_aliases import Schedule
from torch import Tensor, nn

from sb3_genoffline.common.arguments import Bounds, Positive, PositiveInt
from sb3_genoffline.common.policies import OfflinePolicy
from sb3_genoffline.decision_transformer.network import ReturnTransformer
from sb3_genoffline.errors import UserError

ContextLength = Annotated[int, Bounds(1, 1_000)]
EpisodeSteps = Annotated[int, Bounds(1, 10_000)]


class History(NamedTuple):
    """
    What a policy remembers of n environments: the last K steps of each, at the end of the arrays.

    :param observations: (n, K, S), raw
    :param actions: (n, K, A), in [−1, 1]; the last one was returned, and may not have been executed yet
    :param returns_to_go: (n, K), scaled
    :param length: int64 (n,), steps remembered, at most K
    :param step: int64 (n,), of the episode: 0 is its first
    :param reward: (n,), what the last action has earned so far; NaN where nothing was told
    """

    observations: np.ndarray
    actions: np.ndarray
    returns_to_go: np.ndarray
    length: np.ndarray
    step: np.ndarray
    reward: np.ndarray


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
        return self._act(self._extended(observation.flatten(1).cpu().numpy(), None, None))

    def predict(
        self,
        observation: np.ndarray | dict[str, np.ndarray],
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        """
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
        history = self._extended(rows.flatten(1).cpu().numpy(), state, episode_start)
        with th.no_grad():
            history.actions[:, -1] = self._act(history).cpu().numpy()
        actions = self.unscale_action(history.actions[:, -1]).reshape(len(rows), *(self.action_space.shape or ()))
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

    def _extended(self, observations: np.ndarray, state: Sequence[Any] | None, episode_start: Any) -> History:
        """The history with new observations (n, S), whose actions are 0 so far."""
        n = len(observations)
        past = self._empty(n) if state is None else self._checked(state, n)
        begins = np.full(n, state is None) if episode_start is None else np.broadcast_to(np.asarray(episode_start, bool), n)
        untold = ~begins & np.isnan(past.reward)
        if untold.any() and not self._has_warned:
            self._has_warned = True
            warnings.warn(
                f"{type(self).__name__} was told no reward for its last action, so it keeps asking for the same return. "
                "With evaluate_policy use `callback=with_rewards(model)`, in a training OfflineEvalCallback, and in a loop of "
                "your own `model.policy.observe_rewards(state, rewards)` after each step.",
                stacklevel=4,
            )
        left = past.returns_to_go[:, -1] - np.nan_to_num(past.reward) / self.return_scale
        target = self.largest_return.item() if self.target_return is None else self.target_return
        now = (observations, np.zeros((n, self.action_dim)), np.where(begins, target / self.return_scale, left))
        remembered = (np.concatenate([kept[:, 1:], new[:, None]], axis=1) for kept, new in zip(past[:3], now, strict=True))
        observed, actions, returns_to_go = (part.astype(kept.dtype) for part, kept in zip(remembered, past[:3], strict=True))
        length = np.minimum(np.where(begins, 0, past.length) + 1, self.context_length)
        step = np.where(begins, 0, past.step + 1)
        return History(observed, actions, returns_to_go, length, step, np.full(n, np.nan))

    def _empty(self, n: int) -> History:
        dtype = th.zeros((), dtype=self.obs_mean.dtype).numpy().dtype
        k = self.context_length
        whole = np.zeros(n, dtype=np.int64)
        arrays = np.zeros((n, k, self.state_dim), dtype), np.zeros((n, k, self.action_dim), dtype), np.zeros((n, k))
        return History(*arrays, whole, whole.copy(), np.full(n, np.nan))

    def _checked(self, state: Sequence[Any], n: int) -> History:
        wanted = [part.shape for part in self._empty(n)]
        found = [np.shape(part) for part in state] if isinstance(state, tuple | list) else type(state).__name__
        if found != wanted:
            raise UserError(
                f"The state is not a history of {n} environments: its arrays have the shapes {found}, not {wanted}. Pass what "
                "the last predict returned, or None."
            )
        return History(*state)

    def _act(self, history: History) -> Tensor:
        """Actions (n, A) in [−1, 1] for the last step of each history."""
        places = np.arange(self.context_length)
        valid = places >= self.context_length - history.length[:, None]
        timesteps = np.maximum(history.step[:, None] - places[::-1], 0)
        observations, actions, returns_to_go = (
            th.as_tensor(part, dtype=self.obs_mean.dtype, device=self.device) for part in history[:3]
        )
        states = self.normalize_observations(observations.flatten(0, 1)).view_as(observations)
        of_step = (th.as_tensor(part, device=self.device) for part in (timesteps, valid))
        said: Tensor = self.actor(states, actions, returns_to_go, *of_step)
        return said[:, -1]
