"""Whatever is wrong with a command line ends in one line that names the word and the fix, before anything is written."""

import argparse
import importlib
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from PIL import Image
from worlds import PointEnv, make_agent

from sb3_genoffline.errors import UserError
from zoo.__main__ import COMMANDS, main
from zoo.collect.lookup import find_dataset
from zoo.runs import flags
from zoo.runs.envs import env_factory
from zoo.runs.film import play

KINDS: dict[str, tuple[list[str], list[str]]] = {
    "positive": (["1", "+3", "1e6"], ["0", "-1", "1e-1"]),
    "count": (["0", "7"], ["-1"]),
    "seed_number": (["0", "4294967295"], ["-1", "4294967296"]),
    "random_or_seed": (["-1", "5"], ["-2", "4294967296"]),
    "jobs": (["1", "1024"], ["0", "2000000000"]),
    "chosen_or_threads": (["-1", "2"], ["0", "-3"]),
    "never_or_every": (["-1", "0", "10"], ["-2"]),
    "log_interval": (["-2", "-1", "1"], ["0", "-3"]),
    "pixels": (["320"], ["0", "9999"]),
    "niceness": (["0", "19"], ["-1", "20"]),
}
OTHERS = (
    *("algorithm", "device", "a_folder", "new_folder", "json_file", "film_file", "markdown_file", "picture_file", "csv_file"),
    *("onnx_file", "hdf5_file"),
)
NO_WHOLE_NUMBERS = [
    "",
    "abc",
    "1.5",
    "3.0",
    "nan",
    "inf",
    "-inf",
    "1_0",
    "١",
    "True",
    "[1]",
    "9" * 5000,
    "1" + "0" * 30,
    "1e400",
]
REALS = {
    "real": (["-2.5", "3"], []),
    "discount": (["0", "0.99"], ["1", "-0.1"]),
    "inner_share": (["0.5", "0.99"], ["0", "1", "-0.1"]),
    "share_of_gpus": (["0.25"], ["-1"]),
}


@pytest.mark.parametrize("kind", [*KINDS, *REALS])
def test_a_kind_of_number_takes_what_it_says_and_names_what_it_does_not(kind: str) -> None:
    read: Callable[[str], Any] = getattr(flags, kind)
    good, bad = {**KINDS, **REALS}[kind]
    assert [read(word) for word in good] == [float(word) for word in good]
    assert kind in REALS or all(type(read(word)) is int for word in good)
    for word in [*bad, *(NO_WHOLE_NUMBERS if kind in KINDS else ["", "abc", "nan", "inf", "1e400", "0,9"])]:
        with pytest.raises(argparse.ArgumentTypeError, match=r"(must|is not known|is too large)"):
            read(word)


def parsers() -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Of every command, and of what follows its name in ``plot``."""
    found = []
    for name, (module, _) in COMMANDS.items():
        parser = flags.FlagParser(prog=name)
        importlib.import_module(f"zoo.{module}").add_arguments(parser)
        found.append((name, parser))
    for name, parser in found:
        yield name, parser
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                found += action.choices.items()


def actions() -> Iterator[tuple[str, argparse.Action]]:
    for name, parser in parsers():
        for action in parser._actions:
            if not isinstance(action, argparse._SubParsersAction):
                yield name, action


@pytest.mark.parametrize("word", ["-1e3", "-1E-3", "-.5", "-2.", "-200"])
def test_a_negative_number_is_no_flag(word: str) -> None:
    parser = flags.FlagParser(prog="x")
    parser.add_argument("--sweep", nargs="+")
    assert parser.parse_args(["--sweep", "0", word]).sweep == ["0", word]


def test_every_command_can_print_its_help() -> None:
    for name, parser in parsers():
        assert parser.format_help().startswith(f"usage: {parser.prog}"), name


def test_every_flag_that_takes_a_number_an_algorithm_a_device_or_a_place_says_which_kind() -> None:
    kinds = {getattr(flags, name): name for name in (*KINDS, *REALS, *OTHERS)}
    seen = set()
    for command, action in actions():
        words = {word.lstrip("-") for word in action.option_strings}
        wanted = words & {"seed", "n-episodes", "jobs", "exp-id", "n-timesteps", "algo", "device", "output", "folder"}
        typed = action.type is not None or type(action.default) in (int, float)
        if action.nargs != 0 and (typed or wanted):
            assert action.type in kinds, f"{command} {action.option_strings}"
            seen.add(kinds[action.type])
    assert seen == set(kinds.values())


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of each kind, one that is there under a near name, and what looks like a file and is none."""
    folder = tmp_path_factory.mktemp("files")
    states = np.zeros((6, 2))
    arrays = {"observations": states, "actions": states[:, :1], "rewards": states[:, 0], "terminations": np.arange(6) == 5}
    np.savez(folder / "own.npz", truncations=np.zeros(6), **arrays)
    for suffix in ("npz", "hdf5", "zip", "yml"):
        (folder / f"empty.{suffix}").touch()
        (folder / f"text.{suffix}").write_text("a: [b\n\tc")
        Image.new("L", (2, 2)).save(folder / f"picture.{suffix}", format="png")
        (folder / f"folder.{suffix}").mkdir()
        os.symlink(f"loop.{suffix}", folder / f"loop.{suffix}")
    (folder / "agent.zip").touch()
    os.mkfifo(folder / "pipe.npz")
    (folder / "plan.yml").write_text("algorithms: {bc: }\nstages: [{datasets: [a/b-v0], seeds: [true]}]")
    return folder


