"""The provider: tracers follow its parts, processors cannot harm it, its ledger adds up."""

from __future__ import annotations

import threading
import time

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import SpanProcessor as SdkSpanProcessor
from opentelemetry.sdk.trace.export import BatchSpanProcessor as SdkBatch
from opentelemetry.sdk.trace.export.in_memory_span_exporter import (
    InMemorySpanExporter as SdkMemory,
)

from tracekit.sdk import (
    ALWAYS_OFF,
    BatchSpanProcessor,
    InMemorySpanExporter,
    Resource,
    SimpleSpanProcessor,
    SpanProcessor,
    TracerProvider,
)


@pytest.fixture
def provider():
    made = TracerProvider(shutdown_on_exit=False)
    yield made
    made.shutdown(1.0)


def end_one(provider, name="span"):
    provider.get_tracer("t").start_span(name).end()


def test_a_scope_has_one_tracer(provider):
    assert provider.get_tracer("a", "1") is provider.get_tracer("a", "1")
    assert provider.get_tracer("a", "1") is not provider.get_tracer("a", "2")
    assert provider.get_tracer("a", attributes={"k": "v"}) is not provider.get_tracer("a")


@pytest.mark.parametrize("name", [None, "", 5])
def test_a_scope_without_a_proper_name_gets_a_working_tracer(provider, name):
    """https://opentelemetry.io/docs/specs/otel/trace/api/#get-a-tracer: an empty name is kept."""
    assert provider.get_tracer(name).start_span("x").is_recording()


def test_scope_attributes_that_cannot_be_hashed_or_read_get_a_working_tracer(provider):
    assert provider.get_tracer("a", attributes={"k": ["list"]}).start_span("x").is_recording()


def test_tracers_follow_parts_that_are_replaced(provider):
    tracer = provider.get_tracer("t")
    under_way = tracer.start_span("under way")
    provider.reconfigure(sampler=ALWAYS_OFF, resource=Resource({"k": "new"}))
    assert not tracer.start_span("x").is_recording()
    assert under_way.is_recording()
    assert under_way.resource.attributes.get("k") is None


def test_processors_are_told_in_order(provider):
    told = []

    class Telling(SpanProcessor):
        def __init__(self, name):
            self.name = name

        def on_start(self, span, parent_context=None):
            told.append((self.name, "start"))

        def on_ending(self, span):
            told.append((self.name, "ending"))

        def on_end(self, span):
            told.append((self.name, "end"))

    for name in "ab":
        provider.add_span_processor(Telling(name))
    end_one(provider)
    assert told == [(name, what) for what in ("start", "ending", "end") for name in "ab"]


def test_a_processor_may_write_when_the_span_is_ending_and_not_when_it_has_ended(provider):
    class Late(SpanProcessor):
        def on_ending(self, span):
            span.set_attribute("ending", True)

        def on_end(self, span):
            span.set_attribute("ended", True)

    exporter = InMemorySpanExporter()
    provider.add_span_processor(Late())
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    end_one(provider)
    assert dict(exporter.get_finished_spans()[0].attributes) == {"ending": True}


def test_ending_a_span_while_it_is_ending_ends_it_once(provider):
    class Ends(SpanProcessor):
        def on_ending(self, span):
            span.end()

    exporter = InMemorySpanExporter()
    provider.add_span_processor(Ends())
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    end_one(provider)
    with provider.get_tracer("t").start_as_current_span("scope"):
        pass
    assert [span.name for span in exporter.get_finished_spans()] == ["span", "scope"]


