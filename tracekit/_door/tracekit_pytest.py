"""What pytest loads of tracekit in every run: names, and nothing behind them until they are used.

A module beside the package, for importing any part of a package imports the package. pytest loads
plugins before a project's `conftest.py`, which may still set variables that opentelemetry-api reads
when it is imported, and before coverage is measured.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pytest

__all__ = ["spans"]

TRACE: pytest.StashKey[Any] = pytest.StashKey()
"""On a test while its spans are recorded: what recorded them."""

MARKER = "tracekit_trace"


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("tracekit")
    group.addoption(
        "--tracekit-tests",
        action="store_true",
        default=False,
        help="record a trace for each test; `tracekit show` shows it, a failing test prints it",
    )
    parser.addini("tracekit_tests", "the same as --tracekit-tests", type="bool", default=False)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", f"{MARKER}: record a trace for this test (tracekit)")


@pytest.fixture
def spans(request: pytest.FixtureRequest) -> Iterator[Any]:
    """The spans that this test makes, with assertions: `spans.one(name="GET /cart")`."""
    from tracekit.pytest_plugin import spans_of_test

    with spans_of_test(request.node, TRACE) as captured:
        yield captured


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[Any]:
    all_are = item.config.getoption("--tracekit-tests") or item.config.getini("tracekit_tests")
    if not all_are and item.get_closest_marker(MARKER) is None:
        return (yield)
    from tracekit.pytest_plugin import trace_of_test

    with trace_of_test(item, TRACE, alone=not all_are):
        return (yield)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[Any]:
    trace = item.stash.get(TRACE, None)
    if trace is None:
        return (yield)
    with trace.current_in(item):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[Any]) -> Iterator[Any]:
    report = yield
    trace = item.stash.get(TRACE, None)
    if trace is not None:
        trace.tell(report, call)
    return report


def pytest_unconfigure() -> None:
    plugin = sys.modules.get("tracekit.pytest_plugin")
    if plugin is not None:
        plugin.finish()
