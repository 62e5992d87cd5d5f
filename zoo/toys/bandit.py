"""
The 2-D bandit of the DAC paper (arXiv 2405.20555, figure 2): does the policy find good actions without leaving the data?

One state, one step. Q(a) = −‖a − (0.4, −0.4)‖, observed with noise; the best action lies away from the data, so guidance that
trusts the critic everywhere is led out of it. Settings are those of the authors' script.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch as th
from gymnasium import spaces
from torch import Tensor

from sb3_genoffline.dac import DAC
from sb3_genoffline.dac.dac import DACNoise
from sb3_genoffline.data.buffers import TransitionBatch
from sb3_genoffline.errors import UserError

Method = Literal["soft", "hard", "denoised", "bc"]
METHODS: tuple[Method, ...] = get_args(Method)
BEST = (0.4, -0.4)
REWARD_NOISE = 0.5
SETS = (0, 1, 2, 3)


@dataclass(frozen=True, eq=False)
class BanditData:
    """
    One of the four data sets.

    :param actions: (N, 2) in [−1, 1]
    :param centers: (K, 2) of the clusters
    :param scale: standard deviation of a cluster
    """

    actions: np.ndarray
    centers: np.ndarray
    scale: float


def make_data(index: int, seed: int = 0) -> BanditData:
    """
    :param index: 0 two clusters, 1 three, 2 two moons, 3 two circles
    :param seed: of the points
    """
    if index not in SETS:
        raise UserError(f"Bandit set {index} does not exist; there are {', '.join(map(str, SETS))}.")
    if index < 2:
        centers = [(-0.6, 0.6), (0.4, 0.2)] if index == 0 else [(-0.6, 0.6), (0.4, 0.4), (-0.4, -0.4)]
        return _clusters(np.array(centers), 400, 0.1, seed)
    points = two_moons(20) if index == 2 else two_circles(20)
    low, high = points.min(0), points.max(0)
    return _clusters(1.1 * (points - low) / (high - low) + np.array([-0.8, -0.2]), 10, 0.05, seed)


def _clusters(centers: np.ndarray, per_center: int, scale: float, seed: int) -> BanditData:
    noise = np.random.default_rng(seed).standard_normal((len(centers), per_center, 2))
    actions = np.clip(centers[:, None] + scale * noise, -1.0, 1.0).reshape(-1, 2)
    return BanditData(actions.astype(np.float32), centers, scale)


def two_moons(per_moon: int) -> np.ndarray:
    """Two interleaving half circles without noise, (2·per_moon, 2)."""
    angles = np.linspace(0.0, np.pi, per_moon)
    upper = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return np.concatenate([upper, np.array([1.0, 0.5]) - upper])


def two_circles(per_circle: int, inner: float = 0.8) -> np.ndarray:
    """Two concentric circles of radius 1 and ``inner`` without noise, (2·per_circle, 2)."""
    angles = np.linspace(0.0, 2.0 * np.pi, per_circle, endpoint=False)
    outer = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return np.concatenate([outer, inner * outer])


def true_q(actions: np.ndarray) -> np.ndarray:
    """The value surface, (..., 2) -> (...)."""
    return -np.linalg.norm(actions - np.array(BEST), axis=-1)


class BanditDAC(DAC):
    """DAC on a one-step task: the mask is 0, so y = r and next actions need not be sampled (88% of the arithmetic)."""

    def critic_target_value(self, batch: TransitionBatch, noise: DACNoise) -> Tensor:
        return batch.rewards


def make_agent(method: Method, steps: int = 20_000, seed: int = 520) -> BanditDAC:
    """
    :param method: a kind of guidance, or ``"bc"`` for imitation
    :param steps: updates it will be trained for, the horizon of imitation's learning rate (guided ones hardly decay)
    :param seed: of the agent
    """
    if method not in METHODS:
        raise UserError(f"Bandit method {method!r} does not exist; there are {', '.join(METHODS)}.")
    bc = method == "bc"
    box = spaces.Box(-1.0, 1.0, (1,)), spaces.Box(-1.0, 1.0, (2,))
    return BanditDAC(
        "DiffusionPolicy",
        box,
        learning_rate=1e-3,
        lr_decay_steps=steps if bc else 2_000_000,
        n_critics=5,
        n_diffusion_steps=50,
        n_q_samples=1,
        n_action_samples=1,
        rho=1.0,
        eta=1.0,
        eta_lr=0.01,
        bc_threshold=1.3,
        guidance="none" if bc else method,  # type: ignore[arg-type]
        clip_denoised=bc,
        actor_ema_start=10,
        batch_size=128,
        reward_transform=None,
        policy_kwargs={"net_arch": [64, 64, 64]},
        seed=seed,
        device="cpu",
    )


def train_agent(
    model: BanditDAC, data: BanditData, steps: int = 20_000, seed: int = 0, progress: Callable[[int], None] | None = None
) -> dict[str, float]:
    """
    Batches are drawn without replacement, each afresh, and rewards are observed with fresh noise every time.

    :param model: see :func:`make_agent`
    :param data: see :func:`make_data`
    :param steps: updates
    :param seed: of batches, rewards and diffusion noise
    :param progress: called with 1 after each update
    :return: the metrics of the last update
    """
    generator = th.Generator().manual_seed(seed)
    actions = th.as_tensor(data.actions).clamp(-1.0 + 1e-5, 1.0 - 1e-5)
    values = th.as_tensor(true_q(data.actions)).float()
    size = min(model.batch_size, len(actions))
    states, masks = th.zeros(size, 1), th.zeros(size)
    model.policy.set_training_mode(True)
    info: dict[str, Tensor] = {}
    for _ in range(steps):
        rows = th.randperm(len(actions), generator=generator)[:size]
        rewards = values[rows] + REWARD_NOISE * th.randn(size, generator=generator)
        batch = TransitionBatch(states, actions[rows], rewards, states, masks)
        t = th.randint(1, model.n_diffusion_steps + 1, (size,), generator=generator)
        eps = th.randn(size, 2, generator=generator)
        denoised = None
        if model.guidance == "denoised":
            denoised = th.randn(model.actor.noise_shape(size, 1), generator=generator)
        info = model.step(batch, DACNoise(None, t, eps, None, denoised))
        if progress is not None:
            progress(1)
    return {key: float(value) for key, value in info.items()}


@th.no_grad()
def sample(model: BanditDAC, n: int, seed: int = 0, clip: bool | None = None) -> np.ndarray:
    """
    Actions of the online actor, as it is plotted: not clamped to the box.

    :param model: a trained agent
    :param n: number of samples
    :param seed: of the samples
    :param clip: clamp x̂0 in every step (None: as the agent does). The authors train ``denoised`` through a chain that clamps
        but plot samples of one that does not; ``clip=True`` matches the two.
    :return: (n, 2)
    """
    noise = th.randn(model.actor.noise_shape(1, n), generator=th.Generator().manual_seed(seed))
    clamps = model.clip_denoised if clip is None else clip
    return model.actor.sample(th.zeros(1, 1), noise, clip="clean" if clamps else "none")[0].numpy()


@th.no_grad()
def critic_surface(model: BanditDAC, grid: np.ndarray) -> np.ndarray:
    """
    Mean of the online critics at actions (..., 2).
    """
    flat = th.as_tensor(grid.reshape(-1, 2)).float()
    return model.critic(th.zeros(len(flat), 1), flat).mean(0).numpy().reshape(grid.shape[:-1])


def measure(samples: np.ndarray, data: BanditData) -> dict[str, Any]:
    """
    :param samples: (n, 2)
    :param data: the data they should stay near to
    :return: ``mean_q`` on the true surface; ``ood``, the share farther than 3 standard deviations from every centre;
        ``nearest``, the mean distance to the nearest data point; ``shares`` of the nearest centres
    """
    to_centers = np.linalg.norm(samples[:, None] - data.centers, axis=-1)
    to_data = np.linalg.norm(samples[:, None] - data.actions, axis=-1)
    shares = np.bincount(to_centers.argmin(1), minlength=len(data.centers)) / len(samples)
    return {
        "mean_q": float(true_q(samples).mean()),
        "ood": float((to_centers.min(1) > 3 * data.scale).mean()),
        "nearest": float(to_data.min(1).mean()),
        "shares": shares.round(3).tolist(),
    }
