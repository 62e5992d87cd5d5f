"""Where runs are kept."""

from pathlib import Path

import pytest

from sb3_genoffline.errors import UserError
from zoo.runs.folders import dataset_name, find_run, list_runs, new_run, run_number, run_of
from zoo.runs.writing import write_text, write_yaml


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("mujoco/hopper/medium-v0", "mujoco-hopper-medium-v0"),
        ("hopper-medium-v2", "hopper-medium-v2"),
        ("some/folder/hopper_medium-v2.hdf5", "hopper_medium-v2"),
        ("a b/../c.npz", "c"),
        ("../..", "dataset"),
        ("x" * 300, "x" * 90 + "-0d4e2ca9"),
    ],
)
def test_folders_are_named_after_datasets(source: str, name: str) -> None:
    assert dataset_name(source) == name


def test_runs_are_numbered_and_found_again(tmp_path: Path) -> None:
    runs = [new_run(tmp_path, "dac", "a/b-v0") for _ in range(11)]
    new_run(tmp_path, "dac", "a/b-v0_2")  # another dataset whose name begins the same
    assert [run_number(run) for run in runs] == list(range(1, 12))
    assert runs[0].folder == tmp_path / "dac" / "a-b-v0_1"
    assert list_runs(tmp_path, "dac", "a/b-v0") == runs
    assert find_run(tmp_path, "dac", "a/b-v0") == runs[-1]
    assert find_run(tmp_path, "dac", "a/b-v0", exp_id=3) == runs[2]


def test_a_uuid_can_be_part_of_the_name(tmp_path: Path) -> None:
    run = new_run(tmp_path, "dac", "a/b-v0", unique=True)
    assert run.folder.name.startswith("a-b-v0_1_") and run_number(run) == 1
    assert find_run(tmp_path, "dac", "a/b-v0") == run
    assert run_number(new_run(tmp_path, "dac", "a/b-v0")) == 2


def test_a_missing_run_or_checkpoint_is_an_error_that_names_what_there_is(tmp_path: Path) -> None:
    run = new_run(tmp_path, "dac", "a/b-v0")
    (run.folder / "rl_model_5_steps.zip").touch()
    with pytest.raises(FileNotFoundError, match=r"no run 7 of dac on a/b-v0.*a-b-v0_1"):
        find_run(tmp_path, "dac", "a/b-v0", exp_id=7)
    with pytest.raises(ValueError, match=r"no algorithm 'qdp'; did you mean 'qdq'.* There are awac"):
        find_run(tmp_path, "qdp", "a/b-v0")
    with pytest.raises(FileNotFoundError, match=r"no run of qdq on a/b-v0.*none"):
        find_run(tmp_path, "qdq", "a/b-v0")
    with pytest.raises(FileNotFoundError, match=r"best_model\.zip.*rl_model_5_steps\.zip"):
        run.checkpoint("best")
    with pytest.raises(FileNotFoundError, match=r"a-b-v0\.zip"):
        run.checkpoint("last")
    assert run.checkpoint(5).name == "rl_model_5_steps.zip"
    with pytest.raises(FileNotFoundError, match=r"there is: no checkpoint\. .* have it: a-b-v0_1 \(--exp-id\)\."):
        new_run(tmp_path, "dac", "a/b-v0").checkpoint(5)


def test_the_run_of_a_checkpoint_is_recognised_by_its_config(tmp_path: Path) -> None:
    run = new_run(tmp_path, "dac", "a/b-v0")
    assert run_of(run.model_path) is None
    for name, text in (("a", "algo: !!python/object:os.x {}"), ("b", "- 1"), ("c", "lr: 1")):
        (run.folder / name).mkdir()
        (run.folder / name / "config.yml").write_text(text)  # another program's
    assert run_of(run.model_path) is None
    write_yaml(run.settings / "config.yml", {"algo": "dac"})
    assert run_of(run.model_path) == run
    with pytest.raises(UserError, match=r"a-b-v0/config\.yml is not the config of a run: it has no dataset"):
        run.config()
    config = {"algo": "dac", "dataset": {"id": "a/b-v0"}, "hyperparameters": {}}
    write_yaml(run.settings / "config.yml", config)
    assert run.config() == config | {"seed": None, "environment": None, "versions": {}}


def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    write_text(file, "old")
    with pytest.raises(UnicodeEncodeError):
        write_text(file, "new \ud800")
    assert file.read_text() == "old" and list(tmp_path.iterdir()) == [file]
