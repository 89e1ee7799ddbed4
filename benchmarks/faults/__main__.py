"""``python -m benchmarks.faults``: run the rows that were asked for and print the table.

Each row runs a program that serves requests, traced and beside it untraced, against a server or a
Collector that fails in one way, and ends it. Then everything is mended and the program is started
again. Spans are counted where they are made and, by their ids, where they arrive: a span that
comes twice, as it may when an answer came too late, was received once.

What else runs on the machine can only make a latency worse. A row of which nothing but the latency
is wrong is run again, twice at most, and the best counts.
"""

from __future__ import annotations

import argparse
import sys

from benchmarks.faults.rows import ROWS, Row
from benchmarks.faults.running import FULL, QUICK, Pace, Result, run_row

_COLUMNS = (
    *(("made", 7), ("received", 9), ("twice", 6), ("spooled", 8), ("recovered", 10)),
    *(("lost", 6), ("p99", 6), ("exit s", 7)),
)
P99, EXIT_S = 1.2, 5.0
"""What must hold: latency against the untraced program, and the time of an exit."""

_TOO_SLOW = f"p99 above {P99}"

_ATTEMPTS = 3
_SLACK_S = 1.0
"""What an interpreter takes to end, on a busy machine."""


def _problems(row: Row, result: Result) -> list[str]:
    found = []
    if not result.adds_up:
        found.append(f"does not add up ({result.waiting} wait in the spool)")
    if unwanted := {reason for reason in result.lost if reason not in row.losses}:
        found.append(f"lost: {', '.join(sorted(unwanted))}")
    if result.p99 > P99:
        found.append(_TOO_SLOW)
    if result.exit_s > EXIT_S + _SLACK_S:
        found.append("exit too late")
    return found


def _run(row: Row, pace: Pace) -> Result:
    results = [run_row(row, pace)]
    while _problems(row, results[-1]) == [_TOO_SLOW] and len(results) < _ATTEMPTS:
        results.append(run_row(row, pace))
    return min(results, key=lambda result: (len(_problems(row, result)), result.p99))


def _line(row: Row, result: Result) -> str:
    cells = (
        *(result.made, result.received, result.duplicates, result.spooled, result.recovered),
        sum(result.lost.values()),
        f"{result.p99:.2f}" if result.p99 else "-",
        f"{result.exit_s:.1f}",
    )
    numbers = "".join(f"{cell:>{width}}" for cell, (_, width) in zip(cells, _COLUMNS, strict=True))
    reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(result.lost.items()))
    problems = _problems(row, result)
    wrong = f"!! {'; '.join(problems)}" if problems else ""
    said = "  ".join(part for part in (reasons, wrong) if part)
    return f"{row.name:<44}{numbers}  {said or 'ok'}"


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faults", description=__doc__)
    parser.add_argument("rows", nargs="*", metavar="WORD", help="only rows with it in their name")
    parser.add_argument(
        "--quick", action="store_true", help="a few seconds each, with shorter timeouts"
    )
    asked = parser.parse_args(arguments)
    rows = [row for row in ROWS if all(word in row.name for word in asked.rows)]
    print(f"{'':<44}" + "".join(f"{name:>{width}}" for name, width in _COLUMNS))
    failed = 0
    for row in rows:
        try:
            result = _run(row, QUICK if asked.quick else FULL)
        except FileNotFoundError as error:
            print(f"{row.name:<44}  skipped: {error}", flush=True)
            continue
        failed += bool(_problems(row, result))
        print(_line(row, result), flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
