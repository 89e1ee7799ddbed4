"""A small run of the realistic mix: what matters is kept whole, and the rest can be counted."""

from __future__ import annotations

import importlib
import math
from pathlib import Path

import pytest

pytestmark = [pytest.mark.matrix_skip, pytest.mark.slow]

SHARE = 0.2
# Beyond four standard deviations chance comes once in 16,000 runs.
FAR = 4.0


@pytest.fixture(scope="module")
def outcomes(repository: Path):
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(repository))
        sampling = importlib.import_module("benchmarks.sampling")
        return list(sampling.outcomes(runs=3, requests=400, share=SHARE))


def test_every_trace_that_failed_or_was_slow_is_kept_whole(outcomes):
    assert [each.requests for each in outcomes] == [400, 400, 400]
    assert sum(each.target for each in outcomes) > SHARE * 1200
    assert [each.lost for each in outcomes] == [0, 0, 0]


def test_no_more_and_no_less_is_kept_than_was_asked_for(outcomes):
    target = sum(each.target for each in outcomes)
    spread = math.sqrt(1200 * SHARE * (1 - SHARE))
    assert abs(sum(each.kept for each in outcomes) - target) < FAR * spread


def test_requests_can_be_counted_from_what_was_kept(outcomes):
    off = sum(each.off["requests"] for each in outcomes) / len(outcomes)
    assert abs(off) < FAR * math.sqrt((1 - SHARE) / SHARE / 1200)
