"""What every algorithm must do on CUDA as on a CPU, each a function that says whether it does."""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch as th
from torch import Tensor

from sb3_genoffline import ALGOS
from sb3_genoffline.common import stepping
from sb3_genoffline.common.offline_algorithm import AnyAlgorithm
from sb3_genoffline.common.saving import AgentFile
from sb3_genoffline.data import OfflineDataset, load_dataset
from sb3_genoffline.registry import build_agent

from ..speed.agents import SHAPES, make_agent, synthetic_data
from .tape import Reads

SHAPE = "hopper"
BATCH = 32
TOLERANCE = 1e-2
"""Distance of two agents that do the same, as a share of the way that they have come; another draw of noise gives about 1."""
_LATER = ("_start", "warmup_steps", "bc_steps", "flow_joint_steps")


def until_recorded() -> int:
    """Updates until there is a graph of each phase: of the rarest, every fifth, too."""
    return 6 * (stepping.WARM_UP + 1)


def rows_of(n: int) -> OfflineDataset:
    """A dataset of random rows."""
    data: OfflineDataset = load_dataset(synthetic_data(*SHAPES[SHAPE], n))
    return data


def small(algo: str, device: str, graph: bool, later: int) -> AnyAlgorithm:
    """
    A small agent.

    :param algo: name in ``ALGOS``
    :param device: of it
    :param graph: whether it may use graphs
    :param later: update at which its later phases begin
    """
    names = ALGOS[algo].argument_table().arguments
    changes = {name: later for name in names if name.endswith(_LATER)}
    agent: AnyAlgorithm = make_agent(algo, SHAPE, "tiny", device, **(changes | {"batch_size": BATCH}))
    agent.graph = graph
    return agent


def begin(agent: AnyAlgorithm, data: OfflineDataset, n_steps: int) -> list[Any]:
    """Make the fits of an agent, of so many steps each; the list of them stays as they end."""
    agent.set_dataset(data)
    if not agent.uses_fitted_model():
        return []
    agent.begin_fits()
    fits = list(agent.fits.left or ())
    for fit in fits:
        fit.n_steps = n_steps
    return fits


@contextmanager
def noted_warnings() -> Iterator[list[str]]:
    """Warnings, as text, instead of on the screen."""
    texts: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield texts
        texts += sorted({str(one.message)[:300] for one in caught})


def state_of(agent: AnyAlgorithm) -> dict[str, Tensor]:
    """A copy of all numbers that are learned, on the CPU, in float64."""
    found = agent.policy.state_dict() | {name: variable.tensor for name, variable in agent.state.variables.items()}
    return {name: tensor.detach().double().cpu() for name, tensor in found.items() if tensor.is_floating_point()}


