"""Archives with pickles in every place, names that lead elsewhere, bombs, and parts that lie."""

import base64
import io
import json
import shutil
import stat
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch as th
from hostile import SMALL, Trap, Watch, edited, members_of, pickled, safetensors_of, zipped
from worlds import make_agent, make_dataset

from sb3_genoffline import ALGOS, load_from_hub
from sb3_genoffline.files.archive import pack_tensors, read_tensors
from sb3_genoffline.registry import load_agent

TAMPERED = "data", "policy.safetensors", "training.json", "training.safetensors"
UNREAD = "_stable_baselines3_version", "system_info.txt"
PICKLE_NAMES = (
    "policy.pth",
    "actor.optimizer.pth",
    "pytorch_variables.pth",
    "vec_normalize.pkl",
    "data.pkl",
    "replay_buffer.pkl",
)


def ways_in(algo: str, path: Path) -> list[Callable[[], Any]]:
    """All that read an archive of ours."""
    cls = ALGOS[algo]
    by_name = [lambda: load_from_hub(path), lambda: load_from_hub(path.parent, filename=path.name)]
    return [*by_name, lambda: load_agent(path), lambda: cls.load(path)]


def refused(watch: Watch, algo: str, path: Path, *words: str) -> None:
    for load in ways_in(algo, path):
        watch.refused(load, *words)
    in_memory = io.BytesIO(path.read_bytes())  # which has no name
    watch.refused(lambda: ALGOS[algo].load(in_memory), *(word for word in words if word != path.name))


# ---------------------------------------------------------------------- pickles


@pytest.mark.parametrize(
    ("algo", "member"), [*(("dac", member) for member in TAMPERED), *((algo, TAMPERED[0]) for algo in SMALL if algo != "dac")]
)
def test_a_pickle_in_the_place_of_a_member_is_no_member(victims: Path, watch: Watch, algo: str, member: str) -> None:
    saved = io.BytesIO()
    th.save({"actor": Trap(watch.trap)}, saved)
    for content in (pickled(watch.trap), saved.getvalue()):
        path = zipped(members_of(victims / f"{algo}.zip") | {member: content}, watch.root / "agent.zip")
        refused(watch, algo, path, member)


@pytest.mark.parametrize("algo", SMALL)
def test_pickles_beside_the_members_are_never_read(victims: Path, watch: Watch, algo: str) -> None:
    planted = dict.fromkeys([*UNREAD, *PICKLE_NAMES], pickled(watch.trap))
    path = zipped(members_of(victims / f"{algo}.zip") | planted, watch.root / "agent.zip")
    with watch.harmless():
        for load in ways_in(algo, path):
            load()


@pytest.mark.parametrize("algo", SMALL)
def test_pickles_inside_the_json_are_never_read(victims: Path, watch: Watch, algo: str) -> None:
    planted = {":type:": "<class 'abc.ABCMeta'>", ":serialized:": base64.b64encode(pickled(watch.trap)).decode()}
    members = members_of(victims / f"{algo}.zip")
    content = edited(members["data"], lambda data: data.update(unknown=planted, policy_kwargs=planted, lr_schedule=planted))
    path = zipped(members | {"data": content}, watch.root / "agent.zip")
    with watch.harmless():
        load_from_hub(path)
    edits: dict[str, Callable[[Any], Any]] = {
        "policy_class": lambda data: data.update(policy_class=planted),
        "action_space": lambda data: data.update(action_space=planted),
        "gamma": lambda data: data["hyperparameters"].update(gamma=planted),
        "learning_rate": lambda data: data["hyperparameters"].update(learning_rate=planted),
        ":type:": lambda data: data["hyperparameters"].update(policy_kwargs=planted),
        "num_timesteps": lambda data: data.update(counters=planted),
    }
    for word, edit in edits.items():
        content = edited(members["data"], edit)
        refused(watch, algo, zipped(members | {"data": content}, watch.root / "agent.zip"), word)


# ---------------------------------------------------------------------- names


@pytest.mark.parametrize(
    "name",
    ["../sprung", "/tmp/sprung", "a/../../sprung", "..\\sprung", "\\\\host\\sprung", "C:\\sprung", "a\x1b[2J", "a\u202eb"],
)
def test_names_that_lead_elsewhere_are_refused(victims: Path, watch: Watch, name: str) -> None:
    path = zipped(members_of(victims / "dac.zip") | {name: b"x"}, watch.root / "agent.zip")
    refused(watch, "dac", path, repr(name))


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("second", ["data", "data\0.txt"])
def test_a_member_that_is_there_twice_is_refused(victims: Path, watch: Watch, second: str) -> None:
    path = shutil.copy(victims / "dac.zip", watch.root / "agent.zip")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("data#.txt" if "\0" in second else second, b"{}")
    content = Path(path).read_bytes().replace(b"data#.txt", b"data\0.txt")
    Path(path).write_bytes(content)
    refused(watch, "dac", Path(path), "'data' more than once")


