"""The picture of CPED on the two-mode bandit."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch as th

from sb3_genoffline.cped import CPED
from sb3_genoffline.errors import UserError

from ..runs.provenance import versions
from ..toys import density_toy as toy
from .figures import new_figure
from .nll import STYLES, draw_contours, draw_distributions, legend_below, nll_of, points_style, save_with_numbers

LABELS = {"agent": "actor, constraint on", "other": "actor, constraint off"}


def plot_toy(
    output: str | Path,
    steps: int = 1500,
    flow_steps: int = 1500,
    state: float = 0.35,
    seed: int = 0,
    n_rows: int = 10_000,
    **kwargs: Any,
) -> list[Path]:
    """
    Fit the bandit's density, train an actor with the constraint on and one with it off, and draw them.

    :param output: file name; a PNG, an SVG and a JSON file with the numbers are written
    :param steps: updates of each actor
    :param flow_steps: steps of the density, at most
    :param state: s of the first panel, within (−1, 1)
    :param seed: of data and agents
    :param n_rows: rows, drawn anew, that the numbers are of
    :param kwargs: arguments of the agents over those of :func:`~zoo.toys.density_toy.make_agent`
    """
    if not -1 <= state <= 1:
        raise UserError(f"--state {state}: the bandit's states lie between −1 and 1.")
    seconds, started = {}, time.perf_counter()
    data = toy.make_data(seed=seed)
    agent = toy.make_agent(steps, flow_steps=flow_steps, seed=seed, **kwargs).pretrain(data, log_interval=None)
    seconds["density"] = round(time.perf_counter() - started, 1)
    other = toy.make_agent(steps, constrained=False, seed=seed, **kwargs)
    for name, model in (("agent", agent), ("other", other)):
        started = time.perf_counter()
        model.learn_offline(data, steps, log_interval=None)
        seconds[name] = round(time.perf_counter() - started, 1)

    states, behaviour = toy.draw_behaviour(n_rows, seed + 1)
    with th.no_grad():
        actions = {"data": behaviour, "agent": agent.actor(states), "other": other.actor(states)}
    actions["random"] = 2 * th.rand(n_rows, toy.ACTION_DIM, generator=th.Generator().manual_seed(seed + 2)) - 1
    q99 = agent.policy.nll_q99.item()
    nll = {name: nll_of(agent, states.numpy(), values.numpy()) for name, values in actions.items()}

    figure, (left, middle, right) = new_figure(3, 5.0, 4.6)
    draw_toy_state(figure, left, agent, other, state, seed, q99)
    draw_toy_states(figure, middle, agent, other, (states[:1500], behaviour[:1500]), q99)
    draw_distributions(right, nll, q99, {"data": "behaviour", **LABELS, "random": "random actions"})
    right.set_title(f"{n_rows:,} states")
    figure.suptitle("CPED on the two-mode bandit: Q = 50·a·u(s) pulls along u(s), the learned density holds the actor back")
    numbers = {
        "steps": steps,
        "flow_steps": flow_steps,
        "state": state,
        "seed": seed,
        "n_rows": n_rows,
        "true_nll_of_behaviour": toy.MEAN_NLL,
        "q99_of_data": q99,
        "alpha": agent.alpha_now().item(),
        "actions": {name: toy.measure(states, values, agent) for name, values in actions.items()},
        "seconds": seconds,
        "versions": versions(),
    }
    return save_with_numbers(figure, output, numbers)


def draw_toy_state(figure: Any, axes: Any, agent: CPED, other: CPED, state: float, seed: int, q99: float) -> None:
    """The action square at one state: behaviour, contours, both actors' actions, and which way Q rises."""
    line = np.linspace(-1, 1, 121)
    mesh = np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2)
    here = np.array([state])
    draw_contours(figure, axes, line, line, -nll_of(agent, here, mesh).reshape(121, 121), q99)
    draws = toy.behave(th.full((250, 1), state), th.Generator().manual_seed(seed + 3))
    axes.scatter(*draws.numpy().T, **points_style("data", 9), label="behaviour here")
    for name, model in (("agent", agent), ("other", other)):
        axes.scatter(
            *model.predict(here.astype(np.float32), deterministic=True)[0], **points_style(name, 210), label=LABELS[name]
        )
    u = toy.direction(th.tensor([[state]]))[0].numpy()
    arrow = {"arrowstyle": "-|>", "color": "black", "linewidth": 1.4}
    axes.annotate("", xy=0.28 * u, xytext=-0.28 * u, arrowprops=arrow)
    box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.7, "pad": 1.5}
    axes.text(*(0.12 * np.array([u[1], -u[0]])), "Q rises", ha="center", va="center", fontsize="small", bbox=box)
    axes.set(xlabel="action 0", ylabel="action 1", title=f"at the state s = {state:g}".replace("-", "−"), box_aspect=1)
    axes.set(xlim=(-1.06, 1.06), ylim=(-1.06, 1.06))
    legend_below(axes, ncols=2)


def draw_toy_states(
    figure: Any, axes: Any, agent: CPED, other: CPED, behaviour: tuple[th.Tensor, th.Tensor], q99: float
) -> None:
    """Over all states, how far the actions go along u(s)."""
    line, ways = np.linspace(-1, 1, 121), np.linspace(-1.1, 1.5, 131)
    states = th.as_tensor(line, dtype=th.float32)[:, None]
    u = toy.direction(states)
    mesh = th.as_tensor(ways, dtype=th.float32)[:, None, None] * u  # (ways, states, 2)
    every = states.expand(len(ways), -1, -1).reshape(-1, 1).numpy()
    log_prob = -nll_of(agent, every, mesh.reshape(-1, 2).numpy()).reshape(len(ways), len(line))
    log_prob[(mesh.abs() > 1).any(-1).numpy()] = np.nan  # beyond the action square
    draw_contours(figure, axes, line, ways, log_prob, q99, colorbar=False)
    points, actions = behaviour
    axes.scatter(
        points,
        (actions * toy.direction(points)).sum(-1),
        **points_style("data", 5, linewidths=0.0, alpha=0.5),
        label="behaviour",
    )
    for name, model in (("agent", agent), ("other", other)):
        with th.no_grad():
            way = (model.actor(states) * u).sum(-1)
        axes.plot(line, way, color="white", linewidth=4.0)
        axes.plot(line, way, color=STYLES[name]["color"], linewidth=2.4, label=LABELS[name])
    axes.set(xlabel="state s", ylabel="a·u(s), the way along u(s)", title="at all states", box_aspect=1, ylim=(-1.1, 1.5))
    axes.secondary_yaxis("right", functions=(lambda way: toy.SLOPE * way, lambda q: q / toy.SLOPE)).set_ylabel("Q")
    legend_below(axes, ncols=2)
