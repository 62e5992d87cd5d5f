"""QDQ in float64 against numbers of the authors' functions (evalarzj/qdq at f083a57, JAX with x64), on the same weights."""

from typing import Any

import numpy as np
import pytest
import torch as th
from authors import SPACES, A, B, S, close, fill_critics, fill_network, golden_batch, gradient_norm, grid, recorded_norms
from gymnasium import spaces
from torch import Tensor

from sb3_genoffline import OfflineDataset
from sb3_genoffline.common.optimizers import gradient_step
from sb3_genoffline.common.schedules import cosine_decay
from sb3_genoffline.data.windows import windowed_returns
from sb3_genoffline.generative.consistency import (
    ConsistencyModel,
    DiffusionTeacher,
    DistillationDraws,
    NoisyScalarNetwork,
    denoising_loss,
    distillation_loss,
    draw_noise_levels,
    karras_grid,
    sample_heun,
)
from sb3_genoffline.nets.ensembles import soft_update
from sb3_genoffline.qdq import QDQ, QDQNoise

pytestmark = pytest.mark.usefixtures("float64")
RADAM = 1e-7  # PyTorch's and optax's differ


@th.no_grad()
def fill_scalar_network(network: NoisyScalarNetwork, factor: float = 1.0) -> None:
    fill_network([network.time_mlp[0], network.time_mlp[2], network.input_layer, *network.layers], 0, factor)
    for layer, norm in enumerate(network.norms):
        k = th.arange(float(norm.num_channels))  # type: ignore[arg-type]
        norm.weight.copy_(factor * (1 + 0.1 * th.sin(k + layer)))  # type: ignore[operator]
        norm.bias.copy_(factor * 0.1 * th.cos(2 * k + layer))  # type: ignore[operator]
    network.fourier_weights.copy_(16 * th.sin(1 + th.arange(8.0)))


def golden_network(factor: float = 1.0) -> NoisyScalarNetwork:
    network = NoisyScalarNetwork(S + A)
    fill_scalar_network(network, factor)
    return network


def rows() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """c (B, S + A), x_0, z and the normal numbers of the teacher's noise levels, (B,) each"""
    b, batch = th.arange(float(B)), golden_batch()
    c = th.cat([batch.observations, batch.actions], dim=-1)
    return c, th.cos(1.3 * b), th.sin(3 * b + 0.5), th.cos(2 * b + 0.1)


def last_weights(model: DiffusionTeacher | ConsistencyModel) -> Tensor:
    weight: Any = model.network.layers[-1].weight
    return weight[0, :4].detach().clone()


# ---------------------------------------------------------------------- the two fits


def test_the_teacher_its_loss_and_its_steps_are_the_authors() -> None:
    c, x_0, z, normal = rows()
    teacher, t = DiffusionTeacher(golden_network()), draw_noise_levels(normal)
    denoised = [0.3896935278, 0.2198138791, -0.7247108897, -0.3835165950, 0.2893751597, 0.9240595219]
    close(teacher(c, x_0 + t * z, t), denoised)
    sampled = [0.4175346061, -0.0066608032, 0.1611539436, -0.4160459590, -0.1318120285, 0.1866794965]
    with th.no_grad():
        close(sample_heun(teacher, c, z), sampled)
    optimizer, after = th.optim.Adam(teacher.parameters()), []
    for step in range(4):
        loss = denoising_loss(teacher, c, x_0, t, z)
        gradient_step(optimizer, loss, 5e-4 * cosine_decay(step, 1000))
        if step == 0:
            close([loss.item(), gradient_norm(teacher)], [0.7263911763, 67.5091893152])
        after.append(last_weights(teacher))
    close(after[0], [-0.0552157609, 0.0139693641, 0.0629568368, 0.0194448973])
    close(after[3], [-0.0560318305, 0.0135550315, 0.0633909385, 0.0204104034])


