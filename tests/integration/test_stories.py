"""The examples of several services, run for real: the first finding is the one to act on."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from integration.serving import spans_of
from tracekit.findings import find_all
from tracekit.trace import traces_of

pytestmark = [pytest.mark.slow, pytest.mark.matrix_skip]

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(name: str, folder: Path) -> tuple[str, list[Any]]:
    """Run an example; return what it printed, in one line, and the spans of its slowest trace."""
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name / "run.py")],
        env=os.environ | {"TMPDIR": str(folder)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    (store,) = folder.glob("*/traces.db")
    return " ".join(done.stdout.split()), spans_of(store)


def test_the_same_row_read_by_three_services_is_told_first(tmp_path: Path) -> None:
    told, spans = run("redundant_queries", tmp_path)
    assert re.search(
        r"1\. redundant_calls \d+ ms \(\d\d %\) of the trace is redundant database work: "
        r"SELECT users was asked 3 times by auth, cart and profile",
        told,
    ), told
    (trace,) = traces_of(spans)
    first = find_all(trace)[0]
    reads = sorted(
        (span for span in spans if span.name == "SELECT users"), key=lambda span: span.start_time
    )
    again = sum(span.end_time - span.start_time for span in reads[1:])
    assert first.share == pytest.approx(again / trace.latency_ns, abs=0.01)
    assert 0.30 <= first.share <= 0.55  # 0.40 where nothing else keeps the machine busy
    assert first.location.endswith("redundant_queries/users.py:49")


def test_retries_are_told_before_the_timeouts_that_they_cause(tmp_path: Path) -> None:
    told, spans = run("cascading_timeouts", tmp_path)
    assert re.search(
        r"1\. retries back sent GET /rates to \S+ 3 times, and every attempt failed \(503\): "
        r"6\.\d+ s \(\d\.\d times the request\) do Break the circuit",
        told,
    ), told
    assert re.search(
        r"2\. timeouts limits do not nest: front gave up on middle after 1\.\d+ s \(limit 1 s\), "
        r"middle gave up on back after 2\.\d+ s \(limit 2 s\); back went on for [34]\.\d+ s",
        told,
    ), told
    (trace,) = traces_of(spans)
    assert [item.service for item in find_all(trace)[:2]] == ["back", "middle"]
