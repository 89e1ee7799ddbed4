"""A loop that stood still is told with its line, and with who had to wait."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import tracekit
from findings.made import NOISES, faulty
from tracekit import discovery
from tracekit.testing import capture_spans
from tracekit.trace import traces_of


def told(spans):
    (trace,) = traces_of(spans)
    (found,) = discovery.find("finding", "blocked_loop")(trace, {})
    return found, {node.span_id: node.name for node in trace.nodes}


def test_it_names_the_line_the_function_and_the_time() -> None:
    found, _ = told(faulty("computes_in_the_loop", 2, NOISES["none"], 1))
    assert found.location == "/srv/app.py:11"
    assert "in app.report: 100 ms" in found.message
    assert found.cost_ns == 100_000_000
    assert "wait" not in found.message


def test_it_names_who_had_to_wait_and_not_who_is_above() -> None:
    found, names = told(faulty("blocks_while_others_wait", 1, NOISES["interleaved"], 1))
    assert [names[span_id] for span_id in found.spans] == ["resize", "GET", "GET"]
    assert found.message.endswith("while GET / had to wait")


def test_blocks_of_a_service_whose_clock_is_wrong_are_found_too() -> None:
    found, _ = told(faulty("blocks_one_service_down", 1, NOISES["clock skew"], 1))
    assert found.service == "stock"


def test_times_of_one_service_are_added() -> None:
    found, _ = told(faulty("blocks_again_and_again", 2, NOISES["none"], 1))
    assert found.cost_ns == 3 * 40_000_000
    assert "3 times" in found.message


async def _report() -> None:
    with tracekit.span("report"):
        time.sleep(0.15)


async def _poll() -> None:
    with tracekit.span("poll"):
        await asyncio.sleep(0.01)


async def _request() -> None:
    with tracekit.span("request"):
        await asyncio.gather(_poll(), _report())


def test_a_real_loop_that_stands_still_is_found() -> None:
    with capture_spans() as spans:
        tracekit.instrument("asyncio", blocked_ms=40)
        asyncio.run(_request())
    found, names = told(spans.get_finished_spans())
    assert [names[span_id] for span_id in found.spans] == ["report", "poll"]
    assert found.location.startswith(f"{Path(__file__)}:")
    assert found.cost_ns >= 100_000_000
    assert found.message.endswith("while poll had to wait")
