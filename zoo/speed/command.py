"""
Measure the speed of training updates: updates/s; where there is a cost model of the algorithm, achieved GFLOP/s and the
fraction of the matrix-multiply peak of the same threads in the same run; and steps/s of the fits before the updates, where
there are any. Variants take turns, so that a busy machine slows all alike.
"""

import argparse
import itertools
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces

from sb3_genoffline import ALGOS
from sb3_genoffline.common.fitting import Fit
from sb3_genoffline.errors import UserError
from sb3_genoffline.nets.ensembles import EnsembleLinear

from ..runs.hyperparameters import load_hyperparameters, own_file, read_yaml
from .costs import bcq_flops, bear_flops, linear_row, mcq_flops, onestep_flops
from .plain_cped import PlainCPED
from .plain_dac import PlainDAC
from .plain_qdq import PlainQDQ

SHAPES = {"hopper": (11, 3), "halfcheetah": (17, 6), "walker2d": (17, 6), "antmaze": (29, 8)}


N_ROWS = 100_000
"""Of the data that updates are timed on."""
PEAK_SIZES = (512, 1024, 2048)
"""Of the square matrices whose products give the peak."""
_NOT_PLAIN = ("critic_layer_norm", "critic_activation_fn", "activation_fn")
"""What the plain forms do not have, and the profile for a CPU has."""


def setting_arguments(algo: str, setting: str) -> dict[str, Any]:
    """
    :param algo: name in ``ALGOS``
    :param setting: ``"paper"``: the constructor's defaults; ``"light"``: the profile for a CPU with the networks of the plain
        forms; else another profile, or a dataset with an entry of its own
    :raises UserError: naming the settings that there are
    """
    if setting == "paper":
        return {}
    content = read_yaml(own_file(ALGOS[algo])) if own_file(ALGOS[algo]).is_file() else {}
    profiles = content.get("profiles") or {}
    profile = "cpu" if setting == "light" else setting
    if profile in profiles:
        found = dict(load_hyperparameters(algo, "default", profile).arguments)
        if setting == "light":
            kwargs = found.get("policy_kwargs") or {}
            found["policy_kwargs"] = {name: value for name, value in kwargs.items() if name not in _NOT_PLAIN}
        return found
    if setting not in content:
        known = ["paper", *(["light"] if "cpu" in profiles else []), *profiles]
        raise UserError(f"--setting {setting} is not known; use one of {', '.join(known)}, or a dataset with an entry.")
    return load_hyperparameters(algo, setting).arguments


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


def qdq_flops(model: Any, batch_size: int) -> float:
    """
    Floating-point operations of one QDQ update with the ``q_bc`` objective: matrix products only, a multiply-add counts 2. The
    consistency model's first layer takes (s, a) once for all n samples; the actor's update counts by its share of the updates.

    :return: number of operations, e.g. 4.23e9 for hopper at the paper's setting
    """

    def row(widths: list[int]) -> int:
        return 2 * sum(i * o for i, o in itertools.pairwise(widths))

    s, a, b, n = model.policy.state_dim, model.policy.action_dim, batch_size, model.n_q_samples
    actor_widths = [s, *(layer.out_features for layer in model.actor.net if isinstance(layer, th.nn.Linear))]
    ensemble = [layer for layer in model.critic.modules() if isinstance(layer, EnsembleLinear)]
    critic_widths = [s + a, *(layer.weight.shape[2] for layer in ensemble)]
    q_widths = model.policy.q_sampler.model.network.net_arch
    actor_row, critic_row, members = row(actor_widths), row(critic_widths), 2
    sampling = b * (row([s + a, q_widths[0]]) + n * row([1, *q_widths, 1])) if model.penalty != "none" else 0
    target = b * (actor_row + members * critic_row)
    critic = b * members * (3 * critic_row - row(critic_widths[:2]))
    actor = b * (3 * actor_row - row(actor_widths[:2]) + 2 * members * critic_row)
    return float(sampling + target + critic + actor / model.policy_delay)


