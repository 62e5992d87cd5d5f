"""The report of a benchmark: numbers against hand values, from the records alone."""

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import zoo.benchmark.report as report_module
from sb3_genoffline.errors import UserError
from zoo.__main__ import main
from zoo.benchmark.plan import Plan, read_plan
from zoo.benchmark.records import DONE, FAILED, new_record, read_cells, read_record, record_path
from zoo.benchmark.report import write_report
from zoo.benchmark.results import Published, Results, final_score
from zoo.benchmark.statistics import improvement, interquartile_mean, interval
from zoo.runs.writing import write_json

HOPPER, MAZE = "genoffline/hopper/medium-replay-v1", "genoffline/pointmaze/stitch-v0"


def scores(**values: list[float]) -> dict[str, np.ndarray]:
    return {name: np.array(value) for name, value in values.items()}


def test_the_interquartile_mean_is_the_mean_of_the_middle_half() -> None:
    assert interquartile_mean(scores(a=[100.0, 1.0, 2.0, 3.0, 4.0, -50.0, 5.0, 6.0])) == pytest.approx((2 + 3 + 4 + 5) / 4)
    assert interquartile_mean(scores(a=[7.0])) == 7.0
    # three runs: the quartiles cut a quarter of the outer ones' thirds off the middle half
    assert interquartile_mean(scores(a=[9.0, 0.0, 3.0])) == pytest.approx((0.25 * 0 + 3 + 0.25 * 9) / 1.5)


def test_a_dataset_with_more_seeds_weighs_no_more_than_another() -> None:
    once = scores(a=[1.0], b=[5.0], c=[2.0], d=[9.0])
    assert (
        interquartile_mean(once | scores(a=[1.0, 1.0, 1.0])) == pytest.approx(interquartile_mean(once)) == pytest.approx(3.5)
    )
    assert improvement(scores(a=[1, 2, 3], b=[0]), scores(a=[2], b=[1])) == pytest.approx((0.5 + 0) / 2)


def test_the_probability_of_improvement_counts_pairs_and_ties_by_half() -> None:
    ours, theirs = scores(a=[1.0, 3.0], b=[5.0], x=[9.0]), scores(a=[1.0, 2.0, 4.0], b=[4.0])
    assert improvement(ours, theirs) == pytest.approx(((0.5 + 0 + 0 + 1 + 1 + 0) / 6 + 1) / 2)
    assert improvement(ours, theirs) + improvement(theirs, ours) == pytest.approx(1.0)


def test_bootstrap_intervals_resample_seeds_within_their_dataset() -> None:
    assert interval("interquartile_mean", scores(a=[1.0], b=[5.0])) is None
    values = np.random.default_rng(0).normal(50.0, 4.0, 400)
    low, high = interval("interquartile_mean", scores(a=list(values))) or (0.0, 0.0)
    assert low < interquartile_mean(scores(a=list(values))) < high
    assert high - low == pytest.approx(2 * 1.96 * values.std() * np.sqrt(1.19 / 400), rel=0.12)  # trimmed mean, normal values
    assert interval("improvement", scores(a=[1.0, 4.0]), scores(a=[2.0, 3.0])) == (0.0, 1.0)
    # two datasets, far apart: a resample never holds runs of one only
    bounds = interval("interquartile_mean", scores(a=[0.0, 2.0], b=[100.0, 102.0])) or (0.0, 0.0)
    assert 50 <= bounds[0] <= bounds[1] <= 52


# ------------------------------------------------------------------ the report


def make_plan(folder: Path) -> Plan:
    content = {
        "title": "A small one",
        "algorithms": {"bc": None, "dac": None, "nosuch": None},
        "stages": [{"datasets": [HOPPER], "seeds": [0, 1, 2]}, {"datasets": [MAZE], "seeds": [0]}],
    }
    (folder / "plan.yml").write_text(yaml.safe_dump(content))
    return read_plan(folder / "plan.yml")


def result(score: float, updates: int) -> dict[str, Any]:
    keys = {"n_eval_episodes": 20, "eval_seed": 20_000, "n_eval_envs": 10, "env_id": "Hopper-v5", "success_rate": None}
    return {"gradient_steps": updates, "normalized_score": score, "mean_reward": 32.0 * score, **keys}


