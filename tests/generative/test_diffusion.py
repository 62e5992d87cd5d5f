"""The diffusion model against numbers of the DAC reference (DAC's README claims 1 to 5) and against itself."""

import math
from collections.abc import Iterator
from typing import Any, get_args

import numpy as np
import pytest
import torch as th
from exact import close
from torch import Tensor

from sb3_genoffline.errors import UserError
from sb3_genoffline.generative.diffusion import (
    ConditionalDiffusion,
    NoiseNetwork,
    NoiseSchedule,
    SamplerName,
    ddim_sample,
    ddpm_sample,
    time_embedding,
)
from sb3_genoffline.nets import layers

SCHEDULES = ["vp", "linear", "cosine"]


@pytest.fixture(autouse=True)
def float64() -> Iterator[None]:
    th.set_default_dtype(th.float64)
    yield
    th.set_default_dtype(th.float32)


# ---------------------------------------------------------------------- schedules


def test_the_vp_schedule_of_five_steps_has_the_reference_values() -> None:
    schedule = NoiseSchedule.make("vp", 5)
    close(schedule.betas, [0, 0.1958745583, 0.4588181934, 0.6357810204, 0.7548781880, 0.8350313792], 1e-10)
    close(schedule.alpha_bars, [1, 0.8041254417, 0.4351780593, 0.1585001087, 0.0388518338, 0.0064093334], 1e-10)
    close(np.sqrt(schedule.alpha_bars), [1, 0.8967304175, 0.6596802705, 0.3981207212, 0.1971086854, 0.0800583128], 1e-10)
    close(schedule.sigmas, [0, 0.4425771778, 0.7515463663, 0.9173330318, 0.9803816431, 0.9967901818], 1e-10)
    close(np.sqrt(schedule.betas), [0, 0.4425771778, 0.6773611986, 0.7973587777, 0.8688372621, 0.9138005139], 1e-10)
    close(schedule.clean_coefficients[1:], [1, 0.7284352828, 0.4984102789, 0.3126808740, 0.1656536670], 1e-10)
    close(schedule.noisy_coefficients[1:], [0, 0.2551162165, 0.4050781157, 0.4334656643, 0.3929013402], 1e-10)


def test_the_vp_schedule_of_fifty_steps_has_the_reference_values() -> None:
    schedule = NoiseSchedule.make("vp", 50)
    close(schedule.betas[[1, 25, 50]], [0.0039720903, 0.0942754066, 0.1796465541], 1e-10)
    close(schedule.alpha_bars[25], 0.2759598210, 1e-10)


@pytest.mark.parametrize("n_steps", [1, 2, 5, 50, 100])
def test_the_vp_schedule_ends_at_the_same_noise_for_every_number_of_steps(n_steps: int) -> None:
    schedule = NoiseSchedule.make("vp", n_steps)
    close(schedule.alpha_bars[-1], math.exp(-5.05), 1e-14)
    t = np.arange(n_steps + 1)
    close(schedule.alpha_bars, np.exp(-0.1 * t / n_steps - 0.5 * 9.9 * t**2 / n_steps**2), 1e-14)


def test_the_cosine_and_linear_schedules_have_the_reference_values() -> None:
    close(NoiseSchedule.make("cosine", 5).betas, [0, 0.10129408, 0.27954385, 0.47363535, 0.72405237, 0.999], 1e-8)
    close(NoiseSchedule.make("linear", 5).betas, [0, 1e-4, 0.005075, 0.01005, 0.015025, 2e-2], 1e-15)


def test_unknown_schedules_and_zero_steps_are_refused() -> None:
    with pytest.raises(UserError, match="beta_schedule='quadratic' is not known"):
        NoiseSchedule.make("quadratic", 5)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="n_diffusion_steps=0"):
        NoiseSchedule.make("vp", 0)


# ---------------------------------------------------------------------- time embedding and mish


def test_time_frequencies_fall_from_one_to_a_ten_thousandth() -> None:
    table = time_embedding(1, 16)[1]
    expected = [1, 0.2682695795, 0.0719685673, 0.0193069773, 0.0051794747, 0.0013894955, 0.0003727594, 0.0001]
    close(th.atan2(table[8:], table[:8]), expected, 1e-10)


