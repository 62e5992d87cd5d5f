"""Fits of FQE that are kept in a folder, so that judging goes on where it was interrupted."""

import hashlib
from pathlib import Path
from urllib.parse import quote

from stable_baselines3.common.callbacks import BaseCallback

from sb3_genoffline.common.fitting import Fit, FitListener
from sb3_genoffline.errors import UserError
from sb3_genoffline.ope.fqe import FQE

_SAVES, _LONGEST = 10, 120


class _Saving(BaseCallback, FitListener):
    def __init__(self, fqe: FQE, path: Path, every: int) -> None:
        super().__init__()
        self.fqe, self.path, self.every = fqe, path, every

    def _on_step(self) -> bool:
        return True

    def on_fit_step(self, fit: Fit, metrics: dict[str, float]) -> bool:
        if fit.step % self.every == 0:
            self.fqe.save(self.path)
        return True


def kept_fit(folder: Path, name: str) -> Path:
    """
    :param folder: of the fits
    :param name: of a policy, any text
    :return: a file of this policy alone
    """
    word = quote(name, safe="@ ")
    if len(word) > _LONGEST:
        word = f"{word[:_LONGEST]}-{hashlib.sha256(name.encode()).hexdigest()[:16]}"
    return folder / f"{word}.zip"


def fit_and_keep(fqe: FQE, path: Path, gradient_steps: int, progress_bar: bool) -> None:
    """
    Fit, saving a tenth of the way each time, or go on with the fit of the file.

    :param fqe: new
    :param path: of its file, which need not be there
    :param gradient_steps: updates in all
    :param progress_bar: show one
    :raises UserError: if the file's fit is another one, or a longer one
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        fqe.load(path)
    missing = gradient_steps - fqe.n_updates
    if missing < 0:
        raise UserError(
            f"{path} holds a fit of {fqe.n_updates:,} updates, more than the {gradient_steps:,} asked for: ask for as many, "
            "or give another folder."
        )
    if missing:
        fqe.fit(missing, _Saving(fqe, path, max(1, gradient_steps // _SAVES)), progress_bar=progress_bar)
        fqe.save(path)
