"""Decision Transformer's network, windows and update against known numbers and plain formulas, in double precision."""

import math
from typing import Any

import numpy as np
import pytest
import torch as th
from exact import SPACES, close
from gymnasium import spaces
from torch import Tensor, nn

from sb3_genoffline import DecisionTransformer, OfflineDataset
from sb3_genoffline.data.batches import SequenceBatch
from sb3_genoffline.data.sequences import SequenceSampler
from sb3_genoffline.decision_transformer.network import ReturnTransformer
from sb3_genoffline.errors import UserError
from sb3_genoffline.nets.causal_transformer import DropoutMasks

pytestmark = pytest.mark.usefixtures("float64")
STEPS, VALID = th.tensor([[0, 4, 5], [7, 8, 9]]), th.tensor([[False, True, True], [True, True, True]])
PREDICTED = (
    [[0.83472557, 0.73397019], [0.62791333, 0.51164633]],
    [
        [0.79209562, 0.49699744],
        [0.75569930, 0.25724456],
        [0.50531123, -0.37670921],
    ],
)


def set_formula_weights(network: nn.Module) -> None:
    """W[i, j] = sin(1 + 1.3i + 0.7j)/√in, biases 0.1·cos j, norms 1 + 0.1·sin j, the table of steps sin(0.5t + 0.3j)."""
    for module in network.modules():
        if isinstance(module, nn.Embedding):
            t, j = th.meshgrid(*map(th.arange, module.weight.shape), indexing="ij")
            module.weight.data = th.sin(0.5 * t + 0.3 * j)
        elif isinstance(module, nn.Linear):
            j, i = th.meshgrid(*map(th.arange, module.weight.shape), indexing="ij")
            module.weight.data = th.sin(1 + 1.3 * i + 0.7 * j) / math.sqrt(module.in_features)
            module.bias.data = 0.1 * th.cos(th.arange(module.out_features, dtype=th.float64))
        elif isinstance(module, nn.LayerNorm):
            j = th.arange(len(module.weight), dtype=th.float64)
            module.weight.data, module.bias.data = 1 + 0.1 * th.sin(j), 0.1 * th.cos(j)


def network(**changes: Any) -> ReturnTransformer:
    made = ReturnTransformer(3, 2, **({"n_steps": 20, "width": 8, "n_layers": 2, "n_heads": 2, "dropout": 0.0} | changes))
    set_formula_weights(made)
    return made


def agent(**changes: Any) -> Any:
    """Of the tiny network, acting and learning on returns as they are."""
    kwargs = {"embed_dim": 8, "n_layers": 2, "n_heads": 2, "dropout": 0.0}
    settings = {"context_length": 3, "return_scale": 1.0, "max_episode_steps": 20, "seed": 0, "device": "cpu"}
    model: Any = DecisionTransformer("MlpPolicy", SPACES, **(settings | {"policy_kwargs": kwargs} | changes))
    set_formula_weights(model.actor)
    return model


def inputs() -> list[Tensor]:
    """Two windows of three steps: states, actions, returns-to-go, steps, and what is no padding."""
    b, t = th.meshgrid(th.arange(2.0), th.arange(3.0), indexing="ij")
    states = th.stack([th.sin(0.5 * b + t + i) for i in range(3)], -1)
    actions = th.stack([0.8 * th.cos(b + 2 * t + i) for i in range(2)], -1)
    return [states, actions, 1 + 0.1 * th.sin(b + t), STEPS, VALID]


def known_batch() -> SequenceBatch:
    states, actions, returns_to_go, steps, valid = inputs()
    nothing = th.zeros(2, 3)
    return SequenceBatch(states, actions, nothing, nothing, steps, valid, returns_to_go)


def test_the_network_gives_known_numbers() -> None:
    """README claim 1: tokens, blocks, heads, masks, and where the action is read."""
    said = network()(*inputs())
    close(said[0, 1:], PREDICTED[0], 1e-8)
    close(said[1], PREDICTED[1], 1e-8)


