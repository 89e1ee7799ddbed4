"""Programs that differ under tracekit on purpose, with what they return on either side."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import Any

from opentelemetry import baggage, propagate, trace
from opentelemetry.trace import Link, SpanContext, TraceState

from integration.programs.catalogue import World

__all__ = ["EXPLAINED", "Explained"]


class Colour(Enum):
    RED = "red"


@dataclass(frozen=True)
class Order:
    number: int


@dataclass(frozen=True)
class Explained:
    """One row of the table in docs/how-to/move-from-opentelemetry-sdk.md."""

    title: str
    run: Callable[[World], Any]
    with_sdk: Any
    with_tracekit: Any
    environment: Mapping[str, str] = field(default_factory=dict)


def too_many_attributes(world: World) -> list[str]:
    span: Any = world.tracer.start_span("full", attributes={"first": 1})
    span.set_attribute("second", 2)
    span.set_attribute("third", 3)
    span.end()
    return list(span.attributes)


def too_many_links(world: World) -> list[int]:
    links = [Link(SpanContext(7, number, True)) for number in (1, 2)]
    span: Any = world.tracer.start_span("linked", links=links)
    span.add_link(SpanContext(7, 3, True))
    span.end()
    return [link.context.span_id for link in span.links]


def values_of_other_types(world: World) -> dict[str, Any]:
    span: Any = world.tracer.start_span("order")
    span.set_attribute("colour", Colour.RED)
    span.set_attribute("sizes", {7})
    span.set_attribute("order", Order(42))
    span.set_attribute("placed", datetime(2024, 1, 2, 3))
    span.end()
    return dict(span.attributes)


def baggage_is_passed_on_as_it_came(world: World) -> str:
    headers: dict[str, str] = {}
    context = propagate.extract({"baggage": "tier=gold%20card;property=1"})
    propagate.inject(headers, baggage.set_baggage("user", "b=c", context))
    return headers["baggage"]


def writing_while_ending(world: World) -> dict[str, Any]:
    class Summing(world.names.SpanProcessor):
        def _on_ending(self, span: Any) -> None:
            span.set_attribute("recording", span.is_recording())

    world.provider.add_span_processor(Summing())
    span: Any = world.tracer.start_span("ending")
    span.end()
    return dict(span.attributes)


def leaving_a_started_span(world: World) -> tuple[str, int]:
    span: Any = world.tracer.start_span("exit")
    try:
        with span:
            raise SystemExit(0)
    except SystemExit:
        return span.status.status_code.name, len(span.events)


def which_half_is_sampled(world: World) -> list[bool]:
    sampler = world.names.TraceIdRatioBased(0.5)
    low, high = 1, (1 << 56) - 1
    return [
        sampler.should_sample(None, trace_id, "root").decision.is_sampled()
        for trace_id in (low, high)
    ]


def spans_after_shutdown(world: World) -> bool:
    world.provider.shutdown()
    return world.tracer.start_span("late").is_recording()


def schema_of_the_resource(world: World) -> bool:
    return bool(world.provider.resource.schema_url)


def children_of_what_was_not_sampled(world: World) -> bool:
    parent = SpanContext(7, 7, True, trace_state=TraceState())
    context = trace.set_span_in_context(trace.NonRecordingSpan(parent))
    span = world.tracer.start_span("dropped", context)
    return hasattr(span, "attributes")


EXPLAINED = [
    Explained(
        "More attributes than the limit",
        too_many_attributes,
        ["second", "third"],
        ["first", "second"],
        {"OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "2"},
    ),
    Explained(
        "More links than the limit",
        too_many_links,
        [2, 3],
        [1, 2],
        {"OTEL_SPAN_LINK_COUNT_LIMIT": "2"},
    ),
    Explained(
        "Attribute values of other types",
        values_of_other_types,
        {
            "colour": "Colour.RED",
            "sizes": "{7}",
            "order": "Order(number=42)",
            "placed": "2024-01-02 03:00:00",
        },
        {
            "colour": "red",
            "sizes": (7,),
            "order": {"number": 42},
            "placed": "2024-01-02T03:00:00",
        },
    ),
    Explained(
        "Baggage that came from elsewhere",
        baggage_is_passed_on_as_it_came,
        "tier=gold+card%3Bproperty%3D1,user=b%3Dc",
        "tier=gold%20card;property=1,user=b=c",
    ),
    Explained("Writing in `on_ending`", writing_while_ending, {}, {"recording": True}),
    Explained(
        "`SystemExit`, `KeyboardInterrupt`, cancellation",
        leaving_a_started_span,
        ("ERROR", 1),
        ("UNSET", 0),
    ),
    Explained("`traceidratio`", which_half_is_sampled, [True, True], [False, True]),
    Explained("Spans that start after shutdown", spans_after_shutdown, True, False),
    Explained("Schema URL of the resource", schema_of_the_resource, False, True),
    Explained("Reading a span that was not sampled", children_of_what_was_not_sampled, False, True),
]
