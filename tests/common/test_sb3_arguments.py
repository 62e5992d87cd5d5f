"""SB3's arguments and verbs are honoured or refused, and the page says which."""

import inspect
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from stable_baselines3.common.callbacks import BaseCallback, EveryNTimesteps, StopTrainingOnMaxEpisodes
from stable_baselines3.common.noise import NormalActionNoise, OrnsteinUhlenbeckActionNoise
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.vec_env import DummyVecEnv
from worlds import differing, make_agent, make_dataset, snapshot

import sb3_genoffline
from sb3_genoffline.errors import UserError
from sb3_genoffline.registry import ALGOS, load_agent
from sb3_genoffline.testing import ACTION_SPACE, OBSERVATION_SPACE, PointEnv, assert_same, observations, point_dataset

PAGE = (Path(sb3_genoffline.__file__).parent / "README.md").read_text()
ROWS = dict(re.findall(r"^\| (`\w.*?) \| (.*) \|$", PAGE.partition("SB3's verbs:")[0].rpartition("\n#")[2], re.MULTILINE))
FATES = {name: fate for names, fate in ROWS.items() for name in re.findall(r"`(\w+)`", names)}
SMALL: dict[str, Any] = {"policy_kwargs": {"net_arch": [8, 8]}, "batch_size": 16, "seed": 0, "device": "cpu"}


def make(algo: str = "td3_bc", env: Any = (OBSERVATION_SPACE, ACTION_SPACE), **changes: Any) -> Any:
    return ALGOS[algo]("MlpPolicy", env, **(SMALL | changes))


def test_the_page_has_every_argument_of_sb3_and_says_the_truth() -> None:
    arguments = [name for name in inspect.signature(OffPolicyAlgorithm.__init__).parameters if name != "self"]
    assert set(FATES) == set(arguments)
    for name, fate in FATES.items():
        if fate.startswith("refused"):
            with pytest.raises(TypeError, match=name):
                make(**{name: None})
        elif name not in ("policy", "env", "tensorboard_log", "device"):
            assert getattr(make(), name) is not None or name == "action_noise"


# ---------------------------------------------------------------------- what belongs to one machine


def readers(path: Path) -> dict[str, Callable[..., Any]]:
    """All that make an agent or a policy, by name."""
    agent = make()
    agent.save(path / "agent")
    agent.save_pretrained(path / "folder")
    agent.policy.save(path / "policy")
    return {
        "constructor": make,
        "load": lambda **changes: type(agent).load(path / "agent", **changes),
        "from_pretrained": lambda **changes: type(agent).from_pretrained(path / "folder", **changes),
        "load_agent": lambda **changes: load_agent(path / "agent", **changes),
        "policy": lambda **changes: type(agent.policy).load(path / "policy", **changes),
    }


def test_an_unknown_argument_of_a_training_is_named() -> None:
    agent: Any = make()
    with pytest.raises(TypeError, match=r"learn_offline has no argument 'total_timesteps'; it counts updates: gradient_steps"):
        agent.learn_offline(point_dataset(), total_timesteps=10)
    with pytest.raises(UserError, match=r"learn_offline has no argument 'log_intervall'; did you mean 'log_interval'"):
        agent.learn_offline(point_dataset(), 1, log_intervall=10)
    with pytest.raises(UserError, match=r"pretrain has no argument 'gradient_steps'"):
        agent.pretrain(point_dataset(), gradient_steps=10)


def test_a_device_that_is_not_there_is_named_by_all_that_take_one(tmp_path: Path) -> None:
    for name, read in readers(tmp_path).items():
        for device in ("nope", "meta", None):
            with pytest.raises(UserError, match=f"device={device!r} can't be used; 'auto', 'cpu'"):
                read(device=device)
        assert read(device="cpu").device == th.device("cpu"), name


def test_tensorboards_folder_is_a_path_or_none(tmp_path: Path) -> None:
    makers = readers(tmp_path)
    makers.pop("policy")
    for make_one in makers.values():
        with pytest.raises(UserError, match="tensorboard_log=3 is not a folder's name"):
            make_one(tensorboard_log=3)
    model = make(tensorboard_log=tmp_path / "logs")
    with pytest.raises(UserError, match="tensorboard_log=3"):
        model.tensorboard_log = 3
    model.learn_offline(point_dataset(), 1)
    assert list((tmp_path / "logs").rglob("events*"))


@pytest.mark.parametrize("name", ["policy", "policy_class", "_init_setup_model"])
def test_a_file_says_itself_what_an_agent_is_made_of(name: str, tmp_path: Path) -> None:
    makers = readers(tmp_path)
    for way in ("load", "from_pretrained", "load_agent"):
        with pytest.raises(UserError, match=f"load takes no {name}: .*custom_objects="):
            makers[way](**{name: "MlpPolicy"})


