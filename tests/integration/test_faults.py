"""The fault table as tests: every span is received, waits on the disk, or is counted as lost."""

from __future__ import annotations

import importlib
import re
from typing import Any

import pytest

pytestmark = pytest.mark.matrix_skip

# One of each kind runs always; all of them, at a pace that a person would notice, are slow.
QUICK = ("nothing fails", "503", "400", "black hole, SIGTERM", "503, os._exit")
EXIT_S = 7.0
"""Five, for which an exit may wait, and what an interpreter takes to end on a busy machine."""


def rows() -> list[Any]:
    from pathlib import Path

    text = (Path(__file__).parents[2] / "benchmarks" / "faults" / "rows.py").read_text("utf-8")
    names = re.findall(r'^    Row\(\s*"([^"]+)"', text, re.MULTILINE)
    return [pytest.param(n, marks=[] if n in QUICK else [pytest.mark.slow]) for n in names]


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch, repository: Any) -> Any:
    monkeypatch.syspath_prepend(str(repository))
    return importlib.import_module("benchmarks.faults.running")


@pytest.mark.parametrize("name", rows())
def test_every_span_is_accounted_for(name: str, faults: Any) -> None:
    table = importlib.import_module("benchmarks.faults.rows")
    (row,) = [row for row in table.ROWS if row.name == name]
    try:
        result = faults.run_row(row, faults.AS_TEST)
    except FileNotFoundError as error:
        pytest.skip(str(error))
    assert result.made > 0
    assert result.adds_up, result
    assert set(result.lost) <= row.losses, result
    assert result.waiting == 0, "all that was kept has been sent"
    assert result.exit_s < EXIT_S


def test_the_table_covers_every_way_to_fail(faults: Any) -> None:
    """A fault that the server knows and no row uses would be a hole in the table."""
    server = importlib.import_module("benchmarks.faults.server")
    table = importlib.import_module("benchmarks.faults.rows")
    known = {
        value.__func__ for value in vars(server.faults).values() if isinstance(value, staticmethod)
    }
    assert known == {row.fault for row in table.ROWS if row.fault}