def test_the_consistency_model_its_distillation_and_its_samples_are_the_authors() -> None:
    c, x_0, z, _ = rows()
    online, average = ConsistencyModel(golden_network()), ConsistencyModel(golden_network(0.9))
    t = th.tensor([80.0, 30.0, 3.0, 0.3, 0.01, 0.002])
    values = [0.1033419406, 0.1104790083, 0.0490661449, -0.5595333637, 0.4640884345, 0.9770005607]
    close(online(c, x_0 + t * z, t), values)
    teacher, levels = DiffusionTeacher(golden_network()), karras_grid(1000).to(x_0)
    draws = DistillationDraws(th.tensor([1, 5, 200, 500, 900, 998]), z)
    optimizer = th.optim.RAdam(online.parameters())
    for step in range(10):
        loss = distillation_loss(online, average, teacher, levels, c, x_0, draws)
        gradient_step(optimizer, loss, 4e-4 * cosine_decay(step, 1000))
        if step == 0:
            close([loss.item(), gradient_norm(online)], [0.0018756425, 1.0916934074])
            close(last_weights(online), [-0.0547133988, 0.0144653590, 0.0624438484, 0.0189344115])
            soft_update(online, average, 0.005)
            close(last_weights(average), [-0.0492715309, 0.0130296423, 0.0562423166, 0.0170598276])
    close(last_weights(online), [-0.0546710981, 0.0144152680, 0.0623671991, 0.0188672247], RADAM)


def test_windows_and_their_returns_are_the_authors() -> None:
    lengths = [150, 200, 201, 215, 999, 1300]
    n, ends = sum(lengths), np.cumsum(lengths) - 1
    terminations, last = np.zeros(n, bool), np.zeros(n, bool)
    terminations[ends[[0, 2, 5]]], last[ends] = True, True
    observations = np.cumsum(np.ones((n, 1)), axis=0)
    data = OfflineDataset(
        observations=observations,
        actions=np.zeros((n, 1)),
        rewards=np.sin(0.01 * np.arange(n)) + 0.5,
        next_observations=observations + 1,
        terminations=terminations,
        truncations=last & ~terminations,
        observation_space=spaces.Box(-np.inf, np.inf, (1,)),
        action_space=spaces.Box(-1, 1, (1,)),
    )
    found = windowed_returns(data)
    assert len(found.rows) == 188 and found.rows.sum() == 322989
    assert found.rows[:8].tolist() == [0, 150, 350, 360, 551, 561, 571, 766] and found.rows[-3:].tolist() == [2735, 2745, 2755]
    expected = [76.7408864370, 105.8088683057, -20.9503351148, -24.3415735549, 35.0175358970, 42.5344959939, 49.0339200841]
    extremes = [found.returns.sum(), found.returns.min(), found.returns.max()]
    close(found.returns[:8], [*expected, 110.5024513760], 1e-5)  # of rewards in float32
    close(found.returns[-3:], [62.7650912539, 55.4020250812, 47.9180496283], 1e-5)
    close(extremes, [9769.1502246110, -32.0079178909, 118.6362734685], 1e-2)


# ---------------------------------------------------------------------- the actor-critic

