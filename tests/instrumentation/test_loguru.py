"""loguru: its records have the ids of the span, whatever patchers and sinks there are."""

from __future__ import annotations

from typing import Any

import pytest
from loguru import logger

from instrumentation.log_contract import LogContract
from tracekit.instrumentation.loguru import LoguruInstrumentor


class Log:
    def __init__(self) -> None:
        self.written: list[dict[str, Any]] = []
        logger.remove()
        logger.add(lambda message: self.written.append(message.record), level=0)

    def __call__(
        self, message: str, level: str = "info", exception: bool = False, **bound: Any
    ) -> None:
        logger.bind(**bound).opt(exception=exception).log(level.upper(), message)

    def ids(self) -> tuple[str, str] | None:
        extra = self.written[-1]["extra"]
        return (extra["trace_id"], extra["span_id"]) if "trace_id" in extra else None

    def line(self) -> Any:
        logger.info("where")
        record = self.written[-1]
        return record["file"].path, record["function"], record["line"]


@pytest.fixture
def log():
    yield Log()
    logger.remove()
    logger.configure(patcher=lambda record: None, extra={})


class TestLoguru(LogContract):
    plugin = LoguruInstrumentor

    def test_a_format_may_name_the_ids(self, spans, instrument) -> None:
        instrument(LoguruInstrumentor)
        lines: list[str] = []
        logger.remove()
        number = logger.add(lines.append, format="{extra[trace_id]} {extra[span_id]} {message}")
        logger.info("outside")
        with spans.tracer.start_as_current_span("work"):
            logger.info("inside")
        logger.remove(number)
        assert lines[0] == "0 0 outside\n"
        assert len(lines[1].split()[0]) == 32

    def test_the_programs_patcher_goes_on(self, log, spans, instrument) -> None:
        instrument(LoguruInstrumentor)
        logger.configure(patcher=lambda record: record["extra"].update(tenant="acme"))
        with spans.tracer.start_as_current_span("work"):
            logger.info("x")
        extra = log.written[-1]["extra"]
        assert extra["tenant"] == "acme"
        assert extra["trace_id"] != "0"

    def test_what_is_bound_for_a_while_stays(self, log, spans, instrument) -> None:
        instrument(LoguruInstrumentor)
        with logger.contextualize(trace_id="mine"), spans.tracer.start_as_current_span("work"):
            logger.info("x")
        assert log.ids()[0] == "mine"

    def test_caught_exceptions_keep_their_place(self, log, spans, instrument) -> None:
        def fails() -> None:
            with logger.catch():
                raise OSError("full")

        fails()
        before = log.written[-1]["function"], log.written[-1]["line"]
        instrument(LoguruInstrumentor, span_events="ERROR")
        with spans.tracer.start_as_current_span("work"):
            fails()
        assert (log.written[-1]["function"], log.written[-1]["line"]) == before
        (event,) = self.events(spans)
        assert event.attributes["exception.type"] == "OSError"

    def test_positional_and_lazy_arguments_are_formatted_as_before(self, log, instrument) -> None:
        instrument(LoguruInstrumentor)
        logger.opt(lazy=True).info("{} {n}", lambda: 1, n=lambda: 2)
        assert log.written[-1]["message"] == "1 2"
