"""The same jobs on a Ray cluster, whose machines share the benchmark's folder and have this package and the data."""

import time
from pathlib import Path

from sb3_genoffline.errors import UserError

from ..runs.extras import installing
from .job import EXIT
from .records import FAILED, INTERRUPTED
from .runner import LocalProcess


def connect(address: str) -> int:
    """
    Join a cluster.

    :param address: of its head, such as ``ray://host:10001`` or ``auto``; ``local`` starts one on this machine
    :return: its number of processors
    :raises UserError: if Ray is not installed, there is no cluster, or none starts here
    """
    try:
        import ray
    except ImportError as error:
        raise UserError(f"--ray needs Ray: {installing('ray')}") from error
    try:
        ray.init(address=address, log_to_driver=False, ignore_reinit_error=True, include_dashboard=False)
    except ConnectionError as error:
        raise UserError(f"There is no Ray cluster at {address!r}: {error}") from error
    except Exception as error:  # Ray raises it bare where its own processes don't come up
        raise UserError(
            f"Ray did not start at {address!r}: {str(error).splitlines()[0]} On a busy machine give it more time, "
            "RAY_raylet_start_wait_time_s=300."
        ) from error
    return int(ray.cluster_resources().get("CPU", 1))


class RayProcess:
    """
    A job on some machine of the cluster.

    :param record: of the job, in a folder that all machines see
    :param threads: that it may use, and that Ray reserves for it
    :param nice: how much it yields to other processes
    :param gpus: that Ray reserves for it; 0.25 lets four jobs share one
    :param options: of :class:`~zoo.benchmark.runner.LocalProcess`
    """

    def __init__(self, record: Path, threads: int, nice: int, gpus: float = 0.0, **options: str) -> None:
        import ray

        self._stop_file = _stop_file(record)
        self._stop_file.unlink(missing_ok=True)
        task = ray.remote(num_cpus=threads, num_gpus=gpus, max_retries=0)(_work)
        self._task = task.remote(str(record.resolve()), threads, nice, **options)

    def poll(self) -> int | None:
        """Exit code, None while it works or waits for a machine."""
        import ray

        if not ray.wait([self._task], timeout=0)[0]:
            return None
        self._stop_file.unlink(missing_ok=True)
        try:
            return ray.get(self._task)
        except ray.exceptions.RayError:  # its machine is lost, or it was killed
            return EXIT[FAILED]

    def stop(self) -> None:
        """Ask it to save and end, wherever it is."""
        self._stop_file.touch()

    def kill(self) -> None:
        """End it."""
        import ray

        ray.cancel(self._task, force=True)


def _stop_file(record: Path) -> Path:
    """A job ends when this file is there: what all machines of the cluster see, and what does not hang on Ray's signals."""
    return record.with_suffix(".stop")


def _work(record: str, threads: int, nice: int, **options: str) -> int:
    """The body of a Ray task: the job as a process of its own, whose threads are pinned and whose crash harms nothing."""
    path = Path(record)
    if _stop_file(path).exists():
        return EXIT[INTERRUPTED]
    process, asked = LocalProcess(path, threads, nice, **options), False
    while (code := process.poll()) is None:
        if not asked and _stop_file(path).exists():
            process.stop()
            asked = True
        time.sleep(0.2)
    return code
