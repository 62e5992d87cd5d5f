"""A live agent, a copy of it, and one that is loaded with changes never part ways in silence."""

import copy
import io
from typing import Any

import numpy as np
import pytest
import torch as th
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.utils import ConstantSchedule, LinearSchedule
from worlds import ACTION_SPACE, OBSERVATION_SPACE, differing, make_agent, make_dataset, snapshot

from sb3_genoffline import ALGOS, DAC, UserError
from sb3_genoffline.common.fitting import Fit, FitListener


def loaded(agent: Any, **changes: Any) -> Any:
    file = io.BytesIO()
    agent.save(file)
    return type(agent).load(file, device="cpu", **changes)


WITHOUT = {"spot": ("lam", 0.0, 0.5), "qdq": ("penalty", "none", "paper"), "cped": ("alpha", 0.0, 0.1)}
"""Of each algorithm that can leave its fitted model out: the argument, its value without the model, one with it."""


def stopped_in_fit(algo: str, **settings: Any) -> Any:
    """An agent whose training was ended after the first step of its fit."""

    class Stop(FitListener, BaseCallback):
        def _on_step(self) -> bool:
            return True

        def on_fit_step(self, fit: Fit, metrics: dict[str, float]) -> bool:
            return False

    agent = make_agent(algo, **settings).learn_offline(make_dataset(), 5, Stop())
    assert agent.fits.current is not None
    return agent


def goes_on_as_a_copy(agent: Any, *others: Any) -> None:
    """An agent, its copy by file and others learn on alike."""
    agents = [agent, loaded(agent), *others]
    for each in agents:
        each.learn_offline(make_dataset(), 3, log_interval=None)
    for each in agents[1:]:
        assert differing(snapshot(agent), snapshot(each)) == []


def usual(algo: str) -> dict[str, Any]:
    return {"alpha_mode": "fixed"} if algo == "cped" else {}


@pytest.mark.parametrize("algo", WITHOUT)
def test_a_model_may_be_left_out_in_the_midst_of_its_fit(algo: str) -> None:
    name, without, with_it = WITHOUT[algo]
    agent = stopped_in_fit(algo, **usual(algo) | {name: with_it})
    other = loaded(agent, **{name: without})
    setattr(agent, name, without)
    goes_on_as_a_copy(agent, other)
    assert not bool(agent.policy.is_fitted)


@pytest.mark.parametrize("algo", WITHOUT)
def test_a_model_that_training_has_left_out_is_fitted_once_it_is_needed(algo: str) -> None:
    name, without, with_it = WITHOUT[algo]
    agent = make_agent(algo, **usual(algo) | {name: without}).learn_offline(make_dataset(), 2)
    other = loaded(agent, **{name: with_it})
    setattr(agent, name, with_it)
    goes_on_as_a_copy(agent, other)
    assert bool(agent.policy.is_fitted)


def test_a_batch_size_that_is_set_in_a_fit_is_that_of_its_next_step() -> None:
    agent = stopped_in_fit("sfbc")
    agent.batch_size = 5
    goes_on_as_a_copy(agent)


@pytest.mark.parametrize("algo", [name for name, cls in ALGOS.items() if cls.fitted_model_units])
def test_a_deep_copy_in_the_midst_of_a_fit_leaves_the_original_alone(algo: str) -> None:
    agent = stopped_in_fit(algo)
    copied, other = copy.deepcopy(agent), loaded(agent)
    for each in (copied, agent, other):
        each.learn_offline(make_dataset(), 2, log_interval=None)
    for each in (copied, other):
        assert differing(snapshot(agent), snapshot(each)) == []


def test_weights_that_are_taken_over_bring_their_own_fit() -> None:
    unfitted, fitted = make_agent("spot"), make_agent("spot", seed=2).learn_offline(make_dataset(), 2)
    file = io.BytesIO()
    unfitted.save(file)
    file.seek(0)
    fitted.set_parameters(file)
    fitted.learn_offline(make_dataset(), 2)
    assert bool(fitted.policy.is_fitted)


