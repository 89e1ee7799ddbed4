"""Three processes in a row, each with a tail sampler: what one of them keeps, all of them keep."""

from __future__ import annotations

import importlib
from typing import Any

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.matrix_skip]


@pytest.fixture
def across(monkeypatch: pytest.MonkeyPatch, repository: Any) -> Any:
    monkeypatch.syspath_prepend(str(repository))
    return importlib.import_module("benchmarks.across.running")


def test_a_trace_that_matters_behind_is_kept_whole_and_no_other_one(across: Any) -> None:
    outcomes = across.run(across.fates_of(240, 4))
    for fate in across.FATES:
        outcome = outcomes[fate]
        assert (fate, outcome.whole, outcome.requests) == (fate, 15, 15)
    ordinary = outcomes[across.ORDINARY]
    assert (ordinary.requests, ordinary.beyond) == (180, 0)
    # A share of the back, four times that of the others, is not theirs.
    assert ordinary.kept["front"] == ordinary.kept["middle"] < ordinary.kept["back"]
