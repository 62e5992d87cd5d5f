"""In what order transitions are drawn, and that a resumed sampler goes on with the same ones."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch as th
from labelled_episodes import ACTION_SPACE, OBSERVATION_SPACE, random_episodes
from labelled_episodes import arrays as labelled_arrays

from sb3_genoffline import OfflineDataset
from sb3_genoffline.data.buffers import OfflineBuffer
from sb3_genoffline.data.sampling import TransitionSampler
from sb3_genoffline.errors import UserError

B, SEED = 4, 2


@pytest.fixture(scope="module")
def dataset() -> OfflineDataset:
    data = OfflineDataset(
        **labelled_arrays(random_episodes(SEED)), observation_space=OBSERVATION_SPACE, action_space=ACTION_SPACE
    )
    assert len(data) % B != 0  # the last batch of an epoch is shorter
    return data


def buffer_of(dataset: OfflineDataset | None, **changes: object) -> OfflineBuffer:
    return OfflineBuffer(5, OBSERVATION_SPACE, ACTION_SPACE, "cpu", dataset=dataset, **{"seed": 7, **changes})  # type: ignore[arg-type]


def add_row(buffer: OfflineBuffer, number: float) -> None:
    zeros = np.zeros((1, 3), np.float32)
    buffer.add(zeros, zeros, np.zeros((1, 2), np.float32), np.array([number]), np.array([False]), [{}])


def plain_epochs(n_rows: int, seed: int) -> Iterator[th.Tensor]:
    """What the sampler must draw: slices of one permutation after the other."""
    generator = th.Generator().manual_seed(seed)
    while True:
        permutation = th.randperm(n_rows, generator=generator)
        for start in range(0, n_rows, B):
            yield permutation[start : start + B]


def test_epochs_are_slices_of_permutations_of_the_samplers_own_generator(dataset: OfflineDataset) -> None:
    sampler = TransitionSampler(buffer_of(dataset, seed=0), seed=11)
    before = th.get_rng_state()
    for _, rows in zip(range(2 * len(dataset) // B + 3), plain_epochs(len(dataset), 11), strict=False):
        drawn = sampler.draw(B)
        assert all(map(th.equal, drawn, sampler.buffer.rows_at(rows)))
    assert th.equal(th.get_rng_state(), before)


@pytest.mark.parametrize("how", ["replacement", "online rows"])
def test_with_replacement_or_online_rows_draws_are_independent(dataset: OfflineDataset, how: str) -> None:
    buffer = buffer_of(dataset)
    if how == "online rows":
        add_row(buffer, 1.0)
    sampler = TransitionSampler(buffer, replacement=how == "replacement", seed=11)
    generator = th.Generator().manual_seed(11)
    for size in (3, 50):
        assert th.equal(sampler.next_indices(size), th.randint(buffer.size(), (size,), generator=generator))


def test_the_buffers_own_sampler_draws_as_any_other_of_its_seed(dataset: OfflineDataset) -> None:
    buffer = buffer_of(dataset)
    sampler = TransitionSampler(buffer, seed=7)
    for _ in range(len(dataset) // B + 2):
        assert all(map(th.equal, buffer.sample(B), sampler.draw(B)))
    assert th.equal(buffer.generator.get_state(), sampler.generator.get_state())


@pytest.mark.parametrize("replacement", [False, True])
@pytest.mark.parametrize("done", ["none", "middle", "epoch"])
def test_a_resumed_sampler_goes_on_with_the_same_rows(dataset: OfflineDataset, done: str, replacement: bool) -> None:
    per_epoch = -(-len(dataset) // B)
    live = TransitionSampler(buffer_of(dataset), replacement=replacement, seed=1)
    for _ in range({"none": 0, "middle": per_epoch + 1, "epoch": per_epoch}[done]):
        live.draw(B)
    resumed = TransitionSampler(buffer_of(dataset), replacement=replacement, seed=2)
    resumed.draw(B)
    resumed.load_state_dict(live.state_dict())
    assert all(
        th.equal(th.as_tensor(live.state_dict()[k]), th.as_tensor(v))
        for k, v in resumed.state_dict().items()
        if k not in ("device", "cursor")
    )
    for _ in range(2 * per_epoch):
        assert th.equal(live.next_indices(B), resumed.next_indices(B))


@pytest.mark.parametrize("online_rows", [True, False])
def test_a_resumed_buffer_has_its_online_rows_or_as_was_asked_for_none(dataset: OfflineDataset, online_rows: bool) -> None:
    live = buffer_of(dataset)
    live.sample(B)
    for number in range(7):  # the ring holds 5
        add_row(live, number)
    live.sample(B)
    resumed = buffer_of(dataset, seed=0)
    resumed.load_state_dict(live.state_dict(online_rows=online_rows))
    assert (resumed.n_online, resumed.pos, resumed.full) == ((5, 2, True) if online_rows else (0, 0, False))
    if online_rows:
        everything = th.arange(live.size())
        assert all(map(th.equal, live.rows_at(everything), resumed.rows_at(everything)))
        assert th.equal(live._next_indices(50), resumed._next_indices(50))
        with pytest.raises(UserError, match="5 online rows were saved, more than buffer_size=4"):
            small = OfflineBuffer(4, OBSERVATION_SPACE, ACTION_SPACE, "cpu", seed=0)
            small.load_state_dict(live.state_dict())
    assert th.equal(live.generator.get_state(), resumed.generator.get_state())


def test_a_state_of_another_kind_of_device_begins_an_epoch(dataset: OfflineDataset) -> None:
    live, resumed = (TransitionSampler(buffer_of(dataset), seed=seed) for seed in (1, 2))
    live.draw(B)
    resumed.load_state_dict(live.state_dict() | {"device": "cuda"})
    assert th.equal(resumed.next_indices(B), next(plain_epochs(len(dataset), 2)))


def test_without_rows_there_is_nothing_to_draw() -> None:
    with pytest.raises(UserError, match="The buffer is empty"):
        buffer_of(None).sample(B)
