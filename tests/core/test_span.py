"""What a span records while it is open, and how it reads once it has ended."""

from __future__ import annotations

import collections
import json
import time
import types

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan as SdkReadableSpan
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from tracekit.sdk import (
    InMemorySpanExporter,
    Resource,
    SimpleSpanProcessor,
    SpanLimits,
    TracerProvider,
)
from tracekit.testing import ManualClock, SequentialIdGenerator


@pytest.fixture
def exporter():
    return InMemorySpanExporter()


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def make_tracer(exporter, clock):
    def make(**options):
        options.setdefault("id_generator", SequentialIdGenerator())
        provider = TracerProvider(clock=clock.clock, shutdown_on_exit=False, **options)
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        return provider.get_tracer("shop", "1.2", "https://schema", {"team": "cart"})

    return make


@pytest.fixture
def tracer(make_tracer):
    return make_tracer()


def test_a_trace_reads_as_literal_data(tracer, exporter, clock):
    with tracer.start_as_current_span("checkout", kind=SpanKind.SERVER) as root:
        clock.advance(1)
        with tracer.start_as_current_span("pay", attributes={"amount": 12.5}):
            clock.advance(2)
        root.set_attribute("items", 3)
    pay, checkout = exporter.get_finished_spans()
    start = 1_700_000_000_000_000_000
    assert (checkout.name, checkout.kind, checkout.parent) == ("checkout", SpanKind.SERVER, None)
    assert (checkout.context.trace_id, checkout.context.span_id) == (1, 1)
    assert (checkout.start_time, checkout.end_time) == (start, start + 3_000_000_000)
    assert dict(checkout.attributes) == {"items": 3}
    assert (pay.context.trace_id, pay.context.span_id, pay.parent.span_id) == (1, 2, 1)
    assert pay.start_time == start + 1_000_000_000
    assert dict(pay.attributes) == {"amount": 12.5}


def test_scope_and_resource_are_those_of_tracer_and_provider(make_tracer, exporter):
    make_tracer(resource=Resource({"service.name": "s"})).start_span("x").end()
    (span,) = exporter.get_finished_spans()
    scope = span.instrumentation_scope
    assert (scope.name, scope.version, scope.schema_url) == ("shop", "1.2", "https://schema")
    assert scope.attributes == {"team": "cart"}
    assert span.resource.attributes == {"service.name": "s"}


def test_ended_span_has_every_name_of_the_sdks_readable_span(tracer, exporter):
    tracer.start_span("x").end()
    (span,) = exporter.get_finished_spans()
    public = {name for name in dir(SdkReadableSpan) if not name.startswith("_")}
    missing = {name for name in public - {"instrumentation_info"} if not hasattr(span, name)}
    assert missing == set()


def test_dropped_span_has_the_same_readable_names(exporter):
    tracer = TracerProvider(sampler=_sampler("always_off"), shutdown_on_exit=False).get_tracer("t")
    span = tracer.start_span("x")
    names = "name context parent kind status start_time end_time attributes events links resource"
    for name in f"{names} instrumentation_scope dropped_attributes to_json".split():
        assert hasattr(span, name), name
    assert json.loads(span.to_json())["name"] == "x"


def _sampler(name):
    from tracekit._head import sampler_of as make
    from tracekit.settings import Setting

    return make({"sampler": Setting(name, "argument")})


def test_to_json_is_what_the_sdk_prints(tracer, exporter):
    with tracer.start_as_current_span("x", attributes={"a": (1, 2)}) as span:
        span.add_event("e", {"k": "v"}, timestamp=5)
    document = json.loads(exporter.get_finished_spans()[0].to_json())
    assert set(document) == {
        *("name context kind parent_id start_time end_time status attributes events").split(),
        *("links resource").split(),
    }
    assert document["attributes"] == {"a": [1, 2]}
    assert document["kind"] == "SpanKind.INTERNAL"
    assert document["context"]["trace_id"] == "0x" + "0" * 31 + "1"


@pytest.mark.parametrize(
    "together",
    [
        {},
        {"a": 1, "start": "again"},
        {"a": [1], "b": {"c": 2}},
        {"a": 1, "b": "x", "c": 2.5, "d": None},
        types.MappingProxyType({"a": 1, "b": 2, "c": 3}),
    ],
)
@pytest.mark.parametrize("at_start", [None, {"start": 1}])
def test_attributes_set_together_are_as_if_set_one_by_one(
    make_tracer, exporter, together, at_start
):
    tracer = make_tracer(span_limits=SpanLimits(max_span_attributes=3))
    one, other, last = (tracer.start_span("x", attributes=at_start) for _ in range(3))
    for key, value in together.items():
        one.set_attribute(key, value)
    one.end()
    given = {**together}
    other.set_attributes(given if type(together) is dict else together)
    other.end()
    last.end(None, given if type(together) is dict else together)
    given["late"] = "not recorded"
    first, *others = exporter.get_finished_spans()
    assert len(others) == 2
    for span in others:
        assert dict(span.attributes) == dict(first.attributes)
        assert span.dropped_attributes == first.dropped_attributes


