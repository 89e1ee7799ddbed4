"""Third-party processors and exporters that misbehave: contained, counted, said once."""

from __future__ import annotations

import gc
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import opentelemetry.sdk.trace as sdk_trace
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

import tracekit
from tracekit.sdk import InMemorySpanExporter, SimpleSpanProcessor, TracerProvider

BOUND_S = 5.0


def work(spans: int = 3) -> None:
    tracer = trace.get_tracer("program")
    for number in range(spans):
        with tracer.start_as_current_span(f"span {number}") as span:
            span.set_attribute("number", number)


def said(caplog: pytest.LogCaptureFixture, words: str) -> int:
    warnings = [each for each in caplog.records if each.levelno >= logging.WARNING]
    return sum(words in each.getMessage() for each in warnings)


@pytest.fixture
def hang() -> Iterator[threading.Event]:
    """An event to hang on, which is set when the test is over."""
    released = threading.Event()
    yield released
    released.set()


@pytest.fixture
def ours() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def configured(ours: InMemorySpanExporter) -> Callable[[Any], None]:
    def configure(processor: Any) -> None:
        tracekit.configure(exporters="none", processors=[processor, SimpleSpanProcessor(ours)])

    return configure


# Processors --------------------------------------------------------------------------------


def raising(*methods: str) -> Any:
    class Raising(sdk_trace.SpanProcessor):
        pass

    def fail(*_arguments: Any, **_named: Any) -> None:
        raise RuntimeError("third-party bug")

    for method in methods:
        setattr(Raising, method, fail)
    return Raising()


@pytest.mark.parametrize("method", ["on_start", "_on_ending", "on_end"])
def test_a_processor_that_raises_is_counted_and_said_once(
    method: str,
    configured: Callable[[Any], None],
    ours: InMemorySpanExporter,
    caplog: pytest.LogCaptureFixture,
) -> None:
    configured(raising(method))
    work(3)
    assert len(ours.get_finished_spans()) == 3
    assert tracekit.stats()["processor_errors"] == 3
    assert said(caplog, "raised; told once") == 1


def test_it_is_not_said_again_when_another_processor_is_added(
    configured: Callable[[Any], None], caplog: pytest.LogCaptureFixture
) -> None:
    configured(raising("on_end"))
    work(1)
    provider: Any = trace.get_tracer_provider()
    provider.add_span_processor(raising())
    work(1)
    assert said(caplog, "raised; told once") == 1


@pytest.mark.parametrize("method", ["force_flush", "shutdown"])
def test_flushing_and_stopping_survive_a_processor_that_raises(
    method: str, configured: Callable[[Any], None], ours: InMemorySpanExporter
) -> None:
    configured(raising(method))
    work(1)
    assert tracekit.flush(BOUND_S) is (method != "force_flush")
    tracekit.shutdown(BOUND_S)
    assert len(ours.get_finished_spans()) == 1


@pytest.mark.parametrize("method", ["force_flush", "shutdown"])
def test_a_processor_that_hangs_is_left_behind(
    method: str, configured: Callable[[Any], None], hang: threading.Event
) -> None:
    class Hanging(sdk_trace.SpanProcessor):
        pass

    def wait(*_arguments: Any) -> None:
        hang.wait()

    setattr(Hanging, method, wait)
    configured(Hanging())
    work(1)
    start = time.monotonic()
    assert tracekit.flush(0.3) is (method != "force_flush")
    tracekit.shutdown(0.3)
    assert time.monotonic() - start < BOUND_S


@pytest.mark.parametrize("answer", [None, "nonsense", 0, object()])
def test_only_false_means_that_a_flush_failed(
    answer: Any, configured: Callable[[Any], None]
) -> None:
    class Odd(sdk_trace.SpanProcessor):
        def force_flush(self, timeout_millis: int = 30_000) -> Any:
            return answer

    configured(Odd())
    work(1)
    assert tracekit.flush(BOUND_S)


