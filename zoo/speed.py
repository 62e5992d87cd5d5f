"""
Measure the speed of training updates: updates/s, achieved GFLOP/s against the algorithm's cost model, and the fraction of the
matrix-multiply peak of the same threads in the same run. Variants take turns, so that a busy machine slows all alike.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces

from sb3_genoffline import ALGOS, OfflineAlgorithm
from zoo.plain_dac import PlainDAC

SHAPES = {"hopper": (11, 3), "halfcheetah": (17, 6), "walker2d": (17, 6), "antmaze": (29, 8)}
SETTINGS: dict[str, dict[str, dict[str, Any]]] = {
    "dac": {"paper": {}, "light": {"n_critics": 2, "n_q_samples": 1}},
}


def dac_flops(model: Any, batch_size: int) -> float:
    """
    Floating-point operations of one DAC update: matrix products only, a multiply-add counts 2; for the paper's network shape.

    :return: number of operations, e.g. 15.26e9 for walker2d at the paper's setting
    """
    s, a, h = model.policy.state_dim, model.policy.action_dim, model.actor.noise_net.input_layer.out_features
    b, n, members, steps = batch_size, model.n_q_samples, model.n_critics, model.n_diffusion_steps
    actor_row = 2 * ((s + a + 32) * h + 2 * h * h + h * a)
    critic_row = 2 * ((s + a) * h + 2 * h * h + h)
    sampling = b * n * steps * actor_row
    target = b * n * members * critic_row
    critic = 3 * b * members * critic_row - 2 * b * members * (s + a) * h
    normalizer, guidance = b * members * critic_row, 2 * b * members * critic_row
    actor = 3 * b * actor_row - 2 * b * (s + a) * h
    dual = b * actor_row if model.eta_lr > 0 else 0
    return float(sampling + target + critic + normalizer + guidance + actor + dual)


COST_MODELS: dict[str, Callable[[Any, int], float]] = {"dac": dac_flops}
PLAIN_FORMS: dict[str, Callable[..., Any]] = {"dac": PlainDAC}


@dataclass
class Variant:
    """
    One way to run the same update.

    :param name: as printed
    :param update: runs one update
    :param onednn: let oneDNN multiply float32 matrices (faster on some AMD CPUs)
    """

    name: str
    update: Callable[[], Any]
    onednn: bool = False


def synthetic_data(obs_dim: int, action_dim: int, n: int = 100_000, seed: int = 0) -> dict[str, np.ndarray]:
    """Random transitions: speed does not depend on what they say."""
    rng = np.random.default_rng(seed)
    return {
        "observations": rng.normal(size=(n, obs_dim)).astype(np.float32),
        "actions": rng.uniform(-1, 1, (n, action_dim)).astype(np.float32),
        "rewards": rng.normal(size=n).astype(np.float32),
        "next_observations": rng.normal(size=(n, obs_dim)).astype(np.float32),
        "terminals": rng.random(n) < 0.01,
        "timeouts": np.zeros(n, dtype=bool),
    }


def set_onednn(enabled: bool) -> None:
    """PyTorch's public switch that sends float32 products to oneDNN. It permits bf16 arithmetic where the CPU has it (AMX)."""
    th.backends.mkldnn.matmul.fp32_precision = "bf16" if enabled else "ieee"  # type: ignore[attr-defined]


def onednn_is_exact() -> bool:
    """Whether the switch keeps float32 accuracy here: the error of a product against float64 stays that of float32."""
    generator = th.Generator().manual_seed(0)
    a, b = (th.randn(512, 512, generator=generator) for _ in range(2))
    exact = a.double() @ b.double()
    set_onednn(True)
    error = ((a @ b).double() - exact).abs().max().item()
    set_onednn(False)
    return error < 1e-3  # float32 errs by about 1e-4 here, bf16 by more than 0.1


def measure(run: Callable[[], Any], repeats: int, device: th.device) -> float:
    """Seconds per call."""
    if device.type == "cuda":
        th.cuda.synchronize(device)
    start = time.perf_counter()
    for _ in range(repeats):
        run()
    if device.type == "cuda":
        th.cuda.synchronize(device)
    return (time.perf_counter() - start) / repeats


def matmul_peak(device: th.device) -> float:
    """Best float32 matrix-multiply rate seen over a few square sizes, in FLOP/s."""
    best = 0.0
    for size in (512, 1024, 2048):
        a, b = th.randn(size, size, device=device), th.randn(size, size, device=device)
        measure(lambda a=a, b=b: a @ b, 2, device)  # type: ignore[misc]
        best = max(best, 2 * size**3 / measure(lambda a=a, b=b: a @ b, 4, device))  # type: ignore[misc]
    return best


