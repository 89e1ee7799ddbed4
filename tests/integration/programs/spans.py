"""Programs that start, name and end spans in every way that the API has."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from opentelemetry import context as context_api
from opentelemetry import trace
from opentelemetry.trace import SpanKind

from integration.programs.catalogue import World, program


@program()
def one_span(world: World) -> None:
    with world.tracer.start_as_current_span("one"):
        pass


@program()
def nested_spans(world: World) -> None:
    scope = world.tracer.start_as_current_span
    with scope("outer"):
        with scope("middle"), scope("inner"):
            pass
        with scope("second"):
            pass


@program()
def two_traces(world: World) -> None:
    for name in ("first", "second"):
        with world.tracer.start_as_current_span(name):
            pass


@program()
def every_kind(world: World) -> None:
    for kind in SpanKind:
        with world.tracer.start_as_current_span(kind.name, kind=kind):
            world.tracer.start_span("started", kind=kind).end()


@program()
def unusual_names(world: World) -> None:
    for name in ("", "GET /ä/日本", "a\nb\tc", "n" * 5000):
        world.tracer.start_span(name).end()


@program()
def a_started_span_is_not_current(world: World) -> bool:
    span = world.tracer.start_span("detached")
    current = trace.get_current_span()
    world.tracer.start_span("beside it").end()
    span.end()
    return current is trace.INVALID_SPAN


@program()
def a_started_span_as_context_manager(world: World) -> bool:
    with world.tracer.start_span("managed") as span:
        world.tracer.start_span("still a root").end()
        recording = span.is_recording()
    return recording and not span.is_recording()


@program()
def children_that_end_after_their_parent(world: World) -> None:
    parent = world.tracer.start_span("parent")
    child = world.tracer.start_span("child", trace.set_span_in_context(parent))
    parent.end()
    grandchild = world.tracer.start_span("grandchild", trace.set_span_in_context(child))
    child.end()
    grandchild.end()


@program()
def renamed_spans(world: World) -> None:
    with world.tracer.start_as_current_span("before") as span:
        span.update_name("between")
        span.update_name("after")
    span.update_name("too late")


@program()
def explicit_times(world: World) -> None:
    span = world.tracer.start_span("past", start_time=1_000)
    with trace.use_span(span):
        world.tracer.start_span("child", start_time=1_500).end(1_700)
    span.add_event("when", timestamp=1_600)
    span.end(2_000)
    world.tracer.start_span("ends before it starts", start_time=500).end(400)


@program()
def a_scope_with_an_explicit_start(world: World) -> None:
    with world.tracer.start_as_current_span("past", start_time=1_000, end_on_exit=False) as span:
        pass
    span.end(3_000)


@program()
def a_span_that_ends_twice(world: World) -> None:
    span = world.tracer.start_span("once", start_time=10)
    span.end(20)
    span.end(30)
    with world.tracer.start_as_current_span("ended inside") as inside:
        inside.end()


@program()
def writing_after_the_end(world: World) -> bool:
    span = world.tracer.start_span("ended", attributes={"kept": True})
    span.end()
    span.set_attribute("late", 1)
    span.set_attributes({"late": 1})
    span.add_event("late")
    span.add_link(trace.SpanContext(1, 2, False), {"late": 1})
    span.set_status(trace.StatusCode.ERROR, "late")
    span.record_exception(ValueError("late"))
    return span.is_recording()


@program()
def a_scope_that_leaves_its_span_open(world: World) -> bool:
    with world.tracer.start_as_current_span("open", end_on_exit=False) as span:
        pass
    open_after = span.is_recording()
    span.set_attribute("after", "the block")
    span.end()
    return open_after


@program()
def use_span(world: World) -> list[bool]:
    span = world.tracer.start_span("used")
    with trace.use_span(span):
        world.tracer.start_span("child").end()
    seen = [span.is_recording()]
    with trace.use_span(span, end_on_exit=True):
        seen.append(trace.get_current_span() is span)
    return [*seen, span.is_recording()]


@program()
def use_span_with_an_error(world: World) -> None:
    for record, status in ((True, True), (True, False), (False, True), (False, False)):
        span = world.tracer.start_span(f"record={record} status={status}")
        try:
            with trace.use_span(span, True, record, status):
                raise ValueError("inside")
        except ValueError:
            pass


@program()
def decorated_functions(world: World) -> list[Any]:
    @world.tracer.start_as_current_span("decorated", attributes={"by": "decorator"})
    def double(number: int) -> int:
        """Say twice."""
        return number * 2

    @world.tracer.start_as_current_span("decorated coroutine", kind=SpanKind.CLIENT)
    async def half(number: int) -> float:
        await asyncio.sleep(0)
        with world.tracer.start_as_current_span("inside the coroutine"):
            return number / 2

    results = [double(2), double(3), asyncio.run(half(3))]
    return [*results, double.__name__, double.__doc__, asyncio.iscoroutinefunction(half)]


@program()
def a_decorated_function_that_raises(world: World) -> str:
    @world.tracer.start_as_current_span("decorated")
    def fail() -> None:
        raise KeyError("no such thing")

    try:
        fail()
    except KeyError as error:
        return str(error)
    return "nothing raised"


@program()
def roots_by_an_empty_context(world: World) -> None:
    with world.tracer.start_as_current_span("outer"):
        with world.tracer.start_as_current_span("root", context=context_api.Context()):
            world.tracer.start_span("child of the root").end()
        world.tracer.start_span("child of outer").end()


@program()
def parents_given_by_context(world: World) -> None:
    first, second = world.tracer.start_span("first"), world.tracer.start_span("second")
    with trace.use_span(first):
        context = trace.set_span_in_context(second)
        world.tracer.start_span("child of second", context).end()
        with world.tracer.start_as_current_span("scope under second", context):
            world.tracer.start_span("inside").end()
    first.end()
    second.end()


@program()
def what_can_be_read_of_a_span(world: World) -> list[Any]:
    tracer: Any = world.tracer
    parent = tracer.start_span("parent", start_time=5)
    span = tracer.start_span(
        "read",
        trace.set_span_in_context(parent),
        SpanKind.PRODUCER,
        {"key": "value", "list": [1, 2]},
        [trace.Link(parent.get_span_context(), {"why": "test"})],
        start_time=10,
    )
    span.add_event("event", {"n": 1}, 11)
    span.set_status(trace.StatusCode.ERROR, "broken")
    span.end(12)
    return [
        span.name,
        span.kind,
        span.parent == parent.get_span_context(),
        span.context == span.get_span_context(),
        dict(span.attributes),
        [(event.name, dict(event.attributes), event.timestamp) for event in span.events],
        [(link.context == span.parent, dict(link.attributes)) for link in span.links],
        (span.status.status_code, span.status.description, span.status.is_ok),
        (span.start_time, span.end_time),
        (span.dropped_attributes, span.dropped_events, span.dropped_links),
        (span.instrumentation_scope.name, span.instrumentation_scope.version),
        span.resource.attributes["service.name"],
    ]


@program()
def a_span_as_json(world: World) -> dict[str, Any]:
    tracer: Any = world.tracer
    span = tracer.start_span("shown", attributes={"a": 1, "b": [True], "c": "x"}, start_time=10**9)
    span.add_event("event", {"n": 1.5}, 2 * 10**9)
    span.add_link(trace.SpanContext(0xA, 0xB, True), {"linked": True})
    span.set_status(trace.StatusCode.ERROR, "why")
    span.end(3 * 10**9)
    shown: dict[str, Any] = json.loads(span.to_json())
    resource = shown.pop("resource")
    return {**shown, "service": resource["attributes"]["service.name"]}
