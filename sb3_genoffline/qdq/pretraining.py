"""Phases A to C of QDQ: making, sharing and judging the consistency model."""

import copy
import warnings
from typing import Any

import numpy as np
import torch as th

from sb3_genoffline.common.checkpoints import global_rng_preserved
from sb3_genoffline.common.pretraining import Phase, load_fitted, save_fitted
from sb3_genoffline.data.windows import windowed_returns
from sb3_genoffline.files.archive import PathOrFile
from sb3_genoffline.generative.consistency import ConsistencyModel, DiffusionTeacher
from sb3_genoffline.qdq.diagnostics import detection_auc, share_above_quantile
from sb3_genoffline.qdq.sampler import ConsistencyQ, DistillationPhase, QItems, TeacherPhase

_DIAGNOSTIC_ROWS = 256


def _shape(sampler: ConsistencyQ) -> dict[str, Any]:
    """What two models must share for the weights of one to mean the same in the other, as the policy's arguments name it."""
    network = sampler.model.network
    return {"net_arch": list(network.net_arch), "data_std": network.data_std}


class QPretrainingMixin:
    """What :class:`~sb3_genoffline.qdq.qdq.QDQ` does with its consistency model before and beside the actor-critic."""

    _given_sampler: dict[str, Any] | None = None

    def _make_phases(self) -> list[Phase]:
        algorithm: Any = self
        sampler: ConsistencyQ = algorithm.policy.q_sampler
        if algorithm.penalty == "none":
            return []
        if bool(sampler.fitted):
            self._check_given_sampler()
            return []
        items = self._q_items()
        sampler.set_range(items.x)
        items.x = sampler.normalize(items.x)
        with global_rng_preserved():
            th.manual_seed(algorithm._buffer_seed + 1)
            teacher, target = DiffusionTeacher(sampler.model.network.fresh()), ConsistencyModel(sampler.model.network.fresh())
        target.network.fourier_weights.copy_(sampler.model.network.fourier_weights)  # the average is one of weights only
        teacher, target = teacher.to(algorithm.device), target.to(algorithm.device).requires_grad_(False)
        return [
            TeacherPhase(algorithm.teacher_steps, items, teacher, algorithm.teacher_learning_rate),
            DistillationPhase(
                algorithm.cd_steps,
                items,
                teacher,
                sampler,
                target,
                n_levels=algorithm.cd_n,
                first_index=algorithm.cd_first_index,
                from_teacher=algorithm.cd_init == "teacher",
                learning_rate=algorithm.cd_learning_rate,
                ema=algorithm.cd_ema,
                ema_every=algorithm.cd_ema_every,
                keep_average=algorithm.cd_average,
            ),
        ]

    def _q_items(self) -> QItems:
        """Phase A: the Q dataset of the buffer's offline rows, its returns not rescaled yet."""
        algorithm: Any = self
        buffer = algorithm.replay_buffer
        if buffer is None or buffer.dataset is None:
            raise ValueError(
                "The consistency model is not fitted and there are no offline rows to fit it on: call learn_offline(dataset), "
                "pass a fitted q_sampler, or use penalty='none'."
            )
        windows = windowed_returns(
            buffer.dataset,
            algorithm.gamma,
            algorithm.window,
            algorithm.stride,
            algorithm.max_windows,
            algorithm.full_coverage,
            buffer.reward_scale,
            buffer.reward_shift,
        )
        rows = buffer.rows_at(th.as_tensor(windows.rows, device=algorithm.device))
        states = algorithm.policy.normalize_observations(rows.observations)
        q = th.as_tensor(windows.returns, dtype=states.dtype, device=algorithm.device)
        return QItems(th.cat([states, rows.actions], dim=-1), q, algorithm.q_batch_size, algorithm.generator)

    # ------------------------------------------------------------------ sharing

    def save_q_sampler(self, path: PathOrFile) -> None:
        """
        Write the fitted consistency model to a file of its own, for ``QDQ(..., q_sampler=path)`` with other seeds or settings.

        :param path: file name (``.zip`` is added) or open binary file
        :raises ValueError: if it is not fitted
        """
        algorithm: Any = self
        sampler: ConsistencyQ = algorithm.policy.q_sampler
        if not bool(sampler.fitted):
            raise ValueError(
                "The consistency model is not fitted yet: call pretrain(dataset) or learn_offline(dataset) first."
            )
        described = ("id", "fingerprint", "reward_scale", "reward_shift")
        statistics = {"obs_mean": algorithm.policy.obs_mean, "obs_std": algorithm.policy.obs_std}
        description = {
            **_shape(sampler),
            "dataset": {name: algorithm.dataset_info.get(name) for name in described},
            "gamma": algorithm.gamma,
            "statistics": statistics,
        }
        save_fitted(path, "ConsistencyQ", sampler, description)

    def set_q_sampler(self, source: ConsistencyQ | PathOrFile) -> None:
        """
        Take over a fitted consistency model; phases A to C are then left out.

        :param source: a model, or a file of :meth:`save_q_sampler`
        :raises CheckpointError: if the file holds something else
        :raises ValueError: if the model is not fitted, or its shape is not the policy's
        """
        algorithm: Any = self
        own: ConsistencyQ = algorithm.policy.q_sampler
        if isinstance(source, ConsistencyQ):
            tree: dict[str, Any] = {**_shape(source), "weights": source.state_dict(), "dataset": {}}
        else:
            tree = load_fitted(source, "ConsistencyQ")
        for name, ours in _shape(own).items():
            if tree[name] != ours:
                raise ValueError(
                    f"The given q_sampler has {name}={tree[name]}, not the policy's {ours}: pass "
                    f"policy_kwargs=dict(q_{name}={tree[name]})."
                )
        given = copy.deepcopy(own)  # so that nothing is half taken over
        try:
            given.load_state_dict(tree["weights"])
        except RuntimeError as error:
            raise ValueError(f"The given q_sampler does not fit this agent's spaces: {error}") from error
        if not bool(given.fitted):
            raise ValueError("The given q_sampler is not fitted: pass one from an agent that has run pretrain(dataset).")
        own.load_state_dict(given.state_dict())
        own.requires_grad_(False)
        algorithm._phases, algorithm._pending_phase_state = [], None
        self._given_sampler = tree

    def _check_given_sampler(self) -> None:
        """Compare what a given model was fitted on with the data it is used with."""
        algorithm: Any = self
        tree = self._given_sampler
        if not tree or not tree["dataset"]:
            return
        fitted, now = tree["dataset"], algorithm.dataset_info
        for name in ("reward_scale", "reward_shift"):
            if not np.isclose(fitted[name], now[name], rtol=1e-6):
                raise ValueError(
                    f"The given q_sampler was fitted with {name}={fitted[name]:g} and these rewards have {now[name]:g}: its "
                    "uncertainties are in other units. Use the same reward_transform and data, or leave q_sampler out."
                )
        for name, ours in (("obs_mean", algorithm.policy.obs_mean), ("obs_std", algorithm.policy.obs_std)):
            if not th.allclose(tree["statistics"][name].to(ours), ours, rtol=1e-4, atol=1e-6):
                raise ValueError(
                    f"The given q_sampler was fitted with other observation statistics ({name}): use the same data and the "
                    "same normalize_observations, or leave q_sampler out."
                )
        self._given_sampler = None
        if fitted["fingerprint"] != now["fingerprint"]:
            warnings.warn(
                f"The given q_sampler was fitted on {fitted['id'] or 'another dataset'} and is used with "
                f"{now['id'] or 'a different one'}.",
                stacklevel=4,
            )

    # ------------------------------------------------------------------ judging

    def uncertainty(self, observations: Any, actions: Any, n_samples: int | None = None, seed: int = 0) -> np.ndarray:
        """
        H(s, a): how far apart the returns are that the consistency model expects.

        :param observations: (B, S) raw
        :param actions: (B, A) in the units of the action space
        :param n_samples: n (None: ``n_q_samples``)
        :param seed: of the samples
        :return: (B,) in the units of the (transformed) rewards
        """
        algorithm: Any = self
        self._require_fitted()
        policy = algorithm.policy
        states = policy.normalize_observations(th.as_tensor(np.array(observations), device=policy.device))
        scaled = policy.scale_action(np.asarray(actions, dtype=np.float32))
        generator = th.Generator(policy.device).manual_seed(seed)
        shape = (len(states), n_samples or algorithm.n_q_samples)
        noise = th.randn(shape, generator=generator, device=policy.device, dtype=states.dtype)
        return policy.q_sampler.uncertainty(states, th.as_tensor(scaled, device=policy.device), noise).cpu().numpy()

    def uncertainty_report(self, n_rows: int = 2000, seed: int = 0) -> dict[str, float]:
        """
        Whether H tells the data's actions from others, on rows of the dataset that the agent holds.

        :param n_rows: rows that are drawn, with replacement
        :param seed: of the rows, of the random actions and of the samples
        :return: ``data``, ``policy``, ``random``: mean H of the data's actions, of the policy's (μ(s)) and of uniform ones
            at the same states; ``auc`` of telling random from data by H; ``above_q95``, the share of random actions whose H
            is above the 95 % quantile of the data's (the paper's figure implies about 0.25)
        """
        h = self.uncertainty_samples(n_rows, seed)
        means = {name: values.mean().item() for name, values in h.items()}
        inside, outside = h["data"], h["random"]
        return means | {"auc": detection_auc(inside, outside), "above_q95": share_above_quantile(inside, outside)}

    @th.no_grad()
    def uncertainty_samples(self, n_rows: int = 2000, seed: int = 0) -> dict[str, th.Tensor]:
        """
        H at states of the dataset that the agent holds, for the data's actions, the policy's (μ(s)) and uniform ones.

        :param n_rows: rows that are drawn, with replacement
        :param seed: of the rows, of the random actions and of the samples
        :return: ``data``, ``policy`` and ``random``, each (n_rows,)
        """
        algorithm: Any = self
        self._require_fitted()
        if algorithm.replay_buffer is None:
            raise ValueError("There are no rows to judge the uncertainty on: call model.set_dataset(dataset) first.")
        policy, device = algorithm.policy, algorithm.device
        generator = th.Generator(device).manual_seed(seed)
        n_known = algorithm.replay_buffer.n_offline or algorithm.replay_buffer.size()
        rows = th.randint(n_known, (n_rows,), generator=generator, device=device)
        batch = algorithm.replay_buffer.rows_at(rows)
        states = policy.normalize_observations(batch.observations)
        uniform = th.rand(batch.actions.shape, generator=generator, device=device, dtype=states.dtype) * 2.0 - 1.0
        noise = th.randn((3, n_rows, algorithm.n_q_samples), generator=generator, device=device, dtype=states.dtype)
        actions = {"data": batch.actions, "policy": policy.actor(states), "random": uniform}
        return {
            name: policy.q_sampler.uncertainty(states, chosen, z)
            for (name, chosen), z in zip(actions.items(), noise, strict=True)
        }

    def _require_fitted(self) -> None:
        if not bool(self.policy.q_sampler.fitted):  # type: ignore[attr-defined]
            raise ValueError("The consistency model is not fitted: call pretrain(dataset) or learn_offline(dataset) first.")

    def _log_uncertainty(self) -> None:
        """Log :meth:`uncertainty_report` on a few rows, always the same; warn once if H is no detector."""
        algorithm: Any = self
        if algorithm.penalty == "none":
            return
        report = self.uncertainty_report(_DIAGNOSTIC_ROWS)
        for name, value in report.items():
            algorithm.logger.record(f"uncertainty/{name}", value)
        algorithm.last_metrics |= {f"uncertainty/{name}": value for name, value in report.items()}
        if report["auc"] < 0.5 and "auc" not in algorithm._warned:
            algorithm._warned.add("auc")
            warnings.warn(
                f"The uncertainty H is no larger for random actions than for the data's (AUC {report['auc']:.2f}; blind "
                "is 0.5): the penalty will not keep the policy near the data. More teacher_steps and cd_steps, "
                "full_coverage=True, or other windows may help; `python -m zoo plot uncertainty` draws it.",
                stacklevel=3,
            )