def test_a_model_given_to_load_replaces_the_files(tmp_path: Any) -> None:
    one, other = (make_agent("spot", seed=seed).pretrain(make_dataset()) for seed in (0, 5))
    other.save_fitted_model(tmp_path / "density")
    found = loaded(one, density=str(tmp_path / "density"))
    ours, theirs = found.policy.density.state_dict(), other.policy.density.state_dict()
    assert all(th.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("optimizer", [{"optimizer_class": th.optim.RMSprop}, {"optimizer_kwargs": {"fused": False}}])
def test_cped_takes_only_optimizers_that_can_leave_a_step_out(optimizer: Any) -> None:
    with pytest.raises(UserError, match="are left out here"):
        make_agent("cped", policy_kwargs={"net_arch": [8], **optimizer})


@pytest.mark.parametrize(
    ("algo", "name", "value"), [("dac", "eta", 7.0), ("awac", "actor_weight_decay", 0.7), ("cped", "alpha", 3.0)]
)
def test_a_deep_copy_follows_its_own_settings(algo: str, name: str, value: float) -> None:
    agent = make_agent(algo).learn_offline(make_dataset(), 2)
    twin = copy.deepcopy(agent)
    setattr(twin, name, value)
    again = loaded(twin)
    for one in (twin, again):
        one.learn_offline(make_dataset(), 3, reset_num_timesteps=False)
    assert differing(snapshot(twin), snapshot(again)) == []


def test_another_seed_in_load_draws_other_numbers() -> None:
    agent = make_agent("dac").learn_offline(make_dataset(), 3)
    same, other = loaded(agent), loaded(agent, seed=9)
    for one in (same, other):
        one.learn_offline(make_dataset(), 3, reset_num_timesteps=False)
    assert differing(snapshot(same), snapshot(other)) != []


def test_normalisation_of_a_trained_agent_stays() -> None:
    with pytest.raises(UserError, match="normalize_observations can't be changed to True on a trained agent"):
        loaded(make_agent("iql").learn_offline(make_dataset(), 2), normalize_observations=True)


class Stairs(LinearSchedule):
    """Would be stored as another schedule."""


@pytest.mark.parametrize(
    "rate",
    [
        LinearSchedule(1e-3, -1e-2, 1.0),
        ConstantSchedule(-1.0),
        ConstantSchedule(float("nan")),
        LinearSchedule(1e-3, 0.0, 0.0),
        LinearSchedule("a", "b", "c"),  # type: ignore[arg-type]
        Stairs(1e-3, 1e-5, 1.0),
    ],
)
def test_schedules_that_are_no_rates_or_would_be_stored_as_others_are_refused(rate: Any) -> None:
    with pytest.raises(UserError, match="learning_rate="):
        make_agent("bc", learning_rate=rate)


def test_an_optimizer_that_is_changed_in_load_starts_anew() -> None:
    agent = make_agent("td3_bc").learn_offline(make_dataset(), 2)
    found = loaded(agent, policy_kwargs={**agent.policy_kwargs, "optimizer_class": th.optim.SGD})
    found.learn_offline(make_dataset(), 2, reset_num_timesteps=False)
    assert type(found.actor_optimizer) is th.optim.SGD


@pytest.mark.parametrize(
    ("name", "value"), [("eta_min", 1e9), ("policy_kwargs", {"bogus": 1}), ("reward_transform", "nonsense"), ("batch_size", 0)]
)
def test_an_agent_without_spaces_checks_what_is_set_on_it(name: str, value: Any) -> None:
    agent = make_agent("dac", env=None)
    before = getattr(agent, name)
    with pytest.raises(UserError, match=r"bogus|eta_min|reward_transform|batch_size"):
        setattr(agent, name, value)
    assert getattr(agent, name) == before


class Late(DAC):
    """Keeps its argument after the base's constructor, as Python code usually does."""

    name = "late"

    def __init__(self, policy: Any, env: Any = None, *, extra: float = 1.0, **kwargs: Any) -> None:
        super().__init__(policy, env, **kwargs)
        self.extra = extra


def test_a_subclass_may_keep_its_arguments_after_the_bases_constructor() -> None:
    agent = Late("MlpPolicy", (OBSERVATION_SPACE, ACTION_SPACE), extra=2.0, device="cpu")
    assert loaded(agent).extra == 2.0


@pytest.mark.parametrize(
    ("algo", "same"),
    [
        ("bear", {"alpha": np.float64(1.0), "multiplier_learning_rate": np.float32(0.125)}),
        ("bear", {"alpha": 1}),
        ("bcq", {"seed": np.int64(0), "normalize_observations": np.bool_(False)}),
        ("plas", {"vae_steps": np.int64(2), "policy_kwargs": {"net_arch": (8,), "vae_net_arch": np.array([8])}}),
    ],
)
def test_a_value_that_load_is_given_as_it_was_in_another_type_changes_nothing(algo: str, same: dict[str, Any]) -> None:
    before = {name: value.item() if isinstance(value, np.generic) else value for name, value in same.items()}
    if algo == "bear":
        before["multiplier_learning_rate"] = 0.125
    agent = make_agent(algo, **before | {"seed": 0}).learn_offline(make_dataset(), 3)
    found, plain = loaded(agent, **same), loaded(agent)
    assert differing(snapshot(plain), snapshot(found)) == []
    for one in (plain, found):
        one.learn_offline(make_dataset(), 2, reset_num_timesteps=False)
    assert differing(snapshot(plain), snapshot(found)) == []


class Meddling(BaseCallback, FitListener):
    """Calls a function within a fit."""

    def __init__(self, meddle: Any) -> None:
        super().__init__()
        self.meddle = meddle

    def _on_step(self) -> bool:
        return True

    def on_fit_step(self, fit: Fit, metrics: dict[str, float]) -> bool:
        self.meddle()
        return True


@pytest.mark.parametrize("algo", ["plas", "onestep"])
def test_a_fit_is_not_changed_by_its_own_callbacks(algo: str, tmp_path: Any) -> None:
    agent, other = make_agent(algo), make_agent(algo, seed=2).pretrain(make_dataset())
    other.save_fitted_model(tmp_path / "fit")
    for meddle in (lambda: agent.set_dataset(make_dataset(seed=5)), lambda: agent.set_fitted_model(tmp_path / "fit")):
        with pytest.raises(UserError, match=r"The fit of .* is running: its callbacks can't change data"):
            agent.learn_offline(make_dataset(), 2, callback=Meddling(meddle))
    assert agent.learn_offline(make_dataset(), 2).policy.is_fitted  # nothing is lost


@pytest.mark.parametrize("algo", ["decision_transformer", "diffuser"])
def test_data_that_are_refused_change_nothing(algo: str) -> None:
    data = make_dataset()
    never = np.zeros(len(data), bool)
    refused = data.replace(terminations=never, truncations=never, episode_ends=np.array([len(data)]))
    agent = make_agent(algo, normalize_observations=False).learn_offline(make_dataset(), 3, log_interval=None)
    before, resumed, fresh = snapshot(agent), loaded(agent), make_agent(algo)
    for each in (agent, agent, resumed, resumed, fresh, fresh):  # the second time as the first
        with pytest.raises(UserError, match="None of the 1 episode"):
            each.learn_offline(refused, 2, log_interval=None, reset_num_timesteps=False)
    assert differing(before, snapshot(agent)) == [] and differing(before, snapshot(resumed)) == []
    for each in (agent, resumed):
        each.learn_offline(make_dataset(), 2, log_interval=None, reset_num_timesteps=False)
    assert differing(snapshot(agent), snapshot(resumed)) == []


def test_the_discount_of_returns_that_are_learned_from_is_not_changed() -> None:
    agent = make_agent("sfbc").learn_offline(make_dataset(), 2, log_interval=None)
    with pytest.raises(UserError, match=r"gamma can't be changed to 0.5 on a live agent"):
        agent.gamma = 0.5
    with pytest.raises(UserError, match=r"gamma can't be changed to 0.5 in load"):
        loaded(agent, gamma=0.5)


@pytest.mark.parametrize("algo", ALGOS)
def test_an_observation_with_nan_gets_nan_and_leaves_the_others_alone(algo: str) -> None:
    observations = np.random.default_rng(0).normal(size=(3, 3)).astype(np.float32)
    observations[1, 2] = np.nan
    settings = {"selection": "implicit", "value_objective": "quantile"} if algo == "idql" else {}
    actions = make_agent(algo, **settings).predict(observations, deterministic=True)[0]
    assert np.isnan(actions[1]).all() and np.isfinite(actions[[0, 2]]).all()
