"""Archives of stable-baselines3 with traps in every pickle, and ``trust_remote_code``, which alone springs them."""

import base64
import io
import json
import pickle
import warnings
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch as th
from hostile import Trap, Watch, edited, members_of, pickled, zipped
from stable_baselines3.common.base_class import BaseAlgorithm

from sb3_genoffline import DAC, load_from_hub
from sb3_genoffline.registry import load_agent


def planted(watch: Watch) -> dict[str, str]:
    return {":type:": "<class 'x.Y'>", ":serialized:": base64.b64encode(pickled(watch.trap)).decode()}


def spoilt(source: Path, watch: Watch, **members: bytes) -> Path:
    names = {name.replace("_pth", ".pth").replace("_pkl", ".pkl"): content for name, content in members.items()}
    return zipped(members_of(source) | names, watch.root / "sac-point.zip")


def saved(content: Any) -> bytes:
    file = io.BytesIO()
    th.save(content, file)
    return file.getvalue()


def weights_of(source: Path) -> dict[str, th.Tensor]:
    return th.load(io.BytesIO(members_of(source)["policy.pth"]), weights_only=True)


# ---------------------------------------------------------------------- traps


def test_no_pickle_of_the_json_runs(sb3_victim: Path, watch: Watch) -> None:
    """Every value that is a pickle, the policy's arguments, and keys that nobody knows, each with its own trap."""
    data = json.loads(members_of(sb3_victim)["data"])
    keys = [key for key, value in data.items() if isinstance(value, dict)]
    assert {"policy_class", "observation_space", "action_space", "lr_schedule"} <= set(keys)
    for key in [*keys, "unknown", "__class__", "policy_kwargs", "replay_buffer_class", "_last_obs", "env", "gamma"]:
        trap = {":type:": data[key][":type:"] if isinstance(data.get(key), dict) and ":type:" in data[key] else "x"}
        text = json.dumps(
            data | {key: (data[key] if isinstance(data.get(key), dict) else {}) | planted(watch) | trap}
        ).encode()
        path = spoilt(sb3_victim, watch, data=text)
        with watch.harmless(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert isinstance(load_from_hub(path), BaseAlgorithm)


def test_no_pickle_of_a_member_runs(sb3_victim: Path, watch: Watch) -> None:
    raw, in_torch = pickled(watch.trap), saved({"actor": Trap(watch.trap)})
    for content in (raw, in_torch, pickle.dumps({"x": Trap(watch.trap)}, protocol=4), b"", b"PK\x03\x04"):
        path = spoilt(sb3_victim, watch, policy_pth=content)
        watch.refused(partial(load_from_hub, path), "policy.pth")
    names = ("actor.optimizer.pth", "critic.optimizer.pth", "pytorch_variables.pth", "vec_normalize.pkl", "extra.pkl")
    for content in (raw, in_torch):
        path = spoilt(sb3_victim, watch, **dict.fromkeys(names, content))
        with watch.harmless():
            load_from_hub(path)


def test_what_reads_our_archives_only_runs_nothing_of_theirs(sb3_victim: Path, victims: Path, watch: Watch) -> None:
    text = edited(
        members_of(sb3_victim)["data"], lambda data: data.update(unknown=planted(watch), policy_class=planted(watch))
    )
    path = spoilt(sb3_victim, watch, data=text, policy_pth=pickled(watch.trap))
    agent = DAC.load(victims / "dac.zip")
    for load in (DAC.load, load_agent, agent.set_parameters):
        watch.refused(partial(load, path), "was not saved by sb3_genoffline")  # type: ignore[operator]


def test_only_trust_remote_code_runs_what_is_in_an_archive(sb3_victim: Path, watch: Watch) -> None:
    text = edited(members_of(sb3_victim)["data"], lambda data: data.update(unknown=planted(watch)))
    path = spoilt(sb3_victim, watch, data=text)
    with watch.harmless(), pytest.warns(UserWarning, match="left out.*unknown"):
        load_from_hub(path)
    load_from_hub(path, trust_remote_code=True)
    assert watch.trap.is_dir(), "the caller asked for it"


def test_an_archive_of_ours_runs_nothing_even_if_it_is_trusted(victims: Path, watch: Watch) -> None:
    text = edited(members_of(victims / "dac.zip")["data"], lambda data: data.update(unknown=planted(watch)))
    path = spoilt(victims / "dac.zip", watch, data=text, policy_pth=pickled(watch.trap))
    with watch.harmless():
        load_from_hub(path, trust_remote_code=True)


# ---------------------------------------------------------------------- weights


def asking_for(name: str, arguments: tuple[Any, ...]) -> bytes:
    """PyTorch's file format, calling a function that its own loader allows."""
    module, _, function = name.rpartition(".")
    call = b"\x80\x02}X\x01\x00\x00\x00a" + f"c{module}\n{function}\n".encode()
    body = b"(" + b"".join(b"\x8a\x08" + number.to_bytes(8, "little") for number in arguments) + b"tRs."
    content = {"archive/data.pkl": call + body, "archive/version": b"3\n", "archive/byteorder": b"little"}
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for member, value in content.items():
            archive.writestr(member, value)
    return file.getvalue()


@pytest.mark.parametrize("name", ["builtins.bytearray", "os.system", "torch.Tensor", "torch.FloatTensor", "torch.storage.x"])
def test_weights_call_nothing_but_plain_tensors(sb3_victim: Path, watch: Watch, name: str) -> None:
    path = spoilt(sb3_victim, watch, policy_pth=asking_for(name, (2**33,)))
    watch.refused(lambda: load_from_hub(path), "policy.pth", "it asks for")


@pytest.mark.filterwarnings("ignore:torch.quantize")
@pytest.mark.parametrize(
    "change",
    [
        lambda weight: weight.to_sparse(),
        lambda weight: weight.to("meta"),
        lambda weight: weight.to(th.complex64),
        lambda weight: weight.double(),
        lambda weight: th.quantize_per_tensor(weight, 0.1, 0, th.qint8),
        lambda weight: weight[:1].expand(10**9, *weight.shape[1:]),
        lambda weight: weight * th.nan,
        lambda weight: weight * th.inf,
        lambda weight: weight.tolist(),
        lambda weight: {"nested": weight},
        lambda weight: None,
    ],
)
def test_weights_that_are_no_plain_numbers_are_refused(sb3_victim: Path, watch: Watch, change: Callable[[Any], Any]) -> None:
    weights = weights_of(sb3_victim)
    weights["actor.mu.weight"] = change(weights["actor.mu.weight"])
    path = spoilt(sb3_victim, watch, policy_pth=saved(weights))
    watch.refused(lambda: load_from_hub(path), "policy.pth")


def test_expanded_weights_do_not_vouch_for_large_networks(sb3_victim: Path, watch: Watch) -> None:
    """One stored number that claims to be a billion says nothing of what may be built."""
    weights = weights_of(sb3_victim) | {"extra": th.ones(1).expand(10**12)}
    text = edited(members_of(sb3_victim)["data"], lambda data: data["policy_kwargs"].update(net_arch=[30_000, 30_000]))
    path = spoilt(sb3_victim, watch, policy_pth=saved(weights), data=text)
    watch.refused(lambda: load_from_hub(path), "net_arch", "ask for networks of up to")


def test_a_bomb_in_the_weights_does_not_unpack(sb3_victim: Path, watch: Watch) -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(2**26))
    path = spoilt(sb3_victim, watch, policy_pth=file.getvalue())
    watch.refused(lambda: load_from_hub(path), "policy.pth", "as a zip bomb does")


