"""`python -m zoo benchmark`: jobs that end, fail, are killed and go on."""

import io
import json
import multiprocessing
import os
import shlex
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from worlds import of_each_kind

import zoo.benchmark.job as job_module
import zoo.benchmark.runner as runner_module
from sb3_genoffline.common.offline_algorithm import OfflineAlgorithm
from sb3_genoffline.common.stepping import Stepper
from sb3_genoffline.registry import ALGOS, load_agent
from zoo.__main__ import main
from zoo.benchmark.job import EXIT, run_job
from zoo.benchmark.overview import Overview, span
from zoo.benchmark.plan import Job, read_plan
from zoo.benchmark.records import DONE, FAILED, INTERRUPTED, WAITING, open_record, read_record, record_path
from zoo.benchmark.runner import Benchmark, Event
from zoo.benchmark.stopwatch import Stopwatch
from zoo.runs import stopping
from zoo.runs.folders import Run
from zoo.runs.writing import write_json

TINY: dict[str, Any] = {"batch_size": 16, "policy_kwargs": {"net_arch": [8, 8]}}
SETTINGS = {"n_timesteps": 8, "evaluations": 4, "eval_episodes": 1, "final_episodes": 2, "hyperparameters": TINY}


def write_plan(
    folder: Path, dataset: str, seeds: list[int], algorithms: dict[str, Any] | None = None, **settings: Any
) -> Path:
    content = {
        "defaults": SETTINGS | settings,
        "algorithms": algorithms or {"td3_bc": None},
        "stages": [{"datasets": [dataset], "seeds": seeds}],
    }
    folder.mkdir(exist_ok=True)
    path = folder / "plan.yml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


class Inline:
    """A job done in this process, at once."""

    def __init__(self, record: Path) -> None:
        self.code = EXIT[run_job(record)]

    def poll(self) -> int | None:
        return self.code

    def stop(self) -> None:
        pass

    kill = stop


def run_all(plan: Path, folder: Path, start: Any = Inline, jobs: int = 1, **options: Any) -> list[Event]:
    benchmark = Benchmark(read_plan(plan), folder, **options)
    return [event for event in benchmark.run(start, jobs) if event is not None]


def ended(events: list[Event]) -> list[tuple[str, int, str]]:
    return [(event.job.name, event.job.seed, event.state) for event in events if event.state != "running"]


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner_module, "POLL_SECONDS", 0.01)


def test_a_record_holds_all_a_report_needs(dataset_id: str, tmp_path: Path) -> None:
    plan = write_plan(tmp_path, dataset_id, [3])
    events = run_all(plan, tmp_path / "logs")
    assert ended(events) == [("td3_bc", 3, DONE)]
    record = read_record(next((tmp_path / "logs" / "jobs").glob("*.json")))
    assert record["config"]["hyperparameters"]["n_timesteps"] == record["updates"] == 8 and record["host"]
    assert record["curve"]["timesteps"] == [2, 4, 6, 8] and len(record["curve"]["seconds"]) == 4
    for checkpoint in ("last", "best"):
        result = record[checkpoint]
        assert result["checkpoint"] == checkpoint and len(result["returns"]) == 2 and result["eval_seed"] == 20_000
        assert result["normalized_score"] == pytest.approx(100 * (np.mean(result["returns"]) + 20) / 3254, abs=1e-3)
    final = record["final"]
    assert final["checkpoints"] == [2, 4, 6, 8] and final["mean"] == pytest.approx(np.mean(final["scores"]))
    assert final["scores"][-1] == pytest.approx(record["last"]["normalized_score"], abs=1e-3)
    seconds = record["seconds"]
    assert sum(seconds[part] for part in ("fit", "training", "evaluation")) == pytest.approx(seconds["total"], abs=0.03)
    assert record["data"]["id"] == dataset_id and "torch" in record["versions"]
    run = Run(tmp_path / "logs" / record["run"], "tiny-hopper-random-v0")
    config = run.config()
    assert config["seed"] == 3 and config["hyperparameters"] == record["config"]["hyperparameters"]
    assert load_agent(run.model_path, device="cpu").num_timesteps == 8
    assert not list(run.folder.glob("rl_model_*"))  # those that an interrupted run would have gone on from


