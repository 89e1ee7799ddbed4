"""Composable samplers: each says a threshold, and one decision is made of them.

A composable sampler does not decide; it states its intent: the threshold that a trace's
randomness must reach. ``CompositeSampler`` compares, and writes the threshold into the trace
state, so that what is kept can be counted right wherever it arrives.
Source: https://opentelemetry.io/docs/specs/otel/trace/sdk/#compositesampler
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from opentelemetry.context import Context
from opentelemetry.trace import Link, SpanKind, TraceState

from tracekit._ot_state import OtState, threshold_of, with_threshold
from tracekit.model import Attributes, Decision, SamplingResult
from tracekit.samplers._parent import followed_trace_state, parent_span_context

__all__ = [
    "ComposableAlwaysOff",
    "ComposableAlwaysOn",
    "ComposableAnnotating",
    "ComposableParentThreshold",
    "ComposableProbability",
    "ComposableRuleBased",
    "ComposableSampler",
    "CompositeSampler",
    "SamplingIntent",
    "Start",
]


class Start(NamedTuple):
    """What is known of a span that is about to start."""

    parent_context: Context | None
    trace_id: int
    name: str
    kind: SpanKind | None
    attributes: Attributes
    links: Sequence[Link]
    parent_state: TraceState | None


class SamplingIntent(NamedTuple):
    """The threshold that must be reached (None: never), and what goes with being kept.

    ``is_reliable`` says whether the threshold tells the true share, and may be written down.
    """

    threshold: int | None
    is_reliable: bool = True
    attributes: Mapping[str, Any] = {}


class ComposableSampler(Protocol):
    """A sampler that says its threshold instead of deciding."""

    def sampling_intent(self, start: Start) -> SamplingIntent: ...
    def get_description(self) -> str: ...


class ComposableAlwaysOn:
    def sampling_intent(self, start: Start) -> SamplingIntent:
        return SamplingIntent(0)

    def get_description(self) -> str:
        return "ComposableAlwaysOn"


class ComposableAlwaysOff:
    def sampling_intent(self, start: Start) -> SamplingIntent:
        return SamplingIntent(None, is_reliable=False)

    def get_description(self) -> str:
        return "ComposableAlwaysOff"


class ComposableProbability:
    """Keep a share of all traces, the same ones in every service that keeps that share."""

    def __init__(self, ratio: float) -> None:
        self._ratio = ratio
        self._intent = SamplingIntent(threshold_of(ratio))
        if ratio <= 0:
            self._intent = SamplingIntent(None, is_reliable=False)

    def sampling_intent(self, start: Start) -> SamplingIntent:
        return self._intent

    def get_description(self) -> str:
        return f"ComposableProbability{{{self._ratio:f}}}"


class ComposableParentThreshold:
    """Follow the parent's threshold, or its flag when it wrote none; ask ``root`` for roots."""

    def __init__(self, root: ComposableSampler) -> None:
        self._root = root

    def sampling_intent(self, start: Start) -> SamplingIntent:
        parent = parent_span_context(start.parent_context)
        if parent is None:
            return self._root.sampling_intent(start)
        threshold = OtState.of(followed_trace_state(parent)).threshold
        if threshold is not None:
            return SamplingIntent(threshold)
        return SamplingIntent(0 if parent.trace_flags.sampled else None, is_reliable=False)

    def get_description(self) -> str:
        return f"ComposableParentThreshold{{{self._root.get_description()}}}"


class ComposableRuleBased:
    """Ask the sampler of the first rule whose predicate holds; drop when none does."""

    def __init__(self, rules: Sequence[tuple[Callable[[Start], bool], ComposableSampler]]) -> None:
        self._rules = tuple(rules)

    def sampling_intent(self, start: Start) -> SamplingIntent:
        for predicate, sampler in self._rules:
            if predicate(start):
                return sampler.sampling_intent(start)
        return SamplingIntent(None, is_reliable=False)

    def get_description(self) -> str:
        inner = ",".join(sampler.get_description() for _, sampler in self._rules)
        return f"ComposableRuleBased{{{inner}}}"


class ComposableAnnotating:
    """Add attributes to what another sampler keeps."""

    def __init__(self, sampler: ComposableSampler, attributes: Mapping[str, Any]) -> None:
        self._sampler = sampler
        self._attributes = dict(attributes)

    def sampling_intent(self, start: Start) -> SamplingIntent:
        intent = self._sampler.sampling_intent(start)
        return intent._replace(attributes={**intent.attributes, **self._attributes})

    def get_description(self) -> str:
        return f"ComposableAnnotating{{{self._sampler.get_description()}}}"


class CompositeSampler:
    """Decide by comparing a composable sampler's threshold with the trace's randomness."""

    def __init__(self, delegate: ComposableSampler) -> None:
        self._delegate = delegate

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes | None = None,
        links: Sequence[Link] | None = None,
    ) -> SamplingResult:
        parent = parent_span_context(parent_context)
        state = parent.trace_state if parent is not None else None
        start = Start(
            parent_context, trace_id, name, kind, attributes or {}, tuple(links or ()), state
        )
        intent = self._delegate.sampling_intent(start)
        randomness = OtState.of(state).randomness_of(trace_id)
        if intent.threshold is None or randomness < intent.threshold:
            return SamplingResult(Decision.DROP, None, with_threshold(state, None))
        threshold = intent.threshold if intent.is_reliable else None
        return SamplingResult(
            Decision.RECORD_AND_SAMPLE, intent.attributes, with_threshold(state, threshold)
        )

    def get_description(self) -> str:
        return f"CompositeSampler{{{self._delegate.get_description()}}}"

    def __repr__(self) -> str:
        return self.get_description()
