"""``python -m zoo <command>``: each command is a module of this package with ``add_arguments`` and ``main``."""

import argparse
import importlib
import os
import sys

from .runs.rendering import prefer_offscreen

COMMANDS = {
    "collect": "make offline datasets from the committed behaviour policies",
    "datasets": "list what can be collected and what is on this machine",
    "inspect": "print and draw what to know about a dataset before training",
    "train": "train an agent on a dataset",
    "evaluate": "evaluate a trained agent and write results.json",
    "benchmark": "train and evaluate algorithms x datasets x seeds from one plan, and report on them",
    "enjoy": "watch or film a trained agent",
    "plot": "draw learning curves, the 2-D bandit, the uncertainty of QDQ, or the density of CPED",
    "publish": "make agents ready for the Hugging Face Hub, and send them there",
    "speed": "measure the speed of training updates",
    "quickstart": "collect, train, evaluate, draw and film in a few minutes",
}
USER_ERRORS = (
    ValueError,
    KeyError,
    FileNotFoundError,
    FileExistsError,
    ConnectionError,  # a download that failed
    FloatingPointError,  # a training that diverged
)


def main(argv: list[str] | None = None) -> None:
    """Dispatch to the command's module; errors a user can mend are shown without a traceback."""
    argv = sys.argv[1:] if argv is None else argv
    overview = "\n".join(f"  {name:12}{text}" for name, text in COMMANDS.items())
    if not argv or argv[0] in ("-h", "--help"):
        print(
            f"usage: python -m zoo <command> [options]\n\ncommands:\n{overview}\n\npython -m zoo <command> --help tells more."
        )
        sys.exit(0 if argv else 2)
    name, *rest = argv
    if name not in COMMANDS:
        sys.exit(f"zoo: {name!r} is no command; use one of\n{overview}")
    prefer_offscreen()
    module = importlib.import_module(f"zoo.{name}")
    parser = argparse.ArgumentParser(prog=f"python -m zoo {name}", description=module.__doc__, allow_abbrev=False)
    module.add_arguments(parser)
    arguments = parser.parse_args(rest)
    try:
        module.main(arguments)
    except USER_ERRORS as error:
        if os.environ.get("ZOO_TRACEBACK"):
            raise
        message = error.args[0] if isinstance(error, KeyError) and error.args else error
        sys.exit(f"zoo {name}: {message}\n(set ZOO_TRACEBACK=1 for the traceback)")


if __name__ == "__main__":
    main()