def fill(plan: Plan, folder: Path, last: Mapping[tuple[str, str, int], float]) -> None:
    """Records as a benchmark leaves them."""
    for job in plan.jobs:
        value = last.get((job.name, job.dataset, job.seed))
        if value is None:
            continue
        data = {"id": job.dataset, "fingerprint": "f" * 64, "n_transitions": 92160, "n_episodes": 777, "mean_return": 309.7}
        done = {
            "state": DONE,
            "host": "a machine",
            "data": data | {"normalized_score": 10.1},
            "versions": {"torch": "2.13.0", "mujoco": "4.0.0"},
            "updates": 3000,
            "updates_per_second": 50.0,
            "seconds": {"total": 120.0, "fit": 30.0, "training": 60.0, "evaluation": 30.0, "cpu": 90.0},
            "curve": {
                "timesteps": [1000, 2000, 3000] if job.seed else [1000, 3000],
                "seconds": [60.0, 90.0, 120.0] if job.seed else [62.0, 122.0],
                "mean": [value - 8, value - 4, value] if job.seed else [value - 8, value],
                "std": [1.0] * (3 if job.seed else 2),
            },
            "last": result(value + 4, 3000),
            "best": result(value + 1, 2000),
            "final": {"checkpoints": [1000, 2000, 3000], "scores": [value - 3, value - 1, value + 4], "mean": value},
        }
        write_json(folder / f"{job.label}.json", new_record(job) | done)


FINAL = {
    **{("bc", HOPPER, seed): value for seed, value in enumerate([10.0, 12.0, 14.0])},
    **{("dac", HOPPER, seed): value for seed, value in enumerate([30.0, 11.0])},
    ("bc", MAZE, 0): 50.0,
    ("dac", MAZE, 0): 80.0,
}


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a report and of its records."""
    folder = tmp_path_factory.mktemp("report")
    plan = make_plan(folder)
    fill(plan, folder / "records", FINAL)
    job = next(job for job in plan.jobs if (job.name, job.dataset, job.seed) == ("dac", HOPPER, 2))
    failed = {"state": FAILED, "error": "Traceback:\nsome.module.FloatingPointError: Q | is not finite"}
    write_json(folder / "records" / f"{job.label}.json", new_record(job) | failed)
    write_report(plan, folder / "records", folder, "the command")
    return folder


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of tests that ask about the words and the tables."""
    for name in ("draw_dataset", "draw_aggregate", "draw_choices", "draw_minutes", "draw_algorithm"):
        monkeypatch.setattr(report_module, name, lambda *args: [])


