"""The table, and what it was measured on."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.harness import Effort, Figures, Row

__all__ = ["Outcome", "header", "machine", "table_line", "write_json"]

PACKAGES = (
    "tracekit",
    "opentelemetry-api",
    "opentelemetry-sdk",
    "opentelemetry-instrumentation",
    "flask",
    "fastapi",
    "requests",
    "httpx",
)
_WIDTHS = (80, 14, 12, 7, 7, 6, 6)
_HEADINGS = ("", "opentelemetry", "tracekit", "ratio", "best", "must", "aim")


class Outcome(NamedTuple):
    """A row that was run: its figures, or why there are none."""

    row: Row
    figures: Figures | None
    problem: str = ""

    @property
    def verdict(self) -> str:
        return self.problem if self.figures is None else self.row.verdict(self.figures)


def machine(effort: Effort) -> dict[str, Any]:
    """Return what figures depend on."""
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "system": platform.platform(terse=True),
        "versions": {name: _version(name) for name in PACKAGES},
        "rounds": effort.rounds,
        "scale": effort.scale,
    }


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def header(facts: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    return (
        f"{facts['cpu']}, {facts['cores']} cores, load {facts['load']}, "
        f"{facts['python']}, {facts['system']}\n{versions}\n"
        f"{facts['rounds']} rounds; ratio: median of the rounds; best: the least of them\n\n"
        + _line(_HEADINGS, "verdict")
    )


def table_line(outcome: Outcome) -> str:
    row, figures = outcome.row, outcome.figures
    title = f"{row.name:<33}{row.title}"
    if figures is None:
        return f"{title:<{_WIDTHS[0]}}  {outcome.problem}"
    must, aim = (_limit(row, value) for value in (row.must, row.aim))
    cells = (
        title,
        _amount(figures.theirs, row.unit),
        _amount(figures.ours, row.unit),
        _ratio(figures.ratio),
        _ratio(figures.best),
        must,
        aim,
    )
    return _line(cells, f"{outcome.verdict:<11} {figures.note}".rstrip())


def _line(cells: Sequence[str], end: str) -> str:
    first, *others = cells
    columns = "".join(f"{cell:>{width}}" for cell, width in zip(others, _WIDTHS[1:], strict=True))
    return f"{first:<{_WIDTHS[0]}}{columns}  {end}"


def _amount(value: float | None, unit: str) -> str:
    if value is None:
        return "-"
    if unit == "spans":
        return f"{value:,.0f} lost"
    return f"{value:,.0f} {unit}" if value >= 1000 else f"{value:.2f} {unit}"


def _ratio(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _limit(row: Row, value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:g}" if row.limit == "ratio" or not value else f"{value:g} {row.unit}"


def write_json(path: Path, facts: dict[str, Any], outcomes: Sequence[Outcome]) -> None:
    """Write the table for programs: one object a row, times in the row's unit."""
    rows = [
        {
            "row": outcome.row.name,
            "title": outcome.row.title,
            "unit": outcome.row.unit,
            "limit": outcome.row.limit,
            "must": outcome.row.must,
            "aim": outcome.row.aim,
            "verdict": outcome.verdict,
            **({} if outcome.figures is None else vars(outcome.figures)),
        }
        for outcome in outcomes
    ]
    text = json.dumps({"machine": facts, "rows": rows}, indent=2, ensure_ascii=False)
    path.write_text(f"{text}\n", encoding="utf-8")
