"""What the constructor takes, refuses, remembers, and leaves alone."""

import copy
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.type_aliases import TrainFreq
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env import VecNormalize
from worlds import ACTION_SPACE, EXAMPLES, OBSERVATION_SPACE, SHARED, PointEnv, differing, make_agent, small_settings, snapshot

from sb3_genoffline import DAC, OfflineDataset
from sb3_genoffline.common.arguments import NetArch
from sb3_genoffline.common.offline_algorithm import OfflineAlgorithm
from sb3_genoffline.data import FlatFloatObservation, export_hdf5
from sb3_genoffline.data.environments import recorded
from sb3_genoffline.errors import UserError
from sb3_genoffline.files.untrusted import check_sizes
from sb3_genoffline.registry import ALGOS

MakeAgent = Callable[..., OfflineAlgorithm]
every_algorithm = pytest.mark.parametrize("algo", sorted(ALGOS))


@pytest.fixture(params=EXAMPLES)
def algo(request: pytest.FixtureRequest) -> str:
    """What most tests here ask about is code that the algorithms share."""
    return request.param


UNIT = spaces.Box(-1, 1, (2,))


def test_the_callers_policy_kwargs_are_left_alone(agent: MakeAgent, dataset: OfflineDataset) -> None:
    given = {"net_arch": [8, 8]}
    before = copy.deepcopy(given)
    model = agent(policy_kwargs=given).learn_offline(dataset, 1)
    given["net_arch"].append(1)
    assert model.policy_kwargs == before


@every_algorithm
def test_mlp_policy_is_another_name_for_the_algorithms_policy(algo: str) -> None:
    (policy,) = set(ALGOS[algo].policy_aliases.values())
    assert "MlpPolicy" in ALGOS[algo].policy_aliases
    if algo in EXAMPLES:  # the class itself does as well
        made = [make_agent(algo), ALGOS[algo](policy, (OBSERVATION_SPACE, ACTION_SPACE), **(SHARED | small_settings(algo)))]
        assert differing(*map(snapshot, made)) == []


@pytest.mark.parametrize("form", ["id", "environment", "vectorised", "dataset", "spaces"])
def test_every_form_of_environment_gives_the_same_networks(agent: MakeAgent, dataset: OfflineDataset, form: str) -> None:
    env = {
        "id": "genoffline-tests/Point-v0",
        "environment": PointEnv(),
        "vectorised": make_vec_env(PointEnv, 2),
        "dataset": dataset,
        "spaces": (OBSERVATION_SPACE, ACTION_SPACE),
    }[form]
    model = agent(env=env).learn_offline(dataset, 2)
    expected = agent().learn_offline(dataset, 2)
    assert differing(snapshot(expected), snapshot(model)) == []


def test_without_an_environment_the_dataset_gives_the_spaces(
    agent: MakeAgent, dataset: OfflineDataset, tmp_path: Path
) -> None:
    model = agent(env=None)
    with pytest.raises(ValueError, match="nothing to save"):
        model.save(tmp_path / "agent")
    model.learn_offline(dataset, 2)
    assert differing(snapshot(agent().learn_offline(dataset, 2)), snapshot(model)) == []


def test_a_goal_environment_is_flattened_as_its_datasets_are(agent: MakeAgent) -> None:
    class Goal(PointEnv):
        """Keys in another order than the alphabet's."""

        def __init__(self) -> None:
            super().__init__()
            parts = [("observation", spaces.Box(-1, 1, (2,))), ("achieved_goal", spaces.Box(-9, 9, (2,)))]
            self.observation_space = spaces.Dict(parts)

        def reset(self, **kwargs: Any) -> Any:
            return {"observation": np.zeros(2, np.float32), "achieved_goal": np.ones(2, np.float32)}, {}

    model = agent(env=Goal())
    assert model.observation_space.shape == (4,)
    np.testing.assert_array_equal(model.observation_space.high, [9, 9, 1, 1])
    env = model.get_env()
    assert env is not None
    np.testing.assert_array_equal(env.reset(), [[1, 1, 0, 0]])
    np.testing.assert_array_equal(agent(env=(Goal().observation_space, UNIT)).observation_space.high, [9, 9, 1, 1])
    with pytest.raises(ValueError, match="FlatFloatObservation"):
        agent(env=make_vec_env(Goal, 2))


