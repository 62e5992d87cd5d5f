"""Names of repositories: from algorithm and dataset, and by the Hub's rules."""

import pytest

from sb3_genoffline.hub.naming import check_repo_id, repo_name


@pytest.mark.parametrize(
    ("algo", "dataset", "name"),
    [
        ("dac", "genoffline/hopper/medium-replay-v1", "dac-hopper-medium-replay-v1"),
        ("dac", "hopper-medium-v2", "dac-hopper-medium-v2"),
        ("td3_bc", "D4RL/antmaze/umaze-diverse-v1", "td3-bc-antmaze-umaze-diverse-v1"),
        ("bc", "data/hopper-medium-v2.hdf5", "bc-hopper-medium-v2"),
        ("iql", "own.npz", "iql-own"),
        ("qdq", "data/my walks.hdf5", "qdq-my-walks"),
        ("bc", "x/odd..name--v2-v10", "bc-odd.name-v2-v10"),
    ],
)
def test_a_name_is_the_algorithm_and_the_dataset(algo: str, dataset: str, name: str) -> None:
    assert repo_name(algo, dataset) == name
    check_repo_id(f"org/{name}")


@pytest.mark.parametrize(
    ("repo_id", "rule"),
    [
        ("dac", "one slash"),
        ("a/b/c", "one slash"),
        ("org/", "is empty"),
        ("org/" + "x" * 97, "97 characters"),
        ("org/d ac", "the character ' '"),
        ("org/dac\n", "the character"),
        ("org/däc", "the character 'ä'"),
        ("org/d--ac", "'--' or"),
        ("../dac", "'--' or '..'"),
        ("org/-dac", "begins or ends"),
        (".org/dac", "begins or ends"),
        ("org/dac.git", r"end in '\.git'"),
    ],
)
def test_the_rule_that_a_name_breaks_is_named(repo_id: str, rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        check_repo_id(repo_id)
