"""One dataset collected by several processes, in an order that does not depend on which of them is faster."""

from __future__ import annotations

import multiprocessing
import traceback
from collections.abc import Iterator
from itertools import pairwise
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

import numpy as np

from ..behavior.episode import Episode
from ..recipes import load_recipe
from ..runs.stopping import shielding_children

BATCH_STEPS = 8192
"""A process hands on its episodes when they hold so many steps, so all are about as long at work on what is taken in turn."""


def episodes_of_jobs(dataset_id: str, steps: int, seed: int, n_envs: int, jobs: int) -> Iterator[Episode]:
    """
    Collect a recipe's episodes: each process a part of the steps, in a part of the copies, with a seed of its own. They import
    the script that calls this, which therefore needs ``if __name__ == "__main__":``.

    :param dataset_id: One of :func:`zoo.recipes.collectible`
    :param steps: Steps in all
    :param seed: Seed of the whole; the same arguments give the same episodes in the same order
    :param n_envs: Copies of the environment in all, at least one for each process
    :param jobs: Number of processes
    :raises RuntimeError: If a process fails or is killed; the others are ended
    """
    context = multiprocessing.get_context("spawn")
    bounds = [n_envs * job // jobs for job in range(jobs + 1)]
    workers: list[tuple[BaseProcess, Connection]] = []
    try:
        for job, (first, last) in enumerate(pairwise(bounds)):
            share = steps * last // n_envs - steps * first // n_envs
            if share == 0:
                continue
            receiver, sender = context.Pipe(duplex=False)
            own_seed = int(np.random.SeedSequence([seed, jobs, job]).generate_state(1, np.uint64)[0])
            arguments = (sender, dataset_id, share, own_seed, last - first)
            worker = context.Process(target=_work, args=arguments, daemon=True)
            with shielding_children():  # a signal that all of them get ends the one that writes, and that one the others
                worker.start()
            workers.append((worker, receiver))
            sender.close()  # theirs is the only one now: when either side dies, the other one notices
        active = list(workers)
        while active:
            for running in list(active):
                batch = _receive(*running)
                if not batch:
                    active.remove(running)
                yield from batch
    finally:
        for process, receiver in workers:
            receiver.close()
            process.kill()
            process.join()


def _receive(process: BaseProcess, receiver: Connection) -> list[Episode]:
    try:
        batch = receiver.recv()
    except EOFError:
        process.join()
        raise RuntimeError(f"a process that collects ended with exit code {process.exitcode}") from None
    if isinstance(batch, str):
        raise RuntimeError(f"a process that collects failed:\n{batch}")
    return batch


def _work(sender: Connection, dataset_id: str, steps: int, seed: int, n_envs: int) -> None:
    """Send lists of episodes, an empty one at the end, a string for a failure."""
    try:
        batch: list[Episode] = []
        held = 0
        for episode in load_recipe(dataset_id, steps).episodes(seed, n_envs):
            batch.append(episode)
            held += len(episode.rewards)
            if held >= BATCH_STEPS:
                sender.send(batch)
                batch, held = [], 0
        if batch:
            sender.send(batch)
        sender.send([])
    except BrokenPipeError:  # nobody wants them any more
        return
    except Exception:
        sender.send(traceback.format_exc())