def test_links_are_no_links(victims: Path, watch: Watch) -> None:
    path = Path(shutil.copy(victims / "dac.zip", watch.root / "agent.zip"))
    with zipfile.ZipFile(path, "a") as archive:
        link = zipfile.ZipInfo("sprung")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
    with watch.harmless():
        load_from_hub(path)


def test_a_name_that_is_no_text_is_refused(victims: Path, watch: Watch) -> None:
    path = zipped({"é": b"x"}, watch.root / "agent.zip")
    path.write_bytes(path.read_bytes().replace("é".encode(), b"\xff\xff"))
    refused(watch, "dac", path, "agent.zip")


# ---------------------------------------------------------------------- bombs


def lying(content: bytes, **fields: int) -> bytes:
    """A zip file of one member with other sizes and places in its headers."""
    local, central = content.find(b"PK\x03\x04"), content.find(b"PK\x01\x02")
    spoilt = bytearray(content)
    places = {"size": ((local, 22), (central, 24)), "packed": ((local, 18), (central, 20)), "offset": ((central, 42),)}
    places |= {"method": ((local, 8), (central, 10)), "flags": ((local, 6), (central, 8))}
    for name, value in fields.items():
        width = 2 if name in ("method", "flags") else 4
        for start, at in places[name]:
            spoilt[start + at : start + at + width] = value.to_bytes(width, "little")
    return bytes(spoilt)


@pytest.mark.parametrize(
    "fields",
    [
        {"size": 1000},
        {"size": 0},
        {"size": 2**32 - 1},
        {"packed": 2**31},
        {"packed": 0},
        {"offset": 2**32 - 2},
        {"offset": 30},
        {"method": 14},
        {"method": 12},
        {"method": 99},
        {"flags": 1},
        {"flags": 0x20},
    ],
)
def test_headers_that_lie_are_refused(watch: Watch, fields: dict[str, int]) -> None:
    content = zipped({"data": b"{" + bytes(2**20)}, watch.root / "agent.zip", zipfile.ZIP_DEFLATED).read_bytes()
    (watch.root / "agent.zip").write_bytes(lying(content, **fields))
    refused(watch, "dac", watch.root / "agent.zip", "agent.zip")


def test_bombs_are_refused_before_they_unpack(watch: Watch) -> None:
    one = zipped({"data": bytes(2**26)}, watch.root / "agent.zip", zipfile.ZIP_DEFLATED)
    refused(watch, "dac", one, "as a zip bomb does", "67,108,864")
    small = {f"m{number}": bytes(2**20) for number in range(60)}
    refused(watch, "dac", zipped(small, watch.root / "many.zip", zipfile.ZIP_DEFLATED), "as a zip bomb does")
    nested = zipped({"data": one.read_bytes()}, watch.root / "nested.zip", zipfile.ZIP_DEFLATED)
    refused(watch, "dac", nested, "member 'data'")
    crowd = zipped({f"m{number}": b"" for number in range(2000)}, watch.root / "crowd.zip")
    refused(watch, "dac", crowd, "2,000 members")


def test_members_that_share_their_bytes_are_a_bomb(watch: Watch) -> None:
    """A directory of many entries that all point to the same packed bytes."""
    content = zipped({"data": bytes(2**20)}, watch.root / "agent.zip", zipfile.ZIP_DEFLATED).read_bytes()
    directory, end = content.find(b"PK\x01\x02"), content.find(b"PK\x05\x06")
    entries = b"".join(content[directory:end].replace(b"data", b"d%03d" % number) for number in range(500))
    counts = struct.pack("<HHLLH", 500, 500, len(entries), directory, 0)
    (watch.root / "agent.zip").write_bytes(content[:directory] + entries + content[end : end + 8] + counts)
    refused(watch, "dac", watch.root / "agent.zip", "as a zip bomb does")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_packings_that_neither_we_nor_stable_baselines3_use_are_refused(victims: Path, watch: Watch, method: int) -> None:
    """LZMA lets a file of a few bytes ask for a dictionary of 4 GiB."""
    path = zipped(members_of(victims / "dac.zip"), watch.root / "agent.zip", method)
    refused(watch, "dac", path, "packed")


@pytest.mark.parametrize("content", [b"", b"PK\x05\x06", b"PK\x03\x04" * 100, b"x" * 1000, pickled(Path("/nowhere"))])
def test_what_is_no_archive_is_refused(watch: Watch, content: bytes) -> None:
    (watch.root / "agent.zip").write_bytes(content)
    refused(watch, "dac", watch.root / "agent.zip", "agent.zip")


# ---------------------------------------------------------------------- data


