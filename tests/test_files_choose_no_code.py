"""Files of others choose values, never code: every place that builds, imports or unpickles something, and why it may."""

import ast
from collections import defaultdict
from pathlib import Path

import sb3_genoffline

ROOT = Path(sb3_genoffline.__file__).parents[1]
BY_USER = "what the user names"
OURS = "of our own recipes"
PLACES: dict[str, dict[str, str]] = {
    "exec": {"zoo.glucose.record": "the examples of our own page"},
    "gym.make": {
        "sb3_genoffline.common.envs": BY_USER,
        "sb3_genoffline.data.environments": "by a spec that the user gave, or by what `registered_spec` lets through",
        "sb3_genoffline.hub.foreign": BY_USER,
        "zoo.behavior.evolution": OURS,
        "zoo.behavior.pointmaze": OURS,
        "zoo.behavior.ppo": OURS,
        "zoo.behavior.rollout": OURS,
        "zoo.behavior.train": BY_USER,
        "zoo.collect.rate": OURS,
        "zoo.recipes.antmaze": OURS,
        "zoo.runs.envs": "what the user names or trusts",
    },
    "gym.register_envs": {
        "sb3_genoffline.data.environments": "a package that this library names",
        "zoo.recipes.antmaze": OURS,
        "zoo.recipes.pointmaze": OURS,
    },
    "importlib.import_module": {
        "sb3_genoffline.data.environments": "a package that this library names",
        "sb3_genoffline.deploy.onnx_file": "the three packages that it names",
        "zoo.__main__": "a command of the zoo",
        "zoo.reference.names": "what a docstring of ours names",
        "zoo.runs.tracking": "the packages that it names",
        "zoo.speed.agents": "a plain form of ours, by the name of an algorithm that the user gave",
    },
    "entry_points": {"sb3_genoffline.registry": "of installed packages"},
    "pickle._Unpickler": {"sb3_genoffline.data.reading.pickled": "whose names stand for nothing"},
    "th.load": {"sb3_genoffline.hub.foreign": "weights_only"},
    "yaml.SafeLoader": {"zoo.runs.reading": "the reader of all YAML, bounded"},
    "yaml.safe_load": {"zoo.runs.starting": "what was written a moment ago"},
}
WATCHED = {*PLACES, "gym.make_vec", "pickle.load", "pickle.loads", "pickle.Unpickler", "torch.load", "yaml.load"}
WATCHED |= {"yaml.full_load", "yaml.unsafe_load", "eval", "exec", "__import__", "runpy.run_path", "os.system", "np.memmap"}


def uses(path: Path) -> set[str]:
    """Watched names that a file calls, or derives a class from."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        named = [node.func] if isinstance(node, ast.Call) else node.bases if isinstance(node, ast.ClassDef) else []
        found |= {ast.unparse(name) for name in named} & WATCHED
    return found


def test_whatever_builds_imports_or_unpickles_is_known() -> None:
    found: dict[str, set[str]] = defaultdict(set)
    for folder in ("sb3_genoffline", "zoo"):
        for path in (ROOT / folder).rglob("*.py"):
            for name in uses(path):
                found[name].add(".".join(path.relative_to(ROOT).with_suffix("").parts))
    assert found == {name: set(places) for name, places in PLACES.items()}, "say in PLACES why a file may not choose what runs"