def build(algo: str, shape: str, setting: str, device: str, **kwargs: Any) -> OfflineAlgorithm:
    """An agent of the given setting with its buffer filled, ready to update."""
    obs_dim, action_dim = SHAPES[shape]
    box = spaces.Box(-np.inf, np.inf, (obs_dim,)), spaces.Box(-1, 1, (action_dim,))
    model = ALGOS[algo](
        next(iter(ALGOS[algo].policy_aliases)), box, seed=0, device=device, **SETTINGS[algo][setting], **kwargs
    )  # type: ignore[arg-type]
    return model.learn_offline(synthetic_data(obs_dim, action_dim), gradient_steps=2, log_interval=None)


def variants(args: argparse.Namespace) -> list[Variant]:
    """What to time, by the flags."""
    model = build(args.algo, args.shape, args.setting, args.device)
    found = [Variant("eager", lambda: model.train(1, args.batch_size))]
    if args.algo in PLAIN_FORMS:
        source: Any = build(args.algo, args.shape, args.setting, args.device)
        plain = PLAIN_FORMS[args.algo](source)

        def plain_update() -> None:
            batch = source.replay_buffer.sample(args.batch_size)
            plain.update(batch, source.draw_noise(len(batch.rewards)))

        found.insert(0, Variant("plain (reference form)", plain_update))
    if args.compile:
        compiled = build(args.algo, args.shape, args.setting, args.device, compile_networks=True, replacement=True)
        found.append(Variant("compiled", lambda: compiled.train(1, args.batch_size)))
    if args.onednn:
        if not onednn_is_exact():
            raise ValueError("--onednn computes in bf16 on this CPU, which is not the same mathematics: leave the flag out.")
        found += [Variant(f"{variant.name}, oneDNN", variant.update, onednn=True) for variant in found]
    return found


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of ``python -m zoo speed``."""
    parser.add_argument("--algo", default="dac", choices=sorted(SETTINGS), help="algorithm")
    parser.add_argument("--setting", default="paper", help="paper: 10 critics, 10 next actions; light: 2 and 1")
    parser.add_argument("--shape", default="hopper", choices=sorted(SHAPES), help="observation and action sizes")
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--updates", type=int, default=5, help="updates a variant makes in one round")
    parser.add_argument("--rounds", type=int, default=5, help="rounds; the median counts")
    parser.add_argument("--num-threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--compile", action="store_true", help="also time compile_networks=True (warm-up of a minute)")
    parser.add_argument("--onednn", action="store_true", help="also time every variant with oneDNN's float32 products")


def main(args: argparse.Namespace) -> None:
    """Time the variants in turn and print the table."""
    if args.setting not in SETTINGS[args.algo]:
        raise ValueError(f"--setting {args.setting} is not known; use one of {', '.join(SETTINGS[args.algo])}.")
    th.set_num_threads(args.num_threads)
    device = th.device(args.device)
    candidates = variants(args)
    flops = COST_MODELS[args.algo](build(args.algo, args.shape, args.setting, "cpu"), args.batch_size)
    seconds: dict[str, list[float]] = {variant.name: [] for variant in candidates}
    peaks: list[float] = []
    for round_number in range(-1, args.rounds):  # the first round warms up
        for variant in candidates:
            set_onednn(variant.onednn)
            taken = measure(variant.update, args.updates if round_number >= 0 else 2, device)
            if round_number >= 0:
                seconds[variant.name].append(taken)
        set_onednn(False)
        peaks.append(matmul_peak(device))
    peak = max(peaks)
    first = candidates[0].name
    print(
        f"{args.algo}, {args.setting} setting, {args.shape}, batch {args.batch_size}, {device}, {args.num_threads} thread(s)"
    )
    print(f"cost model {flops / 1e9:.2f} GFLOP an update; matrix-multiply peak of the same threads {peak / 1e9:.0f} GFLOP/s")
    print(f"{'variant':28}{'ms':>9}{'updates/s':>11}{'GFLOP/s':>9}{'of peak':>9}{'vs ' + first.split(' ')[0]:>10}")
    for name, times in seconds.items():
        taken = median(times)
        ratio = median(a / b for a, b in zip(seconds[first], times, strict=True))
        rate = flops / taken
        print(f"{name:28}{taken * 1e3:9.1f}{1 / taken:11.2f}{rate / 1e9:9.1f}{rate / peak:9.0%}{ratio:9.2f}x")
