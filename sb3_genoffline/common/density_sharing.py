"""Sharing a fitted model of behaviour between agents: saved, handed over, and compared with the data it is used with."""

import warnings
from typing import Any, ClassVar

import torch as th
from torch import Tensor

from sb3_genoffline.common.pretraining import load_fitted, save_fitted
from sb3_genoffline.files.archive import PathOrFile
from sb3_genoffline.generative.behavior import BehaviourModel


class DensitySharingMixin:
    """
    For an algorithm whose policy has ``density``, a model of behaviour, and the buffer ``fitted``; its argument ``density`` is
    passed to :meth:`set_density`.
    """

    density_class: ClassVar[type[BehaviourModel]]
    density_arguments: ClassVar[str]
    """The arguments of an agent that decide the shape of its model, for the message where two differ."""
    _given_density: dict[str, Any] | None = None

    def save_density(self, path: PathOrFile) -> None:
        """
        Write the fitted density to a file of its own, for the argument ``density`` of agents with other seeds or settings.

        :param path: file name (``.zip`` is added) or open binary file
        :raises ValueError: if it is not fitted
        """
        algorithm: Any = self
        if not bool(algorithm.policy.fitted):
            raise ValueError("The density is not fitted yet: call pretrain(dataset) or learn_offline(dataset) first.")
        dataset = {name: algorithm.dataset_info.get(name) for name in ("id", "fingerprint")}
        density: BehaviourModel = algorithm.policy.density
        save_fitted(path, self.density_class.__name__, density, {"settings": density.settings, "dataset": dataset})

    def set_density(self, source: BehaviourModel | PathOrFile) -> None:
        """
        Take over a fitted density; nothing is fitted then.

        :param source: a density, or a file of :meth:`save_density`
        :raises CheckpointError: if the file holds something else
        :raises ValueError: if its shape is not the policy's
        """
        algorithm: Any = self
        if isinstance(source, BehaviourModel):
            tree: dict[str, Any] = {"settings": source.settings, "weights": source.state_dict(), "dataset": {}}
        else:
            tree = load_fitted(source, self.density_class.__name__)
        own: BehaviourModel = algorithm.policy.density
        for name, value in own.settings.items():
            if tree["settings"].get(name) != value:
                raise ValueError(
                    f"The given density has {name}={tree['settings'].get(name)!r} and the policy's {value!r}: make the agent "
                    f"with {self.density_arguments} of the given one."
                )
        own.load_state_dict(tree["weights"])
        algorithm.policy.fitted.fill_(True)
        algorithm._phases, algorithm._pending_phase_state = [], None  # of a fit that was interrupted
        self._given_density = tree

    def _compare_given_density(self, stacklevel: int) -> None:
        """Warn if a density that was given is another dataset's."""
        algorithm: Any = self
        now = algorithm.dataset_info
        if not now:
            return
        given, self._given_density = self._given_density, None
        if given and given["dataset"] and given["dataset"]["fingerprint"] != now["fingerprint"]:
            warnings.warn(
                f"The given density was fitted on {given['dataset']['id'] or 'another dataset'} and is used with "
                f"{now['id'] or 'a different one'}.",
                stacklevel=stacklevel + 1,
            )

    def _offline_rows(self) -> tuple[Tensor, Tensor]:
        """Raw observations (N, S) and actions (N, A) of the buffer's offline rows."""
        algorithm: Any = self
        buffer = algorithm.replay_buffer
        rows = buffer.rows_at(th.arange(buffer.n_offline, device=buffer.device))
        return rows.observations.clone(), rows.actions.clone()