# (penalty, objective, lambda, alpha): mean y_H, y_L and H(s', a'); L_H, L_L; the critics' loss and their gradient's norm
CRITICS: dict[tuple[Any, Any, float, float], list[float]] = {
    ("paper", "q_bc", 0.8, 0.9): [
        *(-0.1661208580, -0.1299993333, 3.0038235944, 1.0527047760),
        *(1.0754581276, 1.0549801112, 0.5116324603),
    ],
    ("paper", "q_bc", 0.0, 0.9): [
        *(-0.1660138834, -0.1252672440, 2.5631635774, 1.0246652910),
        *(0.9712415684, 1.0193229187, 0.5018492343),
    ],
    ("antmaze_awr", "awr", 0.0, 0.9): [
        *(-0.1660138834, -0.1681153765, 2.5631635774, 1.0246652910),
        *(1.0301836370, 1.0252171256, 0.5059600135),
    ],
    ("antmaze_awr", "awr", 1.0, 0.9): [
        *(-0.1661208580, -0.1675413729, 3.0038235944, 1.0527047760),
        *(1.0468506188, 1.0521193603, 0.5127541316),
    ],
    ("antmaze_q", "q_bc", 1.5, 0.01): [
        *(-0.1661208580, -0.1519157086, 3.0038235944, 1.0527047760),
        *(1.1139099272, 1.1132978756, 0.5233951862),
    ],
}
# the actor's loss and its gradient's norm; its head [input][output] after 1 and after 5 updates; log sigma; the fifth loss
ACTORS: dict[tuple[Any, Any, float, float], list[float]] = {
    ("paper", "q_bc", 0.8, 0.9): [
        *(1.9235595713, 0.7335529098),
        *(0.4997706705, 0.3668985512, 0.1114449571, -0.2287679469),
        *(-0.4401478798, -0.4892888649, -0.3470625422, -0.0328609490),
        *(0.5009737984, 0.3656952825, 0.1114449571, -0.2287679469),
        *(-0.4413484004, -0.4880882199, -0.3482630242, -0.0316603421),
        *(-0.3003, 0.1997, 1.9216730827),
    ],
    ("paper", "q_bc", 0.0, 0.9): [
        *(0.2254521200, 0.0375634376),
        *(0.4997706594, 0.3674985357, 0.1114449571, -0.2287679469),
        *(-0.4395478821, -0.4898888627, -0.3464625443, -0.0334609470),
        *(0.5009738065, 0.3687016850, 0.1114449571, -0.2287679469),
        *(-0.4383474176, -0.4910892777, -0.3452629686, -0.0346604698),
        *(-0.3, 0.2, 0.2253554604),
    ],
    ("antmaze_awr", "awr", 0.0, 0.9): [
        *(2.0803669588, 0.8999242399),
        *(0.4997706706, 0.3668985504, 0.1114449571, -0.2287679469),
        *(-0.4401478798, -0.4892888648, -0.3470625422, -0.0328609489),
        *(0.5009737957, 0.3656952908, 0.1114449571, -0.2287679469),
        *(-0.4413483953, -0.4880882453, -0.3482630190, -0.0316603676),
        *(-0.3003, 0.1997, 2.0781365951),
    ],
    ("antmaze_awr", "awr", 1.0, 0.9): [
        *(2.0803669588, 0.8999242399),
        *(0.4997706706, 0.3668985504, 0.1114449571, -0.2287679469),
        *(-0.4401478798, -0.4892888648, -0.3470625422, -0.0328609489),
        *(0.5009737957, 0.3656952908, 0.1114449571, -0.2287679469),
        *(-0.4413483953, -0.4880882453, -0.3482630190, -0.0316603676),
        *(-0.3003, 0.1997, 2.0781365951),
    ],
    ("antmaze_q", "q_bc", 1.5, 0.01): [
        *(3.4094035911, 1.3727074144),
        *(0.4997706707, 0.3668985501, 0.1114449571, -0.2287679469),
        *(-0.4401478799, -0.4892888647, -0.3470625423, -0.0328609488),
        *(0.5009737982, 0.3656952827, 0.1114449571, -0.2287679469),
        *(-0.4413483973, -0.4880882350, -0.3482630211, -0.0316603574),
        *(-0.3003, 0.1997, 3.4059256605),
    ],
}


def golden_agent(penalty: Any, objective: Any, lam: float, alpha: float) -> QDQ:
    settings = {"alpha": alpha, "beta": 0.8, "lam": lam, "penalty": penalty, "actor_objective": objective}
    small = {"net_arch": [4, 4], "q_net_arch": [256, 256, 256]}
    model = QDQ(
        "MlpPolicy", SPACES, lr_decay_steps=1000, max_grad_norm=0.5, policy_kwargs=small, seed=0, device="cpu", **settings
    )
    for actor, factor in ((model.actor, 1.0), (model.actor_target, 0.9)):
        fill_network(actor, 3, factor)
        actor.log_std.data.copy_(factor * th.tensor([-0.3, 0.2]))
    fill_critics(model.critic)
    fill_critics(model.critic_target, 0.8)
    sampler = model.policy.q_sampler
    fill_scalar_network(sampler.model.network)
    sampler.set_range(th.tensor([-20.0, 60.0]))
    sampler.fitted.fill_(True)
    return model


