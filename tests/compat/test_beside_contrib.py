"""What the page on OpenTelemetry's instrumentations says is what a call of each side says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from compat.compare_with_contrib import SUBJECTS, row

PAGE = Path(__file__).parent.parent.parent / "docs" / "reference" / "beside-contrib.md"
_NAME = re.compile(r"`([^`]+)`")


@pytest.fixture(scope="module")
def parts() -> list[str]:
    """The table, and the two that give the reasons."""
    return PAGE.read_text(encoding="utf-8").split("\n## ")


def rows(part: str) -> list[list[str]]:
    lines = [line for line in part.splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_every_library_that_is_compared_has_its_row(parts: list[str]) -> None:
    assert [cells[0].strip("`") for cells in rows(parts[0])] == list(SUBJECTS)


@pytest.mark.parametrize(("column", "part"), [(2, 1), (3, 2)], ids=["theirs", "ours"])
def test_every_difference_has_its_reason_and_no_other(
    parts: list[str], column: int, part: int
) -> None:
    shown = {name for cells in rows(parts[0]) for name in _NAME.findall(cells[column])}
    explained = {name for cells in rows(parts[part]) for name in _NAME.findall(cells[0])}
    assert shown == explained


@pytest.mark.slow
@pytest.mark.matrix_skip
@pytest.mark.parametrize("library", ["sqlite3", "requests", "celery"])
def test_a_row_is_what_a_call_of_each_side_says(parts: list[str], library: str) -> None:
    assert row(library) in parts[0].splitlines()
