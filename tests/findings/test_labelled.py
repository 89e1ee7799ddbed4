"""Each finding is found where it is, and not where it is not: 5,000 traces with known faults."""

from __future__ import annotations

import re
import zlib
from collections import Counter
from pathlib import Path

import pytest

from findings.made import FAULTS, MAY_BE_FOUND, NOISES, faulty, healthy
from tracekit.findings._ranking import find_all, kinds
from tracekit.trace import traces_of

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "find-what-is-wrong.md"
SIZES = range(6)
REPEATS = 4
MIN_PRECISION = 0.95
# Leaves that got lost may be the very spans that prove it.
MIN_RECALL = {"timeouts": 0.95, "broken_propagation": 0.95}
HEALTHY = 1000


def found_in(spans) -> set[str]:
    (trace,) = traces_of(spans)
    return {item.kind for item in find_all(trace)}


@pytest.fixture(scope="module")
def outcome() -> dict[str, Counter[str]]:
    """Count for each kind what was found rightly, what wrongly, and what was missed."""
    counts: dict[str, Counter[str]] = {kind: Counter() for kind in kinds()}
    for name, (_, expected) in FAULTS.items():
        for size in SIZES:
            for noise_name, noise in NOISES.items():
                for repeat in range(REPEATS):
                    seed = zlib.crc32(f"{name} {size} {noise_name} {repeat}".encode())
                    found = found_in(faulty(name, size, noise, seed))
                    for kind in expected & found:
                        counts[kind]["right"] += 1
                    for kind in expected - found:
                        counts[kind]["missed"] += 1
                    for kind in found - expected - MAY_BE_FOUND.get(name, set()):
                        counts[kind]["wrong"] += 1
    return counts


def test_there_are_as_many_traces_as_promised() -> None:
    assert len(FAULTS) >= 40
    assert len(FAULTS) * len(SIZES) * len(NOISES) * REPEATS >= 5000


@pytest.mark.slow
@pytest.mark.parametrize("kind", kinds())
def test_what_is_found_is_there_and_what_is_there_is_found(kind: str, outcome) -> None:
    count = outcome[kind]
    precision, recall = _share(count, "wrong"), _share(count, "missed")
    print(f"{kind:20} precision {precision:.3f} recall {recall:.3f} of {sum(count.values())}")
    assert count["right"] > 0
    assert precision >= MIN_PRECISION, count
    assert recall >= MIN_RECALL.get(kind, 0.99), count


@pytest.mark.slow
@pytest.mark.parametrize("kind", kinds())
def test_the_page_says_how_sure_a_finding_is(kind: str, outcome) -> None:
    count = outcome[kind]
    told = re.search(
        rf"^\| `{kind}` \| (\d\.\d\d) \| (\d\.\d\d) \|$", PAGE.read_text(), re.MULTILINE
    )
    assert told is not None
    precision, recall = map(float, told.groups())
    assert precision == pytest.approx(_share(count, "wrong"), abs=0.006)
    assert recall == pytest.approx(_share(count, "missed"), abs=0.006)


def test_the_page_says_how_many_traces_there_were() -> None:
    number = len(FAULTS) * len(SIZES) * len(NOISES) * REPEATS
    assert f"{number:,} traces were made with a known fault in each: {len(FAULTS)} faults" in (
        PAGE.read_text()
    )


def _share(count: Counter[str], otherwise: str) -> float:
    return count["right"] / max(1, count["right"] + count[otherwise])


@pytest.mark.slow
def test_of_healthy_traces_hardly_any_is_blamed() -> None:
    blamed = sum(bool(found_in(healthy(seed))) for seed in range(HEALTHY))
    assert blamed <= HEALTHY / 200
