"""Every state that a fault leaves behind: a process that is killed, or a system that refuses, at any file operation."""

import builtins
import io
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

_OPERATIONS = (
    *((builtins, "open"), (io, "open"), (shutil, "rmtree")),
    *((os, name) for name in ("open", "rename", "replace", "remove", "unlink", "mkdir", "rmdir", "chmod")),
)


def _run(action: Callable[[], Any], before: Callable[[str], None]) -> None:
    """:param before: called with the path before each file operation; its own do not count"""
    at_work, builtin_open = False, open

    def noticed(operation: Callable[..., Any]) -> Callable[..., Any]:
        def call(path: Any, *args: Any, **kwargs: Any) -> Any:
            nonlocal at_work
            if at_work:
                return operation(path, *args, **kwargs)
            at_work = True
            try:
                before(str(path))
                if operation is builtin_open and isinstance(path, str | os.PathLike) and "w" in str(args[:1]):
                    operation(path, *args, **kwargs).close()
                    before(str(path))  # what was in it is gone
            finally:
                at_work = False
            return operation(path, *args, **kwargs)

        return call

    with pytest.MonkeyPatch.context() as patch:  # an audit hook could not be taken away again
        for module, name in _OPERATIONS:
            patch.setattr(module, name, noticed(getattr(module, name)))
        action()


def every_state(folder: Path, action: Callable[[], Any], fault: BaseException | None) -> Iterator[int]:
    """
    Put a folder into each state that a fault in an action can leave, the last one without a fault.

    :param folder: whose operations are counted, and which is put back to what it was before each
    :param action: what changes it
    :param fault: raised instead of an operation; None: the process is killed there, so that nothing follows
    :return: the number of operations that were done
    """
    start, states = _read(folder), list[dict[str, bytes | None]]()

    def note(path: str) -> None:
        if path.startswith(str(folder)):
            states.append(_read(folder))  # what is not written yet is lost with the process

    _run(action, note)
    assert len(states) > 3, "no operation was seen"
    whole = _read(folder)
    for n, state in enumerate([*states, whole]):
        if fault is None or n == len(states):
            if n > 0 and state == states[n - 1]:
                continue  # the operation read something
            _write(folder, state)
        else:
            _write(folder, start)
            _run_to_the_fault(folder, action, n, fault)
        yield n


def _run_to_the_fault(folder: Path, action: Callable[[], Any], n: int, fault: BaseException) -> None:
    count = 0

    def refuse(path: str) -> None:
        nonlocal count
        count += path.startswith(str(folder))
        if count == n + 1:
            count += 1
            raise type(fault)(*fault.args)

    try:
        _run(action, refuse)
    except type(fault):
        return
    assert count > n, "another run has fewer operations"


def _read(folder: Path) -> dict[str, bytes | None]:
    """Contents by relative path; None for a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def _write(folder: Path, state: dict[str, bytes | None]) -> None:
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    for name, content in state.items():  # folders come before what is in them
        if content is None:
            os.mkdir(folder / name)
        else:
            (folder / name).write_bytes(content)