def test_writes_after_the_end_change_nothing_and_are_counted(tracer, exporter):
    span = tracer.start_span("before")
    span.end()
    span.set_attribute("a", 1)
    span.set_attributes({"b": 1})
    span.add_event("e")
    span.add_link(SpanContext(1, 1, False))
    span.update_name("after")
    span.set_status(StatusCode.ERROR)
    span.record_exception(ValueError())
    span.end(99)
    span.end(99, {"c": 1})
    (ended,) = exporter.get_finished_spans()
    assert ended.name == "before"
    assert (dict(ended.attributes), ended.events, ended.links) == ({}, (), ())
    assert ended.status.status_code is StatusCode.UNSET
    assert tracer.binding.tracer is tracer
    assert not span.is_recording()


@pytest.mark.parametrize(
    ("calls", "expected"),
    [
        ([StatusCode.ERROR], StatusCode.ERROR),
        ([StatusCode.ERROR, StatusCode.OK], StatusCode.OK),
        ([StatusCode.OK, StatusCode.ERROR], StatusCode.OK),
        ([StatusCode.ERROR, StatusCode.UNSET], StatusCode.ERROR),
        ([Status(StatusCode.ERROR, "why")], StatusCode.ERROR),
        (["nonsense", None], StatusCode.UNSET),
    ],
)
def test_status_precedence(tracer, exporter, calls, expected):
    span = tracer.start_span("x")
    for call in calls:
        span.set_status(call)
    span.end()
    assert exporter.get_finished_spans()[0].status.status_code is expected


def test_description_is_kept_for_errors_only(tracer, exporter):
    for code in (StatusCode.ERROR, StatusCode.OK):
        span = tracer.start_span("x")
        span.set_status(code, "because")
        span.end()
    error, ok = exporter.get_finished_spans()
    assert (error.status.description, ok.status.description) == ("because", None)


def test_explicit_times_are_kept_to_the_nanosecond(tracer, exporter):
    span = tracer.start_span("x", start_time=1_000_000_001)
    span.add_event("e", timestamp=1_000_000_002)
    span.end(end_time=1_000_000_003)
    (ended,) = exporter.get_finished_spans()
    assert (ended.start_time, ended.end_time) == (1_000_000_001, 1_000_000_003)
    assert ended.events[0].timestamp == 1_000_000_002


def test_child_nests_in_its_parent_when_the_wall_clock_is_set_back(tracer, exporter, clock):
    with tracer.start_as_current_span("parent"):
        clock.advance(1)
        clock.step_wall_clock(-3600)
        with tracer.start_as_current_span("child"):
            clock.advance(1)
    child, parent = exporter.get_finished_spans()
    assert parent.start_time <= child.start_time <= child.end_time <= parent.end_time


def test_a_root_begins_at_the_time_to_which_the_wall_clock_was_set(tracer, exporter, clock):
    with tracer.start_as_current_span("before"):
        pass
    clock.step_wall_clock(-3600)
    with tracer.start_as_current_span("after"):
        pass
    before, after = exporter.get_finished_spans()
    assert after.start_time == before.start_time - 3_600_000_000_000


def test_roots_by_the_dozen_keep_to_the_system_clock(exporter):
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = provider.get_tracer("shop")
    readings = []
    until = time.perf_counter_ns() + 5_000_000  # several times as long as roots share a reading
    while time.perf_counter_ns() < until:
        readings.append(time.time_ns())
        with tracer.start_as_current_span("root"):
            pass
    readings.append(time.time_ns())
    # Between the two clocks of one reading the machine may do something else.
    late = 1_000_000_000
    for number, span in enumerate(exporter.get_finished_spans()):
        assert readings[number] - late <= span.start_time <= span.end_time
        assert span.end_time <= readings[number + 1] + late


GIVEN = {
    "a literal": lambda items: {"plain": 1, "items": items},
    "dict() of names": lambda items: dict(plain=1, items=items),  # noqa: C408
    "dict() of pairs": lambda items: dict(zip(("plain", "items"), (1, items), strict=True)),
    "fromkeys": lambda items: dict.fromkeys(("items",), items),
    "a copy": lambda items: {"items": items}.copy(),
    "a union": lambda items: {"plain": 1} | {"items": items},
    "an update": lambda items: _filled({"plain": 1}, items),
    "set by key": lambda items: _set({"plain": 1}, items),
    "a subclass": lambda items: collections.OrderedDict(plain=1, items=items),
    "no dictionary": lambda items: types.MappingProxyType({"items": items}),
}


