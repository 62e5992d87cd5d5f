"""The fast form of DAC's update is the plain form (README claim 23), in float64."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from exact import close
from stable_baselines3.common.utils import FloatSchedule
from torch import Tensor, nn

from sb3_genoffline import DAC
from sb3_genoffline.dac import DACNoise
from sb3_genoffline.data.buffers import TransitionBatch
from sb3_genoffline.nets.ensembles import EnsembleLinear
from zoo.speed.plain_dac import PlainDAC

pytestmark = pytest.mark.usefixtures("float64")
MakeDac = Callable[..., DAC]
MakeBatch = Callable[..., TransitionBatch]


# ---------------------------------------------------------------------- the fast form is the plain form


def plain_pairs(model: DAC, plain: PlainDAC) -> dict[str, tuple[nn.Parameter, Tensor]]:
    """Every parameter of the plain form with a view of the same numbers in the agent."""
    pairs: dict[str, tuple[nn.Parameter, Tensor]] = {}

    def add(name: str, p: nn.Parameter, data: Tensor, grad: Tensor | None) -> None:
        view = data.detach()
        view.grad = grad
        pairs[name] = (p, view)

    for name in ("actor", "actor_target"):
        linears = [m for m in getattr(model, name).noise_net.modules() if isinstance(m, nn.Linear)]
        net = getattr(plain, name)
        for i, (ours, theirs) in enumerate(zip(linears, [net.time_in, net.time_out, *net.hidden, net.out], strict=True)):
            add(f"{name}.{i}.weight", theirs.weight, ours.weight, ours.weight.grad)
            add(f"{name}.{i}.bias", theirs.bias, ours.bias, ours.bias.grad)
    for ours_name, name in (("critic", "critics"), ("critic_target", "critics_target")):
        layers = [m for m in getattr(model, ours_name).modules() if isinstance(m, EnsembleLinear)]
        for h, member in enumerate(getattr(plain, name)):
            for i, (ours, theirs) in enumerate(zip(layers, member.linears, strict=True)):
                grads = [None if p.grad is None else p.grad[h] for p in (ours.weight, ours.bias)]
                add(f"{name}.{h}.{i}.weight", theirs.weight, ours.weight[h].T, None if grads[0] is None else grads[0].T)
                add(f"{name}.{h}.{i}.bias", theirs.bias, ours.bias[h, 0], None if grads[1] is None else grads[1][0])
    return pairs


CASES: list[dict[str, Any]] = [
    {},
    {"guidance": "hard"},
    {"guidance": "denoised"},
    {"guidance": "none"},
    {"max_q": True},
    {"q_target": "min"},
    {"q_target": "convex", "rho": 0.75},
    {"q_target": "rand_convex"},
    {"sampler": "ddim"},
    {"sampler": "ddim", "ddim_stride": 2, "guidance": "hard"},
    {"clip_denoised": False, "guidance": "denoised"},
    {"max_grad_norm": None, "eta_lr": 0.0, "eta": 0.1},
    {"n_diffusion_steps": 7, "beta_schedule": "cosine", "n_critics": 1},
    {"lr_decay_steps": 3, "critic_learning_rate": 1e-3},
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: ",".join(f"{k}={v}" for k, v in case.items()) or "default")
def test_an_update_equals_its_plain_form(make_dac: MakeDac, make_batch: MakeBatch, case: dict[str, Any]) -> None:
    """Losses, gradients and parameters of three updates, of which two move the actor's target."""
    model = make_dac(**({"actor_ema_every": 1, "actor_ema_start": 0, "eta_lr": 0.05} | case))
    plain = PlainDAC(model)
    for step, n_rows in enumerate((7, 7, 1)):
        batch, noise = make_batch(n_rows, seed=step), model.draw_noise(n_rows)
        ours, theirs = model.step(batch, noise), plain.update(batch, noise)
        for name, value in theirs.items():
            close(ours[name], value, 1e-10)
        close(model.eta_tensor, plain.eta, 1e-10)
        for name, (p, view) in plain_pairs(model, plain).items():
            np.testing.assert_allclose(view, p.detach(), rtol=0, atol=1e-10, err_msg=f"{name} after update {step}")
            if "target" in name or (model.guidance == "none" and "critic" in name):
                assert p.grad is None and view.grad is None
            else:
                assert p.grad is not None and view.grad is not None
                np.testing.assert_allclose(view.grad, p.grad, rtol=0, atol=1e-10, err_msg=f"gradient of {name}, {step}")


def test_the_plain_form_matches_over_a_larger_batch_split_into_blocks(make_dac: MakeDac, make_batch: MakeBatch) -> None:
    model = make_dac(n_q_samples=10, policy_kwargs={"net_arch": [8, 8]})
    plain = PlainDAC(model)
    batch, noise = make_batch(300), model.draw_noise(300)
    ours, theirs = model.step(batch, noise), plain.update(batch, noise)
    close(ours["critic_loss"], theirs["critic_loss"], 1e-10)
    close(ours["actor_loss"], theirs["actor_loss"], 1e-10)


def test_drawn_noise_has_the_shapes_of_the_update(make_dac: MakeDac) -> None:
    noise = make_dac(guidance="denoised").draw_noise(6)
    assert isinstance(noise, DACNoise)
    assert noise.next_actions is not None and noise.denoised is not None
    assert noise.next_actions.shape == (5, 6, 4, 2)
    assert noise.denoised.shape == (5, 6, 1, 2)
    assert noise.eps.shape == (6, 2) and noise.t.shape == (6,)


def test_schedules_may_be_given_as_objects(make_dac: MakeDac) -> None:
    assert make_dac(learning_rate=FloatSchedule(1e-3)).lr_schedule(0.5) == 1e-3
