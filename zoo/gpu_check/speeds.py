"""How fast updates are: as first written, by Python, as graphs; and several trainings on one device."""

import contextlib
import time
from collections.abc import Callable
from typing import Any

import torch as th

from sb3_genoffline import ALGOS
from sb3_genoffline.common.fitting import Fit
from sb3_genoffline.errors import UserError

from ..speed.agents import build, make_fits, plain_form
from .checks import SHAPE, until_recorded

FORMS = {"eager": False, "graph": True}
"""How updates are run, and whether that is as graphs."""


def synchronize(device: th.device) -> None:
    """Wait until all that was asked of the device is done."""
    if device.type == "cuda":
        th.cuda.synchronize(device)


def per_second(run: Callable[[], Any], seconds: float, device: th.device, warm_up: int) -> float:
    """
    :param run: is called again and again
    :param seconds: how long, about
    :param device: whose work it is
    :param warm_up: calls before the clock starts
    :return: calls per second
    """
    for _ in range(warm_up):
        run()
    synchronize(device)
    done, at_once, begun = 0, 1, time.perf_counter()
    while True:
        for _ in range(at_once):
            run()
        synchronize(device)
        done, taken = done + at_once, time.perf_counter() - begun
        if taken >= seconds:
            return done / taken
        at_once = max(1, min(500, int(done / taken * seconds / 8)))  # waiting costs time, too


def updates_per_second(
    algo: str, setting: str, device: str, batch_size: int, seconds: float, n_rows: int | None = None
) -> dict[str, Any]:
    """
    :param algo: name in ``ALGOS``
    :param setting: see :func:`~zoo.speed.agents.setting_arguments`
    :param device: of the agent
    :param batch_size: B
    :param seconds: for each form
    :param n_rows: of the data; None: as many as ``python -m zoo speed`` takes
    :return: updates/s of each form that there is, steps/s of the fits, and memory
    """
    model, form = build(algo, SHAPE, setting, device, n_rows), plain_form(ALGOS[algo])
    found: dict[str, Any] = {"algo": algo, "batch_size": batch_size, "setting": setting}

    def rate(name: str, run: Callable[[], Any], warm_up: int) -> None:
        try:
            found[name] = per_second(run, seconds, model.device, warm_up)
        except Exception as error:  # the other forms are measured all the same
            found[name], found["error"] = None, f"{name}: {type(error).__name__}: {error}"

    for name, graph in FORMS.items():
        model.graph = graph
        rate(name, lambda: model.train(1, batch_size), until_recorded() if graph else 3)
    found |= {"compiled": None, "graphs": model.stepper.n_graphs, "not_recorded": model.stepper.failure}  # none is compiled
    for fit in make_fits(algo, SHAPE, setting, device, n_rows):
        for name, graph in FORMS.items():
            fit.graph = graph
            rate(f"{fit.name} {name}", lambda fit=fit: step(fit), until_recorded() if graph else 3)  # type: ignore[misc]
    if form is not None:
        with contextlib.suppress(UserError):  # there is none of this setting
            plain = form(build(algo, SHAPE, setting, device, n_rows))
            rate("plain", lambda: plain.update(batch := model.batches.draw(batch_size), model.draw_noise(len(batch[0]))), 3)
    if model.device.type == "cuda":
        found["peak_mib"] = round(th.cuda.max_memory_allocated(model.device) / 2**20)
    return found


def step(fit: Fit) -> None:
    """One step of a fit, counted."""
    fit.update()
    fit.step += 1


def one_of_many(algo: str, setting: str, device: str, begin_at: float, seconds: float, n_rows: int | None) -> dict[str, Any]:
    """
    A training beside others, in a process of its own.

    :param algo: name in ``ALGOS``
    :param setting: see :func:`~zoo.speed.agents.setting_arguments`
    :param device: of the agent
    :param begin_at: ``time.time()`` from which on updates are counted
    :param seconds: how long they are counted
    :param n_rows: of the data
    """
    model = build(algo, SHAPE, setting, device, n_rows)
    model.train(until_recorded(), model.batch_size)
    synchronize(model.device)
    late = time.time() > begin_at > 0
    while time.time() < begin_at:
        model.train(1, model.batch_size)  # the others warm up
        synchronize(model.device)
    rate = per_second(lambda: model.train(1, model.batch_size), seconds, model.device, 0)
    return {"updates_per_second": rate, "late": late}


def on_streams(algo: str, setting: str, device: str, n_agents: int, seconds: float, n_rows: int | None) -> dict[str, Any]:
    """
    Trainings in one process that take turns on the host, each on a stream of its own.

    :param algo: name in ``ALGOS``
    :param setting: see :func:`~zoo.speed.agents.setting_arguments`
    :param device: of the agents
    :param n_agents: how many
    :param seconds: how long
    :param n_rows: of the data
    """
    on_cuda = th.device(device).type == "cuda"
    pairs = []
    for _ in range(n_agents):
        stream: Any = th.cuda.stream(th.cuda.Stream(device)) if on_cuda else contextlib.nullcontext()  # type: ignore[no-untyped-call]
        with stream:
            model = build(algo, SHAPE, setting, device, n_rows)
            model.train(until_recorded(), model.batch_size)
        pairs.append((model, stream))

    def a_round() -> None:
        for model, stream in pairs:
            with stream:
                model.train(1, model.batch_size)

    rounds = per_second(a_round, seconds, pairs[0][0].device, 3)
    return {"updates_per_second": rounds * n_agents}
