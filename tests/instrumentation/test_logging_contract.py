"""The standard library's logging, held to what every logging library must do."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest

from instrumentation.log_contract import LogContract
from tracekit.instrumentation.logging import LoggingInstrumentor


class _Log:
    """Logs through a logger of the program's, and shows what came out of it."""

    def __init__(self, logger: logging.Logger, kept: list[logging.LogRecord]) -> None:
        self._logger, self._kept = logger, kept

    def __call__(
        self, message: str, level: str = "info", exception: bool = False, **bound: Any
    ) -> None:
        extra = {"otelTraceID": bound["trace_id"]} if bound else None
        getattr(self._logger, level)(message, exc_info=exception, extra=extra)

    def ids(self) -> tuple[str, str] | None:
        record: Any = self._kept[-1]
        return (record.otelTraceID, record.otelSpanID) if hasattr(record, "otelTraceID") else None

    def line(self) -> Any:
        self._logger.info("where")
        return self._kept[-1].pathname, self._kept[-1].lineno


class TestLogContract(LogContract):
    plugin = LoggingInstrumentor

    @pytest.fixture
    def log(self) -> Iterator[_Log]:
        kept: list[logging.LogRecord] = []
        logger = logging.getLogger("of the contract")
        handler = logging.Handler()
        handler.emit = kept.append  # type: ignore[method-assign]
        logger.addHandler(handler)
        logger.setLevel(logging.DEBUG)
        yield _Log(logger, kept)
        logger.removeHandler(handler)

    def test_what_a_filter_of_the_logger_keeps_back_is_no_event(
        self, log, spans, instrument
    ) -> None:
        instrument(LoggingInstrumentor, span_events="INFO")
        logger = logging.getLogger("of the contract")
        logger.addFilter(_nothing)
        try:
            with spans.tracer.start_as_current_span("work"):
                log("hello")
        finally:
            logger.removeFilter(_nothing)
        assert self.events(spans) == []

    def test_what_tracing_says_of_itself_is_no_event(self, spans, instrument) -> None:
        instrument(LoggingInstrumentor, span_events="DEBUG")
        with spans.tracer.start_as_current_span("work"):
            logging.getLogger("tracekit.anything").error("x")
            logging.getLogger("opentelemetry.anything").error("x")
        assert self.events(spans) == []

    def test_arguments_that_do_not_fit_leave_the_message_as_it_was_written(
        self, log, spans, instrument, monkeypatch
    ) -> None:
        monkeypatch.setattr(logging, "raiseExceptions", False)
        message = "%d %d"
        instrument(LoggingInstrumentor, span_events="INFO")
        with spans.tracer.start_as_current_span("work"):
            logging.getLogger("of the contract").info(message, "a")
        (event,) = self.events(spans)
        assert event.attributes["tracekit.log.message"] == message


def _nothing(record: logging.LogRecord) -> bool:
    return False
