"""The ``search:`` blocks: every algorithm has one that it takes, and what is wrong in one is told."""

from pathlib import Path
from typing import Any

import pytest

from sb3_genoffline.errors import UserError
from sb3_genoffline.registry import ALGOS
from zoo.runs.hyperparameters import load_hyperparameters, parse_pairs, read_settings
from zoo.tune.space import Choice, Range, Space, read_space

TD3BC = ALGOS["td3_bc"]


def space_of(block: dict[str, Any], algo: str = "td3_bc") -> Space:
    return read_space(block, ALGOS[algo], {"policy": "MlpPolicy"}, "FILE, search")


@pytest.mark.parametrize("algo", ALGOS)
@pytest.mark.parametrize("profile", [None, "cpu"])
def test_every_algorithm_takes_all_that_its_block_searches(algo: str, profile: str | None) -> None:
    base = load_hyperparameters(algo, "some/set-v0", profile)
    assert read_space(read_settings(algo).search, ALGOS[algo], base.plain, algo).parameters


def test_lists_are_choices_and_mappings_ranges() -> None:
    block = {
        "alpha": {"low": 1, "high": 4},
        "batch_size": {"low": 16, "high": 256, "log": True},
        "tau": [0.005, 0.02],
        "policy_kwargs": {"net_arch": [[8], [8, 8]]},
    }
    assert space_of(block).parameters == {
        "alpha": Range(1, 4, False, whole=False),
        "batch_size": Range(16, 256, True, whole=True),
        "tau": Choice([0.005, 0.02]),
        "policy_kwargs.net_arch": Choice([[8], [8, 8]]),
    }


def test_the_command_line_says_the_same() -> None:
    words = ["alpha:dict(low=1, high=4)", "tau:[0.005,0.02]", "policy_kwargs:dict(net_arch=[[8],[8,8]])"]
    assert space_of(parse_pairs(words)).parameters == {
        "alpha": Range(1, 4, False, whole=False),
        "tau": Choice([0.005, 0.02]),
        "policy_kwargs.net_arch": Choice([[8], [8, 8]]),
    }


def test_settings_are_optunas_parameters_and_back() -> None:
    space = space_of(
        {"alpha": {"low": 1, "high": 4}, "policy_kwargs": {"net_arch": [[8], [8, 8]]}, "max_grad_norm": [None, 1.0]}
    )
    settings = {"alpha": 2.5, "policy_kwargs": {"net_arch": [8, 8]}, "max_grad_norm": None}
    point = space.point({**settings, "tau": 0.005})
    assert point is not None and space.settings(point) == settings
    assert space.point({**settings, "alpha": 5.0}) is None
    assert space.settings({**point, "alpha": 1.23456789})["alpha"] == 1.235
    assert space.settings({**point, "alpha": 4.0})["alpha"] == 4.0


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ({}, "FILE, search names no hyper-parameter"),
        ({"alpa": [1.0]}, "FILE, search: TD3BC has no hyper-parameter 'alpa'; did you mean 'alpha'"),
        ({"alpa": {"low": 1, "high": 2}}, "has no hyper-parameter 'alpa'"),
        ({"alpa": 1.0}, "has no hyper-parameter 'alpa'"),
        ({"policy_kwargs": {"net_arc": [[8]]}}, "FILE, search: policy_kwargs: .* has no argument 'net_arc'"),
        ({"policy_kwargs": [{"net_arch": [8]}]}, "FILE, search, policy_kwargs must map names to values"),
        ({"tau": [0.5, 1.5]}, r"FILE, search: tau=1\.5 must"),
        ({"tau": {"low": 0.5, "high": 1.5}}, r"FILE, search: tau=1\.5 must"),
        ({"batch_size": {"low": 1.5, "high": 3}}, r"batch_size=1\.5 must be a whole number"),
        ({"n_timesteps": [10]}, "n_timesteps can't be searched: give -n"),
        ({"alpha": 2.5}, r"alpha is 2\.5, neither a list of values nor a range: write \[2\.5\]"),
        ({"alpha": []}, "alpha is an empty list"),
        ({"alpha": [1.0, 2.0, 1.0]}, r"alpha has 1\.0 twice"),
        ({"alpha": [1, 1.0]}, r"alpha has 1 and 1\.0, which are the same: leave one out"),
        ({"alpha": {"low": 1}}, "alpha, high: None must be a number"),
        ({"alpha": {"low": 2, "high": 1}}, "low=2 must lie below high=1"),
        ({"alpha": {"low": 0, "high": 1, "log": True}}, "low=0 must be positive where log is true"),
        ({"alpha": {"low": 1, "high": 2, "log": "yes"}}, "alpha, log: 'yes' must be True or False"),
        ({"alpha": {"low": 1, "high": 2, "lg": True}}, "alpha has 'lg'; did you mean 'log'"),
        ({"alpha": ["__import__('os')"]}, "is not a plain value"),
    ],
)
def test_what_is_wrong_in_a_block_is_told(block: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        space_of(block)


def test_files_are_not_searched_over() -> None:
    with pytest.raises(UserError, match="density names a file, which is not a value to search over"):
        space_of({"density": ["/etc/passwd"]}, "spot")


def test_a_file_without_a_block_still_gives_settings(tmp_path: Path) -> None:
    conf = tmp_path / "conf.yml"
    conf.write_text("default: {alpha: 1.0}\nsearch: {alpha: [1.0]}\n")
    assert load_hyperparameters("td3_bc", "search", conf_file=conf).entry == "default"
    assert read_settings("td3_bc", conf).search == {"alpha": [1.0]}


def test_a_profile_can_be_a_file(tmp_path: Path) -> None:
    file = tmp_path / "best.yml"
    file.write_text("default: {alpha: 3.5, policy_kwargs: {net_arch: [8]}}\nsome/set-v0: {tau: 0.1}\n")
    assert load_hyperparameters("td3_bc", "other-v0", str(file)).arguments["alpha"] == 3.5
    assert load_hyperparameters("td3_bc", "some/set-v0", str(file)).arguments["tau"] == 0.1
    file.write_text("default: {alpha: !!python/object/apply:os.getcwd []}\n")
    with pytest.raises(UserError, match="is not plain YAML"):
        load_hyperparameters("td3_bc", "other-v0", str(file))
    file.write_text("default: {rho: 1.0}\n")
    with pytest.raises(UserError, match="TD3BC has no hyper-parameter 'rho'"):
        load_hyperparameters("td3_bc", "other-v0", str(file))


def test_a_small_grid_is_all_its_settings() -> None:
    space = space_of({"alpha": [1.0, 2.0], "policy_kwargs": {"net_arch": [[8], [8, 8]]}})
    grid = space.grid()
    assert grid is not None and len(grid) == 4 and all(space.point(space.settings(point)) == point for point in grid)
    assert space_of({"alpha": {"low": 1, "high": 2}}).grid() is None
    assert space_of({"batch_size": list(range(1, 102))}).grid() is None
