"""A fitted density in a file of its own: saved, handed over, refused."""

import io
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
import torch as th

from sb3_genoffline import OfflineDataset
from sb3_genoffline.common.fitting import SharedModel
from sb3_genoffline.cped import CPED
from sb3_genoffline.files.archive import CheckpointError
from sb3_genoffline.generative.behavior import Density
from sb3_genoffline.generative.flow import make_density

MakeCped = Callable[..., CPED]
MakeData = Callable[..., OfflineDataset]


@pytest.fixture(scope="module")
def fitted(make_cped: MakeCped, make_data: MakeData) -> CPED:
    """An agent whose density knows the data, and no more; to be looked at only."""
    return make_cped(fitted=False, held_out=0.25).pretrain(make_data())


@pytest.fixture(scope="module")
def file(fitted: CPED, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where its density lies."""
    path: Path = tmp_path_factory.mktemp("shared") / "density.zip"
    fitted.save_fitted_model(path)
    return path


def same_density(first: CPED, second: CPED) -> bool:
    ours, theirs = (model.policy.density.state_dict() for model in (first, second))
    return all(th.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("way", ["file", "file name as text", "open file", "object", "set_fitted_model"])
def test_a_density_is_handed_over_in_every_way_and_then_not_fitted(
    make_cped: MakeCped, make_data: MakeData, fitted: CPED, file: Path, way: str
) -> None:
    sources: dict[str, Any] = {"file": file, "file name as text": str(file), "object": fitted.policy.density}
    if way == "set_fitted_model":
        model = make_cped(fitted=False, seed=5)
        model.set_fitted_model(file)
    else:
        source = io.BytesIO(file.read_bytes()) if way == "open file" else sources[way]
        model = make_cped(fitted=False, seed=5, density=source)
    assert model.density is None and model.policy.fitted and same_density(model, fitted)
    model.learn_offline(make_data(), 4)
    assert same_density(model, fitted) and not any(key.startswith("flow/") for key in model.last_metrics)
    assert model.num_timesteps == 4 and "nll_pi" in model.last_metrics


def test_agents_of_several_seeds_share_one_density_and_measure_their_own_thresholds(
    make_cped: MakeCped, make_data: MakeData, fitted: CPED, file: Path
) -> None:
    nll = fitted.policy.nll(*fitted.offline_rows()).detach()
    actors = []
    for seed, quantile in ((1, 0.5), (2, 0.8)):
        model = make_cped(fitted=False, seed=seed, density=file, epsilon="quantile", epsilon_quantile=quantile)
        model.learn_offline(make_data(), 3)
        assert same_density(model, fitted)
        assert model.policy.nll_threshold.item() == pytest.approx(nll.quantile(quantile).item(), rel=1e-5)
        assert model.policy.nll_q99.item() == pytest.approx(nll.quantile(0.99).item(), rel=1e-5)
        actors.append(next(model.policy.actor.parameters()))
    assert not th.equal(actors[0], actors[1])


def test_a_handed_over_density_is_a_copy(make_cped: MakeCped) -> None:
    fitted = make_cped()
    model = make_cped(fitted=False, density=fitted.policy.density)
    before = next(model.policy.density.parameters()).clone()
    with th.no_grad():
        next(fitted.policy.density.parameters()).add_(1.0)
    assert th.equal(next(model.policy.density.parameters()), before)


def test_an_agent_saved_before_it_met_the_data_measures_its_thresholds_after_the_load(
    make_cped: MakeCped, make_data: MakeData, fitted: CPED, file: Path
) -> None:
    saved = io.BytesIO()
    make_cped(fitted=False, density=file, epsilon="quantile").save(saved)
    saved.seek(0)
    loaded = CPED.load(saved, device="cpu").learn_offline(make_data(), 2)
    assert same_density(loaded, fitted)
    assert loaded.policy.nll_threshold == fitted.policy.nll_threshold and loaded.policy.nll_q99 == fitted.policy.nll_q99


def test_another_density_makes_an_agent_forget_what_was_usual(make_cped: MakeCped, make_data: MakeData, file: Path) -> None:
    model = make_cped(fitted=False, flow_steps=1).learn_offline(make_data(), 2)
    before = model.policy.nll_q99.clone()
    model.set_fitted_model(file)
    model.learn_offline(make_data(), 2)
    assert model.policy.nll_q99.isfinite() and model.policy.nll_q99 != before


def test_a_quantile_of_no_data_is_an_error_and_a_batch_mean_is_not(make_cped: MakeCped, file: Path) -> None:
    density = make_density("spline", 3, 1, [8], 1)
    env = gym.make("Pendulum-v1")
    with pytest.raises(ValueError, match=r"epsilon='quantile' is measured .*set_dataset\(dataset\).*epsilon='batch_mean'"):
        make_cped(env=env, fitted=False, density=density, epsilon="quantile").learn(3)
    make_cped(env=env, fitted=False, density=density).learn(3)


def test_an_unfitted_density_is_not_saved(make_cped: MakeCped, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"not fitted yet: call pretrain\(dataset\) or learn_offline\(dataset\) first"):
        make_cped(fitted=False).save_fitted_model(tmp_path / "density")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"flow": "affine"}, "flow='spline' and the policy's 'affine'"),
        ({"flow": "nice"}, "flow='spline' and the policy's 'nice'"),
        ({"policy_kwargs": {"flow_net_arch": [9]}}, r"net_arch=\[8\] and the policy's \[9\].*flow_net_arch="),
        ({"policy_kwargs": {"flow_transforms": 2}}, "n_transforms=1 and the policy's 2"),
        ({"policy_kwargs": {"flow_bins": 4}}, "n_bins=8 and the policy's 4"),
        ({"policy_kwargs": {"flow_squash": "normal"}}, "squash=None and the policy's 'normal'"),
        ({"env": "Pendulum-v1"}, "action_dim=2 and the policy's 1.*the same spaces"),
    ],
    ids=str,
)
def test_a_density_of_another_kind_or_shape_is_refused_and_the_difference_named(
    make_cped: MakeCped, file: Path, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        make_cped(fitted=False, density=file, **settings)


def test_foreign_damaged_and_missing_files_are_refused(make_cped: MakeCped, fitted: CPED, file: Path, tmp_path: Path) -> None:
    model = make_cped(fitted=False)
    before = {name: tensor.clone() for name, tensor in model.policy.density.state_dict().items()}
    fitted.save(tmp_path / "agent")
    SharedModel("ConsistencyQ", {}, th.nn.Linear(1, 1).state_dict(), {}).write(tmp_path / "other")
    (tmp_path / "cut.zip").write_bytes(file.read_bytes()[:-200])
    (tmp_path / "text.zip").write_text("no archive")
    for name, message in (
        ("agent", "not a fitted Density"),
        ("other", "holds ConsistencyQ, not a fitted Density"),
        ("cut", "not a readable zip archive"),
        ("text", "not a readable zip archive"),
    ):
        with pytest.raises(CheckpointError, match=message):
            model.set_fitted_model(tmp_path / name)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        model.set_fitted_model(tmp_path / "nowhere")
    assert not model.policy.fitted
    assert all(th.equal(tensor, before[name]) for name, tensor in model.policy.density.state_dict().items())


def test_a_density_of_another_dataset_is_used_with_a_warning_and_one_of_the_same_without(
    make_cped: MakeCped, make_data: MakeData, file: Path
) -> None:
    with pytest.warns(UserWarning, match="was fitted on tests/rows-v0 and is used with tests/others-v0") as caught:
        make_cped(fitted=False, density=file).learn_offline(make_data(7, "tests/others-v0"), 2)
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make_cped(fitted=False, density=file).learn_offline(make_data(), 2)
        own: Density = make_density("spline", 3, 2, [8], 1)
        make_cped(fitted=False, density=own).learn_offline(make_data(), 2)  # where it comes from is not known
