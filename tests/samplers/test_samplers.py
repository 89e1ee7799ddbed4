"""Samplers decide as the specification says, and the same way in every service."""

from __future__ import annotations

import random
import time

import pytest
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, TraceState

from tracekit.errors import InvalidValueError
from tracekit.propagators.tracecontext import TraceContextPropagator
from tracekit.sdk import (
    ALWAYS_OFF,
    ALWAYS_ON,
    DEFAULT_OFF,
    DEFAULT_ON,
    Decision,
    ParentBased,
    ParentBasedTraceIdRatio,
    TraceIdRatioBased,
    TracerProvider,
)

STATE = TraceState([("vendor", "value")])


def under(*, sampled, remote):
    parent = SpanContext(7, 8, remote, TraceFlags(sampled), STATE)
    return trace.set_span_in_context(NonRecordingSpan(parent), Context())


def decision(sampler, context=None, trace_id=1):
    return sampler.should_sample(
        Context() if context is None else context, trace_id, "name"
    ).decision


def test_always_on_and_off():
    assert decision(ALWAYS_ON) is Decision.RECORD_AND_SAMPLE
    assert decision(ALWAYS_OFF) is Decision.DROP


@pytest.mark.parametrize("sampler", [ALWAYS_ON, ALWAYS_OFF, DEFAULT_ON, TraceIdRatioBased(0.5)])
def test_the_parents_trace_state_is_passed_on(sampler):
    context = under(sampled=True, remote=True)
    assert sampler.should_sample(context, 7, "name").trace_state == STATE


@pytest.mark.parametrize("remote", [True, False])
@pytest.mark.parametrize("sampled", [True, False])
@pytest.mark.parametrize("root", [ALWAYS_ON, ALWAYS_OFF])
def test_children_follow_their_parent_whatever_the_root_sampler_says(root, sampled, remote):
    expected = Decision.RECORD_AND_SAMPLE if sampled else Decision.DROP
    assert decision(ParentBased(root), under(sampled=sampled, remote=remote)) is expected


class _Asked(ParentBased):
    """One that may decide otherwise, so that it is asked about each."""

    def should_sample(self, *args, **kwargs):
        return super().should_sample(*args, **kwargs)


def told_below(sampler, parent):
    """Return what a span says that starts below `parent`."""
    return told_in(sampler, trace.set_span_in_context(NonRecordingSpan(parent), Context()))


def told_in(sampler, context):
    tracer = TracerProvider(sampler=sampler, shutdown_on_exit=False).get_tracer("test")
    span = tracer.start_span("name", context)
    span_context = span.get_span_context()
    return (
        span.is_recording(),
        span_context.trace_id,
        int(span_context.trace_flags),
        span_context.trace_state,
        getattr(span, "parent", None),
    )


@pytest.mark.parametrize("remote", [True, False])
@pytest.mark.parametrize("flags", [0, 1, 2, 3, 0xFF])
@pytest.mark.parametrize("state", [None, TraceState(), STATE, TraceState([("ot", "th:c")])])
def test_a_sampler_that_follows_a_remote_parent_need_not_be_asked(state, flags, remote):
    parent = SpanContext(7 << 64, 8, remote, TraceFlags(flags), state)
    assert DEFAULT_ON.follows_remote_parent
    assert not _Asked(ALWAYS_ON).follows_remote_parent
    assert told_below(DEFAULT_ON, parent) == told_below(_Asked(ALWAYS_ON), parent)


@pytest.mark.parametrize("flags", ["00", "01", "02", "03", "ff"])
@pytest.mark.parametrize("state", [{}, {"tracestate": "vendor=value"}, {"tracestate": "=bad="}])
def test_a_sampler_that_follows_a_caller_need_not_be_asked(state, flags):
    headers = {"traceparent": f"00-{7 << 64:032x}-{8:016x}-{flags}", **state}
    told = [
        told_in(sampler, TraceContextPropagator().extract(headers, Context()))
        for sampler in (DEFAULT_ON, _Asked(ALWAYS_ON))
    ]
    assert told[0] == told[1]
    assert told[0][0] is (flags in ("01", "03", "ff"))


def test_times_below_a_caller_are_those_of_the_wall_clock():
    headers = {"traceparent": f"00-{7 << 64:032x}-{8:016x}-01"}
    context = TraceContextPropagator().extract(headers, Context())
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("test")
    before = time.time_ns()
    spans = [tracer.start_span(name, context) for name in ("one", "two", "three")]
    assert all(abs(span.start_time - before) < 1_000_000_000 for span in spans)
    assert len({span.get_span_context().span_id for span in spans}) == 3


def test_a_sampler_with_one_of_its_own_for_remote_parents_is_asked():
    sampler = ParentBased(ALWAYS_ON, remote_parent_sampled=ALWAYS_OFF)
    assert not sampler.follows_remote_parent
    assert not told_below(sampler, SpanContext(7, 8, True, TraceFlags(1)))[0]


def test_roots_are_the_root_samplers():
    assert decision(DEFAULT_ON) is Decision.RECORD_AND_SAMPLE
    assert decision(DEFAULT_OFF) is Decision.DROP


def test_each_kind_of_parent_can_have_a_sampler_of_its_own():
    sampler = ParentBased(
        ALWAYS_OFF,
        remote_parent_sampled=ALWAYS_OFF,
        remote_parent_not_sampled=ALWAYS_ON,
        local_parent_sampled=ALWAYS_OFF,
        local_parent_not_sampled=ALWAYS_ON,
    )
    for remote in (True, False):
        assert decision(sampler, under(sampled=True, remote=remote)) is Decision.DROP
        kept = decision(sampler, under(sampled=False, remote=remote))
        assert kept is Decision.RECORD_AND_SAMPLE