def test_an_ended_span_cannot_be_changed(
    configured: Callable[[Any], None], ours: InMemorySpanExporter
) -> None:
    class Meddling(sdk_trace.SpanProcessor):
        def on_end(self, span: Any) -> None:
            span.set_attribute("added", True)
            span.update_name("renamed")
            span.add_event("added")
            span.set_status(trace.StatusCode.ERROR)
            span.attributes["added"] = True

    configured(Meddling())
    work(1)
    (span,) = ours.get_finished_spans()
    assert (span.name, dict(span.attributes), span.events) == ("span 0", {"number": 0}, ())
    assert span.status.is_unset
    assert tracekit.stats()["late_writes"] == 4
    assert tracekit.stats()["processor_errors"] == 1


@pytest.mark.parametrize("method", ["on_start", "on_end"])
def test_a_processor_that_makes_spans_of_its_spans_comes_to_an_end(
    method: str,
    configured: Callable[[Any], None],
    ours: InMemorySpanExporter,
    caplog: pytest.LogCaptureFixture,
) -> None:
    class CallingBack(sdk_trace.SpanProcessor):
        pass

    def call_back(*_arguments: Any, **_named: Any) -> None:
        trace.get_tracer("processor").start_span("again").end()

    setattr(CallingBack, method, call_back)
    configured(CallingBack())
    work(1)
    names = [span.name for span in ours.get_finished_spans()]
    assert names.count("span 0") == 1
    assert 1 <= names.count("again") <= 20
    assert tracekit.stats()["live"] == 0
    assert said(caplog, "raised; told once") == 1


