"""Names of repositories."""

import re
from pathlib import Path

from sb3_genoffline.errors import UserError

_FILES = (".hdf5", ".h5", ".npz")
_LONGEST = 96


def repo_name(algo: str, dataset: str) -> str:
    """
    ``dac-hopper-medium-replay-v1`` for DAC on ``genoffline/hopper/medium-replay-v1``: the dataset without its first namespace,
    or a file without its suffix. (Which dataset it was exactly is in ``config.json`` and on the card.)

    :param algo: name in ``ALGOS``
    :param dataset: id or file
    """
    text = Path(dataset).stem if dataset.endswith(_FILES) else dataset.partition("/")[2] or dataset
    name = re.sub(r"[^A-Za-z0-9._]+", "-", f"{algo.replace('_', '-')}-{text}")
    return re.sub(r"\.{2,}", ".", name).strip("-.")


def check_repo_id(repo_id: str) -> None:
    """
    :param repo_id: ``"organization/name"``
    :raises ValueError: naming the rule of the Hub that it breaks
    """
    parts = repo_id.split("/") if isinstance(repo_id, str) else []
    if len(parts) != 2:
        raise UserError(
            f"{repo_id!r} is not the name of a repository: it is 'user/name' or 'organization/name', with one slash."
        )
    for part in parts:
        problem = _problem(part)
        if problem is not None:
            raise UserError(f"{repo_id!r} is not the name of a repository: {part!r} {problem}.")
    if repo_id.endswith(".git"):
        raise UserError(f"{repo_id!r} is not the name of a repository: it must not end in '.git'.")


def _problem(part: str) -> str | None:
    if not part:
        return "is empty"
    if len(part) > _LONGEST:
        return f"has {len(part)} characters, more than {_LONGEST}"
    wrong = re.search(r"[^A-Za-z0-9._-]", part)
    if wrong:
        return f"has the character {wrong.group()!r}; allowed are letters, digits, '-', '_' and '.'"
    if "--" in part or ".." in part:
        return "has '--' or '..' in it"
    if part[0] in "-." or part[-1] in "-.":
        return "begins or ends with '-' or '.'"
    return None
