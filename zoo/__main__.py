"""
``python -m zoo <command>`` in a checkout, ``genoffline <command>`` where the package is installed. A command is a module with
``add_arguments`` and ``main``: on the ground floor, or ``command.py`` of the room that is named like it.
"""

import difflib
import importlib
import os
import sys

_NEEDED = (
    *("PIL", "gymnasium", "h5py", "huggingface_hub", "minari", "numpy", "safetensors", "sb3_contrib", "scipy"),
    *("stable_baselines3", "torch", "yaml", "zuko"),
    *("filelock", "gymnasium_robotics", "imageio_ffmpeg", "jinja2", "markdown_it", "matplotlib", "mujoco", "rich"),
    *("tensorboard", "tqdm"),
)
"""What is imported of the packages that this one depends on, and of those of ``[zoo]``."""


def what_is_missing(error: ModuleNotFoundError) -> str | None:
    """
    :param error: of an import
    :return: what to do, if it is one of our dependencies that is not installed
    """
    package = (error.name or "").partition(".")[0]
    if package not in _NEEDED:
        return None
    return (
        f"This Python ({sys.executable}) has no {package}. In a checkout `make quickstart` installs all into .venv, and "
        '`. .venv/bin/activate` makes a shell use it; or install into the environment you are in: pip install -e ".[zoo]"'
    )


try:
    from sb3_genoffline.program import PROGRAM

    from .runs.notices import without_adroits_notice
    from .runs.provenance import as_command
    from .runs.rendering import prefer_offscreen
    from .runs.stopping import ending_in_order
except ModuleNotFoundError as error:
    if what_is_missing(error) is None:
        raise
    sys.exit(what_is_missing(error))

COMMANDS = {
    "collect": ("collect.command", "make offline datasets from the committed behaviour policies"),
    "datasets": ("datasets", "list what can be collected and what is on this machine"),
    "inspect": ("inspect.command", "report and draw what you should know about a dataset before training"),
    "train": ("train", "train an agent on a dataset"),
    "evaluate": ("evaluate", "evaluate a trained agent and write results.json"),
    "judge": ("judge.command", "rank the agents of all runs from logged data alone, without an environment"),
    "benchmark": ("benchmark.command", "train and evaluate algorithms x datasets x seeds from one plan, and report on them"),
    "tune": ("tune.command", "choose hyper-parameters from logged data, or with a simulator"),
    "enjoy": ("enjoy", "watch or film a trained agent"),
    "export": ("export", "write a trained agent as an ONNX file, which acts without PyTorch"),
    "export-data": ("export_data", "write a dataset as one HDF5 file in D4RL's layout"),
    "plot": ("plot.command", "draw learning curves, walks in a maze, plans, and what an algorithm has learned"),
    "gallery": ("gallery.command", "write the results of a checkout as a static site"),
    "publish": ("publish.command", "make agents ready for the Hugging Face Hub, and send them there"),
    "glucose": ("glucose.command", "write the synthetic hospital log of the page that goes from a log to a decision"),
    "speed": ("speed.command", "measure the speed of training updates"),
    "gpu-check": ("gpu_check.command", "check and measure on a CUDA machine what needs one"),
    "quickstart": ("quickstart", "collect, train, evaluate, draw and film in a few minutes"),
}
SCRIPTS = {
    "behavior.train": "train behaviour policies and store a ladder of them",
    "behavior.gait": "search the gait of the ant in AntMaze",
    "behavior.tables": "write the scores of the behaviour policies into their README",
    "recipes.antmaze": "measure how often the ant reaches the goal",
    "glucose.record": "run that page and record its output",
    "judge.record": "measure how good the judge is where the truth is known",
    "online.record": "train on data, continue online, and draw whether the score dips",
    "collect.rate": "compare the rate of collecting with the bare simulator's",
}
"""What the zoo itself is made with; each is run as a module of its own."""


def main(argv: list[str] | None = None) -> None:
    """Dispatch to the command's module; errors a user can mend are shown without a traceback."""
    is_whole_process = argv is None
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] in ("-h", "--help"):
        print(overview())
        sys.exit(0 if argv else 2)
    name, *rest = argv
    if name not in COMMANDS:
        near = difflib.get_close_matches(name.lower(), COMMANDS, n=1)
        hint = f"did you mean {near[0]}? The commands are" if near else "use one of"
        sys.exit(f"{PROGRAM}: {name!r} is not a command; {hint}\n{_lines_of_commands()}")
    prefer_offscreen()
    without_adroits_notice()
    try:
        _run(name, rest, argv, is_whole_process)
    except ModuleNotFoundError as error:
        sentence = None if os.environ.get("ZOO_TRACEBACK") else what_is_missing(error)
        if sentence is None:
            raise
        sys.exit(sentence)


def _run(name: str, rest: list[str], argv: list[str], is_whole_process: bool) -> None:
    module = importlib.import_module(f".{COMMANDS[name][0]}", __package__)
    flags = importlib.import_module(".runs.flags", __package__)  # here: with it comes torch, which --help does not need
    parser = flags.FlagParser(prog=f"{PROGRAM} {name}", description=module.__doc__)
    module.add_arguments(parser)
    arguments = parser.parse_args(rest)
    try:
        with as_command(argv), ending_in_order(name, to_the_end=is_whole_process):
            module.main(arguments)
    except Exception as error:
        sentence = None if os.environ.get("ZOO_TRACEBACK") else flags.sentence_of(error)
        if sentence is None:
            raise
        from sb3_genoffline.errors import printable_lines

        sys.exit(f"{PROGRAM} {name}: {printable_lines(sentence)}\n(set ZOO_TRACEBACK=1 for the traceback)")


def overview() -> str:
    """Every command, and every script, in a line each."""
    package = PROGRAM if __package__ == "zoo" else f"python -m {__package__}"
    scripts = "\n".join(f"  {name:17}{text}" for name, text in SCRIPTS.items())
    return (
        f"usage: {PROGRAM} <command> [options]\n\ncommands:\n{_lines_of_commands()}\n\n"
        f"{PROGRAM} <command> --help tells more.\n\n"
        f"Scripts that made the zoo's own data and figures, run as {package}.<script>:\n{scripts}"
    )


def _lines_of_commands() -> str:
    return "\n".join(f"  {name:12}{text}" for name, (_, text) in COMMANDS.items())


if __name__ == "__main__":
    main()
