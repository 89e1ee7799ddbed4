"""Fixtures shared by the propagators' tests."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from typing import Any

import pytest
from opentelemetry.context import Context
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    TraceFlags,
    TraceState,
    get_current_span,
    set_span_in_context,
)

import tracekit.propagators

TRACE_ID = 0x12345678901234567890123456789012
SPAN_ID = 0x1234567890123456


def format_names() -> list[str]:
    found = pkgutil.iter_modules(tracekit.propagators.__path__)
    return sorted(m.name for m in found if not m.name.startswith("_"))


def plugin_of(name: str) -> Any:
    return importlib.import_module(f"tracekit.propagators.{name}").plugin


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "format_name" in metafunc.fixturenames:
        metafunc.parametrize("format_name", format_names())
    if "span_format_name" in metafunc.fixturenames:
        names = [name for name in format_names() if name != "baggage"]
        metafunc.parametrize("span_format_name", names)


@pytest.fixture
def propagator(format_name: str) -> Any:
    return plugin_of(format_name)()


@pytest.fixture
def span_propagator(span_format_name: str) -> Any:
    return plugin_of(span_format_name)()


@pytest.fixture
def context_of() -> Callable[..., Context]:
    """Make a Context whose current span has the given ids."""

    def make(
        trace_id: int = TRACE_ID,
        span_id: int = SPAN_ID,
        flags: int = 1,
        state: TraceState | None = None,
    ) -> Context:
        span_context = SpanContext(trace_id, span_id, False, TraceFlags(flags), state)
        return set_span_in_context(NonRecordingSpan(span_context), Context())

    return make


@pytest.fixture
def span_context_in() -> Callable[[Context], SpanContext]:
    """Read the span context of a Context."""
    return lambda context: get_current_span(context).get_span_context()
