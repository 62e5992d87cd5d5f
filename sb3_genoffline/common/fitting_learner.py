"""An algorithm that fits a model before its policy, and may hand it to other agents."""

import copy
import warnings
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar

import torch as th
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger
from torch import Tensor, nn

from sb3_genoffline.common.fitting import Fit, SharedModel, check_facts
from sb3_genoffline.common.precision import bf16_products, matmul_precision
from sb3_genoffline.common.stored_learner import StoredLearner
from sb3_genoffline.errors import NotFoundError, UserError, printable
from sb3_genoffline.files.archive import PathOrFile
from sb3_genoffline.files.untrusted import short


class FittingLearner(StoredLearner):
    """
    What comes before the policy's training. An algorithm whose policy names a ``fitted_model`` says in :meth:`make_fits` how
    it is fitted; resuming, logging, and sharing by file follow.

    What the model was fitted with goes with it, into every file and copy, and is compared wherever other settings or data
    meet it: when it is handed over, when an argument is set, when an agent is loaded, and before training.

    The arguments are those of :class:`~sb3_genoffline.common.learner.Learner`.
    """

    _precision_is_told = False
    fitted_model_arguments: ClassVar[str] = "the same settings"
    """Which arguments give two agents fitted models of the same shape, for the message where they differ."""
    fitted_model_units: ClassVar[tuple[str, ...]] = ()
    """Names of the hyper-parameters that decide in which units the model hears and speaks: it is of no use where they differ.
    With ``reward_transform`` rewards have to be on one scale, with ``normalize_observations`` statistics have to agree."""

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
        """Raw observations (N, S) and actions (N, A), in [−1, 1], of the buffer's offline rows; not to be written to."""
        assert self.replay_buffer is not None
        return self.replay_buffer.states_and_actions()

    def make_fits(self) -> list[Fit]:
        """All fits that come before the policy's training, new, on the buffer's offline rows, in order."""
        return []

    def fit_arguments(self) -> tuple[str, ...]:
        """Names of the hyper-parameters that only a fit before the policy's training reads."""
        return ()

    def uses_fitted_model(self) -> bool:
        """Whether the model that is fitted before the policy plays a part with these hyper-parameters."""
        return self.policy.fitted_model is not None

    def meet_data(self, new: bool) -> None:
        """
        Called before training when the fitted model is there already: fitted, loaded, or handed over.

        :param new: whether the data are not those that it met last
        """

    # ------------------------------------------------------------------ in what precision

    def products(self) -> AbstractContextManager[None]:
        """While this lasts, matrix products are of ``matmul_precision``; the first time, what that does here is told."""
        if self.matmul_precision != "fp32" and not self._precision_is_told:
            self._precision_is_told = True
            if self.device.type != "cpu":
                warnings.warn(f"matmul_precision={self.matmul_precision!r} is of CPUs and does nothing here.", stacklevel=4)
            elif not bf16_products().rounded:
                warnings.warn(f"matmul_precision={self.matmul_precision!r} does nothing: {bf16_products()}.", stacklevel=4)
            elif hasattr(self, "_logger"):
                self.logger.info(str(bf16_products()))
        return matmul_precision(self.matmul_precision)

    # ------------------------------------------------------------------ what it was fitted with

    def facts_of_settings(self) -> dict[str, Any]:
        """What a fitted model depends on that is known without data, by name: plain data."""
        space: Any = self.action_space
        model = getattr(self.policy, self.policy.fitted_model or "", None)
        bounds = {"action_low": space.low.ravel().tolist(), "action_high": space.high.ravel().tolist()}
        settings: dict[str, Any] = getattr(model, "settings", {})
        return settings | bounds | {name: getattr(self, name) for name in self.fitted_model_units}

    def facts_of_data(self, reward_scale: float, reward_shift: float) -> dict[str, Any]:
        """
        What a fitted model depends on that is known with the data, by name: plain data.

        :param reward_scale: of the rewards that the buffer holds
        :param reward_shift: likewise
        """
        facts: dict[str, Any] = {}
        if "reward_transform" in self.fitted_model_units:
            facts |= {"reward_scale": reward_scale, "reward_shift": reward_shift}
        if "normalize_observations" in self.fitted_model_units:
            facts |= {"obs_mean": self.policy.obs_mean.tolist(), "obs_std": self.policy.obs_std.tolist()}
        return facts

    def check_fitted_model(self, rewards: tuple[float, float] | None = None) -> None:
        """
        Compare what the model was fitted with, or is being fitted with, and what it is used with.

        :param rewards: scale and shift of the data that it meets; None compares the settings alone
        :raises UserError: naming the first fact that differs
        """
        name, fitted = self.policy.fitted_model, self.policy.is_fitted
        if name is None or fitted is None or not self.uses_fitted_model():
            return
        if bool(fitted) or self.fits.current is not None:
            check_facts(name, self.policy.fitted_with, self.facts_of_settings())
        if bool(fitted) and rewards is not None:
            check_facts(name, self.policy.fitted_with, self.facts_of_data(*rewards), 1e-4)

    def recall_fit(self, facts: Mapping[str, Any] | None, hyperparameters: Mapping[str, Any]) -> None:
        """
        Take over from this agent's file what its model was fitted with.

        :param facts: as the file has them; None where it does not say, as none did before: with the file's own settings
        :param hyperparameters: of the file
        """
        info = self.dataset_info
        if facts is None:
            knows_rewards = {"reward_scale", "reward_shift"} <= info.keys()
            of_data = self.facts_of_data(info["reward_scale"], info["reward_shift"]) if knows_rewards else {}
            facts = {key: hyperparameters.get(key, value) for key, value in (self.facts_of_settings() | of_data).items()}
        self.policy.fitted_with, self.fits.met = facts, info.get("fingerprint")

    def check_loaded_fit(self, changed: Iterable[str]) -> None:
        """
        Refuse in a load what a live agent refuses.

        :param changed: hyper-parameters that were changed
        :raises UserError: naming one that the fitted model can't follow
        """
        self.check_fitted_model()
        for name in changed:
            self._check_fit_argument(name, "in load")

    def _check_fit_argument(self, name: str, where: str) -> None:
        """:raises UserError: if the hyper-parameter, which was changed, is one that a fit has read"""
        fitted = self.policy.is_fitted
        if fitted is not None and name in self.fit_arguments() and (bool(fitted) or self.fits.current is not None):
            raise UserError(
                f"{name} can't be changed to {short(getattr(self, name))} {where}: it is an argument of a fit that is done or "
                f"at work.{self._instead(name)}"
            )

    def _follow(self, name: str, given_before: Mapping[str, Any]) -> None:
        """Refuse also what a fit that is done, or was left out, can't follow."""
        self._check_fit_argument(name, "on a live agent")
        buffer = self.replay_buffer
        try:
            self.check_fitted_model(
                (buffer.reward_scale, buffer.reward_shift) if buffer is not None and buffer.n_offline else None
            )
        except UserError as error:
            raise UserError(f"{name} can't be changed to {short(getattr(self, name))} on this agent: {error}") from None
        super()._follow(name, given_before)

    # ------------------------------------------------------------------ sharing

    def save_fitted_model(self, path: PathOrFile) -> None:
        """
        Write the model that is fitted before the policy to a separate file, for agents with other seeds or settings: the
        constructor's argument of the model's name takes it (QDQ's ``q_sampler``, CPED's and SPOT's ``density``, …).

        :param path: file name (``.zip`` is added) or open binary file
        :raises UserError: if there is none, or it is not fitted
        """
        name = self.policy.fitted_model
        if name is None:
            raise UserError(f"{type(self).__name__} fits no model before its policy: there is nothing to save.")
        self._require_fitted()
        SharedModel.of(getattr(self.policy, name)).write(path)

    def set_fitted_model(self, source: Any) -> None:
        """
        Use a fitted model instead of fitting one.

        :param source: a model, or a file of :meth:`save_fitted_model`
        :raises CheckpointError: if the file holds something else
        :raises UserError: if it is not fitted, its shape is not that of the policy's, or it was fitted with other settings
        """
        name, fitted = self.policy.fitted_model, self.policy.is_fitted
        if name is None or fitted is None:
            raise UserError(f"{type(self).__name__} fits no model before its policy: it takes none.")
        self.fits.check_at_rest()
        own = getattr(self.policy, name)
        shared = SharedModel.of(source) if isinstance(source, nn.Module) else SharedModel.read(source, own.kind)
        if "fitted" in shared.weights and not bool(shared.weights["fitted"]):
            raise UserError(f"The given {name} is not fitted: pass one from an agent that has run pretrain(dataset).")
        facts = self.facts_of_settings() if self.uses_fitted_model() else {}
        shared.hand_to(own, name, self.fitted_model_arguments, facts)
        fitted.fill_(True)
        self._begin_with_another_model()

    def _begin_with_another_model(self) -> None:
        """Nothing is left to fit, and all data are new to the model."""
        self.fits.forget()
        self.fits.met = None

    def set_parameters(self, load_path_or_dict: Any, exact_match: bool = True, device: th.device | str = "auto") -> None:
        """See :class:`~sb3_genoffline.common.stored_learner.StoredLearner`. A dict does not say how a model was fitted."""
        self.fits.check_at_rest()
        if isinstance(load_path_or_dict, dict):  # torch would share the optimizers' averages with whoever gave them
            load_path_or_dict = copy.deepcopy(load_path_or_dict)
        name = self.policy.fitted_model
        before = {} if name is None else {key: value.clone() for key, value in getattr(self.policy, name).state_dict().items()}
        super().set_parameters(load_path_or_dict, exact_match, device)
        after = {} if name is None else getattr(self.policy, name).state_dict()
        if isinstance(load_path_or_dict, dict) and not all(th.equal(before[key], after[key]) for key in before):
            self.policy.fitted_with = {}
            self._begin_with_another_model()

    def _require_fitted(self) -> None:
        fitted = self.policy.is_fitted
        if fitted is not None and not bool(fitted):
            raise UserError(
                f"The {self.policy.fitted_model} is not fitted yet: call pretrain(dataset) or learn_offline(dataset) first."
            )

    # ------------------------------------------------------------------ fitting

    def begin_fits(self) -> None:
        """Make all fits, on the data that are there, and note what they are done with."""
        buffer = self.replay_buffer
        assert buffer is not None and buffer.dataset is not None
        self.fits.begin(self.make_fits())
        self.fits.met = buffer.dataset.fingerprint
        of_data = self.facts_of_data(buffer.reward_scale, buffer.reward_shift)
        data = {"id": buffer.dataset.id, "fingerprint": buffer.dataset.fingerprint}
        self.policy.fitted_with = data | self.facts_of_settings() | of_data

    def run_fits(self, callback: BaseCallback | None, log_interval: int | None) -> bool:
        """Run what is left to fit; False if a callback ended the training."""
        fitted, buffer = self.policy.is_fitted, self.replay_buffer
        needed = fitted is not None and self.uses_fitted_model()
        if not needed or (self.fits.left == [] and not bool(fitted)):  # an argument was set that leaves it out, or asks for it
            self.fits.forget()
        if self.fits.left is None:
            if not needed:
                self.fits.begin([])
            elif bool(fitted):
                self._meet_data()
                self.fits.begin([])
            elif buffer is None or buffer.n_offline == 0:
                raise UserError(
                    f"The {self.policy.fitted_model} is not fitted and there are no offline rows to fit it on: call "
                    f"learn_offline(dataset), or pass a fitted one with {type(self).__name__}(..., "
                    f"{self.policy.fitted_model}=...)."
                )
            else:
                self.begin_fits()
        for fit in self.fits.left or ():
            fit.graph = self.graph
        logger = self.logger if hasattr(self, "_logger") else Logger(None, [])  # SB3's learn() makes its own later
        with self.products() if self.fits.left else nullcontext():
            return self.fits.run(callback, log_interval, logger, self.monitor)

    def _meet_data(self) -> None:
        """Let the fitted model and the data meet."""
        buffer, facts = self.replay_buffer, self.policy.fitted_with
        assert buffer is not None
        self.check_fitted_model((buffer.reward_scale, buffer.reward_shift))
        data = buffer.dataset
        new = data is not None and data.fingerprint != self.fits.met
        if data is not None and new and facts.get("fingerprint", data.fingerprint) != data.fingerprint:
            warnings.warn(
                f"The {self.policy.fitted_model} was fitted on {printable(facts.get('id') or 'another dataset')} and is used "
                f"with {printable(data.id or 'a different one')}.",
                stacklevel=4,
            )
        self.meet_data(new)
        if data is not None:
            self.fits.met = data.fingerprint
