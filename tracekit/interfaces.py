"""Everything that can be plugged into tracekit, on one page.

The shapes are those of the OpenTelemetry specification, with the names that
opentelemetry-sdk gave them, so a part written for it plugs in as it is: none of these
classes has to be inherited from, they are checked by what they do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

from opentelemetry.context import Context
from opentelemetry.propagators.textmap import TextMapPropagator
from opentelemetry.trace import Link, Span, SpanContext, SpanKind, Status, TracerProvider

from tracekit.model import (
    Attributes,
    Decision,
    Event,
    InstrumentationScope,
    Resource,
    SamplingResult,
)

__all__ = [
    "Decision",
    "ExportOutcome",
    "IdGenerator",
    "Instrumentor",
    "ReadableSpan",
    "ResourceDetector",
    "Sampler",
    "SamplingResult",
    "SpanExportResult",
    "SpanExporter",
    "SpanProcessor",
    "TextMapPropagator",
]


class ReadableSpan(Protocol):
    """What exporters and processors may read of a span; times are in Unix nanoseconds."""

    @property
    def name(self) -> str: ...
    @property
    def context(self) -> SpanContext: ...
    @property
    def parent(self) -> SpanContext | None: ...
    @property
    def kind(self) -> SpanKind: ...
    @property
    def start_time(self) -> int: ...
    @property
    def end_time(self) -> int | None: ...
    @property
    def status(self) -> Status: ...
    @property
    def attributes(self) -> Attributes: ...
    @property
    def events(self) -> Sequence[Event]: ...
    @property
    def links(self) -> Sequence[Link]: ...
    @property
    def resource(self) -> Resource: ...
    @property
    def instrumentation_scope(self) -> InstrumentationScope: ...
    @property
    def dropped_attributes(self) -> int: ...
    @property
    def dropped_events(self) -> int: ...
    @property
    def dropped_links(self) -> int: ...
    def get_span_context(self) -> SpanContext: ...
    def to_json(self, indent: int | None = 4) -> str: ...


class SpanExportResult(Enum):
    """Whether a batch was taken. What failed is not offered again: retrying is the exporter's."""

    SUCCESS = 0
    FAILURE = 1


class ExportOutcome(NamedTuple):
    """What became of the spans of one batch; the numbers add up to its size.

    Attributes:
        rejected: Refused by the destination for good.
        dropped: Lost, by reason.
        spooled: Kept on the disk, to be sent later.
        reason: Why not all was sent; empty when all was.
    """

    sent: int
    rejected: int = 0
    dropped: Mapping[str, int] = MappingProxyType({})
    spooled: int = 0
    reason: str = ""

    @property
    def lost(self) -> int:
        return self.rejected + sum(self.dropped.values())


class SpanExporter:
    """Carry batches of ended spans to one destination.

    An exporter may say and do more; what it does not have counts as absent:

    * ``last_outcome: ExportOutcome | None``: what became of the batch that the calling thread
      exported last, where SUCCESS and FAILURE are too coarse.
    * ``hurry()``: the process is about to end; from now on, try each batch once.
    * ``exports_at_once: int``: how many calls of ``export`` may be under way at the same time,
      each with its own batch; 1 when it is not said.
    * ``keeps_spans: bool``: whether the next method can do what it is for.
    * ``put_aside(spans) -> ExportOutcome | None``: keep a batch for later instead of sending it.
      One whose ``export`` is under way may be given too: what is not settled of it is kept, and
      its ``export`` counts no more. None where nothing can be kept.
    * ``export_started(spans)``: note spans that are open; told when the process ends.
    * ``stats() -> Mapping``: its own counts, shown in the ledger.

    Concurrency: ``export`` is called from one thread at a time, unless ``exports_at_once``
    allows more, and never from the thread that ended the span. ``force_flush`` and ``shutdown``
    may come from another.
    Source: https://opentelemetry.io/docs/specs/otel/trace/sdk/#span-exporter
    """

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send a batch, and return once it has been taken or given up.

        Raises:
            Nothing is expected; an exception counts as FAILURE and is logged once.
        """
        raise NotImplementedError

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Finish what an earlier ``export`` left under way; False when time ran out."""
        return True

    def shutdown(self) -> None:
        """Release everything. Called once; later batches are not offered."""


