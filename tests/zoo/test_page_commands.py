"""The zoo's commands of each page are run in their order, small: a page makes what its later commands read."""

import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest

from sb3_genoffline.registry import ALGOS
from zoo import __main__ as zoo_main
from zoo.collect.make import collect
from zoo.plot import figures

ROOT = Path(__file__).parents[2]
LIBRARY = ROOT / "sb3_genoffline"
PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "sb3_genoffline").rglob("README.md")),
    *(ROOT / "zoo" / name / "README.md" for name in (".", "tune", "behavior", "benchmarks/cpu")),
]
DATASETS = ("hopper/medium-replay-v1", "hopper/medium-v1", "walker2d/clipped-noise-v0", "pointmaze/stitch-v0")
SMALLER = {
    "collect": "--steps 4000",
    "train": "-n 2 --eval-freq 2 --eval-episodes 1 --no-progress",
    "evaluate": "-n 1",
    "inspect": "--no-picture",
    "judge": "-n 2 --fqe-only",
    "publish": "-n 1 --video-length 4",
    "tune": "--trials 1 -n 4 --fit-steps 4 --profile tiny --jobs 1",
    "speed": "--rounds 1 --updates 1",
    "plot maze": "--n-walks 1",
    "plot plans": "--n-plans 2 --n-places 1",
    "plot bandit": "--steps 2 --denoised-steps 2 --sets 1",
}
NOT_RUN = {
    "--download": "asks Minari's server",
    "collect all": "is every dataset",
    ".yml -f logs": "is many runs; tests/zoo/benchmark runs small plans",
    "-f logs/small": "is of the runs of a benchmark",
    "-f logs/learning": "is of the runs of another",
    "--no-dry-run": "sends to the Hub; tests/hub has one of its own",
    "--agent RUN": "is of any run; the pages of BC, Decision Transformer and Diffuser have such lines",
    "gpu-check": "tests/zoo/gpu_check/test_gpu_check.py runs it",
    "plot density -o": "trains toys for minutes; tests/zoo/plot/test_density_plot.py has smaller ones",
    "python -m zoo.": "is a script; its own test runs it small",
}
COPIED = (
    *(f"hub_models/{algo}-hopper-medium-replay-v1" for algo in ("dac", "qdq", "cped")),
    *("hub_models/dac-walker2d-clipped-noise", "zoo/benchmarks", "zoo/figures/beside.json"),
)
"""What commands of pages read in a checkout, for those that do."""
BEFORE = {"hub": "dac", "deploy": "dac", "ope": "bc"}
"""Pages about what is done with a run that is there, by the algorithm of that run."""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few steps of those that the pages name."""
    root = tmp_path_factory.mktemp("minari")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(root))
        for name in DATASETS:
            collect(f"genoffline/{name}", steps=4_000)  # so that some arrive in the maze
    return root


def lines_of(page: Path) -> list[str]:
    """
    What a page types into a shell: commands of the zoo, and Python between the marks of a here-document; so too what saves a
    changed agent for a later command.
    """
    lines = []
    for kind, block in re.findall(r"^```(sh|bash|python)\n(.*?)```", page.read_text(), re.DOTALL | re.MULTILINE):
        if kind != "python":
            lines += re.findall(r"^python - <<'END'\n[^`]*?\nEND$|^python -m zoo.*$", block, re.MULTILINE)
        elif "load_from_hub(" in block and ".save(" in block:
            lines.append(f"python - <<'END'\n{block}END")
    return lines


def run(line: str) -> None:
    """One of :func:`lines_of`, small."""
    if line.startswith("python - "):
        exec(line.partition("\n")[2].removesuffix("END").replace(", 20)", ", 1)"), {})
        return
    _, _, _, *words = shlex.split(line, comments=True)
    name = " ".join(words[:2]) if words[0] == "plot" else words[0]
    words += SMALLER.get(name, "").split()
    if name == "train" and not any(word.endswith(".yml") for word in words):
        words = ["horizon:4" if word.startswith("horizon:") else word for word in words] + ["--profile", "tiny"]
    zoo_main.main(words)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.parent.name)
def test_a_page_can_be_followed(page: Path, datasets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(datasets))
    monkeypatch.setenv("SB3_GENOFFLINE_CACHE", str(datasets / "cache"))
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setattr(figures, "DPI", 30)
    monkeypatch.chdir(tmp_path)
    for name in COPIED:
        if name in page.read_text():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, tmp_path / name)
    rng = np.random.default_rng(0)
    numbers = {
        "observations": rng.normal(size=(60, 3)),
        "actions": rng.uniform(-2, 2, (60, 1)),
        "rewards": rng.normal(size=60),
    }
    np.savez("own.npz", **numbers, terminals=np.arange(60) % 10 == 9, timeouts=np.zeros(60))
    lines = [line for line in lines_of(page) if not any(part in line for part in NOT_RUN)]
    if page.parent.name in BEFORE:
        lines.insert(0, f"python -m zoo train --algo {BEFORE[page.parent.name]} --dataset genoffline/{DATASETS[0]} -f logs")
    for line in lines:
        run(line)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("algo", [name for name in ALGOS if "\n# about " in (LIBRARY / name / "README.md").read_text()])
def test_an_example_prints_about_what_its_page_says(
    algo: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The examples of ``pages/test_readme.py``, with all their updates."""
    code = (LIBRARY / algo / "README.md").read_text().partition("```python\n")[2].partition("```")[0]
    monkeypatch.chdir(tmp_path)
    exec(compile(code, algo, "exec"), {"__name__": "__main__"})
    (said,) = re.findall(r"^# about ([^:\n]*)", code, re.MULTILINE)
    numbers = [float(number) for number in re.findall(r"\d+\.\d+", said)]
    printed = [float(number) for number in re.findall(r"-?\d+\.\d+", capsys.readouterr().out)]
    printed = printed[1::2] if algo == "decision_transformer" else printed  # it says what it was asked for, too
    assert printed == pytest.approx(numbers, abs=0.1 if algo != "decision_transformer" else 0.5)
