"""What users of stable-baselines3 pass to algorithms and policies is honoured, or refused in words."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from stable_baselines3.common.torch_layers import FlattenExtractor, NatureCNN
from torch import nn
from worlds import small_settings

from sb3_genoffline import ALGOS, UserError
from sb3_genoffline.files.archive import CheckpointError
from sb3_genoffline.testing import ACTION_SPACE, OBSERVATION_SPACE, observations, point_dataset

SPACES = (OBSERVATION_SPACE, ACTION_SPACE)


def td3_bc(**policy_kwargs: Any) -> Any:
    small: dict[str, Any] = {"seed": 0, "batch_size": 16, "device": "cpu"}
    return ALGOS["td3_bc"]("MlpPolicy", SPACES, policy_kwargs={"net_arch": [8], **policy_kwargs}, **small)


@pytest.mark.parametrize("chosen", [{"optimizer_class": th.optim.AdamW}, {}], ids=["class", "usual class"])
@pytest.mark.parametrize("algo", ALGOS)
def test_an_optimizer_class_and_its_arguments_are_used_for_all_networks(algo: str, chosen: dict[str, Any]) -> None:
    small = small_settings(algo)
    small["policy_kwargs"] |= {**chosen, "optimizer_kwargs": {"weight_decay": 0.25}}
    agent = ALGOS[algo]("MlpPolicy", SPACES, device="cpu", **small)
    for name in agent.state.aliases:
        optimizer = agent.state.optimizers.get(name)
        if optimizer is not None:
            assert type(optimizer) is chosen.get("optimizer_class", agent.state.plans[name].cls), name
            assert optimizer.param_groups[0]["weight_decay"] == 0.25, name


def test_an_agent_with_another_optimizer_goes_on_exactly(tmp_path: Path) -> None:
    data, kwargs = point_dataset(), {"optimizer_class": th.optim.RMSprop, "optimizer_kwargs": {"alpha": 0.9, "eps": 1e-5}}
    whole, agent = td3_bc(**kwargs).learn_offline(data, 6), td3_bc(**kwargs).learn_offline(data, 3)
    agent.save(tmp_path / "agent")
    loaded = type(agent).load(tmp_path / "agent", device="cpu").learn_offline(data, 3, reset_num_timesteps=False)
    assert type(loaded.actor_optimizer) is th.optim.RMSprop
    ours, theirs = whole.policy.state_dict(), loaded.policy.state_dict()
    assert all(th.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("algo", ALGOS)
def test_sb3s_usual_net_arch_is_the_papers(algo: str) -> None:
    """SB3's ``net_arch=None``; a policy that has no ``net_arch`` says what it has instead."""
    if "net_arch" in next(iter(ALGOS[algo].policy_aliases.values())).argument_table().arguments:
        agent = ALGOS[algo]("MlpPolicy", SPACES, device="cpu", policy_kwargs={"net_arch": None})
        assert "net_arch" not in agent.policy_kwargs
    for given in ([8], {"pi": [8], "qf": [8]}):
        if "net_arch" not in next(iter(ALGOS[algo].policy_aliases.values())).argument_table().arguments:
            with pytest.raises(UserError, match=r"takes no net_arch: what shapes its networks is \w+"):
                ALGOS[algo]("MlpPolicy", SPACES, device="cpu", policy_kwargs={"net_arch": given})


