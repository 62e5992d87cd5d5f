"""A consistency model fitted once serves agents of other seeds, and is refused where it would not mean the same."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from phase_world import N_POLICY, Diary, expected_events, make, same, weights
from worlds import ACTION_SPACE, differing, make_dataset, snapshot

from sb3_genoffline import OfflineDataset
from sb3_genoffline.qdq import QDQ

pytestmark = pytest.mark.filterwarnings("ignore:The uncertainty H is no larger")


@pytest.fixture(scope="module")
def dataset() -> OfflineDataset:
    return make_dataset()


@pytest.fixture(scope="module")
def fitted(dataset: OfflineDataset) -> QDQ:
    return make(reward_transform=None).pretrain(dataset)


@pytest.fixture(scope="module")
def sampler_file(fitted: QDQ, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("shared") / "q_sampler"
    fitted.save_fitted_model(path)
    return path


def uncertainty(model: QDQ) -> np.ndarray:
    rows = make_dataset(7)
    return model.uncertainty(rows.observations, rows.actions, n_samples=8, seed=5)


@pytest.mark.parametrize("way", ["argument", "argument without an env", "file", "open file", "object", "checkpoint"])
def test_a_shared_model_has_the_same_range_and_uncertainties_and_is_not_fitted_again(
    fitted: QDQ, sampler_file: Path, dataset: OfflineDataset, tmp_path: Path, way: str
) -> None:
    if way == "argument":
        model = make(seed=4, reward_transform=None, q_sampler=sampler_file)
    elif way == "argument without an env":
        model = make(None, seed=4, reward_transform=None, q_sampler=str(sampler_file))
        model.set_dataset(dataset)
    elif way == "checkpoint":
        fitted.save(tmp_path / "agent")
        model = QDQ.load(tmp_path / "agent", device="cpu")
    else:
        model = make(seed=4, reward_transform=None)
        with sampler_file.with_suffix(".zip").open("rb") as file:
            sources: dict[str, Any] = {"file": sampler_file, "open file": file, "object": fitted.policy.q_sampler}
            model.set_fitted_model(sources[way])
    assert (model.policy.q_sampler.q_min, model.policy.q_sampler.q_max) == (
        fitted.policy.q_sampler.q_min,
        fitted.policy.q_sampler.q_max,
    )
    assert model.penalty == fitted.penalty
    before = uncertainty(fitted)
    np.testing.assert_array_equal(uncertainty(model), before)
    assert (before > 0).all() and len(np.unique(before)) > 50
    diary = Diary()
    model.learn_offline(dataset, N_POLICY, callback=diary)
    assert diary.events == expected_events(N_POLICY)
    np.testing.assert_array_equal(uncertainty(model), before)
    np.testing.assert_array_equal(uncertainty(fitted), before)  # nothing is shared but values


def test_an_agent_with_a_shared_model_is_saved_with_it_and_resumes(
    sampler_file: Path, dataset: OfflineDataset, tmp_path: Path
) -> None:
    def agent() -> QDQ:
        return make(seed=4, reward_transform=None, q_sampler=sampler_file)

    agent().learn_offline(dataset, 2).save(tmp_path / "agent")
    resumed = QDQ.load(tmp_path / "agent", device="cpu").learn_offline(dataset, 3, reset_num_timesteps=False)
    assert differing(snapshot(agent().learn_offline(dataset, 5)), snapshot(resumed)) in ([], ["data"])  # "data" has the total
    assert same(weights(agent().learn_offline(dataset, 5).policy), weights(resumed.policy))


def test_a_given_model_replaces_a_fit_that_was_under_way(sampler_file: Path, dataset: OfflineDataset, tmp_path: Path) -> None:
    interrupted = make(reward_transform=None).pretrain(dataset, callback=Diary(("teacher", 3)))
    interrupted.save(tmp_path / "interrupted")
    for model in (interrupted, QDQ.load(tmp_path / "interrupted", device="cpu")):
        model.set_fitted_model(sampler_file)
        given, diary = weights(model.policy.q_sampler), Diary()
        model.learn_offline(dataset, 1, callback=diary)
        assert diary.events == expected_events(1) and same(given, weights(model.policy.q_sampler))


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (
            lambda: make(policy_kwargs={"net_arch": [8], "q_net_arch": [16, 8]}),
            r"net_arch=\[8, 8\] and the policy's \[16, 8\].*q_net_arch=",
        ),
        (
            lambda: make(policy_kwargs={"q_net_arch": [8, 8], "q_data_std": 0.7}),
            r"data_std=0\.5 and the policy's 0\.7.*q_data_std=",
        ),
        (lambda: make((spaces.Box(-1, 1, (4,)), ACTION_SPACE)), "does not fit this agent"),
    ],
    ids=["widths", "data_std", "spaces"],
)
def test_a_model_of_another_shape_is_refused_and_nothing_of_it_taken_over(
    fitted: QDQ, sampler_file: Path, other: Any, message: str
) -> None:
    model = other()
    before = weights(model.policy)
    for source in (sampler_file, fitted.policy.q_sampler):
        with pytest.raises(ValueError, match=message):
            model.set_fitted_model(source)
        assert same(before, weights(model.policy))


def test_a_model_that_is_not_fitted_is_neither_saved_nor_taken(fitted: QDQ, tmp_path: Path) -> None:
    unfitted = make()
    with pytest.raises(ValueError, match="not fitted yet: call pretrain"):
        unfitted.save_fitted_model(tmp_path / "q_sampler")
    model = make(reward_transform=None, q_sampler=fitted.policy.q_sampler)
    before = weights(model.policy)
    with pytest.raises(ValueError, match="The given q_sampler is not fitted"):
        model.set_fitted_model(unfitted.policy.q_sampler)
    assert same(before, weights(model.policy))


def test_a_model_of_other_observation_statistics_is_refused(sampler_file: Path, dataset: OfflineDataset) -> None:
    model = make(reward_transform=None, normalize_observations=True, q_sampler=sampler_file)
    for _ in range(2):
        with pytest.raises(ValueError, match=r"fitted with obs_mean=.* and is used with"):
            model.learn_offline(dataset, 1)


def test_a_model_of_another_dataset_is_used_with_a_warning_that_names_both(
    sampler_file: Path, dataset: OfflineDataset
) -> None:
    model = make(reward_transform=None, q_sampler=sampler_file)
    with pytest.warns(UserWarning, match="was fitted on tests/point-0-v0 and is used with tests/point-1-v0"):
        model.learn_offline(make_dataset(1), 1)
    assert model.num_timesteps == 1


def test_files_that_hold_no_model_are_refused(fitted: QDQ, sampler_file: Path, tmp_path: Path) -> None:
    model = make()
    before = weights(model.policy)
    fitted.save(tmp_path / "agent")
    content = sampler_file.with_suffix(".zip").read_bytes()
    (tmp_path / "cut.zip").write_bytes(content[: len(content) // 2])
    middle = len(content) // 2
    (tmp_path / "flipped.zip").write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
    (tmp_path / "text.zip").write_text("no archive")
    for name, message in (
        ("agent", "holds an agent or something else, not a fitted ConsistencyQ"),
        ("cut", "not a readable zip archive"),
        ("flipped", "not a readable zip archive"),
        ("text", "not a readable zip archive"),
    ):
        with pytest.raises(ValueError, match=message):
            model.set_fitted_model(tmp_path / name)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        make(q_sampler=tmp_path / "nowhere")
    assert same(before, weights(model.policy))


def test_a_given_object_is_copied_and_left_alone(fitted: QDQ, dataset: OfflineDataset) -> None:
    given = copy.deepcopy(fitted.policy.q_sampler)
    before = weights(given)
    model = make(reward_transform=None, q_sampler=given)
    with th.no_grad():
        for parameter in model.policy.q_sampler.parameters():
            parameter.zero_()
    assert same(before, weights(given)) and model.policy.q_sampler is not given
