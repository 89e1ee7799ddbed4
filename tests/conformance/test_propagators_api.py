"""The propagators API: https://opentelemetry.io/docs/specs/otel/context/api-propagators/."""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

import pytest
from opentelemetry import baggage, trace
from opentelemetry.context import Context, attach, detach
from opentelemetry.propagators.textmap import Getter, Setter, TextMapPropagator
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, get_current_span

import tracekit.propagators
from tracekit.propagators._composite import CompositePropagator
from tracekit.propagators._environment import EnvironmentGetter, EnvironmentSetter
from tracekit.propagators.b3 import B3SinglePropagator
from tracekit.propagators.b3multi import B3MultiPropagator
from tracekit.propagators.baggage import BaggagePropagator
from tracekit.propagators.tracecontext import TraceContextPropagator

NAMES = sorted(
    module.name
    for module in pkgutil.iter_modules(tracekit.propagators.__path__)
    if not module.name.startswith("_")
)
SPAN_CONTEXT = SpanContext(0xA1, 0xB2, False, TraceFlags(1))


@pytest.fixture(params=NAMES)
def propagator(request: pytest.FixtureRequest) -> Any:
    return importlib.import_module(f"tracekit.propagators.{request.param}").plugin()


def own_context() -> Context:
    context = trace.set_span_in_context(NonRecordingSpan(SPAN_CONTEXT), Context())
    return baggage.set_baggage("key", "value", context)


def sent_by(propagator: TextMapPropagator) -> dict[str, str]:
    carrier: dict[str, str] = {}
    propagator.inject(carrier, own_context())
    return carrier


class RecordingSetter(Setter[dict[str, str]]):
    def __init__(self) -> None:
        self.calls: list[str] = []

    def set(self, carrier: dict[str, str], key: str, value: str) -> None:
        self.calls.append(key)
        carrier[key] = value


class RecordingGetter(Getter[dict[str, str]]):
    def __init__(self) -> None:
        self.asked: list[str] = []

    def get(self, carrier: dict[str, str], key: str) -> list[str] | None:
        self.asked.append(key)
        return [carrier[key]] if key in carrier else None

    def keys(self, carrier: dict[str, str]) -> list[str]:
        return list(carrier)


def test_values_are_us_ascii_as_header_fields_are(propagator: Any) -> None:
    """Keys and values must be what HTTP header fields may hold.

    https://opentelemetry.io/docs/specs/otel/context/api-propagators/#textmap-propagator
    """
    for key, value in sent_by(propagator).items():
        assert (key + value).isascii()
        assert (key + value).isprintable()


def test_inject_takes_the_value_from_the_context(propagator: Any) -> None:
    """The propagator must take the value from the given Context first.

    https://opentelemetry.io/docs/specs/otel/context/api-propagators/#inject
    """
    token = attach(Context())
    try:
        assert sent_by(propagator)
    finally:
        detach(token)


def test_inject_calls_set_for_every_field(propagator: Any) -> None:
    """Set is invoked for each propagation key, with the format's own casing.

    https://opentelemetry.io/docs/specs/otel/context/api-propagators/#setter-argument
    """
    setter = RecordingSetter()
    carrier: dict[str, str] = {}
    propagator.inject(carrier, own_context(), setter)
    assert setter.calls == list(carrier) == list(sent_by(propagator))


def test_extract_calls_get_for_its_fields(propagator: Any) -> None:
    """Get is invoked for each propagation key.

    https://opentelemetry.io/docs/specs/otel/context/api-propagators/#getter-argument
    """
    getter = RecordingGetter()
    propagator.extract(sent_by(propagator), Context(), getter)
    assert set(getter.asked) & propagator.fields


@pytest.mark.parametrize("value", ["", "\ud800", "x" * 100_000, b"x", 1, None, [], object()])
def test_extract_does_not_raise(propagator: Any, value: Any) -> None:
    """What cannot be parsed must not throw and must not store a new value over a valid one.

    https://opentelemetry.io/docs/specs/otel/context/api-propagators/#extract
    """
    before = own_context()
    found = propagator.extract(dict.fromkeys(propagator.fields, value), before)
    assert found == before


def test_extracted_span_context_is_remote(propagator: Any) -> None:
    """An extracted SpanContext must have IsRemote set.

    https://opentelemetry.io/docs/specs/otel/trace/api/#isremote
    """
    span = get_current_span(propagator.extract(sent_by(propagator), Context()))
    if not isinstance(propagator, BaggagePropagator):
        assert span.get_span_context().is_remote


def test_extract_derives_a_new_context_and_leaves_the_given_one(propagator: Any) -> None:
    """Extract returns a new Context derived from the one given.

    https://opentelemetry.io/docs/specs/otel/context/api-propagators/#extract
    """
    given = Context({"key": "value"})
    found = propagator.extract(sent_by(propagator), given)
    assert given == {"key": "value"}
    assert found["key"] == "value"
    assert type(found) is Context