def _filled(target, items):
    target.update(items=items)
    return target


def _set(target, items):
    target["items"] = items
    return target


@pytest.mark.parametrize("start", ["start_span", "start_as_current_span"])
@pytest.mark.parametrize("given", GIVEN)
@pytest.mark.parametrize(
    ("made", "change", "expected"),
    [
        (lambda: ["a"], lambda items: items.append("b"), ("a",)),
        (lambda: {"a": 1}, lambda items: items.update(b=2), {"a": 1}),
        (lambda: {"a"}, lambda items: items.add("b"), ("a",)),
    ],
    ids=["list", "dict", "set"],
)
def test_a_container_given_at_the_start_says_what_it_held_then(
    tracer, exporter, start, given, made, change, expected
):
    items = made()
    with getattr(tracer, start)("work", attributes=GIVEN[given](items)):
        change(items)
    (span,) = exporter.get_finished_spans()
    assert span.attributes["items"] == expected


def test_explicit_context_is_the_parent_whatever_is_current(tracer, exporter):
    other = tracer.start_span("other")
    with tracer.start_as_current_span("current"):
        context = trace.set_span_in_context(other)
        with tracer.start_as_current_span("inner", context=context) as inner:
            assert trace.get_current_span() is inner
    assert exporter.get_finished_spans()[0].parent.span_id == other.get_span_context().span_id


def test_links_are_kept_in_order_before_and_after_the_start(tracer, exporter):
    contexts = [SpanContext(7, number, True, TraceFlags(1)) for number in (1, 2, 3)]
    span = tracer.start_span("x", links=[Link(contexts[0], {"a": 1}), Link(contexts[1])])
    span.add_link(contexts[2])
    span.add_link(SpanContext(0, 0, False))  # says nothing
    span.end()
    (ended,) = exporter.get_finished_spans()
    assert [link.context for link in ended.links] == contexts
    assert dict(ended.links[0].attributes) == {"a": 1}


def test_limits_drop_what_is_too_much_and_count_it(make_tracer, exporter):
    limits = SpanLimits(
        max_span_attributes=2, max_events=1, max_links=1, max_event_attributes=1,
        max_link_attributes=1, max_attribute_length=3,
    )  # fmt: skip
    tracer = make_tracer(span_limits=limits)
    span = tracer.start_span("x", attributes={"a": "12345", "b": 1, "c": 2})
    span.set_attribute("d", 1)
    span.set_attribute("a", "67890")
    for number in range(3):
        span.add_event(str(number), {"x": "12345", "y": 1})
        span.add_link(SpanContext(1, number + 1, False), {"x": 1, "y": 2})
    span.end()
    (ended,) = exporter.get_finished_spans()
    assert dict(ended.attributes) == {"a": "678", "b": 1}
    assert (ended.dropped_attributes, ended.dropped_events, ended.dropped_links) == (2, 2, 2)
    assert [event.name for event in ended.events] == ["2"]
    assert (dict(ended.events[0].attributes), ended.events[0].dropped_attributes) == (
        {"x": "123"},
        1,
    )
    assert ended.links[0].dropped_attributes == 1


def test_a_list_changed_after_it_was_recorded_is_recorded_as_it_was(tracer, exporter):
    at_start, later = [1], {"k": 1}
    span = tracer.start_span("x", attributes={"at_start": at_start})
    span.set_attribute("later", later)
    at_start.append(2)
    later.clear()
    span.end()
    assert dict(exporter.get_finished_spans()[0].attributes) == {
        "at_start": (1,),
        "later": {"k": 1},
    }


def test_unfit_keys_and_arguments_cost_themselves_only(tracer, exporter):
    span = tracer.start_span("x", attributes={1: "a", "": "b", "ok": 1})
    span.set_attribute([], "unhashable")
    span.set_attributes(42)
    span.end()
    (ended,) = exporter.get_finished_spans()
    assert dict(ended.attributes) == {"ok": 1}
    assert ended.dropped_attributes == 4


def test_exception_leaving_the_block_is_recorded_and_goes_on(tracer, exporter):
    error = ValueError("no")
    with pytest.raises(ValueError, match="no") as caught, tracer.start_as_current_span("x"):
        raise error
    assert caught.value is error
    (ended,) = exporter.get_finished_spans()
    (event,) = ended.events
    assert event.attributes["exception.type"] == "ValueError"
    assert "raise error" in event.attributes["exception.stacktrace"]
    assert (ended.status.status_code, ended.status.description) == (
        StatusCode.ERROR,
        "ValueError: no",
    )


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_leaving_on_purpose_is_not_an_error(tracer, exporter, kind):
    with pytest.raises(kind), tracer.start_as_current_span("x"):
        raise kind
    (ended,) = exporter.get_finished_spans()
    assert (ended.events, ended.status.status_code) == ((), StatusCode.UNSET)


