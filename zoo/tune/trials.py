"""What is written down about a trial: the record of its job, with its scores."""

import re
from pathlib import Path
from typing import Any

from sb3_genoffline.common.arguments import Count
from sb3_genoffline.common.conforming import misfit
from sb3_genoffline.errors import UserError, printable
from sb3_genoffline.files.untrusted import short

from ..benchmark.records import DONE, read_job

PRUNED, REVEALED = "pruned", "revealed"
_OUR_ERROR = re.compile(r"^sb3_genoffline(\.\w+)+: ")
_MODULES = re.compile(r"^(\w+\.)+(?=[A-Z]\w*(:|$))")
_REVEALED = {"episodes": Count, "returns": list[float], "value": float}
_SCORE = {
    "updates": Count,
    "value": float,
    "returns": list[float] | None,
    "lengths": list[int] | None,
    "interval": list[float] | None,
}


def read_trial(path: Path) -> dict[str, Any]:
    """
    :param path: of a record
    :return: the record, with a list of ``scores``
    :raises UserError: if it is not a record of a trial: a part is missing or of another type
    """
    record = {"scores": [], **read_job(path)}
    scores, revealed = record["scores"], record.get(REVEALED)
    wrong = misfit(scores, list[dict[str, Any]])
    for score in [] if wrong else scores:
        wrong = wrong or _wrong_part(score, _SCORE)
        if wrong is None and score.get("interval") is not None and len(score["interval"]) != 2:
            wrong = f"interval={short(score['interval'])} must be two numbers"
    if wrong is None and record["state"] == DONE and not scores:
        wrong = "must not be empty"
    if wrong is not None:
        raise UserError(f"{path} is not a record of a trial: its scores, {short(scores)}: {wrong}.")
    wrong = misfit(revealed, dict[str, Any] | None) or (revealed and _wrong_part(revealed, _REVEALED))
    if wrong:
        raise UserError(f"{path} is not a record of a trial: what is revealed, {short(revealed)}: {wrong}.")
    return record


def sentence(error: object) -> str:
    """
    :param error: of a record, the end of a traceback
    :return: its last line, without the modules of the exception's class; of our own errors, the message alone
    """
    last = printable(str(error).strip().rpartition("\n")[2])
    return _MODULES.sub("", _OUR_ERROR.sub("", last))


def _wrong_part(parts: dict[str, Any], hints: dict[str, Any]) -> str | None:
    """The first part that is not what it should be."""
    for name, hint in hints.items():
        wrong = misfit(parts.get(name), hint)
        if wrong is not None:
            return f"{name}={short(parts.get(name))} {wrong}"
    return None