def test_a_job_is_a_process_of_its_own_that_finds_this_package(dataset_id: str, tmp_path: Path, capsys: Any) -> None:
    unknown = {"td3_bc": {"hyperparameters": {"reward_transform": "nosuch"}}}  # a training would take seconds more
    plan = write_plan(tmp_path, dataset_id, [0], unknown)
    with pytest.raises(SystemExit, match="failed"):
        main(["benchmark", str(plan), "-f", str(tmp_path / "logs"), "--jobs", "1"])
    record = read_record(next((tmp_path / "logs" / "jobs").glob("*.json")))
    assert record["state"] == FAILED
    assert record["error"].splitlines()[-1].startswith("sb3_genoffline.errors.UserError: reward_transform='nosuch'")


def test_a_machine_of_a_cluster_is_told_which_module_does_the_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import zoo.benchmark.cluster as cluster

    class Ended:
        def __init__(self, record: Path, threads: int, nice: int, **options: str) -> None:
            assert options == {"module": "zoo.tune.job"}

        def poll(self) -> int:
            return 7

    monkeypatch.setattr(cluster, "LocalProcess", Ended)
    assert cluster._work(str(tmp_path / "record.json"), 1, 10, module="zoo.tune.job") == 7


@of_each_kind
def test_every_kind_of_algorithm_can_be_a_job(algo: str, dataset_id: str, tmp_path: Path) -> None:
    settings = {"profile": "tiny", "n_timesteps": 2, "evaluations": 1, "final_episodes": 1, "hyperparameters": {}}
    (event,) = run_all(write_plan(tmp_path, dataset_id, [0], {algo: None}, **settings), tmp_path / "logs")[1:]
    assert event.state == DONE, event.record["error"]
    assert event.record["updates"] == 2 and event.record["last"]["normalized_score"] is not None
    fits = next(iter(ALGOS[algo].policy_aliases.values())).fitted_model is not None
    assert (event.record["seconds"]["fit"] > 0) == fits


def test_a_records_command_does_the_same_training(dataset_id: str, tmp_path: Path) -> None:
    events = run_all(write_plan(tmp_path, dataset_id, [1]), tmp_path / "logs")
    record = events[-1].record
    words = shlex.split(record["command"])
    assert words[:4] == ["python", "-m", "zoo", "train"]
    main([*words[3:], "-f", str(tmp_path / "again"), "--no-progress", "--verbose", "0"])
    name = "tiny-hopper-random-v0"
    ours, theirs = (
        load_agent(folder / f"{name}.zip", device="cpu").policy.state_dict()
        for folder in (tmp_path / "logs" / record["run"], tmp_path / "again" / "td3_bc" / f"{name}_1")
    )
    assert all((ours[key] == theirs[key]).all() for key in ours)


