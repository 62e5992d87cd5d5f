"""Phases A to C of QDQ inside an agent: their order, logs, interruptions, and what they say when they can't work."""

import csv
import math
import os
import random
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from phase_world import (
    N_DISTILLATION,
    N_POLICY,
    N_TEACHER,
    PHASES,
    VARIANTS,
    Diary,
    expected_events,
    make,
    same,
    uninterrupted,
    weights,
)
from stable_baselines3.common.callbacks import EveryNTimesteps
from worlds import N_ROWS, PointEnv, differing, make_dataset, members, snapshot

from sb3_genoffline import OfflineDataset
from sb3_genoffline.common.fitting import Fit
from sb3_genoffline.data.transforms import clip_actions, scale_actions
from sb3_genoffline.generative.consistency import karras_grid
from sb3_genoffline.qdq import QDQ
from zoo.runs.callbacks import SaveLast, StopWhenAsked
from zoo.runs.stopping import stoppable

pytestmark = pytest.mark.filterwarnings("ignore:The uncertainty H is no larger")


@pytest.fixture(scope="module")
def dataset() -> OfflineDataset:
    return make_dataset()


# ---------------------------------------------------------------------- order


def test_the_teacher_is_followed_by_the_distillation_and_that_by_the_policy(dataset: OfflineDataset) -> None:
    diary, hidden = Diary(), Diary()
    model = make().learn_offline(dataset, N_POLICY, callback=[diary, EveryNTimesteps(2, hidden)])
    assert diary.events == expected_events(N_POLICY, **PHASES)
    assert [event for event in hidden.events if event[1] != "policy"] == expected_events(0, **PHASES)
    assert model.num_timesteps == N_POLICY and model._n_updates == N_POLICY
    again = Diary()
    model.learn_offline(dataset, 1, callback=again)
    assert again.events == expected_events(1)  # fitted once