def test_the_time_embedding_has_eight_cosines_then_eight_sines_of_the_unscaled_step() -> None:
    table = time_embedding(5, 16)
    assert table.shape == (6, 16)
    cosines = [
        [0.5403023059, 0.9642310107, 0.9974113803, 0.9998136261, 0.9999865866, 0.9999990347, 0.9999999305, 0.9999999950],
        [-0.4161468365, 0.8594828841, 0.9896589229, 0.9992545739, 0.9999463466, 0.9999961386, 0.9999997221, 0.9999999800],
        [-0.9899924966, 0.6932490894, 0.9767827644, 0.9983230517, 0.9998792811, 0.9999913119, 0.9999993747, 0.9999999550],
    ]
    sines = [
        [0.8414709848, 0.2650633093, 0.0719064568, 0.0193057778, 0.0051794515, 0.0013894950, 0.0003727594, 0.0001],
        [0.9092974268, 0.5111645252, 0.1434406367, 0.0386043595, 0.0103587641, 0.0027789874, 0.0007455187, 0.0002],
        [0.1411200081, 0.7206980644, 0.2142321901, 0.0578885514, 0.0155377988, 0.0041684744, 0.0011182779, 0.0003],
    ]
    close(table[1:4, :8], cosines, 1e-10)
    close(table[1:4, 8:], sines, 1e-10)


# ---------------------------------------------------------------------- noising and sampling


def test_noised_actions_have_the_reference_values() -> None:
    model = ConditionalDiffusion(3, 2, n_diffusion_steps=5, net_arch=[4])
    actions, eps = th.tensor([[0.3, -0.6], [0.9, 0.1]]), th.tensor([[0.5, -1], [0.2, 0.3]])
    x_t = model.add_noise(actions, eps, th.tensor([2, 5]))
    close(x_t, [[0.5736772643, -1.1473545286], [0.2714105179, 0.3070428858]], 1e-10)


def linear_prediction(x: Tensor, t: int) -> Tensor:
    return 0.5 * x + 0.1 * t


START = (1.0, -0.5)


def sampler_noise(z: float) -> Tensor:
    return th.stack([th.tensor(START), *(th.full((2,), z) for _ in range(4))])


class Recording:
    """A noise prediction that keeps the x_t it was asked about."""

    def __init__(self) -> None:
        self.inputs: list[tuple[int, list[float]]] = []

    def __call__(self, x: Tensor, t: int) -> Tensor:
        self.inputs.append((t, x.tolist()))
        return linear_prediction(x, t)


def test_ddpm_with_clamped_clean_actions_follows_the_reference_step_by_step() -> None:
    prediction = Recording()
    result = ddpm_sample(prediction, NoiseSchedule.make("vp", 5), sampler_noise(1.0), temperature=0.0)
    assert [t for t, _ in prediction.inputs] == [5, 4, 3, 2, 1]
    expected = [
        START,
        (0.3995429760, -0.3621043371),
        (-0.1257761221, -0.4696406710),
        (-0.4807123612, -0.6886514370),
        (-0.6199613767, -0.8163396467),
    ]
    close([x for _, x in prediction.inputs], expected)
    close(result, (-0.5877225819, -0.7582554385))


def test_ddpm_without_clamp_has_the_reference_value() -> None:
    result = ddpm_sample(linear_prediction, NoiseSchedule.make("vp", 5), sampler_noise(1.0), temperature=0.0, clip="none")
    close(result, (-0.5877225819, -2.9551256658))


def test_ddpm_adds_the_reference_noise_and_none_at_the_last_step() -> None:
    prediction = Recording()
    result = ddpm_sample(prediction, NoiseSchedule.make("vp", 5), sampler_noise(1.0))
    close(prediction.inputs[-1][1], (1.9173001170, 1.7787899343))  # x_1 leaves the box: only x̂0 is clamped
    close(result, (1, 1))
    schedule = NoiseSchedule.make("vp", 5)
    noise = sampler_noise(0.0)
    without = ddpm_sample(lambda x, t: th.zeros_like(x), schedule, noise, clip="none")
    for k in range(1, 5):  # with ε̂ = 0 the noise added at step t = 6 − k reaches the end scaled by 1/√ᾱ_{t−1}
        noise = sampler_noise(0.0)
        noise[k] = 1.0
        shift = ddpm_sample(lambda x, t: th.zeros_like(x), schedule, noise, clip="none") - without
        t = 6 - k
        close(shift, np.sqrt(schedule.betas[t] / schedule.alpha_bars[t - 1]) * np.ones(2))


def test_ddim_of_stride_one_has_the_reference_values() -> None:
    schedule, noise = NoiseSchedule.make("vp", 5), sampler_noise(1.0)
    close(ddim_sample(linear_prediction, schedule, noise, clip="step"), (0.7791061661, -0.9177441880))
    close(ddim_sample(linear_prediction, schedule, noise, clip="none"), (0.8724878471, -3.6816970970))


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("stride", [1, 2, 3, 4, 7, 12])
def test_ddim_recovers_a_known_clean_action_with_every_stride(name: Any, stride: int) -> None:
    schedule = NoiseSchedule.make(name, 12)
    clean, eps = th.tensor([0.3, -0.9]), th.tensor([1.2, -0.4])
    visited = []

    def exact(x: Tensor, t: int) -> Tensor:
        expected = math.sqrt(schedule.alpha_bars[t]) * clean + schedule.sigmas[t] * eps
        close(x, expected)  # the whole path keeps the noise it started with
        visited.append(t)
        return (x - math.sqrt(schedule.alpha_bars[t]) * clean) / schedule.sigmas[t]

    start = math.sqrt(schedule.alpha_bars[-1]) * clean + schedule.sigmas[-1] * eps
    clips: list[Any] = ["clean", "none"]  # "step", the reference's clamp of x_t, leaves the path
    for clip in clips:
        visited.clear()
        close(ddim_sample(exact, schedule, start[None], stride=stride, clip=clip), clean)
        assert visited == list(range(12, 0, -stride))


