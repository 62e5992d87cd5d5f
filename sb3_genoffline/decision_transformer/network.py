"""The network of Decision Transformer: actions from returns-to-go, states and actions in a row."""

import torch as th
from torch import Tensor, nn

from sb3_genoffline.nets.causal_transformer import CausalTransformer, DropoutMasks
from sb3_genoffline.nets.network import Network


class ReturnTransformer(Network):
    """
    Reads K steps as 3K tokens R̂_1, s_1, a_1, R̂_2, ..., to which the number of the step in its episode is added, and says at
    each s_t what a_t is.

    :param state_dim: S
    :param action_dim: A
    :param n_steps: rows of the table of steps; later steps have its last row
    :param width: D
    :param n_layers: of the transformer
    :param n_heads: of its attention
    :param dropout: p
    :param activation_fn: of its MLPs
    """

    def __init__(
        self,
        state_dim: int,
        action_dim: int,
        n_steps: int = 1000,
        width: int = 128,
        n_layers: int = 3,
        n_heads: int = 1,
        dropout: float = 0.1,
        activation_fn: type[nn.Module] = nn.ReLU,
    ) -> None:
        super().__init__()
        self.n_steps = n_steps
        self.embed_step = nn.Embedding(n_steps, width)
        self.embed_return = nn.Linear(1, width)
        self.embed_state = nn.Linear(state_dim, width)
        self.embed_action = nn.Linear(action_dim, width)
        self.token_norm = nn.LayerNorm(width)
        self.transformer = CausalTransformer(width, n_layers, n_heads, dropout, activation_fn)
        self.action_head = nn.Linear(width, action_dim)

    def tokens(self, states: Tensor, actions: Tensor, returns_to_go: Tensor, timesteps: Tensor) -> Tensor:
        """(B, 3K, D), before the norm; parameters as of :meth:`forward`."""
        steps = self.embed_step(timesteps.clamp(max=self.n_steps - 1))  # (B, K, D)
        kinds = self.embed_return(returns_to_go.unsqueeze(-1)), self.embed_state(states), self.embed_action(actions)
        return th.stack([kind + steps for kind in kinds], dim=2).flatten(1, 2)

    def forward(
        self,
        states: Tensor,
        actions: Tensor,
        returns_to_go: Tensor,
        timesteps: Tensor,
        valid: Tensor,
        masks: DropoutMasks | None = None,
    ) -> Tensor:
        """
        :param states: (B, K, S), standardised
        :param actions: (B, K, A); that of a step is not seen by what is said there
        :param returns_to_go: (B, K), scaled
        :param timesteps: int64 (B, K), steps since the episode's start
        :param valid: bool (B, K), False in the padding
        :param masks: of dropout; None drops nothing
        :return: actions (B, K, A) in [−1, 1]
        """
        tokens = self.token_norm(self.tokens(states, actions, returns_to_go, timesteps))
        read = self.transformer(tokens, valid.repeat_interleave(3, dim=1), masks)
        said: Tensor = self.action_head(read.unflatten(1, (-1, 3))[:, :, 1]).tanh()
        return said

    def draw_masks(self, batch_size: int, n_steps: int, generator: th.Generator) -> DropoutMasks | None:
        """
        :param batch_size: B
        :param n_steps: K
        :param generator: whose device the masks are on
        :return: of dropout in one pass; None where nothing is ever dropped
        """
        return self.transformer.draw_masks(batch_size, 3 * n_steps, generator)
