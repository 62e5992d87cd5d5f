"""The same through the real client and a Hub of this machine: nothing leaves the cache's folder, nothing runs."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hostile import Watch, edited, members_of, pickled, zipped
from huggingface_hub import constants

from sb3_genoffline import download_from_hub, load_from_hub
from sb3_genoffline.files.manifest import make_manifest

REPO = "org/dac-point"
Files = dict[str, bytes]


def names(files: Files, **more: Any) -> Files:
    return files | {"manifest.json": edited(files["manifest.json"], lambda m: m["files"].update(more))}


def with_manifest(files: Files) -> Files:
    return files | {"manifest.json": make_manifest(files)}


@pytest.mark.parametrize(
    ("spoil", "word"),
    [
        (lambda files, trap: with_manifest(files | {"model.safetensors": trap}), "model.safetensors"),
        (lambda files, trap: with_manifest(files | {"config.json": trap}), "config.json"),
        (lambda files, trap: files | {"manifest.json": trap}, "manifest.json"),
        (lambda files, trap: files | {"config.json": files["config.json"] + b" "}, "config.json"),
        (lambda files, trap: names(files, **{"config.json": {"sha256": "0" * 64, "size": 2**60}}), "config.json"),
        (lambda files, trap: {"manifest.json": files["manifest.json"]}, "config.json"),
        (lambda files, trap: {"dac-point.zip": trap}, "dac-point.zip"),
        (lambda files, trap: {}, "dac-point.zip"),
        (
            lambda files, trap: with_manifest(
                files | {"config.json": edited(files["config.json"], lambda c: c.update(algo="../../sprung"))}
            ),
            "'../../sprung'",
        ),
    ],
)
def test_hostile_repositories_are_refused(
    hub: Any, victims: Path, watch: Watch, spoil: Callable[[Files, bytes], Files], word: str
) -> None:
    files = {path.name: path.read_bytes() for path in (victims / "dac").iterdir()}
    hub.put(REPO, {"README.md": b"x"} | spoil(with_manifest(files), pickled(watch.trap)))
    watch.refused(lambda: load_from_hub(REPO), word)


def test_a_manifest_that_names_other_places_makes_nobody_fetch_them(hub: Any, victims: Path, watch: Watch) -> None:
    files = {path.name: path.read_bytes() for path in (victims / "dac").iterdir()}
    facts = {"sha256": "0" * 64, "size": 1}
    hub.put(REPO, names(with_manifest(files), **{"../../sprung": facts, "/etc/passwd": facts, "a.pkl": facts}))
    with watch.harmless():
        load_from_hub(REPO)
    assert sorted(hub.downloaded()) == ["config.json", "manifest.json", "model.safetensors"]
    inside = Path(constants.HF_HUB_CACHE) / "models--org--dac-point"
    for path in Path(constants.HF_HUB_CACHE).rglob("*"):
        assert inside in [path.resolve(), *path.resolve().parents] or path.resolve() not in inside.parents


def test_a_foreign_archive_with_traps_acts_without_springing_them(hub: Any, sb3_victim: Path, watch: Watch) -> None:
    planted = {":type:": "x", ":serialized:": "gASVBQAAAAAAAAB9lC4="}
    data = json.loads(members_of(sb3_victim)["data"]) | {"lr_schedule": planted, "_last_obs": planted}
    traps = dict.fromkeys(["actor.optimizer.pth", "pytorch_variables.pth", "vec_normalize.pkl"], pickled(watch.trap))
    path = zipped(members_of(sb3_victim) | traps | {"data": json.dumps(data).encode()}, watch.root / "sac-point.zip")
    hub.put("org/sac-point", {"sac-point.zip": path.read_bytes(), "vec_normalize.pkl": pickled(watch.trap)})
    with watch.harmless(), pytest.warns(UserWarning, match=r"vec_normalize\.pkl"):
        load_from_hub("org/sac-point")
    assert "vec_normalize.pkl" not in hub.downloaded()


@pytest.mark.parametrize("name", ["../sprung", "/etc/passwd", "a/../../sprung", "..\\sprung", ""])
def test_files_of_other_places_are_not_asked_for(hub: Any, watch: Watch, name: str) -> None:
    with watch.harmless(), pytest.raises(ValueError, match="is not a file of a repository"):
        download_from_hub(REPO, name)
    assert hub.log == []


def test_a_cache_that_was_exchanged_is_noticed(hub: Any, victims: Path, watch: Watch) -> None:
    files = {path.name: path.read_bytes() for path in (victims / "dac").iterdir()}
    hub.put(REPO, with_manifest(files))
    cache = watch.root / "cache"
    load_from_hub(REPO, cache_dir=cache)
    weights = next(cache.rglob("snapshots/*/model.safetensors"))
    other = shutil.copy(victims / "bc" / "model.safetensors", watch.root / "other")
    weights.unlink()
    weights.symlink_to(other)
    watch.refused(lambda: load_from_hub(REPO, cache_dir=cache, local_files_only=True), "model.safetensors")
