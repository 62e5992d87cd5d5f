"""Acting by the best of several candidates."""

import torch as th
from torch import Tensor

from sb3_genoffline.common.policies import OfflinePolicy


def draw_by(probabilities: Tensor, n: int, generator: th.Generator) -> Tensor:
    """
    :param probabilities: (B, M) of candidates
    :param n: how many are drawn, without replacement
    :param generator: on their device
    :return: int64 (B, n); of a state with NaN, whose actions are NaN too, any
    """
    return th.multinomial(probabilities.nan_to_num(1.0), n, generator=generator)


class CandidatePolicy(OfflinePolicy):
    """
    ``predict(deterministic=True)`` draws ``n_action_samples`` candidates per observation and takes the one that is worth most;
    ``deterministic=False`` is one candidate. They are samples, so both differ from call to call:
    ``model.set_acting_seed(seed)`` before makes them the same again.

    A subclass says in :meth:`sample_actions` and :meth:`candidate_values` what the candidates are and what they are worth. The
    arguments are those of :class:`~sb3_genoffline.common.policies.OfflinePolicy`.
    """

    n_action_samples: int

    @property
    def n_candidates(self) -> int:
        """Candidates per observation of ``predict(deterministic=True)``."""
        return self.n_action_samples

    def sample_actions(self, states: Tensor, n_samples: int) -> Tensor:
        """
        :param states: (B, S) normalised observations
        :param n_samples: n
        :return: (B, n, A) in [−1, 1], drawn from the acting generator
        """
        raise NotImplementedError

    def candidate_values(self, states: Tensor, candidates: Tensor) -> Tensor:
        """
        :param states: (B, S) normalised observations
        :param candidates: (B, n, A)
        :return: (B, n)
        """
        raise NotImplementedError

    def choose(self, values: Tensor) -> Tensor:
        """
        Take the best candidate.

        :param values: (B, n) of the candidates
        :return: (B,) index of the candidate to act with
        """
        return values.argmax(dim=1)

    def pick(self, candidates: Tensor, values: Tensor) -> Tensor:
        """
        :param candidates: (B, n, A)
        :param values: (B, n)
        :return: (B, A), the action to take
        """
        chosen = self.choose(values)  # (B,)
        return candidates[th.arange(candidates.shape[0], device=chosen.device), chosen]

    def forward(self, observation: Tensor, deterministic: bool = False) -> Tensor:
        return self._predict(observation, deterministic)

    def _predict(self, observation: Tensor, deterministic: bool = False) -> Tensor:  # type: ignore[override]
        states = self.normalize_observations(observation)
        n_samples = self.n_candidates if deterministic else 1
        candidates = self.sample_actions(states, n_samples)
        if n_samples == 1:
            return candidates.squeeze(1)
        return self.pick(candidates, self.candidate_values(states, candidates))
