"""Sampling and span creation: https://opentelemetry.io/docs/specs/otel/trace/sdk/#sampling."""

from __future__ import annotations

from typing import Any

import pytest
from opentelemetry.context import Context
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    TraceFlags,
    TraceState,
    set_span_in_context,
)

from tracekit.sdk import (
    ALWAYS_OFF,
    ALWAYS_ON,
    AlwaysRecordSampler,
    Decision,
    InMemorySpanExporter,
    ParentBased,
    SamplingResult,
    SpanProcessor,
    TraceIdRatioBased,
)

STATE = TraceState([("vendor", "value")])


def parent(sampled: bool = True, remote: bool = True, state: TraceState = STATE) -> Context:
    span_context = SpanContext(0xA1, 0xB2, remote, TraceFlags(1 if sampled else 0), state)
    return set_span_in_context(NonRecordingSpan(span_context), Context())


class Answering:
    """Answers what it is told to, and keeps what it was asked."""

    def __init__(self, *result: Any) -> None:
        self.result = SamplingResult(*result)
        self.asked: list[dict[str, Any]] = []

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Any = None,
        links: Any = None,
    ) -> SamplingResult:
        self.asked.append(dict(locals()))
        return self.result

    def get_description(self) -> str:
        return "Answering"


class Noting(SpanProcessor):
    def __init__(self) -> None:
        self.seen: list[str] = []

    def on_start(self, span: Any, parent_context: Any = None) -> None:
        self.seen.append("start")

    def on_end(self, span: Any) -> None:
        self.seen.append("end")


@pytest.mark.parametrize(
    ("decision", "recording", "sampled", "processed", "exported"),
    [
        (Decision.RECORD_AND_SAMPLE, True, True, ["start", "end"], 1),
        (Decision.RECORD_ONLY, True, False, ["start", "end"], 0),
        (Decision.DROP, False, False, [], 0),
    ],
)
def test_the_reaction_table(
    make_provider: Any,
    exporter: InMemorySpanExporter,
    decision: Decision,
    recording: bool,
    sampled: bool,
    processed: list[str],
    exported: int,
) -> None:
    """Processors get recording spans only, exporters sampled ones only; sampled means recorded.

    https://opentelemetry.io/docs/specs/otel/trace/sdk/#recording-sampled-reaction-table
    """
    noting = Noting()
    tracer = make_provider(noting, sampler=Answering(decision)).get_tracer("library")
    span = tracer.start_span("a")
    assert span.is_recording() is recording
    assert bool(span.get_span_context().trace_flags.sampled) is sampled
    span.end()
    assert (noting.seen, len(exporter.get_finished_spans())) == (processed, exported)


@pytest.mark.parametrize("sampler", [ALWAYS_ON, ALWAYS_OFF, ParentBased(ALWAYS_ON)])
@pytest.mark.parametrize("context", [parent(), parent(sampled=False), parent(remote=False)])
def test_a_valid_parent_gives_its_trace_id(make_provider: Any, sampler: Any, context: Any) -> None:
    """The parent's trace id is used if it is valid.

    https://opentelemetry.io/docs/specs/otel/trace/sdk/#sdk-span-creation
    """
    span = make_provider(sampler=sampler).get_tracer("library").start_span("a", context)
    assert span.get_span_context().trace_id == 0xA1


@pytest.mark.parametrize("invalid", [SpanContext(0, 1, True), SpanContext(1, 0, True)])
def test_without_a_valid_parent_a_new_trace_id_is_made_before_sampling(
    make_provider: Any, invalid: SpanContext
) -> None:
    """Otherwise a new trace id is generated, and ShouldSample gets it.

    https://opentelemetry.io/docs/specs/otel/trace/sdk/#sdk-span-creation
    """
    sampler = Answering(Decision.RECORD_AND_SAMPLE)
    context = set_span_in_context(NonRecordingSpan(invalid), Context())
    span = make_provider(sampler=sampler).get_tracer("library").start_span("a", context)
    assert span.get_span_context().trace_id == sampler.asked[0]["trace_id"] > 1


