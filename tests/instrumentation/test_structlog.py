"""structlog: its events have the ids of the span, whatever its processors are."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import structlog
from structlog.processors import CallsiteParameter, CallsiteParameterAdder

from instrumentation.log_contract import LogContract, ids_of
from tracekit.instrumentation.logging import LoggingInstrumentor
from tracekit.instrumentation.structlog import StructlogInstrumentor


class Log:
    def __init__(self) -> None:
        self.written: list[dict[str, Any]] = []
        structlog.configure(
            processors=[
                structlog.contextvars.merge_contextvars,
                CallsiteParameterAdder([CallsiteParameter.LINENO, CallsiteParameter.PATHNAME]),
                self._keep,
            ],
            logger_factory=structlog.ReturnLoggerFactory(),
        )
        self.logger = structlog.get_logger()

    def _keep(self, logger: Any, method: str, event: Any) -> str:
        self.written.append(event)
        return ""

    def __call__(
        self, message: str, level: str = "info", exception: bool = False, **bound: Any
    ) -> None:
        getattr(self.logger.bind(**bound), level)(message, exc_info=exception)

    def ids(self) -> tuple[str, str] | None:
        event = self.written[-1]
        return (event["trace_id"], event["span_id"]) if "trace_id" in event else None

    def line(self) -> Any:
        for _ in range(1):
            self.logger.info("where")
        return self.written[-1]["pathname"], self.written[-1]["lineno"]


@pytest.fixture
def log():
    yield Log()
    structlog.reset_defaults()


class TestStructlog(LogContract):
    plugin = StructlogInstrumentor

    def test_a_key_of_the_event_itself_stays(self, log, spans, instrument) -> None:
        instrument(StructlogInstrumentor)
        with spans.tracer.start_as_current_span("work"):
            log.logger.info("x", span_id="mine")
        assert log.written[-1]["span_id"] == "mine"

    def test_a_logger_with_its_own_processors_is_correlated(self, spans, instrument) -> None:
        instrument(StructlogInstrumentor)
        seen: list[Any] = []
        logger = structlog.wrap_logger(
            structlog.ReturnLogger(), processors=[lambda *event: seen.append(event[2]) or ""]
        )
        with spans.tracer.start_as_current_span("work") as span:
            logger.info("x")
        assert (seen[0]["trace_id"], seen[0]["span_id"]) == ids_of(span.get_span_context())

    def test_captured_logs_of_a_test_have_them(self, log, spans, instrument) -> None:
        instrument(StructlogInstrumentor)
        captures = structlog.testing.capture_logs()
        with captures as captured, spans.tracer.start_as_current_span("work"):
            log.logger.info("x")
        assert captured[0]["trace_id"] != "0"

    def test_what_a_processor_drops_is_no_event(self, spans, instrument) -> None:
        def drop(*_: Any) -> Any:
            raise structlog.DropEvent

        instrument(StructlogInstrumentor, span_events="INFO")
        logger = structlog.wrap_logger(structlog.ReturnLogger(), processors=[drop])
        with spans.tracer.start_as_current_span("work"):
            logger.info("x")
        assert self.events(spans) == []

    def test_what_goes_on_to_logging_is_one_event(self, spans, instrument) -> None:
        instrument(StructlogInstrumentor, span_events="INFO")
        instrument(LoggingInstrumentor, span_events="INFO")
        native = logging.getLogger("structlog.shop")
        native.setLevel(logging.INFO)
        logger = structlog.wrap_logger(
            native,
            processors=[structlog.stdlib.render_to_log_kwargs],
            wrapper_class=structlog.stdlib.BoundLogger,
        )
        with spans.tracer.start_as_current_span("work"):
            logger.info("x")
        (event,) = self.events(spans)
        assert event.attributes["tracekit.log.logger"] == "structlog.shop"

    @pytest.mark.anyio
    async def test_asynchronous_methods_are_correlated(self, log, spans, instrument) -> None:
        instrument(StructlogInstrumentor)
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(0))
        with spans.tracer.start_as_current_span("work") as span:
            await structlog.get_logger().ainfo("x")
        assert log.ids() == ids_of(span.get_span_context())

    def test_exception_takes_the_one_being_handled(self, log, spans, instrument) -> None:
        instrument(StructlogInstrumentor, span_events="INFO")
        with spans.tracer.start_as_current_span("work"):
            try:
                raise OSError("full")
            except OSError:
                log.logger.exception("failed")
        (event,) = self.events(spans)
        assert event.attributes["tracekit.log.level"] == "ERROR"
        assert event.attributes["exception.type"] == "OSError"
