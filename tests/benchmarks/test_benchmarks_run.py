"""The benchmarks: every row can be measured. How long anything takes is never asserted."""

from __future__ import annotations

import importlib
import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from backends.where import NotThereError, program

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"
_ROW = re.compile(r'^@row\(\s*"([^"]+)"', re.MULTILINE)
NAMES = [name for path in sorted(FOLDER.glob("*.py")) for name in _ROW.findall(path.read_text())]
IN_PROCESSES = (
    "cloud.",
    "db.redis",
    "log.",
    "http.",
    "inside.",
    "queue.",
    "rpc.",
    "burst.",
    "imports.",
    "memory.setup",
)

pytestmark = [pytest.mark.matrix_skip, pytest.mark.timeout(300)]


def _marked(name: str) -> Any:
    marks = [pytest.mark.slow] if name.startswith(IN_PROCESSES) else []
    return pytest.param(name, marks=marks)


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, repository: Path) -> Any:
    """Return the module of the command line."""
    monkeypatch.syspath_prepend(str(repository))
    return importlib.import_module("benchmarks.command")


@pytest.fixture
def harness(command: Any) -> Any:
    return importlib.import_module("benchmarks.harness")


@pytest.fixture(autouse=True)
def propagator() -> Iterator[None]:
    """Put OpenTelemetry's global propagator back."""
    from opentelemetry import propagate

    before = propagate.get_global_textmap()
    yield
    propagate.set_global_textmap(before)


@pytest.mark.parametrize("name", [_marked(name) for name in NAMES])
def test_a_row_is_measured(name: str, command: Any, harness: Any) -> None:
    if name == "db.pymongo":
        _need_ferretdb()
    row = command.load_rows()[name]
    outcome = command.run_row(row, harness.Effort(rounds=1, scale=0.002))
    assert outcome.problem == ""
    assert math.isfinite(outcome.figures.ours)
    assert outcome.verdict in {"within aim", "ok", "over must", "-"}


def _need_ferretdb() -> None:
    try:
        program("ferretdb", "ferretdb")
    except NotThereError as why:
        pytest.skip(str(why))


def test_every_row_of_the_folder_is_in_the_table(command: Any) -> None:
    assert sorted(command.load_rows()) == sorted(NAMES)


def test_rows_are_chosen_by_theme_or_by_name(command: Any) -> None:
    chosen = command.selected(command.load_rows(), "dropped,spans.tree")
    assert {row.name for row in chosen} == {"dropped.ratio", "dropped.always_off", "spans.tree"}


def test_an_unknown_row_is_refused_with_the_names_that_exist(command: Any) -> None:
    with pytest.raises(SystemExit, match=r"no row nonsense; rows: .*spans\.root"):
        command.selected(command.load_rows(), "spans,nonsense")


@pytest.mark.parametrize(
    ("ratio", "verdict"),
    [(0.07, "within aim"), (0.071, "ok"), (0.12, "ok"), (0.121, "over must"), (None, "-")],
)
def test_the_verdict_compares_the_ratio_with_must_and_aim(
    ratio: float | None, verdict: str, harness: Any
) -> None:
    row = harness.Row("a.b", "", None, must=0.12, aim=0.07, unit="µs", limit="ratio")
    assert row.verdict(harness.Figures(10.0, 1.0, ratio)) == verdict


def test_a_lost_span_is_over_must(harness: Any) -> None:
    row = harness.Row("a.b", "", None, must=0, aim=0, unit="spans", limit="figure")
    assert row.verdict(harness.Figures(0, 1)) == "over must"


def test_the_ratio_is_the_median_over_the_rounds(harness: Any) -> None:
    def costs(theirs: float, ours: float) -> Any:
        return tuple(harness.Cost(cpu, cpu, cpu) for cpu in (theirs, ours))

    figures = harness.median_figures([costs(10, 1), costs(20, 8), costs(10, 2)])
    assert (figures.theirs, figures.ours) == (10, 2)
    assert (figures.ratio, figures.best) == (0.2, 0.1)


@pytest.mark.parametrize(
    ("missing", "problem"),
    [("tracekit.exporters.zipkin", "not there yet"), ("flask", "failed: No module named 'flask'")],
)
def test_only_a_missing_part_of_tracekit_is_excused(
    missing: str, problem: str, command: Any, harness: Any
) -> None:
    def measure(_effort: Any) -> Any:
        raise ModuleNotFoundError(f"No module named {missing!r}", name=missing)

    row = harness.Row("a.b", "", measure, must=1, aim=1, unit="µs", limit="ratio")
    assert command.run_row(row, harness.Effort()).problem == problem


def test_the_command_prints_the_table_and_writes_it_as_json(
    repository: Path, tmp_path: Path
) -> None:
    options = f"--quick --rounds 1 --rows propagation.inject_direct --json {tmp_path}/rows.json"
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", *options.split()],
        cwd=repository,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "opentelemetry-sdk" in done.stdout.splitlines()[1]
    assert done.stdout.splitlines()[-1].startswith("propagation.inject_direct ")
    written = json.loads((tmp_path / "rows.json").read_text())
    assert [row["row"] for row in written["rows"]] == ["propagation.inject_direct"]
    assert written["rows"][0]["must"] == 0.5
    assert written["machine"]["rounds"] == 1


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system has no affinity")
def test_the_processes_of_a_row_run_on_one_core_and_the_rest_where_it_did(command: Any) -> None:
    placement = importlib.import_module("benchmarks.placement")
    before = os.sched_getaffinity(0)
    asked = [sys.executable, "-c", "import os; print(len(os.sched_getaffinity(0)))"]
    with pytest.raises(RuntimeError), placement.on_one_core():
        assert subprocess.check_output(asked) == b"1\n"
        raise RuntimeError
    assert os.sched_getaffinity(0) == before
