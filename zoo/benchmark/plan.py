"""What is to be run: a YAML file as an ordered list of jobs with resolved hyper-parameters."""

import hashlib
import itertools
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

from sb3_genoffline.common.arguments import Argument, Bounds, PositiveInt, nearest
from sb3_genoffline.errors import UserError
from sb3_genoffline.files.untrusted import short

from ..runs.devices import check_device_name
from ..runs.evaluations import FINAL_ERROR
from ..runs.flags import Seed
from ..runs.folders import dataset_name
from ..runs.hyperparameters import load_hyperparameters, read_yaml, unnamed_defaults
from ..runs.reading import named_values
from ..runs.scoring import EVAL_SEED


def _table(*arguments: Argument) -> dict[str, Argument]:
    return {argument.name: argument for argument in arguments}


SETTINGS = _table(
    Argument("algo", str | None, None),
    Argument("profile", str | None, None),
    Argument("conf_file", str | None, None),
    Argument("hyperparameters", dict[str, Any] | None, None),
    Argument("n_timesteps", PositiveInt | None, None),
    Argument("evaluations", PositiveInt, 20),
    Argument("eval_episodes", PositiveInt, 10),
    Argument("final_episodes", PositiveInt | None, None),
    Argument("final_error", Annotated[float, Bounds(0.01)] | None, None),
    Argument("device", str, "cpu"),
    Argument("env", str | None, None),
)
"""
What ``defaults``, a dataset and an algorithm may set, and what holds where none of them does; the later wins. The number of
final episodes is ``final_episodes``, unless ``final_error`` is given too or neither is: then it follows from the spread of the
evaluations on the way, from 10 to 100, and ``final_episodes`` is the least. ``final_error`` counts in points of the normalised
score; without such a score there are 10 episodes, and after evaluations of one episode, whose spread nobody knows, 100.
"""
_SECTIONS = _table(
    Argument("title", str | None, None),
    Argument("note", str | None, None),
    Argument("defaults", Any, None),
    Argument("algorithms", Any, None),
    Argument("datasets", Any, None),
    Argument("stages", list[Any] | None, None),
    Argument("claims", list[Any] | None, None),
)
_STAGE = _table(
    Argument("datasets", list[str], None),
    Argument("algorithms", list[str] | None, None),
    Argument("seeds", list[Seed], None),
)
_CLAIM = _table(Argument("claim", str, None), Argument("with", str, None), Argument("without", str, None))
_LONGEST_NAME = 40


def key_of(config: Mapping[str, Any]) -> str:
    """Hash of a job's config, as plain data."""
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()[:10]


@dataclass(frozen=True, eq=False)
class Job:
    """
    One training and its evaluation.

    :param name: of the algorithm in the plan, which may hold several settings of one algorithm
    :param dataset: id or file
    :param seed: of the training
    :param config: everything that the result depends on, as plain data
    """

    name: str
    dataset: str
    seed: int
    config: dict[str, Any]

    @cached_property
    def key(self) -> str:
        """Hash of the config: another setting is another job."""
        return key_of(self.config)

    @property
    def label(self) -> str:
        """For people; names the job's files."""
        return f"{self.name}-{dataset_name(self.dataset)}-{self.seed}-{self.key}"

    @property
    def updates(self) -> int:
        """Gradient updates of the policy."""
        return self.config["hyperparameters"]["n_timesteps"]


@dataclass(frozen=True)
class Skipped:
    """
    A cell of the plan that no job could be made of.

    :param reason: why
    """

    name: str
    dataset: str
    seed: int
    reason: str


@dataclass(frozen=True)
class Claim:
    """
    What a paper says that a part of its algorithm is worth.

    :param text: the claim, in a few words
    :param ours: name in the plan of the algorithm with the part
    :param plain: name in the plan of the algorithm without it
    """

    text: str
    ours: str
    plain: str


@dataclass(frozen=True, eq=False)
class Plan:
    """
    :param title: of the report
    :param note: what a reader of the report must know about the settings
    :param algorithms: names in the order of the plan
    :param datasets: ids in the order of the stages
    :param jobs: in the order in which they are to be run
    :param skipped: cells without a job
    :param claims: that two of the algorithms test
    """

    title: str
    note: str
    algorithms: list[str]
    datasets: list[str]
    jobs: list[Job]
    skipped: list[Skipped]
    claims: list[Claim] = field(default_factory=list)