# ---------------------------------------------------------------------- an agent that is not made yet


def test_an_agent_that_was_not_set_up_is_when_it_is_needed() -> None:
    data, expected = point_dataset(), make().learn_offline(point_dataset(), 2)
    late = make(_init_setup_model=False)
    with pytest.raises(UserError, match="has no policy yet, as it was made with _init_setup_model=False: train it"):
        late.predict(observations())
    assert_same(expected, late.learn_offline(data, 2), "one that is set up late")
    online = make(env=PointEnv(), _init_setup_model=False)
    assert online.learn(4).num_timesteps == 4


def test_an_agent_without_spaces_says_what_it_lacks_whatever_is_asked_of_it(tmp_path: Path) -> None:
    make().save(tmp_path / "agent")
    verbs: dict[str, Callable[[Any], Any]] = {
        "predict": lambda agent: agent.predict(observations()),
        "save": lambda agent: agent.save(tmp_path / "new"),
        "save_pretrained": lambda agent: agent.save_pretrained(tmp_path / "new"),
        "save_replay_buffer": lambda agent: agent.save_replay_buffer(tmp_path / "new"),
        "load_replay_buffer": lambda agent: agent.load_replay_buffer(tmp_path / "new"),
        "get_parameters": lambda agent: agent.get_parameters(),
        "set_parameters": lambda agent: agent.set_parameters(tmp_path / "agent"),
        "save_fitted_model": lambda agent: agent.save_fitted_model(tmp_path / "new"),
        "set_fitted_model": lambda agent: agent.set_fitted_model(tmp_path / "new"),
        "set_acting_seed": lambda agent: agent.set_acting_seed(3),
        "learn": lambda agent: agent.learn(3),
    }
    for name, verb in verbs.items():
        with pytest.raises(UserError, match=r"yet.*spaces|this agent has none|an env or in learn_offline"):
            verb(make(env=None))
        assert not (tmp_path / "new").exists(), name
    with pytest.raises(UserError, match=r"no rows to draw batches from yet: call set_dataset\(dataset\) first"):
        make().train(1, 2)
    agent = make(env=None)
    agent.set_env(PointEnv())
    assert agent.learn(4).num_timesteps == 4


def test_a_callback_can_not_count_episodes_of_several_environments() -> None:
    class Count(BaseCallback):
        def _on_step(self) -> bool:
            with pytest.raises(UserError, match="train_freq counts episodes, and 2 environments"):
                self.model.train_freq = (1, "episode")
            return True

    model = make(env=DummyVecEnv([PointEnv] * 2))
    assert model.learn(6, Count()).num_timesteps == 6
    one = make(env=PointEnv())
    one.train_freq = (1, "episode")
    assert one.learn(6)._n_updates == 2


# ---------------------------------------------------------------------- noise, environments


@pytest.mark.parametrize("algo", ["td3_bc", "bc"])
def test_action_noise_takes_the_place_of_a_deterministic_actors_own(algo: str) -> None:
    noise = NormalActionNoise(np.zeros(2), np.zeros(2))
    model = make(algo, PointEnv(), action_noise=noise, gradient_steps=0).learn_offline(point_dataset(), 2)
    model.learn(6)
    rows = model.replay_buffer.rows_at(th.arange(60, 66))
    with th.no_grad():
        acted = model.policy.actor(model.policy.normalize_observations(rows.observations))
    np.testing.assert_allclose(acted.clamp(-1, 1), rows.actions, atol=1e-4)
    again, _ = model.predict(observations(), deterministic=False)
    assert not np.array_equal(again, model.predict(observations(), deterministic=True)[0])  # elsewhere it explores as before


def test_action_noise_reaches_the_actions_of_several_environments(tmp_path: Path) -> None:
    env = DummyVecEnv([PointEnv] * 3)
    noise = OrnsteinUhlenbeckActionNoise(np.full(2, 5.0), np.zeros(2), theta=1.0, dt=1.0)
    model = make(env=env, action_noise=noise, train_freq=2, gradient_steps=-1).learn_offline(point_dataset(), 2)
    model.learn(12)
    assert model.num_timesteps == 12 and model.replay_buffer.n_online == 12 and model._n_updates == 2 + 12
    assert (model.replay_buffer.rows_at(th.arange(60, 72)).actions > 0.99).all()
    model.save(tmp_path / "agent")
    loaded = type(model).load(tmp_path / "agent", env=env, action_noise=noise)
    assert loaded.action_noise is noise and type(model).load(tmp_path / "agent").action_noise is None


