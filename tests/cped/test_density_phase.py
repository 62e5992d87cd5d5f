"""Fitting the density before the policy: held-out rows, early stopping, the two sides' steps, and going on after a stop."""

import io
import zipfile
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from stable_baselines3.common.callbacks import BaseCallback
from torch import Tensor

from sb3_genoffline import OfflineDataset
from sb3_genoffline.common.fitting import Fit, FitListener
from sb3_genoffline.cped import CPED
from sb3_genoffline.cped.fit import DensityFit, DensityTrainer
from sb3_genoffline.cped.policies import FlowDensityPolicy
from sb3_genoffline.files.archive import tree_from_members
from sb3_genoffline.generative.flow_gan import FlowGAN

MakeCped = Callable[..., CPED]
MakeData = Callable[..., OfflineDataset]


class Watch(BaseCallback, FitListener):
    """
    Keeps what happens in the phase.

    :param stop_after: the phase's step after which the training ends
    """

    def __init__(self, stop_after: int | None = None) -> None:
        super().__init__()
        self.stop_after = stop_after
        self.phases: list[Fit] = []
        self.densities: list[Tensor] = []
        self.discriminators: list[Tensor] = []

    def _on_step(self) -> bool:
        return True

    def on_fit_start(self, phase: Fit) -> None:
        self.phases.append(phase)
        self._keep()

    def on_fit_step(self, phase: Fit, metrics: dict[str, float]) -> bool:
        self._keep()
        return phase.step != self.stop_after

    def _keep(self) -> None:
        model: Any = self.model
        self.densities.append(flat(model.policy.density.parameters()))
        self.discriminators.append(flat(model.discriminator.parameters()))


def flat(tensors: Any) -> Tensor:
    return th.cat([tensor.detach().flatten() for tensor in tensors])


def moves(weights: list[Tensor]) -> list[bool]:
    """Of each step, whether it changed them."""
    return [not th.equal(old, new) for old, new in pairwise(weights)]


def members(model: CPED) -> dict[str, bytes]:
    """What must agree, bit for bit, between two equal agents."""
    file = io.BytesIO()
    model.save(file)
    with zipfile.ZipFile(file) as archive:
        return {name: archive.read(name) for name in ("policy.safetensors", "training.json", "training.safetensors")}


def reload(model: CPED) -> CPED:
    file = io.BytesIO()
    model.save(file)
    file.seek(0)
    return CPED.load(file, device="cpu")


# ---------------------------------------------------------------------- held-out rows and early stopping


def test_held_out_rows_are_never_trained_on_and_all_others_are(
    make_cped: MakeCped, make_data: MakeData, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Tensor] = []
    step = DensityTrainer.step

    def spy(trainer: DensityTrainer, states: Tensor, actions: Tensor, moves_flow: bool) -> dict[str, Tensor]:
        seen.append(th.cat([states, actions], dim=1))
        return step(trainer, states, actions, moves_flow)

    monkeypatch.setattr(DensityTrainer, "step", spy)
    watch = Watch()
    model = make_cped(fitted=False, held_out=0.25, flow_steps=24, flow_batch_size=100, flow_patience=100, adv_weight=0.0)
    model.pretrain(make_data(), callback=watch)
    (phase,) = watch.phases
    assert isinstance(phase, DensityFit)
    assert len(phase.held_out) == 50 and len(phase.trained_on) == 150
    assert th.equal(th.cat([phase.held_out, phase.trained_on]).sort().values, th.arange(200))
    assert not th.equal(phase.held_out, th.arange(50))  # not the first episodes
    rows = th.cat(phase.rows, dim=1)
    drawn = (th.cat(seen).unique(dim=0)[:, None] == rows).all(-1).any(0)
    assert drawn[phase.trained_on].all() and not drawn[phase.held_out].any()


def test_all_rows_are_trained_on_without_held_out_ones_and_nothing_stops_early(
    make_cped: MakeCped, make_data: MakeData
) -> None:
    watch = Watch()
    model = make_cped(fitted=False, held_out=0.0, flow_steps=9, flow_eval_every=1, flow_patience=1)
    model.pretrain(make_data(), callback=watch)
    (phase,) = watch.phases
    assert isinstance(phase, DensityFit) and len(phase.trained_on) == 200 and phase.step == 9
    assert th.equal(flat(model.policy.density.parameters()), watch.densities[-1])