def test_own_samplers_for_local_parents_are_asked_by_the_tracer():
    sampler = ParentBased(ALWAYS_ON, local_parent_sampled=ALWAYS_OFF)
    tracer = TracerProvider(sampler=sampler, shutdown_on_exit=False).get_tracer("t")
    with tracer.start_as_current_span("root") as root:
        child = tracer.start_span("child")
        assert root.is_recording()
    assert not child.is_recording()


@pytest.mark.parametrize("ratio", [0.0, 0.1, 0.5, 1.0])
def test_the_ratio_is_the_share_that_is_kept(ratio):
    generator = random.Random(1)
    ids = [generator.getrandbits(128) for _ in range(10_000)]
    sampler = TraceIdRatioBased(ratio)
    kept = sum(decision(sampler, trace_id=trace_id) is not Decision.DROP for trace_id in ids)
    assert abs(kept / len(ids) - ratio) < 0.02


def test_a_higher_ratio_keeps_all_that_a_lower_one_keeps():
    generator = random.Random(2)
    for _ in range(2_000):
        trace_id = generator.getrandbits(128)
        if decision(TraceIdRatioBased(0.2), trace_id=trace_id) is not Decision.DROP:
            assert decision(TraceIdRatioBased(0.3), trace_id=trace_id) is not Decision.DROP


def test_only_the_random_bits_decide():
    """https://opentelemetry.io/docs/specs/otel/trace/tracestate-probability-sampling/: 56 bits."""
    sampler = TraceIdRatioBased(0.5)
    assert decision(sampler, trace_id=(1 << 55)) is Decision.RECORD_AND_SAMPLE
    assert decision(sampler, trace_id=(1 << 55) - 1) is Decision.DROP
    assert decision(sampler, trace_id=(1 << 127) | 1) is Decision.DROP


@pytest.mark.parametrize("rate", [-0.1, 1.1, float("nan"), float("inf")])
def test_a_rate_outside_of_0_to_1_is_refused(rate):
    with pytest.raises(InvalidValueError, match=r"from 0\.0 to 1\.0"):
        TraceIdRatioBased(rate)


@pytest.mark.parametrize(
    ("argument", "rate"),
    [(None, 1.0), ("", 1.0), ("0", 0.0), (0, 0.0), (0.25, 0.25), (" 0.25 ", 0.25), ("1e-3", 0.001)],
)
def test_the_argument_is_read_as_a_number(argument, rate):
    assert TraceIdRatioBased.from_argument(argument).rate == rate


@pytest.mark.parametrize("argument", ["half", "-1", "nan", [0.5], "1.5"])
def test_an_argument_that_is_no_rate_is_refused(argument):
    with pytest.raises(InvalidValueError):
        TraceIdRatioBased.from_argument(argument)


def test_descriptions_say_the_settings():
    assert ALWAYS_ON.get_description() == "AlwaysOnSampler"
    assert ALWAYS_OFF.get_description() == "AlwaysOffSampler"
    assert TraceIdRatioBased(0.0001).get_description() == "TraceIdRatioBased{0.000100}"
    assert ParentBasedTraceIdRatio(0.5).get_description() == (
        "ParentBased{root:TraceIdRatioBased{0.500000},"
        "remoteParentNotSampled:AlwaysOffSampler,remoteParentSampled:AlwaysOnSampler,"
        "localParentNotSampled:AlwaysOffSampler,localParentSampled:AlwaysOnSampler}"
    )


class Odd:
    """A sampler whose answer is what it is told to be."""

    def __init__(self, answer):
        self.answer = answer

    def should_sample(self, *arguments):
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def get_description(self):
        return "odd"


@pytest.mark.parametrize("answer", [None, 5, "yes", ValueError("no"), object()])
def test_a_sampler_that_fails_or_answers_nonsense_drops_and_harms_nobody(answer, caplog):
    tracer = TracerProvider(sampler=Odd(answer), shutdown_on_exit=False).get_tracer("t")
    with tracer.start_as_current_span("a") as span:
        assert not span.is_recording()
    assert not tracer.start_span("b").is_recording()
    assert trace.get_current_span() is trace.INVALID_SPAN


def test_attributes_of_the_sampler_are_recorded():
    from tracekit.sdk import SamplingResult

    sampler = Odd(SamplingResult(Decision.RECORD_AND_SAMPLE, {"sampler": "odd"}))
    tracer = TracerProvider(sampler=sampler, shutdown_on_exit=False).get_tracer("t")
    with tracer.start_as_current_span("a", attributes={"own": 1}) as span:
        assert dict(span.attributes) == {"own": 1, "sampler": "odd"}


def test_record_only_is_recorded_and_not_sampled():
    from tracekit.sdk import SamplingResult

    tracer = TracerProvider(
        sampler=Odd(SamplingResult(Decision.RECORD_ONLY)), shutdown_on_exit=False
    ).get_tracer("t")
    span = tracer.start_span("a")
    assert span.is_recording()
    assert not span.get_span_context().trace_flags.sampled


def test_samplers_of_the_sdk_plug_in():
    from opentelemetry.sdk.trace import sampling

    tracer = TracerProvider(sampler=sampling.DEFAULT_ON, shutdown_on_exit=False).get_tracer("t")
    assert tracer.start_span("a").get_span_context().trace_flags.sampled
    tracer = TracerProvider(sampler=sampling.ALWAYS_OFF, shutdown_on_exit=False).get_tracer("t")
    assert not tracer.start_span("a").is_recording()
