"""JSON of an archive is bounded by its values: an empty list is two bytes of it and 64 of memory."""

import json
import tracemalloc

import pytest

from sb3_genoffline.files.archive import CheckpointError, tree_from_members, tree_to_members
from sb3_genoffline.files.untrusted import parse_json

BOMB = b"[" + b"[]," * 6_000_000 + b"[]]"


@pytest.mark.parametrize(
    "read",
    [
        lambda content: tree_from_members(tree_to_members({}, "training") | {"training.json": content}, "training"),
        lambda content: parse_json(content, "training.json"),
    ],
    ids=["training part", "settings"],
)
def test_json_of_millions_of_values_is_refused_before_it_is_parsed(read):
    tracemalloc.start()
    with pytest.raises(CheckpointError, match=r"training.json.* has 18,000,004 bytes .*more than any agent's: refused"):
        read(BOMB)
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


def test_a_large_training_part_is_none():
    tree = {"steps": list(range(100_000))}
    assert tree_from_members(tree_to_members(tree, "training"), "training") == tree
    assert parse_json(json.dumps(tree).encode(), "it") == tree