@pytest.mark.parametrize(
    ("policy_kwargs", "words"),
    [
        ({"optimizer_class": nn.Linear}, "optimizer_class=.* must be a class derived from Optimizer"),
        ({"optimizer_class": th.optim.LBFGS}, "optimizer_class=.* can't be saved .* use one of Adam, AdamW"),
        ({"optimizer_kwargs": {"nonsense": 1}}, "optimizer_kwargs: Adam does not take .*nonsense"),
        ({"features_extractor_class": NatureCNN}, "features_extractor_class"),
        ({"features_extractor_kwargs": {"features_dim": 7}}, "features_extractor_kwargs"),
        ({"share_features_extractor": True}, "takes no share_features_extractor: its networks read the vector"),
        ({"normalize_images": True}, "takes no normalize_images"),
        ({"use_sde": True}, "takes no use_sde"),
        ({"net_archs": [8]}, "no argument 'net_archs'; did you mean 'net_arch'"),
        ({"net_arch": 64}, "net_arch=64 must be a list or a mapping"),
        ({"net_arch": {"pi": [8], "vf": [8]}}, "keys other than 'pi' .actor. and 'qf'"),
        ({"net_arch": {"pi": [8]}}, "has no 'qf'"),
        ({"net_arch": [8, 0]}, "widths of at least 1"),
        ({"net_arch": []}, "at least one hidden layer"),
        ({"net_arch": [8.5]}, "net_arch=.* has the entry 8.5, which must be a whole number"),
        ({"activation_fn": "tanh"}, "activation_fn='tanh' must be a class"),
        ({"activation_fn": nn.Linear}, "can't be saved .* use one of Mish, ReLU"),
        ({"n_critics": 0}, "n_critics=0 must be at least 1"),
    ],
)
def test_what_a_policy_does_not_take_is_refused_in_words(policy_kwargs: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        td3_bc(**policy_kwargs)


@pytest.mark.parametrize("net_arch", [[8], (8, 4), {"pi": [8], "qf": [4, 4]}, [np.int64(8)]])
def test_each_form_of_net_arch_trains_and_loads(net_arch: Any, tmp_path: Path) -> None:
    agent = td3_bc(net_arch=net_arch).learn_offline(point_dataset(), 2)
    agent.save(tmp_path / "agent")
    loaded = type(agent).load(tmp_path / "agent", device="cpu")
    ours, theirs = (one.predict(observations(), deterministic=True)[0] for one in (agent, loaded))
    assert np.array_equal(ours, theirs)


def test_sb3s_plain_features_extractor_is_what_our_policies_do_anyway() -> None:
    td3_bc(features_extractor_class=FlattenExtractor, features_extractor_kwargs={})


@pytest.mark.parametrize(
    ("name", "value"),
    [("optimize_memory_usage", True), ("replay_buffer_class", object), ("n_steps", 3), ("use_sde", True), ("gama", 0.9)],
)
def test_arguments_that_an_algorithm_does_not_take_are_refused_in_words(name: str, value: Any) -> None:
    with pytest.raises(
        UserError, match=rf"TD3BC (takes no {name}: .+|has no argument '{name}'; did you mean 'gamma')"
    ) as info:
        ALGOS["td3_bc"]("MlpPolicy", SPACES, **{name: value})
    assert isinstance(info.value, TypeError)  # as Python's own error for a keyword that does not exist


@pytest.mark.parametrize("algo", ALGOS)
def test_a_policy_is_saved_and_loaded_without_its_algorithm(algo: str, tmp_path: Path) -> None:
    agent = ALGOS[algo]("MlpPolicy", SPACES, seed=0, device="cpu", **small_settings(algo))
    agent.policy.save(tmp_path / "policy")
    loaded = type(agent.policy).load(tmp_path / "policy", device="cpu")
    for deterministic in (True, False):
        ours, theirs = (policy.predict(observations(), deterministic=deterministic)[0] for policy in (agent.policy, loaded))
        assert np.array_equal(ours, theirs)


def test_a_policys_file_is_not_an_agents_nor_another_policys(tmp_path: Path) -> None:
    agent = td3_bc()
    agent.policy.save(tmp_path / "policy")
    agent.save(tmp_path / "agent")
    with pytest.raises(CheckpointError, match="does not hold an agent"):
        type(agent).load(tmp_path / "policy")
    with pytest.raises(CheckpointError, match="does not hold a policy of its own"):
        type(agent.policy).load(tmp_path / "agent")
    with pytest.raises(CheckpointError, match="holds a 'ActorCriticPolicy', not a DiffusionPolicy"):
        ALGOS["dac"].policy_aliases["MlpPolicy"].load(tmp_path / "policy")


def test_custom_objects_change_what_a_file_holds(tmp_path: Path) -> None:
    td3_bc().save(tmp_path / "agent")
    loaded = ALGOS["td3_bc"].load(tmp_path / "agent", custom_objects={"learning_rate": 1e-5, "batch_size": 7})
    assert (loaded.learning_rate, loaded.batch_size) == (1e-5, 7)
    with pytest.raises(UserError, match="custom_objects has 'lr_schedule', and nothing of that name is stored"):
        ALGOS["td3_bc"].load(tmp_path / "agent", custom_objects={"lr_schedule": lambda _: 0.0})


@pytest.mark.parametrize(
    ("objects", "words"),
    [
        ([1], r"custom_objects=\[1\] must be a mapping"),
        ({"policy_class": int}, r"custom_objects: policy_class=.*int.* must be a class derived from OfflinePolicy"),
        ({"policy_kwargs": {"net_arch": [3]}}, r"policy_kwargs can't be changed to .* in load: it shapes the policy"),
    ],
)
def test_custom_objects_that_do_not_fit_are_no_fault_of_the_file(objects: Any, words: str, tmp_path: Path) -> None:
    td3_bc().learn_offline(point_dataset(), 2).save(tmp_path / "agent")
    with pytest.raises(UserError, match=words) as raised:
        ALGOS["td3_bc"].load(tmp_path / "agent", custom_objects=objects)
    assert not isinstance(raised.value, CheckpointError)


def test_a_live_agent_stays_on_its_device() -> None:
    agent = td3_bc().learn_offline(point_dataset(), 2)
    agent.device = "cpu"
    with pytest.raises(UserError, match="device can't be changed to 'cuda' on a live agent"):
        agent.device = "cuda"
    agent.learn_offline(point_dataset(), 1)
