"""The command line: which rows are run, and how thoroughly."""

from __future__ import annotations

import argparse
import importlib
import logging
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.harness import ROWS, Effort, Row
from benchmarks.report import Outcome, header, machine, table_line, write_json

__all__ = ["load_rows", "run", "run_row", "selected"]

FULL, QUICK = Effort(), Effort(rounds=5, scale=0.5)


def load_rows() -> dict[str, Row]:
    """Import every module of this folder that registers rows, and return the table's rows."""
    for path in sorted(Path(__file__).parent.glob("*.py")):
        if "@row(" in path.read_text(encoding="utf-8"):
            importlib.import_module(f"benchmarks.{path.stem}")
    return ROWS


def run(arguments: Sequence[str]) -> int:
    """Print the table; 0 when every row could be measured, whatever its verdict."""
    options = _parser().parse_args(arguments)
    effort = QUICK if options.quick else FULL
    if options.rounds:
        effort = replace(effort, rounds=options.rounds)
    # opentelemetry-sdk says so for spans that it drops, which would be measured.
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
    facts = machine(effort)
    print(header(facts), flush=True)
    outcomes = []
    for outcome in _outcomes(selected(load_rows(), options.rows), effort):
        print(table_line(outcome), flush=True)
        outcomes.append(outcome)
    if options.json:
        write_json(options.json, facts, outcomes)
    return int(any(outcome.problem.startswith("failed") for outcome in outcomes))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rows", help="themes or rows, with commas: spans,http.flask")
    parser.add_argument("--rounds", type=int, help=f"rounds a row; {FULL.rounds}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    parser.add_argument("--quick", action="store_true", help="under a minute, less exact")
    return parser


def selected(rows: dict[str, Row], names: str | None) -> list[Row]:
    """Return the rows that are named, by whole name or by theme; all when none is."""
    if not names:
        return list(rows.values())
    wanted = {name.strip() for name in names.split(",") if name.strip()}
    themes = {name.partition(".")[0] for name in rows}
    unknown = wanted - themes - rows.keys()
    if unknown:
        raise SystemExit(f"no row {', '.join(sorted(unknown))}; rows: {', '.join(rows)}")
    return [row for row in rows.values() if {row.name, row.name.partition(".")[0]} & wanted]


def _outcomes(rows: Sequence[Row], effort: Effort) -> Iterator[Outcome]:
    for row in rows:
        yield run_row(row, effort)


def run_row(row: Row, effort: Effort) -> Outcome:
    """Measure a row; a part of tracekit that is not there yet fails nothing."""
    try:
        return Outcome(row, row.measure(effort))
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("tracekit."):
            return Outcome(row, None, "not there yet")
        return Outcome(row, None, f"failed: {error}")
    except Exception as error:
        print(f"{row.name}: {type(error).__name__}: {error}", file=sys.stderr)
        return Outcome(row, None, f"failed: {type(error).__name__}")
