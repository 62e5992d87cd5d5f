"""An algorithm that can be written to files and read back: SB3's verbs, without pickles."""

import copy
import io
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar, Self

import torch as th

from sb3_genoffline.common.envs import EnvLike, env_id, source_space
from sb3_genoffline.common.learner import Learner
from sb3_genoffline.common.saving import AgentFile, save_archive, save_folder, split_custom_objects
from sb3_genoffline.data.buffers import OfflineBuffer
from sb3_genoffline.data.sampling import Sampler
from sb3_genoffline.deploy.onnx_file import write_onnx
from sb3_genoffline.errors import UserError, printable
from sb3_genoffline.files.archive import PathOrFile, read_archive, tree_from_members, tree_to_members, write_archive
from sb3_genoffline.files.untrusted import short
from sb3_genoffline.files.writing import replace_file


class StoredLearner(Learner):
    """
    Files of an algorithm: archives (:meth:`save`, :meth:`load`), folders as the Hub has them (:meth:`save_pretrained`,
    :meth:`from_pretrained`), and the online rows of its buffer.

    The arguments are those of :class:`~sb3_genoffline.common.learner.Learner`.
    """

    no_export: ClassVar[str | None] = None
    """Why its policy can't be an ONNX file, as a sentence; None: it can."""
    replay_buffer: OfflineBuffer | None  # type: ignore[assignment]
    batches: Sampler[Any]
    _resumed_sampler: dict[str, Any] | None = None
    """State of the sampler of a saved agent, until the same data are there again."""

    def empty_buffer(self) -> OfflineBuffer:
        """A buffer for online rows alone, their rewards on the scale of the data that the agent was trained on."""
        raise NotImplementedError

    def take_buffer(self, buffer: OfflineBuffer) -> None:
        """Train from now on with a buffer's rows."""
        raise NotImplementedError

    def save(self, path: PathOrFile, exclude: Iterable[str] | None = None, include: Iterable[str] | None = None) -> None:
        """
        Write the agent to one file, atomically: a killed process leaves the old file or the new one. As in SB3, rows collected
        online are not in it: see :meth:`save_replay_buffer`.

        :param path: file name (``.zip`` is added) or open binary file
        :param exclude: names to leave out: ``"training"``, what only resuming needs (optimizers, generators, sampler, and of
            each network and its target the one that the policy does not act with), and hyper-parameters, which then are the
            defaults once it is loaded
        :param include: names to write although they are in ``exclude``; everything that can be written is, by default
        :raises UserError: if a hyper-parameter can't be stored as plain data, or a name is unknown, can't be left out, or
            can't be written
        :raises NotWrittenError: if the system refuses it: a full disk, no permission
        """
        names = [{given} if isinstance(given, str) else set(given or ()) for given in (exclude, include)]
        save_archive(self, path, *names)

    @classmethod
    def load(
        cls,
        path: PathOrFile,
        env: EnvLike | None = None,
        device: th.device | str = "auto",
        custom_objects: dict[str, Any] | None = None,
        print_system_info: bool = False,
        force_reset: bool = True,
        **kwargs: Any,
    ) -> Self:
        """
        Read an agent. Nothing is unpickled, no code from the file runs, and global random generators stay as they are.
        ``learn_offline(same_dataset, ..., reset_num_timesteps=False)`` then goes on bit for bit; the stream of random numbers
        that actions are sampled with restarts from the seed.

        :param path: file name (with or without ``.zip``), open binary file, or a folder of :meth:`save_pretrained`
        :param env: environment for ``learn``; not needed to predict or to train offline
        :param device: of the networks
        :param custom_objects: hyper-parameters to change, as in SB3, and ``policy_class`` for a policy class that the
            algorithm has no name for
        :param print_system_info: print what the agent was saved on
        :param force_reset: accepted for SB3's signature; a loaded agent always resets its environment
        :param kwargs: hyper-parameters to change
        :raises FileNotFoundError: if there is no such file
        :raises CheckpointError: if the file is damaged, newer than this version, or not this class's
        :raises UserError: if the environment's spaces are not the agent's, or a change is wrong
        """
        policy_class, changes = split_custom_objects(custom_objects, cls)
        file = AgentFile.read(path)
        if print_system_info:
            print("== SAVED MODEL SYSTEM INFO ==")
            lines = (file.system_info or "not recorded").splitlines()
            print("\n".join(map(printable, lines)))
        return file.build(cls, env, device, policy_class, changes | kwargs)  # type: ignore[no-any-return]

    def save_pretrained(self, folder: str | Path) -> Path:
        """
        Write ``config.json`` and ``model.safetensors``: all that acting needs. Optimizers are left out, and of each network
        and its target the one that the policy does not act with. (:meth:`save` keeps everything.)

        The folder holds the old agent or the new one, whatever happens.

        :param folder: is made; files of these names are replaced
        :return: the folder
        :raises ExistsError: if the folder has a manifest: it holds a published agent, whose other files are of that one
        :raises NotWrittenError: if the system refuses it: a full disk, no permission
        :raises UserError: if a hyper-parameter can't be stored as plain data, or a weight is not finite
        """
        folder = Path(folder)
        save_folder(self, folder)
        return folder

    @classmethod
    def from_pretrained(
        cls, folder: str | Path, env: EnvLike | None = None, device: th.device | str = "auto", **changes: Any
    ) -> Self:
        """
        Read an agent that acts bit for bit as the saved one. Nothing is unpickled, no code from the files runs, and global
        random generators stay as they are. If there is a ``manifest.json``, both files are compared with it.

        The agent can be trained on: the target networks (or the networks that they follow, where the policy acts with the
        target) start as copies, optimizers and multipliers afresh. To go on exactly, use :meth:`load` on a whole archive.

        :param folder: as :meth:`save_pretrained` or ``write_agent_folder`` wrote it
        :param env: environment for ``learn``; not needed to predict or to train offline
        :param device: of the networks
        :param changes: hyper-parameters to change
        :raises FileNotFoundError: if there is no such folder or file
        :raises CheckpointError: if a file is damaged, newer than this version, another algorithm's, or not to be trusted
        :raises UserError: if the environment's spaces are not the agent's, or a change is wrong
        """
        return AgentFile.from_folder(Path(folder)).build(cls, env, device, None, changes)  # type: ignore[no-any-return]

    def __reduce__(self) -> Any:
        """A pickled agent is its archive: all but the rows of its buffer and its environment, as :meth:`save` has it."""
        file = io.BytesIO()
        self.save(file)
        return _from_archive, (type(self), file.getvalue(), self.policy_class, str(self.device))

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """All of it, rows too."""
        other = object.__new__(type(self))
        memo[id(self)] = other
        for name, value in self.__dict__.items():
            other.__dict__[name] = copy.deepcopy(value, memo)
        return other

    def export_onnx(self, path: str | Path, deterministic: bool = True) -> Path:
        """
        Write the policy as one ONNX file that needs neither this library nor PyTorch to act: raw observations in, actions in
        the environment's units out, any number of them at once. Random numbers that the policy draws are inputs too. What the
        file does is compared with :meth:`predict`, with the same random numbers, before it is written.

        Inputs are float32, and their first axis of unknown size is named ``batch``: ``observation`` (B, S), or, where the
        agent's environment has ``Dict`` or ``Tuple`` observations, ``observation.KEY`` for each of them; ``noise``, standard
        normal; ``uniform``, within [0, 1). The output is ``action`` (B, A). A policy with a memory has more of both, see
        ``sb3_genoffline/deploy/README.md``.

        :param path: file name (``.onnx`` is added)
        :param deterministic: as in :meth:`predict`
        :return: the file
        :raises MissingPackageError: without the packages of the extra ``[onnx]``
        :raises UserError: if the policy can't be such a file, or the file would not act as the policy
        :raises NotWrittenError: if the system refuses it: a full disk, no permission
        """
        if self.no_export is not None:
            raise UserError(f"{type(self).__name__} can't be exported: {self.no_export}")
        facts = {"algorithm": type(self).name, "environment": env_id(self.env), "dataset": self.dataset_info.get("id")}
        return write_onnx(self, Path(path), source_space(self.env) or self.policy.observation_space, deterministic, facts)

    def training_state(self) -> dict[str, Any]:
        """What only resuming needs, as plain data and tensors."""
        sampler = self._resumed_sampler if self.replay_buffer is None else self.batches.state_dict()
        return {
            **self.state.state_dict(),
            "device": self.device.type,
            "generator": self.generator.get_state(),
            "sampler": sampler,
            "fit": self.fits.state_dict(),
        }

    def load_training_state(self, state: dict[str, Any], changed: set[str]) -> None:
        """
        Inverse of :meth:`training_state`.

        :param state: not trusted
        :param changed: hyper-parameters that were changed
        """
        for key in ("fit", "sampler"):
            if not isinstance(state[key], dict | None):
                raise UserError(f"its {key} is {short(state[key])}, which is not a state")
        self.state.load_state_dict(state, changed)
        self.fits.load_state_dict(state["fit"])
        self._resumed_sampler = state["sampler"]  # which leaves alone the order of rows of another kind of device
        if "seed" in changed:  # other random numbers are wanted
            if self._resumed_sampler is not None:
                self._resumed_sampler = {**self._resumed_sampler, "device": "none"}
            return
        if state["device"] != self.device.type:
            warnings.warn(
                f"The agent was trained on {state['device']} and is loaded on {self.device.type}, which draws other random "
                "numbers: training continues from the same weights, not bit for bit.",
                stacklevel=4,
            )
            return
        self.generator.set_state(state["generator"])

    def set_parameters(self, load_path_or_dict: Any, exact_match: bool = True, device: th.device | str = "auto") -> None:
        """
        Load weights, optimizers and variables into this agent.

        :param load_path_or_dict: an archive of ours, or a dict as ``get_parameters`` returns, which has no variables
        :param exact_match: see SB3
        :param device: see SB3
        """
        self.stepper.forget()
        if isinstance(load_path_or_dict, dict):
            super().set_parameters(load_path_or_dict, exact_match, device)
            return
        file = AgentFile.read(load_path_or_dict)
        file.require(type(self).name, type(self).__name__)
        file.hand_weights_to(self)

    def save_replay_buffer(self, path: PathOrFile) -> None:
        """
        Write the buffer's online rows and where its sampler stands, without a pickle; offline rows are the dataset's. Before
        there are data, an empty one is written, as SB3 does.

        :param path: file name (``.zip`` is added, but to one in ``.pkl``, as SB3's ``CheckpointCallback`` names it) or open
            binary file
        :raises UserError: if the agent has no spaces yet
        """
        if not hasattr(self, "policy"):
            raise UserError("There is no buffer to save yet: the agent gets its spaces from an env or in learn_offline().")
        buffer = self.empty_buffer() if self.replay_buffer is None else self.replay_buffer
        members = tree_to_members(buffer.state_dict(), "buffer")
        if isinstance(path, str | Path) and Path(path).suffix == ".pkl":
            file = io.BytesIO()
            write_archive(file, members)
            replace_file(Path(path), file.getvalue())
        else:
            write_archive(path, members)

    def load_replay_buffer(self, path: PathOrFile, truncate_last_traj: bool = True) -> None:
        """
        Read what :meth:`save_replay_buffer` wrote; call ``set_dataset`` before, so that offline rows are there.

        :param path: file name or open binary file
        :param truncate_last_traj: accepted for SB3's signature
        """
        if self.replay_buffer is None:
            self.take_buffer(self.empty_buffer())
        assert self.replay_buffer is not None
        self.replay_buffer.load_state_dict(tree_from_members(read_archive(path), "buffer"))


def _from_archive(cls: type[StoredLearner], archive: bytes, policy_class: type, device: str) -> StoredLearner:
    """What an agent's pickle calls."""
    return cls.load(io.BytesIO(archive), device=device, custom_objects={"policy_class": policy_class})