def cped_flops(model: Any, batch_size: int) -> float:
    """
    Floating-point operations of one CPED update in which all parts learn: matrix products only, a multiply-add counts 2. The
    actor's step counts by its share of the updates; it takes the density forward and backward at its own actions and, where ε
    is the batch's mean, forward at the data's.

    :return: number of operations, e.g. 0.64e9 for hopper at the defaults
    """
    actor, density, b, members = linear_row(model.actor), linear_row(model.policy.density), batch_size, 2
    first_actor = linear_row(next(layer for layer in model.actor.net if isinstance(layer, th.nn.Linear)))
    layers = [layer.weight.shape[1:] for layer in model.critic.modules() if isinstance(layer, EnsembleLinear)]
    critic, first_critic = 2 * sum(i * o for i, o in layers), 2 * layers[0][0] * layers[0][1]
    target = b * (actor + members * critic)
    critics = b * members * (3 * critic - first_critic)
    of_batch = 1 if model.epsilon == "batch_mean" else 0
    constraint = b * (2 + of_batch) * density if model.constrained else 0
    actor_step = b * (3 * actor - first_actor + 2 * members * critic) + constraint
    return float(target + critics + actor_step / model.policy_delay)


COST_MODELS: dict[str, Callable[[Any, int], float]] = {
    **{"dac": dac_flops, "qdq": qdq_flops, "cped": cped_flops},
    **{"bcq": bcq_flops, "bear": bear_flops, "mcq": mcq_flops, "onestep": onestep_flops},
}
PLAIN_FORMS: dict[str, Callable[..., Any]] = {"dac": PlainDAC, "qdq": PlainQDQ, "cped": PlainCPED}


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


