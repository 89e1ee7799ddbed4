"""Programs whose environment, or whose provider's arguments, change what is recorded."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from typing import Any

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, SpanContext, TraceFlags, TraceState

from integration.programs.catalogue import World, program

REMOTE = SpanContext(0xA1, 0xB2, True, TraceFlags(1))
UNSAMPLED = SpanContext(0xA1, 0xB2, True, TraceFlags(0))


def _full_span(world: World) -> None:
    """Make a span with a few of everything."""
    links = [Link(REMOTE, {"a": f"text {number}", "b": "text"}) for number in range(3)]
    with world.tracer.start_as_current_span("full", links=links) as span:
        span.set_attribute("text", "abcdefghij")
        span.set_attribute("list", ["abcdefghij", "k"])
        span.set_attribute("number", 1234567890)
        for number in range(3):
            span.add_event(f"event {number}", {"a": "abcdefghij", "b": "abcdefghij"})


@program({"OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT": "4"})
def length_limit(world: World) -> None:
    _full_span(world)


@program({"OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT": "4"})
def length_limit_of_spans(world: World) -> None:
    _full_span(world)


@program({"OTEL_SPAN_EVENT_COUNT_LIMIT": "2"})
def event_limit(world: World) -> None:
    _full_span(world)


@program({"OTEL_SPAN_EVENT_COUNT_LIMIT": "0", "OTEL_SPAN_LINK_COUNT_LIMIT": "0"})
def no_events_or_links(world: World) -> None:
    _full_span(world)


@program({"OTEL_ATTRIBUTE_COUNT_LIMIT": "", "OTEL_SPAN_LINK_COUNT_LIMIT": " "})
def empty_limits(world: World) -> None:
    _full_span(world)


@program({"OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "128"})
def as_many_attributes_as_fit(world: World) -> None:
    with world.tracer.start_as_current_span("many") as span:
        span.set_attributes({f"key {number}": number for number in range(128)})
        span.set_attribute("key 5", "written again")


def _every_parent(world: World) -> list[bool]:
    contexts = [Context()]
    for span_context in (REMOTE, UNSAMPLED):
        parent = trace.NonRecordingSpan(span_context)
        contexts.append(trace.set_span_in_context(parent, Context()))
        local = SpanContext(0xC1, 0xD1, False, span_context.trace_flags)
        contexts.append(trace.set_span_in_context(trace.NonRecordingSpan(local), Context()))
    recording = []
    for number, context in enumerate(contexts):
        with world.tracer.start_as_current_span(f"parent {number}", context) as span:
            recording.append(span.is_recording())
            recording.append(span.get_span_context().trace_flags.sampled)
            with world.tracer.start_as_current_span("child") as child:
                recording.append(child.is_recording())
    return recording


@program()
def sampler_by_default(world: World) -> list[bool]:
    return _every_parent(world)


@program({"OTEL_TRACES_SAMPLER": "always_on"})
def sampler_always_on(world: World) -> list[bool]:
    return _every_parent(world)


@program({"OTEL_TRACES_SAMPLER": "always_off"})
def sampler_always_off(world: World) -> list[bool]:
    return _every_parent(world)


@program({"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "1.0"})
def sampler_ratio_of_all(world: World) -> list[bool]:
    return _every_parent(world)


@program({"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0"})
def sampler_ratio_of_none(world: World) -> list[bool]:
    return _every_parent(world)


@program({"OTEL_TRACES_SAMPLER": "parentbased_always_off"})
def sampler_parentbased_always_off(world: World) -> list[bool]:
    return _every_parent(world)


@program({"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0"})
def sampler_parentbased_ratio_of_none(world: World) -> list[bool]:
    return _every_parent(world)


@program({"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "nonsense"})
def sampler_ratio_that_is_no_number(world: World) -> list[bool]:
    return _every_parent(world)


@program({"OTEL_TRACES_SAMPLER": "Always_Off"})
def sampler_in_another_case(world: World) -> list[bool]:
    return _every_parent(world)


@program(
    {"OTEL_SERVICE_NAME": "shop", "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment=test,a=b%20c"}
)
def resource_by_environment(world: World) -> None:
    world.tracer.start_span("span").end()


@program({"OTEL_RESOURCE_ATTRIBUTES": "service.name=from the attributes, service.version = 1.2 "})
def service_name_by_resource_attributes(world: World) -> None:
    world.tracer.start_span("span").end()


@program(
    {"OTEL_RESOURCE_ATTRIBUTES": "a=environment,b=environment"},
    lambda names: {"resource": names.Resource.create({"b": "code", "service.name": "code"})},
)
def resource_by_code_and_environment(world: World) -> str:
    world.tracer.start_span("span").end()
    merged = world.provider.resource.merge(world.names.Resource({"b": "merged", "c": 1}))
    return f"{merged.attributes['a']} {merged.attributes['b']} {merged.attributes['c']}"


@program({"OTEL_SDK_DISABLED": "true"})
def everything_off(world: World) -> list[bool]:
    with world.tracer.start_as_current_span("not there") as span:
        return [span.is_recording(), span.get_span_context().is_valid]


@program({"OTEL_SDK_DISABLED": "1"})
def what_does_not_turn_it_off(world: World) -> bool:
    with world.tracer.start_as_current_span("there") as span:
        return span.is_recording()


class _Ids:
    """Ids 1, 2, 3, …, under the SDK as under tracekit."""

    def __init__(self) -> None:
        self._numbers = count(1)

    def generate_trace_id(self) -> int:
        return next(self._numbers)

    def generate_span_id(self) -> int:
        return next(self._numbers)

    def is_trace_id_random(self) -> bool:
        return False


@program(options=lambda names: {"id_generator": _Ids()})
def ids_of_its_own(world: World) -> list[int]:
    scope = world.tracer.start_as_current_span
    with scope("outer") as outer, scope("inner") as inner:
        contexts = [outer.get_span_context(), inner.get_span_context()]
    return [number for each in contexts for number in (each.trace_id, each.trace_flags)]


class _PickySampler:
    """Drop by name; write down what was asked, as attributes and trace state."""

    def __init__(self, names: Any) -> None:
        self._names = names

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: Any = None,
        attributes: Any = None,
        links: Sequence[Any] | None = None,
        *_more: Any,
    ) -> Any:
        decisions = self._names.Decision
        decision = {"drop": decisions.DROP, "record": decisions.RECORD_ONLY}.get(
            name, decisions.RECORD_AND_SAMPLE
        )
        added = {**(attributes or {}), "sampler.kind": kind.name, "sampler.links": len(links or ())}
        return self._names.SamplingResult(decision, added, TraceState([("picky", "yes")]))

    def get_description(self) -> str:
        return "Picky"


@program(options=lambda names: {"sampler": _PickySampler(names)})
def a_sampler_of_its_own(world: World) -> list[object]:
    seen: list[object] = []
    for name in ("keep", "drop", "record"):
        links = [Link(REMOTE)]
        with world.tracer.start_as_current_span(name, attributes={"a": 1}, links=links) as span:
            context = span.get_span_context()
            seen += [span.is_recording(), context.trace_flags.sampled]
            seen.append(context.trace_state.to_header())
            world.tracer.start_span(f"under {name}").end()
    return seen


def _enriching(names: Any) -> Any:
    class Enriching(names.SpanProcessor):
        def on_start(self, span: Any, parent_context: Context | None = None) -> None:
            span.set_attribute("enriched.at_start", True)
            span.update_name(f"{span.name}!")

    return Enriching()


@program()
def a_processor_of_its_own(world: World) -> list[str]:
    ended = []

    class Collecting(world.names.SpanProcessor):
        def on_end(self, span: Any) -> None:
            ended.append(span.name)

    world.provider.add_span_processor(_enriching(world.names))
    world.provider.add_span_processor(Collecting())
    with world.tracer.start_as_current_span("outer"):
        world.tracer.start_span("inner", attributes={"own": 1}).end()
    return ended


@program(options=lambda names: {"span_limits": names.SpanLimits(max_events=1)})
def limits_by_code(world: World) -> None:
    _full_span(world)


@program(options=lambda names: {"sampler": names.ParentBased(names.ALWAYS_OFF)})
def sampler_by_code(world: World) -> list[bool]:
    return _every_parent(world)


@program()
def after_shutdown(world: World) -> None:
    world.tracer.start_span("before").end()
    world.provider.force_flush()
    world.provider.shutdown()
    world.tracer.start_span("after").end()
