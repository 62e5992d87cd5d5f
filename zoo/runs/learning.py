"""One training from data to a folder with everything about it."""

import shlex
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback, CheckpointCallback
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.vec_env import VecEnv

from sb3_genoffline.common.arguments import Argument, PositiveInt
from sb3_genoffline.common.offline_algorithm import AnyAlgorithm
from sb3_genoffline.data import OfflineDataset, check_compatible, load_dataset
from sb3_genoffline.data.scores import ScoreScale
from sb3_genoffline.errors import DivergedError, NotWrittenError, UserError, printable
from sb3_genoffline.program import PROGRAM

from .callbacks import FitClock, ResumableEvalCallback, SaveLast, StopWhenAsked
from .devices import check_device
from .envs import EnvFactory, NoEnvironment, env_id_of, env_of_run, eval_envs, recorded_env, try_out
from .evaluations import late_evaluations
from .folders import Run, held, new_run, run_of
from .refusals import refusal_of
from .scoring import said_of
from .settings import make_logger, write_settings
from .starting import Start, Wish, start
from .stopping import Stopped, advised, stoppable
from .tracking import Tracking, tracked
from .writing import write_json

_SAVE_LAST_EVERY = 10_000


@dataclass(frozen=True)
class TrainedRun:
    """
    What a training left behind.

    :param run: its files
    :param model: the agent
    :param gradient_steps: updates done by this call
    :param seconds: wall time of training, evaluations and fits included
    :param evaluation_seconds: wall time of the evaluations
    :param fit_seconds: wall time of the fits of models before the updates
    :param signal: that interrupted it; None if it came to its end
    """

    run: Run
    model: AnyAlgorithm
    gradient_steps: int
    seconds: float
    evaluation_seconds: float
    fit_seconds: float
    signal: int | None

    @property
    def finished(self) -> bool:
        """False if it was interrupted."""
        return self.signal is None

    @property
    def outlook(self) -> str:
        """Where an interrupted training stands, and the command that goes on with it."""
        what, done = _position(self.model)
        return f"after {what} {done:,}; {_how_to_go_on(self.run)}"

    @property
    def updates_per_second(self) -> float:
        """Updates per second of training, without the evaluations and the fits before it."""
        return self.gradient_steps / max(self.seconds - self.evaluation_seconds - self.fit_seconds, 1e-9)