def synthetic_data(obs_dim: int, action_dim: int, n: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Random transitions, each of which goes on from the last: speed does not depend on what they say."""
    rng = np.random.default_rng(seed)
    states = rng.normal(size=(n + 1, obs_dim)).astype(np.float32)
    return {
        "observations": states[:-1],
        "actions": rng.uniform(-1, 1, (n, action_dim)).astype(np.float32),
        "rewards": rng.normal(size=n).astype(np.float32),
        "next_observations": states[1:],
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
    for size in PEAK_SIZES:
        a, b = th.randn(size, size, device=device), th.randn(size, size, device=device)
        measure(lambda a=a, b=b: a @ b, 2, device)  # type: ignore[misc]
        best = max(best, 2 * size**3 / measure(lambda a=a, b=b: a @ b, 4, device))  # type: ignore[misc]
    return best


def make_agent(algo: str, shape: str, setting: str, device: str, **kwargs: Any) -> Any:
    """An agent of the given setting."""
    obs_dim, action_dim = SHAPES[shape]
    box = spaces.Box(-np.inf, np.inf, (obs_dim,)), spaces.Box(-1, 1, (action_dim,))
    arguments = setting_arguments(algo, setting) | kwargs
    return ALGOS[algo](next(iter(ALGOS[algo].policy_aliases)), box, seed=0, device=device, **arguments)


def build(algo: str, shape: str, setting: str, device: str, **kwargs: Any) -> Any:
    """
    An agent of the given setting with its buffer filled, ready to update. Each fit takes one step, and everything learns from
    the first update on: updates cost the same however long what came before them was.
    """
    starts = {name: 0 for name in ALGOS[algo].argument_table().arguments if name.endswith(("_start", "warmup_steps"))}
    model = make_agent(algo, shape, setting, device, **{**starts, **kwargs})
    data = model.set_dataset(synthetic_data(*SHAPES[shape], N_ROWS))
    if model.uses_fitted_model():
        model.begin_fits()
        for fit in model.fits.left:
            fit.n_steps = 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # about what was learned: nothing, and there was nothing to learn
        return model.learn_offline(data, gradient_steps=2, log_interval=None)


def make_fits(algo: str, shape: str, setting: str, device: str) -> list[Fit]:
    """What an agent of the given setting fits before its updates, each fit ready for its first step."""
    model = make_agent(algo, shape, setting, device)
    model.set_dataset(synthetic_data(*SHAPES[shape], N_ROWS))
    fits: list[Fit] = model.make_fits() if model.uses_fitted_model() else []
    for fit in fits:
        fit.begin()
    return fits


def variants(args: argparse.Namespace) -> list[Variant]:
    """
    What to time, by the flags.

    :raises UserError: for a flag that the algorithm or this CPU has no use for
    """
    model = build(args.algo, args.shape, args.setting, args.device)
    found = [Variant("eager", lambda: model.train(1, args.batch_size))]
    if args.algo in PLAIN_FORMS:
        source = build(args.algo, args.shape, args.setting, args.device)
        try:
            plain = PLAIN_FORMS[args.algo](source)
        except UserError as error:
            print(f"no plain form of this setting: {error}")
        else:

            def plain_update() -> None:
                batch = source.replay_buffer.sample(args.batch_size)
                plain.update(batch, source.draw_noise(len(batch.rewards)))

            found.insert(0, Variant("plain (reference form)", plain_update))
    if args.onednn:
        if not onednn_is_exact():
            raise UserError("--onednn computes in bf16 on this CPU, which is not the same mathematics: leave the flag out.")
        found += [Variant(f"{variant.name}, oneDNN", variant.update, onednn=True) for variant in found]
    return found


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of ``python -m zoo speed``."""
    parser.add_argument("--algo", default="dac", choices=sorted(ALGOS), help="algorithm")
    parser.add_argument("--setting", default="paper", help="paper, light (for a CPU), a profile, or a dataset with an entry")
    parser.add_argument("--shape", default="hopper", choices=sorted(SHAPES), help="observation and action sizes")
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--updates", type=int, default=5, help="updates a variant makes in one round")
    parser.add_argument("--rounds", type=int, default=5, help="rounds; the median counts")
    parser.add_argument("--num-threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--onednn", action="store_true", help="also time every variant with oneDNN's float32 products")


def main(args: argparse.Namespace) -> None:
    """Time the variants in turn and print the table."""
    th.set_num_threads(args.num_threads)
    device = th.device(args.device)
    candidates = variants(args)
    fits = make_fits(args.algo, args.shape, args.setting, args.device)
    fitting = [Variant(fit.name, fit.update) for fit in fits]
    cost = COST_MODELS.get(args.algo)
    flops = None if cost is None else cost(build(args.algo, args.shape, args.setting, "cpu"), args.batch_size)
    seconds: dict[str, list[float]] = {variant.name: [] for variant in [*candidates, *fitting]}
    peaks: list[float] = []
    for round_number in range(-1, args.rounds):  # the first round warms up
        for variant in [*candidates, *fitting]:
            set_onednn(variant.onednn)
            taken = measure(variant.update, args.updates if round_number >= 0 else 2, device)
            if round_number >= 0:
                seconds[variant.name].append(taken)
        set_onednn(False)
        if flops is not None:
            peaks.append(matmul_peak(device))
    peak = max(peaks, default=0.0)
    first = candidates[0].name
    print(
        f"{args.algo}, {args.setting} setting, {args.shape}, batch {args.batch_size}, {device}, {args.num_threads} thread(s)"
    )
    if flops is None:
        print(f"there is no cost model of {args.algo}: times alone")
    else:
        print(
            f"cost model {flops / 1e9:.2f} GFLOP an update; matrix-multiply peak of the same threads {peak / 1e9:.0f} GFLOP/s"
        )
    print(f"{'variant':28}{'ms':>9}{'updates/s':>11}{'GFLOP/s':>9}{'of peak':>9}{'vs ' + first.split(' ')[0]:>10}")
    for variant in candidates:
        times = seconds[variant.name]
        taken = median(times)
        ratio = median(a / b for a, b in zip(seconds[first], times, strict=True))
        achieved = f"{'':18}" if flops is None else f"{flops / taken / 1e9:9.1f}{flops / taken / peak:9.0%}"
        print(f"{variant.name:28}{taken * 1e3:9.1f}{1 / taken:11.2f}{achieved}{ratio:9.2f}x")
    for fit in fits:
        taken = median(seconds[fit.name])
        print(
            f"fit {fit.name:24}{taken * 1e3:9.2f}{1 / taken:11.1f}  steps/s; its {fit.n_steps:,} steps take "
            f"{fit.n_steps * taken / 60:,.1f} min"
        )
