"""Our writer of Minari's HDF5 file against Minari's own."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from minari.data_collector import EpisodeBuffer
from minari.dataset.minari_storage import MinariStorage

from sb3_genoffline.data.reading.minari_episodes import append_episodes

BOX = spaces.Box(-np.inf, np.inf, (3,), np.float64)
IMAGE = spaces.Box(0, 255, (40, 40, 3), np.uint8)
KINDS = {
    "box": BOX,
    "goal": spaces.Dict(observation=BOX, achieved_goal=spaces.Box(-1.0, 1.0, (2,)), nested=spaces.Tuple([BOX, BOX])),
    "discrete": spaces.Discrete(5),
    "image": IMAGE,
    "text": spaces.Text(4),
}


def rows(space: spaces.Space, n: int) -> Any:
    """``n`` elements as collectors keep them: one array, or a list, for each leaf."""
    if isinstance(space, spaces.Dict):
        return {name: rows(part, n) for name, part in space.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(rows(part, n) for part in space)
    samples = [space.sample() for _ in range(n)]
    return samples if isinstance(space, (spaces.Discrete, spaces.Text)) or space is IMAGE else np.stack(samples)


def buffers(space: spaces.Space, lengths: list[int]) -> list[EpisodeBuffer]:
    space.seed(0)
    BOX.seed(1)
    made: list[Any] = []
    for number, length in enumerate(lengths):
        flags = np.arange(length) == length - 1
        fields: dict[str, Any] = {"seed": number, "options": {"at": {"x": 1.5, "who": "me"}}} if number else {}
        infos = {"success": flags, "deep": {"x": np.arange(length), "words": ["a", "bc"] * 2}, "k": 2.0, "none": None}
        fields |= {"observations": rows(space, length + 1), "actions": rows(BOX, length).astype(np.float32)}
        fields |= {"rewards": list(range(length)), "terminations": flags, "truncations": ~flags}
        made.append(EpisodeBuffer(**fields, infos=infos if number else None))  # type: ignore[arg-type]
    return made


def flat(tree: Any, path: str = "") -> dict[str, Any]:
    if isinstance(tree, (dict, tuple)):
        items = tree.items() if isinstance(tree, dict) else enumerate(tree)
        return {k: v for name, branch in items for k, v in flat(branch, f"{path}/{name}").items()}
    return {path: np.asarray(tree)}


@pytest.mark.parametrize("kind", KINDS)
def test_a_reader_finds_what_minari_would_have_written(tmp_path: Path, kind: str) -> None:
    space = KINDS[kind]
    stores = []
    for name in ("minari", "ours"):
        store = MinariStorage.new(tmp_path / name, space, BOX)
        for part in (buffers(space, [4, 2]), buffers(space, [1])):  # the second call adds to a filled storage
            append_episodes(store, iter(part)) if name == "ours" else store.update_episodes(iter(part))
        stores.append(MinariStorage.read(tmp_path / name))
    theirs, ours = stores
    assert ours.total_episodes == 3 and ours.total_steps == 7
    assert {k: v for k, v in ours.metadata.items() if k != "dataset_size"} == {
        k: v for k, v in theirs.metadata.items() if k != "dataset_size"
    }
    assert list(ours.get_episode_metadata(range(3))) == list(theirs.get_episode_metadata(range(3)))
    for a, b in zip(theirs.get_episodes(range(3)), ours.get_episodes(range(3)), strict=True):
        a, b = flat(a), flat(b)
        assert a.keys() == b.keys()
        for path in a:
            assert a[path].dtype == b[path].dtype, path
            np.testing.assert_array_equal(a[path], b[path], err_msg=path)


def test_short_episodes_take_a_third_of_the_space(tmp_path: Path) -> None:
    flags = np.zeros(20, bool)
    plain = EpisodeBuffer(
        observations=np.zeros((21, 3)), actions=np.zeros((20, 3)), rewards=np.zeros(20), terminations=flags, truncations=flags
    )  # type: ignore[arg-type]
    sizes = []
    for name in ("minari", "ours"):
        store = MinariStorage.new(tmp_path / name, BOX, BOX)
        append_episodes(store, [plain] * 50) if name == "ours" else store.update_episodes([plain] * 50)
        sizes.append((tmp_path / name / "main_data.hdf5").stat().st_size)
    assert sizes[1] < sizes[0] / 3
