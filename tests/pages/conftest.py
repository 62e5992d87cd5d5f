"""The benchmark that the pages of the first ten algorithms speak of."""

import pytest
from recorded import BENCHMARK, results_of

from zoo.benchmark.results import Results


@pytest.fixture(scope="module")
def results() -> Results:
    return results_of(BENCHMARK.name)
