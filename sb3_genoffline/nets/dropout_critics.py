"""Q-functions that drop hidden units in every pass, so that their passes differ by how unsure they are; spectral norms."""

from typing import Any

import torch as th
from torch import Tensor, nn
from torch.nn.functional import normalize
from torch.nn.utils import parametrize

from sb3_genoffline.errors import UserError
from sb3_genoffline.nets.blocks import in_one_pass
from sb3_genoffline.nets.ensembles import EnsembleLinear, EnsembleQ

_START_ITERATIONS = 15  # torch's
_CPU_BLOCK_ROWS, _GPU_BLOCK_ROWS = 2560, 65536  # of one block of passes without gradients


class EnsembleSpectralNorm(nn.Module):
    """
    Divides the matrices of an :class:`~sb3_genoffline.nets.ensembles.EnsembleLinear` by their largest singular values, which
    a power iteration estimates; the gradient passes through the estimate, as in torch's own norm of one matrix.

    :param weight: (H, in, out), as the layer starts
    """

    left: Tensor
    right: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        n_members, _, n_outputs = weight.shape
        self.register_buffer("right", normalize(th.randn(n_members, n_outputs), dim=-1))
        self.register_buffer("left", th.zeros(weight.shape[:2]))
        for _ in range(_START_ITERATIONS):
            self.iterate(weight)

    @th.no_grad()
    def iterate(self, weight: Tensor) -> None:
        """One step of the power iteration on (H, in, out)."""
        self.left.copy_(normalize(th.einsum("hio,ho->hi", weight, self.right), dim=-1))
        self.right.copy_(normalize(th.einsum("hio,hi->ho", weight, self.left), dim=-1))

    def forward(self, weight: Tensor) -> Tensor:
        """(H, in, out) -> (H, in, out), each matrix of spectral norm 1"""
        # clones: the next step of the iteration must not change what the gradient needs
        norm = th.einsum("hi,hio,ho->h", self.left.clone(), weight, self.right.clone())
        return weight / norm[:, None, None]


class DropoutQ(EnsembleQ):
    """
    H independent Q-functions of which each pass drops a share of the hidden units behind every activation, in training and out
    of it, where it is given a generator. Without one it is the whole network.

    :param dropout: share of the hidden units, in [0, 1)
    :param spectral_norm: divide each layer's matrix by its spectral norm, so that no pass is steeper than 1 over what dropout
        leaves of each hidden layer
    :param args: of :class:`~sb3_genoffline.nets.ensembles.EnsembleQ`, as are ``kwargs``
    :raises UserError: for a dropout outside [0, 1)
    """

    def __init__(self, dropout: float, spectral_norm: bool, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not 0.0 <= dropout < 1.0:
            raise UserError(f"dropout={dropout} must lie in [0, 1).")
        self.dropout = dropout
        if spectral_norm:
            for layer in (self.input_layer, *self.trunk):
                if isinstance(layer, EnsembleLinear):
                    parametrize.register_parametrization(layer, "weight", EnsembleSpectralNorm(layer.weight.detach()))

    def advance_norms(self) -> None:
        """One step of every power iteration; the weights have moved since the last one."""
        for layer in (self.input_layer, *self.trunk):
            if parametrize.is_parametrized(layer):
                weight = layer.parametrizations.weight
                weight[0].iterate(weight.original)

    def forward(self, states: Tensor, actions: Tensor, generator: th.Generator | None = None) -> Tensor:
        """
        :param states: (B, S)
        :param actions: (B, A)
        :param generator: of one pass with dropout; None: the whole network
        :return: (H, B)
        """
        if generator is None:
            return super().forward(states, actions)
        return self.passes(states, actions.to(states.dtype).unsqueeze(1), 1, generator)[:, 0, :, 0]

    def passes(
        self,
        states: Tensor,
        actions: Tensor,
        n_passes: int,
        generator: th.Generator,
        members: slice = slice(None),
    ) -> Tensor:
        """
        Q of n actions per state, T times. Units are dropped independently for each pass, action, layer and member; what comes
        before the first of them is computed once.

        :param states: (B, S)
        :param actions: (B, n, A)
        :param n_passes: T
        :param generator: of the dropped units, which are drawn as they are needed: all at once would fill a memory
        :param members: of the ensemble
        :return: (H, T, B, n)
        """
        n_states, n_samples, _ = actions.shape
        rows = n_states * n_samples
        with parametrize.cached():
            w_action, state_part = self._first_layer(states)
            hidden = actions.unsqueeze(0) @ w_action[members].unsqueeze(1) + state_part[members].unsqueeze(2)  # (H, B, n, h)
            hidden = hidden.flatten(1, 2).unsqueeze(1)  # (H, 1, B·n, h)
            block = n_passes if in_one_pass() else _passes_at_once(rows, actions)
            values = [
                self._drop_through(hidden, min(block, n_passes - start), generator, members)
                for start in range(0, n_passes, block)
            ]
        found = th.cat(values, 1)
        return found.view(found.shape[0], n_passes, n_states, n_samples)

    def _drop_through(self, x: Tensor, n_passes: int, generator: th.Generator, members: slice) -> Tensor:
        """What the layers behind the first make of (H, 1, rows, h): (H, T, rows)."""
        for layer in self.trunk:
            if not isinstance(layer, EnsembleLinear):
                x = layer(x)
                continue
            if self.dropout > 0:
                kept = x.new_empty(x.shape[0], n_passes, *x.shape[2:]).bernoulli_(1.0 - self.dropout, generator=generator)
                x = x * kept.div_(1.0 - self.dropout)
            passes = x.shape[1:3]
            x = th.unflatten(th.baddbmm(layer.bias[members], x.flatten(1, 2), layer.weight[members]), 1, passes)
        return x.squeeze(-1).expand(-1, n_passes, -1)


def _passes_at_once(rows: int, like: Tensor) -> int:
    return max((_GPU_BLOCK_ROWS if like.is_cuda else _CPU_BLOCK_ROWS) // max(rows, 1), 1)