BAD_SPACES = {
    "discrete action": ((OBSERVATION_SPACE, spaces.Discrete(3)), r"action_space is Discrete\(3\).*not supported"),
    "unbounded action": ((OBSERVATION_SPACE, spaces.Box(-np.inf, 1, (2,))), r"action_space\.low\[0\] = -inf.*finite"),
    "discrete observation": ((spaces.Discrete(3), UNIT), r"observation_space is Discrete\(3\).*not supported"),
    "image": ((spaces.Box(0, 255, (8, 8, 3), np.uint8), UNIT), "image space.*not supported"),
    "image in a dict": ((spaces.Dict(a=spaces.Box(0, 255, (8, 8, 3), np.uint8)), UNIT), "image space.*not supported"),
    "discrete in a dict": ((spaces.Dict(a=spaces.Discrete(3)), UNIT), "observation_space.*'a'.*Discrete"),
}


@pytest.mark.parametrize("case", BAD_SPACES)
def test_spaces_that_cannot_be_learned_from_are_refused_and_named(agent: MakeAgent, case: str) -> None:
    env, message = BAD_SPACES[case]
    with pytest.raises(ValueError, match=message):
        agent(env=env)


def test_environments_with_such_spaces_are_refused_too(agent: MakeAgent) -> None:
    with pytest.raises(ValueError, match="action_space is Discrete"):
        agent(env="CartPole-v1")
    with pytest.raises(ValueError, match="action_space is Discrete"):
        agent(env=make_vec_env("CartPole-v1", 2))


def test_an_unknown_id_is_named(agent: MakeAgent) -> None:
    with pytest.raises(FileNotFoundError, match="'Hoper-v5' is not a registered environment"):
        agent(env="Hoper-v5")


def test_vec_normalize_is_refused_and_the_alternative_named(agent: MakeAgent) -> None:
    wrapped = VecNormalize(make_vec_env(PointEnv, 1))
    for attempt in (lambda: agent(env=wrapped), lambda: agent().set_env(wrapped)):
        with pytest.raises(ValueError, match=r"VecNormalize.*normalize_observations=True"):
            attempt()