def rows(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def table_row(text: str, section: str, name: str) -> list[str]:
    part = text.partition(f"## {section}\n")[2].partition("\n## ")[0]
    (line,) = [line for line in part.splitlines() if line.startswith(f"| {name} |")][:1]
    return [cell.strip() for cell in line.replace("\\|", "¦").strip("|").split("|")]


def test_means_and_deviations_over_seeds_are_those_of_the_final_scores(report: Path) -> None:
    text = (report / "README.md").read_text()
    assert "\n\n7 of 12 runs, 10 minutes of processor time." in text  # 90 seconds each
    assert table_row(text, "Final scores", "BC") == ["BC", "12.0 ± 2.0 (3)", "50.0 (1)", "62.0"]
    assert table_row(text, "Final scores", "DAC") == ["DAC", "**20.5 ± 13.4 (2)**", "**80.0 (1)**", "100.5"]
    assert table_row(text, "Final scores", "nosuch") == ["nosuch", "–", "–", "–"]
    assert table_row(text, "Final scores", "*the data*") == ["*the data*", "*10.1*", "*10.1*", "*20.2*"]
    found = {(row["algorithm"], row["dataset"], row["score"]): row for row in rows(report / "scores.csv")}
    assert float(found["dac", HOPPER, "final"]["mean"]) == 20.5 and found["dac", HOPPER, "final"]["seeds"] == "2"
    assert float(found["dac", HOPPER, "final"]["std"]) == pytest.approx(19 / np.sqrt(2), rel=1e-5)
    assert [float(found["dac", HOPPER, which]["mean"]) for which in ("last", "best")] == [24.5, 21.5]
    assert found["bc", MAZE, "final"]["std"] == ""


@pytest.mark.usefixtures("no_pictures")
def test_only_a_table_with_empty_cells_speaks_of_them(report: Path, tmp_path: Path) -> None:
    assert "Empty cells" in (report / "README.md").read_text()
    content = {"algorithms": {"bc": None}, "stages": [{"datasets": [HOPPER, MAZE], "seeds": [0]}]}
    (tmp_path / "plan.yml").write_text(yaml.safe_dump(content))
    assert "Empty cells" not in write_and_read(read_plan(tmp_path / "plan.yml"), tmp_path, FINAL)


def test_a_datasets_table_has_seeds_best_published_costs_and_why_a_cell_is_empty(report: Path) -> None:
    text = (report / "README.md").read_text()
    cost = ["3,000", "50", "2.0", "1.5"]
    assert table_row(text, HOPPER, "BC") == [
        "BC",
        "12.0 ± 2.0",
        "10.0, 12.0, 14.0",
        "16.0 ± 2.0",
        "13.0 ± 2.0",
        "*18.1*",
        *cost,
    ]
    failed = "30.0, 11.0, *failed\\: FloatingPointError\\: Q ¦ is not finite*"
    found_dac = table_row(text, HOPPER, "DAC")
    assert found_dac == ["DAC", "20.5 ± 13.4", failed, "24.5 ± 13.4", "21.5 ± 13.4", "*103.1*", *cost]
    assert "'nosuch' is not known" in table_row(text, HOPPER, "nosuch")[2].replace("\\", "")
    assert "published" not in text.partition(f"## {MAZE}\n")[2].partition("\n## ")[0]
    found = {(row["algorithm"], row["dataset"], row["seed"]): row for row in rows(report / "runs.csv")}
    assert len(found) == 12 and found["dac", HOPPER, "2"]["reason"].startswith("failed: FloatingPointError")
    assert (found["bc", HOPPER, "1"]["final"], found["bc", HOPPER, "1"]["last"]) == ("12", "16") and found["bc", HOPPER, "1"][
        "minutes_total"
    ] == "2"


def test_datasets_are_aggregated_where_all_algorithms_have_results(report: Path) -> None:
    aggregate = {row["algorithm"]: row for row in rows(report / "aggregate.csv")}
    assert set(aggregate) == {"bc", "dac"} and {row["runs"] for row in aggregate.values()} == {"4", "3"}
    # bc: 10, 12, 14 weigh a sixth each, 50 a half; between the quartiles lie half of 12, 14, and a half of 50
    expected = ((1 / 3 - 1 / 4) * 12 + 1 / 6 * 14 + 1 / 4 * 50) / 0.5
    assert float(aggregate["bc"]["iqm"]) == pytest.approx(expected, rel=1e-5)
    pairs = {(row["algorithm"], row["over"]): float(row["probability"]) for row in rows(report / "improvement.csv")}
    assert pairs["dac", "bc"] == pytest.approx((4 / 6 + 1) / 2, rel=1e-5)
    assert pairs["bc", "dac"] == pytest.approx(1 - pairs["dac", "bc"], rel=1e-5)


def test_curves_average_the_updates_at_which_all_seeds_were_evaluated(report: Path) -> None:
    plan = read_plan(report / "plan.yml")
    results = Results(plan.algorithms, plan.datasets, read_cells(plan, report / "records"))
    curve = results.curve("bc", HOPPER)
    assert curve is not None and curve.timesteps.tolist() == [1000, 3000] and curve.seeds == 3
    assert curve.mean.tolist() == [4.0, 12.0] and curve.std is not None and curve.std.tolist() == [2.0, 2.0]
    assert curve.seconds == pytest.approx([182 / 3, 362 / 3])
    assert results.curve("nosuch", HOPPER) is None
    assert len(rows(report / "curves.csv")) == 2 + 3 + 3 + 2 + 3 + 2 + 2


def test_the_course_over_processor_time_counts_each_dataset_once(report: Path) -> None:
    plan = read_plan(report / "plan.yml")
    results = Results(["bc", "dac"], plan.datasets, read_cells(plan, report / "records"))
    minutes, means = results.course("bc", np.array([1 / 3, 1.0])) or (np.empty(0), np.empty(0))
    assert means == pytest.approx([(4.0 + 42.0) / 2, (12.0 + 50.0) / 2])  # of three seeds, of one
    cpu = 90.0 / 120.0 / 60.0
    assert minutes == pytest.approx([cpu * (182 / 3 + 62) / 2, cpu * (362 / 3 + 122) / 2])


@pytest.mark.usefixtures("no_pictures")
def test_a_claim_is_held_against_runs_with_and_without_its_part(tmp_path: Path) -> None:
    content = {
        "algorithms": {"dac": None, "dac_hard": {"algo": "dac", "hyperparameters": {"guidance": "hard"}}},
        "stages": [{"datasets": [HOPPER], "seeds": [0, 1]}],
        "claims": [{"claim": "Soft guidance | beats hard", "with": "dac", "without": "dac_hard"}],
    }
    path = tmp_path / "plan.yml"
    path.write_text(yaml.safe_dump(content))
    plan = read_plan(path)
    values = {("dac", HOPPER, 0): 30.0, ("dac", HOPPER, 1): 10.0, ("dac_hard", HOPPER, 0): 5.0, ("dac_hard", HOPPER, 1): 15.0}
    fill(plan, tmp_path / "records", values)
    write_report(plan, tmp_path / "records", tmp_path, "the command")
    (row,) = rows(tmp_path / "claims.csv")
    assert [float(row[name]) for name in ("mean_with", "mean_without", "difference", "probability")] == [20, 10, 10, 0.75]
    text = (tmp_path / "README.md").read_text()
    assert "| 20.0 ± 14.1 (2) | 10.0 ± 7.1 (2) | +10.0 | 75% |" in text and "Soft guidance \\| beats hard" in text
    for claim, message in (({"claim": "x", "with": "dac"}, "claim 1 needs `without`"), ({"with": "bc"}, "needs `claim`")):
        path.write_text(yaml.safe_dump(content | {"claims": [claim]}))
        with pytest.raises(UserError, match=message):
            read_plan(path)
    path.write_text(yaml.safe_dump(content | {"claims": [{"claim": "x", "with": "dac", "without": "dca"}]}))
    with pytest.raises(UserError, match="'dca' is not known"):
        read_plan(path)


def test_pictures_show_curves_by_updates_and_by_time_and_the_data(report: Path) -> None:
    for name in ("genoffline-hopper-medium-replay-v1", "genoffline-pointmaze-stitch-v0", "aggregate", "minutes"):
        assert (report / f"{name}.png").is_file()
    picture = (report / "genoffline-hopper-medium-replay-v1.svg").read_text()
    own = (report / "learning-dac.svg").read_text()
    for label in ("DAC 20.5 ± 13.4 (2)", "BC 12.0 ± 2.0 (3)", "DAC 80.0 (1)", MAZE, "mean of the data"):
        assert label in own
    for label in ("BC (3)", "DAC (2)", "mean of the data", "gradient updates / 1000", "wall minutes", "final score"):
        assert label in picture
    assert "nosuch" not in picture


@pytest.mark.usefixtures("no_pictures")
def test_runs_on_different_data_or_by_other_settings_are_pointed_out(report: Path, tmp_path: Path) -> None:
    plan = make_plan(tmp_path)
    fill(plan, tmp_path / "records", FINAL)
    results = Results(plan.algorithms, plan.datasets, read_cells(plan, tmp_path / "records"))
    assert results.warnings() == []
    cells = results.records("dac", HOPPER)
    cells[0]["data"]["fingerprint"] = "another"
    assert results.warnings() == [f"Runs on {HOPPER} had different data: they cannot be compared."]
    cells[0]["data"]["fingerprint"] = cells[1]["data"]["fingerprint"]
    cells[0]["config"]["evaluation"]["final_episodes"] = 30  # the least of both, and the same checkpoints
    assert results.warnings() == []
    kept = cells[0].pop("final")  # of a version before: evaluations on the way
    assert results.warnings() == [f"Runs on {HOPPER} had different evaluation protocols: they cannot be compared."]
    cells[0]["final"] = kept | {"checkpoints": [3000]}
    assert results.warnings() == [f"Runs on {HOPPER} had different evaluation protocols: they cannot be compared."]
    cells[0]["final"] = kept
    changed = yaml.safe_load((tmp_path / "plan.yml").read_text()) | {"algorithms": {"bc": {"n_timesteps": 9}, "dac": None}}
    (tmp_path / "plan.yml").write_text(yaml.safe_dump(changed))
    now = read_plan(tmp_path / "plan.yml")
    results = Results(now.algorithms, now.datasets, read_cells(now, tmp_path / "records"))
    assert results.warnings() == ["Some runs of BC were made with other settings than the plan has now (†)."]
    assert len(results.scores("bc", HOPPER)) == 3
    write_report(now, tmp_path / "records", tmp_path / "out", "the command")
    assert table_row((tmp_path / "out" / "README.md").read_text(), HOPPER, "BC")[2] == "10.0†, 12.0†, 14.0†"


@pytest.mark.usefixtures("no_pictures")
def test_what_earlier_settings_gave_is_listed_but_not_counted(tmp_path: Path) -> None:
    plan = make_plan(tmp_path)
    fill(plan, tmp_path / "records", {("bc", MAZE, 0): 70.0})
    changed = yaml.safe_load((tmp_path / "plan.yml").read_text()) | {
        "algorithms": {"bc": {"n_timesteps": 900_000}, "dac": None}
    }
    (tmp_path / "plan.yml").write_text(yaml.safe_dump(changed | {"note": "Mind the\nsettings."}))
    now = read_plan(tmp_path / "plan.yml")
    fill(now, tmp_path / "records", FINAL)
    write_report(now, tmp_path / "records", tmp_path / "out", "the command")
    text = (tmp_path / "out" / "README.md").read_text()
    assert table_row(text, "Superseded runs", "BC") == ["BC", MAZE, "0", "70.0", "50.0", "n_timesteps 1000000, then 900000"]
    assert table_row(text, "Final scores", "BC")[2] == "50.0 (1)" and "\n\nMind the settings.\n\n" in text
    (old,) = [row for row in rows(tmp_path / "out" / "runs.csv") if row["settings"] == "superseded"]
    assert (old["algorithm"], old["dataset"], old["final"]) == ("bc", MAZE, "70")
    assert "Superseded" not in (write_and_read(now, tmp_path, FINAL))


@pytest.mark.usefixtures("no_pictures")
def test_a_plans_words_about_evaluation_make_no_second_run_but_another_evaluation_does(tmp_path: Path) -> None:
    records = tmp_path / "records"
    fill(make_plan(tmp_path), records, {("bc", MAZE, 0): 70.0})
    changed = yaml.safe_load((tmp_path / "plan.yml").read_text()) | {"defaults": {"final_episodes": 20, "final_error": 1.5}}
    (tmp_path / "plan.yml").write_text(yaml.safe_dump(changed))
    now = read_plan(tmp_path / "plan.yml")

    def superseded() -> tuple[dict[str, Any], ...]:
        (cell,) = [cell for cell in read_cells(now, records) if (cell.name, cell.dataset) == ("bc", MAZE)]
        assert cell.record is not None and cell.record["key"] in {job.key for job in now.jobs} and not cell.outdated
        return cell.superseded

    fill(now, records, {("bc", MAZE, 0): 70.0})
    assert len(list(records.glob("bc-*.json"))) == 2 and superseded() == ()
    changed["defaults"]["final_error"] = 1.0
    (tmp_path / "plan.yml").write_text(yaml.safe_dump(changed))
    now = read_plan(tmp_path / "plan.yml")
    fill(now, records, {("bc", MAZE, 0): 65.0})
    assert len(list(records.glob("bc-*.json"))) == 3 and len(superseded()) == 1
    write_report(now, records, tmp_path / "out", "the command")
    row = table_row((tmp_path / "out" / "README.md").read_text(), "Superseded runs", "BC")
    assert row[3:] == ["70.0", "65.0", "final_error 2.0, then 1.0, final_episodes not set, then 20"]


@pytest.mark.usefixtures("no_pictures")
def test_runs_whose_episodes_differ_too_much_for_their_number_are_named(tmp_path: Path) -> None:
    plan = make_plan(tmp_path)
    assert "more episodes" not in write_and_read(plan, tmp_path, FINAL)
    for path in (tmp_path / "alone").glob("bc*pointmaze*.json"):
        record = json.loads(path.read_text())
        record["curve"]["std"] = [
            0.0,
            40.0 * 1.5,
        ]  # 60² / 2 · 10 / 9 is 2000, and of two times n episodes 1000 / n
        write_json(path, record)
    write_report(plan, tmp_path / "alone", tmp_path / "again", "the command")
    text = (tmp_path / "again" / "README.md").read_text()
    assert "would need more episodes of each checkpoint: BC on pointmaze/stitch-v0 (250). " in text
    for path in (tmp_path / "alone").glob("bc*pointmaze*.json"):
        few = json.loads(path.read_text())
        few["config"]["evaluation"]["episodes"] = 1  # says nothing of a spread
        write_json(tmp_path / "one" / path.name, few)
        before = {name: part for name, part in json.loads(path.read_text()).items() if name != "final"}
        before["config"]["evaluation"]["episodes"] = (
            10_000  # of a version before: evaluations on the way are what it is scored by
        )
        write_json(tmp_path / "before" / path.name, before)
    for folder in ("one", "before"):
        write_report(plan, tmp_path / folder, tmp_path / "again", "the command")
        assert "more episodes" not in (tmp_path / "again" / "README.md").read_text()
    for path in (tmp_path / "alone").glob("dac*.json"):  # a run without evaluations on the way has no curve
        write_json(path, json.loads(path.read_text()) | {"curve": None})
    write_report(plan, tmp_path / "alone", tmp_path / "again", "the command")
    assert "BC on pointmaze/stitch-v0 (250). " in (tmp_path / "again" / "README.md").read_text()


def write_and_read(plan: Plan, folder: Path, last: Mapping[tuple[str, str, int], float]) -> str:
    fill(plan, folder / "alone", last)
    write_report(plan, folder / "alone", folder / "again", "the command")
    return (folder / "again" / "README.md").read_text()


def test_committed_records_alone_make_the_same_report_again(report: Path, tmp_path: Path, capsys: Any) -> None:
    jobs = tmp_path / "logs" / "jobs"
    plan = make_plan(tmp_path)
    fill(plan, jobs, FINAL)
    write_json(jobs / "waiting.json", new_record(plan.jobs[0]))
    out = tmp_path / "out"
    main(["benchmark", str(tmp_path / "plan.yml"), "-f", str(tmp_path / "logs"), "--report", str(out)])
    assert len(list((out / "records").glob("*.json"))) == len(FINAL)
    first = {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}
    assert len([name for name in first if name.endswith((".png", ".svg"))]) == 10
    command = next(line for line in first["README.md"].decode().splitlines() if line.startswith("python -m zoo benchmark"))
    main(command.split()[3:])
    assert {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()} == first
    assert f"wrote {out / 'README.md'}" in capsys.readouterr().out


@pytest.mark.parametrize(("named", "outdated"), [(1.0, False), (0.5, True)])
@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("by", ["plan", "record"])
def test_a_setting_may_be_named_with_its_default(tmp_path: Path, by: str, known: bool, named: float, outdated: bool) -> None:
    plan = make_plan(tmp_path)
    fill(plan, tmp_path / "records", FINAL)
    for path in (tmp_path / "records").glob("dac-*.json"):
        record = json.loads(path.read_text())
        if by == "record" or not known:  # an argument that came since
            del record["config"]["defaults"]["acting_noise_scale"]
        if by == "record":
            record["config"]["hyperparameters"]["acting_noise_scale"] = named
        write_json(path, record | {"key": "before"})
    if by == "plan":
        changed = yaml.safe_load((tmp_path / "plan.yml").read_text())
        changed["algorithms"]["dac"] = {"hyperparameters": {"acting_noise_scale": named}}
        (tmp_path / "plan.yml").write_text(yaml.safe_dump(changed))
    cells = read_cells(read_plan(tmp_path / "plan.yml"), tmp_path / "records")
    assert {cell.outdated for cell in cells if cell.name == "dac" and cell.record} == {outdated}


@pytest.mark.parametrize(("forgotten", "outdated"), [("sampler", False), ("rho", True)])
def test_a_default_that_came_since_makes_no_other_run_and_one_that_changed_does(
    tmp_path: Path, forgotten: str, outdated: bool
) -> None:
    plan = make_plan(tmp_path)
    fill(plan, tmp_path / "records", FINAL)
    path = next((tmp_path / "records").glob("dac-*stitch*.json"))
    record = json.loads(path.read_text())
    record["key"] = "before"
    if outdated:
        record["config"]["hyperparameters"][forgotten] = 0.123
    else:
        del record["config"]["defaults"][forgotten]
    write_json(path, record)
    (cell,) = (cell for cell in read_cells(plan, tmp_path / "records") if (cell.name, cell.dataset) == ("dac", MAZE))
    assert cell.outdated == outdated


def test_the_final_score_of_an_earlier_record_is_the_mean_of_its_last_evaluations_on_the_way() -> None:
    record: dict[str, Any] = {"last": result(80.0, 6), "curve": {"mean": [90.0, 10.0, 20.0, 30.0, 40.0, 50.0]}}
    assert final_score(record) == 30.0
    assert final_score(record | {"final": {"mean": 7.0}}) == 7.0
    assert final_score(record | {"curve": None}) == 80.0


def test_published_numbers_are_found_for_the_same_kind_of_data_only() -> None:
    published = Published()
    assert published.score("qdq", "genoffline/hopper/medium-replay-v1") == 102.4
    assert published.score("dac", "mujoco/walker2d/medium-v0") == 96.8
    assert published.score("cped", "halfcheetah-medium-expert-v2") == 85.4
    for name, dataset in (("dac", MAZE), ("dac", "genoffline/hopper/expert-v1"), ("nosuch", HOPPER)):
        assert published.score(name, dataset) is None
    table = {
        name: sum(
            published.score(name, f"{env}-{level}-v2") or 0.0
            for env in ("halfcheetah", "hopper", "walker2d")
            for level in ("medium", "medium-replay", "medium-expert")
        )
        for name in published.sources
    }
    totals = {"bc": 466.7, "awac": 450.7, "td3_bc": 677.4, "cql": 698.5, "iql": 692.4, "spot": 773.0, "dql": 791.2}
    assert table == pytest.approx(
        totals
        | {
            "decision_transformer": 672.6,
            "diffuser": 697.7,
            "idql": 739.2,
            "sfbc": 680.3,
            "uwac": 437.4,
            "mcq": 797.4,
            "onestep": 716.0,
            "dac": 836.4,
            "qdq": 848.0,
            "cped": 791.7,
        },
        abs=0.25,
    )


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (["config", "seed"], [], "its config's seed"),
        (["config", "evaluation"], None, "its config's evaluation"),
        (["config", "evaluation"], {}, "its config's evaluation's episodes"),
        (["host"], [], "its host"),
        (["versions"], {}, "its versions's torch"),
        (["seconds", "total"], "x", "its seconds's total"),
        (["seconds", "cpu"], 10**400, "not a valid record of a benchmark: 1000.* is too large"),
        (["curve", "mean"], [1.0], "the lists of its curve"),
        (["last", "mean_reward"], None, "its last's mean_reward"),
        (["best"], None, "its best"),
        (["final", "mean"], float("nan"), "its final's mean"),
        (["final", "checkpoints"], None, "its final's checkpoints"),
    ],
)
def test_a_record_of_another_shape_is_refused_by_the_part(place: list[str], value: Any, message: str, tmp_path: Path) -> None:
    plan = make_plan(tmp_path)
    fill(plan, tmp_path / "records", {("bc", MAZE, 0): 50.0})
    (file,) = (tmp_path / "records").iterdir()
    record = json.loads(file.read_text())
    part = record
    for name in place[:-1]:
        part = part[name]
    part[place[-1]] = value
    file.write_text(json.dumps(record))
    with pytest.raises(UserError, match=message):
        read_record(file)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"state": DONE}, "its host, None, must be"),
        ({"state": FAILED, "error": 3}, "its error"),
        ({"state": "running", "clock": {"total": "x"}}, "its clock's total"),
        ({"state": "running", "attempt": "x"}, "its attempt"),
    ],
)
def test_who_looks_at_a_benchmark_asks_of_a_record_what_the_report_asks(
    parts: dict[str, Any], message: str, tmp_path: Path
) -> None:
    plan = make_plan(tmp_path)
    job = plan.jobs[0]
    write_json(record_path(tmp_path / "logs", job), new_record(job) | parts)
    with pytest.raises(SystemExit, match=f"is not a record of a benchmark: {message}"):
        main(["benchmark", str(tmp_path / "plan.yml"), "-f", str(tmp_path / "logs"), "--status"])


@pytest.mark.usefixtures("no_pictures")
def test_a_dataset_that_nothing_was_run_on_has_one_line(tmp_path: Path) -> None:
    plan = make_plan(tmp_path)
    fill(plan, tmp_path / "records", {place: value for place, value in FINAL.items() if place[1] == HOPPER})
    write_report(plan, tmp_path / "records", tmp_path, "the command")
    section = (tmp_path / "README.md").read_text().partition(f"\n## {MAZE}\n")[2].partition("\n## ")[0]
    assert (
        section.split()[:2] == ["No", "result."] and "| NOSUCH |" in section.upper()
    )  # an unknown algorithm has its own reason
    plan.skipped.clear()
    write_report(plan, tmp_path / "records", tmp_path, "the command")
    section = (tmp_path / "README.md").read_text().partition(f"\n## {MAZE}\n")[2].partition("\n## ")[0]
    assert section.strip() == "No result: *not run*."
