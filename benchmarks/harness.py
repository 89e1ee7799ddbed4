"""Rows of the table, and how two subjects are measured against each other.

A row is a function that measures both sides and returns ``Figures``; ``@row`` puts it into the
table. The machine is noisy and shared, so nothing rests on one reading: the two sides take
turns in short rounds, each round gives one ratio, and the median of the ratios is the answer.

The cost of work is the CPU time of the whole process, background threads included, until
everything that was handed over has been dealt with: what a worker thread does is taken from the
program too, and the time that other processes take is nobody's cost. The garbage collector
stays on.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

__all__ = [
    "ROWS",
    "Contestant",
    "Cost",
    "Effort",
    "Figures",
    "Row",
    "compare",
    "cost_of",
    "median_figures",
    "row",
]


@dataclass(frozen=True)
class Effort:
    """How much is measured.

    Args:
        rounds: How often the sides take turns.
        scale: A factor on how much is done in a round.
    """

    rounds: int = 15
    scale: float = 1.0

    def items(self, number: int) -> int:
        return max(2, round(number * self.scale))


@dataclass(frozen=True)
class Figures:
    """What a row found; ``ratio`` is the median over the rounds and ``best`` the least."""

    theirs: float | None
    ours: float
    ratio: float | None = None
    best: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Row:
    """One line of the table: what is measured, and what is asked of it.

    ``limit`` says what ``must`` and ``aim`` are compared with: the ratio to the other side, or
    our own figure in ``unit``.
    """

    name: str
    title: str
    measure: Callable[[Effort], Figures]
    must: float | None
    aim: float | None
    unit: str
    limit: str

    def judged(self, figures: Figures) -> float | None:
        return figures.ratio if self.limit == "ratio" else figures.ours

    def verdict(self, figures: Figures) -> str:
        value = self.judged(figures)
        if value is None or self.must is None:
            return "-"
        if value > self.must:
            return "over must"
        return "ok" if self.aim is None or value > self.aim else "within aim"


ROWS: dict[str, Row] = {}

_Measure = Callable[[Effort], Figures]


def row(
    name: str,
    title: str,
    *,
    must: float | None = None,
    aim: float | None = None,
    unit: str = "µs",
    limit: str = "ratio",
) -> Callable[[_Measure], _Measure]:
    """Put a function into the table, as ``theme.what``."""

    def register(measure: _Measure) -> _Measure:
        ROWS[name] = Row(name, title, measure, must, aim, unit, limit)
        return measure

    return register


class Cost(NamedTuple):
    """Microseconds an item: of the process, of the calling thread, and of the clock."""

    cpu: float
    caller: float
    wall: float


def _nothing() -> None:
    return


@dataclass(frozen=True)
class Contestant:
    """Work that is measured: ``run`` does so many items, ``settle`` waits for what is left.

    ``prepare`` comes before each round and is not counted.
    """

    run: Callable[[int], object]
    settle: Callable[[], object] = _nothing
    prepare: Callable[[], object] = _nothing


def cost_of(contestant: Contestant, items: int) -> Cost:
    """Run one round."""
    contestant.prepare()
    wall, cpu, caller = time.perf_counter(), time.process_time(), time.thread_time()
    contestant.run(items)
    caller = time.thread_time() - caller
    contestant.settle()
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return Cost(cpu / items * 1e6, caller / items * 1e6, wall / items * 1e6)


def compare(theirs: Contestant, ours: Contestant, items: int, effort: Effort) -> Figures:
    """Let the two take turns, and return the medians."""
    count = effort.items(items)
    for contestant in (theirs, ours):
        cost_of(contestant, max(1, count // 4))
    gc.collect()
    rounds = [_one_round(theirs, ours, count, number) for number in range(effort.rounds)]
    return median_figures(rounds)


def _one_round(theirs: Contestant, ours: Contestant, items: int, number: int) -> tuple[Cost, Cost]:
    # Who comes first changes: the first one of a round meets colder caches.
    if number % 2:
        mine = cost_of(ours, items)
        return cost_of(theirs, items), mine
    other = cost_of(theirs, items)
    return other, cost_of(ours, items)


def median_figures(rounds: Sequence[tuple[Cost, Cost]]) -> Figures:
    ratios = [mine.cpu / other.cpu for other, mine in rounds]
    callers = [mine.caller / other.caller for other, mine in rounds]
    mine_callers = [mine.caller for _, mine in rounds]
    return Figures(
        theirs=statistics.median(other.cpu for other, _ in rounds),
        ours=statistics.median(mine.cpu for _, mine in rounds),
        ratio=statistics.median(ratios),
        best=min(ratios),
        note=f"caller alone {statistics.median(mine_callers):.2f} µs, "
        f"{statistics.median(callers):.3f}",
    )
