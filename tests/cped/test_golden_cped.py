"""
CPED in float64 against numbers of the second released code's functions (evalarzj/cped at d19beb4 and 1c5494d, in float64), on
the same weights, with its two slips mended: a norm that divides by √(1 + 1e-6), and an inverse in the wrong order.
"""

from typing import Any

import pytest
import torch as th
from authors import SPACES, A, B, S, close, fill_critics, fill_network, golden_batch, gradient_norm, grid
from torch import Tensor

from sb3_genoffline.cped import CPED
from sb3_genoffline.cped.cped import CPEDNoise
from sb3_genoffline.cped.multiplier import scheduled_alpha
from sb3_genoffline.generative.flow_gan import Discriminator, FlowGAN, FlowGANNoise
from sb3_genoffline.generative.nice import JointNICE
from zoo.runs.hyperparameters import load_hyperparameters

pytestmark = pytest.mark.usefixtures("float64")


def fill_density(density: JointNICE, scaled: bool = True) -> JointNICE:
    fill_network(density, 1)
    density.log_scale.data.copy_(0.3 * th.sin(th.arange(1.0, S + A + 1)) if scaled else th.zeros(S + A))
    return density


def golden_discriminator() -> Discriminator:
    discriminator = Discriminator(S + A, n_scores=S + A)
    fill_network(discriminator, 2)
    for layer, index in enumerate((1, 4)):
        bias: Any = discriminator.net[index].bias
        bias.data.copy_(0.2 * th.sin(th.arange(len(bias)) + 2.0 * layer))
    return discriminator


def golden_noise() -> FlowGANNoise:
    b, j = grid(B, S + A)
    weights = 1.5 * th.cos(2.3 * b[:, :1])
    return FlowGANNoise(3 * th.sin(1.7 * b + 0.9 * j + 0.2), weights, th.zeros(B, S + A))


# ---------------------------------------------------------------------- the density


def test_the_flow_its_density_and_its_inverse_are_the_authors() -> None:
    density, batch, noise = fill_density(JointNICE(S, A, (6, 6))), golden_batch(), golden_noise()
    latents, log_det = density.encode(batch.observations, batch.actions)
    close(latents[0], [0.1876798406, 1.3821989310, 0.9452092537, 0.6365839462, -0.0835061201])
    close(log_det, [0.0528484949] * B)
    log_prob = [-7.6481401535, -7.6607079727, -7.8145010514, -8.2806796561, -7.7497624545, -7.4830787172]
    close(density.log_prob(batch.observations, batch.actions), log_prob)
    decoded = th.cat(density.decode(batch.observations, noise.latents), dim=-1)
    close(decoded[0], [0.4717492635, 1.9682720295, 2.6185888268, 0.9013976444, -2.7888551427])


# by whether the flow has its scales: the discriminator's loss, its penalty and gradient's norm; the flow's loss and norm
LOSSES = {
    False: [1.1876262509, 2.0808992751, 15.9266653133, 7.4594832486, 1.9806840820],
    True: [4.3723915267, 8.4227126527, 90.2420390767, 7.5856886340, 2.2375806131],
}
# g after the flow's step, and weights of its third layer
FLOWS = {
    False: (
        [0.0000999824, 0.0000999852, 0.0000999875, 0.0000999876, 0.0000999872],
        [[-0.0744658722, 0.3667977935, 0.2705593468], [0.2016221461, 0.3958571728, 0.0100172709]],
    ),
    True: (
        [0.2525412700, 0.2728892012, 0.0424359908, -0.2269407602, -0.2875772947],
        [[-0.0744667766, 0.3667965475, 0.2705565859], [0.2018188216, 0.3960551763, 0.0102140098]],
    ),
}
# weights of the discriminator's last layer after its first and its second step
DISCRIMINATORS = {
    False: [
        [[0.1470066695, 0.2018317548, -0.0388806533], [0.2210611344, 0.0922524948, -0.1715597656]],
        [[0.1471066330, 0.2019316533, -0.0387808055], [0.2211610980, 0.0923523933, -0.1714599178]],
    ],
    True: [
        [[0.1470066695, 0.2018317546, -0.0388806533], [0.2210611344, 0.0922524946, -0.1715597656]],
        [[0.1471066352, 0.2019311833, -0.0387807016], [0.2211611001, 0.0923519234, -0.1714598139]],
    ],
}


