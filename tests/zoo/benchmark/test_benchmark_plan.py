"""Plans of `python -m zoo benchmark`: which jobs, in which order, with which settings."""

import itertools
from pathlib import Path
from typing import Any

import pytest
import yaml

from sb3_genoffline import DAC
from sb3_genoffline.common.arguments import constructor_arguments
from zoo.benchmark.plan import Plan, read_plan
from zoo.runs.hyperparameters import load_hyperparameters
from zoo.runs.scoring import EVAL_SEED

CPU_PLAN = Path(__file__).parents[3] / "zoo" / "benchmarks" / "cpu.yml"


def plan_of(tmp_path: Path, **changes: Any) -> Plan:
    content: dict[str, Any] = {
        "algorithms": {"dac": None, "greedy": {"algo": "dac", "hyperparameters": {"eta": 0.1}}},
        "stages": [{"datasets": ["a/b-v0"], "seeds": [0]}],
    }
    path = tmp_path / "plan.yml"
    path.write_text(yaml.safe_dump(content | changes))
    return read_plan(path)


def test_stages_run_in_order_and_no_cell_twice(tmp_path: Path) -> None:
    stages = [
        {"datasets": ["a/b-v0"], "seeds": [0, 1], "algorithms": ["greedy"]},
        {"datasets": ["a/b-v0", "c/d-v0"], "seeds": [0]},
    ]
    plan = plan_of(tmp_path, stages=stages)
    assert [(job.name, job.dataset, job.seed) for job in plan.jobs] == [
        *[("greedy", "a/b-v0", 0), ("greedy", "a/b-v0", 1), ("dac", "a/b-v0", 0)],
        *[("dac", "c/d-v0", 0), ("greedy", "c/d-v0", 0)],
    ]
    assert plan.algorithms == ["dac", "greedy"] and plan.datasets == ["a/b-v0", "c/d-v0"] and plan.title == "plan"


def test_an_algorithms_settings_win_over_the_datasets_and_those_over_the_defaults(tmp_path: Path) -> None:
    plan = plan_of(
        tmp_path,
        defaults={"profile": "cpu", "n_timesteps": 50, "evaluations": 5, "hyperparameters": {"tau": 0.1, "eta": 9.0}},
        datasets={"a/b-v0": {"n_timesteps": 60, "eval_episodes": 3, "hyperparameters": {"tau": 0.2}}},
    )
    dac, greedy = plan.jobs
    assert dac.updates == greedy.updates == 60
    assert dac.config["hyperparameters"]["tau"] == greedy.config["hyperparameters"]["tau"] == 0.2
    assert dac.config["hyperparameters"]["eta"] == 9.0 and greedy.config["hyperparameters"]["eta"] == 0.1
    assert dac.config["hyperparameters"]["n_critics"] == 4  # the profile's
    assert dac.config["evaluation"] == {"freq": 12, "episodes": 3, "final_episodes": 20, "final_seed": EVAL_SEED}
    assert greedy.config["algo"] == "dac"


def test_a_jobs_key_depends_on_all_it_is_made_of_and_on_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def keys(**changes: Any) -> list[str]:
        return [job.key for job in plan_of(tmp_path, **changes).jobs]

    before = keys()
    assert keys(title="other") == before == keys(defaults={"eval_episodes": 10})
    for setting in ({"n_timesteps": 7}, {"final_episodes": 3}, {"device": "cuda"}, {"hyperparameters": {"tau": 0.3}}):
        assert not set(keys(defaults=setting)) & set(before)
    before_unnamed = plan_of(tmp_path).jobs[0].config["defaults"]
    assert before_unnamed["ddim_stride"] == 1 and before_unnamed["policy_kwargs"]["variance"] == "beta"
    monkeypatch.setattr(DAC.__init__, "__kwdefaults__", DAC.__init__.__kwdefaults__ | {"ddim_stride": 2})
    constructor_arguments.cache_clear()
    assert not set(keys()) & set(before)  # a constructor's default is a setting too
    monkeypatch.undo()
    constructor_arguments.cache_clear()
    seeds = keys(stages=[{"datasets": ["a/b-v0"], "seeds": [0, 1]}])
    assert seeds[:2] == before and len(set(seeds)) == 4


def test_an_algorithm_that_cannot_be_made_is_skipped_with_the_reason(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, algorithms={"dac": None, "nosuch": None, "wrong": {"algo": "dac", "profile": "gpuu"}})
    assert [job.name for job in plan.jobs] == ["dac"]
    reasons = {skip.name: skip.reason for skip in plan.skipped}
    assert "'nosuch' is not known" in reasons["nosuch"] and "'gpuu' is not in dac/hyperparameters.yml" in reasons["wrong"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stage": []}, "'stage' is not known; did you mean 'stages'"),
        ({"stages": []}, "nothing is to be run"),
        ({"defaults": {"profil": "cpu"}}, "defaults: 'profil' is not known; did you mean 'profile'"),
        ({"algorithms": {"dac": {"eta": 1}}}, "algorithms, dac: 'eta' is not known"),
        ({"stages": [{"datasets": ["a/b-v0"], "seeds": [0], "algorithms": ["dca"]}]}, "did you mean 'dac'"),
        ({"stages": [{"datasets": ["a/b-v0"]}]}, "stage 1 needs `datasets` and `seeds`"),
        ({"stages": [{"datasets": ["a/b-v0"], "seeds": ["x"]}]}, "seed 'x' must be a whole number"),
        ({"datasets": {"c/d-v0": {"n_timesteps": 1}}}, "no stage has the dataset c/d-v0"),
        ({"defaults": {"evaluations": 0}}, "evaluations=0 must be a whole number from 1"),
    ],
)
def test_what_a_plan_says_wrongly_is_an_error_that_names_it(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        plan_of(tmp_path, **changes)


def test_the_committed_plan_runs_all_algorithms_with_three_seeds_where_the_budget_is() -> None:
    plan = read_plan(CPU_PLAN)
    first = "genoffline/hopper/medium-replay-v0"
    cells = [(job.name, job.dataset, job.seed) for job in (*plan.jobs, *plan.skipped)]
    datasets = sorted({dataset for _, dataset, _ in cells})
    assert len(plan.algorithms) == 10 and len(datasets) == 5
    for name, dataset in itertools.product(plan.algorithms, datasets):  # all side by side: the same seeds for each
        seeds = [0, 1, 2] if dataset == first else [0, 1] if "walker2d" in dataset else [0]
        assert [cell[2] for cell in cells if cell[:2] == (name, dataset)] == seeds
    ours = [job.dataset == first for job in plan.jobs]
    assert ours == sorted(ours, reverse=True)
    for job in plan.jobs:
        changes = {"dac": {"n_timesteps": 40_000, "lr_decay_steps": 40_000, "tau": 0.02}, "cped": {"n_timesteps": 40_000}}
        assert job.config["hyperparameters"] == load_hyperparameters(job.name, job.dataset, "cpu").plain | changes.get(
            job.name, {}
        )