def test_a_stride_of_zero_is_refused() -> None:
    with pytest.raises(UserError, match="stride=0"):
        ddim_sample(linear_prediction, NoiseSchedule.make("vp", 5), sampler_noise(0.0), stride=0)


@pytest.mark.parametrize("sampler", get_args(SamplerName))
@pytest.mark.parametrize("scale", [0.0, 1.0, 100.0])
def test_sampled_actions_lie_in_the_box_for_any_network_if_clamped(sampler: Any, scale: float) -> None:
    th.manual_seed(0)
    model = ConditionalDiffusion(3, 2, n_diffusion_steps=5, net_arch=[8, 8])
    with th.no_grad():
        for parameter in model.parameters():
            parameter.mul_(scale)
        states, noise = th.randn(16, 3), 5 * th.randn(model.noise_shape(16, 4))
        actions = model.sample(states, noise, sampler=sampler)
        assert actions.shape == (16, 4, 2)
        assert actions.abs().max() <= 1
        if scale == 100.0:
            assert model.sample(states, noise, sampler=sampler, clip="none").abs().max() > 1


# ---------------------------------------------------------------------- the noise network


@pytest.mark.parametrize("residual", [False, True])
def test_the_network_conditioned_on_states_is_the_network(residual: bool) -> None:
    th.manual_seed(0)
    network = NoiseNetwork(3, 2, n_diffusion_steps=5, net_arch=[8, 8], residual=residual)
    states, x = th.randn(6, 3), th.randn(6, 4, 2)
    predict = network.conditioned_on(states)
    for t in range(1, 6):
        rows = network(states.repeat_interleave(4, 0), x.flatten(0, 1), th.full((24,), t))
        close(predict(x, t).detach().flatten(0, 1), rows.detach(), 1e-12)


def test_the_network_reads_state_then_action_then_time(monkeypatch: pytest.MonkeyPatch) -> None:
    network = NoiseNetwork(3, 2, n_diffusion_steps=5, net_arch=[8], time_hidden=32)
    assert network.input_layer.in_features == 3 + 2 + 32
    seen, halves = [], layers._halves
    monkeypatch.setattr(layers, "_halves", lambda layer, x: seen.append(x.detach()) or halves(layer, x))
    states, x, t = th.randn(4, 3), th.randn(4, 2), th.tensor([1, 2, 3, 5])
    network(states, x, t)
    close(seen[0][:, :3], states)
    close(seen[0][:, 3:5], x)
    close(seen[0][:, 5:], network.time_net(time_embedding(5, 16)[t]).detach())


def test_gradients_reach_every_parameter_through_the_whole_chain() -> None:
    th.manual_seed(0)
    model = ConditionalDiffusion(3, 2, n_diffusion_steps=3, net_arch=[8, 8])
    actions = model.sample(th.randn(4, 3), th.randn(model.noise_shape(4, 2)), clip="none")
    actions.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


def test_the_network_has_no_normalisation_or_dropout_and_a_linear_output() -> None:
    kinds = {type(module).__name__ for module in NoiseNetwork(3, 2, 5).modules() if not list(module.children())}
    assert kinds == {"Linear", "Mish"}


@pytest.mark.parametrize("sampler", get_args(SamplerName))
@pytest.mark.parametrize(("n_states", "n_samples"), [(65, 10), (130, 10), (2, 700)])
def test_samples_in_blocks_are_those_of_single_states(sampler: Any, n_states: int, n_samples: int) -> None:
    th.manual_seed(0)
    model = ConditionalDiffusion(4, 2, 3, net_arch=(8,)).double()
    states = th.randn(n_states, 4, dtype=th.float64)
    noise = th.randn(model.noise_shape(n_states, n_samples), dtype=th.float64)
    with th.no_grad():
        together = model.sample(states, noise, sampler=sampler)
        single = [model.sample(states[i : i + 1], noise[:, i : i + 1], sampler=sampler) for i in range(n_states)]
    th.testing.assert_close(together, th.cat(single))
    th.testing.assert_close(model.sample(states, noise, sampler=sampler).detach(), together)  # with gradients in one pass
