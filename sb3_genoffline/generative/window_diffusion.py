"""
A diffusion model of whole windows of episodes, and planning with it: Diffuser's denoising, which holds the present state fixed
and climbs the return that a second network expects.

A window is (H, A + S): the action of each step, then its state, both standardised. Plain modules and pure functions: no
optimizer, no EMA, no environment. All randomness of a plan is one tensor the caller draws.
"""

import math
from collections.abc import Callable

import torch as th
from torch import Tensor, nn

from sb3_genoffline.generative.schedules import BetaSchedule, NoiseSchedule
from sb3_genoffline.nets.loops import repeated
from sb3_genoffline.nets.network import Network

WindowFunction = Callable[[Tensor, Tensor], Tensor]
"""Of noisy windows (B, H, A + S) and t, int64 (): clean windows of the same shape, or the returns (B,) of these windows."""


def with_present(windows: Tensor, present: Tensor) -> Tensor:
    """
    :param windows: (B, H, A + S)
    :param present: (B, S)
    :return: the windows with that state in their first step
    """
    written = windows.clone()
    written[:, 0, -present.shape[-1] :] = present
    return written


def loss_weights(horizon: int, width: int, action_dim: int, action_weight: float, discount: float, like: Tensor) -> Tensor:
    """
    What errors count: discount^h of step h, scaled to a mean of 1, but ``action_weight`` for the first action, which is the
    one that is executed.

    :param horizon: H
    :param width: A + S
    :param action_dim: A
    :param action_weight: weight of the first action, whatever the discount
    :param discount: per step
    :param like: gives device and precision
    :return: (H, A + S)
    """
    of_steps = th.pow(discount, th.arange(horizon, device=like.device, dtype=like.dtype))
    weights = (of_steps / of_steps.mean()).unsqueeze(-1).repeat(1, width)
    weights[0, :action_dim].fill_(action_weight)
    return weights


class WindowDiffusion(Network):
    """
    A diffusion model of windows given their first state, whose network says the clean window x̂0.

    :param network: maps windows (B, H, A + S) and t (B,) to windows
    :param state_dim: S
    :param n_diffusion_steps: T
    :param beta_schedule: see :func:`~sb3_genoffline.generative.schedules.beta_schedule`
    """

    alpha_bars: Tensor
    sigmas: Tensor

    def __init__(
        self, network: nn.Module, state_dim: int, n_diffusion_steps: int = 20, beta_schedule: BetaSchedule = "cosine"
    ) -> None:
        super().__init__()
        self.state_dim = state_dim
        self.schedule = NoiseSchedule.make(beta_schedule, n_diffusion_steps, "posterior")
        for name in ("alpha_bars", "sigmas"):
            constants = th.as_tensor(getattr(self.schedule, name), dtype=th.get_default_dtype())
            self.register_buffer(name, constants, persistent=False)
        self.network = network

    @property
    def n_steps(self) -> int:
        """T"""
        return self.schedule.n_steps

    def forward(self, noisy: Tensor, t: Tensor) -> Tensor:
        """
        :param noisy: (B, H, A + S), the state of their first step clean
        :param t: (B,) integers in 1..T
        :return: x̂0 (B, H, A + S), with that state
        """
        return with_present(self.network(noisy, t), noisy[:, 0, -self.state_dim :])

    def add_noise(self, windows: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """
        x_t = √ᾱ_t·x_0 + σ_t·ε, the state of the first step left clean.

        :param windows: (B, H, A + S)
        :param noise: (B, H, A + S)
        :param t: (B,) integers in 1..T
        """
        kept, added = (of_t[t].view(-1, 1, 1) for of_t in (self.alpha_bars.sqrt(), self.sigmas))
        return with_present(kept * windows + added * noise, windows[:, 0, -self.state_dim :])

    def predict_clean(self, noisy: Tensor, t: Tensor) -> Tensor:
        """:meth:`forward` with one t () for all."""
        said: Tensor = self(noisy, t.expand(noisy.shape[0]))
        return said


def plan_windows(
    predict_clean: WindowFunction,
    value: WindowFunction,
    schedule: NoiseSchedule,
    noise: Tensor,
    present: Tensor,
    *,
    guide_scale: float = 0.1,
    n_guide_steps: int = 2,
    guide_stop: int = 2,
) -> tuple[Tensor, Tensor]:
    """
    Denoise windows that begin in given states, uphill: before each step, x_t moves ``n_guide_steps`` times by guide_scale ×
    the step's variance × the gradient of the value. No parameter gets a gradient.

    :param predict_clean: x̂0(x_t, t)
    :param value: J(x_t, t)
    :param schedule: T steps
    :param noise: (T, B, H, A + S): ``noise[0]`` is x_T, ``noise[k]`` the standard normal added at step t = T + 1 − k
    :param present: (B, S)
    :param guide_scale: 0 plans what the data would do
    :param n_guide_steps: moves before a step
    :param guide_stop: the last steps that are not guided
    :return: the windows (B, H, A + S), and their values (B,) as x_1 before the last step
    """

    def free(x: Tensor, present: Tensor, noise: Tensor, t: Tensor, *factors: Tensor) -> Tensor:
        clean, noisy, spread, _ = factors
        return with_present(clean * predict_clean(x, t) + noisy * x + spread * noise, present)

    def guided(x: Tensor, present: Tensor, noise: Tensor, t: Tensor, *factors: Tensor) -> Tensor:
        for _ in range(n_guide_steps):
            x = with_present(x + factors[-1] * _gradient(value, x, t), present)
        return free(x, present, noise, t, *factors)

    x, t = with_present(noise[0], present), range(schedule.n_steps, 1, -1)
    variances = [schedule.reverse_variances[step] for step in t]
    columns = (
        [float(schedule.clean_coefficients[step]) for step in t],
        [float(schedule.noisy_coefficients[step]) for step in t],
        [math.sqrt(variance) for variance in variances],
        [guide_scale * float(variance) for variance in variances],
    )
    factors = [th.tensor(column, dtype=noise.dtype, device=noise.device) for column in columns]
    of_steps = [noise[1:], th.tensor([*t], device=noise.device), *factors]
    n_guided = max(schedule.n_steps - max(guide_stop, 1), 0)
    for make_step, part in ((guided, slice(n_guided)), (free, slice(n_guided, None))):
        if len(t[part]):
            x = repeated(make_step, x, [present], [column[part] for column in of_steps])
    # The last step has no variance: it is not guided, and its mean is x̂0
    first = th.ones((), dtype=th.int64, device=noise.device)
    return with_present(predict_clean(x, first), present), value(x, first)


def _gradient(value: WindowFunction, x: Tensor, t: Tensor) -> Tensor:
    """∇_x Σ_b J(x_b, t), also where gradients are off."""
    with th.enable_grad():
        x = x.detach().requires_grad_()
        (gradient,) = th.autograd.grad(value(x, t).sum(), x)
    return gradient
