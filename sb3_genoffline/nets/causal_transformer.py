"""GPT-2's blocks, whose dropout follows masks that are drawn outside."""

import math
from typing import NamedTuple

import torch as th
from torch import Tensor, nn

from sb3_genoffline.errors import UserError
from sb3_genoffline.nets.network import Network

_INITIAL_STD = 0.02  # GPT-2's


class DropoutMasks(NamedTuple):
    """
    What dropout keeps in one pass.

    :param tokens: bool (B, N, D), of the embedded tokens
    :param attention: bool (B, L, heads, N, N), of the attention's weights in each layer
    :param outputs: bool (B, L, 2, N, D), of what attention and MLP add in each layer
    """

    tokens: Tensor
    attention: Tensor
    outputs: Tensor


class TransformerBlock(Network):
    """
    x + attention(norm(x)), then x + MLP(norm(x)), with a hidden layer four times as wide as x.

    :param width: D
    :param n_heads: D is divided among them
    :param dropout: p
    :param activation_fn: of the MLP
    """

    def __init__(self, width: int, n_heads: int, dropout: float, activation_fn: type[nn.Module]) -> None:
        super().__init__()
        self.width, self.n_heads, self.dropout = width, n_heads, dropout
        self.attention_norm, self.mlp_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.queries_keys_values = nn.Linear(width, 3 * width)
        self.attention_output = nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), activation_fn(), nn.Linear(4 * width, width))

    def _dropped(self, x: Tensor, kept: Tensor | None) -> Tensor:
        return x if kept is None else x * kept / (1.0 - self.dropout)

    def forward(self, x: Tensor, visible: Tensor, attention: Tensor | None, outputs: Tensor | None) -> Tensor:
        """
        :param x: (B, N, D)
        :param visible: bool (B, 1, N, N), whether a token (third axis) sees another; each sees one at least
        :param attention: bool (B, heads, N, N), see :class:`DropoutMasks`; None drops nothing
        :param outputs: bool (B, 2, N, D)
        """
        shape = (*x.shape[:2], self.n_heads, self.width // self.n_heads)
        fused = self.queries_keys_values(self.attention_norm(x))
        queries, keys, values = (part.view(shape).transpose(1, 2).contiguous() for part in fused.chunk(3, dim=-1))
        scores = queries @ keys.transpose(-1, -2) / math.sqrt(queries.shape[-1])  # (B, heads, N, N)
        weights = scores.masked_fill(~visible, -math.inf).softmax(-1)
        attended = (self._dropped(weights, attention) @ values).transpose(1, 2).flatten(2)  # (B, N, D)
        x = x + self._dropped(self.attention_output(attended), None if outputs is None else outputs[:, 0])
        return x + self._dropped(self.mlp(self.mlp_norm(x)), None if outputs is None else outputs[:, 1])


class CausalTransformer(Network):
    """
    GPT-2 without its tables of words and positions. A token sees itself, and those before it that are valid; one that is not
    valid sees what it may like any other, and nobody sees it. Without masks nothing is dropped, whatever the module's mode.

    :param width: D, of a token
    :param n_layers: L
    :param n_heads: attention heads, which D is divided among
    :param dropout: p, the share that is dropped in training, in [0, 1)
    :param activation_fn: of the MLPs
    :raises UserError: if D can't be divided
    """

    def __init__(
        self, width: int, n_layers: int, n_heads: int = 1, dropout: float = 0.0, activation_fn: type[nn.Module] = nn.ReLU
    ) -> None:
        super().__init__()
        if width % n_heads:
            raise UserError(f"embed_dim={width} can't be divided among n_heads={n_heads} attention heads: use a multiple.")
        self.width, self.n_layers, self.n_heads, self.dropout = width, n_layers, n_heads, dropout
        self.blocks = nn.ModuleList(TransformerBlock(width, n_heads, dropout, activation_fn) for _ in range(n_layers))
        self.output_norm = nn.LayerNorm(width)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=_INITIAL_STD)
                nn.init.zeros_(module.bias)

    def draw_masks(self, batch_size: int, n_tokens: int, generator: th.Generator) -> DropoutMasks | None:
        """
        :param batch_size: B
        :param n_tokens: N
        :param generator: whose device the masks are on
        :return: of one pass; None where nothing is ever dropped
        """
        if self.dropout == 0:
            return None

        def kept(*shape: int) -> Tensor:
            mask = th.empty(batch_size, *shape, dtype=th.bool, device=generator.device)
            return mask.bernoulli_(1.0 - self.dropout, generator=generator)

        return DropoutMasks(
            kept(n_tokens, self.width),
            kept(self.n_layers, self.n_heads, n_tokens, n_tokens),
            kept(self.n_layers, 2, n_tokens, self.width),
        )

    def forward(self, tokens: Tensor, valid: Tensor, masks: DropoutMasks | None = None) -> Tensor:
        """
        :param tokens: (B, N, D)
        :param valid: bool (B, N)
        :param masks: of dropout
        :return: (B, N, D)
        """
        n_tokens = tokens.shape[1]
        causal = th.ones(n_tokens, n_tokens, dtype=th.bool, device=tokens.device).tril()
        itself = th.eye(n_tokens, dtype=th.bool, device=tokens.device)
        visible = (causal & valid[:, None, None, :]) | itself  # (B, 1, N, N)
        x = tokens if masks is None else tokens * masks.tokens / (1.0 - self.dropout)
        for number, block in enumerate(self.blocks):
            attention, outputs = (None, None) if masks is None else (masks.attention[:, number], masks.outputs[:, number])
            x = block(x, visible, attention, outputs)
        normalised: Tensor = self.output_norm(x)
        return normalised