def test_the_discriminators_norm_and_scores_are_the_authors() -> None:
    batch = golden_batch()
    scores = golden_discriminator()(th.cat([batch.observations, batch.actions], dim=-1))
    close(scores[0], [0.3807012070, 0.0158464651, -0.3603905191, -0.6068971005, -0.6070133743])
    close(scores[5], [0.5832719091, 0.5492284210, 0.2529448223, -0.2020695682, -0.6010903652])


@pytest.mark.parametrize("scaled", [False, True])
def test_two_steps_of_the_flow_gan_are_the_authors(scaled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    model = CPED.official(env=SPACES, policy_kwargs={"net_arch": [4], "flow_net_arch": [6, 6]}, seed=0, device="cpu")
    density: Any = model.policy.density
    fill_density(density, scaled).requires_grad_(True)
    model.discriminator.load_state_dict(golden_discriminator().state_dict())
    monkeypatch.setattr(FlowGAN, "draw_noise", lambda *_: golden_noise())  # the code uses the same latents for both
    trainer, batch = model.density_trainer(), golden_batch()
    heads = []
    for step in range(2):
        info = trainer.step(batch.observations, batch.actions, step % trainer.n_critic_steps == 0)
        heads.append(model.discriminator.net[-1].weight[:2, :3].tolist())  # type: ignore[union-attr,operator,index]
        if step == 0:
            norms = gradient_norm(model.discriminator), gradient_norm(density)
            found = [info["discriminator_loss"], info["gradient_penalty"], norms[0], info["loss"], norms[1]]
            close([float(value) for value in found], LOSSES[scaled])
            first_head = density.shifts[0][4].weight
            close(density.log_scale, FLOWS[scaled][0])
            close(first_head[:2, :3], FLOWS[scaled][1])
            moved = density.log_scale.detach().clone()
    close(heads, DISCRIMINATORS[scaled])
    assert th.equal(density.log_scale, moved)  # of five steps the flow makes one


# ---------------------------------------------------------------------- the actor-critic

# at an update: alpha; the critics' losses; the actor's loss (the code's, with the data's NLL in it) and gradient's norm; the
# first row of the actor's head; of its target's
HEAD = {"actor": [0.0624338339, 0.0140306196, -0.0548809850], "target": [0.0562216674, 0.0125450230, -0.0495098770]}
TRAINED = [[-0.0549159161, 0.0134449993, 0.0624089591], [-0.0442264487, 0.0107694444, 0.0499895762]]
UNTRAINED = [[-0.0552159160, 0.0134449993, 0.0624089591], [-0.0442279487, 0.0107694444, 0.0499895762]]
UPDATES: list[tuple[int, float, float, float, list[float], list[float]]] = [
    (10_000, 1000.0, -127.9666576447, 583.5571201418, HEAD["actor"], HEAD["target"]),
    (30_000, 1000.0, -127.9666576447, 583.5571201418, HEAD["actor"], HEAD["target"]),
    (50_000, 1000.0, -127.8244472668, 583.6064021968, HEAD["actor"], HEAD["target"]),
    (150_000, 10.0, -1.1374561985, 5.8853285880, [0.0624338339, 0.0140306176, -0.0548809850], HEAD["target"]),
    (
        *(450_000, 2.5, -0.1777062662, 1.5100425550),
        *([0.0624338339, 0.0140306123, -0.0548809850], [0.0562216674, 0.0125450229, -0.0495098770]),
    ),
    (
        *(600_000, 1.5, -0.0497396085, 0.9276641262),
        *([0.0624338339, 0.0140306081, -0.0548809851], [0.0562216674, 0.0125450229, -0.0495098770]),
    ),
    (
        *(250_000, 0.1, 0.1294137122, 0.1312881390),
        *([0.0624338339, 0.0142304523, -0.0546809860], [0.0562216674, 0.0125460221, -0.0495088770]),
    ),
]
CRITIC_LOSSES = [0.5119971966, 0.5057913067]
NLL, NLL_OF_DATA = 7.6448450099, 7.7728116676


def golden_agent(antmaze: bool = False) -> CPED:
    small = {"net_arch": [256, 256], "flow_net_arch": [6, 6]}
    model = CPED.official(env=SPACES, antmaze=antmaze, policy_kwargs=small, seed=0, device="cpu")
    for actor, factor in ((model.actor, 1.0), (model.actor_target, 0.9)):
        fill_network(actor, 3, factor)
    fill_critics(model.critic)
    fill_critics(model.critic_target, 0.8)
    density: Any = model.policy.density
    fill_density(density)
    model.policy.fitted.fill_(True)
    return model


def update(model: CPED, t: int) -> dict[str, Tensor]:
    b, i = grid(B, A)
    model._n_updates = t
    return model.update(golden_batch(), CPEDNoise(3 * th.sin(0.9 * b + 2 * i)))


def heads(model: CPED) -> list[list[float]]:
    actors: list[Any] = [model.actor.net[-2], model.actor_target.net[-2]]
    critics = [model.critic.output_layer, model.critic_target.output_layer]
    return [*(layer.weight[0, :3].tolist() for layer in actors), *(layer.weight[0, :3, 0].tolist() for layer in critics)]


@pytest.mark.parametrize("row", UPDATES, ids=lambda row: str(row[0]))
def test_an_update_at_each_stage_of_the_schedule(row: tuple[int, float, float, float, list[float], list[float]]) -> None:
    t, alpha, loss, norm, actor, target = row
    model = golden_agent(antmaze=t == 250_000)
    info = update(model, t)
    assert info["alpha"].item() == alpha
    close([info["nll_pi"].item(), info["epsilon"].item()], [NLL, NLL_OF_DATA])
    close(info["actor_loss"].item() - alpha * info["epsilon"].item(), loss)
    close(gradient_norm(model.actor), norm)
    learns = t >= 30_000
    close(heads(model), [actor, target, *(TRAINED if learns else UNTRAINED)])
    if learns:
        close(info["critic_loss"].item(), sum(CRITIC_LOSSES))


def test_between_the_actors_updates_the_critics_alone_move() -> None:
    model = golden_agent()
    info = update(model, 50_001)
    assert "actor_loss" not in info
    actor, target = [0.0624338339, 0.0139306196, -0.0549809850], [0.0561904505, 0.0125375577, -0.0494828865]
    critics = [TRAINED[0], [-0.0441727328, 0.0107559994, 0.0499271673]]
    close(heads(model), [actor, target, *critics])


STEPS = [0, 2, 50_000, 99_998, 100_000, 100_002, 199_998, 200_000, 200_002, 299_998, 300_000, 399_998, 400_000, 499_998]
STEPS += [500_000, 500_002, 600_000, 700_000]
ALPHAS = {  # dataset: alpha at those updates; None where the code slips for one update of the actor
    "hopper-medium-v2": [1000] * 5 + [10, 10, 7.5, 7.5, 7.5, 5, 5, 2.5, 2.5, None, 1.5, 1.5, 1.5],
    "antmaze-umaze-v2": [None, *[0.25] * 7, *[0.1] * 7, 0.08, 0.08, 0.08],
    "antmaze-large-play-v2": [*[0.25] * 5, *[0.1] * 8, *[0.08] * 5],
}


@pytest.mark.parametrize("dataset", ALPHAS)
def test_alpha_is_the_authors_at_every_boundary(dataset: str) -> None:
    schedule = load_hyperparameters("cped", dataset).arguments["alpha_schedule"]
    for step, alpha in zip(STEPS, ALPHAS[dataset], strict=True):
        assert alpha in (None, scheduled_alpha(schedule, step)), step
