"""FastAPI, SQLAlchemy, PostgreSQL, redis, httpx and celery at once, all of it instrumented."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.soak import grown, missing, soak

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(missing()), reason=f"needs {missing()}"),
]

ORDERS = 400


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    return soak(ORDERS)


def test_every_order_is_served_and_none_of_its_spans_is_lost(report: dict[str, Any]) -> None:
    assert (report["errors"], report["requests"]) == ([], ORDERS)
    assert (report["whole"], report["incomplete"], report["lost"]) == (ORDERS, 0, {})


def test_each_operation_is_one_span_in_its_own_orders_trace(report: dict[str, Any]) -> None:
    assert (report["wrong"], report["quoted"]) == (0, [])


def test_each_task_is_in_the_trace_of_who_sent_it(report: dict[str, Any]) -> None:
    assert (report["worker"]["tasks"], report["worker"]["wrong"]) == (ORDERS, 0)


def test_nothing_is_kept_of_orders_that_are_over(report: dict[str, Any]) -> None:
    # An order has a hundred in its spans, and up to two dozen in caches of URLs, not full as yet.
    for memory in (report["memory"], report["worker"]["memory"]):
        assert grown(memory)["blocks"] < 40 * ORDERS


def test_memory_does_not_grow_with_the_orders(report: dict[str, Any]) -> None:
    # Not a byte a request more than what allocators move to and fro.
    for memory in (report["memory"], report["worker"]["memory"]):
        assert grown(memory)["resident_kib"] < 4096