class SpanProcessor:
    """Be told of each recording span when it starts and when it has ended.

    Stages wrap stages: a processor that forwards holds the next one.
    Concurrency: all methods are called from the thread that starts or ends the span, at the
    same time from several.
    Cost: on the caller's path; no I/O, no waiting.
    Source: https://opentelemetry.io/docs/specs/otel/trace/sdk/#span-processor
    """

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """See a span that just started and may still be written to."""

    def on_ending(self, span: Span) -> None:
        """See a span whose end time is set and which may be written to for the last time."""

    def on_end(self, span: ReadableSpan) -> None:
        """Take a span that has ended; it is not written to any more."""

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Hand everything on; True only when all of it was taken within the time."""
        return True

    def shutdown(self, timeout_millis: int = 30_000) -> None:
        """Hand everything on, within the time, and stop."""


class Sampler(Protocol):
    """Decide at the start of a span whether it is recorded and exported.

    A sampler may spare its callers most calls by saying more of itself; what it does not
    declare counts as absent:

    * ``follows_local_parent: bool``: a span with a local parent always gets its decision.
    * ``follows_remote_parent: bool``: so does one with a remote parent, if no trace state came
      along, and no attribute is added.
    * ``root_sampler: Sampler``: what decides about spans without a parent.
    * ``threshold: int``: a root span is kept when the low 56 bits of its trace id reach this,
      whatever else is known of it, and no attribute is added; 0 keeps all, 2**56 none.
    * ``root_trace_state: TraceState``: what such a root span carries.

    Source: https://opentelemetry.io/docs/specs/otel/trace/sdk/#sampler
    """

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes | None = None,
        links: Sequence[Link] | None = None,
    ) -> SamplingResult:
        """Decide whether a span that is about to start is recorded and exported.

        Args:
            parent_context: Context that holds the parent; None stands for the current one.
            trace_id: 128 bits, never zero.
            attributes: Known at start; later ones cannot influence the decision.

        Returns:
            The decision, and the trace state that the new span must carry.

        Raises:
            Nothing. An error inside a sampler counts as DROP and is logged once.

        Concurrency: called from any thread, at the same time.
        Cost: on the path of every root span, dropped ones too; no I/O.
        """
        ...

    def get_description(self) -> str:
        """Return the name and the settings, such as ``TraceIdRatioBased{0.000100}``."""
        ...


class IdGenerator(Protocol):
    """Make trace ids (128 bits) and span ids (64 bits), neither ever zero.

    ``is_trace_id_random()``, when present, says whether the low 56 bits of trace ids are
    uniformly random; the W3C level-2 flag is set from it.
    Concurrency: called from any thread, at the same time.
    """

    def generate_trace_id(self) -> int: ...
    def generate_span_id(self) -> int: ...


class ResourceDetector(Protocol):
    """Find out something about where the process runs; nothing found is an empty resource."""

    def detect(self) -> Resource: ...


class Instrumentor(Protocol):
    """Watch one library: patch it, and take the patch off again without a trace.

    Both calls are idempotent and work before and after the library was imported.
    """

    name: str
    contrib: tuple[str, ...]

    def instrument(
        self, *, tracer_provider: TracerProvider | None = None, **options: Any
    ) -> None: ...
    def uninstrument(self) -> None: ...
    @property
    def status(self) -> InstrumentationStatus: ...


class InstrumentationStatus(Protocol):
    """What ``tracekit doctor`` shows of one instrumentor."""

    @property
    def name(self) -> str: ...
    @property
    def installed(self) -> str | None: ...
    @property
    def supported(self) -> str: ...
    @property
    def active(self) -> bool: ...
    @property
    def reason(self) -> str: ...
