"""Ends a process, or lets the system refuse, at any file operation below a folder."""

import os
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

KILLED, ENDED, RAISED = 9, 0, 3
_EVENTS = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod", "shutil.rmtree")


def run_with_fault(folder: Path, action: Callable[[], Any], n: int, fault: BaseException | None) -> int:
    """
    Run an action in a process of its own, whose n-th file operation below the folder does not happen.

    :param folder: whose operations are counted
    :param action: what to run
    :param n: from 0
    :param fault: raised there; None: the process is killed
    :return: ``KILLED``, ``RAISED``, or ``ENDED`` if there were not so many operations
    """
    child = os.fork()
    if child == 0:
        count, code = 0, KILLED

        def hook(event: str, args: tuple[Any, ...]) -> None:
            nonlocal count
            if event not in _EVENTS or not str(args[0]).startswith(str(folder)):
                return
            count += 1
            if count == n + 1:
                if fault is None:
                    os._exit(KILLED)
                raise fault

        sys.addaudithook(hook)
        try:
            action()
            code = ENDED if count <= n else RAISED
        except BaseException as error:
            code = RAISED
            if fault is None:
                traceback.print_exception(error)
                code = 1
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def every_fault(folder: Path, action: Callable[[], Any], fault: BaseException | None) -> Iterator[int]:
    """Run the action again and again, each time with the fault one operation later, until it comes to its end."""
    for n in range(200):
        code = run_with_fault(folder, action, n, fault)
        assert code in (KILLED, RAISED, ENDED)
        yield n
        if code == ENDED:
            assert n > 3, "no operation was seen"
            return
    raise AssertionError("it never ends")