@pytest.mark.parametrize(
    ("heights", "patience", "n_looks", "best"),
    [
        ([3.0, 1.0, 2.0, 1.5, 0.0], 2, 4, 2),  # two looks in a row without a new best end it, the fifth is never taken
        ([3.0, 4.0, 1.0, 1.0, 2.0, 0.0], 2, 5, 3),  # a new best starts the count anew, an equal one does not
        ([5.0, 4.0, 3.0, 2.0], 1, 4, 4),  # all steps done
    ],
)
def test_the_phase_ends_after_its_patience_and_keeps_the_best_weights_not_the_last(
    make_cped: MakeCped,
    make_data: MakeData,
    monkeypatch: pytest.MonkeyPatch,
    heights: list[float],
    patience: int,
    n_looks: int,
    best: int,
) -> None:
    watch = Watch()
    model = make_cped(
        fitted=False, held_out=0.25, flow_patience=patience, flow_eval_every=2, flow_steps=2 * len(heights), adv_weight=0.0
    )
    original, looks = FlowDensityPolicy.nll_of_rows, iter(heights)

    def scripted(policy: FlowDensityPolicy, states: Tensor, actions: Tensor) -> Tensor:
        return th.full((50,), next(looks)) if len(states) == 50 else original(policy, states, actions)

    monkeypatch.setattr(FlowDensityPolicy, "nll_of_rows", scripted)
    model.pretrain(make_data(), callback=watch)
    assert watch.phases[0].step == 2 * n_looks
    assert th.equal(flat(model.policy.density.parameters()), watch.densities[2 * best])
    assert len(list(looks)) == len(heights) - n_looks


def test_the_held_out_likelihood_is_that_of_raw_rows_and_is_logged(make_cped: MakeCped, make_data: MakeData) -> None:
    watch = Watch()
    model = make_cped(fitted=False, held_out=0.25, flow_steps=3, flow_eval_every=3, dequantization=0.5)
    model.pretrain(make_data(), callback=watch)
    (phase,) = watch.phases
    assert isinstance(phase, DensityFit)
    states, actions = (rows[phase.held_out] for rows in phase.rows)
    expected = model.policy.nll_of_rows(states, actions).mean().item()
    assert model.last_metrics["flow/nll_val"] == pytest.approx(expected, rel=1e-5)
    assert {"flow/nll", "flow/score_gap", "flow/gradient_penalty", "flow/adversarial"} <= set(model.last_metrics)


# ---------------------------------------------------------------------- who steps when


@pytest.mark.parametrize("n_critic_steps", [1, 3])
def test_the_flow_steps_once_for_so_many_steps_of_the_discriminator(
    make_cped: MakeCped, make_data: MakeData, n_critic_steps: int
) -> None:
    watch = Watch()
    model = make_cped(fitted=False, n_critic_steps=n_critic_steps, flow_steps=7, held_out=0.0)
    model.pretrain(make_data(), callback=watch)
    assert moves(watch.discriminators) == [True] * 7
    assert moves(watch.densities) == [step % n_critic_steps == 0 for step in range(7)]


def test_without_an_adversarial_weight_the_discriminator_is_never_touched(make_cped: MakeCped, make_data: MakeData) -> None:
    watch = Watch()
    model = make_cped(fitted=False, adv_weight=0.0, n_critic_steps=3, flow_steps=7, held_out=0.0)
    calls: list[Any] = []
    model.discriminator.register_forward_hook(lambda *arguments: calls.append(arguments))
    model.pretrain(make_data(), callback=watch)
    assert not calls and not model.discriminator_optimizer.state
    assert (
        not any(moves(watch.discriminators)) and moves(watch.densities) == [True] * 7
    )  # a step each, whatever n_critic_steps