OUTPUT = ["evaluate", "--model", "agent.zip", "-o"]
LINES = {
    "train --datset x": "there is no flag '--datset'; did you mean '--dataset'",
    "plot curves --dataset x --exp_id 3": "there is no flag '--exp_id'; did you mean '--exp-id'",
    "train x": "'x' is one word too many",
    "train --seed": "expected one argument",
    "train -n 0": "argument -n/--n-timesteps: '0' must be at least 1",
    "speed --shape hoper": "'hoper' is not known; did you mean 'hopper'",
    "plot curve": "'curve' is not known; did you mean 'curves'",
    "evaluate --algo DAC": "'DAC' is not known; did you mean 'dac'.* There are: awac",
    "train --algo td3-bc": "did you mean 'td3_bc'",
    "train --device gpu": "'gpu' is not known; use auto, cpu",
    "train --device cuda:99": "PyTorch finds [0-9]+ GPUs here",
    "train --verbose 3": "3 is not known.* There are: 0, 1, 2",
    "evaluate --load-best --load-checkpoint 3": "not allowed with",
    "evaluate --model agent.zip --load-best": "leave out --load-best",
    "enjoy --video a.mp4 --no-render": "not allowed with",
    "enjoy --model agent.zip --fps 0": "'0' must be at least 1",
    "inspect own.npz --gamma 1": r"'1' must lie in \[0, 1\)",
    "train -f own.npz": "'own.npz' is not a folder",
    "train -tb own.npz/x": "'own.npz' is not a folder",
    "train -f loop.npz/x": "symbolic links",
    "evaluate --model agent.zip -o folder.zip": "'folder.zip' is not a file's name",
    "evaluate --model agent.zip -o own.npz": "'own.npz' already exists and is not a .json file",
    "evaluate --dataset x -f own.npz": "'own.npz' is not a folder",
    "enjoy --video own.npz": "'own.npz' already exists and is not a .mp4 file",
    "train --dataset own.npz -params batch_size:3 batch_size:4": "'batch_size' is given twice",
    "train --dataset own.npz --env-kwargs max_episode_steps:5": "No environment is known",
    "inspect own.npz --json own.npz/x": "'own.npz' is not a folder",
    f"plot maze --dataset own.npz -o {'x' * 300}": "name too long",
    "train --dataset ow.npz": "ow.npz does not exist; did you mean own.npz",
    "train --dataset own.np": "neither a file nor a dataset's id.*did you mean own.npz",
    "train --dataset folder.npz": "is a folder, and a file is wanted",
    "train --dataset text.hdf5": "is not an HDF5 file",
    "train --dataset pipe.npz": "is a pipe or device, and a file is wanted",
    "evaluate --model pipe.npz": "No checkpoint at",
    f"train --dataset {'x' * 300}.npz": "name (is )?too long",
    "train --dataset hopper/medium": "neither a file nor a dataset's id",
    "plot maze --dataset genoffline/hoper/medium-v1": "not on this machine; did you mean 'genoffline/hopper/medium-v1'",
    "collect genoffline/hoper/medium-v1": "Did you mean genoffline/hopper/medium-v1",
    "evaluate --dataset a/b-v0 --exp-id 3": "no run 3 of dac on a/b-v0",
    "evaluate --model agen.zip": "No checkpoint at 'agen.zip'.*did you mean agent.zip",
    "evaluate --model loop.zip": "No checkpoint at 'loop.zip'",
    "train --dataset own.npz -params batch_size:32.0": "batch_size=32.0 must be a whole number: write 32",
    "train --dataset own.npz -params batch_size": "'batch_size' is not a pair",
    "train --dataset own.npz -params policy:[1]": r"policy=\[1\] is not known",
    "train --dataset own.npz -params env_kwargs:3": "env_kwargs=3 must be a mapping",
    "train --dataset own.npz --env-kwargs render_mode:human --eval-freq 3": "would open a window",
    "train --dataset own.npz -conf empty.yml": "zoo train: empty.yml has neither an entry for 'own' nor a `default`",
    "train --dataset own.npz -conf folder.yml": "is not a valid YAML file: it is a folder",
    "train --dataset own.npz -conf text.yml": "is not plain YAML",
    "train --dataset own.npz -conf picture.yml": "holds no text",
    "train --dataset own.npz -conf plan.yam": "is not a YAML file",
    "benchmark pla.yml": "no YAML file at 'pla.yml'; did you mean plan.yml",
    "benchmark plan.yml --status": "has the entry True, which must be a whole number",
    **{f"evaluate --model {kind}.zip": "not a readable zip archive" for kind in ("empty", "text", "picture")},
    **{f"train --dataset {kind}.npz": "can(not|'t) be read" for kind in ("empty", "text", "picture")},
}


