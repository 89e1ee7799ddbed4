"""Every example runs from the repository as its docstring says, and makes the trace it shows."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from integration.serving import spans_of

EXAMPLES = Path(__file__).parents[2] / "examples"

SHOWN = {
    "attributes": ({"order": None, "reserve": "order"}, "['tea reserved', 'milk reserved']\n"),
    "decorator": ({"checkout": None, "total": "checkout", "price": "total"}, "4.70\n"),
    "headers": ({"send": None, "work": "send"}, "PARCEL\n"),
    "middleware": (
        {"visit": None, "GET": "visit", "GET /hello/<name>": "GET", "greet": "GET /hello/<name>"},
        "Hello, ada!\n",
    ),
}
"""What each example prints, and the parent of each span by name."""


def parents(spans: list[Any]) -> dict[str, str | None]:
    names = {span.context.span_id: span.name for span in spans}
    return {span.name: span.parent and names[span.parent.span_id] for span in spans}


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("[!_]*.py")), ids=lambda path: path.stem)
def test_an_example_makes_the_trace_it_is_about(path: Path, tmp_path: Path) -> None:
    store = tmp_path / "traces.db"
    done = subprocess.run(
        [sys.executable, str(path)],
        env=os.environ | {"TRACEKIT_STORE": str(store)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    tree, printed = SHOWN[path.stem]
    spans = spans_of(store)
    assert done.stdout == printed
    assert parents(spans) == tree
    assert len({span.context.trace_id for span in spans}) == 1


def test_every_example_is_in_the_list_for_readers() -> None:
    listed = (EXAMPLES / "README.md").read_text()
    names = [path.name for path in EXAMPLES.glob("[!_]*.py")]
    names += [f"{path.parent.name}/" for path in EXAMPLES.glob("*/run.py")]
    assert [name for name in names if f"`{name}`" not in listed] == []