def test_options_switch_recording_of_exceptions_off(tracer, exporter):
    with (
        pytest.raises(ValueError, match="no"),
        tracer.start_as_current_span("x", record_exception=False, set_status_on_exception=False),
    ):
        raise ValueError("no")
    (ended,) = exporter.get_finished_spans()
    assert (ended.events, ended.status.status_code) == ((), StatusCode.UNSET)


def test_end_on_exit_false_leaves_the_span_open(tracer, exporter):
    with tracer.start_as_current_span("x", end_on_exit=False) as span:
        pass
    assert span.is_recording()
    assert exporter.get_finished_spans() == ()
    assert trace.get_current_span() is trace.INVALID_SPAN


def test_span_as_context_manager_ends_without_becoming_current(tracer, exporter):
    with pytest.raises(KeyError), tracer.start_span("x"):
        assert trace.get_current_span() is trace.INVALID_SPAN
        raise KeyError
    assert exporter.get_finished_spans()[0].status.status_code is StatusCode.ERROR


def test_causes_notes_and_groups_are_in_the_stack_trace(tracer, exporter):
    span = tracer.start_span("x")
    try:
        try:
            raise KeyError("root cause")
        except KeyError as cause:
            raise ValueError("outer") from cause
    except ValueError as error:
        if hasattr(error, "add_note"):
            error.add_note("a note")
        span.record_exception(error, {"extra": 1})
    span.end()
    attributes = exporter.get_finished_spans()[0].events[0].attributes
    assert "root cause" in attributes["exception.stacktrace"]
    assert attributes["extra"] == 1


def test_exception_whose_str_raises_is_recorded(tracer, exporter):
    class Rude(Exception):
        def __str__(self):
            raise RuntimeError("no message for you")

    with pytest.raises(Rude), tracer.start_as_current_span("x"):
        raise Rude
    (ended,) = exporter.get_finished_spans()
    assert "Rude" in ended.status.description
    assert "Rude" in ended.events[0].attributes["exception.type"]


def test_scope_as_decorator_makes_a_span_per_call(tracer, exporter):
    @tracer.start_as_current_span("call", attributes={"a": 1})
    def double(number):
        return number * 2

    assert [double(1), double(2)] == [2, 4]
    assert double.__name__ == "double"
    first, second = exporter.get_finished_spans()
    assert first.context.span_id != second.context.span_id
    assert dict(second.attributes) == {"a": 1}


def test_level_two_random_flag_is_set_for_random_ids_only(make_tracer):
    assert make_tracer(id_generator=None).start_span("x").context.trace_flags == 3
    assert make_tracer().start_span("x").context.trace_flags == 1


def test_children_of_a_dropped_root_are_dropped_in_the_same_trace():
    provider = TracerProvider(sampler=_sampler("parentbased_always_off"), shutdown_on_exit=False)
    tracer = provider.get_tracer("t")
    with tracer.start_as_current_span("root") as root, tracer.start_as_current_span("c") as child:
        parent, own = root.get_span_context(), child.get_span_context()
    assert not root.is_recording()
    assert isinstance(child, trace.NonRecordingSpan)
    assert (own.trace_id, own.trace_flags.sampled) == (parent.trace_id, False)
    assert own.span_id != parent.span_id
    assert own.span_id == child.get_span_context().span_id
    assert trace.get_current_span() is trace.INVALID_SPAN
    assert provider.stats()["sampled_out"] == 2


def test_dropped_scope_entered_under_a_sampled_parent_is_decided_there(make_tracer, exporter):
    tracer = make_tracer(sampler=_sampler("parentbased_always_off"), id_generator=None)
    scope = tracer.start_as_current_span("child")
    remote = SpanContext(5, 6, True, TraceFlags(1))
    from opentelemetry import context as context_api

    token = context_api.attach(trace.set_span_in_context(trace.NonRecordingSpan(remote)))
    with scope as span:
        assert span.is_recording()
    context_api.detach(token)
    assert exporter.get_finished_spans()[0].parent == remote


@pytest.mark.parametrize("ratio", [0.0, 0.25, 1.0])
def test_share_of_roots_is_the_ratio_whichever_way_they_are_started(ratio):
    from tracekit.sdk import ParentBasedTraceIdRatio

    provider = TracerProvider(sampler=ParentBasedTraceIdRatio(ratio), shutdown_on_exit=False)
    tracer = provider.get_tracer("t")
    kept = 0
    for _ in range(2000):
        with tracer.start_as_current_span("x") as span:
            kept += span.is_recording()
        kept += tracer.start_span("y").is_recording()
    assert abs(kept / 4000 - ratio) < 0.05