def test_actions_are_dequantised_where_the_flow_learns_and_nowhere_else(
    make_cped: MakeCped, make_data: MakeData, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[Tensor] = []
    model = make_cped(fitted=False, dequantization=0.02, held_out=0.25, adv_weight=0.0, flow_steps=6)
    loss = FlowGAN.flow_loss

    def spy(gan: FlowGAN, discriminator: Any, density: Any, states: Tensor, actions: Tensor, noise: Any) -> Any:
        trained.append(actions)
        return loss(gan, discriminator, density, states, actions, noise)

    monkeypatch.setattr(FlowGAN, "flow_loss", spy)
    model.pretrain(make_data())
    stored = model.offline_rows()[1]
    distance = (th.cat(trained)[:, None] - stored).abs().amax(-1).min(1).values
    assert 0.01 < distance.max() <= 0.02 and distance.min() > 0
    judged: list[Tensor] = []
    log_prob = model.policy.density.log_prob
    model.policy.density.log_prob = lambda s, a: judged.append(a) or log_prob(s, a)  # type: ignore
    model.learn_offline(make_data(), 1)
    of_data = judged[1]  # after the actor's own actions, those that make up epsilon
    assert (of_data[:, None] == stored).all(-1).any(1).all()


@pytest.mark.parametrize("standardize", [True, False])
def test_the_density_standardises_states_by_the_datas_statistics_if_asked(
    make_cped: MakeCped, make_data: MakeData, standardize: bool
) -> None:
    data = make_data()
    model = make_cped(fitted=False, standardize_context=standardize)
    model.pretrain(data)
    density = model.policy.density
    mean, std = data.observations.mean(0), data.observations.std(0)
    np.testing.assert_allclose(density.state_mean, mean if standardize else np.zeros(3), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(density.state_std, std if standardize else np.ones(3), rtol=1e-2)
    assert (model.policy.obs_mean == 0).all()  # the actor's are another setting


def test_the_thresholds_are_quantiles_of_the_datas_nll_under_the_fitted_density(
    make_cped: MakeCped, make_data: MakeData
) -> None:
    model = make_cped(fitted=False, epsilon="quantile", epsilon_quantile=0.7)
    model.pretrain(make_data())
    nll = model.policy.nll(*model.offline_rows()).detach()
    assert model.policy.nll_threshold.item() == pytest.approx(nll.quantile(0.7).item(), rel=1e-5)
    assert model.policy.nll_q99.item() == pytest.approx(nll.quantile(0.99).item(), rel=1e-5)


# ---------------------------------------------------------------------- when it runs


def test_a_fitted_density_is_not_fitted_again(make_cped: MakeCped, make_data: MakeData) -> None:
    model, watch = make_cped(fitted=False), Watch()
    model.pretrain(make_data())
    before = flat(model.policy.density.state_dict().values())
    model.learn_offline(make_data(), 4, callback=watch)
    assert watch.phases == [] and th.equal(before, flat(model.policy.density.state_dict().values()))
    assert model.num_timesteps == 4


def test_without_data_there_is_nothing_to_learn_from_and_the_message_says_what_to_do(
    make_cped: MakeCped, make_data: MakeData
) -> None:
    env = gym.make("Pendulum-v1")
    with pytest.raises(ValueError, match=r"density is not fitted .* learn_offline\(dataset\), or pass a fitted one with CPED"):
        make_cped(env=env, fitted=False).learn(5)
    make_cped(env=env, fitted=False, alpha_mode="fixed", alpha=0.0).learn(3)


def test_without_a_constraint_no_density_is_fitted(make_cped: MakeCped, make_data: MakeData) -> None:
    model, watch = make_cped(fitted=False, alpha_mode="fixed", alpha=0.0, flow_joint_steps=4), Watch()
    before = flat(model.policy.density.state_dict().values())
    model.learn_offline(make_data(), 6, callback=watch)
    assert watch.phases == [] and not model.policy.fitted and "nll_pi" not in model.last_metrics
    assert th.equal(before, flat(model.policy.density.state_dict().values()))


def test_a_flow_that_diverges_ends_the_training_with_its_name(make_cped: MakeCped, make_data: MakeData) -> None:
    model = make_cped(fitted=False)
    next(model.policy.density.parameters()).data.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match=r"flow/\w+ became nan before step 8 of 8"):
        model.pretrain(make_data())


# ---------------------------------------------------------------------- claim 27: going on after a stop


@pytest.mark.parametrize(
    ("settings", "stops"),
    [
        ({}, [3]),
        ({"n_critic_steps": 3, "flow": "nice"}, [4, 7]),
        ({"flow_joint_steps": 2, "held_out": 0.25, "flow_patience": 2}, [5]),
        ({"seed": None}, [5]),
    ],
    ids=str,
)
def test_a_phase_that_was_stopped_saved_and_loaded_goes_on_bit_for_bit(
    make_cped: MakeCped, make_data: MakeData, settings: dict[str, Any], stops: list[int]
) -> None:
    held_out = {"held_out": 0.25} | settings
    model = make_cped(fitted=False, **held_out)
    uninterrupted, pieces = model, reload(model)
    for agent in (uninterrupted, pieces):
        agent.set_random_seed(11)  # after the construction, so that an agent without a seed can be compared too
    uninterrupted.learn_offline(make_data(), 4)
    for stop in stops:
        pieces.learn_offline(make_data(), 4, callback=Watch(stop_after=stop))
        assert pieces.num_timesteps == 0 and not pieces.policy.fitted
        pieces = reload(pieces)
    pieces.learn_offline(make_data(), 4)
    expected, found = members(uninterrupted), members(pieces)
    assert [name for name in expected if expected[name] != found[name]] == []


def test_the_best_weights_from_before_a_stop_are_kept_and_looks_go_on_being_counted(
    make_cped: MakeCped, make_data: MakeData, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch, after = Watch(stop_after=5), Watch()
    model = make_cped(fitted=False, held_out=0.25, flow_eval_every=2, flow_patience=3, flow_steps=20, adv_weight=0.0)
    original, looks = FlowDensityPolicy.nll_of_rows, iter([1.0, 2.0, 3.0, 4.0, 0.0])

    def scripted(policy: FlowDensityPolicy, states: Tensor, actions: Tensor) -> Tensor:
        return th.full((50,), next(looks)) if len(states) == 50 else original(policy, states, actions)

    monkeypatch.setattr(FlowDensityPolicy, "nll_of_rows", scripted)
    model.pretrain(make_data(), callback=watch)
    loaded = reload(model).pretrain(make_data(), callback=after)
    assert after.phases[0].step == 8  # three looks without a new best, one of them before the stop
    assert th.equal(flat(loaded.policy.density.parameters()), watch.densities[2])


def test_rows_stay_held_out_after_a_load_of_an_agent_without_a_seed(make_cped: MakeCped, make_data: MakeData) -> None:
    first, second = Watch(stop_after=5), Watch()
    model = make_cped(fitted=False, seed=None, held_out=0.25)
    model.pretrain(make_data(), callback=first)
    reload(model).pretrain(make_data(), callback=second)
    before, after = first.phases[0], second.phases[0]
    assert isinstance(before, DensityFit) and isinstance(after, DensityFit)
    assert th.equal(before.held_out, after.held_out) and th.equal(before.trained_on, after.trained_on)


def test_the_same_seed_fits_the_same_density_and_another_seed_another(make_cped: MakeCped, make_data: MakeData) -> None:
    fitted = [flat(make_cped(fitted=False, seed=s).pretrain(make_data()).policy.density.parameters()) for s in (1, 1, 2)]
    assert th.equal(fitted[0], fitted[1]) and not th.equal(fitted[0], fitted[2])


def training_state(model: CPED) -> dict[str, Any]:
    return tree_from_members(members(model), "training")


def test_a_finished_agent_keeps_no_state_of_the_flows_optimizers_and_one_that_goes_on_learning_does(
    make_cped: MakeCped, make_data: MakeData
) -> None:
    frozen = make_cped(fitted=False).learn_offline(make_data(), 3)
    state = training_state(frozen)
    assert state["fit"] is None
    for name in ("density", "discriminator"):
        assert state["optimizers"][name]["state"] == {}
    assert state["optimizers"]["actor"]["state"]
    joint = training_state(make_cped(fitted=False, flow_joint_steps=10).learn_offline(make_data(), 3))
    assert joint["optimizers"]["density"]["state"] and joint["optimizers"]["discriminator"]["state"]


def test_everything_survives_a_save_and_a_load(make_cped: MakeCped, make_data: MakeData) -> None:
    model = make_cped(fitted=False, flow_joint_steps=100).learn_offline(make_data(), 5)
    loaded = reload(model)
    assert th.equal(model.log_alpha, loaded.log_alpha) and model.log_alpha != 0
    for name in ("policy", "discriminator"):
        ours, theirs = getattr(model, name).state_dict(), getattr(loaded, name).state_dict()
        assert ours.keys() == theirs.keys() and all(th.equal(ours[key], theirs[key]) for key in ours)
    assert loaded.policy.fitted and loaded.policy.nll_q99 == model.policy.nll_q99 != 0
    for name in ("actor", "critic", "alpha", "density", "discriminator"):
        ours, theirs = (getattr(agent, f"{name}_optimizer").state_dict()["state"] for agent in (model, loaded))
        assert ours and ours.keys() == theirs.keys()
        for index, entries in ours.items():
            assert all(th.equal(value, theirs[index][key]) for key, value in entries.items())
    other_alpha = io.BytesIO()
    model.save(other_alpha)
    other_alpha.seek(0)
    assert CPED.load(other_alpha, alpha=5.0).log_alpha.exp().item() == pytest.approx(5.0)