@pytest.mark.parametrize("decision", list(Decision))
def test_each_span_has_a_span_id_of_its_own_whatever_the_decision(
    make_provider: Any, decision: Decision
) -> None:
    """A new span id is generated independently of the sampling decision.

    https://opentelemetry.io/docs/specs/otel/trace/sdk/#sdk-span-creation
    """
    tracer = make_provider(sampler=Answering(decision)).get_tracer("library")
    spans = [tracer.start_span("a", parent()).get_span_context().span_id for _ in range(3)]
    assert len({0, 0xB2, *spans}) == 5


def test_should_sample_gets_everything(make_provider: Any) -> None:
    """ShouldSample gets context, trace id, name, kind, attributes and links.

    https://opentelemetry.io/docs/specs/otel/trace/sdk/#shouldsample
    """
    sampler, context = Answering(Decision.DROP), parent()
    links = [Link(SpanContext(1, 2, False))]
    tracer = make_provider(sampler=sampler).get_tracer("library")
    tracer.start_span("a", context, SpanKind.SERVER, {"key": 1}, links)
    (asked,) = sampler.asked
    assert asked["parent_context"] == context
    assert (asked["trace_id"], asked["name"], asked["kind"]) == (0xA1, "a", SpanKind.SERVER)
    assert (asked["attributes"], list(asked["links"])) == ({"key": 1}, links)


def test_attributes_of_the_result_are_added(
    make_provider: Any, exporter: InMemorySpanExporter
) -> None:
    """The attributes of the SamplingResult are also added to the span.

    https://opentelemetry.io/docs/specs/otel/trace/sdk/#shouldsample
    """
    sampler = Answering(Decision.RECORD_AND_SAMPLE, {"rule": 7})
    make_provider(sampler=sampler).get_tracer("x").start_span("a", attributes={"key": 1}).end()
    assert exporter.get_finished_spans()[0].attributes == {"key": 1, "rule": 7}


@pytest.mark.parametrize("decision", list(Decision))
@pytest.mark.parametrize("state", [TraceState([("own", "1")]), TraceState()])
def test_the_trace_state_of_the_result_is_the_spans(
    make_provider: Any, decision: Decision, state: TraceState
) -> None:
    """The returned trace state is that of the new span; an empty one clears it.

    https://opentelemetry.io/docs/specs/otel/trace/sdk/#shouldsample
    """
    tracer = make_provider(sampler=Answering(decision, None, state)).get_tracer("library")
    found = tracer.start_span("a", parent()).get_span_context().trace_state
    assert found.to_header() == state.to_header()


def test_the_default_sampler_follows_the_parent_and_keeps_roots(
    make_provider: Any, exporter: InMemorySpanExporter
) -> None:
    """The default is ParentBased(root=AlwaysOn).

    https://opentelemetry.io/docs/specs/otel/trace/sdk/#built-in-samplers
    """
    tracer = make_provider().get_tracer("library")
    tracer.start_span("root").end()
    tracer.start_span("kept", parent(sampled=True)).end()
    tracer.start_span("dropped", parent(sampled=False)).end()
    assert [span.name for span in exporter.get_finished_spans()] == ["root", "kept"]


def test_descriptions_that_are_prescribed() -> None:
    """AlwaysOnSampler, AlwaysOffSampler and TraceIdRatioBased{RATIO}.

    https://opentelemetry.io/docs/specs/otel/trace/sdk/#traceidratiobased-sampler-description
    """
    assert ALWAYS_ON.get_description() == "AlwaysOnSampler"
    assert ALWAYS_OFF.get_description() == "AlwaysOffSampler"
    assert TraceIdRatioBased(0.0001).get_description() == "TraceIdRatioBased{0.000100}"
    descriptions = {TraceIdRatioBased(rate).get_description() for rate in (0.1, 0.11, 0.5, 1.0)}
    assert len(descriptions) == 4


