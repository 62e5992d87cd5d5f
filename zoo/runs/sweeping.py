"""One agent that acts in several ways: which value of a setting of acting is best, on episodes that no result is told from."""

from collections.abc import Iterator, Sequence
from typing import Any

from sb3_genoffline.common.arguments import nearest
from sb3_genoffline.common.offline_algorithm import AnyAlgorithm
from sb3_genoffline.errors import UserError

from .envs import EnvFactory
from .hyperparameters import parse_value
from .scoring import evaluate


def sweep(model: AnyAlgorithm, make: EnvFactory, name: str, values: Sequence[Any], **protocol: Any) -> dict[str, Any]:
    """
    Evaluate an agent with each value of a setting of acting, all in the same episodes. Nothing is trained, and the agent acts
    in the end as it did before.

    :param model: the agent
    :param make: makes an environment
    :param name: an argument of the algorithm that only says how to act
    :param values: of it, plain or as on the command line
    :param protocol: of :func:`~zoo.runs.scoring.evaluate`
    :return: ``setting``, its value so far as ``before``, and the ``results``, a whole one for each value
    :raises UserError: if there is no such setting, or a value is wrong
    """
    before = getattr(model, name, None)
    results = [evaluate(model, make, **protocol) for _ in each_value(model, name, values)]
    return {"setting": name, "before": before, "results": results}


def each_value(model: AnyAlgorithm, name: str, values: Sequence[Any]) -> Iterator[Any]:
    """
    Let an agent act with one value of a setting of acting after the other, and in the end as it did before.

    :param model: the agent
    :param name: see :func:`sweep`
    :param values: see there
    :return: the value it acts with now, checked
    :raises UserError: see there
    """
    known = acting_arguments(model)
    if name not in known:
        there_are = f" There are: {', '.join(known)}." if known else f" {type(model).__name__} has none."
        raise UserError(f"{name!r} is not a setting of acting that can be swept{nearest(name, known)}{there_are}")
    table = model.argument_table().arguments
    checked = [table[name].check(parse_value(name, value)) for value in values]
    before = getattr(model, name)
    try:
        for value in checked:
            setattr(model, name, value)
            yield value
    finally:
        setattr(model, name, before)


def acting_arguments(model: AnyAlgorithm) -> list[str]:
    """The arguments of an agent's algorithm that only say how it acts."""
    arguments = model.argument_table().arguments
    return [name for name in model.policy.acting_settings if name in arguments]


def sweep_table(found: dict[str, Any]) -> str:
    """:param found: of :func:`sweep`"""
    name, results = found["setting"], found["results"]
    lines = [f"{name:>20}  return (95% of the mean)   normalised"]
    for result in results:
        low, high = result["mean_reward_ci95"]
        score = "" if result["normalized_score"] is None else f"{result['normalized_score']:.1f}"
        lines.append(f"{result[name]!s:>20}  {result['mean_reward']:.1f} ({low:.1f} to {high:.1f})   {score}")
    return "\n".join(lines)
