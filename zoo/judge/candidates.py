"""The checkpoints that are judged: those of all runs on a dataset."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from sb3_genoffline.common.offline_algorithm import AnyAlgorithm
from sb3_genoffline.data import OfflineDataset
from sb3_genoffline.errors import NotFoundError, UserError, printable
from sb3_genoffline.ope.acting import check_acts_by_observation
from sb3_genoffline.registry import ALGOS, load_agent

from ..runs.folders import Run, list_runs, run_number, run_of

MOST_CHECKPOINTS = 500


def checkpoints_of(run: Run) -> dict[str, Path]:
    """By name: the last agent, and those that ``--save-freq`` kept. The best one is left out: a simulator has chosen it."""
    name = f"{run.folder.parent.name}_{run_number(run)}"
    kept = {}
    for path in run.folder.glob("rl_model_*_steps.zip"):
        number = path.name.removeprefix("rl_model_").removesuffix("_steps.zip")
        if number.isascii() and number.isdigit() and len(number) <= 12:
            kept[int(number)] = path
    found = {f"{name}@{number}": kept[number] for number in sorted(kept)}
    return found | ({name: run.model_path} if run.model_path.is_file() else {})


def find_checkpoints(folder: str | Path, dataset: str, algos: Sequence[str] = ()) -> dict[str, Path]:
    """
    :param folder: root of the logs
    :param dataset: id or file
    :param algos: whose runs are wanted; none: all
    :return: files by name
    :raises NotFoundError: if there is none
    :raises UserError: if there are more than :data:`MOST_CHECKPOINTS`
    """
    found: dict[str, Path] = {}
    for algo in algos or ALGOS:
        for run in list_runs(folder, algo, dataset):
            found |= checkpoints_of(run)
    if not found:
        whose = f" of {', '.join(algos)}" if algos else ""
        raise NotFoundError(
            f"There is no agent{whose} trained on {printable(dataset)} below {folder}: train one, or name the folder."
        )
    if len(found) > MOST_CHECKPOINTS:
        raise UserError(
            f"There are {len(found)} checkpoints below {folder}, more than {MOST_CHECKPOINTS}: judge fewer at a time."
        )
    return found


def unfinished_runs(folder: str | Path, dataset: str, algos: Sequence[str] = ()) -> list[str]:
    """Names, as in :func:`find_checkpoints`, of the last agents of runs that were interrupted."""
    runs = [run for algo in algos or ALGOS for run in list_runs(folder, algo, dataset)]
    return [f"{run.folder.parent.name}_{run_number(run)}" for run in runs if run.model_path.is_file() and run.unfinished]


def load_candidates(paths: dict[str, Path], device: str) -> tuple[dict[str, AnyAlgorithm], list[str]]:
    """
    :param paths: as :func:`find_checkpoints` returns them
    :param device: of the networks
    :return: the agents by name, and a sentence for each file that can't be read
    :raises UserError: if none can
    """
    agents: dict[str, AnyAlgorithm] = {}
    refused: list[str] = []
    for name, path in paths.items():
        try:
            agent = load_agent(path, device=device)
            check_acts_by_observation(agent)
        except UserError as error:
            refused.append(f"{name} is left out: {printable(error)}")
        else:
            agents[name] = agent
    if not agents:
        raise UserError(f"No agent can be judged. {refused[0]}")
    return agents, refused


def trained_elsewhere(paths: Mapping[str, Path], data: OfflineDataset) -> str | None:
    """
    :param paths: of checkpoints in runs' folders, by name
    :param data: that they are judged on
    :return: a line that names those whose run says that it was trained on other rows; None if there are none
    """
    others = []
    for name, path in paths.items():
        run = run_of(path)
        try:
            recorded = run.config()["dataset"].get("fingerprint") if run is not None else None
        except UserError:  # its config is damaged, and says nothing
            continue
        if recorded is not None and recorded != data.fingerprint:
            others.append(name)
    if not others:
        return None
    return f"trained on other data than these (held-out rows, or another file of this name?): {printable(', '.join(others))}"


def check_spaces(agents: dict[str, AnyAlgorithm], data: OfflineDataset) -> None:
    """
    :param agents: by name
    :param data: that they are judged on
    :raises UserError: naming the first agent that sees or does something else
    """
    for name, agent in agents.items():
        for ours, theirs, what in (
            (agent.observation_space, data.observation_space, "observations"),
            (agent.action_space, data.action_space, "actions"),
        ):
            if ours.shape != theirs.shape:
                raise UserError(
                    f"{name} has {what} of shape {ours.shape}, the data of {theirs.shape}: move its run out of the folder."
                )