def train(
    algo: str | None,
    dataset: Any,
    *,
    n_timesteps: int | None = None,
    profile: str | None = None,
    hyperparameters: Mapping[str, Any] | None = None,
    conf_file: str | Path | None = None,
    trained_agent: str | Path | None = None,
    log_folder: str | Path = "logs",
    tensorboard_log: str | Path | None = None,
    unique: bool = False,
    env_id: str | None = None,
    env_kwargs: Mapping[str, Any] | None = None,
    trust_env: bool = False,
    eval_freq: int | None = None,
    eval_episodes: int = 10,
    n_eval_envs: int | None = None,
    save_freq: int = -1,
    save_replay_buffer: bool = False,
    log_interval: int | None = 1000,
    seed: int = -1,
    device: str = "auto",
    verbose: int = 1,
    progress: bool = True,
    resume: bool = False,
    arguments: Mapping[str, Any] | None = None,
    callback: BaseCallback | None = None,
    tracking: Tracking | None = None,
) -> TrainedRun:
    """
    Train, evaluate on the way, and write the run's files (see :class:`~zoo.runs.folders.Run`).

    The first SIGINT or SIGTERM ends training after the update, or the step of a fit, that it falls in, saved; a second one
    ends it at once.

    :param algo: name in ``ALGOS``; None: that of the ``trained_agent``
    :param dataset: whatever ``load_dataset`` takes
    :param n_timesteps: gradient updates in all, those of a resumed agent included (None: what the hyper-parameters say)
    :param profile: overlay of the hyper-parameter file
    :param hyperparameters: by name, over those of the file
    :param conf_file: YAML file instead of the zoo's
    :param trained_agent: checkpoint to go on from, exactly. The last one of a run goes on in the run's folder, if data and
        hyper-parameters are the run's; otherwise a new run branches off
    :param log_folder: root of the logs
    :param tensorboard_log: root of the tensorboard logs (None: none)
    :param unique: append a uuid to the run's name
    :param env_id: environment to evaluate in (None: that of the resumed agent's run, else the dataset's)
    :param env_kwargs: its arguments, over those of the run
    :param trust_env: make the environment that the data or the run record, whatever code it names
    :param eval_freq: updates between evaluations (None: 20 in a run, but at least one in 10,000 updates; 0: none)
    :param eval_episodes: episodes of an evaluation
    :param n_eval_envs: environments stepped together (None: one per episode, at most 10)
    :param save_freq: updates between checkpoints that are kept (−1: none; the last one is renewed every 10,000 updates)
    :param save_replay_buffer: also write the buffer's state
    :param log_interval: updates between two lines of ``progress.csv`` (None: none)
    :param seed: of everything (negative: a random one, which is recorded)
    :param device: of networks and data
    :param verbose: 0 silent, 1 what is trained and where it goes, 2 also tables of all metrics
    :param progress: show a progress bar
    :param resume: go on with the latest unfinished run of the same ``arguments``, hyper-parameters and data below
        ``log_folder``, if there is one that no process is at work on
    :param arguments: recorded as ``args.yml``
    :param callback: called after each update, once what is to be saved then is saved
    :param tracking: where the run is told of (None: nowhere)
    :raises UserError: for bad hyper-parameters, a resumed agent that has done its updates already, or is of another algorithm
        or seed, or whose run is trained by another process
    """
    for argument, value in (("eval_episodes", eval_episodes), ("n_timesteps", 1 if n_timesteps is None else n_timesteps)):
        Argument(argument, PositiveInt, 1).check(value)
    check_device(device)
    with stoppable() as stop, ExitStack() as stack:
        data = load_dataset(dataset)
        name = str(data.id or (dataset if isinstance(dataset, str | Path) else "dataset"))
        wish = Wish(
            algo,
            name,
            n_timesteps,
            profile,
            hyperparameters,
            conf_file,
            trained_agent,
            log_folder,
            seed,
            device,
            resume,
            arguments,
        )
        begun = start(wish, data, stack)
        model, total = begun.model, begun.n_timesteps
        eval_freq = max(1, min(10_000, total // 20)) if eval_freq is None else eval_freq
        envs = None
        if eval_freq > 0:
            known = None if begun.origin is None else run_of(begun.origin)
            kwargs = {**begun.env_kwargs, **(env_kwargs or {})}
            make = env_of_run(known, data, env_id, kwargs, trust_env)
            named = env_id is not None or bool(kwargs) or (known is not None and recorded_env(known).env_id is not None)
            envs = _eval_envs(data, make, min(eval_episodes, n_eval_envs or 10), named)
        if envs is not None:
            stack.callback(envs.close)
            if kwargs or env_id is not None:
                try_out(make)
        # from here on there is a run: what could be wrong with the data, the environment and the settings would have shown
        model.set_dataset(data)
        run = begun.run
        if run is None:
            run = new_run(log_folder, model.name, name, unique)
            stack.enter_context(held(run))
        env_name = None if envs is None else env_id_of(envs)
        write_settings(run, begun, data, total, env_name, arguments)
        if verbose:
            _announce(run, begun, data, total, profile, trained_agent)
        resumed_from = None if begun.origin is None else "_".join(map(str, _position(model))).removeprefix("update_")
        trackers = [] if tracking is None else [stack.enter_context(tracked(tracking, run, verbose))]
        model.set_logger(make_logger(run, resumed_from, tensorboard_log, model.name, verbose, progress, *trackers))
        stack.enter_context(_closed(model.logger))
        clock = FitClock()
        callbacks: list[BaseCallback] = [StopWhenAsked(stop), clock]
        evaluation = None
        if envs is not None:
            evaluation = ResumableEvalCallback(
                envs,
                stop=stop,
                score_scale=ScoreScale.known(data.id, env_name, low=data.ref_min_score, high=data.ref_max_score),
                n_eval_episodes=eval_episodes,
                eval_freq=eval_freq,
                log_path=str(run.folder),
                best_model_save_path=str(run.folder),
                verbose=max(verbose - 1, 0),
            )
            evaluation.resume(run.evaluations_path, model.num_timesteps)
            callbacks.append(evaluation)
        if save_freq > 0:
            checkpoints = CheckpointCallback(save_freq, str(run.folder))
            checkpoints.n_calls = model.num_timesteps  # a resumed run saves at the same updates
            callbacks.append(checkpoints)
        callbacks.append(SaveLast(run.model_path, save_freq if save_freq > 0 else _SAVE_LAST_EVERY))
        callbacks += [told for tracker in trackers for told in tracker.callbacks]
        callbacks += [] if callback is None else [callback]
        before, started = model.num_timesteps, time.perf_counter()
        with stop.later(), _explained(run):
            model.learn_offline(
                data,
                total - before,
                callbacks,
                log_interval=log_interval,
                reset_num_timesteps=begun.origin is None,
                progress_bar=progress,
            )
            seconds = time.perf_counter() - started
            model.save(run.model_path)
            if save_replay_buffer:
                model.save_replay_buffer(run.folder / "replay_buffer.zip")
            result = TrainedRun(
                run,
                model,
                model.num_timesteps - before,
                seconds,
                0.0 if evaluation is None else evaluation.seconds,
                clock.seconds,
                stop.number,
            )
            _write_summary(result)
    if verbose:
        _conclude(result)
    return result


@contextmanager
def _explained(run: Run) -> Iterator[None]:
    """
    Say how to go on with a training that ends at once, or for want of space or memory; and write down that one diverged: it
    would do so again.
    """
    try:
        yield
    except Stopped as stop:
        raise advised(stop, f"at once: {_how_to_go_on(run)}") from None
    except (OSError, MemoryError, RuntimeError) as error:
        sentence = refusal_of(error)
        if sentence is None:
            raise
        kind = NotWrittenError if isinstance(error, OSError) else UserError
        raise kind(f"{sentence}\nThe run in {run.folder} is not finished; {_how_to_go_on(run)}") from error
    except DivergedError as error:
        write_json(run.settings / "summary.json", {"finished": False, "error": str(error)})
        raise


@contextmanager
def _closed(logger: Logger) -> Iterator[None]:
    """Close a logger at the end; if it cannot write what it holds, that is not the error that ended the training."""
    try:
        yield
    except BaseException:
        with suppress(OSError):
            logger.close()
        raise
    logger.close()


def _how_to_go_on(run: Run) -> str:
    if not run.model_path.is_file():
        return "there was no checkpoint yet, so the same command begins again"
    return f"to resume from the last checkpoint: {shlex.join([*PROGRAM.split(), 'train', '-i', str(run.model_path)])}"


def _position(model: AnyAlgorithm) -> tuple[str, int]:
    """Where training stands: ``("update", 2000)``, or ``("teacher", 500)`` in a fit of that name."""
    return model.fits.current or ("update", model.num_timesteps)


def _eval_envs(data: OfflineDataset, make: EnvFactory, n_envs: int, has_one: bool) -> VecEnv | None:
    """
    Environments to evaluate in; None, with a message, where there is no simulator for the data.

    :param has_one: the user names one, or the run that goes on was evaluated in one: then there has to be one
    """
    try:
        envs = eval_envs(make, n_envs)
    except NoEnvironment as error:
        if has_one:
            raise NoEnvironment(f"{error} To train without evaluation: --eval-freq 0.") from error
        print(f"{error} Nothing is evaluated during training; rank the agents afterwards with `{PROGRAM} judge`.")
        return None
    check_compatible(data, envs.observation_space, envs.action_space)
    return envs


def _announce(
    run: Run, begun: Start, data: OfflineDataset, total: int, profile: str | None, trained_agent: str | Path | None
) -> None:
    record, model = data.summary(), begun.model
    score = "" if record["normalized_score"] is None else f", normalised {record['normalized_score']:.1f}"
    print(
        f"{model.name} on {printable(data.id or run.name)}: {record['n_transitions']:,} transitions, "
        f"{record['n_episodes']:,} episodes, mean return {record['mean_return']:.1f}{score}"
    )
    if begun.origin is None:
        overlay = f", profile {profile!r}" if profile else ""
        print(f"hyper-parameters of {begun.entry!r}{overlay}; {total:,} updates on {model.device}, seed {model.seed}")
    else:
        what, done = _position(model)
        how = "resumed" if begun.goes_on else f"branches off from {begun.origin}"
        if begun.goes_on and begun.origin != Path(trained_agent or ""):
            how = "the unfinished run of this command is resumed (--no-resume begins a new one)"
        print(f"{how} after {what} {done:,}; {total:,} updates in all on {model.device}")
    print(f"run folder: {run.folder}", flush=True)


def _write_summary(result: TrainedRun) -> None:
    write_json(
        result.run.settings / "summary.json",
        {
            "finished": result.finished,
            "num_timesteps": result.model.num_timesteps,
            "gradient_steps": result.gradient_steps,
            "seconds": round(result.seconds, 3),
            "evaluation_seconds": round(result.evaluation_seconds, 3),
            "fit_seconds": round(result.fit_seconds, 3),
            "updates_per_second": round(result.updates_per_second, 3),
            "last_evaluations": late_evaluations(result.run),
            "metrics": {key: value for key, value in result.model.last_metrics.items() if np.isfinite(value)},
        },
    )


def _conclude(result: TrainedRun) -> None:
    score = result.model.last_metrics.get("normalized_score")
    late = late_evaluations(result.run)
    last = "" if score is None else f", last normalised score {score:.1f}"
    last += "" if late is None else f", {said_of(late)} {late['mean']:.1f}"
    fitting = f" after {result.fit_seconds:.0f} s of fitting" if result.fit_seconds else ""
    print(
        f"{result.gradient_steps:,} updates in {result.seconds - result.fit_seconds:.0f} s{fitting} "
        f"({result.updates_per_second:.0f} updates/s without evaluations){last}\nsaved {result.run.model_path}",
        flush=True,
    )