def distance(first: dict[str, Tensor], second: dict[str, Tensor], start: dict[str, Tensor]) -> float:
    """‖first − second‖ / ‖first − start‖, all numbers together; what is not finite in both counts as equal."""

    def norm(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
        return float(sum(((a[name] - b[name]).nan_to_num(0.0, 0.0, 0.0) ** 2).sum() for name in a)) ** 0.5

    return norm(first, second) / max(norm(first, start), 1e-30)


def same_bits(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    """Whether all numbers are the same."""
    return all(th.equal(first[name].nan_to_num(), second[name].nan_to_num()) for name in first)


def graphs_equal_python(algo: str, device: str, n_updates: int) -> dict[str, Any]:
    """
    Train three agents alike, two by Python and one by graphs, fits included, and compare where they have come.

    :param algo: name in ``ALGOS``
    :param device: of them
    :param n_updates: updates, and steps of each fit
    """
    data = rows_of(BATCH * 7 + BATCH // 2)  # the last batch of an epoch is shorter: a graph of its own
    ends, graphs, failed = [], 0, []
    with noted_warnings() as said:
        for graph in (False, False, True):
            agent = small(algo, device, graph, n_updates // 4)
            fits = begin(agent, data, n_updates)
            start = state_of(agent)
            agent.learn_offline(data, n_updates, log_interval=None)
            ends.append(state_of(agent))
            steppers = [agent.stepper, *(fit.stepper for fit in fits)]
            graphs = sum(stepper.n_graphs for stepper in steppers)
            failed = [stepper.failure for stepper in steppers if stepper.failure]
            without = [type(stepper.owner).__name__ for stepper in steppers if stepper.n_graphs == 0]
    noise, found = distance(ends[0], ends[1], start), distance(ends[0], ends[2], start)
    allowed = max(TOLERANCE, 3 * noise)
    return {
        "passed": found <= allowed and not failed and not without,
        "distance": found,
        "distance_of_python_to_itself": noise,
        "same_bits": same_bits(ends[0], ends[2]),
        "updates": n_updates,
        "graphs": graphs,
        "fits": len(fits),
        "not_recorded": failed or without,
        "warnings": said,
    }


def reloaded(agent: AnyAlgorithm, device: str) -> AnyAlgorithm:
    """An agent that went through a file."""
    file = io.BytesIO()
    agent.save(file)
    file.seek(0)
    return build_agent(AgentFile.read(file), None, device)


def resumes(algo: str, device: str, n_updates: int) -> dict[str, Any]:
    """
    Interrupt a fit and a training, go on on a CPU, and again on the device; and on the device alone, compared with a training
    that was not interrupted.

    :param algo: name in ``ALGOS``
    :param device: of them
    :param n_updates: updates between two files
    """
    data = rows_of(BATCH * 7)
    with noted_warnings() as said:
        whole = small(algo, device, True, 0)
        begin(whole, data, n_updates)
        start = state_of(whole)
        whole.learn_offline(data, n_updates, log_interval=None)
        stopped = reloaded(whole, device).learn_offline(data, n_updates, log_interval=None, reset_num_timesteps=False)
        whole.learn_offline(data, n_updates, log_interval=None, reset_num_timesteps=False)
        apart = distance(state_of(whole), state_of(stopped), start)

        traveller = small(algo, device, True, 0)
        fits = begin(traveller, data, 6)
        if fits:
            fits[0].begin()
            for _ in range(3):
                fits[0].update()
                fits[0].step += 1
        kept, visited = [], []
        for place in ("cpu", device, "cpu", device):
            before = state_of(traveller)
            traveller = reloaded(traveller, place)
            kept.append(same_bits(before, state_of(traveller)))
            traveller.learn_offline(data, n_updates, log_interval=None, reset_num_timesteps=False)
            visited.append(traveller.device.type)
    finite = all(bool(th.isfinite(value).all()) for name, value in state_of(traveller).items() if "nll" not in name)
    return {
        "passed": all(kept) and finite and apart <= TOLERANCE and traveller._n_updates == 4 * n_updates,
        "distance_to_uninterrupted": apart,
        "weights_kept": kept,
        "devices": visited,
        "finite": finite,
        "updates": traveller._n_updates,
        "warnings": said,
    }


@contextmanager
def no_reads(device: th.device) -> Iterator[Reads]:
    """Within it, waiting for the device is an error on CUDA; on a CPU what would wait is counted."""
    reads = Reads()
    if device.type != "cuda":
        with reads:
            yield reads
        return
    th.cuda.synchronize(device)
    before = th.cuda.get_sync_debug_mode()
    th.cuda.set_sync_debug_mode("error")
    try:
        yield reads
    finally:
        th.cuda.set_sync_debug_mode(before)


def reads_nothing(algo: str, device: str, n_updates: int) -> dict[str, Any]:
    """
    Train on after all graphs are recorded: nothing may wait for the device.

    :param algo: name in ``ALGOS``
    :param device: of it
    :param n_updates: updates that are watched
    """
    counts = {}
    data = rows_of(BATCH * 7)
    with noted_warnings() as said:
        for graph in (False, True):
            agent = small(algo, device, graph, 0)
            begin(agent, data, 2)
            agent.learn_offline(data, until_recorded(), log_interval=None)
            with no_reads(agent.device) as reads:
                agent.train(n_updates, BATCH)
            counts["graph" if graph else "python"] = reads.count
    return {"passed": not any(counts.values()), "reads": counts, "updates": n_updates, "warnings": said}