@pytest.mark.parametrize(
    ("edit", "word"),
    [
        (lambda data: data.update(algo="\x1b[2J" * 50), "\\x1b[2J"),
        (lambda data: data.update(algo=["dac"]), "algo"),
        (lambda data: data.update(policy_class="a\nb" * 10_000), "policy class"),
        (lambda data: data.update(format_version=10**18), "newer"),
        (lambda data: data["observation_space"].update(low=[float("nan")] * 3), "observation_space"),
        (
            lambda data: data["hyperparameters"].update(learning_rate={"linear": [0, "x", 1]}),
            "does not describe a valid agent",
        ),
        (lambda data: data["hyperparameters"].update(seed=-1), "seed=-1"),
        (lambda data: data["hyperparameters"].update(n_diffusion_steps=1e9), "n_diffusion_steps"),
        (lambda data: data["hyperparameters"].update(n_action_samples=3.5), "n_action_samples"),
        (lambda data: data["hyperparameters"].update(policy_kwargs={"net_arch": [1e9]}), "net_arch"),
        (lambda data: data["hyperparameters"].update(policy_kwargs={"\x1b[2J": 1}), "does not describe a valid agent"),
    ],
)
def test_data_that_lies_is_refused(victims: Path, watch: Watch, edit: Callable[[Any], Any], word: str) -> None:
    members = members_of(victims / "dac.zip")
    path = zipped(members | {"data": edited(members["data"], edit)}, watch.root / "agent.zip")
    refused(watch, "dac", path, word)


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"{", b'"x"', b"\xff\xfe", b'{"a":' * 50_000, b"[" * 50_000, b'{"a": %s}' % (b"9" * 5000), b"null"]
)
def test_data_that_is_no_json_is_refused(victims: Path, watch: Watch, data: bytes) -> None:
    refused(watch, "dac", zipped(members_of(victims / "dac.zip") | {"data": data}, watch.root / "agent.zip"), "agent.zip")


# ---------------------------------------------------------------------- the part for training


def nested(depth: int) -> bytes:
    return b'{"__items__": [["optimizers", ' + b"[" * depth + b"]" * depth + b"]]}"


@pytest.mark.parametrize(
    "content",
    [b"[]", b"{}", b'"x"', b"3", nested(100_000), nested(900), b'{"__tensor__": "nothing"}', b'{"__items__": [[{}, 1]]}'],
)
def test_a_training_part_that_is_none_is_refused(victims: Path, watch: Watch, content: bytes) -> None:
    path = zipped(members_of(victims / "dac.zip") | {"training.json": content}, watch.root / "agent.zip")
    refused(watch, "dac", path, "training")


def replaced(tree: Any, key: str, wrong: Any) -> Any:
    """A tree in which all entries of a name have another value, or none where that is ``"gone"``."""
    if isinstance(tree, list):
        return [replaced(item, key, wrong) for item in tree]
    if not isinstance(tree, dict):
        return tree
    if "__items__" in tree:
        items = [[name, wrong if name == key else replaced(value, key, wrong)] for name, value in tree["__items__"]]
        return {"__items__": [item for item in items if item[1] != "gone"]}
    return {
        name: wrong if name == key else replaced(value, key, wrong)
        for name, value in tree.items()
        if (name, wrong) != (key, "gone")
    }


@pytest.mark.parametrize("algo", ["spot", "dac", "decision_transformer"])
def test_an_optimizer_that_keeps_something_else_is_refused(algo: str, watch: Watch) -> None:
    make_agent(algo).learn_offline(make_dataset(), 2).save(watch.root / "trained.zip")
    members = members_of(watch.root / "trained.zip")
    tree = json.loads(members["training.json"])
    for key in ("exp_avg", "exp_avg_sq", "step", "lr"):
        for wrong in (None, 3, "x", [], "gone"):
            edited_tree = replaced(tree, key, wrong)
            assert edited_tree != tree
            if key not in ("lr", "step") or wrong != 3:  # which are numbers
                path = zipped(members | {"training.json": json.dumps(edited_tree).encode()}, watch.root / "agent.zip")
                refused(watch, algo, path, "its part for training")


def test_the_training_part_cannot_reach_the_checked_weights(victims: Path, watch: Watch) -> None:
    """It names optimizers; were another name taken, weights that nobody checked would come in through it."""
    members = members_of(victims / "bc.zip")
    weights = read_tensors(members, "policy.safetensors")
    tensors = read_tensors(members, "training.safetensors")
    smuggled = {f"optimizers.policy.{name}": th.full_like(tensor, th.nan) for name, tensor in weights.items()}

    def edit(data: Any) -> None:
        optimizers = next(value for key, value in data["__items__"] if key == "optimizers")
        items = [[name, {"__tensor__": f"optimizers.policy.{name}"}] for name in weights]
        optimizers["__items__"].append(["policy", {"__items__": items}])

    members["training.json"] = edited(members["training.json"], edit)
    members["training.safetensors"] = pack_tensors(tensors | smuggled)
    path = zipped(members, watch.root / "agent.zip")
    refused(watch, "bc", path, "'policy'")
    agent = ALGOS["bc"].load(victims / "bc.zip")
    watch.refused(lambda: agent.set_parameters(path), "'policy'")
    assert all(th.equal(tensor, weights[name]) for name, tensor in agent.policy.state_dict().items())


def test_a_header_of_many_names_takes_no_memory(victims: Path, watch: Watch) -> None:
    header = {f"{number}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for number in range(80_000)}
    content = safetensors_of(json.dumps(header, separators=(",", ":")).encode())
    path = zipped(members_of(victims / "dac.zip") | {"policy.safetensors": content}, watch.root / "agent.zip")
    refused(watch, "dac", path, "policy.safetensors", "header")