def test_a_dataset_of_another_environment_is_refused(agent: MakeAgent, dataset: OfflineDataset) -> None:
    model = agent(env=(OBSERVATION_SPACE, spaces.Box(-3, 6, (2,))))
    with pytest.raises(ValueError, match="action space of dataset tests/point-0-v0 differs"):
        model.learn_offline(dataset, 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"reward_transform": "iql"}, "reward_transform='iql'.*iql_locomotion"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"buffer_size": 0}, "buffer_size=0"),
        ({"train_freq": (1, "epoch")}, "train_freq"),
    ],
)
def test_values_that_make_no_sense_are_refused(agent: MakeAgent, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        agent(**change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"guidance": "gentle"}, "guidance='gentle'.*'soft', 'hard', 'denoised', 'none'"),
        ({"q_target": "mean"}, "q_target='mean'.*'lcb'"),
        ({"sampler": "euler"}, "sampler='euler'.*'ddpm', 'ddim'"),
        ({"beta_schedule": "sqrt"}, "beta_schedule='sqrt'.*'vp'"),
        *(
            ({name: 0}, f"{name}=0")
            for name in ("n_critics", "n_diffusion_steps", "n_q_samples", "n_action_samples", "ddim_stride")
        ),
    ],
    ids=str,
)
def test_dac_refuses_values_it_does_not_know(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DAC("DiffusionPolicy", (OBSERVATION_SPACE, ACTION_SPACE), **(SHARED | small_settings("dac") | change))


@every_algorithm
def test_an_unknown_policy_or_argument_is_refused(algo: str) -> None:
    with pytest.raises(UserError, match=r"policy='CnnPolicy' is not known.*'MlpPolicy'"):
        ALGOS[algo]("CnnPolicy", (OBSERVATION_SPACE, ACTION_SPACE))
    with pytest.raises(TypeError, match="learning_rat"):
        ALGOS[algo]("MlpPolicy", (OBSERVATION_SPACE, ACTION_SPACE), learning_rat=1e-3)  # type: ignore[call-arg]


# ---------------------------------------------------------------------- hyper-parameters


def signature(cls: type) -> dict[str, inspect.Parameter]:
    bases = cls.__mro__[: cls.__mro__.index(OfflineAlgorithm) + 1]
    return {n: p for base in reversed(bases) for n, p in inspect.signature(base.__init__).parameters.items()}  # type: ignore[misc]


def changed_values(algo: str) -> dict[str, Any]:
    """Every argument at a value that is not its default."""
    changes: dict[str, Any] = {}
    table = ALGOS[algo].argument_table().arguments
    for name, parameter in signature(ALGOS[algo]).items():
        default = parameter.default
        if isinstance(default, bool):
            changes[name] = not default
        elif isinstance(default, int):
            choices = (
                get_args(table[name].hint) if name in table and get_origin(table[name].hint) is Literal else [default + 1]
            )
            changes[name] = next(choice for choice in choices if choice != default)
        elif isinstance(default, float):
            changes[name] = default / 2
    special = {"tensorboard_log", "_init_setup_model", "verbose", "policy", "env", "device"}
    changes = {name: value for name, value in changes.items() if name not in special}
    return changes | {"seed": 7, "train_freq": (2, "step"), "buffer_size": 50}


def plain(value: Any) -> Any:
    """Tuples as lists and schedules as their numbers, which is all that a file keeps."""
    if isinstance(value, TrainFreq):
        return [value.frequency, value.unit.value]
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    return value(0.3) if callable(value) and not isinstance(value, type) else value


@every_algorithm
def test_every_hyperparameter_is_an_attribute_and_survives_a_round_trip(algo: str, tmp_path: Path) -> None:
    cls = ALGOS[algo]
    changes = changed_values(algo)
    small = small_settings(algo)
    model = cls("MlpPolicy", (OBSERVATION_SPACE, ACTION_SPACE), **(small | changes), device="cpu")
    names = cls.argument_table().arguments
    assert set(names) >= set(changes) and len(names) > 15
    model.save(tmp_path / "agent")
    loaded = cls.load(tmp_path / "agent")
    for name in names:
        assert plain(getattr(loaded, name)) == plain(getattr(model, name)), name
        if name in changes and name not in small:
            assert plain(getattr(loaded, name)) == plain(changes[name]), name


def test_hyperparameters_can_be_changed_on_loading(agent: MakeAgent, dataset: OfflineDataset, tmp_path: Path) -> None:
    model = agent().learn_offline(dataset, 3)
    model.save(tmp_path / "agent")
    rate = LinearSchedule(5e-3, 1e-3, 1.0)
    loaded = type(model).load(tmp_path / "agent", gamma=0.5, learning_rate=rate, batch_size=7)
    assert loaded.gamma == 0.5 and loaded.batch_size == 7 and loaded.lr_schedule(1.0) == 5e-3
    for name, tensor in model.policy.state_dict().items():
        assert th.equal(loaded.policy.state_dict()[name], tensor)
    loaded.learn_offline(dataset, 2, reset_num_timesteps=False)
    assert loaded.num_timesteps == 5
    with pytest.raises(TypeError, match="gama"):
        type(model).load(tmp_path / "agent", gama=0.5)


def test_a_file_does_not_say_where_to_log(agent: MakeAgent, tmp_path: Path) -> None:
    agent(tensorboard_log=str(tmp_path / "mine")).save(tmp_path / "agent")
    assert type(agent()).load(tmp_path / "agent").tensorboard_log is None
    assert type(agent()).load(tmp_path / "agent", tensorboard_log="yours").tensorboard_log == "yours"


def test_dac_acts_by_settings_changed_later_and_saves_them(tmp_path: Path) -> None:
    model = DAC("DiffusionPolicy", (OBSERVATION_SPACE, ACTION_SPACE), **(SHARED | small_settings("dac")))
    model.n_action_samples, model.sampler = 7, "ddim"
    assert (model.policy.n_action_samples, model.policy.sampler) == (7, "ddim")
    model.save(tmp_path / "agent")
    assert DAC.load(tmp_path / "agent").policy.n_action_samples == 7


def test_dac_starts_from_an_eta_given_on_loading(dataset: OfflineDataset, tmp_path: Path) -> None:
    model = DAC("DiffusionPolicy", dataset, **(SHARED | small_settings("dac"))).learn_offline(dataset, 3)
    model.save(tmp_path / "agent")
    assert DAC.load(tmp_path / "agent").eta_tensor == model.eta_tensor != 0.25
    assert DAC.load(tmp_path / "agent", eta=0.25).eta_tensor == 0.25


def parts_net_arch(algo: str) -> bool:
    """Whether the policy takes other widths for its actor than for its critics."""
    table = ALGOS[algo].policy_aliases["MlpPolicy"].argument_table()  # type: ignore[attr-defined]
    return "net_arch" in table.arguments and table.arguments["net_arch"].hint == NetArch


@pytest.mark.parametrize("algo", [algo for algo in ("bcq", "dac", "iql", "onestep", "spot", "td3_bc") if parts_net_arch(algo)])
def test_layers_and_activations_in_policy_kwargs_survive(agent: MakeAgent, tmp_path: Path) -> None:
    model = agent(policy_kwargs={"net_arch": {"pi": [6, 5], "qf": [4]}})
    model.save(tmp_path / "agent")
    assert differing(snapshot(model), snapshot(type(model).load(tmp_path / "agent"))) == []


def test_dac_keeps_activations_and_normalisation_of_its_critics(tmp_path: Path) -> None:
    kwargs = {"net_arch": [8], "critic_activation_fn": th.nn.ReLU, "critic_layer_norm": True}
    model: Any = make_agent("dac", policy_kwargs=kwargs)
    model.save(tmp_path / "agent")
    loaded = DAC.load(tmp_path / "agent")
    assert loaded.policy_kwargs == kwargs and repr(loaded.policy) == repr(model.policy)
    with pytest.raises(ValueError, match=r"critic_activation_fn=<class .*Hardshrink.*pickle; use one of Mish, ReLU"):
        make_agent("dac", policy_kwargs=kwargs | {"critic_activation_fn": th.nn.Hardshrink})


def test_registered_environments_make_a_monitored_vec_env(agent: MakeAgent) -> None:
    env = agent(env=gym.make("genoffline-tests/Point-v0")).get_env()
    assert env is not None and env.num_envs == 1


def arrays_of(dataset: OfflineDataset) -> dict[str, Any]:
    return {
        "observations": dataset.observations,
        "actions": dataset.actions,
        "rewards": dataset.rewards,
        "next_observations": dataset.next_observations,
        "terminals": dataset.terminations,
        "action_space": ACTION_SPACE,
    }


def test_what_load_dataset_takes_gives_the_spaces_too(agent: MakeAgent, dataset: OfflineDataset, tmp_path: Path) -> None:
    path = export_hdf5(dataset, tmp_path / "mine.hdf5")
    spec = EnvSpec("Point-v0", entry_point=PointEnv)
    for form in (arrays_of(dataset), path, str(path), spec, [OBSERVATION_SPACE, ACTION_SPACE]):
        model = agent(env=form)
        assert model.action_space == ACTION_SPACE and model.predict(OBSERVATION_SPACE.sample())[0].shape == (2,)


@pytest.mark.parametrize(
    "form", [lambda: PointEnv(), 3, [OBSERVATION_SPACE], object()], ids=["function", "int", "one", "object"]
)
def test_what_is_no_environment_is_refused_in_words(agent: MakeAgent, form: Any) -> None:
    with pytest.raises(UserError, match=r"env is an? .*; it may be an environment, a VecEnv .*or a tuple") as error:
        agent(env=form)
    assert callable(form) == ("call it and give what it returns" in str(error.value))


def test_an_agent_without_spaces_says_why_it_cannot_act() -> None:
    with pytest.raises(UserError, match=r"The agent has no policy yet.*make it with env="):
        DAC("MlpPolicy", None).predict(np.zeros(3, np.float32))


def test_a_spec_that_data_record_is_not_built(agent: MakeAgent, tmp_path: Path) -> None:
    spec = recorded(EnvSpec("Evil-v0", entry_point="os:mkdir", kwargs={"path": str(tmp_path / "mark")}))
    with pytest.raises(UserError, match="data must not choose what runs"):
        agent(env=spec)
    assert not (tmp_path / "mark").exists()


class Shaped(gym.Env):
    """Observations of a space whose flat form has five numbers."""

    action_space = ACTION_SPACE

    def __init__(self, observation_space: spaces.Space[Any]) -> None:
        self.observation_space, self.time = observation_space, 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.time = 0
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> Any:
        self.time += 1
        return self.observation_space.sample(), 1.0, False, self.time >= 3, {}


SHAPES = {
    "dict": spaces.Dict(b=spaces.Box(-1, 1, (2,), np.float64), a=spaces.Box(-1, 1, (1, 3))),
    "matrix": spaces.Box(-1, 1, (1, 5)),
    "tuple": spaces.Tuple((spaces.Box(-1, 1, (4,)), spaces.Box(-1, 1, (1,)))),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("made_from", ["environment", "spaces"])
def test_an_agent_acts_in_the_very_environment_it_was_made_from(agent: MakeAgent, shape: str, made_from: str) -> None:
    env = Shaped(SHAPES[shape])
    model = agent(env=env if made_from == "environment" else (env.observation_space, ACTION_SPACE))
    observation, _ = env.reset(seed=0)
    flat = FlatFloatObservation(env).observation(observation)
    actions = []
    for given in (observation, flat):
        model.set_random_seed(0)
        actions.append(model.predict(given)[0])
    assert actions[0].shape == (2,)
    np.testing.assert_array_equal(*actions)
    if shape != "tuple":  # stable-baselines3 has no buffer for those
        assert evaluate_policy(model, env, n_eval_episodes=2, warn=False)[0] == 3.0
        batch = make_vec_env(lambda: Shaped(SHAPES[shape]), 4).reset()
        assert model.predict(batch)[0].shape == (4, 2)


def test_an_agent_that_does_not_know_its_environment_says_what_to_give(agent: MakeAgent, tmp_path: Path) -> None:
    env = Shaped(SHAPES["dict"])
    agent(env=env).save(tmp_path / "agent")
    loaded = type(agent()).load(tmp_path / "agent")
    observation, _ = env.reset()
    with pytest.raises(
        UserError, match=r"made without the environment that tells their order: give it that \(env= or set_env"
    ):
        loaded.predict(observation)
    loaded.set_env(env)
    assert loaded.predict(observation)[0].shape == (2,)
    with pytest.raises(UserError, match=r"The observation lacks \['a'\]"):
        loaded.predict({"b": np.zeros(2)})


def test_sizes_that_no_file_may_have_are_refused_when_given() -> None:
    with pytest.raises(UserError, match=r"n_critics=257.*refused"):
        DAC("DiffusionPolicy", (OBSERVATION_SPACE, ACTION_SPACE), **(SHARED | small_settings("dac") | {"n_critics": 257}))
    with pytest.raises(UserError, match=r"net_arch=\[1000000000\], out of bounds"):  # before anything is built
        make_agent("bcq", policy_kwargs={"net_arch": [10**9]})
    model = make_agent("bear")
    with pytest.raises(UserError, match="n_action_samples"):
        model.n_action_samples = 10**12
    assert model.n_action_samples < 1000


@pytest.mark.parametrize("sizes", [{"n_layers": 7_000, "embed_dim": 128}, {"n_blocks": 7_000, "hidden_dim": 256}])
def test_layers_and_blocks_multiply_their_width(sizes: dict[str, int]) -> None:
    with pytest.raises(UserError, match="ask for networks of up to"):
        check_sizes(sizes, 3, 2, 10_000)