def test_what_is_no_noise_is_refused() -> None:
    with pytest.raises(UserError, match="is not an ActionNoise"):
        make(action_noise=0.1)


def test_episodes_of_several_environments_are_refused_in_words() -> None:
    model = make(env=DummyVecEnv([PointEnv] * 2), train_freq=(1, "episode")).learn_offline(point_dataset(), 2)
    with pytest.raises(UserError, match="train_freq counts episodes"):
        model.learn(4)


# ---------------------------------------------------------------------- save(exclude, include)


def load_of(model: Any, path: Path, **how: Any) -> Any:
    model.save(path, **how)
    return type(model).load(path, device="cpu")


def test_exclude_and_include_mean_what_they_mean_in_sb3(tmp_path: Path) -> None:
    model = make(verbose=0, gamma=0.5).learn_offline(point_dataset(), 2)
    assert load_of(model, tmp_path / "a", exclude=["gamma", "replay_buffer", "env"]).gamma == 0.99
    assert load_of(model, tmp_path / "a", exclude=["gamma"], include=["gamma"]).gamma == 0.5
    whole, acting = tmp_path / "whole", tmp_path / "acting"
    model.save(whole, exclude=["training"], include=["training"])
    model.save(acting, exclude="training")
    assert acting.with_suffix(".zip").stat().st_size < whole.with_suffix(".zip").stat().st_size
    observed = observations()
    np.testing.assert_array_equal(
        load_of(model, acting).predict(observed, deterministic=True)[0], model.predict(observed, deterministic=True)[0]
    )


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"exclude": ["trainign"]}, "do you mean 'training'"),
        ({"include": ["nonsense"]}, "has no 'nonsense'"),
        ({"exclude": ["policy_kwargs"]}, "'policy_kwargs' can't be left out"),
        ({"exclude": ["actor_optimizer"]}, "'actor_optimizer' can't be left out.*'training'"),
        ({"exclude": ["policy"]}, "'policy' can't be left out"),
        ({"include": ["replay_buffer"]}, r"save_replay_buffer\(\)"),
        ({"include": ["env"]}, "'env' can't be a part"),
    ],
)
def test_names_that_mean_nothing_are_refused(how: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        make().save(tmp_path / "agent", **how)
    assert list(tmp_path.iterdir()) == []


def test_a_buffer_without_data_is_saved_empty_as_in_sb3(tmp_path: Path) -> None:
    make().save_replay_buffer(tmp_path / "buffer")
    other = make(env=PointEnv())
    other.load_replay_buffer(tmp_path / "buffer")
    assert other.replay_buffer.size() == 0
    other.learn(4)
    with pytest.raises(UserError, match="no buffer to save yet"):
        make(env=None).save_replay_buffer(tmp_path / "buffer")


# ---------------------------------------------------------------------- torch.compile


@pytest.mark.parametrize(("algo", "what"), [("td3_bc", "policy"), ("td3_bc", "actor"), ("dql", "critic"), ("spot", "policy")])
def test_an_agent_that_went_through_compile_saves_and_loads(algo: str, what: str, tmp_path: Path) -> None:
    small = {"vae_steps": 3} if algo == "spot" else {}
    model = make(algo, **small).learn_offline(point_dataset(), 2)
    plain = {name: tensor.clone() for name, tensor in model.policy.state_dict().items()}
    wrap: Callable[[Any], Any] = lambda module: th.compile(module, backend="eager")  # noqa: E731
    owner = model if what == "policy" else model.policy
    setattr(owner, what, wrap(getattr(owner, what)))
    model.save(tmp_path / "agent")
    model.policy.save(tmp_path / "policy")
    model.save_pretrained(tmp_path / "folder")
    cls = type(model)
    acting = cls.load(tmp_path / "agent").policy.acting_state_dict().keys()
    for loaded, names in ((cls.load(tmp_path / "agent"), plain), (cls.from_pretrained(tmp_path / "folder"), acting)):
        state = loaded.policy.state_dict()
        assert state.keys() == plain.keys() and all(th.equal(state[name], plain[name]) for name in names)
    assert model.policy_class.load(tmp_path / "policy").state_dict().keys() == plain.keys()
    model.set_parameters(tmp_path / "agent")  # and back into a compiled one


# ---------------------------------------------------------------------- a seed for acting


@pytest.mark.parametrize("algo", ["dac", "dql", "bcq", "bear", "bc"])
@pytest.mark.parametrize("deterministic", [True, False])
def test_an_acting_seed_makes_actions_repeatable_and_training_as_it_was(algo: str, deterministic: bool) -> None:
    model = make(algo).learn_offline(point_dataset(), 2)
    generator = model.generator.get_state()
    actions = []
    for _ in range(2):
        model.set_acting_seed(3)
        actions.append([model.predict(observations(), deterministic=deterministic)[0] for _ in range(2)])
    np.testing.assert_array_equal(*actions)
    assert np.array_equal(actions[0][0], actions[0][1]) == (algo == "bc" and deterministic)
    assert th.equal(generator, model.generator.get_state())
    assert "set_acting_seed" in (type(model).predict.__doc__ or "")
    if algo != "bc":
        page = Path(inspect.getfile(type(model))).with_name("README.md").read_text()
        assert "set_acting_seed" in page and "set_acting_seed" in (type(model).__doc__ or "")


def test_a_profile_is_refused_with_where_its_values_are() -> None:
    with pytest.raises(UserError, match=r"takes no profile: profiles belong to the command line .*hyperparameters\.yml"):
        make("bcq", profile="cpu")


# ---------------------------------------------------------------------- verbs that take numbers, weights and callbacks


def test_numpys_numbers_are_numbers_and_others_are_named(tmp_path: Path) -> None:
    agent = make(env=PointEnv()).learn(np.int64(4))
    agent.set_acting_seed(np.int64(3))
    agent.set_random_seed(np.int64(3))
    agent.save(tmp_path / "agent")
    agent.save_pretrained(tmp_path / "folder")
    agent.policy.save(tmp_path / "policy")
    for wrong in (8.5, "8", None, -1):
        with pytest.raises(UserError, match=r"^total_timesteps="):
            agent.learn(wrong)
    for wrong in (1.5, "x", True, 2**70):
        for verb in (agent.set_acting_seed, agent.set_random_seed):
            with pytest.raises(UserError, match=r"^seed="):
                verb(wrong)
    for wrong in ("x", None, 1.5):
        with pytest.raises(UserError, match=r"^verbose=.* must be a whole number"):
            make(verbose=wrong)
        with pytest.raises(UserError, match=r"verbose=.* must be a whole number"):
            type(agent).load(tmp_path / "agent", verbose=wrong)


def test_weights_of_a_dict_stay_those_of_who_gave_them() -> None:
    giving, taking = make().learn_offline(point_dataset(), 2), make(seed=5)
    taking.set_parameters(giving.get_parameters())
    other = pickle.loads(pickle.dumps(giving))
    taking.learn_offline(point_dataset(seed=1), 3)
    for each in (giving, other):
        each.learn_offline(point_dataset(), 3, reset_num_timesteps=False)
    assert differing(snapshot(giving), snapshot(other)) == []


@pytest.mark.parametrize("algo", ALGOS)
def test_a_pickle_is_the_archive(algo: str) -> None:
    agent = make_agent(algo).learn_offline(make_dataset(), 2)
    copied = pickle.loads(pickle.dumps(agent))
    assert type(copied) is type(agent) and differing(snapshot(agent), snapshot(copied)) == []


def test_what_counts_episodes_of_an_environment_is_refused_offline() -> None:
    counting = StopTrainingOnMaxEpisodes(3)
    for callback in (counting, [counting], EveryNTimesteps(1, counting)):
        with pytest.raises(UserError, match="StopTrainingOnMaxEpisodes counts the episodes that learn"):
            make().learn_offline(point_dataset(), 3, callback=callback)


def test_a_device_that_is_not_there_is_told_of() -> None:
    if not th.cuda.is_available():
        with pytest.warns(UserWarning, match="device='cuda:3' is not there, so it is the cpu"):
            assert make(device="cuda:3").device.type == "cpu"


@pytest.mark.parametrize("wrong", [{"amsgrad": "yes"}, {"amsgrad": 1}, {"eps": np.inf}, {"weight_decay": th.tensor(0.1)}])
def test_an_optimizers_arguments_are_tried_when_they_are_given(wrong: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=f"optimizer_kwargs.*{next(iter(wrong))}"):
        make(policy_kwargs={"net_arch": [8], "optimizer_kwargs": wrong})


def test_an_optimizers_arguments_may_be_numpys(tmp_path: Path) -> None:
    given = {"weight_decay": np.float32(0.1), "betas": np.array([0.5, 0.9]), "eps": np.int64(0)}
    agent = make(policy_kwargs={"net_arch": [8], "optimizer_kwargs": given}).learn_offline(point_dataset(), 2)
    agent.save(tmp_path / "agent")
    kept = type(agent).load(tmp_path / "agent").policy_kwargs["optimizer_kwargs"]
    assert kept == {"weight_decay": float(np.float32(0.1)), "betas": [0.5, 0.9], "eps": 0}
