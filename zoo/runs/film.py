"""An agent at play, and a film of it as mp4, without a display or a system ffmpeg."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from sb3_genoffline.common.envs import check_agent_spaces
from sb3_genoffline.common.offline_algorithm import AnyAlgorithm
from sb3_genoffline.errors import UserError
from sb3_genoffline.files.writing import replace_file, scratch_folder

from .envs import EnvFactory, env_factory, env_for_pictures
from .rendering import prefer_offscreen

Frames = Callable[[], Any]


class RenderingError(UserError):
    """Nothing can be rendered here; the message says why."""


@dataclass(frozen=True)
class Play:
    """
    :param returns: of the episodes that ended
    :param lengths: their lengths in steps
    :param n_steps: steps played
    :param n_frames: pictures taken
    :param seconds: wall time
    """

    returns: list[float]
    lengths: list[int]
    n_steps: int
    n_frames: int
    seconds: float


def play(
    model: AnyAlgorithm,
    env: gym.Env,
    n_steps: int,
    *,
    seed: int = 0,
    deterministic: bool = True,
    after_step: Callable[[int], None] | None = None,
) -> Play:
    """
    :param model: the agent
    :param env: one environment, which is closed afterwards
    :param n_steps: steps to play; episodes follow one another
    :param seed: of the first episode and of the policy's sampling
    :param deterministic: act by ``predict(deterministic=True)``
    :param after_step: called with the number of the step, after each
    """
    started, returns, lengths = time.perf_counter(), [], []
    model.policy.seed_acting(seed)
    try:
        check_agent_spaces((model.observation_space, model.action_space), (env.observation_space, env.action_space))
        observation, _ = env.reset(seed=seed)
        total, length, state = 0.0, 0, None
        for step in range(n_steps):
            action, state = model.predict(observation, state, deterministic=deterministic)
            observation, reward, terminated, truncated, _ = env.step(action)
            model.policy.observe_rewards(state, float(reward))
            total, length = total + float(reward), length + 1
            if after_step is not None:
                after_step(step)
            if terminated or truncated:
                returns.append(total)
                lengths.append(length)
                observation, _ = env.reset()
                total, length, state = 0.0, 0, None
    finally:
        env.close()
    return Play(returns, lengths, n_steps, 0, time.perf_counter() - started)


def film(
    model: AnyAlgorithm,
    env: str | EnvFactory,
    path: str | Path,
    n_steps: int = 1000,
    *,
    fps: int = 25,
    width: int = 320,
    height: int = 240,
    seed: int = 0,
    deterministic: bool = True,
) -> Play:
    """
    Write an mp4 (H.264) of the agent in real time. As pictures cost far more than steps, only so many are taken as the film
    shows.

    :param model: the agent
    :param env: environment id, or a function that makes the environment
    :param path: of the film; folders are made, an existing film is replaced when the new one is whole
    :param n_steps: environment steps shown
    :param fps: pictures a second, at most
    :param width: of the picture, where the environment lets it be chosen
    :param height: of the picture
    :param seed: of the first episode
    :param deterministic: act by ``predict(deterministic=True)``
    :return: what was played
    :raises RenderingError: if the environment cannot be rendered here, or there is no ffmpeg; says why
    """
    try:
        import imageio_ffmpeg
    except ImportError as error:
        raise RenderingError("Filming needs imageio-ffmpeg: pip install imageio-ffmpeg.") from error
    prefer_offscreen()
    started = time.perf_counter()
    make = env_factory(None, env) if isinstance(env, str) else env
    pictures = env_for_pictures(make, "rgb_array", width, height)
    first = _first_frame(pictures, seed)
    rate = float(pictures.metadata.get("render_fps") or 30)
    every = max(1, round(rate / fps))
    size = (first.shape[1], first.shape[0])
    path = Path(path)
    n_frames = 0
    with scratch_folder("film") as folder:
        temporary = folder / "film.mp4"
        writer = imageio_ffmpeg.write_frames(
            str(temporary), size, fps=rate / every, codec="libx264", quality=7, macro_block_size=2
        )
        writer.send(None)

        def take(step: int) -> None:
            nonlocal n_frames
            if step % every == 0:
                writer.send(np.ascontiguousarray(pictures.render()))
                n_frames += 1

        try:
            played = play(model, pictures, n_steps, seed=seed, deterministic=deterministic, after_step=take)
        finally:
            writer.close()
        if not temporary.exists():
            raise RenderingError("ffmpeg wrote no film; see its message above.")
        replace_file(path, temporary.read_bytes())
    return Play(played.returns, played.lengths, n_steps, n_frames, time.perf_counter() - started)


def _first_frame(env: gym.Env, seed: int) -> np.ndarray:
    """Render once, since this is where missing displays, drivers and libraries show."""
    try:
        env.reset(seed=seed)
        frame: Any = env.render()
    except Exception as error:  # every backend raises its own
        env.close()
        backend = (
            f" MuJoCo's backend is MUJOCO_GL={os.environ.get('MUJOCO_GL', 'unset')}; without a display it is egl or osmesa."
        )
        hint = "" if isinstance(error, gym.error.DependencyNotInstalled) else backend  # that one says what to install
        name = env.spec.id if env.spec else "The environment"
        raise RenderingError(f"{name} cannot be rendered here ({type(error).__name__}: {error}).{hint}") from error
    if not isinstance(frame, np.ndarray) or frame.ndim != 3:
        env.close()
        raise RenderingError(f"{env.spec.id if env.spec else 'The environment'} has no pictures (render_mode 'rgb_array').")
    return frame
