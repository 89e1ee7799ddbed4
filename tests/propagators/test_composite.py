"""Several propagators as one: order, trust, and failures that stay where they are."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from opentelemetry import baggage, trace
from opentelemetry.context import Context, get_value
from opentelemetry.propagators.textmap import TextMapPropagator
from opentelemetry.trace import SpanContext, TraceFlags, TraceState

from tracekit._otel_context import with_span
from tracekit.propagators._composite import (
    UNTRUSTED_SPAN_CONTEXT_KEY,
    CompositePropagator,
    RemoteCaller,
    TrustPolicy,
)
from tracekit.propagators.b3 import B3SinglePropagator
from tracekit.propagators.baggage import BaggagePropagator
from tracekit.propagators.tracecontext import TraceContextPropagator
from tracekit.sdk import TracerProvider

W3C = {"traceparent": f"00-{'a' * 32}-{'b' * 16}-01"}
B3 = {"b3": f"{'c' * 32}-{'d' * 16}-1"}


class BrokenPropagator(TextMapPropagator):
    def inject(self, *args: Any, **kwargs: Any) -> None:
        raise RuntimeError("broken")

    def extract(self, *args: Any, **kwargs: Any) -> Context:
        raise RuntimeError("broken")

    @property
    def fields(self) -> set[str]:
        return {"broken"}


def composite(**options: Any) -> CompositePropagator:
    members = [TraceContextPropagator(), B3SinglePropagator(), BaggagePropagator()]
    return CompositePropagator(members, **options)


class _Inheriting(CompositePropagator):
    """May read more than its members do."""


@pytest.mark.parametrize(
    ("propagator", "headers"),
    [
        (
            CompositePropagator([TraceContextPropagator(), BaggagePropagator()]),
            ("traceparent", "tracestate", "baggage"),
        ),
        (CompositePropagator([BaggagePropagator()], order="first"), ("baggage",)),
        (CompositePropagator([BaggagePropagator()], []), ()),
        (CompositePropagator([BaggagePropagator()], trust=TrustPolicy()), None),
        (CompositePropagator([TraceContextPropagator(), B3SinglePropagator()]), None),
        (_Inheriting([BaggagePropagator()]), None),
    ],
)
def test_the_headers_that_are_read_are_named_where_that_is_known(
    propagator: CompositePropagator, headers: tuple[str, ...] | None
) -> None:
    assert propagator.reads == headers


def trace_digit(context: Context) -> str:
    return f"{trace.get_current_span(context).get_span_context().trace_id:032x}"[0]


@pytest.mark.parametrize(("order", "winner"), [("last", "c"), ("first", "a")])
def test_order_says_whose_trace_context_counts(order: Any, winner: str) -> None:
    assert trace_digit(composite(order=order).extract({**W3C, **B3})) == winner


@pytest.mark.parametrize("order", ["first", "last"])
@pytest.mark.parametrize(("carrier", "winner"), [(W3C, "a"), (B3, "c")])
def test_a_single_trace_context_is_found_in_any_order(
    order: Any, carrier: dict[str, str], winner: str
) -> None:
    assert trace_digit(composite(order=order).extract(carrier)) == winner


@pytest.mark.parametrize("order", ["first", "last"])
def test_baggage_is_taken_beside_the_trace_context(order: Any) -> None:
    context = composite(order=order).extract({**W3C, **B3, "baggage": "a=1"})
    assert baggage.get_all(context) == {"a": "1"}


def test_first_is_decided_among_the_remote_ones(context_of: Any) -> None:
    found = composite(order="first").extract(B3, context_of())
    assert trace_digit(found) == "c"


def test_lists_for_both_ways_may_differ(context_of: Any) -> None:
    propagator = CompositePropagator([TraceContextPropagator()], [B3SinglePropagator()])
    sent: dict[str, str] = {}
    propagator.inject(sent, context_of())
    assert set(sent) == {"traceparent"}
    assert propagator.extract(W3C) == Context()
    assert trace_digit(propagator.extract(B3)) == "c"


def test_fields_are_those_that_are_injected() -> None:
    propagator = CompositePropagator([TraceContextPropagator()], [B3SinglePropagator()])
    assert propagator.fields == {"traceparent", "tracestate"}


def test_nothing_to_extract_with_gives_an_empty_context() -> None:
    assert CompositePropagator([]).extract(W3C) == Context()


def test_given_context_comes_back_when_nothing_is_found() -> None:
    context = Context()
    assert composite(trust=TrustPolicy()).extract({}, context) is context


def test_a_failing_member_does_not_stop_the_others(
    context_of: Any, caplog: pytest.LogCaptureFixture
) -> None:
    propagator = CompositePropagator([BrokenPropagator(), TraceContextPropagator()])
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            sent: dict[str, str] = {}
            propagator.inject(sent, context_of())
            assert trace_digit(propagator.extract(W3C)) == "a"
    assert set(sent) == {"traceparent"}
    assert propagator.failed == {"BrokenPropagator": 6}
    assert len(caplog.records) == 1


def test_refusals_of_the_members_are_summed_once() -> None:
    propagator = composite()
    propagator.extract({"traceparent": "x", "baggage": "("})
    assert propagator.refused == {"traceparent_version": 1, "baggage_key": 1}


def test_untrusted_caller_becomes_a_link() -> None:
    context = composite(trust=TrustPolicy()).extract({**W3C, "baggage": "a=1"}, Context())
    assert not trace.get_current_span(context).get_span_context().is_valid
    kept = get_value(UNTRUSTED_SPAN_CONTEXT_KEY, context)
    assert isinstance(kept, trace.SpanContext)
    assert f"{kept.trace_id:032x}" == "a" * 32
    assert baggage.get_all(context) == {}


def test_untrusted_caller_leaves_nothing_when_ignored() -> None:
    given = Context()
    policy = TrustPolicy("ignore")
    assert composite(trust=policy).extract({**W3C, "baggage": "a=1"}, given) is given


def test_local_span_stays_the_parent_when_the_caller_is_not_trusted(context_of: Any) -> None:
    local = context_of()
    found = composite(trust=TrustPolicy()).extract(W3C, local)
    assert trace.get_current_span(found) is trace.get_current_span(local)


def test_trusted_caller_is_continued() -> None:
    def from_inside(caller: RemoteCaller) -> bool:
        return caller.header("x-internal") == "yes" and caller.span_context.is_valid

    propagator = composite(trust=TrustPolicy(trusts=from_inside))
    assert trace_digit(propagator.extract({**W3C, "X-Internal": "yes"})) == "a"
    assert trace_digit(propagator.extract(W3C)) == "0"


def test_a_policy_that_raises_trusts_nobody(caplog: pytest.LogCaptureFixture) -> None:
    def broken(caller: RemoteCaller) -> bool:
        raise RuntimeError("broken")

    context = composite(trust=TrustPolicy(trusts=broken)).extract(W3C)
    assert trace_digit(context) == "0"
    assert len(caplog.records) == 1


def test_a_member_that_names_its_key_is_asked_for_contexts_with_that_key_only() -> None:
    class Counting(BaggagePropagator):
        asked = 0

        def inject(self, *args: Any, **kwargs: Any) -> None:
            self.asked += 1
            super().inject(*args, **kwargs)

    member, carrier = Counting(), dict[str, str]()
    propagator = CompositePropagator([member])
    propagator.inject(carrier, Context())
    propagator.inject(carrier, baggage.set_baggage("user", "amy", Context()))
    assert (member.asked, carrier) == (1, {"baggage": "user=amy"})


class _CountsExtracts(BaggagePropagator):
    # Said anew, for a class that inherits from one that says it may read more.
    extracts_headers = BaggagePropagator.extracts_headers
    asked = 0

    def extract(self, *args: Any, **kwargs: Any) -> Context:
        self.asked += 1
        return super().extract(*args, **kwargs)


class _MayReadMore(_CountsExtracts):
    pass


@pytest.mark.parametrize("name", ["baggage", "Baggage"])
def test_a_member_that_names_its_header_is_asked_for_dictionaries_with_it_only(name: str) -> None:
    member = _CountsExtracts()
    propagator = CompositePropagator([TraceContextPropagator(), member])
    assert trace_digit(propagator.extract(W3C)) == trace_digit(propagator.extract(W3C, Context()))
    assert member.asked == 0
    context = propagator.extract({**W3C, name: "user=amy"})
    assert (member.asked, baggage.get_baggage("user", context)) == (1, "amy")


def test_a_member_that_names_its_header_finds_its_own_context_where_none_is_given() -> None:
    member = _CountsExtracts()
    CompositePropagator([member]).extract({})
    assert member.asked == 1


def test_a_member_that_inherits_the_name_of_a_header_is_always_asked() -> None:
    member = _MayReadMore()
    CompositePropagator([TraceContextPropagator(), member]).extract(W3C)
    assert member.asked == 1


class _Overriding(TraceContextPropagator):
    def inject(self, carrier: Any, *args: Any, **kwargs: Any) -> None:
        carrier["x"] = "y"


@pytest.mark.parametrize(
    "state", [TraceState(), TraceState([("vendor", "1")])], ids=["without a state", "with a state"]
)
@pytest.mark.parametrize(
    ("propagator", "is_brief"),
    [
        (CompositePropagator([TraceContextPropagator(), BaggagePropagator()]), True),
        (CompositePropagator([TraceContextPropagator()], []), True),
        (CompositePropagator([TraceContextPropagator(), B3SinglePropagator()]), False),
        (CompositePropagator([B3SinglePropagator()]), False),
        (CompositePropagator([_Overriding()]), False),
        (_Inheriting([TraceContextPropagator()]), False),
        (CompositePropagator([]), False),
    ],
)
def test_a_traceparent_that_is_told_alone_is_all_that_would_be_written(
    propagator: CompositePropagator, is_brief: bool, state: TraceState
) -> None:
    caller = trace.NonRecordingSpan(SpanContext(7, 9, True, TraceFlags(1), state))
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("t")
    span = tracer.start_span("x", trace.set_span_in_context(caller, Context()))
    written: dict[str, str] = {}
    propagator.inject(written, with_span(Context(), span))
    told = propagator.traceparent_of(span)
    assert told == (written["traceparent"] if is_brief and not state else None)
    assert told is None or list(written) == ["traceparent"]
    assert propagator.traceparent_of(caller) is None


@pytest.mark.parametrize(
    "header",
    [
        *(f"00-{'a' * 32}-{'b' * 16}-{flags}" for flags in ("00", "01", "03", "ff")),
        *("", "00", f"01-{'a' * 32}-{'b' * 16}-01-x", f"00-{'0' * 32}-{'b' * 16}-01"),
    ],
)
@pytest.mark.parametrize(
    ("propagator", "is_brief"),
    [
        (CompositePropagator([TraceContextPropagator(), BaggagePropagator()]), True),
        (CompositePropagator([], [BaggagePropagator(), TraceContextPropagator()]), True),
        (CompositePropagator([TraceContextPropagator()], []), False),
        (CompositePropagator([TraceContextPropagator(), BrokenPropagator()]), False),
        (CompositePropagator([TraceContextPropagator()], trust=TrustPolicy()), False),
        (CompositePropagator([TraceContextPropagator()], order="first"), False),
        (CompositePropagator([_Overriding()]), False),
        (_Inheriting([TraceContextPropagator()]), False),
    ],
)
def test_a_traceparent_that_is_read_alone_leads_where_extracting_it_does(
    propagator: CompositePropagator, is_brief: bool, header: str
) -> None:
    found = propagator.context_of(header)
    is_usual = is_brief and header.startswith(f"00-{'a' * 32}")
    assert (found is not None) is is_usual
    if found is not None:
        there = propagator.extract({"traceparent": header}, Context())
        assert span_context_of(found) == span_context_of(there)
        assert list(found) == list(there)


def span_context_of(context: Context) -> SpanContext:
    return trace.get_current_span(context).get_span_context()
