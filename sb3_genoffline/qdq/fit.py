"""Phases B and C of QDQ: the diffusion teacher of windowed returns, and its distillation to one step."""

import torch as th
from torch import Tensor

from sb3_genoffline.common.fitting import Fit
from sb3_genoffline.common.optimizers import gradient_step, make_optimizer
from sb3_genoffline.common.schedules import cosine_decay
from sb3_genoffline.generative.consistency import (
    ConsistencyModel,
    DiffusionTeacher,
    DistillationDraws,
    denoising_loss,
    distillation_loss,
    draw_noise_levels,
    karras_grid,
)
from sb3_genoffline.nets.ensembles import soft_update
from sb3_genoffline.qdq.sampler import ConsistencyQ


def teacher_and_average(sampler: ConsistencyQ) -> tuple[DiffusionTeacher, ConsistencyModel]:
    """
    A new teacher, and a new model for the moving average, which is one of weights only: it has the sampler's Fourier weights.

    :param sampler: gives their shape and device
    """
    network = sampler.model.network
    teacher, target = DiffusionTeacher(network.fresh()), ConsistencyModel(network.fresh())
    target.network.fourier_weights.copy_(network.fourier_weights)
    device = sampler.q_min.device
    return teacher.to(device), target.to(device).requires_grad_(False)


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


class TeacherFit(Fit):
    """
    Phase B: the diffusion teacher, by denoising score matching (Adam, cosine decay to 0 over the phase).

    :param n_steps: steps
    :param items: D_Q
    :param teacher: trained in place
    :param learning_rate: at the start
    """

    name = "teacher"

    def __init__(self, n_steps: int, items: QItems, teacher: DiffusionTeacher, learning_rate: float) -> None:
        self.optimizer = make_optimizer(th.optim.Adam, teacher.parameters(), learning_rate)
        super().__init__(n_steps, {"teacher": teacher}, {"teacher": self.optimizer}, items.generator)
        self.items, self.teacher, self.learning_rate = items, teacher, learning_rate

    def draw(self) -> tuple[Tensor, Tensor]:
        """A batch of D_Q."""
        return self.items.draw()

    def rate_now(self) -> float | Tensor:
        """Learning rate of the coming step."""
        return self.number_now(lambda: self.learning_rate * cosine_decay(self.step, self.n_steps))

    def step_on(self, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        """One step on a batch of D_Q."""
        c, x_0 = batch
        t = draw_noise_levels(self.items.randn())
        loss = denoising_loss(self.teacher, c, x_0, t, self.items.randn(), self.teacher.network.data_std)
        gradient_step(self.optimizer, loss, self.rate_now())
        return {"loss": loss.detach()}


class DistillationFit(Fit):
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
        self.optimizer = make_optimizer(th.optim.RAdam, self.online.parameters(), learning_rate)
        modules = {"teacher": teacher, "online": self.online, "target": target}
        super().__init__(n_steps, modules, {"online": self.optimizer}, items.generator)
        self.items, self.teacher, self.sampler, self.target = items, teacher, sampler, target
        self.grid = karras_grid(n_levels).to(items.x)
        self.first_index, self.from_teacher, self.learning_rate = first_index, from_teacher, learning_rate
        self.ema, self.ema_every, self.keep_average = ema, ema_every, keep_average

    def begin(self) -> None:
        """Start from the teacher's weights, where that is wanted."""
        if self.from_teacher:
            self.online.load_state_dict(self.teacher.state_dict())
            self.target.load_state_dict(self.teacher.state_dict())

    def draw(self) -> tuple[Tensor, Tensor]:
        """A batch of D_Q."""
        return self.items.draw()

    def phase(self) -> bool:
        """Whether the moving average moves."""
        return (self.step + 1) % self.ema_every == 0

    def rate_now(self) -> float | Tensor:
        """Learning rate of the coming step."""
        return self.number_now(lambda: self.learning_rate * cosine_decay(self.step, self.n_steps))

    def step_on(self, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        """One step on a batch of D_Q."""
        c, x_0 = batch
        draws = DistillationDraws(self.items.randint(self.first_index, len(self.grid) - 1), self.items.randn())
        loss = distillation_loss(self.online, self.target, self.teacher, self.grid, c, x_0, draws)
        gradient_step(self.optimizer, loss, self.rate_now())
        if self.phase():
            soft_update(self.online, self.target, self.ema)
        return {"loss": loss.detach()}

    def finish(self) -> None:
        """From here on the model is only sampled."""
        if self.keep_average:
            self.online.load_state_dict(self.target.state_dict())
        self.online.requires_grad_(False)
        self.sampler.fitted.fill_(True)