@pytest.mark.parametrize("line", LINES)
def test_a_wrong_line_is_one_sentence_and_leaves_nothing(
    line: str, files: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(files)
    before = sorted(files.rglob("*"))
    with pytest.raises(SystemExit) as ended:
        main(line.split(" "))
    code = ended.value.code
    assert code not in (0, None)
    text = code.removesuffix("(set ZOO_TRACEBACK=1 for the traceback)") if isinstance(code, str) else capsys.readouterr().err
    assert "\n" not in text.strip()
    assert re.search(LINES[line], text), text
    assert sorted(files.rglob("*")) == before


def test_a_dataset_of_ours_that_is_not_here_is_told_how_to_get_it_and_others_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    with pytest.raises(UserError, match=r"zoo collect genoffline/hopper/expert-v1` makes it.*--collect"):
        find_dataset("genoffline/hopper/expert-v1")
    for wrong, near in {"genoffline/hopper/exprt-v1": "expert-v1", "genofline/hopper/expert-v1": "expert-v1"}.items():
        with pytest.raises(UserError, match=f"did you mean 'genoffline/hopper/{near}'") as told:
            find_dataset(wrong, collect=True)
        assert "makes it" not in str(told.value)


class Stubborn(PointEnv):
    """Fails at its first step."""

    action_space = gym.spaces.Box(-1, 1, (2,))

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__()

    def step(self, action: np.ndarray) -> Any:
        raise TypeError("cannot unpack")


gym.register("genoffline-tests/Stubborn-v0", entry_point=Stubborn)


def test_an_environment_that_fails_is_named_before_the_training_begins(files: Path, tmp_path: Path) -> None:
    make = env_factory(None, "genoffline-tests/Stubborn-v0")
    with pytest.raises(UserError, match=r"Stubborn-v0 failed in step\(\): TypeError: cannot unpack"):
        play(make_agent("bc", make()), make(), 3)
    rng = np.random.default_rng(0)
    arrays = {"observations": rng.normal(size=(20, 3)), "actions": rng.uniform(0, 1, (20, 2)), "rewards": np.zeros(20)}
    np.savez(tmp_path / "point.npz", terminations=np.arange(20) % 5 == 4, truncations=np.zeros(20), **arrays)
    line = ["train", "--algo", "bc", "--dataset", str(tmp_path / "point.npz"), "-f", str(tmp_path / "logs")]
    with pytest.raises(SystemExit, match=r"Stubborn-v0 failed in step\(\)"):
        main([*line, "--env", "genoffline-tests/Stubborn-v0", "-n", "3", "--profile", "tiny"])
    assert not (tmp_path / "logs").exists()


def test_an_agent_at_play_in_other_spaces_is_told_the_difference() -> None:
    with pytest.raises(UserError, match="action space differs from the environment's"):
        play(make_agent("bc"), gym.make("Pendulum-v1"), 3)
