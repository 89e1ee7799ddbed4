"""What every logging library that is correlated must do; a test file supplies how it logs."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from opentelemetry import baggage
from opentelemetry import context as otel_context
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanContext

from instrumentation.conftest import Spans
from tracekit.errors import InvalidValueError
from tracekit.instrumentation._log_events import LONGEST_MESSAGE, MOST_EVENTS
from tracekit.sdk import TracerProvider

ZEROS = ("0", "0")


def ids_of(context: SpanContext) -> tuple[str, str]:
    return f"{context.trace_id:032x}", f"{context.span_id:016x}"


class LogContract:
    """Subclasses have the fixture ``log`` and the attribute ``plugin``.

    ``log(message, level="info", exception=False, **bound)`` writes a record to a logger named
    ``shop``; ``log.ids()`` returns the ids of the last record that was written out.
    """

    plugin: Any

    def test_a_record_within_a_span_has_its_ids(self, log, spans, instrument) -> None:
        instrument(self.plugin)
        with spans.tracer.start_as_current_span("work") as span:
            log("hello")
        assert log.ids() == ids_of(span.get_span_context())

    def test_a_record_outside_has_them_too(self, log, instrument) -> None:
        instrument(self.plugin)
        log("hello")
        assert log.ids() == ZEROS

    def test_spans_that_follow_each_other_are_told_apart(self, log, spans, instrument) -> None:
        instrument(self.plugin)
        seen = []
        for _ in range(3):
            with spans.tracer.start_as_current_span("work"):
                log("hello")
                seen.append(log.ids())
        assert len({*seen}) == 3

    @pytest.mark.parametrize("sampler", [None, ALWAYS_OFF])
    def test_spans_of_tracekit_are_told_apart(self, log, instrument, sampler) -> None:
        instrument(self.plugin)
        tracer = TracerProvider(sampler=sampler, shutdown_on_exit=False).get_tracer("tests")
        seen = []
        with tracer.start_as_current_span("outer") as outer:
            log("hello")
            seen.append(log.ids())
            with tracer.start_as_current_span("inner") as inner:
                log("hello")
                seen.append(log.ids())
            log("hello")
            seen.append(log.ids())
        log("hello")
        assert seen == [ids_of(span.get_span_context()) for span in (outer, inner, outer)]
        assert log.ids() == ZEROS

    def test_each_task_has_its_own(self, log, spans, instrument) -> None:
        instrument(self.plugin)

        async def work() -> bool:
            with spans.tracer.start_as_current_span("work") as span:
                await asyncio.sleep(0)
                log("hello")
                return log.ids() == ids_of(span.get_span_context())

        async def both() -> list[bool]:
            return list(await asyncio.gather(work(), work()))

        assert asyncio.run(both()) == [True, True]

    def test_baggage_beside_the_span_hides_nothing(self, log, spans, instrument) -> None:
        instrument(self.plugin)
        seen, expected = [], []
        for _ in range(2):
            with spans.tracer.start_as_current_span("work") as span:
                token = otel_context.attach(baggage.set_baggage("tenant", "a"))
                log("hello")
                otel_context.detach(token)
            seen.append(log.ids())
            expected.append(ids_of(span.get_span_context()))
        assert seen == expected

    def test_what_the_program_says_itself_stays(self, log, spans, instrument) -> None:
        instrument(self.plugin)
        with spans.tracer.start_as_current_span("work"):
            log("hello", trace_id="mine")
        assert log.ids()[0] == "mine"

    def test_the_line_that_logs_is_still_the_programs(self, log, instrument) -> None:
        before = log.line()
        instrument(self.plugin, span_events="DEBUG")
        assert log.line() == before
        assert before is not None

    def test_taken_off_again_records_are_as_before(self, log, spans, instrument) -> None:
        instrument(self.plugin).uninstrument()
        with spans.tracer.start_as_current_span("work"):
            log("hello")
        assert log.ids() is None

    # --- as events

    def events(self, spans: Spans) -> list[Any]:
        return [event for span in spans.ended for event in span.events]

    def test_records_are_no_events_unless_asked_for(self, log, spans, instrument) -> None:
        instrument(self.plugin)
        with spans.tracer.start_as_current_span("work"):
            log("hello", "error")
        assert self.events(spans) == []

    def test_from_a_level_on_records_become_events(self, log, spans, instrument) -> None:
        instrument(self.plugin, span_events="warning")
        with spans.tracer.start_as_current_span("work"):
            log("quiet")
            log("loud", "warning")
        log("outside", "error")
        (event,) = self.events(spans)
        assert event.name == "log"
        assert event.attributes["tracekit.log.message"] == "loud"
        assert event.attributes["tracekit.log.level"] == "WARNING"

    def test_the_environment_can_ask_for_them(self, log, spans, instrument, monkeypatch) -> None:
        monkeypatch.setenv("TRACEKIT_LOG_SPAN_EVENTS", "INFO")
        instrument(self.plugin)
        with spans.tracer.start_as_current_span("work"):
            log("hello")
        assert len(self.events(spans)) == 1

    def test_an_exception_comes_with_the_record(self, log, spans, instrument) -> None:
        instrument(self.plugin, span_events=True)
        with spans.tracer.start_as_current_span("work"):
            try:
                raise OSError("disk full")
            except OSError:
                log("failed", "error", exception=True)
        (event,) = self.events(spans)
        assert event.attributes["exception.type"] == "OSError"
        assert event.attributes["exception.message"] == "disk full"
        assert "Traceback" in event.attributes["exception.stacktrace"]

    def test_a_flood_is_bounded_and_counted(self, log, spans, instrument) -> None:
        instrument(self.plugin, span_events="INFO")
        with spans.tracer.start_as_current_span("work"):
            for _ in range(MOST_EVENTS + 10):
                log("x" * 10_000)
        (span,) = spans.ended
        assert len(span.events) == MOST_EVENTS
        assert span.attributes["tracekit.log.dropped"] == 10
        assert len(span.events[0].attributes["tracekit.log.message"]) == LONGEST_MESSAGE

    def test_a_span_that_is_not_recording_costs_no_event(self, log, instrument) -> None:
        instrument(self.plugin, span_events="INFO")
        dropped = Spans(ALWAYS_OFF)
        with dropped.tracer.start_as_current_span("work") as span:
            log("hello")
        assert log.ids() == ids_of(span.get_span_context())

    def test_a_level_that_there_is_not_is_an_error(self, instrument) -> None:
        with pytest.raises(InvalidValueError, match="WARNING"):
            instrument(self.plugin, span_events="loud")
