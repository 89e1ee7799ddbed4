"""Span limits and id generators: https://opentelemetry.io/docs/specs/otel/trace/sdk/."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from opentelemetry.trace import Link, SpanContext, Tracer

from tracekit.sdk import InMemorySpanExporter, SpanLimits
from tracekit.testing import SequentialIdGenerator

LINK = Link(SpanContext(1, 2, False), {"a": 1, "b": 2, "c": 3})


def filled(tracer: Tracer, count: int) -> None:
    """End a span with that many attributes, events and links."""
    span = tracer.start_span("a", links=[LINK] * count)
    for number in range(count):
        span.set_attribute(f"key{number}", number)
        span.add_event(f"event{number}", {"a": 1, "b": 2, "c": 3})
    span.end()


def test_the_default_limits_are_128(tracer: Tracer, exporter: InMemorySpanExporter) -> None:
    """128 attributes, events and links are kept by default, and no more.

    https://opentelemetry.io/docs/specs/otel/trace/sdk/#span-limits
    """
    filled(tracer, 130)
    (span,) = exporter.get_finished_spans()
    assert (len(span.attributes), len(span.events), len(span.links)) == (128, 128, 128)


@pytest.mark.parametrize(
    ("option", "kept"),
    [
        ("max_attributes", (2, 5, 5)),
        ("max_span_attributes", (2, 5, 5)),
        ("max_events", (5, 2, 5)),
        ("max_links", (5, 5, 2)),
    ],
)
def test_each_limit_can_be_set_in_code(
    make_provider: Any, exporter: InMemorySpanExporter, option: str, kept: tuple[int, int, int]
) -> None:
    """Limits can be changed through the provider's configuration, each by itself.

    https://opentelemetry.io/docs/specs/otel/trace/sdk/#span-limits
    """
    provider = make_provider(span_limits=SpanLimits(**{option: 2}))
    filled(provider.get_tracer("library"), 5)
    (span,) = exporter.get_finished_spans()
    assert (len(span.attributes), len(span.events), len(span.links)) == kept


def test_attributes_of_events_and_links_have_limits_of_their_own(
    make_provider: Any, exporter: InMemorySpanExporter
) -> None:
    """AttributePerEventCountLimit and AttributePerLinkCountLimit.

    https://opentelemetry.io/docs/specs/otel/trace/sdk/#span-limits
    """
    limits = SpanLimits(max_event_attributes=1, max_link_attributes=2)
    filled(make_provider(span_limits=limits).get_tracer("library"), 1)
    (span,) = exporter.get_finished_spans()
    assert (len(span.events[0].attributes), len(span.links[0].attributes or ())) == (1, 2)


def test_at_most_one_message_is_logged_for_a_span(
    make_provider: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """What was discarded is said at most once per span.

    https://opentelemetry.io/docs/specs/otel/trace/sdk/#span-limits
    """
    caplog.set_level(logging.DEBUG)
    limits = SpanLimits(max_attributes=1, max_events=1, max_links=1)
    filled(make_provider(span_limits=limits).get_tracer("library"), 10)
    assert len([record for record in caplog.records if record.name == "tracekit"]) <= 1


def test_ids_are_random_by_default(tracer: Tracer) -> None:
    """Both ids are generated randomly by default.

    https://opentelemetry.io/docs/specs/otel/trace/sdk/#id-generators
    """
    contexts = [tracer.start_span("a").get_span_context() for _ in range(200)]
    for ids, bits in (
        ([context.trace_id for context in contexts], 128),
        ([context.span_id for context in contexts], 64),
    ):
        assert len(set(ids)) == 200
        # Each bit is set in about half of them: 4 in 10**15 for any one to be outside of this.
        for bit in range(bits):
            assert 40 < sum(number >> bit & 1 for number in ids) < 160


def test_ids_can_be_generated_otherwise(make_provider: Any) -> None:
    """There is a way to customise how both ids are generated.

    https://opentelemetry.io/docs/specs/otel/trace/sdk/#id-generators
    """
    tracer = make_provider(id_generator=SequentialIdGenerator()).get_tracer("library")
    contexts = [tracer.start_span("a").get_span_context() for _ in range(2)]
    assert [(context.trace_id, context.span_id) for context in contexts] == [(1, 1), (2, 2)]


class Vouching(SequentialIdGenerator):
    def is_trace_id_random(self) -> bool:
        return True


@pytest.mark.parametrize(("generator", "flag"), [(SequentialIdGenerator, 0), (Vouching, 2)])
def test_the_generator_says_whether_its_ids_are_random(
    make_provider: Any, generator: type[SequentialIdGenerator], flag: int
) -> None:
    """The generator determines whether the random flag of the trace is set.

    https://opentelemetry.io/docs/specs/otel/trace/sdk/#idgenerator-randomness
    """
    span = make_provider(id_generator=generator()).get_tracer("library").start_span("a")
    assert span.get_span_context().trace_flags & 2 == flag


def test_the_default_generator_fulfils_level_2_and_says_so(tracer: Tracer) -> None:
    """Root spans have the random flag when their trace ids meet W3C level 2.

    https://opentelemetry.io/docs/specs/otel/trace/sdk/#random-trace-flag
    """
    assert tracer.start_span("a").get_span_context().trace_flags & 2
