"""The global propagator is found without a call, and by the public function where it must be."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from opentelemetry import propagate
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from tracekit import _otel_propagate


@pytest.fixture
def propagator() -> Iterator[TraceContextTextMapPropagator]:
    """A propagator of the program's; the one before is put back."""
    before = propagate.get_global_textmap()
    yield TraceContextTextMapPropagator()
    propagate.set_global_textmap(before)


def test_what_the_program_sets_is_found_at_once(propagator: TraceContextTextMapPropagator) -> None:
    propagate.set_global_textmap(propagator)
    assert _otel_propagate.TEXTMAP._HTTP_TEXT_FORMAT is propagator


def test_an_api_that_keeps_it_elsewhere_is_asked(
    monkeypatch: pytest.MonkeyPatch, propagator: TraceContextTextMapPropagator
) -> None:
    monkeypatch.setattr(propagate, "get_global_textmap", lambda: propagator)
    assert _otel_propagate._holder()._HTTP_TEXT_FORMAT is propagator
    assert _otel_propagate._holder() is not propagate