def golden_noise(awr: bool = False) -> QDQNoise:
    (b, i), (row, n) = grid(B, A), grid(B, 5)
    first, sample, column = grid(B, 30, A)
    baseline = th.sin(first + 0.37 * sample + 1.9 * column) if awr else None
    return QDQNoise(th.cos(1.1 * b + i), 3 * th.sin(0.9 * b + 2 * i), th.sin(1.7 * row + 0.9 * n + 0.2), baseline)


@pytest.mark.parametrize("mode", CRITICS, ids=lambda mode: "-".join(map(str, mode)))
def test_an_update_in_each_of_the_authors_modes(mode: tuple[Any, Any, float, float]) -> None:
    model, batch, noise = golden_agent(*mode), golden_batch(), golden_noise(mode[1] == "awr")
    target_h, target_l, _ = model.critic_targets(batch, batch.next_observations, noise)
    with recorded_norms() as norms:
        info = model.step(batch, noise)
    found = [target_h.mean(), target_l.mean(), *(info[name] for name in ("h_mean", "loss_h", "loss_l", "critic_loss"))]
    close([*map(float, found), *norms], CRITICS[mode])

    *expected, fifth = ACTORS[mode]
    head: Any = model.actor.net[-1]
    first, log_std, norm = head.weight.T.flatten().tolist(), model.actor.log_std.tolist(), gradient_norm(model.actor)
    for n_actor_updates in range(1, 5):  # the critics are held
        loss, _ = model.actor_loss(batch.observations, batch.actions, noise)
        model._n_updates = n_actor_updates * model.policy_delay
        gradient_step(model.actor_optimizer, loss, model.actor_rate_now(model.policy_delay))
        soft_update(model.actor, model.actor_target, model.tau)
    close([info["actor_loss"].item(), norm, *first, *head.weight.T.flatten().tolist(), *log_std], expected)
    close(loss, fifth)


def test_samples_uncertainty_likelihood_and_all_that_moves_in_the_papers_mode() -> None:
    model, batch, noise = golden_agent("paper", "q_bc", 0.8, 0.9), golden_batch(), golden_noise()
    sampler = model.policy.q_sampler
    drawn = sampler.sample(batch.observations, batch.actions, noise.q)
    close(drawn[0], [23.1986019644, 24.2618579948, 24.2645066479, 23.4211370693, 20.2227523490], 1e-9)
    h = [1.4895607000, 0.5997511089, 1.8279916844, 2.3848527001, 3.7378462976, 1.8811175747]
    close(sampler.uncertainty(batch.observations, batch.actions, noise.q), h)
    likelihood = [-2.3560919605, -2.1658365889, -1.9612645235, -2.2251517101, -2.1030519873, -1.9244091142]
    close(model.actor.log_prob(batch.observations, batch.actions), likelihood)
    model.step(batch, noise)
    critics = [
        [-0.4414273279, 0.1078599940, 0.4995716727, 0.1592491813],
        [-0.0907812522, 0.4496540479, 0.3317846150, -0.2723105554],
    ]
    targets = [
        [-0.3538220896, 0.0861570552, 0.3999181098, 0.1277973941],
        [-0.0729545830, 0.3599340924, 0.2655206766, -0.2178819549],
    ]
    actor_target = [
        *([0.4497748392, 0.3306607933], [0.1003561838, -0.2060055362]),
        *([-0.3960845159, -0.4408732726], [-0.3122611694, -0.0298599343]),
    ]
    close(model.critic.output_layer.weight[..., 0], critics)
    close(model.critic_target.output_layer.weight[..., 0], targets)
    head: Any = model.actor_target.net[-1]
    close(head.weight.T, actor_target)