def test_tokens_are_returns_states_and_actions_in_turn_with_their_step() -> None:
    """README claim 1."""
    states, actions, returns_to_go, steps, _ = inputs()
    close(
        network().tokens(states, actions, returns_to_go, steps)[1, :, 0],
        [0.66149510, 0.25868435, -0.16914020, 0.26118323, 0.17508744, -1.40377619, -0.02418429, -0.48805360, -0.33747167],
        1e-8,
    )


@pytest.mark.parametrize("column", [0, 1, 2])
def test_what_lies_in_the_padding_changes_nothing(column: int) -> None:
    """README claim 2."""
    before, changed = inputs(), inputs()
    changed[column][0, 0] = 1e3
    net = network()
    assert th.equal(net(*before)[VALID], net(*changed)[VALID])


def test_padding_on_either_side_and_none_give_the_same() -> None:
    """README claim 2: only the order of the steps counts."""
    columns, net = inputs(), network()
    alone = net(*(column[:1, 1:] for column in columns))[0]
    after = net(*(column[:1].roll(-1, dims=1) for column in columns))[0, :2]
    close(alone, PREDICTED[0], 1e-8)
    close(after, PREDICTED[0], 1e-8)


@pytest.mark.parametrize(
    ("column", "same", "moved", "by"),
    [
        (1, slice(0, 2), 2, [0.00740690, 0.01097472]),
        (0, slice(0, 1), 1, [0.00019633, 0.06595796]),
        (2, slice(0, 1), 1, [0.00041919, 0.00019568]),
    ],
)
def test_a_step_sees_its_state_and_return_and_not_its_action(column: int, same: slice, moved: int, by: list[float]) -> None:
    """README claim 2: the second step's state and return move what is said there, its action what is said after it."""
    changed, net = inputs(), network()
    before = net(*inputs())
    changed[column][1, 1] += 1
    after = net(*changed)
    assert th.equal(before[1, same], after[1, same])
    close((after - before)[1, moved].abs(), by, 1e-8)


def test_gradients_are_finite_beside_padding() -> None:
    """README claim 2: a step of the padding sees itself, so that no softmax is over nothing."""
    columns, net = inputs(), network()
    columns[4] = th.tensor([[False, False, True], [False, False, False]])
    net(*columns).sum().backward()
    assert all(bool(weight.grad.isfinite().all()) for weight in net.parameters() if weight.grad is not None)


def test_the_loss_is_the_mean_over_what_is_no_padding() -> None:
    """README claim 3: CORL's form, which counts the padding too, would be 0.85898752."""
    close(agent().update(known_batch(), None)["actor_loss"], 1.03078502, 1e-8)


def test_one_update_is_a_clipped_step_of_adamw() -> None:
    """README claim 4: decay of every weight apart from the gradient, whose norm is held at 0.25."""
    model = agent(learning_rate=0.01, warmup_steps=0, weight_decay=0.1)
    before = [weight.detach().clone() for weight in model.actor.parameters()]
    model.step(known_batch(), None)
    gradients = [weight.grad for weight in model.actor.parameters()]
    norm = math.sqrt(sum(float(gradient.square().sum()) for gradient in gradients))
    close(norm, 0.25, 1e-6)
    for weight, old, gradient in zip(model.actor.parameters(), before, gradients, strict=True):
        close(weight, old * (1 - 0.01 * 0.1) - 0.01 * gradient / (gradient.abs() + 1e-8), 1e-12)
    assert type(model.actor_optimizer) is th.optim.AdamW and len(gradients) == len(list(model.policy.parameters()))


@pytest.mark.parametrize(
    ("update", "rate"), [(0, 1e-8), (1, 2e-8), (4_999, 5e-5), (9_999, 1e-4), (10_000, 1e-4), (90_000, 1e-4)]
)
def test_the_rate_rises_and_stays(update: int, rate: float) -> None:
    """README claim 4."""
    model = agent()
    model._n_updates = update
    close(model._rate(), rate, 1e-15)


