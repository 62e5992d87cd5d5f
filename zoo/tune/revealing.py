"""What the policies of a search are really worth, by a simulator, once the choice among them is made."""

from collections.abc import Generator
from pathlib import Path

from sb3_genoffline.errors import UserError
from sb3_genoffline.registry import load_agent

from ..benchmark.records import DONE, job_run
from ..benchmark.runner import alone
from ..runs.scoring import EVAL_SEED
from ..runs.writing import write_json
from .job import judge_of
from .trials import REVEALED, read_trial


def reveal(folder: Path, episodes: int) -> Generator[str]:
    """
    Run each trial's last agent, and write its returns into the trial's record; what is there already is not done again. The
    episodes are those that results are told from: no trial was scored on them.

    :param folder: of the search
    :param episodes: of each agent
    :return: a line for each agent
    :raises NoEnvironment: if there is no simulator
    """
    with alone(folder):
        for path in sorted((folder / "jobs").glob("*.json")):
            record = read_trial(path)
            if record["state"] != DONE or (record.get(REVEALED) or {}).get("episodes") == episodes:
                continue
            judge = judge_of(record["config"])
            run = job_run(folder, record, judge.training.fingerprint)
            if run is None or not run.model_path.is_file():
                raise UserError(f"The agent of {path} is gone: move this record away, and its trial is left out.")
            found = judge.simulate(load_agent(run.model_path, device=record["config"]["device"]), episodes, EVAL_SEED)
            write_json(path, record | {REVEALED: {"episodes": episodes, "eval_seed": EVAL_SEED, **found}})
            yield f"simulator, {episodes} episodes of {path.stem}: {found['value']:.1f}"
