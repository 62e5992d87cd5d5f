"""Random numbers of acting as inputs: what a policy draws is written down, and makes the same actions where it is given."""

from typing import Any

import numpy as np
import pytest
import torch as th
from worlds import make_agent

from sb3_genoffline.deploy.acting import EPISODE_START
from sb3_genoffline.deploy.draws import DrawnInput, GivenDraws, RecordedDraws
from sb3_genoffline.deploy.onnx_file import draws_of
from sb3_genoffline.deploy.quantile import normal_quantile
from sb3_genoffline.errors import UserError
from sb3_genoffline.nets.blocks import undivided
from sb3_genoffline.registry import ALGOS
from sb3_genoffline.testing import observations

EXPORTED = [name for name, cls in ALGOS.items() if cls.no_export is None]
SETTINGS: dict[str, dict[str, Any]] = {
    "idql, which draws among its candidates": {"selection": "implicit", "value_objective": "quantile"},
    "onestep, which chooses": {"improvement": "easy_bcq"},
    "plas, whose noise is on latents": {"policy_kwargs": {"net_arch": [8], "vae_net_arch": [8], "noise_on_latents": True}},
}
"""Ways to act that are not the usual ones."""


@pytest.mark.parametrize("deterministic", [True, False])
@pytest.mark.parametrize("name", [*EXPORTED, *SETTINGS])
def test_given_numbers_make_the_actions_that_were_recorded_and_these_are_predicts(name: str, deterministic: bool) -> None:
    model = make_agent(name.partition(",")[0], **SETTINGS.get(name, {}))
    mean, std = th.tensor([2.0, -1.0, 0.5]), th.tensor([3.0, 0.5, 1.0])
    model.policy.set_observation_statistics(mean, std)
    inputs = draws_of(model, deterministic)
    predicted = model.predict(observations(), deterministic=deterministic)[0]
    model.set_acting_seed(model.policy.acting_seed)
    with undivided(), RecordedDraws() as drawn:
        recorded = model.predict(observations(), deterministic=deterministic)[0]
    np.testing.assert_array_equal(recorded, predicted)  # one block or several, watched or not: the same stream
    numbers = [values.reshape(given.sized(7)) for given, (_, values) in zip(inputs, drawn.numbers, strict=True)]
    with undivided(), th.no_grad():
        acting = model.policy.acting_module(deterministic)
        memory = [th.full((7, *shape), float(name == EPISODE_START)) for name, shape in acting.memory.items()]
        actions = acting([th.as_tensor(observations())], memory, numbers)[0]
    np.testing.assert_allclose(actions, predicted, rtol=0, atol=1e-5)


def test_a_choice_is_drawn_with_its_probabilities() -> None:
    weights = th.tensor([[0.5, 0.0, 0.3, 0.2]]).expand(20_000, 4)
    numbers = th.rand(20_000, 4, generator=th.Generator().manual_seed(0))
    with GivenDraws([numbers]):
        chosen = th.multinomial(weights, 1).squeeze(1)
    shares = th.bincount(chosen, minlength=4) / len(chosen)
    np.testing.assert_allclose(shares, [0.5, 0.0, 0.3, 0.2], atol=4 * 0.5 / 20_000**0.5)  # four standard errors


def test_several_are_drawn_without_replacement_as_pytorch_draws_them() -> None:
    weights, seeded = th.rand(50, 6), lambda: th.Generator().manual_seed(3)
    with RecordedDraws() as drawn:
        recorded = th.multinomial(weights, 3, generator=seeded())
    with GivenDraws([drawn.numbers[0][1]]):
        given = th.multinomial(weights, 3)
    assert th.equal(recorded, th.multinomial(weights, 3, generator=seeded())) and th.equal(recorded, given)
    assert all(len(set(row)) == 3 for row in recorded.tolist()) and isinstance(drawn.ties, th.Tensor)


def test_kept_units_are_kept_with_their_probability() -> None:
    numbers = th.rand(20_000, generator=th.Generator().manual_seed(0))
    with GivenDraws([numbers]):
        kept = th.empty(20_000).bernoulli_(0.9)
    assert set(kept.tolist()) == {0.0, 1.0} and abs(float(kept.mean()) - 0.9) < 4 * 0.3 / 20_000**0.5


def test_close_choices_are_noted() -> None:
    values = th.tensor([[1.0, 2.0, 3.0], [3.0, 3.0 - 1e-6, 0.0], [5.0, 5.0, 5.0]])
    with RecordedDraws() as drawn:
        assert values.argmax(dim=1).tolist() == [2, 0, 0]
    assert isinstance(drawn.ties, th.Tensor) and drawn.ties.tolist() == [False, True, True]


@pytest.mark.parametrize(
    ("two", "three", "shape"),
    [
        ((2, 4), (3, 4), ("batch", 4)),
        ((5, 2, 10, 3), (5, 3, 10, 3), (5, "batch", 10, 3)),
        ((1, 7, 20, 8), (1, 7, 30, 8), (1, 7, "batch", 10, 8)),
        ((3, 2, 2), (3, 3, 2), (3, "batch", 2)),
    ],
)
def test_the_axis_of_observations_is_found(two: tuple[int, ...], three: tuple[int, ...], shape: tuple[int | str, ...]) -> None:
    drawn = DrawnInput.of("noise", "noise", two, three)
    assert drawn.shape == shape and drawn.sized(9) == tuple(9 if size == "batch" else size for size in shape)


def test_other_draws_are_refused_by_name() -> None:
    with RecordedDraws(), pytest.raises(UserError, match="The policy draws by randint"):
        th.randint(5, (2,), generator=th.Generator())


def test_the_normal_quantile_is_torchs() -> None:
    p = th.cat([th.linspace(1e-7, 1 - 1e-7, 2001), th.logspace(-30, -3, 200)])
    expected = th.special.ndtri(p.double())
    np.testing.assert_allclose(normal_quantile(p.double()), expected, rtol=3e-7, atol=1e-12)
    np.testing.assert_allclose(normal_quantile(p), expected, rtol=2e-5, atol=1e-5)