def test_two_threads_end_a_span_that_somebody_listens_to_and_it_is_exported_once(provider):
    both = threading.Barrier(2, timeout=10)

    class Slow(SpanProcessor):
        def on_ending(self, span):
            time.sleep(0.05)

    exporter = InMemorySpanExporter()
    provider.add_span_processor(Slow())
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    span = provider.get_tracer("t").start_span("x")

    def end():
        both.wait()
        span.end()

    threads = [threading.Thread(target=end) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(exporter.get_finished_spans()) == 1
    assert provider.stats()["ended"] == 1


@pytest.mark.parametrize("method", ["on_start", "on_ending", "on_end"])
def test_a_processor_that_raises_harms_neither_program_nor_neighbours(provider, method, caplog):
    class Raising(SpanProcessor):
        pass

    def fail(self, *arguments, **options):
        raise RuntimeError("no")

    setattr(Raising, method, fail)
    exporter = InMemorySpanExporter()
    provider.add_span_processor(Raising())
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    for _ in range(3):
        end_one(provider)
    assert len(exporter.get_finished_spans()) == 3
    assert len(caplog.records) == 1


def test_processors_and_exporters_of_the_sdk_plug_in(provider):
    exporter = SdkMemory()
    started = []

    class Theirs(SdkSpanProcessor):
        def on_start(self, span, parent_context=None):
            started.append(span.name)

    provider.add_span_processor(Theirs())
    provider.add_span_processor(SdkBatch(exporter))
    provider.add_span_processor(BatchSpanProcessor(exporter))
    end_one(provider)
    assert provider.force_flush()
    assert started == ["span"]
    assert [span.name for span in exporter.get_finished_spans()] == ["span", "span"]


def test_a_processor_that_hangs_keeps_neither_flush_nor_shutdown(provider):
    gone = threading.Event()

    class Hanging(SpanProcessor):
        def on_end(self, span):
            pass

        def force_flush(self, timeout_millis=30_000):
            gone.wait(30)
            return True

        def shutdown(self, timeout_millis=30_000):
            gone.wait(30)

    exporter = InMemorySpanExporter()
    provider.add_span_processor(Hanging())
    provider.add_span_processor(BatchSpanProcessor(exporter))
    end_one(provider)
    began = time.monotonic()
    assert not provider.force_flush(200)
    provider.shutdown(0.3)
    assert time.monotonic() - began < 5
    gone.set()


def test_after_shutdown_nothing_is_recorded_and_contexts_pass(provider):
    exporter = InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    old = provider.get_tracer("old")
    provider.shutdown()
    for tracer in (old, provider.get_tracer("new")):
        with tracer.start_as_current_span("x") as span:
            assert not span.is_recording()
    assert trace.get_current_span() is trace.INVALID_SPAN
    assert exporter.get_finished_spans() == ()


def test_the_ledger_adds_up_while_threads_trace(provider):
    provider.add_span_processor(BatchSpanProcessor(InMemorySpanExporter()))
    stop = threading.Event()

    def work():
        while not stop.is_set():
            end_one(provider)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(200):
        stats = provider.stats()
        assert stats["started"] == stats["live"] + stats["ended"]
        assert stats["live"] >= 0
    stop.set()
    for thread in threads:
        thread.join()
    stats = provider.stats()
    assert (stats["live"], stats["started"]) == (0, stats["processors"][0]["received"])


def test_a_first_processor_of_somebody_else_leaves_the_ledger_whole(provider):
    class Theirs(SpanProcessor):
        def on_end(self, span):
            pass

    under_way = provider.get_tracer("t").start_span("under way")
    end_one(provider)
    provider.add_span_processor(Theirs())
    end_one(provider)
    provider.add_span_processor(SimpleSpanProcessor(InMemorySpanExporter()))
    end_one(provider)
    under_way.end()
    stats = provider.stats()
    assert (stats["started"], stats["ended"], stats["live"]) == (4, 4, 0)


def test_clearing_counts_from_zero(provider):
    provider.add_span_processor(SimpleSpanProcessor(InMemorySpanExporter()))
    end_one(provider)
    provider.clear()
    stats = provider.stats()
    assert (stats["started"], stats["ended"], stats["processors"]) == (0, 0, [])


def test_before_a_freeze_what_cannot_be_sent_is_kept(tmp_path):
    """A process that is frozen may never wake up: nothing may be left in its memory."""
    from tracekit.exporters.otlp import OTLPSpanExporter, Spool

    spool = Spool(tmp_path / "spool.db")
    exporter = OTLPSpanExporter("http://localhost:9", spool=spool)
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    provider.get_tracer("lambda").start_span("invocation").end()
    began = time.monotonic()
    assert provider.flush_or_keep(600) is False
    assert time.monotonic() - began < 3
    assert [row.spans for row in spool.waiting()] == [1]
    provider.shutdown(1)


def test_before_a_freeze_a_processor_of_the_sdk_is_flushed(provider):
    flushed = []

    class Theirs(SpanProcessor):
        def force_flush(self, timeout_millis=30_000):
            flushed.append(timeout_millis)
            return True

    provider.add_span_processor(Theirs())
    assert provider.flush_or_keep(500) is True
    assert len(flushed) == 1