def test_each_phase_logs_its_loss_and_steps_under_its_own_name(dataset: OfflineDataset, tmp_path: Path, csv_log: Any) -> None:
    model = make()
    csv_log(model, tmp_path)
    model.pretrain(dataset, log_interval=2)
    with (tmp_path / "progress.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert rows[0].keys() == {f"{name}/{key}" for name in PHASES for key in ("loss", "n_steps")}
    for name, n_steps in PHASES.items():
        own = [row for row in rows if row[f"{name}/n_steps"]]
        assert [int(row[f"{name}/n_steps"]) for row in own] == [*range(2, n_steps, 2), n_steps]
        assert all(float(row[f"{name}/loss"]) > 0 for row in own)
        assert model.last_metrics[f"{name}/loss"] == pytest.approx(float(own[-1][f"{name}/loss"]), rel=1e-4)


def test_each_phase_has_a_progress_bar(dataset: OfflineDataset, capfd: pytest.CaptureFixture[str]) -> None:
    make().learn_offline(dataset, N_POLICY, progress_bar=True)
    output = capfd.readouterr().err
    places = [output.index(text) for text in (f"{N_TEACHER}/{N_TEACHER}", f"{N_DISTILLATION}/7", f"{N_POLICY}/{N_POLICY}")]
    assert places == sorted(places)
    assert output.index("teacher:") < output.index("distillation:")


def test_training_for_no_step_fits_nothing(dataset: OfflineDataset) -> None:
    diary, model = Diary(), make()
    before = weights(model.policy)
    model.learn_offline(dataset, 0, callback=diary)
    assert diary.events == [] and same(before, weights(model.policy))


def test_fitting_first_leaves_the_policy_alone_and_changes_nothing_in_the_end(dataset: OfflineDataset) -> None:
    model, diary = make(), Diary()
    untouched = {name: weights(getattr(model.policy, name)) for name in ("actor", "critic", "actor_target", "critic_target")}
    model.pretrain(dataset)
    assert all(same(before, weights(getattr(model.policy, name))) for name, before in untouched.items())
    assert model.num_timesteps == 0 and bool(model.policy.q_sampler.fitted)
    sampler = weights(model.policy.q_sampler)
    model.learn_offline(dataset, N_POLICY, callback=diary)
    assert diary.events == expected_events(N_POLICY)
    assert same(sampler, weights(model.policy.q_sampler))  # frozen from here on
    assert not same(untouched["critic"], weights(model.policy.critic))
    assert differing(uninterrupted("defaults"), snapshot(model)) == []


def test_without_a_penalty_there_is_nothing_to_fit(dataset: OfflineDataset) -> None:
    diary = Diary()
    model = make(penalty="none", reward_transform=None).learn_offline(
        dataset.replace(rewards=np.ones(N_ROWS)), 1, callback=diary
    )
    assert diary.events == expected_events(1) and not bool(model.policy.q_sampler.fitted)


def test_learning_online_fits_the_model_first_and_needs_offline_rows_for_it(dataset: OfflineDataset) -> None:
    model = make(PointEnv())
    with pytest.raises(ValueError, match="there are no offline rows to fit it on"):
        model.learn(2)
    model.set_dataset(dataset)
    assert bool(model.learn(2).policy.q_sampler.fitted)


# ---------------------------------------------------------------------- what the phases do


def test_the_items_are_the_policys_own_states_scaled_actions_and_rescaled_returns(dataset: OfflineDataset) -> None:
    """Windows of five rewards every two steps, in episodes of ten; other units than the action space's."""
    model = make(normalize_observations=True)
    model.set_dataset(dataset)
    items = model.make_fits()[0].items  # type: ignore[attr-defined]
    rows = (10 * np.arange(6)[:, None] + [0, 2, 4, 6]).ravel()  # the one from 6 reaches the end
    states = (dataset.observations[rows] - dataset.observations.mean(0)) / dataset.observations.std(0)
    np.testing.assert_allclose(items.conditions[:, :3], states, rtol=0, atol=2e-3)
    scaled = clip_actions(scale_actions(dataset.actions[rows], dataset.action_space), 1.0 - 1e-5)
    np.testing.assert_allclose(items.conditions[:, 3:], scaled, rtol=0, atol=1e-6)
    rewards = (dataset.rewards - dataset.rewards.mean()) / dataset.rewards.std()
    q = np.array([0.99 ** np.arange(min(5, 10 - p % 10)) @ rewards[p : min(p + 5, p // 10 * 10 + 10)] for p in rows])
    np.testing.assert_allclose(items.x, 2 * (q - q.min()) / (q.max() - q.min()) - 1, rtol=0, atol=1e-4)
    sampler = model.policy.q_sampler
    assert items.x.min() == -1 and items.x.max() == pytest.approx(1, abs=1e-6)
    np.testing.assert_allclose(sampler.denormalize(items.x), q, rtol=0, atol=1e-5)
    np.testing.assert_allclose(sampler.normalize(sampler.denormalize(items.x)), items.x, rtol=0, atol=1e-5)


@pytest.mark.parametrize("first_index", [0, 1])
def test_distillation_trains_the_levels_from_the_first_to_the_last_but_one(dataset: OfflineDataset, first_index: int) -> None:
    """Samples start at t_max: from index 1 on it is never trained."""
    model = make(cd_first_index=first_index)
    model.set_dataset(dataset)
    phase: Any = model.make_fits()[1]
    trained: list[float] = []
    phase.online.register_forward_pre_hook(lambda _, inputs: trained.extend(inputs[2].tolist()))
    for _ in range(3):
        phase.update()
    assert sorted(set(trained), reverse=True) == karras_grid(5).float()[first_index:-1].tolist()


@pytest.mark.parametrize("from_teacher", [True, False])
def test_the_three_models_share_their_frequencies_and_start_from_the_teacher_or_apart(
    dataset: OfflineDataset, from_teacher: bool
) -> None:
    model = make(cd_init="teacher" if from_teacher else "random")
    model.set_dataset(dataset)
    teacher_phase, phase = (cast_phase(p) for p in model.make_fits())
    teacher_phase.update()
    before = [weights(module) for module in (phase.online, phase.target)]
    phase.begin()
    teacher = weights(phase.teacher)
    for module, own in zip((phase.online, phase.target), before, strict=True):
        assert same(teacher if from_teacher else own, weights(module)) and not same(teacher, own)
    frequencies = "network.fourier_weights"  # an average of models with other frequencies would be none
    assert th.equal(phase.online.state_dict()[frequencies], phase.target.state_dict()[frequencies])
    assert from_teacher or not th.equal(before[0]["network.layers.0.weight"], before[1]["network.layers.0.weight"])


def cast_phase(phase: Fit) -> Any:
    """Any phase's own attributes."""
    return phase


def test_distillation_moves_the_average_every_few_steps_and_never_the_teacher(dataset: OfflineDataset) -> None:
    model = make(cd_ema=0.25, cd_ema_every=3)
    model.set_dataset(dataset)
    phase = cast_phase(model.make_fits()[1])
    phase.begin()
    teacher = weights(phase.teacher)
    for step in range(1, 7):
        before = weights(phase.target)
        phase.update()
        phase.step += 1
        online = phase.online.state_dict()
        rate = 0.25 if step % 3 == 0 else 0.0
        for name, tensor in phase.target.state_dict().items():
            np.testing.assert_allclose(tensor, (1 - rate) * before[name] + rate * online[name], rtol=0, atol=1e-6)
    assert same(teacher, weights(phase.teacher))
    assert not same(teacher, weights(phase.online)) and not same(teacher, weights(phase.target))


@pytest.mark.parametrize("average", [False, True])
def test_samples_come_from_the_trained_weights_or_from_their_average(dataset: OfflineDataset, average: bool) -> None:
    found: dict[str, Any] = {}

    def keep(phase: Any) -> bool:
        found.update(online=weights(phase.online), target=weights(phase.target))
        return True

    model = make(cd_average=average).pretrain(dataset, callback=Diary(("distillation", N_DISTILLATION), keep))
    assert not same(found["online"], found["target"])
    assert same(found["target" if average else "online"], weights(model.policy.q_sampler.model))
    assert not any(p.requires_grad for p in model.policy.q_sampler.parameters())


def test_learning_rates_fall_to_nothing_along_a_cosine_over_each_phase(dataset: OfflineDataset) -> None:
    rates: dict[str, list[float]] = {name: [] for name in PHASES}
    optimizers: dict[str, th.optim.Optimizer] = {}

    class Watch(Diary):
        def on_fit_step(self, phase: Fit, metrics: dict[str, float]) -> bool:
            rates[phase.name].append(phase.optimizer.param_groups[0]["lr"])
            optimizers[phase.name] = phase.optimizer
            return True

    make().pretrain(dataset, callback=Watch())
    for (name, n), rate in zip(PHASES.items(), (5e-4, 4e-4), strict=True):
        np.testing.assert_allclose(rates[name], [rate * 0.5 * (1 + math.cos(math.pi * k / n)) for k in range(n)])
    assert type(optimizers["teacher"]) is th.optim.Adam and type(optimizers["distillation"]) is th.optim.RAdam
    assert all((o.defaults["eps"], o.defaults["weight_decay"]) == (1e-8, 0) for o in optimizers.values())


# ---------------------------------------------------------------------- random numbers


def test_the_same_seed_gives_the_same_model_whatever_the_global_generators_say(dataset: OfflineDataset) -> None:
    fitted = []
    for global_seed, seed in ((1, 0), (2, 0), (1, 3)):
        model = make(seed=seed)
        random.seed(global_seed)
        np.random.seed(global_seed)
        th.manual_seed(global_seed)
        before = random.getstate(), np.random.get_state()[1].tolist(), th.get_rng_state().tolist()  # type: ignore[index,union-attr]
        model.pretrain(dataset)
        assert before == (random.getstate(), np.random.get_state()[1].tolist(), th.get_rng_state().tolist())  # type: ignore[index,union-attr]
        fitted.append(weights(model.policy.q_sampler))
    assert same(fitted[0], fitted[1])
    assert not same(fitted[0], fitted[2])


# ---------------------------------------------------------------------- interruptions


@pytest.mark.parametrize(
    ("phase", "step", "variant"),
    [(phase, step, "defaults") for phase, n in PHASES.items() for step in (1, 3, n)]
    + [(phase, step, variant) for variant in list(VARIANTS)[1:] for phase, step in (("teacher", 5), ("distillation", 3))],
)
def test_an_interrupted_phase_goes_on_as_if_nothing_had_happened(
    dataset: OfflineDataset, tmp_path: Path, phase: str, step: int, variant: str
) -> None:
    diary = Diary((phase, step))
    model = make(**VARIANTS[variant]).learn_offline(dataset, N_POLICY, callback=diary)
    assert diary.events[-2:] == [("step", phase, step), ("end", phase, step)]  # at a phase's last step too
    assert model.num_timesteps == 0 and model._n_updates == 0
    model.save(tmp_path / "interrupted")
    th.manual_seed(99)
    QDQ.load(tmp_path / "interrupted", device="cpu").save(tmp_path / "saved again")
    loaded = QDQ.load(tmp_path / "saved again", device="cpu")
    for interrupted in (loaded, model):
        resumed = Diary()
        interrupted.learn_offline(dataset, N_POLICY, callback=resumed, reset_num_timesteps=False)
        steps = [event[1:] for event in resumed.events if event[0] == "step"]
        every = [(name, i + 1) for name, n in [*PHASES.items(), ("policy", N_POLICY)] for i in range(n)]
        assert steps == every[every.index((phase, step)) + 1 :]
        assert differing(uninterrupted(variant), snapshot(interrupted)) == []


def test_an_interrupted_fit_of_other_data_starts_anew(dataset: OfflineDataset, tmp_path: Path) -> None:
    make().pretrain(dataset, callback=Diary(("teacher", 3))).save(tmp_path / "interrupted")
    model, diary = QDQ.load(tmp_path / "interrupted", device="cpu"), Diary()
    with pytest.warns(UserWarning, match="not an exact resume"):
        model.learn_offline(make_dataset(1), 1, callback=diary)
    assert diary.events == expected_events(1, **PHASES)


def test_the_last_checkpoint_is_renewed_during_a_phase_and_resumes_it(dataset: OfflineDataset, tmp_path: Path) -> None:

    class Numbering(SaveLast):
        def on_fit_step(self, phase: Fit, metrics: dict[str, float]) -> bool:
            self.path = tmp_path / f"{phase.name}-{phase.step}"
            return super().on_fit_step(phase, metrics)

    make().learn_offline(dataset, 0, callback=Numbering(tmp_path / "last", 3))
    assert not any(tmp_path.iterdir())
    make().pretrain(dataset, callback=Numbering(tmp_path / "last", 3))
    saved = sorted(path.stem for path in tmp_path.iterdir())
    assert saved == ["distillation-3", "distillation-6", "distillation-7", "teacher-3", "teacher-5"]
    for name in saved:
        killed = QDQ.load(tmp_path / name, device="cpu")
        killed.learn_offline(dataset, N_POLICY, reset_num_timesteps=False)
        assert differing(uninterrupted("defaults"), snapshot(killed)) == []


@pytest.mark.parametrize("phase", PHASES)
def test_an_interrupt_ends_a_phase_after_the_step_it_falls_in(dataset: OfflineDataset, phase: str) -> None:
    def interrupt(_: Fit) -> bool:
        os.kill(os.getpid(), signal.SIGINT)
        return True

    diary = Diary((phase, 3), interrupt)
    with stoppable() as stop, stop.later():
        model = make().learn_offline(dataset, N_POLICY, callback=[diary, StopWhenAsked(stop)])
    assert stop.number == signal.SIGINT and diary.events[-1] == ("end", phase, 3) and model.num_timesteps == 0
    model.learn_offline(dataset, N_POLICY, reset_num_timesteps=False)
    assert differing(uninterrupted("defaults"), snapshot(model)) == []


def test_the_teacher_is_in_the_checkpoint_of_an_unfinished_fit_only(dataset: OfflineDataset) -> None:
    model = make().learn_offline(dataset, 1, callback=Diary(("distillation", 3)))
    assert b"fit.modules.teacher" in members(model)["training.safetensors"]
    model.learn_offline(dataset, 1)
    finished = members(model)
    assert not any(b"teacher." in content or b"fit." in content for content in finished.values())
    assert b"q_sampler.model.network" in finished["policy.safetensors"]


# ---------------------------------------------------------------------- failures


@pytest.mark.parametrize(
    ("phase", "changes"), [("teacher", {"teacher_learning_rate": 1e25}), ("distillation", {"cd_learning_rate": 1e25})]
)
def test_a_fit_that_diverges_ends_with_a_message_that_names_its_phase(
    dataset: OfflineDataset, phase: str, changes: dict[str, float]
) -> None:
    with pytest.raises(FloatingPointError, match=rf"{phase}/loss became \w+ before step \d of \d: fitting diverged"):
        make(**changes).learn_offline(dataset, 1)


def test_returns_that_are_all_equal_are_refused_with_what_to_do(dataset: OfflineDataset) -> None:
    """Each episode is one window's worth of equal rewards."""
    model = make(reward_transform=None, window=10)
    with pytest.raises(ValueError, match=r"All 6 windowed returns are 9\.56.*penalty='none'"):
        model.learn_offline(dataset.replace(rewards=np.ones(N_ROWS)), 1)
    assert not bool(model.policy.q_sampler.fitted)
