"""The keyword arguments of :class:`~sb3_genoffline.common.learner.Learner`, for signatures that an IDE can show."""

from os import PathLike
from typing import Any, Literal, TypedDict

import torch as th
from stable_baselines3.common.noise import ActionNoise

from sb3_genoffline.common.arguments import Count, Positive, PositiveInt, PositiveShare
from sb3_genoffline.common.precision import MatmulPrecision


class OfflineArguments(TypedDict, total=False):
    """The arguments that no algorithm has its own default of: they come in as ``**kwargs``."""

    buffer_size: PositiveInt
    learning_starts: Count
    tau: PositiveShare
    gamma: PositiveShare
    train_freq: int | tuple[int, Literal["step", "episode"]]
    gradient_steps: int
    action_noise: ActionNoise | None
    replacement: bool
    matmul_precision: MatmulPrecision
    policy_kwargs: dict[str, Any] | None
    stats_window_size: PositiveInt
    tensorboard_log: str | PathLike[str] | None
    verbose: int
    seed: int | None
    device: th.device | str
    _init_setup_model: bool


class AllArguments(OfflineArguments, total=False):
    """All of them, those that each algorithm names in its own signature included."""

    batch_size: PositiveInt
    lr_decay_steps: PositiveInt | None
    max_grad_norm: Positive | None
    reward_transform: str | None
    normalize_observations: bool
