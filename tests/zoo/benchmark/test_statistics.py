"""The statistics of the report, on numbers that can be checked by hand."""

import numpy as np

from zoo.benchmark.statistics import improvement


def test_the_probability_of_improvement_is_the_mean_over_datasets() -> None:
    ours = {name: np.array(scores) for name, scores in {"a": [3.0, 4.0], "b": [0.0, 0.0], "c": [1.0, 1.0]}.items()}
    theirs = {name: np.array(scores) for name, scores in {"a": [1.0, 2.0], "b": [5.0, 6.0], "c": [2.0, 1.0]}.items()}
    assert improvement(ours, theirs) == np.mean([1.0, 0.0, 0.25])
