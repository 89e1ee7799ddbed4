"""Programs that write attributes, events, links and statuses."""

from __future__ import annotations

from decimal import Decimal
from pathlib import PurePosixPath
from typing import Any
from uuid import UUID

from opentelemetry import trace
from opentelemetry.trace import Link, SpanContext, Status, StatusCode, TraceFlags, TraceState

from integration.programs.catalogue import World, program

REMOTE = SpanContext(
    0x0AF7651916CD43DD8448EB211C80319C,
    0xB7AD6B7169203331,
    is_remote=True,
    trace_flags=TraceFlags(1),
    trace_state=TraceState([("vendor", "value")]),
)


@program()
def attributes_of_every_type(world: World) -> None:
    attributes = {
        "text": "ä日本😀",
        "empty text": "",
        "true": True,
        "false": False,
        "zero": 0,
        "negative": -1,
        "large": 2**63 - 1,
        "small": -(2**63),
        "float": 1.5,
        "infinite": float("inf"),
        "bytes": b"\x00\xff",
    }
    with world.tracer.start_as_current_span("types", attributes=attributes) as span:
        for key, value in attributes.items():
            span.set_attribute(f"set {key}", value)


@program()
def attributes_that_are_sequences(world: World) -> None:
    with world.tracer.start_as_current_span("sequences") as span:
        span.set_attribute("texts", ["a", "b"])
        span.set_attribute("tuple", (1, 2, 3))
        span.set_attribute("floats", [0.5, 1.5])
        span.set_attribute("truths", [True, False])
        span.set_attribute("empty", [])
        span.set_attribute("with none", ["a", None, "c"])


@program()
def attributes_that_are_nested(world: World) -> None:
    with world.tracer.start_as_current_span("nested") as span:
        span.set_attribute("mapping", {"a": 1, "b": {"c": [1, "two", 3.0]}})
        span.set_attribute("empty", {})
        span.set_attribute("mixed", ["a", 1, True, None, {"k": "v"}])
        span.set_attribute("none", None)


@program()
def attributes_that_are_shown_as_text(world: World) -> None:
    with world.tracer.start_as_current_span("texts") as span:
        span.set_attribute("decimal", Decimal("1.50"))
        span.set_attribute("uuid", UUID(int=5))
        span.set_attribute("path", PurePosixPath("/tmp"))
        span.set_attribute("exception", ValueError("wrong"))
        span.set_attribute("range", range(3))


@program()
def attributes_written_again(world: World) -> None:
    with world.tracer.start_as_current_span("again", attributes={"a": 1, "b": 2}) as span:
        span.set_attribute("a", "one")
        span.set_attributes({"b": "two", "c": "three"})
        span.set_attributes({})


@program()
def values_changed_after_they_were_set(world: World) -> None:
    given: dict[str, Any] = {"list": [1, 2]}
    with world.tracer.start_as_current_span("copied", attributes=given) as span:
        given["list"].append(3)
        given["more"] = True
        later = ["a"]
        span.set_attribute("later", later)
        span.add_event("event", {"later": later}, timestamp=1)
        later.append("b")


@program()
def keys_that_cannot_be_used(world: World) -> None:
    with world.tracer.start_as_current_span("keys") as span:
        span.set_attribute("", "nothing")
        span.set_attribute("key.with.dots-and ä", "fine")


@program()
def events(world: World) -> None:
    with world.tracer.start_as_current_span("events") as span:
        span.add_event("plain")
        span.add_event("attributes", {"text": "a", "number": 1, "list": [1, 2]})
        span.add_event("earlier", timestamp=123)
        span.add_event("", {})
        span.add_event("attributes", {"again": True}, 456)


@program()
def links_at_the_start(world: World) -> None:
    earlier = world.tracer.start_span("earlier")
    earlier.end()
    links = [Link(earlier.get_span_context(), {"n": 1}), Link(REMOTE)]
    world.tracer.start_span("started", links=links).end()
    with world.tracer.start_as_current_span("scoped", links=links):
        pass


@program()
def links_added_later(world: World) -> None:
    with world.tracer.start_as_current_span("linking", links=[Link(REMOTE)]) as span:
        span.add_link(span.get_span_context(), {"to": "itself"})
        span.add_link(REMOTE, {"list": ["a"]})
        span.add_link(REMOTE)


@program()
def links_to_nothing(world: World) -> None:
    nothing = trace.INVALID_SPAN_CONTEXT
    with world.tracer.start_as_current_span("linking", links=[Link(nothing)]) as span:
        span.add_link(nothing)
        span.add_link(nothing, {"but": "attributes"})


def _statuses(world: World, name: str, *statuses: tuple[Any, ...]) -> None:
    with world.tracer.start_as_current_span(name) as span:
        for status in statuses:
            span.set_status(*status)


@program()
def every_status(world: World) -> None:
    _statuses(world, "unset", (StatusCode.UNSET,))
    _statuses(world, "ok", (StatusCode.OK,))
    _statuses(world, "error", (StatusCode.ERROR,))
    _statuses(world, "error with words", (StatusCode.ERROR, "words"))
    _statuses(world, "object", (Status(StatusCode.ERROR, "object"),))
    _statuses(world, "ok object", (Status(StatusCode.OK),))


@program()
def statuses_in_every_order(world: World) -> None:
    codes = (StatusCode.UNSET, StatusCode.OK, StatusCode.ERROR)
    for first in codes:
        for second in codes:
            _statuses(world, f"{first.name} {second.name}", (first,), (second,))


@program()
def descriptions_of_statuses(world: World) -> None:
    error, ok = StatusCode.ERROR, StatusCode.OK
    _statuses(world, "replaced", (error, "first"), (error, "second"))
    _statuses(world, "taken back", (error, "first"), (error,))
    _statuses(world, "unset does not take back", (error, "first"), (StatusCode.UNSET,))
    _statuses(world, "ok takes it back", (error, "first"), (ok,), (error, "third"))
    _statuses(world, "ok has none", (ok, "ignored"))
    _statuses(world, "object and words", (Status(error, "object"), "words"))