def read_plan(path: str | Path) -> Plan:
    """
    Read a plan. Stages are run one after another; in a stage, all algorithms run on all datasets with the first seed, then
    with the next one. A cell that an earlier stage has is not run twice.

    :param path: YAML with ``algorithms`` (name: settings), ``stages`` (lists of ``datasets``, ``seeds`` and, if not all are
        meant, ``algorithms``), and perhaps ``title``, ``note``, ``defaults`` and ``datasets`` (id: settings), and ``claims``
        (lists of ``claim``, ``with``, ``without``); settings are those of :data:`SETTINGS`
    :raises UserError: naming the section and the word that is not understood
    """
    path = Path(path)
    content = _checked(read_yaml(path), _SECTIONS, f"{path}")
    defaults = _checked(content.get("defaults"), SETTINGS, f"{path}, defaults")
    algorithms, overrides = (
        {
            name: _checked(settings, SETTINGS, f"{path}, {section}, {name}")
            for name, settings in named_values(content.get(section), f"{path}, {section},").items()
        }
        for section in ("algorithms", "datasets")
    )
    if not algorithms or not content.get("stages"):
        raise UserError(f"{path} needs `algorithms` and `stages`: nothing is to be run.")
    for name in algorithms:
        _check_name(name, f"{path}, algorithms", is_file_name=True)
    jobs: dict[tuple[str, str, int], Job | Skipped] = {}
    for number, part in enumerate(content["stages"], 1):
        where = f"{path}, stage {number}"
        stage = _checked(part, _STAGE, where)
        names = stage.get("algorithms") or list(algorithms)
        _check_words(names, algorithms, where)
        if not stage.get("datasets") or not stage.get("seeds"):
            raise UserError(f"{where} needs `datasets` and `seeds`.")
        for dataset in stage["datasets"]:
            _check_name(dataset, where)
        for seed, dataset, name in itertools.product(stage["seeds"], stage["datasets"], names):
            if (name, dataset, seed) not in jobs:
                settings = [defaults, overrides.get(dataset, {}), algorithms[name]]
                jobs[name, dataset, seed] = _make_job(name, dataset, seed, settings)
    unused = set(overrides) - {job.dataset for job in jobs.values()}
    if unused:
        raise UserError(f"{path}: no stage has the dataset {', '.join(sorted(unused))}.")
    return Plan(
        str(content.get("title") or path.stem),
        " ".join(str(content.get("note") or "").split()),
        list(algorithms),
        list(dict.fromkeys(job.dataset for job in jobs.values())),
        [job for job in jobs.values() if isinstance(job, Job)],
        [job for job in jobs.values() if isinstance(job, Skipped)],
        [
            _read_claim(part, algorithms, f"{path}, claim {number}")
            for number, part in enumerate(content.get("claims") or [], 1)
        ],
    )


def _read_claim(part: Any, algorithms: Mapping[str, Any], where: str) -> Claim:
    values = _checked(part, _CLAIM, where)
    missing = [name for name in _CLAIM if not values.get(name)]
    if missing:
        raise UserError(f"{where} needs {' and '.join(f'`{name}`' for name in missing)}.")
    _check_words((values["with"], values["without"]), algorithms, where)
    return Claim(values["claim"], values["with"], values["without"])


def _make_job(name: str, dataset: str, seed: int, layers: Iterable[Mapping[str, Any]]) -> Job | Skipped:
    settings = {argument.name: argument.default for argument in SETTINGS.values()}
    for layer in layers:
        hyperparameters = {**(settings["hyperparameters"] or {}), **(layer.get("hyperparameters") or {})}
        settings |= {**layer, "hyperparameters": hyperparameters}
    if settings["n_timesteps"] is not None:
        settings["hyperparameters"]["n_timesteps"] = settings["n_timesteps"]
    algo = settings["algo"] or name
    try:
        resolved = load_hyperparameters(algo, dataset, settings["profile"], settings["hyperparameters"], settings["conf_file"])
    except UserError as error:
        return Skipped(name, dataset, seed, str(error))
    evaluation = {
        "freq": max(1, resolved.n_timesteps // settings["evaluations"]),
        "episodes": settings["eval_episodes"],
        "final_episodes": settings["final_episodes"],
        "final_seed": EVAL_SEED,
    }
    if settings["final_error"] is not None or settings["final_episodes"] is None:
        evaluation["final_error"] = settings["final_error"] or FINAL_ERROR
    config = {
        "name": name,
        "algo": algo,
        "dataset": dataset,
        "seed": seed,
        "hyperparameters": resolved.plain,
        "defaults": unnamed_defaults(algo, resolved),
        "evaluation": evaluation,
        "device": settings["device"],
    }
    if settings["env"] is not None:  # None: the dataset's; a setting of before there was this one has the same key
        _check_name(settings["env"], f"{name} on {dataset}, env")
        config["env"] = settings["env"]
    return Job(name, dataset, seed, config)


def _checked(content: Any, table: Mapping[str, Argument], where: str) -> dict[str, Any]:
    """A part of a plan, each of whose values is what the table wants."""
    values = named_values(content, where)
    _check_words(values, table, where)
    try:
        checked = {name: table[name].check(value) for name, value in values.items()}
        if "device" in checked:
            check_device_name(checked["device"])
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    return checked


def _check_name(name: str, where: str, is_file_name: bool = False) -> None:
    """Names of algorithms are parts of the names of files, which lie in the benchmark's folder and nowhere else."""
    if not name.isprintable() or not name:
        raise UserError(f"{where}: {short(name)} is not a name: use text.")
    if is_file_name and (set(name) & set("/\\:") or name.startswith(".") or len(name) > _LONGEST_NAME):
        raise UserError(
            f"{where}: {short(name)} names no algorithm: files are named after it, so it holds no / \\ or :, starts with no "
            f"dot and has up to {_LONGEST_NAME} characters. Which algorithm it is stands in its setting `algo`."
        )


def _check_words(words: Iterable[str], known: Iterable[str], where: str) -> None:
    names = list(known)
    for word in words:
        if word not in names:
            raise UserError(f"{where}: {word!r} is not known{nearest(word, names)} There are: {', '.join(names)}.")
