"""The page that goes from a log to a decision is run as it stands, but for its sizes, and says what the record says."""

import json
import re
import shlex

import numpy as np
import pandas as pd
import pytest

from sb3_genoffline.envs.clinician import Clinician
from sb3_genoffline.envs.glucose import play
from zoo.__main__ import main
from zoo.glucose import record
from zoo.glucose.log import LONGEST, write_log

N_PATIENTS = 12
SMALLER = {
    "glucose": ["--patients", str(N_PATIENTS)],
    "inspect": ["--no-picture"],
    "train": ["-n", "2", "--profile", "tiny"],
    "judge": ["-n", "2", "--fqe-only"],
}


def shorten(code):
    code = re.sub(r"\b(gradient_steps|flow_steps)=[\d_]+", r"\1=2", code)
    return code.replace("n_patients=300", "n_patients=3, n_steps=6")


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """What the page leaves."""
    commands = []

    def shell(line):
        commands.append(shlex.split(line)[3])
        main([*shlex.split(line)[3:], *SMALLER[commands[-1]]])

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("page"))
        names, outputs = record.run_page(record.PAGE.read_text(), shell, shorten)
    assert commands == ["glucose", "inspect", "train", "train", "train", "judge"]
    return names, outputs


def test_the_page_runs_from_the_log_to_the_truth(page):
    names, outputs = page
    assert set(names["truth"]) == {"clinicians", *names["agents"], f"{names['best']}, guarded"}
    assert all(name in outputs[-1] for name in names["truth"])
    assert names["judged"].n_episodes + names["train"].n_episodes == N_PATIENTS


def test_rewards_and_ends_that_the_page_makes_of_the_log_are_the_simulators(page):
    names, _ = page
    stays = play(Clinician(np.random.default_rng((0, 1))), N_PATIENTS, LONGEST, seed=0)
    dataset = names["dataset"]
    for patient, (start, end) in enumerate(zip(dataset.episode_starts, dataset.episode_ends, strict=True)):
        rows, steps = slice(start, end), slice(0, end - start)
        np.testing.assert_allclose(dataset.rewards[rows], stays.rewards[steps, patient], atol=1e-5)
        np.testing.assert_array_equal(dataset.terminations[rows], stays.ended[steps, patient])
        np.testing.assert_allclose(dataset.observations[rows], stays.observations[steps, patient], rtol=1e-4)
        following = stays.observations[1 : end - start + 1, patient]
        going_on = ~dataset.terminations[rows][: len(following)]
        np.testing.assert_allclose(dataset.next_observations[rows][: len(following)][going_on], following[going_on], rtol=1e-4)


def test_a_log_says_how_each_stay_ended_in_its_last_row(tmp_path):
    assert write_log(tmp_path / "log.csv", 40, seed=1) == len(pd.read_csv(tmp_path / "log.csv"))
    table = pd.read_csv(tmp_path / "log.csv")
    last = ~table["patient"].duplicated(keep="last")
    assert table["outcome"].notna().equals(last)
    assert set(table["outcome"].dropna()) == {"discharged", "sensor lost", "intensive care"}
    assert table.groupby("patient")["time"].diff().dropna().eq(0.5).all()
    assert table["patient"].nunique() == 40 and table.groupby("patient").size().nunique() > 10


def test_the_page_says_what_the_record_says():
    recorded, text = json.loads(record.RECORD.read_text()), record.PAGE.read_text()
    assert record.with_outputs(text, recorded["outputs"]) == text
    assert len(re.findall(r"```text\n.", text)) == 7


def test_a_file_that_is_there_is_not_written_over(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.csv").write_text("mine")
    with pytest.raises(SystemExit, match=r"'own\.csv' exists\. Give another name, or --overwrite"):
        main(["glucose", "own.csv", "--patients", "2"])
    assert (tmp_path / "own.csv").read_text() == "mine"
    main(["glucose", "own.csv", "--patients", "2", "--overwrite"])
    assert "of 2 patients" in capsys.readouterr().out and len(pd.read_csv(tmp_path / "own.csv")) > 2