def test_a_processor_that_makes_one_span_more_is_let_do_so(
    configured: Callable[[Any], None],
    ours: InMemorySpanExporter,
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Summing(sdk_trace.SpanProcessor):
        def on_end(self, span: Any) -> None:
            if span.name != "summary":
                trace.get_tracer("processor").start_span("summary").end()

    configured(Summing())
    work(2)
    names = [span.name for span in ours.get_finished_spans()]
    assert sorted(names) == ["span 0", "span 1", "summary", "summary"]
    assert said(caplog, "") == 0


# Exporters ---------------------------------------------------------------------------------


class Collecting(SpanExporter):
    """A well-behaved neighbour."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def export(self, spans: Sequence[Any]) -> SpanExportResult:
        self.names += [span.name for span in spans]
        return SpanExportResult.SUCCESS


def exporting(export: Callable[[Sequence[Any]], Any]) -> Any:
    class Theirs(SpanExporter):
        def export(self, spans: Sequence[Any]) -> Any:
            return export(spans)

    return Theirs()


def ledger(name: str = "Theirs") -> dict[str, Any]:
    (batch,) = tracekit.stats()["processors"]
    return next(lane for lane in batch["exporters"] if lane["exporter"] == name)


def fail(spans: Sequence[Any]) -> Any:
    raise RuntimeError("third-party bug")


@pytest.mark.parametrize(
    ("export", "reason"),
    [
        (fail, "raised RuntimeError"),
        (lambda spans: SpanExportResult.FAILURE, "refused"),
        (lambda spans: None, "refused"),
        (lambda spans: "SUCCESS", "refused"),
        (lambda spans: True, "refused"),
    ],
    ids=["raises", "fails", "none", "text", "true"],
)
def test_an_exporter_that_fails_harms_no_other(
    export: Callable[[Sequence[Any]], Any], reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    neighbour = Collecting()
    tracekit.configure(exporters=[exporting(export), neighbour])
    for _ in range(2):
        work(3)
        assert not tracekit.flush(BOUND_S)
    assert len(neighbour.names) == 6
    assert ledger()["failed"] == {reason: 6}
    assert ledger("Collecting")["exported"] == 6
    assert said(caplog, "could not be exported by Theirs") == 1


def test_an_exporter_that_hangs_is_given_up(
    hang: threading.Event, caplog: pytest.LogCaptureFixture
) -> None:
    neighbour = Collecting()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTEL_BSP_EXPORT_TIMEOUT", "200")
        tracekit.configure(exporters=[exporting(lambda spans: hang.wait()), neighbour])
    work(3)
    assert not tracekit.flush(BOUND_S)
    assert ledger()["failed"] == {"timeout": 3}
    assert len(neighbour.names) == 3
    assert said(caplog, "could not be exported by Theirs: timeout") == 1


@pytest.mark.parametrize(
    "change",
    [lambda spans: spans.clear(), lambda spans: spans.pop(), lambda spans: spans.append(None)],
    ids=["clear", "pop", "append"],
)
def test_an_exporter_that_changes_its_batch_changes_nobody_elses(
    change: Callable[[Any], Any],
) -> None:
    neighbour = Collecting()
    meddling = exporting(change)
    tracekit.configure(exporters=[meddling, neighbour])
    work(3)
    tracekit.flush(BOUND_S)
    assert neighbour.names == ["span 0", "span 1", "span 2"]
    lost = sum(ledger()["failed"].values())
    assert (lost, ledger()["pending"]) == (3, 0)


def test_what_an_exporter_does_is_not_traced() -> None:
    made: list[bool] = []

    def call_back(spans: Sequence[Any]) -> SpanExportResult:
        from opentelemetry.context import get_value

        made.append(bool(get_value("suppress_instrumentation")))
        return SpanExportResult.SUCCESS

    tracekit.configure(exporters=[exporting(call_back)])
    work(1)
    assert tracekit.flush(BOUND_S)
    assert made == [True]


def test_an_exporter_without_flush_and_shutdown_will_do() -> None:
    class Bare:
        def __init__(self) -> None:
            self.spans: list[Any] = []

        def export(self, spans: Sequence[Any]) -> SpanExportResult:
            self.spans.extend(spans)
            return SpanExportResult.SUCCESS

    exporter = Bare()
    tracekit.configure(exporters=exporter)
    work(2)
    assert tracekit.flush(BOUND_S)
    tracekit.shutdown(BOUND_S)
    assert len(exporter.spans) == 2


def test_an_exporter_that_leaves_the_program_does_not() -> None:
    def leave(spans: Sequence[Any]) -> Any:
        raise SystemExit(3)

    neighbour = Collecting()
    tracekit.configure(exporters=[exporting(leave), neighbour])
    work(1)
    start = time.monotonic()
    assert not tracekit.flush(BOUND_S)
    assert time.monotonic() - start < BOUND_S
    assert neighbour.names == ["span 0"]


# Samplers, id generators, detectors ---------------------------------------------------------


@pytest.mark.parametrize("result", [None, "nonsense", 7], ids=["none", "text", "number"])
def test_a_sampler_that_answers_nonsense_drops(
    result: Any, caplog: pytest.LogCaptureFixture, ours: InMemorySpanExporter
) -> None:
    class Odd:
        def should_sample(self, *_arguments: Any, **_named: Any) -> Any:
            return result

        def get_description(self) -> str:
            return "Odd"

    processor = SimpleSpanProcessor(ours)
    tracekit.configure(exporters="none", processors=[processor], sampler=Odd())
    work(3)
    assert ours.get_finished_spans() == ()
    assert tracekit.stats()["sampled_out"] == 3


class RaisingSampler:
    def should_sample(self, *_arguments: Any, **_named: Any) -> Any:
        raise RuntimeError("third-party bug")

    def get_description(self) -> str:
        return "Raising"


def test_a_sampler_that_raises_drops_and_is_said_once(
    caplog: pytest.LogCaptureFixture, ours: InMemorySpanExporter
) -> None:
    processor = SimpleSpanProcessor(ours)
    tracekit.configure(exporters="none", processors=[processor], sampler=RaisingSampler())
    work(3)
    assert ours.get_finished_spans() == ()
    assert said(caplog, "the sampler raised") == 1


def test_of_each_sampler_that_raises_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []

    def note(record: logging.LogRecord) -> bool:
        # Not the record: its traceback would keep the sampler, and its id be nobody else's.
        said.append(record.getMessage())
        return False

    monkeypatch.setattr(logging.getLogger("tracekit"), "filters", [note])
    for number in range(1, 21):
        TracerProvider(sampler=RaisingSampler()).get_tracer("shop").start_span("order").end()
        assert len(said) == number
        gc.collect()
