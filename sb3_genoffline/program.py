"""What the command line is called here, for messages that name a command."""

import sys
from pathlib import Path

IN_CHECKOUT = "python -m zoo"


def name_of_program(called: str, package: Path) -> str:
    """
    :param called: the first word of the command that started this process
    :param package: folder of this package: where it is installed the zoo lies in it, in a checkout beside it
    :return: ``genoffline`` if that was typed, or where the package is installed; ``python -m zoo`` in a checkout
    """
    return "genoffline" if Path(called).stem == "genoffline" or (package / "zoo").is_dir() else IN_CHECKOUT


PROGRAM = name_of_program(sys.argv[0], Path(__file__).parent)
