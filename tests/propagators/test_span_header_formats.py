"""B3, Jaeger, Datadog, X-Ray and OT: each format's own rules, and the packages that speak it."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import baggage, trace
from opentelemetry.context import Context
from opentelemetry.propagators.aws import AwsXRayPropagator
from opentelemetry.propagators.b3 import B3MultiFormat, B3SingleFormat
from opentelemetry.propagators.jaeger import JaegerPropagator
from opentelemetry.propagators.ot_trace import OTTracePropagator
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

OTHERS: dict[str, Any] = {
    "b3": B3SingleFormat,
    "b3multi": B3MultiFormat,
    "jaeger": JaegerPropagator,
    "xray": AwsXRayPropagator,
    "ottrace": OTTracePropagator,
}
T128 = "80f198ee56343ba864fe8b2a57d3eff7"
T64 = "64fe8b2a57d3eff7"
SPAN = "e457b5a2e4d86bd1"
PARENT = "05e3ac9a4f6e3b90"


def ours(name: str) -> Any:
    return importlib.import_module(f"tracekit.propagators.{name}").plugin()


def read(name: str, carrier: dict[str, str]) -> tuple[str, str, int] | None:
    span_context = trace.get_current_span(ours(name).extract(carrier)).get_span_context()
    if not span_context.is_valid:
        return None
    flags = int(span_context.trace_flags)
    return f"{span_context.trace_id:032x}", f"{span_context.span_id:016x}", flags


def passed_on(name: str, carrier: dict[str, str]) -> dict[str, str]:
    propagator = ours(name)
    sent: dict[str, str] = {}
    propagator.inject(sent, propagator.extract(carrier))
    return sent


def refused_by(name: str, carrier: dict[str, str]) -> dict[str, int]:
    propagator = ours(name)
    context = Context()
    assert propagator.extract(carrier, context) is context
    return dict(propagator.refused)


def context_with(trace_id: int, span_id: int, sampled: bool) -> Context:
    span = NonRecordingSpan(SpanContext(trace_id, span_id, False, TraceFlags(sampled)))
    return trace.set_span_in_context(span, Context())


@pytest.mark.parametrize("name", OTHERS)
@given(
    trace_id=st.integers(1, 2**64 - 1) | st.integers(2**64 + 1, 2**128 - 1),
    span_id=st.integers(1, 2**64 - 1),
    sampled=st.booleans(),
)
def test_both_implementations_understand_each_other(
    name: str, trace_id: int, span_id: int, sampled: bool
) -> None:
    if name == "ottrace":
        trace_id = trace_id % 2**64 or 1
    context = context_with(trace_id, span_id, sampled)
    for writer, reader in ((ours(name), OTHERS[name]()), (OTHERS[name](), ours(name))):
        carrier: dict[str, str] = {}
        writer.inject(carrier, context)
        found = trace.get_current_span(reader.extract(carrier)).get_span_context()
        assert (found.trace_id, found.span_id, found.trace_flags) == (trace_id, span_id, sampled)


@pytest.mark.parametrize("name", ["b3", "b3multi"])
@pytest.mark.parametrize(
    ("carrier", "expected"),
    [
        ({"b3": f"{T128}-{SPAN}-1-{PARENT}"}, (T128, SPAN, 1)),
        ({"b3": f"{T128}-{SPAN}-0"}, (T128, SPAN, 0)),
        ({"b3": f"{T128}-{SPAN}-d"}, (T128, SPAN, 1)),
        ({"b3": f"{T128}-{SPAN}"}, (T128, SPAN, 1)),
        ({"b3": f"{T64}-{SPAN}-1"}, ("0" * 16 + T64, SPAN, 1)),
        ({"X-B3-TraceId": T128, "X-B3-SpanId": SPAN, "X-B3-Sampled": "1"}, (T128, SPAN, 1)),
        ({"x-b3-traceid": T128, "x-b3-spanid": SPAN, "x-b3-sampled": "0"}, (T128, SPAN, 0)),
        ({"x-b3-traceid": T128, "x-b3-spanid": SPAN, "x-b3-sampled": "true"}, (T128, SPAN, 1)),
        ({"x-b3-traceid": T128, "x-b3-spanid": SPAN, "x-b3-sampled": "false"}, (T128, SPAN, 0)),
        ({"x-b3-traceid": T128, "x-b3-spanid": SPAN}, (T128, SPAN, 1)),
        ({"x-b3-traceid": T128, "x-b3-spanid": SPAN, "x-b3-flags": "1"}, (T128, SPAN, 1)),
        (
            {"b3": f"{T128}-{SPAN}-0", "x-b3-traceid": T64, "x-b3-spanid": PARENT},
            (T128, SPAN, 0),
        ),
        (
            {"b3": "bad-header", "x-b3-traceid": T128, "x-b3-spanid": SPAN, "x-b3-sampled": "1"},
            (T128, SPAN, 1),
        ),
    ],
)
def test_b3_reads_either_encoding(
    name: str, carrier: dict[str, str], expected: tuple[str, str, int]
) -> None:
    assert read(name, carrier) == expected


@pytest.mark.parametrize("name", ["b3", "b3multi"])
@pytest.mark.parametrize("decision", ["0", "1", "d"])
def test_b3_decision_without_ids_is_neither_parent_nor_error(name: str, decision: str) -> None:
    assert refused_by(name, {"b3": decision}) == {}
    assert refused_by(name, {"x-b3-sampled": decision}) == {}


@pytest.mark.parametrize("name", ["b3", "b3multi"])
@pytest.mark.parametrize(
    ("carrier", "reason"),
    [
        ({"b3": f"{T128}"}, "b3_fields"),
        ({"b3": f"{T128}-{SPAN}-1-{PARENT}-1"}, "b3_length"),
        ({"b3": "1-2-3-4-5"}, "b3_fields"),
        ({"b3": f"{T128}-{SPAN}-2"}, "b3_sampling_state"),
        ({"b3": f"{T128}-{SPAN}-true"}, "b3_sampling_state"),
        ({"b3": f"{'0' * 32}-{SPAN}-1"}, "b3_trace_id"),
        ({"b3": f"{T128}-{'0' * 16}-1"}, "b3_span_id"),
        ({"b3": f"{T128[1:]}-{SPAN}-1"}, "b3_trace_id"),
        ({"b3": f"{T128}-{SPAN[1:]}-1"}, "b3_span_id"),
        ({"b3": f"{T128}-{SPAN}-1-xyz"}, "b3_parent_span_id"),
        ({"b3": f"{T64}_-{SPAN}-1"}, "b3_trace_id"),
        ({"x-b3-traceid": T128}, "b3_span_id"),
        ({"x-b3-spanid": SPAN}, "b3_trace_id"),
        ({"x-b3-traceid": T128, "x-b3-spanid": SPAN, "x-b3-sampled": "yes"}, "b3_sampling_state"),
    ],
)
def test_b3_refuses(name: str, carrier: dict[str, str], reason: str) -> None:
    assert refused_by(name, carrier) == {reason: 1}


def test_b3_debug_is_passed_on() -> None:
    debug = f"{T128}-{SPAN}-d"
    assert passed_on("b3", {"b3": debug}) == {"b3": debug}
    assert passed_on("b3multi", {"b3": debug}) == {
        "x-b3-traceid": T128,
        "x-b3-spanid": SPAN,
        "x-b3-flags": "1",
    }


def test_b3_debug_ends_with_its_trace() -> None:
    propagator = ours("b3")
    context = propagator.extract({"b3": f"{T128}-{SPAN}-d"})
    other = NonRecordingSpan(SpanContext(1, 2, False, TraceFlags(1)))
    sent: dict[str, str] = {}
    propagator.inject(sent, trace.set_span_in_context(other, context))
    assert sent == {"b3": "0" * 31 + "1-" + "0" * 15 + "2-1"}


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (f"{T128}:{SPAN}:0:1", (T128, SPAN, 1)),
        (f"{T128}:{SPAN}:{PARENT}:01", (T128, SPAN, 1)),
        (f"{T128}:{SPAN}:0:0", (T128, SPAN, 0)),
        (f"{T128}:{SPAN}:0:3", (T128, SPAN, 1)),
        (f"{T128}:{SPAN}:0:2", (T128, SPAN, 1)),
        (f"{T128}:{SPAN}:0:8", (T128, SPAN, 0)),
        ("a:b:0:1", ("0" * 31 + "a", "0" * 15 + "b", 1)),
        (f"{T128}%3A{SPAN}%3A0%3A1", (T128, SPAN, 1)),
    ],
)
def test_jaeger_reads(header: str, expected: tuple[str, str, int]) -> None:
    assert read("jaeger", {"uber-trace-id": header}) == expected


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (f"{T128}:{SPAN}:0", "jaeger_fields"),
        (f"{T128}:{SPAN}:0:1:1", "jaeger_fields"),
        (f"0:{SPAN}:0:1", "jaeger_trace_id"),
        (f"{T128}:0:0:1", "jaeger_span_id"),
        (f"{T128}0:{SPAN}:0:1", "jaeger_trace_id"),
        (f"{T128}:{SPAN}:0:", "jaeger_flags"),
        (f"{T128}:{SPAN}:0:100", "jaeger_flags"),
        (f"{T128}:{SPAN}:0:g", "jaeger_flags"),
        ("0" * 100, "jaeger_length"),
    ],
)
def test_jaeger_refuses(header: str, reason: str) -> None:
    assert refused_by("jaeger", {"uber-trace-id": header}) == {reason: 1}


def test_jaeger_debug_is_passed_on() -> None:
    header = f"{T128}:{SPAN}:0:03"
    assert passed_on("jaeger", {"uber-trace-id": header}) == {"uber-trace-id": header}


@pytest.mark.parametrize(("name", "prefix"), [("jaeger", "uberctx-"), ("ottrace", "ot-baggage-")])
def test_baggage_travels_in_prefixed_headers(name: str, prefix: str) -> None:
    propagator = ours(name)
    context = baggage.set_baggage("user", "a b\u20ac", context_with(5, 6, True))
    context = baggage.set_baggage("bad key", "1", context)
    sent: dict[str, str] = {}
    propagator.inject(sent, context)
    assert [key for key in sent if key.startswith(prefix)] == [f"{prefix}user"]
    assert sent[f"{prefix}user"].isascii()
    shouted = {key.title() if key.startswith(prefix) else key: value for key, value in sent.items()}
    found = baggage.get_all(propagator.extract(shouted))
    assert {key.lower(): value for key, value in found.items()} == {"user": "a b\u20ac"}


@pytest.mark.parametrize(("name", "prefix"), [("jaeger", "uberctx-"), ("ottrace", "ot-baggage-")])
def test_prefixed_baggage_is_bounded_both_ways(name: str, prefix: str) -> None:
    propagator = ours(name)
    sent: dict[str, str] = {}
    propagator.inject(sent, context_with(5, 6, True))
    flood = {**{f"{prefix}k{n}": "x" * 100 for n in range(3000)}, **sent}
    found = propagator.extract(flood)
    assert 0 < sum(len(str(v)) for v in baggage.get_all(found).values()) <= 8192
    many = Context(found)
    for n in range(300):
        many = baggage.set_baggage(f"m{n}", "1", many)
    again: dict[str, str] = {}
    propagator.inject(again, many)
    assert len(again) <= 180 + len(sent)


def test_datadog_writes_decimal_ids_and_the_upper_half_as_tag() -> None:
    sent: dict[str, str] = {}
    ours("datadog").inject(sent, context_with(int(T128, 16), int(SPAN, 16), True))
    assert sent == {
        "x-datadog-trace-id": str(int(T64, 16)),
        "x-datadog-parent-id": str(int(SPAN, 16)),
        "x-datadog-sampling-priority": "1",
        "x-datadog-tags": "_dd.p.tid=80f198ee56343ba8",
    }


def test_datadog_passes_on_what_it_does_not_use() -> None:
    carrier = {
        "x-datadog-trace-id": "8330054363468631196",
        "x-datadog-parent-id": "6375191779022861325",
        "x-datadog-sampling-priority": "2",
        "x-datadog-tags": "_dd.p.tid=66c4e3e900000000,_dd.p.dm=-4",
        "x-datadog-origin": "synthetics",
    }
    assert passed_on("datadog", carrier) == carrier


@pytest.mark.parametrize(
    ("priority", "sampled"), [("-1", 0), ("0", 0), ("1", 1), ("2", 1), (None, 1)]
)
def test_datadog_priority_above_zero_is_sampled(priority: str | None, sampled: int) -> None:
    carrier = {"x-datadog-trace-id": "1", "x-datadog-parent-id": "2"}
    if priority is not None:
        carrier["x-datadog-sampling-priority"] = priority
    assert read("datadog", carrier) == ("0" * 31 + "1", "0" * 15 + "2", sampled)


def test_datadog_priority_of_a_user_does_not_outlive_our_other_decision() -> None:
    propagator = ours("datadog")
    carrier = {
        "x-datadog-trace-id": "1",
        "x-datadog-parent-id": "2",
        "x-datadog-sampling-priority": "2",
    }
    dropped = NonRecordingSpan(SpanContext(1, 3, False, TraceFlags(0)))
    sent: dict[str, str] = {}
    propagator.inject(sent, trace.set_span_in_context(dropped, propagator.extract(carrier)))
    assert sent["x-datadog-sampling-priority"] == "0"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"x-datadog-trace-id": "0"}, "datadog_trace_id"),
        ({"x-datadog-trace-id": "-1"}, "datadog_trace_id"),
        ({"x-datadog-trace-id": "1_0"}, "datadog_trace_id"),
        ({"x-datadog-trace-id": str(2**64)}, "datadog_trace_id"),
        ({"x-datadog-trace-id": "\u0661"}, "datadog_trace_id"),
        ({"x-datadog-parent-id": "0"}, "datadog_parent_id"),
        ({"x-datadog-parent-id": "abc"}, "datadog_parent_id"),
        ({"x-datadog-sampling-priority": "x"}, "datadog_sampling_priority"),
        ({"x-datadog-sampling-priority": "10000"}, "datadog_sampling_priority"),
    ],
)
def test_datadog_refuses(change: dict[str, str], reason: str) -> None:
    carrier = {"x-datadog-trace-id": "1", "x-datadog-parent-id": "2", **change}
    assert refused_by("datadog", carrier) == {reason: 1}


@pytest.mark.parametrize(
    "extra",
    [
        {"x-datadog-tags": "_dd.p.tid=XYZ"},
        {"x-datadog-tags": "_dd.p.tid=" + "f" * 1000},
        {"x-datadog-tags": "other=1,,=,_dd.p.="},
        {"x-datadog-tags": "\ud800"},
        {"x-datadog-origin": "a\r\nb"},
        {"x-datadog-origin": "x" * 1000},
    ],
)
def test_datadog_drops_bad_extras_and_keeps_the_parent(extra: dict[str, str]) -> None:
    carrier = {"x-datadog-trace-id": "1", "x-datadog-parent-id": "2"}
    assert read("datadog", {**carrier, **extra}) == ("0" * 31 + "1", "0" * 15 + "2", 1)
    sent = passed_on("datadog", {**carrier, **extra})
    assert set(sent) == {*carrier, "x-datadog-sampling-priority"}


XRAY_ROOT = f"Root=1-{T128[:8]}-{T128[8:]}"


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (f"{XRAY_ROOT};Parent={SPAN};Sampled=1", (T128, SPAN, 1)),
        (f"Sampled=0; Parent={SPAN} ; {XRAY_ROOT}", (T128, SPAN, 0)),
        (f"Self=1-x;{XRAY_ROOT};Parent={SPAN};Sampled=1;Lineage=a:1|b:2;Odd", (T128, SPAN, 1)),
        (f"{XRAY_ROOT};Parent={SPAN};Sampled=?", (T128, SPAN, 0)),
        (f"{XRAY_ROOT};Parent={SPAN}", (T128, SPAN, 0)),
    ],
)
def test_xray_reads(header: str, expected: tuple[str, str, int]) -> None:
    assert read("xray", {"x-amzn-trace-id": header}) == expected


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (f"Root=2-{T128[:8]}-{T128[8:]};Parent={SPAN};Sampled=1", "xray_root"),
        (f"Root=1-{T128[:9]}-{T128[9:]};Parent={SPAN};Sampled=1", "xray_root"),
        (f"Root=1-{'0' * 8}-{'0' * 24};Parent={SPAN};Sampled=1", "xray_root"),
        (f"Parent={SPAN};Sampled=1", "xray_root"),
        (f"{XRAY_ROOT};Parent={'0' * 16};Sampled=1", "xray_parent"),
        (f"{XRAY_ROOT};Parent=12;Sampled=1", "xray_parent"),
        (f"{XRAY_ROOT};Parent={SPAN};Sampled=yes", "xray_sampled"),
        ("Self=" + "x" * 2000, "xray_length"),
    ],
)
def test_xray_refuses(header: str, reason: str) -> None:
    assert refused_by("xray", {"X-Amzn-Trace-Id": header}) == {reason: 1}


def test_xray_root_without_parent_is_no_error() -> None:
    assert refused_by("xray", {"X-Amzn-Trace-Id": XRAY_ROOT}) == {}


def test_ottrace_sends_the_lower_half_of_a_trace_id() -> None:
    sent: dict[str, str] = {}
    ours("ottrace").inject(sent, context_with(int(T128, 16), int(SPAN, 16), True))
    assert sent["ot-tracer-traceid"] == T64


def test_ottrace_sends_nothing_when_the_lower_half_is_no_id() -> None:
    sent: dict[str, str] = {}
    ours("ottrace").inject(sent, context_with(1 << 64, int(SPAN, 16), True))
    assert sent == {}
