"""Many spans at once: from four threads, and in a burst of 200,000."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

from benchmarks.fresh import run_module
from benchmarks.harness import Contestant, Effort, Figures, compare, row
from benchmarks.sides import Side, both_sides
from benchmarks.spans import roots

__all__ = ["in_threads"]

THREADS = 4
SPANS = 30_000
"""So many that starting the threads, which is no part of a span, does not count."""
BURST = 200_000


def in_threads(tracer: Any, items: int, number: int = THREADS) -> None:
    """Make ``items`` spans from so many threads, which begin together."""
    together = threading.Barrier(number)

    def work() -> None:
        together.wait()
        roots(tracer, items // number)

    threads = [threading.Thread(target=work) for _ in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


class _Counted:
    """How many spans a side was given, beside how many its exporter got."""

    def __init__(self, side: Side) -> None:
        self._side = side
        self._made = 0
        self.contestant = Contestant(self._run, side.provider.force_flush)

    def _run(self, items: int) -> None:
        self._made += items // THREADS * THREADS
        in_threads(self._side.tracer, items)

    def lost(self) -> int:
        return self._made - int(self._side.exporter.received)

    def share_lost(self) -> float:
        return self.lost() / self._made


@row("threads.span", "4 threads at once, per span", must=0.10, aim=0.06)
def four_threads(effort: Effort) -> Figures:
    with both_sides() as (theirs, ours):
        other, mine = _Counted(theirs), _Counted(ours)
        figures = compare(other.contestant, mine.contestant, SPANS, effort)
        return replace(figures, note=f"lost: theirs {other.share_lost():.0%}, ours {mine.lost()}")


@row("threads.lost", "spans lost by 4 threads", must=0, aim=0, unit="spans", limit="figure")
def lost_by_threads(effort: Effort) -> Figures:
    with both_sides() as (theirs, ours):
        other, mine = _Counted(theirs), _Counted(ours)
        compare(other.contestant, mine.contestant, SPANS, replace(effort, rounds=3))
        return Figures(other.lost(), mine.lost())


def _burst(threads: int, effort: Effort) -> Figures:
    """Make the burst in a fresh process for each side, so that the peak memory is its own."""
    count = str(effort.items(BURST))
    theirs, ours = (
        run_module("benchmarks.burst", side, str(threads), count)
        for side in ("opentelemetry", "tracekit")
    )
    note = "; ".join(
        f"{name} {found['cpu_us']:.1f} µs, +{found['peak_mib']:.0f} MiB"
        for name, found in (("theirs", theirs), ("ours", ours))
    )
    return Figures(theirs["lost"], ours["lost"], note=note)


@row("burst.one", "burst of 200,000, lost", must=0, aim=0, unit="spans", limit="figure")
def burst_from_one_thread(effort: Effort) -> Figures:
    return _burst(1, effort)


@row("burst.four", "the same from 4 threads, lost", must=0, aim=0, unit="spans", limit="figure")
def burst_from_four_threads(effort: Effort) -> Figures:
    return _burst(THREADS, effort)
