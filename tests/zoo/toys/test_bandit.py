"""The 2-D bandit: data as the paper describes them, and every method runs."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch as th

from zoo.plot.bandit import MATCHED, plot_bandit
from zoo.toys.bandit import BEST, METHODS, critic_surface, make_agent, make_data, measure, sample, train_agent, true_q


@pytest.mark.parametrize(
    ("index", "n", "n_centers", "scale"), [(0, 800, 2, 0.1), (1, 1200, 3, 0.1), (2, 400, 40, 0.05), (3, 400, 40, 0.05)]
)
def test_the_sets_have_the_papers_sizes_and_lie_around_their_centres(index: int, n: int, n_centers: int, scale: float) -> None:
    data = make_data(index)
    assert data.actions.shape == (n, 2) and data.actions.dtype == np.float32
    assert np.abs(data.actions).max() <= 1.0
    assert (len(data.centers), data.scale) == (n_centers, scale)
    spread = data.actions.reshape(n_centers, -1, 2) - data.centers[:, None]
    assert spread.std() == pytest.approx(scale, rel=0.08)
    assert np.array_equal(data.actions, make_data(index).actions)


@pytest.mark.parametrize("index", [2, 3])
def test_moons_and_circles_fill_the_papers_rectangle(index: int) -> None:
    centers = make_data(index).centers
    assert centers.min(0) == pytest.approx([-0.8, -0.2])
    assert centers.max(0) == pytest.approx([0.3, 0.9])


@pytest.mark.parametrize(
    ("index", "mean", "best"), [(0, -1.013, -0.283), (1, -1.010, -0.521), (2, -1.029, -0.300), (3, -1.054, -0.378)]
)
def test_the_datas_values_are_those_of_the_reference_run(index: int, mean: float, best: float) -> None:
    values = true_q(make_data(index).actions)
    assert values.mean() == pytest.approx(mean, abs=0.01)
    assert values.max() == pytest.approx(best, abs=0.08)  # an extreme of another draw


def test_a_set_that_does_not_exist_is_an_error() -> None:
    with pytest.raises(ValueError, match="set 4 does not exist"):
        make_data(4)
    with pytest.raises(ValueError, match="'sofft' does not exist"):
        make_agent("sofft")  # type: ignore[arg-type]


def test_measures_tell_the_data_from_the_optimum() -> None:
    data = make_data(0)
    inside, outside = measure(data.actions, data), measure(np.array([BEST]), data)
    assert inside["ood"] < 0.05 and inside["nearest"] == 0.0 and inside["shares"] == [0.5, 0.5]
    assert inside["mean_q"] == pytest.approx(-1.013, abs=0.01)
    assert outside["ood"] == 1.0 and outside["mean_q"] == 0.0 and outside["nearest"] > 0.2
    assert outside["shares"] == [0.0, 1.0]


@pytest.mark.parametrize("method", METHODS)
def test_a_short_training_runs_and_repeats(method: str) -> None:
    steps = 2 if method == "denoised" else 8
    data = make_data(1)
    runs = []
    for _ in range(2 if method == "soft" else 1):
        model = make_agent(method, steps)  # type: ignore[arg-type]
        metrics = train_agent(model, data, steps)
        assert all(np.isfinite(value) for value in metrics.values())
        assert ("eta" in metrics) == (method != "bc")
        assert model._n_updates == steps
        runs.append(sample(model, 20))
    assert runs[0].shape == (20, 2) and np.array_equal(runs[0], runs[-1])


def test_the_critics_learn_the_observed_reward_only() -> None:
    model, data = make_agent("soft"), make_data(0)
    before = np.abs(critic_surface(model, data.actions) - true_q(data.actions)).mean()
    train_agent(model, data, 80)
    assert np.abs(critic_surface(model, data.actions) - true_q(data.actions)).mean() < 0.5 * before


def test_a_clamped_sampler_stays_in_the_box_and_the_plotted_one_need_not() -> None:
    model = make_agent("denoised")
    with th.no_grad():
        for parameter in model.actor.noise_net.trunk[-1].parameters():
            parameter.mul_(20.0)
    assert np.abs(sample(model, 50, clip=True)).max() <= 1.0
    assert np.abs(sample(model, 50)).max() > 1.0


def test_the_picture_comes_with_its_numbers(tmp_path: Path) -> None:
    files = plot_bandit(tmp_path / "bandit.png", sets=[0], methods=["soft", "denoised"], steps=2, matched=True, verbose=False)
    assert [file.name for file in files] == ["bandit.png", "bandit.svg", "bandit.json"]
    assert all(file.stat().st_size > 0 for file in files)
    table = json.loads(files[2].read_text())
    assert table["steps"] == 2 and set(table["sets"]["0"]) == {"data_mean_q", "soft", "denoised", MATCHED}
    assert {"mean_q", "ood", "nearest", "eta", "shares"} <= set(table["sets"]["0"]["soft"])
