"""Every sampler of the folder keeps to the contract, new ones too."""

from __future__ import annotations

import pytest
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, TraceState

from tracekit import discovery
from tracekit.sdk import Decision, TracerProvider

# ParentBased is not made by its name: it goes in front of another one's.
NAMES = [name for name in discovery.own_names("sampler") if name != "parentbased"]

each = pytest.mark.parametrize("name", NAMES)


def made(name):
    return discovery.find("sampler", name).from_argument(None)


@each
def test_it_can_be_made_without_an_argument_and_says_what_it_is(name):
    sampler = made(name)
    assert sampler.get_description()
    assert repr(sampler) == sampler.get_description()


@each
def test_it_decides_whatever_is_left_out(name):
    result = made(name).should_sample(None, 1, "n")
    assert isinstance(result.decision, Decision)


@each
def test_other_peoples_trace_state_is_passed_on(name):
    parent = SpanContext(7, 8, True, TraceFlags(1), TraceState([("vendor", "value")]))
    context = trace.set_span_in_context(NonRecordingSpan(parent), Context())
    result = made(name).should_sample(context, 7, "n", None, {}, ())
    assert result.trace_state.get("vendor") == "value"


@each
def test_a_tracer_can_use_it(name):
    tracer = TracerProvider(sampler=made(name), shutdown_on_exit=False).get_tracer("t")
    with tracer.start_as_current_span("root") as root:
        assert root.get_span_context().is_valid
