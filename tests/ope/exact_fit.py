"""Fitted Q evaluation without gradients: least squares on features that hold the true Q; only FQE's own part is left."""

from collections.abc import Callable

import torch as th
from torch import Tensor, nn

from sb3_genoffline.ope import FQE


class Basis(nn.Module):
    """
    H members that are linear in features.

    :param features: (..., S) standardised states, (..., A) scaled actions -> (..., F)
    :param n_members: H
    :param n_features: F
    """

    def __init__(self, features: Callable[[Tensor, Tensor], Tensor], n_members: int, n_features: int) -> None:
        super().__init__()
        self.features = features
        self.register_buffer("weights", th.zeros(n_members, n_features, dtype=th.float64))

    def score_samples(self, states: Tensor, actions: Tensor) -> Tensor:
        """(B, S), (B, M, A) -> (H, B, M)"""
        spread = states[:, None].expand(-1, actions.shape[1], -1)
        return th.einsum("bmf,hf->hbm", self.features(spread.double(), actions.double()), self.weights)


@th.no_grad()
def solve(fqe: FQE, features: Callable[[Tensor, Tensor], Tensor], n_sweeps: int) -> FQE:
    """
    :param fqe: its next actions are prepared
    :param features: see :class:`Basis`
    :param n_sweeps: of targets for all rows and the least squares of each member on its resample
    :return: the same, solved
    """
    fit = fqe._fit
    batch = fit.buffer.rows_at(th.arange(len(fqe.dataset)))
    x = features(fit.standardised(batch.observations).double(), batch.actions.double())  # (N, F)
    weights = fit.row_weights[:, th.as_tensor(fit.episodes)].double()  # (H, N)
    gram = th.einsum("hn,nf,ng->hfg", weights, x, x)
    onto = th.linalg.pinv(gram, hermitian=True) @ th.einsum("hn,nf->hfn", weights, x)  # (H, F, N)
    fit.critic = fit.target = Basis(features, len(weights), x.shape[1])
    rows = th.arange(len(fqe.dataset)).numpy()
    for _ in range(n_sweeps):
        actions = th.as_tensor(fit.next_actions.at(rows))
        wanted, _ = fit.targets(batch.rewards, batch.masks, batch.next_observations, actions)
        fit.critic.weights.copy_((onto @ wanted.double()[:, :, None])[:, :, 0])
    fit.step = n_sweeps
    return fqe