def plain_transformer(tokens: Tensor, weights: dict[str, Tensor], valid: Tensor, masks: DropoutMasks, p: float) -> Tensor:
    """Of one sequence (N, D) with two heads and GPT-2's three places of dropout, a query at a time."""

    def norm(x: Tensor, name: str) -> Tensor:
        mean, std = x.mean(-1, keepdim=True), (x.var(-1, keepdim=True, unbiased=False) + 1e-5).sqrt()
        return (x - mean) / std * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    def linear(x: Tensor, name: str) -> Tensor:
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    x, (n, d) = tokens * masks.tokens / (1 - p), tokens.shape
    for number in range(2):
        block = f"blocks.{number}"
        q, k, v = linear(norm(x, f"{block}.attention_norm"), f"{block}.queries_keys_values").split(d, dim=-1)
        attended = th.zeros(n, d)
        for head, part in enumerate((slice(0, d // 2), slice(d // 2, d))):
            for query in range(n):
                seen = [key for key in range(query + 1) if valid[key] or key == query]
                share = (q[query, part] @ k[seen][:, part].T / math.sqrt(d / 2)).softmax(-1)
                kept = masks.attention[number, head, query][seen] / (1 - p)
                attended[query, part] = (share * kept) @ v[seen][:, part]
        x = x + linear(attended, f"{block}.attention_output") * masks.outputs[number, 0] / (1 - p)
        hidden = linear(norm(x, f"{block}.mlp_norm"), f"{block}.mlp.0").relu()
        x = x + linear(hidden, f"{block}.mlp.2") * masks.outputs[number, 1] / (1 - p)
    return norm(x, "output_norm")


def test_dropout_follows_its_masks() -> None:
    """README claim 5: where GPT-2 has it, and each sequence by its own masks."""
    transformer = network(dropout=0.4).transformer
    masks = transformer.draw_masks(2, 5, th.Generator().manual_seed(0))
    assert masks is not None
    tokens, valid = th.randn(2, 5, 8, generator=th.Generator().manual_seed(1)), th.ones(2, 5, dtype=th.bool)
    valid[0, :2] = False
    found = transformer(tokens, valid, masks)
    for i in range(2):
        own = DropoutMasks(*(mask[i] for mask in masks))
        close(found[i], plain_transformer(tokens[i], transformer.state_dict(), valid[i], own, 0.4))


def test_masks_keep_the_share_that_is_not_dropped_and_come_from_the_agents_generator() -> None:
    """README claim 5."""
    model = agent(policy_kwargs={"embed_dim": 8, "n_layers": 2, "n_heads": 2, "dropout": 0.25})
    before, state = th.get_rng_state(), model.generator.get_state()
    masks = model.draw_noise(500)
    model.generator.set_state(state)
    for mask, again in zip(masks, model.draw_noise(500), strict=True):
        assert mask.dtype == th.bool and th.equal(mask, again)
        assert abs(float(mask.double().mean()) - 0.75) < 0.01
    assert th.equal(before, th.get_rng_state())
    assert agent().draw_noise(4) is None


def test_equal_masks_make_equal_updates_and_others_make_others() -> None:
    """README claim 5."""
    kwargs = {"embed_dim": 8, "n_layers": 2, "n_heads": 2, "dropout": 0.3}
    models = [agent(policy_kwargs=kwargs) for _ in range(3)]
    first, other = models[0].draw_noise(2), models[0].draw_noise(2)
    for model, noise in zip(models, (first, first, other), strict=True):
        model.step(known_batch(), noise)
    same, again, different = ([weight.detach() for weight in model.actor.parameters()] for model in models)
    assert all(map(th.equal, same, again)) and not all(map(th.equal, same, different))


@pytest.mark.parametrize(("sizes", "count"), [((11, 3), 726_019), ((17, 6), 727_558), ((29, 8), 729_608)])
def test_networks_have_the_codes_sizes_and_starts(sizes: tuple[int, int], count: int) -> None:
    """README claim 1."""
    states, actions = sizes
    policy_spaces = spaces.Box(-np.inf, np.inf, (states,)), spaces.Box(-1, 1, (actions,))
    model: Any = DecisionTransformer("MlpPolicy", policy_spaces, seed=0, device="cpu")
    assert sum(weight.numel() for weight in model.policy.parameters()) == count
    assert abs(float(model.actor.embed_step.weight.detach().std()) - 1.0) < 0.01
    block = model.actor.transformer.blocks[0]
    assert abs(float(block.queries_keys_values.weight.detach().std()) - 0.02) < 0.0005
    assert not block.mlp[0].bias.any() and bool(model.actor.embed_state.bias.any())  # PyTorch's own start outside of GPT-2


R = [math.sin(n + 1) for n in range(6)]
RETURNS = [-0.10325385, -0.94472483, -1.85402226, -1.99514227, -1.23833977, -0.27941550]


def six_rows(ends: list[int], cut: bool = False) -> OfflineDataset:
    n = np.arange(6.0)
    terminals = np.isin(n, np.array(ends) - 1)
    return OfflineDataset(
        observations=np.stack([n, n, n], 1),
        actions=np.full((6, 2), 0.5),
        rewards=np.array(R),
        next_observations=np.stack([n, n, n], 1) + 1,
        terminations=terminals & ~(cut & (n == 5)),
        truncations=np.zeros(6, bool),
        observation_space=SPACES[0],
        action_space=SPACES[1],
        episode_ends=np.array(ends),
    )


def test_returns_to_go_are_sums_to_the_end_of_the_episode() -> None:
    """README claim 6."""
    sampler = SequenceSampler(six_rows([6]), 1, padding="before", discount=1.0, seed=0, device="cpu")
    close(sampler.gather(th.arange(6)).returns_to_go[:, 0], RETURNS, 1e-7)  # type: ignore[index]


def test_windows_have_known_rows_steps_and_returns() -> None:
    """README claim 6."""
    model = agent()
    model.set_dataset(six_rows([4, 6]))
    batch = model.batches.gather(th.tensor([0, 2, 5]))
    assert batch.valid.tolist() == [[True, True, True], [False, True, True], [False, False, True]]
    assert batch.timesteps.tolist() == [[0, 1, 2], [0, 2, 3], [0, 0, 1]]
    assert batch.observations[..., 0].tolist() == [[0, 1, 2], [0, 2, 3], [0, 0, 5]]
    known = [[1.13508592, 0.29361494, -0.61568249], [0, -0.61568249, -0.75680250], [0, 0, -0.27941550]]
    close(batch.returns_to_go, known, 1e-7)


def test_every_row_of_an_episode_that_ends_starts_a_window() -> None:
    """README claim 6: the trailing fragment of a log has none, and is not what is asked for either."""
    model, cut = agent(), agent()
    model.set_dataset(six_rows([4, 6]))
    cut.set_dataset(six_rows([4, 6], cut=True))
    assert (len(model.batches), len(cut.batches)) == (6, 4)
    close(cut.policy.largest_return, sum(R[:4]), 1e-7)
    with pytest.raises(UserError, match="None of the 1 episodes ends"):
        agent().set_dataset(six_rows([6], cut=True))


def test_returns_are_the_environments_whatever_is_done_to_rewards() -> None:
    """README claim 6."""
    plain, transformed = agent(), agent(reward_transform="reward_normalize")
    for model in (plain, transformed):
        model.set_dataset(six_rows([4, 6]))
    assert plain.replay_buffer.reward_scale != transformed.replay_buffer.reward_scale
    rows = th.arange(6)
    assert th.equal(plain.batches.gather(rows).returns_to_go, transformed.batches.gather(rows).returns_to_go)
    assert plain.policy.largest_return == transformed.policy.largest_return


def test_states_are_standardised_and_returns_divided() -> None:
    """README claim 6: the update reads what acting reads."""
    model, batch = agent(return_scale=2.0), known_batch()
    mean, std = th.tensor([0.5, -1.0, 0.2]), th.tensor([2.0, 0.7, 1.3])
    model.policy.set_observation_statistics(mean, std)
    raw = batch._replace(observations=batch.observations * std + mean, returns_to_go=2.0 * batch.returns_to_go)  # type: ignore[operator]
    close(model.update(raw, None)["actor_loss"], 1.03078502, 1e-8)
