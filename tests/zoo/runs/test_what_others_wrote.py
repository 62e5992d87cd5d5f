"""Ids and names that others chose are shown as text: in a terminal, in Markdown, in commands and in pictures."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from worlds import make_agent, make_dataset

from sb3_genoffline.data import export_hdf5
from zoo.__main__ import main
from zoo.benchmark.overview import Overview, last_words, print_overview
from zoo.benchmark.plan import read_plan
from zoo.benchmark.records import open_record, record_path
from zoo.benchmark.report import _reason
from zoo.benchmark.runner import Benchmark
from zoo.plot.figures import new_figure, plain
from zoo.publish.contents import only_training
from zoo.publish.index import index_text, write_index
from zoo.runs.scoring import summary
from zoo.runs.writing import write_json, write_yaml

EVIL = "x\x1b[2J\nforged: all well\r <img src=x onerror=alert(1)> [link](https://evil.example) | ` $\\frac{$ `rm -rf ~`; $(id)"


def assert_plain(text: str) -> None:
    """No escape of a terminal, and no line that an id began."""
    assert "\x1b" not in text and "\r" not in text
    assert not [line for line in text.splitlines() if line.startswith("forged")]


def test_of_a_long_name_a_picture_shows_the_start_and_the_end() -> None:
    assert plain("a" * 80) == "a" * 80
    shown = plain("a" * 500 + "b" * 500)
    assert len(shown) == 80 and shown.startswith("a" * 40 + "…") and shown.endswith("b" * 39)


def test_ids_are_printed_as_text(tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    export_hdf5(make_dataset().replace(id=EVIL), "own.hdf5")
    main(["inspect", "own.hdf5", "-o", "picture.png"])
    quick = ["--profile", "tiny", "-n", "1", "--eval-freq", "0", "--no-progress", "-f", "logs"]
    main(["train", "--algo", "td3_bc", "--dataset", "own.hdf5", *quick])
    out = capsys.readouterr().out
    assert out.count(r"x\x1b[2J\nforged") == 2
    assert_plain(out)
    result = {
        **dict.fromkeys(("algo", "dataset", "checkpoint", "env_id"), EVIL),
        **dict.fromkeys(("success_rate", "normalized_score", "behavior_normalized_score")),
        **{"gradient_steps": 1, "n_eval_episodes": 1, "mean_reward": 0.0, "std_reward": 0.0, "mean_reward_ci95": [0.0, 0.0]},
    }
    assert_plain(summary(result))
    assert len(summary(result).splitlines()) == 2
    agent = make_agent("td3_bc")
    agent.dataset_info = {"id": EVIL}
    agent.save("agent.zip")
    for command in (["evaluate", "--model", "agent.zip"], ["plot", "density", "-i", "agent.zip"]):
        with pytest.raises(SystemExit) as ended:
            main(command)
        assert_plain(str(ended.value))


def test_what_a_job_wrote_and_what_a_plan_is_called_are_printed_as_text(tmp_path: Path, capsys: Any) -> None:
    plan = {
        "title": f"{EVIL}\u202e",
        "algorithms": {"[red]x": {"algo": "bc"}},
        "stages": [{"datasets": ["[/bold]/a-v0"], "seeds": [0]}],
    }
    write_yaml(tmp_path / "plan.yml", plan)
    benchmark = Benchmark(read_plan(tmp_path / "plan.yml"), tmp_path)
    (job,) = benchmark.plan.jobs
    write_json(record_path(tmp_path, job), open_record(tmp_path, job) | {"state": "failed", "error": f"line\n{EVIL}"})
    overview = Overview(benchmark, active=False)
    print_overview(overview)
    out = capsys.readouterr().out
    assert "[red]x" in out and "bold]" in out and "\u202e" not in out
    assert_plain(out)
    assert "\x1b" not in last_words(overview, tmp_path)
    assert "\n" not in _reason(EVIL) and "\x1b" not in _reason(EVIL)


def test_the_list_of_agents_makes_no_markup_and_no_command_of_what_folders_say(tmp_path: Path) -> None:
    results: dict[str, Any] = {
        **dict.fromkeys(("algo", "dataset"), f"genoffline/{EVIL}"),
        **dict.fromkeys(("seed", "n_eval_episodes", "eval_seed"), 5),
        **{"dataset_fingerprint": "f", "checkpoint": "last", "gradient_steps": 1, "best": None, "seeds": None},
        **{"mean_reward": 0.0, "mean_reward_ci95": [0.0, 0.0], "normalized_score": None, "behavior_normalized_score": None},
        **{"data": {"n_transitions": 5, "mean_return": 0.0}, "command": f"rm -rf ~\npython -m zoo train {EVIL}"},
    }
    folder = tmp_path / "agent](https:evil.example) <b>"
    write_json(folder / "results.json", results)
    (folder / "config.json").write_text("{}")
    text = write_index(tmp_path).read_text()
    assert_plain(text)
    assert "<" in text and "](https" in text  # it is there,
    shown = re.sub(r"(?s)```.*?```|^`.*?`$", "", text, flags=re.MULTILINE)  # but in code,
    assert not re.search(r"(?<!\\)<|(?<!\\)\]\(https", shown)  # or escaped
    commands = text.partition("```bash\n")[2].partition("\n```")[0].splitlines()
    assert commands[1] == "# training: unknown"
    for command, start in ((commands[0], "collect"), (commands[2], "evaluate --algo")):
        assert command.startswith(f"python -m zoo {start} 'genoffline/x") and "rm -rf ~ " not in command.replace("'", "")
    assert json.loads((folder / "results.json").read_text()) == results and index_text([], {})


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("python -m zoo train --algo bc; rm -rf ~", ["python -m zoo train --algo 'bc;' rm -rf '~'"]),
        ("python -m zoo train -f '$(id)'\ngenoffline train -i x", ["python -m zoo train -f '$(id)'", "genoffline train -i x"]),
        ("python -m zoo train\nrm -rf ~", []),
        ("python -m zoo train 'open", []),
        ("curl evil | sh", []),
        ("", []),
        (None, []),
        (["python -m zoo train"], []),
    ],
)  # fmt: skip
def test_a_command_that_a_file_remembers_is_a_training_or_nothing(text: Any, lines: list[str]) -> None:
    assert only_training(text) == lines


def test_pictures_take_what_others_wrote_for_text(tmp_path: Path) -> None:
    figure, (axes,) = new_figure(1, 2.0, 2.0)
    axes.set_title(plain(EVIL))
    axes.plot([0], [0], label=plain("$x_{1$ on $\\nosuch$"))
    axes.legend()
    figure.savefig(tmp_path / "picture.svg")
    figure.savefig(tmp_path / "picture.png")
