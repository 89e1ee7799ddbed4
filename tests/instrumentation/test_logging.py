"""Every log record says which span it was written in, and a format that asks never fails."""

from __future__ import annotations

import asyncio
import functools
import inspect
import io
import logging
import logging.config
import logging.handlers
import pickle
import queue
import sys
import threading
from collections import UserDict
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import (
    NonRecordingSpan,
    NoOpTracerProvider,
    Span,
    SpanContext,
    TraceFlags,
    use_span,
)

from instrumentation.carried import Spans, entries, ids, watched
from tracekit.instrumentation._log_fields import current_fields
from tracekit.instrumentation.logging import LoggingInstrumentor
from tracekit.sdk import TracerProvider as OwnProvider

pytestmark = pytest.mark.usefixtures("instrumented")

FORMAT = "%(otelTraceID)s %(otelSpanID)s %(otelTraceSampled)s %(otelServiceName)s %(message)s"


def shop() -> TracerProvider:
    return TracerProvider(resource=Resource({"service.name": "shop"}), shutdown_on_exit=False)


@pytest.fixture
def instrumented() -> Iterator[None]:
    with watched(LoggingInstrumentor, tracer_provider=shop()):
        yield


@pytest.fixture
def spans() -> Spans:
    return Spans()


class Lines(logging.Handler):
    """A handler that keeps what it would have written, and does not hide an error."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter(FORMAT))
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


@pytest.fixture
def logger() -> logging.Logger:
    made = logging.Logger("shop")
    made.addHandler(Lines())
    return made


def written(logger: logging.Logger) -> list[str]:
    handler = logger.handlers[0]
    assert isinstance(handler, Lines)
    return handler.lines


def line(span: Span, message: str, sampled: bool = True) -> str:
    trace_id, span_id = ids(span)
    return f"{trace_id:032x} {span_id:016x} {sampled} shop {message}"


def test_a_record_has_the_ids_of_the_current_span(spans: Spans, logger: logging.Logger) -> None:
    with spans.span() as span:
        logger.warning("here")
    assert written(logger) == [line(span, "here")]


def test_outside_a_span_the_ids_are_zero(logger: logging.Logger) -> None:
    logger.warning("out")
    assert written(logger) == ["0 0 False shop out"]


def test_a_span_that_is_not_sampled_has_ids_too(logger: logging.Logger) -> None:
    span = NonRecordingSpan(SpanContext(0xA, 0xB, False, TraceFlags(0)))
    with use_span(span):
        logger.warning("quiet")
    assert written(logger) == [line(span, "quiet", sampled=False)]


def test_an_exception_is_logged_under_the_span_that_it_passed(
    spans: Spans, logger: logging.Logger
) -> None:
    with spans.span() as outer:
        try:
            with spans.span("inner") as inner:
                try:
                    raise ValueError
                except ValueError:
                    logger.error("inside")
                    raise
        except ValueError:
            logger.error("outside")
    assert written(logger) == [line(inner, "inside"), line(outer, "outside")]


def test_tasks_that_take_turns_find_what_was_made_for_their_span() -> None:
    tracer = OwnProvider(shutdown_on_exit=False).get_tracer("tests")

    async def work() -> list[Any]:
        seen = []
        with tracer.start_as_current_span("work"):
            for _ in range(3):
                seen.append(current_fields())
                await asyncio.sleep(0)
        return seen

    async def both() -> list[list[Any]]:
        return list(await asyncio.gather(work(), work()))

    first, second = asyncio.run(both())
    assert [{id(fields) for fields in seen} for seen in (first, second)] == [
        {id(first[0])},
        {id(second[0])},
    ]
    assert first[0][:2] != second[0][:2]


def made_by_hand() -> logging.LogRecord:
    return logging.LogRecord("by hand", logging.INFO, __file__, 1, "message", (), None)


def made_from_a_dictionary() -> logging.LogRecord:
    return logging.makeLogRecord({"msg": "message"})


def made_by_a_factory_without_a_chain() -> logging.LogRecord:
    class Record(logging.LogRecord):
        pass

    before = logging.getLogRecordFactory()
    logging.setLogRecordFactory(Record)
    try:
        return logging.makeLogRecord({"msg": "message"})
    finally:
        logging.setLogRecordFactory(before)


@pytest.mark.parametrize(
    "make", [made_by_hand, made_from_a_dictionary, made_by_a_factory_without_a_chain]
)
def test_records_that_no_logger_made_have_them_too(spans: Spans, make: Any) -> None:
    with spans.span() as span:
        record = make()
    assert logging.Formatter(FORMAT).format(record) == line(span, "message")


@pytest.mark.parametrize("ours_first", [True, False])
def test_a_factory_of_the_programs_is_called(logger: logging.Logger, ours_first: bool) -> None:
    before = logging.getLogRecordFactory()

    def factory(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = before(*args, **kwargs)
        record.request = 7
        return record

    logger.handlers[0].setFormatter(logging.Formatter("%(request)s %(otelTraceID)s"))
    logging.setLogRecordFactory(factory)
    try:
        logger.warning("x")
        assert logging.getLogRecordFactory() is factory
    finally:
        logging.setLogRecordFactory(before)
    assert written(logger) == ["7 0"]


def test_what_others_put_around_a_record_since_is_called(
    logger: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = logging.LogRecord.__init__

    def theirs(record: Any, *args: Any, **kwargs: Any) -> None:
        ours(record, *args, **kwargs)
        record.theirs = 1

    logger.handlers[0].setFormatter(logging.Formatter("%(theirs)s %(otelTraceID)s"))
    monkeypatch.setattr(logging.LogRecord, "__init__", theirs)
    logger.warning("x")
    assert written(logger) == ["1 0"]


@pytest.mark.parametrize("extra", [None, {}, {"mine": 1, "2": None}, UserDict(mine=1)])
def test_a_record_of_a_loggers_is_as_one_made_by_hand(logger: logging.Logger, extra: Any) -> None:
    given: Any = ("n", 30, "f.py", 1, "m %s", ({"a": 1},), None, "func")
    by_logger = logger.makeRecord(*given, extra, "stack")
    by_hand = logging.LogRecord(*given, "stack")
    vars(by_hand).update(extra or {})
    changing = ("created", "msecs", "relativeCreated")
    one, other = ({**vars(record), **dict.fromkeys(changing)} for record in (by_logger, by_hand))
    assert type(by_logger) is logging.LogRecord
    assert list(one.items()) == list(other.items())


def test_dict_config_and_other_styles_may_name_them(spans: Spans) -> None:
    stream = io.StringIO()
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {"f": {"format": "{otelTraceID} {message}", "style": "{"}},
            "handlers": {
                "h": {"class": "logging.StreamHandler", "formatter": "f", "stream": stream}
            },
            "loggers": {"dict.config": {"handlers": ["h"], "propagate": False}},
        }
    )
    logger = logging.getLogger("dict.config")
    with spans.span() as span:
        logger.warning("in")
    logger.warning("out")
    logger.handlers.clear()
    assert stream.getvalue() == f"{ids(span)[0]:032x} in\n0 out\n"


def test_a_record_keeps_its_ids_through_a_queue_and_a_pickle(spans: Spans) -> None:
    waiting: queue.Queue[Any] = queue.Queue()
    logger = logging.Logger("queued")
    logger.addHandler(logging.handlers.QueueHandler(waiting))
    with spans.span() as span:
        logger.warning("queued")
    record = pickle.loads(pickle.dumps(waiting.get()))
    assert logging.Formatter(FORMAT).format(record) == line(span, "queued")


@pytest.mark.parametrize("name", ["otelTraceID", "otelSpanID", "otelServiceName"])
def test_a_program_that_correlates_by_hand_is_not_refused(
    spans: Spans, logger: logging.Logger, name: str
) -> None:
    """Logging raises KeyError for an `extra` that the record has already."""
    logger.handlers[0].setFormatter(logging.Formatter(f"%({name})s %(mine)s"))
    extra = {name: "by hand", "mine": 1}
    with spans.span():
        logger.warning("x", extra=extra)
    assert written(logger) == ["by hand 1"]
    assert extra == {name: "by hand", "mine": 1}


def test_make_record_is_called_either_way(logger: logging.Logger) -> None:
    common: Any = ("n", 30, "f", 1, "m", (), None)
    by_name = logger.makeRecord(*common, extra={"otelSpanID": "1"})
    by_position = logger.makeRecord(*common, None, {"otelSpanID": "1"}, "stack")
    assert (by_name.otelSpanID, by_position.otelSpanID) == ("1", "1")  # type: ignore[attr-defined]
    assert by_position.stack_info == "stack"


def test_a_span_of_somebody_elses_that_fails_costs_only_the_ids(logger: logging.Logger) -> None:
    class Broken(NonRecordingSpan):
        def get_span_context(self) -> SpanContext:
            raise RuntimeError("span")

    with use_span(Broken(SpanContext(1, 2, False))):
        logger.warning("x")
    assert written(logger) == ["0 0 False shop x"]


def test_a_record_takes_the_arguments_it_always_took() -> None:
    record: Any = logging.LogRecord(
        "n", 30, "f", 1, "m %s", ("x",), None, sinfo="stack", func="f", more=1
    )
    assert (record.getMessage(), record.stack_info, record.funcName) == ("m x", "stack", "f")


REFUSED = [{"message": 1}, {"asctime": 1}, {"name": 1}, {"otelSpanID": 1, "name": 1}]


@pytest.mark.parametrize("extra", [*REFUSED, UserDict(name=1)])
def test_what_logging_refused_before_is_refused(logger: logging.Logger, extra: Any) -> None:
    with pytest.raises(KeyError, match="Attempt to overwrite"):
        logger.warning("x", extra=extra)


def test_fifty_threads_log_each_under_their_own_span(spans: Spans, logger: logging.Logger) -> None:
    expected: list[str] = []

    def work(number: int) -> None:
        with spans.span(str(number)) as span:
            expected.append(line(span, str(number)))
            logger.warning(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(written(logger)) == sorted(expected)


class BareRoot(logging.RootLogger):
    """A root logger that nobody has configured, not even pytest."""

    def addHandler(self, handler: logging.Handler) -> None:
        if not type(handler).__module__.startswith("_pytest"):
            super().addHandler(handler)


class TestWithoutInstrumentation:
    @pytest.fixture
    def instrumented(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Leave logging alone, with the root logger as a program finds it."""
        monkeypatch.setattr(logging, "root", BareRoot(logging.WARNING))

    def test_undoing_leaves_the_very_same_functions(self) -> None:
        def state() -> Any:
            factory, root = logging.getLogRecordFactory(), logging.getLogger()
            return (
                entries(logging.LogRecord),
                entries(logging.Logger),
                id(factory),
                root.handlers[:],
                root.level,
            )

        before = state()
        signatures = [
            inspect.signature(logging.LogRecord),
            inspect.signature(logging.makeLogRecord),
        ]
        with watched(LoggingInstrumentor, LoggingInstrumentor):
            assert state()[:2] != before[:2]
            assert state()[2:] == before[2:]
            assert signatures[0] == inspect.signature(logging.LogRecord)
        assert state() == before
        assert "otelSpanID" not in vars(logging.makeLogRecord({}))

    def test_whoever_leaves_last_takes_the_functions_along(self) -> None:
        before = entries(logging.LogRecord)
        first, second = LoggingInstrumentor(), LoggingInstrumentor()
        for instrumentor in (first, first, second):
            instrumentor.instrument()
        assert first.status.active
        patched = entries(logging.LogRecord)
        first.uninstrument()
        first.uninstrument()
        assert not first.status.active
        assert entries(logging.LogRecord) == patched != before
        second.uninstrument()
        assert entries(logging.LogRecord) == before

    def test_under_a_wrapper_of_somebody_elses_it_stays_and_does_nothing(self) -> None:
        original = logging.LogRecord.__init__
        try:
            with watched(LoggingInstrumentor):
                ours = logging.LogRecord.__init__
                theirs: Any = lambda *args, **kwargs: ours(*args, **kwargs)  # noqa: E731
                logging.LogRecord.__init__ = theirs  # type: ignore[method-assign]
            assert logging.LogRecord.__init__ is theirs
            assert "otelSpanID" not in vars(logging.makeLogRecord({}))
        finally:
            logging.LogRecord.__init__ = original  # type: ignore[method-assign]

    def test_a_wrapper_that_was_there_before_is_called(
        self, monkeypatch: pytest.MonkeyPatch, logger: logging.Logger
    ) -> None:
        original = logging.Logger.makeRecord

        @functools.wraps(original)
        def theirs(*args: Any, **kwargs: Any) -> logging.LogRecord:
            record = original(*args, **kwargs)
            record.theirs = 1
            return record

        logger.handlers[0].setFormatter(logging.Formatter("%(theirs)s %(otelTraceID)s"))
        monkeypatch.setattr(logging.Logger, "makeRecord", theirs)
        with watched(LoggingInstrumentor):
            logger.warning("x")
        assert written(logger) == ["1 0"]

    def test_the_root_logger_is_left_alone_unless_asked(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("OTEL_PYTHON_LOG_FORMAT", "unused")
        with watched(LoggingInstrumentor):
            assert not logging.getLogger().handlers

    @pytest.mark.parametrize(
        ("environment", "expected"),
        [
            ({}, "[trace_id=0 span_id=0 resource.service.name=shop trace_sampled=False] - hello"),
            ({"OTEL_PYTHON_LOG_FORMAT": "%(otelSpanID)s! %(message)s"}, "0! hello"),
        ],
    )
    def test_the_environment_gives_the_root_logger_a_format(
        self,
        monkeypatch: pytest.MonkeyPatch,
        environment: dict[str, str],
        expected: str,
    ) -> None:
        output = io.StringIO()
        monkeypatch.setattr(sys, "stderr", output)
        monkeypatch.setenv("OTEL_PYTHON_LOG_CORRELATION", "true")
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        with watched(LoggingInstrumentor, tracer_provider=shop()):
            logging.getLogger().info("hello")
        assert output.getvalue().endswith(f"{expected}\n")
        assert not logging.getLogger().handlers

    @pytest.mark.parametrize(
        ("name", "level"),
        [("debug", 10), ("INFO", 20), ("warning", 30), ("error", 40), ("", 20), ("getLogger", 20)],
    )
    def test_the_environment_gives_the_root_logger_a_level(
        self, monkeypatch: pytest.MonkeyPatch, name: str, level: int
    ) -> None:
        monkeypatch.setenv("OTEL_PYTHON_LOG_CORRELATION", "true")
        monkeypatch.setenv("OTEL_PYTHON_LOG_LEVEL", name)
        before = logging.getLogger().level
        with watched(LoggingInstrumentor):
            assert logging.getLogger().level == level
        assert logging.getLogger().level == before

    def test_options_come_before_the_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OTEL_PYTHON_LOG_CORRELATION", "true")
        with watched(LoggingInstrumentor, set_logging_format=False):
            assert not logging.getLogger().handlers
        with watched(LoggingInstrumentor, logging_format="%(message)s", log_level=logging.ERROR):
            (handler,) = logging.getLogger().handlers
            assert handler.format(logging.makeLogRecord({"msg": "just this"})) == "just this"
            assert logging.getLogger().level == logging.ERROR

    def test_a_root_logger_that_the_program_configured_is_left_alone(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("OTEL_PYTHON_LOG_CORRELATION", "true")
        mine = Lines()
        logging.getLogger().addHandler(mine)
        with watched(LoggingInstrumentor):
            assert logging.getLogger().handlers == [mine]
        assert logging.getLogger().handlers == [mine]

    def test_a_format_that_is_none_is_said_and_not_raised(
        self, monkeypatch: pytest.MonkeyPatch, logger: logging.Logger
    ) -> None:
        monkeypatch.setattr("tracekit.instrumentation.logging._logger", logger)
        monkeypatch.setenv("OTEL_PYTHON_LOG_CORRELATION", "true")
        monkeypatch.setenv("OTEL_PYTHON_LOG_FORMAT", "no placeholder")
        with watched(LoggingInstrumentor):
            assert not logging.getLogger().handlers
        assert "not a logging format: 'no placeholder'" in written(logger)[0]

    def test_a_provider_without_a_name_leaves_it_empty(self, logger: logging.Logger) -> None:
        with watched(LoggingInstrumentor):
            logger.warning("x")
        assert written(logger) == ["0 0 False  x"]

    def test_a_resource_that_logs_when_it_is_read_does_no_harm(
        self, logger: logging.Logger
    ) -> None:
        class Provider(NoOpTracerProvider):
            @property
            def resource(self) -> Resource:
                logger.warning("looking")
                return Resource({"service.name": "shop"})

        with watched(LoggingInstrumentor, tracer_provider=Provider()):
            logger.warning("x")
        assert written(logger) == ["0 0 False  looking", "0 0 False shop x"]
