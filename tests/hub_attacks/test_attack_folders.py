"""Folders whose config, weights, manifest or links lie."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from hostile import SMALL, Watch, acts_well, edited, header_of, pickled, safetensors_of
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from sb3_genoffline import ALGOS, load_from_hub
from sb3_genoffline.files.manifest import write_manifest
from sb3_genoffline.hub import push_folder
from sb3_genoffline.registry import load_agent

NEEDED = "config.json", "model.safetensors"


def refused(watch: Watch, folder: Path, *words: str) -> None:
    """By all that read a folder."""
    algo = folder.name
    for load in (lambda: load_from_hub(folder), lambda: load_agent(folder), lambda: ALGOS[algo].from_pretrained(folder)):
        watch.refused(load, *words)


def copied(victims: Path, algo: str, watch: Watch) -> Path:
    folder = Path(shutil.copytree(victims / algo, watch.root / algo))
    change(folder / "config.json", lambda config: config.pop("weights_sha256"))  # as one who forges weights would
    return folder


def change(path: Path, edit: Callable[[Any], Any]) -> None:
    path.write_bytes(edited(path.read_bytes(), edit))


# ---------------------------------------------------------------------- config.json


@pytest.mark.parametrize("algo", SMALL)
def test_pickles_in_a_folder_are_never_read(victims: Path, watch: Watch, algo: str) -> None:
    folder = copied(victims, algo, watch)
    for name in ("policy.pth", "pytorch_model.bin", "vec_normalize.pkl", "training.json", f"{algo}.zip", "__init__.py"):
        (folder / name).write_bytes(pickled(watch.trap))
    with watch.harmless():
        assert acts_well(load_from_hub(folder))  # type: ignore[arg-type]
    for name in NEEDED:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(pickled(watch.trap))
        refused(watch, folder, name)
        (folder / name).write_bytes(content)


@pytest.mark.parametrize(
    ("algo", "name"),
    [
        *(("dac", name) for name in ("os.system", "__import__", "BasePolicy", "../DiffusionPolicy", "a\x1b[2J\n", "")),
        *((algo, "builtins.exec") for algo in SMALL),
    ],
)
def test_no_class_is_found_by_a_name_from_a_file(victims: Path, watch: Watch, algo: str, name: str) -> None:
    folder = copied(victims, algo, watch)
    original = (folder / "config.json").read_bytes()
    edits: list[Callable[[Any], Any]] = [
        lambda config: config.update(algo=name),
        lambda config: config.update(policy_class=name),
        lambda config: config["hyperparameters"]["policy_kwargs"].update(activation_fn={"activation": name}),
        lambda config: config["hyperparameters"]["policy_kwargs"].update(activation_fn=name),
        lambda config: config["hyperparameters"]["policy_kwargs"].update({"__class__": name}),
        lambda config: config["hyperparameters"].update({name: 1}),
        lambda config: config["hyperparameters"].update(reward_transform=name),
        lambda config: config["hyperparameters"].update(train_freq=[1, name]),
        lambda config: config["observation_space"].update(type=name),
        lambda config: config["action_space"].update(dtype=name),
    ]
    for edit in edits:
        (folder / "config.json").write_bytes(edited(original, edit))
        refused(watch, folder)


@pytest.mark.parametrize(
    ("algo", "settings"),
    [
        ("dac", {"policy_kwargs": {"net_arch": [100_000, 100_000]}}),
        ("dac", {"policy_kwargs": {"net_arch": {"pi": [8], "qf": [6_000_000, 1, 6_000_000]}}}),
        ("dac", {"policy_kwargs": {"net_arch": [1] * 100_000}}),
        ("dac", {"policy_kwargs": {"net_arch": [-1]}}),
        ("dac", {"policy_kwargs": {"net_arch": [1e9]}}),
        ("dac", {"policy_kwargs": {"net_arch": 10**9}}),
        ("dac", {"n_critics": 10**7}),
        ("dac", {"n_critics": -1}),
        ("dac", {"n_diffusion_steps": 10**12}),
        ("dac", {"n_diffusion_steps": 1e9}),
        ("dac", {"n_diffusion_steps": 0}),
        ("dac", {"n_action_samples": 10**12}),
        ("dac", {"n_action_samples": 3.5}),
        ("dac", {"n_action_samples": 0}),
        ("dac", {"ddim_stride": -1, "sampler": "ddim"}),
        ("dac", {"batch_size": -1}),
        ("qdq", {"policy_kwargs": {"q_net_arch": [10**6] * 3}}),
        ("cped", {"policy_kwargs": {"flow_transforms": 10**6}}),
        ("cped", {"policy_kwargs": {"flow_bins": 10**7}}),
        ("cped", {"policy_kwargs": {"flow_transforms": 900, "flow_bins": 901}}),
        ("cped", {"policy_kwargs": {"flow_net_arch": [300_000, 300_000]}}),
        ("spot", {"policy_kwargs": {"latent_dim": 200_001, "vae_net_arch": [200_000]}}),
        ("spot", {"policy_kwargs": {"latent_dim": 0}}),
        ("bc", {"policy_kwargs": {"net_arch": [10**7]}}),
    ],
)
def test_sizes_that_no_agent_has_are_refused_before_anything_is_built(
    victims: Path, watch: Watch, algo: str, settings: dict[str, Any]
) -> None:
    folder = copied(victims, algo, watch)
    change(folder / "config.json", lambda config: config["hyperparameters"].update(settings))
    refused(watch, folder, min(settings.get("policy_kwargs", settings)))


@pytest.mark.parametrize("space", ["observation_space", "action_space"])
@pytest.mark.parametrize(
    "change_space",
    [
        {"shape": [10**12]},
        {"shape": [2**63 - 1]},
        {"shape": []},
        {"shape": [-3]},
        {"shape": [3.5]},
        {"shape": "3"},
        {"shape": [1, 3]},
        {"dtype": "object"},
        {"dtype": "O,O"},
        {"dtype": "float8"},
        {"dtype": "<M8[s]"},
        {"low": None},
        {"low": [{"__reduce__": 1}] * 3},
        {"low": ["nan"] * 3},
        {"low": [10**15] * 3, "high": [0] * 3},
        {"type": "Dict"},
    ],
)
def test_spaces_that_are_none_are_refused(folder: Path, watch: Watch, space: str, change_space: dict[str, Any]) -> None:
    change(folder / "config.json", lambda config: config[space].update(change_space))
    refused(watch, folder, space)


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int64", "uint64", "float16"])
@pytest.mark.parametrize("bound", [-1, 0.5, 300, 10**18, 1e300, -1e300, True, "inf", "-inf"])
def test_bounds_of_any_type_make_a_box_or_are_refused(folder: Path, watch: Watch, dtype: str, bound: Any) -> None:
    change(folder / "config.json", lambda c: c["observation_space"].update(dtype=dtype, low=[bound] * 3, high=[bound] * 3))
    with watch.harmless():
        try:
            model = load_agent(folder)
        except ValueError as error:
            assert "observation" in str(error)
        else:
            assert np.isinf(model.observation_space.low).any() or acts_well(model)


@pytest.mark.parametrize(
    "statistics",
    [
        {"mean": [1e300] * 3, "std": [1.0] * 3},
        {"mean": [0.0] * 3, "std": [1e-300] * 3},
        {"mean": [0.0] * 3, "std": [-1.0] * 3},
        {"mean": [0.0] * 3},
        {"mean": [0.0] * 10**5, "std": [1.0] * 10**5},
        {"mean": "000", "std": "111"},
        [],
    ],
)
def test_statistics_that_are_none_are_refused(folder: Path, watch: Watch, statistics: Any) -> None:
    change(folder / "config.json", lambda config: config.update(observation_statistics=statistics))
    refused(watch, folder, "observation" if statistics else "observation_statistics=[]")


@pytest.mark.parametrize("depth", [500, 900, 5000, 200_000])
def test_deep_json_is_refused(folder: Path, watch: Watch, depth: int) -> None:
    deep = "[" * depth + "]" * depth
    text = (folder / "config.json").read_text()
    for old, new in (('"net_arch": [', f'"net_arch": {deep}, "other": ['), ('"shape": [', f'"shape": {deep}, "other": [')):
        (folder / "config.json").write_text(text.replace(old, new, 1))
        refused(watch, folder)


def test_json_of_millions_of_objects_takes_no_memory(folder: Path, watch: Watch) -> None:
    (folder / "config.json").write_text('{"a": [' + "{}," * (20 * 2**20) + "{}]}")
    refused(watch, folder, "config.json")


# ---------------------------------------------------------------------- model.safetensors


def spoilt_headers(content: bytes) -> dict[str, bytes]:
    header, body = header_of(content)
    first, *_ = (name for name in header if name != "__metadata__")

    def with_first(**changes: Any) -> bytes:
        return safetensors_of(header | {first: header[first] | changes}, body)

    start, end = header[first]["data_offsets"]
    return {
        "truncated": content[: len(content) // 2],
        "no body": safetensors_of(header),
        "more body": content + b"\0" * 100,
        "a length that lies": safetensors_of(header, body, length=2**60),
        "a negative length": safetensors_of(header, body, length=2**64 - 1),
        "a length too short": safetensors_of(header, body, length=10),
        "no length": safetensors_of(header, body, length=0),
        "negative offsets": with_first(data_offsets=[-end, start]),
        "offsets the wrong way round": with_first(data_offsets=[end, start]),
        "overlapping": with_first(data_offsets=[start + 4, end + 4]),
        "offsets past the end": with_first(data_offsets=[start, 2**62]),
        "an offset that is no number": with_first(data_offsets=["0", end]),
        "one offset": with_first(data_offsets=[end]),
        "a shape that overflows": with_first(shape=[2**62, 2**62]),
        "a shape that overflows to nothing": with_first(shape=[2**32, 2**32, 0, 2**32]),
        "a negative shape": with_first(shape=[-1, -1]),
        "an unknown dtype": with_first(dtype="PICKLE"),
        "another dtype": with_first(dtype="I32"),
        "a complex dtype": with_first(dtype="C64"),
        "eight bits": with_first(dtype="F8_E4M3", shape=[end - start]),
        "deep": safetensors_of(b"[" * 200_000),
        "no object": safetensors_of([1, 2]),
        "no text": safetensors_of(b"\xff" * 50, body),
        "a name twice": safetensors_of(json.dumps(header).encode()[:-1] + b', "' + first.encode() + b'": {}}', body),
        "a name that is a place": safetensors_of({f"../{name}": facts for name, facts in header.items()}, body),
        "a name for a terminal": safetensors_of({f"{name}\x1b[2J\n": facts for name, facts in header.items()}, body),
        "pickle": safetensors_of(header | {"__metadata__": {"format": "pickle"}}, body[:-1]),
        "metadata": safetensors_of(header | {"__metadata__": {"format": {"a": 1}}}, body),
    }


@pytest.mark.parametrize("algo", SMALL)
def test_headers_that_lie_are_refused(victims: Path, watch: Watch, algo: str) -> None:
    folder = copied(victims, algo, watch)
    for content in spoilt_headers((folder / "model.safetensors").read_bytes()).values():
        (folder / "model.safetensors").write_bytes(content)
        refused(watch, folder, "model.safetensors")


def test_a_header_of_many_names_takes_no_memory(folder: Path, watch: Watch) -> None:
    header = {f"{number}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for number in range(80_000)}
    (folder / "model.safetensors").write_bytes(safetensors_of(header))
    refused(watch, folder, "model.safetensors", "header")


@pytest.mark.parametrize("algo", SMALL)
def test_weights_that_are_no_numbers_or_others_are_refused(victims: Path, watch: Watch, algo: str) -> None:
    folder = copied(victims, algo, watch)
    weights = load_tensors((folder / "model.safetensors").read_bytes())
    last = [name for name, weight in weights.items() if weight.is_floating_point() and weight.dim() > 1][-1]
    changes: list[Callable[[th.Tensor], th.Tensor]] = [
        *(
            lambda t, value=value: t.clone().view(-1).index_fill(0, th.tensor([0]), value).view(t.shape)
            for value in (np.nan, np.inf)
        ),
        lambda t: t.double(),
        lambda t: t.half(),
        lambda t: t.to(th.int32),
        lambda t: t[None],
        lambda t: t.new_zeros(0),
        lambda t: th.zeros(()),
    ]
    for change_weight in changes:
        (folder / "model.safetensors").write_bytes(save_tensors(weights | {last: change_weight(weights[last]).contiguous()}))
        refused(watch, folder, "model.safetensors", last)


# ---------------------------------------------------------------------- manifest.json and links


@pytest.mark.parametrize("name", ["../../sprung", "/etc/passwd", "..", ".", "", "a\0b", "\x1b[2J", "x" * 5000])
def test_a_manifest_names_no_file_that_is_then_touched(folder: Path, watch: Watch, name: str) -> None:
    write_manifest(folder)
    facts = {"sha256": "0" * 64, "size": 1}
    change(folder / "manifest.json", lambda manifest: manifest["files"].update({name: facts}))
    with watch.harmless():
        load_from_hub(folder)
    watch.refused(lambda: push_folder(folder, "org/dac"), "manifest.json")


@pytest.mark.parametrize(
    ("edit", "word"),
    [
        (lambda m: m["files"]["config.json"].update(size=2**62), "config.json"),
        (lambda m: m["files"]["config.json"].update(size=-1), "config.json"),
        (lambda m: m["files"]["config.json"].update(size="1"), "config.json"),
        (lambda m: m["files"]["model.safetensors"].update(sha256="0" * 64), "model.safetensors"),
        (lambda m: m["files"]["model.safetensors"].update(sha256="\x1b[2J" * 99), "model.safetensors"),
        (lambda m: m["files"]["model.safetensors"].update(sha256=None), "model.safetensors"),
        (lambda m: m["files"].clear(), "config.json"),
        (lambda m: m.update(files=["config.json"]), "files"),
        (lambda m: m.update(format_version=10**12), "newer"),
        (lambda m: m.update(format_version=None), "format_version"),
        (lambda m: m.clear(), "format_version"),
    ],
)
def test_a_manifest_that_lies_is_refused(folder: Path, watch: Watch, edit: Callable[[Any], Any], word: str) -> None:
    write_manifest(folder)
    change(folder / "manifest.json", edit)
    refused(watch, folder, word)


def test_links_out_of_a_folder_give_nothing_away(folder: Path, watch: Watch) -> None:
    secret = watch.root / "secret"
    secret.write_text('{"password": "hunter2"}')
    for name in NEEDED:
        content = (folder / name).read_bytes()
        (folder / name).unlink()
        (folder / name).symlink_to(secret)
        assert "hunter2" not in str(watch.refused(lambda: load_from_hub(folder), name))
        (folder / name).unlink()
        (folder / name).write_bytes(content)
    (folder / "README.md").write_text("x")
    write_manifest(folder)
    (folder / "notes.txt").symlink_to(secret)
    watch.refused(lambda: push_folder(folder, "org/dac"), "notes.txt")


@pytest.mark.parametrize("target", ["/dev/zero", ".", "config.json"])
def test_links_to_what_has_no_end_are_no_files(folder: Path, watch: Watch, target: str) -> None:
    (folder / "config.json").unlink()
    os.symlink(target, folder / "config.json")
    with watch.harmless(), pytest.raises((FileNotFoundError, ValueError), match=r"config\.json"):
        load_from_hub(folder)


def test_a_folder_without_a_card_is_not_published(folder: Path, watch: Watch) -> None:
    write_manifest(folder)
    with watch.harmless(), pytest.raises((FileNotFoundError, ValueError), match=r"README\.md"):
        push_folder(folder, "org/dac")
