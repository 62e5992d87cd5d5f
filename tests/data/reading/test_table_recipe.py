"""The way of the page of data from a table of steps to a dataset."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from gymnasium import spaces
from labelled_episodes import Episode, arrays, assert_aligned

EPISODES = [Episode(0, 3, "truncated"), Episode(1, 1, "terminated"), Episode(2, 4, "cut"), Episode(3, 2, "terminated")]
README = (Path(__file__).parents[3] / "sb3_genoffline" / "data" / "README.md").read_text()
(RECIPE,) = [block for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "read_csv" in block]


def table(flags=bool, **more):
    rows = arrays(EPISODES)
    columns = {"reward": rows["rewards"], "terminated": rows["terminations"].astype(flags)} | more
    columns |= {f"obs_{i}": rows["observations"][:, i] for i in range(3)}
    columns |= {f"act_{i}": rows["actions"][:, i] / 2 for i in range(2)}
    episode, step = rows["observations"][:, :2].astype(int).T
    return pd.DataFrame({"episode": episode, "step": step} | columns).sample(frac=1, random_state=0)


def run(code):
    names = {}
    exec(compile(code, "README.md", "exec"), names)
    dataset = names["dataset"]
    assert dataset.action_space == spaces.Box(-3, 3, (2,))
    return dataset.replace(action_space=spaces.Box(-6, 6, (2,)), actions=dataset.actions * 2)


@pytest.mark.parametrize("flags", [bool, int])
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_shuffled_log_becomes_aligned_episodes_without_the_rows_that_were_cut(tmp_path, monkeypatch, kind, flags):
    monkeypatch.chdir(tmp_path)
    if kind == "csv":
        table(flags).to_csv("log.csv", index=False)
        code = RECIPE
    else:
        table(flags).to_parquet("log.parquet")
        code = RECIPE.replace('pd.read_csv("log.csv")', 'pd.read_parquet("log.parquet")')
    # The last step of an episode that was cut has no next observation in such a log.
    kept = [Episode(0, 2, "truncated"), Episode(1, 1, "terminated"), Episode(2, 3, "truncated"), Episode(3, 2, "terminated")]
    assert_aligned(run(code), kept, own_observation_at_terminal=True)


@pytest.mark.parametrize("yes", ["True", "1"])
def test_blank_cells_say_that_the_task_went_on_and_other_words_are_refused(tmp_path, monkeypatch, yes):
    monkeypatch.chdir(tmp_path)
    log = table(str)
    log["terminated"] = log["terminated"].map({"True": yes, "False": ""})
    log.to_csv("log.csv", index=False)
    assert np.flatnonzero(run(RECIPE).terminations).tolist() == [2, 7]
    log["terminated"] = log["terminated"].map({yes: "yes", "": ""})
    log.to_csv("log.csv", index=False)
    with pytest.raises(ValueError, match="could not convert string to float: 'yes'"):
        run(RECIPE)


def test_with_columns_of_next_observations_every_row_is_kept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    following = arrays(EPISODES)["next_observations"]
    table(**{f"next_obs_{i}": following[:, i] for i in range(3)}).to_csv("log.csv", index=False)
    code = RECIPE.replace(
        "arrays = {\n", 'arrays = {\n    "next_observations": table.filter(regex="^next_obs_").to_numpy(),\n'
    )
    dataset = run(code)
    assert_aligned(dataset, EPISODES)
    assert len(dataset) == 10 and np.flatnonzero(dataset.truncations).tolist() == [2, 7]