@pytest.mark.parametrize("sampled", [True, False])
@pytest.mark.parametrize(("rate", "kept"), [(1.0, True), (0.0, False)])
def test_the_ratio_sampler_ignores_the_parents_flag(rate: float, kept: bool, sampled: bool) -> None:
    """TraceIdRatioBased ignores the parent's sampled flag.

    https://opentelemetry.io/docs/specs/otel/trace/sdk/#traceidratiobased
    """
    result = TraceIdRatioBased(rate).should_sample(parent(sampled), 0xA1, "a")
    assert result.decision.is_sampled() is kept


@pytest.mark.parametrize(("randomness", "kept"), [(0x7FFFFFFFFFFFFF, 0), (0x80000000000000, 1)])
def test_a_trace_is_kept_when_its_randomness_reaches_the_threshold(
    randomness: int, kept: int
) -> None:
    """R >= T is sampled, anything less is dropped; R is the rightmost 7 bytes of the trace id.

    https://opentelemetry.io/docs/specs/otel/trace/sdk/#traceidratiobased-sampler-algorithm
    """
    trace_id = 0xFF << 120 | randomness
    result = TraceIdRatioBased(0.5).should_sample(Context(), trace_id, "a")
    assert result.decision.is_sampled() == bool(kept)
    assert (result.trace_state or TraceState()).get("ot") == ("th:8" if kept else None)


@pytest.mark.parametrize(("value", "kept"), [("7fffffffffffff", False), ("80000000000000", True)])
def test_explicit_randomness_is_used_and_not_overwritten(
    make_provider: Any, value: str, kept: bool
) -> None:
    """SDKs and samplers must not overwrite explicit randomness in the trace state.

    https://opentelemetry.io/docs/specs/otel/trace/sdk/#do-not-overwrite-explicit-randomness
    """
    context = parent(state=TraceState([("ot", f"rv:{value}")]))
    tracer = make_provider(sampler=TraceIdRatioBased(0.5)).get_tracer("library")
    span_context = tracer.start_span("a", context).get_span_context()
    assert bool(span_context.trace_flags.sampled) is kept
    assert f"rv:{value}" in span_context.trace_state["ot"].split(";")


@pytest.mark.parametrize(
    ("context", "asked"),
    [
        (Context(), "root"),
        (parent(True, True), "remote_parent_sampled"),
        (parent(False, True), "remote_parent_not_sampled"),
        (parent(True, False), "local_parent_sampled"),
        (parent(False, False), "local_parent_not_sampled"),
    ],
)
def test_parent_based_asks_one_of_five(make_provider: Any, context: Context, asked: str) -> None:
    """Each of the five cases has its sampler.

    https://opentelemetry.io/docs/specs/otel/trace/sdk/#parentbased
    """
    names = ["root", "remote_parent_sampled", "remote_parent_not_sampled"]
    names += ["local_parent_sampled", "local_parent_not_sampled"]
    samplers = {name: Answering(Decision.DROP) for name in names}
    tracer = make_provider(sampler=ParentBased(**samplers)).get_tracer("library")
    tracer.start_span("a", context)
    assert [name for name in names if samplers[name].asked] == [asked]


def test_always_record_turns_drop_into_record_only_and_nothing_else() -> None:
    """AlwaysRecord changes DROP to RECORD_ONLY, so that processors see every span.

    https://opentelemetry.io/docs/specs/otel/trace/sdk/#alwaysrecord
    """
    decisions = {
        decision: AlwaysRecordSampler(Answering(decision)).should_sample(None, 1, "a").decision
        for decision in Decision
    }
    assert decisions == {
        Decision.DROP: Decision.RECORD_ONLY,
        Decision.RECORD_ONLY: Decision.RECORD_ONLY,
        Decision.RECORD_AND_SAMPLE: Decision.RECORD_AND_SAMPLE,
    }