def test_what_is_done_is_not_done_again_but_what_changed_is(dataset_id: str, tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    run_all(write_plan(tmp_path, dataset_id, [0]), folder)
    events = run_all(write_plan(tmp_path, dataset_id, [0, 1]), folder)
    assert ended(events) == [("td3_bc", 1, DONE)]
    events = run_all(write_plan(tmp_path, dataset_id, [0], n_timesteps=4), folder)
    assert ended(events) == [("td3_bc", 0, DONE)] and events[-1].record["updates"] == 4
    assert len(list((folder / "td3_bc").iterdir())) == len(list((folder / "jobs").glob("*.json"))) == 3


def test_a_run_on_other_data_of_the_same_name_is_done_again(dataset_id: str, tmp_path: Path) -> None:
    plan, folder = write_plan(tmp_path, dataset_id, [0]), tmp_path / "logs"
    run_all(plan, folder)
    path = next((folder / "jobs").glob("*.json"))
    record = read_record(path)
    write_json(path, record | {"data": record["data"] | {"fingerprint": "another"}})
    config = Run(folder / record["run"], "tiny-hopper-random-v0").settings / "config.yml"
    config.write_text(config.read_text().replace(record["data"]["fingerprint"], "another"))
    events = run_all(plan, folder)
    assert ended(events) == [("td3_bc", 0, DONE)]
    assert events[-1].record["run"].endswith("_2") and events[-1].record["data"] == record["data"]


def test_a_job_that_fails_is_reported_with_its_last_lines_and_stops_no_other(
    dataset_id: str, tmp_path: Path, capsys: Any
) -> None:
    algorithms = {"broken": {"algo": "td3_bc", "hyperparameters": {"reward_transform": "nosuch"}}, "td3_bc": None}
    plan, folder = write_plan(tmp_path, dataset_id, [0], algorithms), tmp_path / "logs"
    events = run_all(plan, folder)
    assert ended(events) == [("broken", 0, FAILED), ("td3_bc", 0, DONE)]
    error = events[1].record["error"]
    assert "reward_transform" in error.splitlines()[-1] and str(Path.home()) not in error
    assert run_all(plan, folder) == []
    assert ended(run_all(plan, folder, retry_failed=True)) == [("broken", 0, FAILED)]
    capsys.readouterr()
    with pytest.raises(SystemExit, match=r"(?s)broken-tiny-hopper-random-v0-0-\w+ failed:.*reward_transform"):
        main(["benchmark", str(plan), "-f", str(folder)])
    assert "1 of 2 runs done, 1 failed" in capsys.readouterr().out


def test_a_job_that_dies_without_a_word_has_failed(dataset_id: str, tmp_path: Path) -> None:
    class Killed(Inline):
        def __init__(self, record: Path) -> None:
            record.with_suffix(".log").write_text("training\nout of memory\n")
            self.code = -9

    events = run_all(write_plan(tmp_path, dataset_id, [0]), tmp_path / "logs", Killed)
    assert ended(events) == [("td3_bc", 0, FAILED)]
    assert events[-1].record["error"] == "training\nout of memory\nended by signal 9"


def test_data_that_are_not_there_are_named_once_and_tried_again(tmp_path: Path, dataset_id: str, capsys: Any) -> None:
    plan, folder = write_plan(tmp_path, "tiny/hopper/absent-v0", [0, 1]), tmp_path / "logs"
    with pytest.raises(SystemExit, match=r"skipped td3_bc on tiny/hopper/absent-v0, seed 0, .*seed 1:\n.*not on this machine"):
        main(["benchmark", str(plan), "-f", str(folder)])
    assert {read_record(path)["state"] for path in (folder / "jobs").glob("*.json")} == {WAITING}


def test_never_more_jobs_work_at_a_time_than_are_wanted(dataset_id: str, tmp_path: Path) -> None:
    working: list[Path] = []
    most = 0

    class Slow(Inline):
        def __init__(self, record: Path) -> None:
            nonlocal most
            working.append(record)
            most = max(most, len(working))
            self.record, self.left = record, 3

        def poll(self) -> int | None:
            self.left -= 1
            if self.left > 0:
                return None
            if self.record in working:
                working.remove(self.record)
                write_json(self.record, read_record(self.record) | {"state": FAILED, "error": "slow"})
            return 1

    events = run_all(write_plan(tmp_path, dataset_id, [0, 1, 2, 3, 4]), tmp_path / "logs", Slow, jobs=2)
    assert most == 2 and len(ended(events)) == 5


def test_a_benchmark_that_is_closed_asks_its_jobs_to_end_and_lets_go_of_its_folder(dataset_id: str, tmp_path: Path) -> None:
    asked = []

    class Endless(Inline):
        def __init__(self, record: Path) -> None:
            self.code = None  # type: ignore[assignment]

        def stop(self) -> None:
            asked.append(self)
            self.code = EXIT[INTERRUPTED]

    plan, folder = write_plan(tmp_path, dataset_id, [0, 1]), tmp_path / "logs"
    events = Benchmark(read_plan(plan), folder).run(Endless, 2)
    for _ in range(3):
        next(events)
    with pytest.raises(ValueError, match="Another process is running jobs in"):
        next(Benchmark(read_plan(plan), folder).run(Endless, 2))
    events.close()
    assert len(asked) == 2
    assert ended(run_all(plan, folder)) == [("td3_bc", 0, DONE), ("td3_bc", 1, DONE)]


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_benchmark_in_order_and_a_second_one_at_once(
    number: int, times: int, dataset_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(stopping, "SAME_REQUEST_SECONDS", 0.0)
    happened: list[str] = []

    class Endless(Inline):
        def __init__(self, record: Path, **options: Any) -> None:
            self.code = None  # type: ignore[assignment]

        def poll(self) -> int | None:
            if happened.count("signal") < times and happened in ([], ["signal", "stop"]):
                happened.append("signal")
                signal.raise_signal(number)
            return self.code

        def stop(self) -> None:
            happened.append("stop")
            self.code = 143 if times == 1 else None  # type: ignore[assignment]

        def kill(self) -> None:
            happened.append("kill")

    monkeypatch.setattr(runner_module, "LocalProcess", Endless)
    plan, folder = write_plan(tmp_path, dataset_id, [0]), tmp_path / "logs"
    with pytest.raises(SystemExit) as ended:
        main(["benchmark", str(plan), "-f", str(folder)])
    assert ended.value.code == 128 + number and happened == ["signal", "stop", "signal", "kill"][: 2 * times]
    assert "0 of 1 runs done, 1 waiting; to resume, run the same command: " in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_job_saved_however_often_it_comes(
    number: int, dataset_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stopping, "SAME_REQUEST_SECONDS", 0.0)
    plan, folder = write_plan(tmp_path, dataset_id, [0]), tmp_path / "logs"
    (job,) = read_plan(plan).jobs
    open_record(folder, job)
    step = Stepper.__call__

    def signalled(stepper: Any, *args: Any) -> Any:
        if stepper.owner._n_updates == 4:
            signal.raise_signal(number)  # by who signals the whole group
            signal.raise_signal(signal.SIGTERM)  # by the benchmark
        return step(stepper, *args)

    monkeypatch.setattr(job_module, "_end_with", lambda parent: None)
    with monkeypatch.context() as patch:
        patch.setattr(Stepper, "__call__", signalled)
        code = job_module.main([str(record_path(folder, job))])
    assert code == 128 + number and read_record(record_path(folder, job))["state"] == INTERRUPTED
    (agent,) = folder.glob("td3_bc/*/tiny-hopper-random-v0.zip")
    assert load_agent(agent, device="cpu").num_timesteps == 5
    assert ended(run_all(plan, folder)) == [("td3_bc", 0, DONE)]


def test_a_job_that_was_asked_to_end_before_it_began_is_interrupted(dataset_id: str, tmp_path: Path, capsys: Any) -> None:
    class Early(Inline):
        def __init__(self, record: Path, **options: Any) -> None:
            self.code = 143

    plan, folder = write_plan(tmp_path, dataset_id, [0]), tmp_path / "logs"
    assert ended(run_all(plan, folder, Early)) == [("td3_bc", 0, INTERRUPTED)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner_module, "LocalProcess", Early)
        with pytest.raises(SystemExit, match=r"1 run was interrupted.*the same command resumes"):
            main(["benchmark", str(plan), "-f", str(folder)])


def test_an_interrupt_in_the_final_evaluation_costs_no_training(
    dataset_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, folder = write_plan(tmp_path, dataset_id, [0]), tmp_path / "logs"

    def interrupted(*args: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(job_module, "_results", interrupted)
        assert ended(run_all(plan, folder)) == [("td3_bc", 0, INTERRUPTED)]
    before = next((folder / "td3_bc").glob("*/tiny-hopper-random-v0.zip")).stat()
    with monkeypatch.context() as patch:
        patch.setattr(job_module, "train", interrupted)
        events = run_all(plan, folder)
    assert ended(events) == [("td3_bc", 0, DONE)]
    assert next((folder / "td3_bc").glob("*/tiny-hopper-random-v0.zip")).stat().st_mtime == before.st_mtime
    assert events[-1].record["seconds"]["training"] > 0


@pytest.mark.parametrize(
    ("protocol", "episodes"),
    [
        ({"final_episodes": 3}, 3),
        ({"final_episodes": 3, "final_error": 2.0}, 20),
        ({"final_episodes": 3, "final_error": 1.0}, 80),
        ({"final_episodes": 30, "final_error": 2.0}, 30),
        ({"final_episodes": None, "final_error": 2.0}, 20),
    ],
)
def test_a_final_score_takes_at_least_the_plans_episodes_and_as_many_as_their_spread_asks(
    protocol: dict[str, Any], episodes: int
) -> None:
    protocol = protocol | {"episodes": 2}
    spread = {"unit": "normalized_score", "std": [0.0, *[20.0 / 2**0.5] * 5]}
    assert job_module._final_episodes(protocol, spread) == episodes
    assert job_module._final_episodes(protocol, None) == protocol["final_episodes"]  # it was not evaluated on the way


class Forked(Inline):
    """A job in a process of its own that has everything imported already."""

    def __init__(self, record: Path) -> None:
        self.process = multiprocessing.get_context("fork").Process(target=lambda: sys.exit(EXIT[run_job(record)]))
        self.process.start()

    def poll(self) -> int | None:
        return self.process.exitcode


@pytest.fixture
def killed(dataset_id: str, tmp_path: Path, in_a_fork: Any) -> tuple[Path, Path]:
    """A plan and the folder of a benchmark that was killed when one job was done and another one had checkpoints."""
    algorithms = {"td3_bc": None, "long": {"algo": "td3_bc", "n_timesteps": 500, "evaluations": 2}}
    plan, folder = write_plan(tmp_path, dataset_id, [0], algorithms, eval_episodes=1, final_episodes=1), tmp_path / "logs"
    jobs = {job.name: job for job in read_plan(plan).jobs}
    train = OfflineAlgorithm.train

    def slowly() -> None:
        OfflineAlgorithm.train = lambda *args, **kwargs: (time.sleep(0.005), train(*args, **kwargs))  # type: ignore
        run_all(plan, folder, Forked, jobs=2)

    process, _ = in_a_fork(slowly)
    deadline = time.monotonic() + 200

    def ready() -> bool:  # the short job has checkpoints too, of fewer steps; what is resumed is written after each
        steps = [int(path.stem.split("_")[2]) for path in (folder / "td3_bc").glob("*/rl_model_*_steps.zip")]
        return state(folder, jobs["td3_bc"]) == DONE and max(steps, default=0) >= 100

    while not ready():
        assert process.is_alive() and time.monotonic() < deadline
        time.sleep(0.02)
    process.kill()
    process.join()
    pid = read_record(record_path(folder, jobs["long"])).get("pid")
    if pid is not None:
        os.kill(pid, signal.SIGKILL)  # as a machine does that goes down
    return plan, folder


def state(folder: Path, job: Job) -> str:
    path = record_path(folder, job)
    return read_record(path)["state"] if path.is_file() else WAITING


def test_a_killed_benchmark_goes_on_where_it_was(killed: tuple[Path, Path], capsys: Any) -> None:
    plan, folder = killed
    jobs = {job.name: job for job in read_plan(plan).jobs}
    assert state(folder, jobs["long"]) == "running"
    main(["benchmark", str(plan), "-f", str(folder), "--status"])
    assert "1 of 2 runs done, 1 interrupted" in " ".join(capsys.readouterr().out.split())
    done = record_path(folder, jobs["td3_bc"]).read_bytes()
    assert ended(run_all(plan, folder)) == [("long", 0, DONE)]
    assert record_path(folder, jobs["td3_bc"]).read_bytes() == done
    record = read_record(record_path(folder, jobs["long"]))
    assert record["state"] == DONE and record["curve"]["timesteps"] == [250, 500]
    assert len(list((folder / "td3_bc").iterdir())) == 2
    resumed = [int(path.stem.rpartition("_")[2]) for path in (folder / record["run"]).glob("progress_from_*.csv")]
    assert len(resumed) == 1 and resumed[0] % 50 == 0 and resumed[0] >= 100
    assert record["seconds"]["total"] > 0 and record["curve"]["seconds"] == sorted(record["curve"]["seconds"])


def test_a_stopwatch_counts_each_update_once(tmp_path: Path) -> None:
    checkpoint = tmp_path / "agent.zip"
    checkpoint.write_bytes(b"")
    log = tmp_path / "progress.csv"
    log.write_text("vae/n_steps,time/total_timesteps,time/time_elapsed\n5,,\n,10,4\n,20,9\n,30,15\n")
    os.utime(checkpoint, (1_000_050, 1_000_050))
    os.utime(log, (1_000_060, 1_000_060))
    watch = Stopwatch()
    watch.add_killed(1_000_000.0, checkpoint, 20)  # 41 s of fits, 9 s of updates; those after the 20th are made again
    assert (watch.total, watch.fit) == (50.0, 41.0)
    assert watch.at([0, 10, 15, 20]).tolist() == [41.0, 45.0, 47.5, 50.0]
    watch.add_killed(1_000_100.0, checkpoint, 20)  # killed before it saved anything
    assert watch.total == 50.0

    class Trained:
        class model:
            num_timesteps = 40

        run = Run(tmp_path, "agent")
        fit_seconds, evaluation_seconds, seconds, gradient_steps = 0.0, 2.0, 12.0, 20

    log.write_text("time/total_timesteps,time/time_elapsed\n30,7\n40,12\n")
    watch.add(Trained(), 6.0)  # type: ignore[arg-type]
    assert watch.at([20, 30, 40]).tolist() == [50.0, 57.0, 62.0]
    summary = Stopwatch(**json.loads(json.dumps(watch.as_dict()))).summary(40)
    assert summary["updates_per_second"] == 2.0  # 20 in 10 s
    assert summary["seconds"] == {"total": 62.0, "fit": 41.0, "training": 20.0, "evaluation": 1.0, "cpu": 31.0}


def done(seconds: float, score: float | None = None) -> dict[str, Any]:
    """The parts of a record of a job that took some seconds, with its score or without an evaluation."""
    each = {"gradient_steps": 8, "n_eval_episodes": 1, "mean_reward": 0.0, "normalized_score": score}
    last = None if score is None else each | {"eval_seed": 0, "n_eval_envs": 1, "env_id": None}
    return {
        "state": DONE,
        "host": "a machine",
        "data": {"fingerprint": "f", "mean_return": None, "normalized_score": None},
        "versions": {"torch": "2"},
        "seconds": {"total": seconds, "fit": 0.0, "training": seconds, "evaluation": 0.0, "cpu": None},
        "last": last,
        "best": None if score is None else each,
    }


def test_the_time_left_is_told_from_runs_of_the_same_algorithm(tmp_path: Path) -> None:
    plan = read_plan(write_plan(tmp_path, "a/b-v0", [0, 1, 2], {"td3_bc": None, "dac": None}))
    benchmark, folder = Benchmark(plan, tmp_path / "logs"), tmp_path / "logs"
    for job in plan.jobs:
        open_record(folder, job)
    assert Overview(benchmark, active=True).seconds_left() is None
    quick, slow = (next(job for job in plan.jobs if job.name == name) for name in ("td3_bc", "dac"))
    for job, seconds in ((quick, 10.0), (slow, 100.0)):
        write_json(record_path(folder, job), open_record(folder, job) | done(seconds))
    assert Overview(benchmark, active=True).seconds_left() == 2 * 10 + 2 * 100
    overview = Overview(benchmark, active=True, parallel=2)
    assert overview.seconds_left() == 110
    assert overview.counts() == "2 of 6 runs done, 4 waiting, about 2 min left"
    other = next(job for job in plan.jobs if job.name == "dac" and job is not slow)
    begun = {"state": "running", "clock": {"total": 30.0}, "attempt": time.time() - 50}
    write_json(record_path(folder, other), open_record(folder, other) | begun)
    assert Overview(benchmark, active=True).seconds_left() == pytest.approx(2 * 10 + 100 + (100 - 80), abs=2)
    assert Overview(benchmark, active=False).seconds_left() == pytest.approx(2 * 10 + 100 + (100 - 30))


def test_the_first_run_of_an_algorithm_tells_its_time_by_its_progress(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = read_plan(write_plan(tmp_path, "a/b-v0", [0], {"td3_bc": None, "dac": None}))
    benchmark, folder = Benchmark(plan, tmp_path / "logs"), tmp_path / "logs"
    begun = {"state": "running", "clock": {"total": 60.0}}
    for job, record in zip(plan.jobs, (done(10.0), begun), strict=True):
        write_json(record_path(folder, job), open_record(folder, job) | record)
    for progress, left in ((("", 6), 20.0), (("", 0), 0.0), (("teacher", 6), 0.0)):
        monkeypatch.setattr("zoo.benchmark.overview.progress_of", lambda folder, record, found=progress: found)
        assert Overview(benchmark, active=True).seconds_left() == pytest.approx(left)
    assert [span(seconds) for seconds in (7.4, 90, 3600, 5000, None)] == ["7 s", "2 min", "1 h 00 min", "1 h 23 min", "?"]


def test_the_overview_shows_marks_scores_and_how_far_jobs_at_work_are(tmp_path: Path) -> None:
    from rich.console import Console

    plan = read_plan(write_plan(tmp_path, "a/b-v0", [0, 1, 2, 3], {"td3_bc": None, "qdq": None, "nosuch": None}))
    benchmark, folder = Benchmark(plan, tmp_path / "logs"), tmp_path / "logs"
    jobs = {(job.name, job.seed): job for job in plan.jobs}
    for seed, score in ((0, 10.0), (2, 20.0)):
        record = open_record(folder, jobs["td3_bc", seed]) | done(60.0, score)
        write_json(record_path(folder, jobs["td3_bc", seed]), record)
    failed = {"state": FAILED, "error": "first\nlast"}
    write_json(record_path(folder, jobs["td3_bc", 1]), open_record(folder, jobs["td3_bc", 1]) | failed)
    for number, (job, log) in enumerate(
        ((jobs["td3_bc", 3], "time/total_timesteps,x\n7,\n14,\n2e"), (jobs["qdq", 0], "teacher/n_steps,x\n3000,1\n")), 1
    ):
        run = folder / job.name / f"a-b-v0_{number}"
        (run / "a-b-v0").mkdir(parents=True)
        (run / "a-b-v0" / "config.yml").write_text(f"algo: {job.name}\ndataset: {{fingerprint: f}}\nhyperparameters: {{}}\n")
        (run / "a-b-v0" / "args.yml").write_text(f"benchmark: {job.key}\n")
        (run / "progress.csv").write_text(log)
        benchmark.working[job] = None  # type: ignore[assignment]
        begun = {"state": "running", "clock": {"total": 30.0}}
        write_json(record_path(folder, job), open_record(folder, job) | begun)
    overview = Overview(benchmark, active=True)
    assert list(overview.cells().values()) == ["●✗●◐ 15.0", "◐···", "skipped"]
    assert [row[:2] for row in overview.working()] == [
        ("qdq on a/b-v0, seed 0", "teacher 3,000"),
        ("td3_bc on a/b-v0, seed 3", "14 of 8 updates"),
    ]
    console = Console(width=120, file=io.StringIO())
    console.print(overview.table())
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "2 of 12 runs done, 1 failed, 2 running, 3 waiting, 4 skipped" in text
    assert "teacher 3,000" in text and "●✗●◐ 15.0" in text


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--records", "x"], "add --report"),
        (["--report", "x"], "No job has ended"),
    ],
)
def test_wrong_flags_are_errors(flags: list[str], message: str, tmp_path: Path) -> None:
    plan = write_plan(tmp_path, "a/b-v0", [0])
    with pytest.raises(SystemExit, match=message):
        main(["benchmark", str(plan), "-f", str(tmp_path / "logs"), *flags])
    assert not (tmp_path / "logs").exists()
