"""One whole update of DAC, in float64, against numbers of the reference implementation (README claim 24)."""

import pytest
import torch as th
from authors import SPACES, A, S, close, fill_critics, fill_network, grid, recorded_norms

from sb3_genoffline import DAC
from sb3_genoffline.dac import DACNoise
from sb3_genoffline.data.buffers import TransitionBatch

H, N, B, T = 2, 2, 2, 5


def golden_model(**kwargs: object) -> DAC:
    model = DAC(
        "DiffusionPolicy",
        SPACES,
        n_critics=H,
        n_q_samples=N,
        policy_kwargs={"net_arch": [4, 4, 4]},
        device="cpu",
        **kwargs,
    )
    noise_net = model.actor.noise_net
    fill_network([*noise_net.time_net, noise_net.input_layer, *noise_net.trunk], 0)
    fill_critics(model.critic)
    model.actor_target.load_state_dict(model.actor.state_dict())
    model.critic_target.load_state_dict(model.critic.state_dict())
    return model


def golden_batch() -> TransitionBatch:
    k, i = grid(B, S)
    ka, ia = grid(B, A)
    return TransitionBatch(
        observations=th.sin(0.5 * k + i),
        actions=0.8 * th.cos(ka + 2 * ia),
        rewards=th.tensor([1.0, -0.5]),
        next_observations=th.sin(0.5 * k + i + 0.3),
        masks=th.tensor([1.0, 0.0]),
    )


def golden_noise() -> DACNoise:
    q, i = grid(B * N, A)
    next_actions = th.stack([th.cos(q + i), *(th.sin(q + 2 * i + t) for t in range(T, 1, -1))]).view(T, B, N, A)
    k, i = grid(B, A)
    return DACNoise(next_actions=next_actions, t=th.tensor([2, 5]), eps=th.sin(3 * k + i + 0.5))


@pytest.mark.usefixtures("float64")
class TestGoldenUpdate:
    def test_forward_passes(self) -> None:
        model, batch, noise = golden_model(), golden_batch(), golden_noise()
        with th.no_grad():
            output = model.actor(batch.observations, batch.actions, noise.t)
            close(output, [[0.0905648188, 0.1303026182], [0.0902335512, 0.1427147169]])
            q = model.critic(batch.observations, batch.actions)
            close(q, [[-0.2137728105, -0.2228069200], [-0.1721531946, -0.1562029093]])

    def test_next_actions_and_their_values(self) -> None:
        model, batch, noise = golden_model(), golden_batch(), golden_noise()
        with th.no_grad():
            sampled = model.actor_target.sample(batch.next_observations, noise.next_actions)
        expected = [[-0.4039481275, -1], [-1, 0.1429928145], [-1, 0.8182590243], [0.1644677693, 0.4801060601]]
        close(sampled.view(B * N, A), expected)
        q = model.critic_target.score_samples(batch.next_observations, sampled)
        close(q[0], [[-0.2364176288, -0.2115683842], [-0.1666991255, -0.1714177935]])
        close(q[1], [[-0.1540593857, -0.1451380921], [-0.1252228825, -0.1248807773]])

    @pytest.mark.parametrize(
        ("max_q", "expected"), [(False, [0.7782469236, -0.5]), (True, [0.7905472996, -0.5])], ids=["mean", "max"]
    )
    def test_critic_target(self, max_q: bool, expected: list[float]) -> None:
        model = golden_model(max_q=max_q)
        close(model.critic_target_value(golden_batch(), golden_noise()), expected)

    @pytest.mark.parametrize("guidance", ["soft", "hard"])
    def test_the_whole_update(self, guidance: str) -> None:
        model, batch, noise = golden_model(guidance=guidance), golden_batch(), golden_noise()
        with recorded_norms() as gradient_norms:
            info = model.step(batch, noise)
        close(info["critic_loss"], 0.5205989951)
        close(gradient_norms[0], 0.5461862056)
        target = th.tensor([0.7782469236, -0.5])
        with th.no_grad():
            loss_after = (model.critic(batch.observations, batch.actions) - target).square().mean()
            close(loss_after, 0.5198532477, 1e-9)
            target_q = model.critic_target(batch.observations, batch.actions)
            close(target_q, [[-0.2137672981, -0.2228018852], [-0.1721481445, -0.1561988433]], 1e-9)
            x_t = model.actor.add_noise(batch.actions, noise.eps, noise.t)
            close(x_t, [[0.8880547378, 0.5300446465], [-0.3150527245, -1.0377981269]])
        close(info["q_normalizer"], 0.1912290427, 2e-6)  # the reference's C, before the 1e-6 is added
        close(info["q_normalizer"] - 1e-6, 0.1912290427, 1e-9)
        g = model.q_gradient(batch.observations, x_t) / info["q_normalizer"]
        close(g, [[-0.0134941647, 0.1602897698], [0.0008708982, 0.0608890523]], 1e-9)
        guidance_loss, loss, norm, bc_after, eta = {
            "soft": (0.0062971424, 0.5858971333, 0.2814568538, 0.5785531672, 0.9995785532),
            "hard": (0.0076492357, 0.5872492267, 0.2888975980, 0.5785534753, 0.9995785535),
        }[guidance]
        close(info["bc_loss"], 0.5795999909)
        close(info["guidance_loss"], guidance_loss, 1e-9)
        close(info["actor_loss"], loss, 1e-9)
        close(gradient_norms[1], norm, 1e-9)
        with th.no_grad():
            after = model.actor(batch.observations, x_t, noise.t)
            close((after - noise.eps).square().mean(), bc_after, 1e-9)
        close(info["eta"], 1.0)  # the loss, and the log, use η before its step
        close(model.eta_tensor, eta, 1e-9)