def test_composite_runs_its_members_in_their_order() -> None:
    """A composite must invoke its propagators in the order in which they were given.

    https://opentelemetry.io/docs/specs/otel/context/api-propagators/#composite-propagator
    """
    setter = RecordingSetter()
    members = [B3SinglePropagator(), TraceContextPropagator(), BaggagePropagator()]
    CompositePropagator(members).inject({}, own_context(), setter)
    assert setter.calls == ["b3", "traceparent", "baggage"]


def test_composite_can_be_made_of_injectors_and_extractors() -> None:
    """It can be built from a list of propagators, or of injectors and extractors.

    https://opentelemetry.io/docs/specs/otel/context/api-propagators/#create-a-composite-propagator
    """
    propagator = CompositePropagator([B3SinglePropagator()], [TraceContextPropagator()])
    assert set(sent_by(propagator)) == {"b3"}
    found = propagator.extract(sent_by(TraceContextPropagator()))
    assert get_current_span(found).get_span_context().trace_id == SPAN_CONTEXT.trace_id


def test_the_formats_that_must_be_there_are_there() -> None:
    """W3C Trace Context, W3C Baggage and B3 must be maintained and distributed.

    https://opentelemetry.io/docs/specs/otel/context/api-propagators/#propagators-distribution
    """
    assert {"tracecontext", "baggage", "b3", "b3multi"} <= set(NAMES)


B3_FORMATS = [B3SinglePropagator, B3MultiPropagator]
TRACE, SPAN = "a" * 32, "b" * 16
MULTI = {"x-b3-traceid": TRACE, "x-b3-spanid": SPAN, "x-b3-sampled": "1"}


@pytest.mark.parametrize("b3", B3_FORMATS)
@pytest.mark.parametrize("carrier", [{"b3": f"{TRACE}-{SPAN}-1"}, MULTI])
def test_b3_extracts_either_encoding(b3: Any, carrier: dict[str, str]) -> None:
    """B3 must be read in single and in multiple headers.

    https://opentelemetry.io/docs/specs/otel/context/api-propagators/#b3-extract
    """
    assert get_current_span(b3().extract(carrier)).get_span_context().is_valid


@pytest.mark.parametrize("b3", B3_FORMATS)
def test_b3_single_header_takes_precedence(b3: Any) -> None:
    """The single header takes precedence over the others.

    https://opentelemetry.io/docs/specs/otel/context/api-propagators/#b3-extract
    """
    found = b3().extract({"b3": f"{'c' * 32}-{SPAN}-1", **MULTI})
    assert get_current_span(found).get_span_context().trace_id == int("c" * 32, 16)


@pytest.mark.parametrize("b3", B3_FORMATS)
def test_b3_debug_is_sampled_and_goes_on(b3: Any) -> None:
    """A debug flag must set the sampled flag, and must be preserved for what is sent on.

    https://opentelemetry.io/docs/specs/otel/context/api-propagators/#b3-extract
    """
    context = b3().extract({**MULTI, "x-b3-flags": "1"})
    assert get_current_span(context).get_span_context().trace_flags.sampled
    carrier: dict[str, str] = {}
    b3().inject(carrier, context)
    assert carrier.get("x-b3-flags") == "1" or carrier["b3"].endswith("-d")


@pytest.mark.parametrize(
    ("b3", "names"),
    [
        (B3SinglePropagator, {"b3"}),
        (B3MultiPropagator, {"x-b3-traceid", "x-b3-spanid", "x-b3-sampled"}),
    ],
)
def test_b3_injects_one_encoding_and_no_parent(b3: Any, names: set[str]) -> None:
    """Which encoding is written can be chosen; the parent's span id must not be propagated.

    https://opentelemetry.io/docs/specs/otel/context/api-propagators/#b3-inject
    """
    carrier = sent_by(b3())
    assert set(carrier) == names
    assert carrier.get("b3", "").count("-") in (0, 2)


def test_environment_names_are_upper_case() -> None:
    """Names must be in upper case and hold only what environments allow.

    https://opentelemetry.io/docs/specs/otel/context/env-carriers/
    """
    environment: dict[str, str] = {}
    for b in (TraceContextPropagator(), BaggagePropagator(), B3MultiPropagator()):
        b.inject(environment, own_context(), EnvironmentSetter())
    assert set(environment) == {
        "TRACEPARENT",
        "BAGGAGE",
        "X_B3_TRACEID",
        "X_B3_SPANID",
        "X_B3_SAMPLED",
    }


def test_environment_carries_a_context_both_ways(propagator: Any) -> None:
    """A propagator is used with an environment as with any other carrier.

    https://opentelemetry.io/docs/specs/otel/context/env-carriers/
    """
    environment: dict[str, str] = {}
    propagator.inject(environment, own_context(), EnvironmentSetter())
    found = propagator.extract(environment, Context(), EnvironmentGetter())
    if isinstance(propagator, BaggagePropagator):
        assert baggage.get_all(found) == {"key": "value"}
    else:
        assert get_current_span(found).get_span_context().span_id == SPAN_CONTEXT.span_id
