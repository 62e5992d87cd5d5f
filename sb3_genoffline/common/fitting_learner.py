"""An algorithm that fits a model before its policy, and may hand it to other agents."""

from typing import Any, ClassVar

import torch as th
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger
from torch import Tensor, nn

from sb3_genoffline.common.fitting import Fit, SharedModel
from sb3_genoffline.common.stored_learner import StoredLearner
from sb3_genoffline.errors import NotFoundError, UserError
from sb3_genoffline.files.archive import PathOrFile
from sb3_genoffline.files.untrusted import short


class FittingLearner(StoredLearner):
    """
    What comes before the policy's training. An algorithm whose policy names a ``fitted_model`` says in :meth:`make_fits` how
    it is fitted; resuming, logging, and sharing by file follow.

    The arguments are those of :class:`~sb3_genoffline.common.learner.Learner`.
    """

    fitted_model_arguments: ClassVar[str] = "the same settings"
    """Which arguments give two agents fitted models of the same shape, for the message where they differ."""

    def _setup_model(self) -> None:
        super()._setup_model()
        name = self.policy.fitted_model
        if name is not None and (given := getattr(self, name, None)) is not None:
            try:
                self.set_fitted_model(given)
            except NotFoundError as error:
                raise NotFoundError(f"{name}={short(given)} names no file: {error}") from error
            self.__dict__[name] = None  # taken over: it is the policy's now

    def offline_rows(self) -> tuple[Tensor, Tensor]:
        """Raw observations (N, S) and actions (N, A), in [−1, 1], of the buffer's offline rows."""
        assert self.replay_buffer is not None
        rows = self.replay_buffer.rows_at(th.arange(self.replay_buffer.n_offline, device=self.replay_buffer.device))
        return rows.observations.clone(), rows.actions.clone()

    def make_fits(self) -> list[Fit]:
        """All fits that come before the policy's training, new, on the buffer's offline rows, in order."""
        return []

    def facts_of_fit(self) -> dict[str, Any]:
        """What a fitted model that is handed over must agree with, by name; plain data and tensors."""
        return {}

    def meet_data(self) -> None:
        """Called before training when the fitted model is there already: fitted, loaded, or handed over."""

    def save_fitted_model(self, path: PathOrFile) -> None:
        """
        Write the model that is fitted before the policy to a file of its own, for agents with other seeds or settings: the
        constructor's argument of the model's name takes it (QDQ's ``q_sampler``, CPED's and SPOT's ``density``, …).

        :param path: file name (``.zip`` is added) or open binary file
        :raises UserError: if there is none, or it is not fitted
        """
        name = self.policy.fitted_model
        if name is None:
            raise UserError(f"{type(self).__name__} fits no model before its policy: there is nothing to save.")
        self._require_fitted()
        dataset = {key: self.dataset_info.get(key) for key in ("id", "fingerprint")}
        SharedModel.of(getattr(self.policy, name), dataset | self.facts_of_fit()).write(path)

    def set_fitted_model(self, source: Any) -> None:
        """
        Take over a fitted model; nothing is fitted then.

        :param source: a model, or a file of :meth:`save_fitted_model`
        :raises CheckpointError: if the file holds something else
        :raises UserError: if it is not fitted, or its shape is not that of the policy's
        """
        name, fitted = self.policy.fitted_model, self.policy.is_fitted
        if name is None or fitted is None:
            raise UserError(f"{type(self).__name__} fits no model before its policy: it takes none.")
        own = getattr(self.policy, name)
        shared = SharedModel.of(source, {}) if isinstance(source, nn.Module) else SharedModel.read(source, own.kind)
        if "fitted" in shared.weights and not bool(shared.weights["fitted"]):
            raise UserError(f"The given {name} is not fitted: pass one from an agent that has run pretrain(dataset).")
        shared.hand_to(own, name, self.fitted_model_arguments)
        fitted.fill_(True)
        self.fits.take(shared)

    def _require_fitted(self) -> None:
        fitted = self.policy.is_fitted
        if fitted is not None and not bool(fitted):
            raise UserError(
                f"The {self.policy.fitted_model} is not fitted yet: call pretrain(dataset) or learn_offline(dataset) first."
            )

    def run_fits(self, callback: BaseCallback | None, log_interval: int | None) -> bool:
        """Run what is left to fit; False if a callback ended the training."""
        if self.fits.left is None:
            fitted, fits = self.policy.is_fitted, list[Fit]()
            if fitted is not None and self.uses_fitted_model():
                if bool(fitted):
                    self.meet_data()
                    self.fits.compare(self.policy.fitted_model or "", self.facts_of_fit(), self.dataset_info)
                elif self.replay_buffer is None or self.replay_buffer.n_offline == 0:
                    raise UserError(
                        f"The {self.policy.fitted_model} is not fitted and there are no offline rows to fit it on: call "
                        f"learn_offline(dataset), or pass a fitted one with {type(self).__name__}(..., "
                        f"{self.policy.fitted_model}=...)."
                    )
                else:
                    fits = self.make_fits()
            self.fits.begin(fits)
        logger = self.logger if hasattr(self, "_logger") else Logger(None, [])  # SB3's learn() makes its own later
        return self.fits.run(callback, log_interval, logger, self.monitor)
