"""Plans of `python -m zoo benchmark`: which jobs, in which order, with which settings."""

import itertools
from pathlib import Path
from typing import Any

import pytest
import yaml

from sb3_genoffline import DAC
from sb3_genoffline.common.arguments import constructor_arguments
from sb3_genoffline.registry import ALGOS
from zoo.benchmark.plan import Plan, read_plan
from zoo.benchmark.records import job_run, open_record, record_path
from zoo.runs.evaluations import FINAL_ERROR
from zoo.runs.hyperparameters import load_hyperparameters
from zoo.runs.scoring import EVAL_SEED
from zoo.runs.writing import write_json

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
    assert dac.config["evaluation"] == {
        **{"freq": 12, "episodes": 3, "final_seed": EVAL_SEED},
        **{"final_episodes": None, "final_error": FINAL_ERROR},  # they follow from the spread
    }
    assert greedy.config["algo"] == "dac"


def test_a_jobs_key_depends_on_all_it_is_made_of_and_on_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def keys(**changes: Any) -> list[str]:
        return [job.key for job in plan_of(tmp_path, **changes).jobs]

    before = keys()
    assert keys(title="other") == before == keys(defaults={"eval_episodes": 10})
    for setting in (
        *({"n_timesteps": 7}, {"device": "cuda"}, {"hyperparameters": {"tau": 0.3}}),
        *({"final_episodes": 3}, {"final_error": 1.0}),
    ):
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
        ({"stages": [{"datasets": ["a/b-v0"], "seeds": ["x"]}]}, r"\['x'\] has the entry 'x', which must be a"),
        ({"datasets": {"c/d-v0": {"n_timesteps": 1}}}, "no stage has the dataset c/d-v0"),
        ({"stages": [{"datasets": ["a/b-v0"], "seeds": [True]}]}, r"stage 1: seeds=\[True\] has the entry True"),
        ({"stages": [{"datasets": ["a/b-v0"], "seeds": [2**32]}]}, "which must lie in"),
        ({"stages": [{"datasets": ["a/b-v0"], "seeds": 3}]}, "seeds=3 must be a list of whole numbers"),
        ({"stages": [{"datasets": "abc", "seeds": [0]}]}, "datasets='abc' must be a list of words"),
        ({"stages": [{"datasets": ["a/b-v0", None], "seeds": [0]}]}, "has the entry None, which must be a word"),
        ({"stages": [{"datasets": [""], "seeds": [0]}]}, "stage 1: '' is not a name: use text"),
        ({"stages": [{"datasets": ["a/b-v0"], "seeds": [0], "algorithms": "dac"}]}, "algorithms='dac' must be a list"),
        ({"stages": "abc"}, "stages='abc' must be a list"),
        ({"stages": ["abc"]}, "stage 1 must map names to values, but is 'abc'"),
        ({"algorithms": ["dac"]}, r"algorithms, must map names to values, but is \['dac'\]"),
        ({"algorithms": {"dac": 3}}, "algorithms, dac must map names to values, but is 3"),
        ({"algorithms": {1: None}}, "has the name 1, which is not a word"),
        ({"algorithms": {"dac": {"n_timesteps": True}}}, "algorithms, dac: n_timesteps=True must be a whole number"),
        ({"defaults": {"n_timesteps": 50.0}}, "n_timesteps=50.0 must be a whole number: write 50"),
        ({"defaults": {"hyperparameters": [1]}}, r"hyperparameters=\[1\] must be a mapping"),
        ({"defaults": {"device": "gpu"}}, "defaults: device 'gpu' is not known; use auto, cpu"),
        ({"defaults": {"profile": 3}}, "profile=3 must be a word"),
        ({"datasets": {"a/b-v0": {"eval_episodes": 0}}}, "datasets, a/b-v0: eval_episodes=0 must be at least 1"),
        ({"title": ["a"]}, r"title=\['a'\] must be a word"),
        ({"defaults": {"evaluations": 0}}, "defaults: evaluations=0 must be at least 1"),
        (
            {"algorithms": {"../../../x": {"algo": "dac"}}},
            "algorithms: '../../../x' names no algorithm: files are named after",
        ),
        ({"algorithms": {"a\\b": {"algo": "dac"}}}, "names no algorithm"),
        ({"algorithms": {"..": {"algo": "dac"}}}, "names no algorithm"),
        ({"algorithms": {"x" * 41: {"algo": "dac"}}}, "names no algorithm"),
        ({"algorithms": {"a\x1b[2J": {"algo": "dac"}}}, "is not a name: use text"),
        ({"stages": [{"datasets": [["a"]], "seeds": [0]}]}, r"has the entry \['a'\], which must be a word"),
        ({"defaults": {"env": 3}}, "defaults: env=3 must be a word"),
        ({"defaults": {"final_error": 0.0}}, "defaults: final_error=0.0 must be at least 0.01"),
    ],
)
def test_what_a_plan_says_wrongly_is_an_error_that_names_it(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        plan_of(tmp_path, **changes)


@pytest.mark.parametrize("name", ["claims", "cpu", "learning", "small", "tied"])
def test_the_committed_plans_evaluate_until_the_spread_is_small_enough(name: str) -> None:
    for job in read_plan(CPU_PLAN.with_name(f"{name}.yml")).jobs:
        evaluation, is_slow = job.config["evaluation"], (name, job.name) == ("learning", "diffuser")
        assert (evaluation["final_episodes"], evaluation["final_error"]) == (20, 2.5 if is_slow else FINAL_ERROR)


def test_an_environment_is_a_setting_of_its_own(tmp_path: Path) -> None:
    before, (named, _) = plan_of(tmp_path).jobs[0], plan_of(tmp_path, defaults={"env": "Hopper-v5"}).jobs
    assert "env" not in before.config and named.config == before.config | {"env": "Hopper-v5"} and named.key != before.key


def test_files_of_a_plan_lie_in_its_folder_whatever_its_datasets_are_called(tmp_path: Path) -> None:
    datasets = ["../../../x.npz", "/etc/passwd", "a/../../b-v0", "~/x.hdf5"]
    for job in plan_of(tmp_path, stages=[{"datasets": datasets, "seeds": [0]}]).jobs:
        assert record_path(tmp_path / "logs", job).resolve().parent == (tmp_path / "logs" / "jobs").resolve()


def test_a_record_of_another_job_is_no_record_of_this_one(tmp_path: Path) -> None:
    job, other = plan_of(tmp_path).jobs
    record = open_record(tmp_path, job)
    assert open_record(tmp_path, job) == record
    write_json(record_path(tmp_path, job), record | {"config": other.config | {"dataset": "/etc/passwd"}})
    with pytest.raises(ValueError, match=r"\.json is the record of another job than the plan's: move it away"):
        open_record(tmp_path, job)
    assert job_run(tmp_path, {"key": "k", "config": {"algo": "../../elsewhere", "dataset": "a/b-v0"}}) is None


def test_the_benchmark_of_all_systems_treats_them_alike_and_its_claims_share_the_runs() -> None:
    plan, claims = (read_plan(CPU_PLAN.with_name(f"{name}.yml")) for name in ("small", "claims"))
    held = {"eta": 0.05, "eta_lr": 0.0}
    outside_the_rule = {"dac_held": held, "dac_quiet": held | {"acting_noise_scale": 0.1}}
    assert sorted(plan.algorithms) == sorted([*ALGOS, *outside_the_rule]) and not plan.skipped and not claims.skipped
    once = {(job.name, job.dataset) for job in plan.jobs if job.seed == 0}
    assert once == set(itertools.product(plan.algorithms, plan.datasets))
    locomotion = [dataset for dataset in plan.datasets if "maze" not in dataset]
    three = itertools.product(("bc", "td3_bc", "iql", "dac", "qdq", "cped"), locomotion, range(3))
    assert len(locomotion) == 6 and set(three) <= {(job.name, job.dataset, job.seed) for job in plan.jobs}
    for job in plan.jobs:
        beside = outside_the_rule.get(job.name, {})
        assert job.config["hyperparameters"] == load_hyperparameters(job.config["algo"], job.dataset, "small").plain | beside
    shared = {job.key for job in claims.jobs if job.name in ALGOS}
    assert shared <= {job.key for job in plan.jobs} and len({job.key for job in claims.jobs}) == 90
    for claim in claims.claims:
        ours, plain = (next(job for job in claims.jobs if job.name == name) for name in (claim.ours, claim.plain))
        settings = [job.config["hyperparameters"] for job in (ours, plain)]
        changed = {name for name in {**settings[0], **settings[1]} if settings[0].get(name) != settings[1].get(name)}
        of_the_constraint = {"alpha", "alpha_mode", "dequantization", "constraint", "epsilon", "policy_kwargs"}
        changed -= of_the_constraint if plain.config["hyperparameters"].get("alpha") == 0 else set()
        assert changed in ({"guidance"}, {"q_target"}, {"penalty"}, set())  # at alpha 0 no density is fitted


def test_the_plan_of_the_hard_set_runs_ten_algorithms_as_their_profile_is() -> None:
    plan = read_plan(CPU_PLAN)
    assert len(plan.algorithms) == 10 and plan.datasets == ["genoffline/walker2d/clipped-noise-v0"] and not plan.skipped
    assert {(job.name, job.seed) for job in plan.jobs} == set(itertools.product(plan.algorithms, (0, 1)))
    for job in plan.jobs:
        assert job.config["hyperparameters"] == load_hyperparameters(job.name, job.dataset, "cpu").plain