# ---------------------------------------------------------------------- text


@pytest.mark.parametrize(
    ("edit", "word"),
    [
        (lambda d: d["policy_kwargs"].update(net_arch="(" * 9000), "policy.pth"),
        (lambda d: d["policy_kwargs"].update(net_arch="-" * 9000 + "1"), "policy.pth"),
        (lambda d: d["policy_kwargs"].update(net_arch="__import__('os').system('true')"), "policy.pth"),
        (lambda d: d["policy_kwargs"].update(net_arch="[1e9]"), "does not describe a valid agent"),
        (lambda d: d["policy_kwargs"].update(net_arch="[10**9]"), "policy.pth"),
        (lambda d: d["policy_kwargs"].update(net_arch={"pi": [10**9]}), "net_arch"),
        (lambda d: d["policy_kwargs"].update(n_critics="100000000"), "n_critics"),
        (
            lambda d: d["policy_kwargs"].update(features_extractor_class="<class 'torch.nn.modules.activation.ReLU'>"),
            "does not describe a valid agent",
        ),
        (lambda d: d["observation_space"].update(_shape="9 " * 10**6), "observation space"),
        (lambda d: d["observation_space"].update(_shape="[1000000000, 1000000000]"), "observation space"),
        (lambda d: d["observation_space"].update(low="[" + "1 " * 10**6), "observation space"),
        (lambda d: d["action_space"].update(low="[nan nan]"), "action space"),
        (lambda d: d["action_space"].update(dtype="x\x1b[2J"), "action space"),
        (lambda d: d["action_space"].update({":type:": "<class 'gymnasium.spaces.x.Dict'>"}), "action space"),
        (lambda d: d.update(action_space={":type:": "spaces.discrete.Discrete'", "n": "9" * 5000}), "action space"),
        (lambda d: d.update(policy_class={"__module__": "os\x1b[2J" * 99}, observation_space=0), "observation space"),
    ],
)
def test_text_that_lies_is_refused(sb3_victim: Path, watch: Watch, edit: Callable[[Any], Any], word: str) -> None:
    data = json.loads(members_of(sb3_victim)["data"])
    data["policy_kwargs"][":serialized:"] = ""  # its other entries are then text of Python
    path = spoilt(sb3_victim, watch, data=edited(json.dumps(data).encode(), edit))

    def load() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            load_from_hub(path)

    watch.refused(load, word)


@pytest.mark.parametrize(
    ("algo", "arguments"),
    [
        ("ppo_lstm", {"lstm_hidden_size": "50000"}),
        ("ppo_lstm", {"n_lstm_layers": "1000000"}),
        ("tqc", {"n_quantiles": "100000", "net_arch": "[100000]"}),
        ("qrdqn", {"n_quantiles": "10000000"}),
    ],
)
def test_sizes_of_other_algorithms_are_refused_before_anything_is_built(
    sb3_victim: Path, watch: Watch, algo: str, arguments: dict[str, str]
) -> None:
    def edit(data: Any) -> None:
        data["policy_kwargs"] = {":serialized:": "", **arguments}
        data["policy_class"] = {}

    members = members_of(sb3_victim) | {"data": edited(members_of(sb3_victim)["data"], edit)}
    path = zipped(members, watch.root / f"{algo}-point.zip")
    watch.refused(lambda: load_from_hub(path), min(arguments))
