"""Fuzzing: what is not refused acts, and every refusal is a ``CheckpointError``."""

import copy
import json
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hostile import acts_well, bounded_memory, check_refusal, header_of, members_of, safetensors_of, zipped
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from sb3_genoffline.files.archive import CheckpointError, read_archive
from sb3_genoffline.files.manifest import write_manifest
from sb3_genoffline.registry import load_agent

OURS = settings(
    deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
FEW, MANY = settings(OURS, derandomize=True, max_examples=60), settings(OURS, max_examples=1500)
NUMBERS = st.sampled_from([0, -1, 1, 2, 3, 7, 10**5, 10**9, 2**31, 2**62, 2**63, -(2**63), 10**400]) | st.sampled_from(
    [0.0, -0.0, 0.5, 2.0, 1e5, 1e9, 1e-45, 1e38, 1e300, -1e300, float("nan"), float("inf"), float("-inf")]
)
WORDS = st.sampled_from(["", "inf", "-inf", "nan", "1", "Box", "float8", "uint8", "bool", "cuda", "ReLU", "spline", "dac"]) | (
    st.sampled_from(["os.system", "__class__", "../../etc/passwd", "/etc/passwd", "\x1b[2J", "\ud800", "\x00", "x" * 10_000])
)
SCALARS = st.none() | st.booleans() | NUMBERS | WORDS | st.integers(-10, 10)
KNOWN_FORMS: list[Any] = [
    *({"activation": "ReLU"}, {"activation": "eval"}, {"linear": [1, 0, 0.5]}, {"linear": []}, {"__tensor__": "actor"}),
    *({"__items__": []}, {"__items__": [[[], 1]]}, {":serialized:": "gASVBQAAAAAAAAB9lC4="}, [1e9], [8, 8], [10**5] * 3),
]
TREES = st.sampled_from(KNOWN_FORMS) | st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS, inner, max_size=3), max_leaves=6
)


def places(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths of all nodes but the root."""
    if isinstance(tree, dict | list):
        for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
            yield (*path, key)
            yield from places(value, (*path, key))


@st.composite
def mutations(draw: st.DrawFn, tree: Any) -> Any:
    """The tree after one to three changes: a node dropped, replaced, moved or added."""
    tree = copy.deepcopy(tree)
    for _ in range(draw(st.integers(1, 3))):
        paths = list(places(tree))
        if not paths:
            break
        *parents, key = draw(st.sampled_from(paths))
        parent = tree
        for step in parents:
            parent = parent[step]
        kind = draw(st.sampled_from(["replace", "replace", "replace", "drop", "copy", "add", "stretch"]))
        if kind == "drop":
            del parent[key]
        elif kind == "copy":
            *others, last = draw(st.sampled_from(paths))
            source: Any = tree
            try:
                for step in (*others, last):
                    source = source[step]
            except (KeyError, IndexError, TypeError):
                continue
            parent[key] = copy.deepcopy(source)
        elif kind == "add" and isinstance(parent, dict):
            parent[draw(WORDS)] = copy.deepcopy(draw(TREES))
        elif kind == "stretch" and type(parent[key]) in (int, float):
            factor, more = draw(st.sampled_from([(-1, 0), (1.0, 0), (1, 1), (1000, 0), (0, 0)]))
            parent[key] = min(parent[key], 1e300) * factor + more
        else:
            parent[key] = copy.deepcopy(draw(TREES))
    return tree


@st.composite
def damaged(draw: st.DrawFn, content: bytes, start: int = 0) -> bytes:
    """The bytes with some flipped, cut out, put in or repeated, behind ``start``."""
    data = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(min(start, len(data)), len(data)))
        length = draw(st.integers(0, 8))
        data[place : place + length] = draw(st.binary(max_size=8) | st.just(b"\xff" * length) | st.just(bytes(length)))
    return bytes(data)


def acts_or_is_refused(path: Path) -> None:
    """The property, of whatever lies at the path."""
    with warnings.catch_warnings(), bounded_memory():
        warnings.simplefilter("ignore")
        try:
            model = load_agent(path, device="cpu")
        except CheckpointError as error:
            check_refusal(error)
            return
        note(f"loaded: {type(model).__name__}")
        assert acts_well(model)


def copied(victims: Path, algo: str, tmp_path: Path) -> Path:
    folder = Path(shutil.copytree(victims / algo, tmp_path / algo, dirs_exist_ok=True))
    config = json.loads((folder / "config.json").read_text())
    del config["weights_sha256"]  # as one who forges weights would
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def fuzz_config(victims: Path, tmp_path: Path, algo: str, data: st.DataObject) -> None:
    folder = copied(victims, algo, tmp_path)
    (folder / "config.json").write_text(json.dumps(data.draw(mutations(json.loads((folder / "config.json").read_text())))))
    acts_or_is_refused(folder)


def fuzz_header(victims: Path, tmp_path: Path, algo: str, data: st.DataObject) -> None:
    folder = copied(victims, algo, tmp_path)
    content = (folder / "model.safetensors").read_bytes()
    header, body = header_of(content)
    with_header = mutations(header).map(lambda new: safetensors_of(new, body))
    spoilt = data.draw(with_header | damaged(content[: len(content) - len(body)]).map(lambda head: head + body))
    (folder / "model.safetensors").write_bytes(spoilt)
    acts_or_is_refused(folder)


def fuzz_manifest(victims: Path, tmp_path: Path, algo: str, data: st.DataObject) -> None:
    folder = copied(victims, algo, tmp_path)
    write_manifest(folder)
    content = (folder / "manifest.json").read_bytes()
    spoilt = data.draw(mutations(json.loads(content)).map(lambda tree: json.dumps(tree).encode()) | damaged(content))
    (folder / "manifest.json").write_bytes(spoilt)
    acts_or_is_refused(folder)


def fuzz_member(victims: Path, tmp_path: Path, algo: str, data: st.DataObject) -> None:
    members = members_of(victims / f"{algo}.zip")
    name = data.draw(st.sampled_from(["data", "data", "training.json"]))
    members[name] = json.dumps(data.draw(mutations(json.loads(members[name])))).encode()
    acts_or_is_refused(zipped(members, tmp_path / "agent.zip"))


def fuzz_archive(victims: Path, tmp_path: Path, algo: str, data: st.DataObject) -> None:
    content = zipped({"data": b"{}", "é": b"2" * 50}, tmp_path / "small.zip", data.draw(st.sampled_from([0, 8]))).read_bytes()
    (tmp_path / "small.zip").write_bytes(data.draw(damaged(content)))
    with bounded_memory():
        try:
            members = read_archive(tmp_path / "small.zip")
        except CheckpointError as error:
            check_refusal(error)
        else:
            assert sum(map(len, members.values())) < 2**20 + 20 * len(content)


FUZZERS = [fuzz_config, fuzz_header, fuzz_manifest, fuzz_member, fuzz_archive]


@pytest.mark.parametrize("fuzz", FUZZERS)
@FEW
@given(algo=st.sampled_from(["dac", "bc"]), data=st.data())
def test_what_is_spoilt_acts_or_is_refused(victims: Path, tmp_path: Path, fuzz: Any, algo: str, data: st.DataObject) -> None:
    fuzz(victims, tmp_path, algo, data)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("fuzz", FUZZERS)
@MANY
@given(algo=st.sampled_from(["dac", "qdq", "cped", "bc"]), data=st.data())
def test_what_is_spoilt_acts_or_is_refused_in_many_more_cases(
    victims: Path, tmp_path: Path, fuzz: Any, algo: str, data: st.DataObject
) -> None:
    fuzz(victims, tmp_path, algo, data)
