"""Whether a search can be done: what the tables of arguments can't say, asked of the data before the first trial."""

import itertools
import os
from collections.abc import Mapping
from typing import Any

from sb3_genoffline.common.offline_algorithm import AnyAlgorithm
from sb3_genoffline.data.transforms import reward_affine
from sb3_genoffline.errors import UserError
from sb3_genoffline.files.untrusted import short
from sb3_genoffline.registry import ALGOS

from .objectives import Judge, check_judged
from .plan import TunePlan

_PARTNERS = 50
"""So many settings of the other parameters are tried before a value is refused."""


def check_trials(plan: TunePlan) -> None:
    """
    Make an agent of the settings without a search and of every value of the block, the ends of ranges among them.

    :param plan: of the search
    :raises UserError: if there is none, or the objective can't judge such agents
    """
    judge = Judge(plan.evaluation, plan.data, plan.wish.seed, "cpu", plan.wish.env)
    agent = _made(plan, judge, {})
    check_judged(plan.evaluation["objective"], agent)
    judge.check(agent)
    grid = {name: parameter.extremes for name, parameter in plan.space.parameters.items()}
    for name, values in grid.items():
        for value in values:
            try:
                _made(plan, judge, {name: value})
            except UserError as error:
                others = [[(other, one) for one in grid[other]] for other in grid if other != name]
                partners = (dict(pairs) for pairs in itertools.islice(itertools.product(*others), _PARTNERS))
                if not any(_can_be_made(plan, judge, {name: value, **partner}) for partner in partners):
                    raise UserError(f"{plan.where}: {name}={short(value)} can't be tried: {error}") from None


def _can_be_made(plan: TunePlan, judge: Judge, values: Mapping[str, Any]) -> bool:
    try:
        _made(plan, judge, values)
    except UserError:
        return False
    return True


def _made(plan: TunePlan, judge: Judge, values: Mapping[str, Any]) -> AnyAlgorithm:
    settings = plan.settings(plan.space.nested(values))
    data = plan.data
    row = 4 * sum(getattr(data, name)[:1].size for name in ("observations", "actions", "rewards", "next_observations"))
    defaults = {name: argument.default for name, argument in ALGOS[plan.wish.algo].argument_table().arguments.items()}
    for name, value in {**defaults, **settings.arguments}.items():
        if name.endswith("batch_size") and isinstance(value, int) and value * row > _memory():
            raise UserError(
                f"{name}={value}: such a batch has {value * row / 1e9:,.0f} GB, more than this machine's memory of "
                f"{_memory() / 1e9:,.0f} GB: use a smaller one."
            )
    agent: AnyAlgorithm = ALGOS[plan.wish.algo](settings.policy, data, device="cpu", **settings.arguments)
    reward_affine(judge.training, agent.reward_transform)
    return agent


def _memory() -> int:
    """Bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
