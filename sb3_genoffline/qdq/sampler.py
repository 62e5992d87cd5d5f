"""The consistency model in the units of the returns, and the two phases that fit it."""

from collections.abc import Sequence

import torch as th
from torch import Tensor, nn

from sb3_genoffline.common.optimizers import gradient_step
from sb3_genoffline.common.pretraining import Phase
from sb3_genoffline.common.schedules import cosine_decay
from sb3_genoffline.generative.consistency import (
    ConsistencyModel,
    DiffusionTeacher,
    DistillationDraws,
    NoisyScalarNetwork,
    denoising_loss,
    distillation_loss,
    draw_noise_levels,
    karras_grid,
)
from sb3_genoffline.nets.ensembles import soft_update


class ConsistencyQ(nn.Module):
    """
    Samples of the behaviour policy's truncated return given (s, a), and their spread H(s, a) (QDQ, eq. 6).

    The model works on returns rescaled to [−1, 1] by the smallest and largest of the data; what comes out is in the units of
    the rewards again, unclipped.

    :param state_dim: S
    :param action_dim: A
    :param net_arch: hidden widths
    :param data_std: σ_d of the preconditioning
    """

    q_min: Tensor
    q_max: Tensor
    fitted: Tensor

    def __init__(
        self, state_dim: int, action_dim: int, net_arch: Sequence[int] = (256, 256, 256), data_std: float = 0.5
    ) -> None:
        super().__init__()
        self.model = ConsistencyModel(NoisyScalarNetwork(state_dim + action_dim, net_arch, data_std))
        self.register_buffer("q_min", th.zeros(()))
        self.register_buffer("q_max", th.zeros(()))
        self.register_buffer("fitted", th.zeros((), dtype=th.bool))
        self.requires_grad_(False)

    def set_range(self, q: Tensor) -> None:
        """
        Take the extremes of the data's returns.

        :param q: (M,)
        :raises ValueError: if all are equal
        """
        low, high = q.min(), q.max()
        if not high > low:
            raise ValueError(
                f"All {len(q)} windowed returns are {low.item():g}: there is no distribution to learn an uncertainty from. "
                "Use penalty='none', other windows (window, stride, full_coverage), or data whose returns differ."
            )
        self.q_min.copy_(low)
        self.q_max.copy_(high)

    def normalize(self, q: Tensor) -> Tensor:
        """Returns -> [−1, 1]"""
        return 2.0 * (q - self.q_min) / (self.q_max - self.q_min) - 1.0

    def denormalize(self, x: Tensor) -> Tensor:
        """[−1, 1] -> returns"""
        return (x + 1.0) / 2.0 * (self.q_max - self.q_min) + self.q_min

    @th.no_grad()
    def sample(self, states: Tensor, actions: Tensor, noise: Tensor) -> Tensor:
        """
        :param states: (B, S), as the model was fitted with them
        :param actions: (B, A) in [−1, 1]
        :param noise: (B, n) standard normal; draw it anew for every call
        :return: (B, n) returns, in the units of the (transformed) rewards
        """
        return self.denormalize(self.model.sample(th.cat([states, actions], dim=-1), noise))

    def uncertainty(self, states: Tensor, actions: Tensor, noise: Tensor) -> Tensor:
        """
        H(s, a): the population standard deviation of n samples.

        :param states: (B, S)
        :param actions: (B, A)
        :param noise: (B, n) standard normal
        :return: (B,), in the units of the (transformed) rewards
        """
        return self.sample(states, actions, noise).std(dim=1, correction=0)


class QItems:
    """
    The Q dataset D_Q on the device, and random batches of it.

    :param conditions: (M, S + A)
    :param x: (M,) returns in [−1, 1]
    :param batch_size: items of a batch, drawn with replacement
    :param generator: of the random numbers
    """

    def __init__(self, conditions: Tensor, x: Tensor, batch_size: int, generator: th.Generator) -> None:
        self.conditions, self.x, self.batch_size, self.generator = conditions, x, batch_size, generator

    def draw(self) -> tuple[Tensor, Tensor]:
        """((B, S + A), (B,))"""
        rows = self.randint(0, len(self.x))
        return self.conditions[rows], self.x[rows]

    def randint(self, low: int, high: int) -> Tensor:
        """(B,) integers, ``low`` ≤ i < ``high``"""
        return th.randint(low, high, (self.batch_size,), generator=self.generator, device=self.x.device)

    def randn(self) -> Tensor:
        """(B,) standard normal"""
        return th.randn(self.batch_size, generator=self.generator, device=self.x.device, dtype=self.x.dtype)


