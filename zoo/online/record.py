"""
Train on data, go on online, and draw whether the score dips and what helps: ``python -m zoo.online.record``, in a checkout.

Stop or kill it: the same command goes on from each run's last evaluation. Several processes share the work; each leaves alone
an algorithm that another one is at. What is done is in the picture and in the JSON file beside it, whatever is left.
"""

import argparse
from pathlib import Path
from typing import Any

import torch as th
from filelock import FileLock, Timeout

from ..collect.lookup import find_dataset
from ..runs.envs import env_factory
from ..runs.flags import FlagParser, a_folder, picture_file
from ..runs.provenance import versions
from ..runs.reading import read_json
from ..runs.rendering import prefer_offscreen
from ..runs.writing import write_json
from .picture import draw, in_numbers
from .plan import ONLINE, SAC_SETTINGS, WAYS, Plan
from .training import Training

FIGURE = Path(__file__).parents[1] / "figures" / "online.png"


def main(argv: list[str] | None = None, plan: Plan | None = None) -> None:
    """
    :param argv: words of the command line
    :param plan: what is run
    """
    parser = FlagParser(prog="python -m zoo.online.record", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    add = parser.add_argument
    add("-f", "--folder", type=a_folder, default="logs/online", help="of the runs (default: logs/online)")
    add("-o", "--output", type=picture_file, default=str(FIGURE), help="picture; a JSON file is written beside it")
    add("--draw", action="store_true", help="draw what is done, and end")
    args = parser.parse_args(argv)
    th.set_num_threads(1)
    prefer_offscreen()
    plan = plan or Plan()
    data = find_dataset(plan.dataset, collect=True)
    training = Training(plan, data, env_factory(data), Path(args.folder))
    (training.folder / "records").mkdir(parents=True, exist_ok=True)
    for algo, way in [] if args.draw else plan.runs:
        try:
            with FileLock(training.folder / f"{algo}.lock", timeout=0):
                record = training.online(algo, way)
        except Timeout:
            print(f"{algo}: another process is at it", flush=True)
            continue
        print(f"{algo}, {way}: {in_numbers(record)}", flush=True)
        write_results(training, Path(args.output))
    for file in write_results(training, Path(args.output)):
        print(f"wrote {file}")


def write_results(training: Training, output: Path) -> list[Path]:
    """
    :param training: whose records are gathered, those of runs under way too
    :param output: of the picture
    :return: the files
    """
    paths = [training.record_path(*run) for run in training.plan.runs]
    records = [read_json(path, "record of a training") for path in paths if path.is_file()]
    content: dict[str, Any] = {
        "plan": vars(training.plan),
        "ways": WAYS,
        "online_settings": ONLINE,
        "sac_settings": SAC_SETTINGS,
        "runs": [record | in_numbers(record) for record in records if record["curve"]["steps"]],
        "versions": versions(),
    }
    numbers = output.with_suffix(".json")
    write_json(numbers, content)
    return [numbers, *(draw(content["runs"], output) if content["runs"] else [])]


if __name__ == "__main__":
    main()
