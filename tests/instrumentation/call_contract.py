"""What every library is asked whose calls are watched one by one: see `_calls.py`.

A test class of a library inherits the questions and supplies two calls.
"""

from __future__ import annotations

import importlib
import inspect
from typing import Any

import pytest
from opentelemetry import context as otel_context
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind, StatusCode

from instrumentation.conftest import Instrument, Spans
from instrumentation.http_client_contract import BrokenProvider, attempt, chain, parent_id, run
from instrumentation.redis_contract import entries
from tracekit.instrumentation._calls import CallInstrumentor


class CallContract:
    """Questions to one library; a subclass sets the attributes and writes the calls."""

    plugin: type[CallInstrumentor]
    program: str
    """Makes a call that works, with ``{place}`` for where the server is."""

    def call(self) -> Any:
        """Make a call that works, and return its answer."""
        raise NotImplementedError

    def fail(self) -> Any:
        """Make a call that raises."""
        raise NotImplementedError

    def place(self) -> Any:
        """Return what stands for ``{place}``."""
        raise NotImplementedError

    def test_a_call_is_a_span_below_the_one_that_is_current(
        self, instrument: Instrument, spans: Spans
    ) -> None:
        instrument(self.plugin)
        with spans.tracer.start_as_current_span("program") as program:
            self.call()
        span = spans.watched[-1]
        assert (span.kind, span.status.status_code) == (SpanKind.CLIENT, StatusCode.UNSET)
        assert parent_id(span) == program.get_span_context().span_id

    def test_a_call_returns_what_it_did(self, instrument: Instrument) -> None:
        alone = self.call()
        instrument(self.plugin)
        assert self.call() == alone

    def test_a_failure_goes_on_and_is_recorded(self, instrument: Instrument, spans: Spans) -> None:
        alone = attempt(self.fail)
        instrument(self.plugin)
        error = attempt(self.fail)
        assert (chain(error), str(error)) == (chain(alone), str(alone))
        span = spans.watched[-1]
        assert span.status.status_code is StatusCode.ERROR
        assert (span.attributes or {})["error.type"]

    def test_the_line_that_calls_is_told(self, instrument: Instrument, spans: Spans) -> None:
        instrument(self.plugin)
        self.call()
        told = spans.watched[-1].attributes or {}
        assert told["code.file.path"] == inspect.getsourcefile(type(self))

    def test_the_line_that_calls_is_left_out_on_request(
        self, instrument: Instrument, spans: Spans
    ) -> None:
        instrument(self.plugin, code_location=False)
        self.call()
        assert "code.file.path" not in (spans.watched[-1].attributes or {})

    @pytest.mark.parametrize(
        "key",
        ["suppress_instrumentation", otel_context._SUPPRESS_INSTRUMENTATION_KEY],
        ids=["by name", "by key"],  # which is another in each process
    )
    def test_a_suppressed_call_has_no_span(
        self, instrument: Instrument, spans: Spans, key: str
    ) -> None:
        instrument(self.plugin)
        token = otel_context.attach(otel_context.set_value(key, True))
        try:
            self.call()
        finally:
            otel_context.detach(token)
        assert spans.ended == []

    def test_a_call_below_an_unsampled_span_is_not_recorded(self, instrument: Instrument) -> None:
        unsampled = Spans(ALWAYS_OFF)
        instrument(self.plugin, tracer_provider=unsampled.provider)
        with unsampled.tracer.start_as_current_span("program"):
            self.call()
        assert unsampled.ended == []

    def test_a_provider_that_raises_harms_no_call(self, instrument: Instrument) -> None:
        alone, failed = self.call(), attempt(self.fail)
        instrument(self.plugin, tracer_provider=BrokenProvider())
        assert self.call() == alone
        assert str(attempt(self.fail)) == str(failed)

    def test_signatures_stay(self, instrument: Instrument) -> None:
        instrumentor = self.plugin()
        functions = [(call.module, call.attribute) for call in instrumentor.calls()]
        before = [inspect.signature(_found(*place)) for place in functions]
        instrument(self.plugin)
        assert [inspect.signature(_found(*place)) for place in functions] == before

    def test_instrumenting_twice_makes_one_span(self, instrument: Instrument, spans: Spans) -> None:
        instrument(self.plugin)
        self.call()
        once = len(spans.watched)
        instrument(self.plugin)
        self.call()
        assert len(spans.watched) == 2 * once

    def test_uninstrumented_library_is_as_it_was_byte_for_byte(
        self, instrument: Instrument, spans: Spans
    ) -> None:
        before = entries(self.plugin)
        instrumentor = instrument(self.plugin)
        assert any(entries(self.plugin)[place] is not before[place] for place in before)
        instrumentor.uninstrument()
        after = entries(self.plugin)
        assert after.keys() == before.keys()
        assert all(after[place] is before[place] for place in before)
        self.call()
        assert spans.ended == []

    def test_an_unknown_option_is_an_error(self, instrument: Instrument) -> None:
        with pytest.raises(TypeError, match="code_loction"):
            instrument(self.plugin, code_loction=True)

    @pytest.mark.parametrize("order", ["before", "after"])
    def test_order_of_import_and_instrumentation_does_not_matter(self, order: str) -> None:
        steps = [
            "plugin().instrument(tracer_provider=spans.provider)",
            f"import {self.plugin.name}",
        ]
        program = [
            "from instrumentation.conftest import Spans",
            f"from {self.plugin.__module__} import plugin",
            "spans = Spans()",
            *(steps if order == "before" else reversed(steps)),
            self.program.format(place=self.place()),
            "print(bool(spans.watched))",
        ]
        assert run("\n".join(program)) == "True"


def _found(module: str, attribute: str) -> Any:
    found: Any = importlib.import_module(module)
    for name in attribute.split("."):
        found = getattr(found, name)
    return found