class TeacherPhase(Phase):
    """
    Phase B: the diffusion teacher, by denoising score matching (Adam, cosine decay to 0 over the phase).

    :param n_steps: steps
    :param items: D_Q
    :param teacher: trained in place
    :param learning_rate: at the start
    """

    name = "teacher"

    def __init__(self, n_steps: int, items: QItems, teacher: DiffusionTeacher, learning_rate: float) -> None:
        super().__init__(n_steps, {"teacher": teacher}, th.optim.Adam(teacher.parameters(), lr=learning_rate, fused=True))
        self.items, self.teacher, self.learning_rate = items, teacher, learning_rate

    def update(self) -> dict[str, Tensor]:
        """One step on a batch of D_Q."""
        c, x_0 = self.items.draw()
        t = draw_noise_levels(self.items.randn())
        loss = denoising_loss(self.teacher, c, x_0, t, self.items.randn(), self.teacher.network.data_std)
        gradient_step(self.optimizer, loss, self.learning_rate * cosine_decay(self.step, self.n_steps))
        return {"loss": loss.detach()}


class DistillationPhase(Phase):
    """
    Phase C: consistency distillation (RAdam, cosine decay to 0 over the phase).

    :param n_steps: steps
    :param items: D_Q
    :param teacher: the trained teacher, frozen here
    :param sampler: whose model is trained in place
    :param target: its moving average, a model of the same shape
    :param n_levels: N noise levels
    :param first_index: smallest index i of the level that a step starts from (0: t_max)
    :param from_teacher: start from the teacher's weights
    :param learning_rate: at the start
    :param ema: rate of the moving average
    :param ema_every: steps between two moves of it
    :param keep_average: the average is what samples are drawn from in the end, not the trained weights
    """

    name = "distillation"

    def __init__(
        self,
        n_steps: int,
        items: QItems,
        teacher: DiffusionTeacher,
        sampler: ConsistencyQ,
        target: ConsistencyModel,
        *,
        n_levels: int = 1000,
        first_index: int = 0,
        from_teacher: bool = True,
        learning_rate: float = 4e-4,
        ema: float = 0.005,
        ema_every: int = 5,
        keep_average: bool = False,
    ) -> None:
        self.online = sampler.model.requires_grad_(True)
        optimizer = th.optim.RAdam(self.online.parameters(), lr=learning_rate)
        super().__init__(n_steps, {"teacher": teacher, "online": self.online, "target": target}, optimizer)
        self.items, self.teacher, self.sampler, self.target = items, teacher, sampler, target
        self.grid = karras_grid(n_levels).to(items.x)
        self.first_index, self.from_teacher, self.learning_rate = first_index, from_teacher, learning_rate
        self.ema, self.ema_every, self.keep_average = ema, ema_every, keep_average

    def begin(self) -> None:
        """Start from the teacher's weights, where that is wanted."""
        if self.from_teacher:
            self.online.load_state_dict(self.teacher.state_dict())
            self.target.load_state_dict(self.teacher.state_dict())

    def update(self) -> dict[str, Tensor]:
        """One step on a batch of D_Q."""
        c, x_0 = self.items.draw()
        draws = DistillationDraws(self.items.randint(self.first_index, len(self.grid) - 1), self.items.randn())
        loss = distillation_loss(self.online, self.target, self.teacher, self.grid, c, x_0, draws)
        gradient_step(self.optimizer, loss, self.learning_rate * cosine_decay(self.step, self.n_steps))
        if (self.step + 1) % self.ema_every == 0:
            soft_update(self.online, self.target, self.ema)
        return {"loss": loss.detach()}

    def finish(self) -> None:
        """From here on the model is only sampled."""
        if self.keep_average:
            self.online.load_state_dict(self.target.state_dict())
        self.online.requires_grad_(False)
        self.sampler.fitted.fill_(True)
