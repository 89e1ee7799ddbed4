"""OpenTracing's basic tracers: the `ot-tracer-…` headers, and baggage in `ot-baggage-…`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from opentelemetry.context import Context
from opentelemetry.propagators.textmap import TextMapPropagator
from opentelemetry.trace import SpanContext

from tracekit.propagators._headers import Headers
from tracekit.propagators._hex_id import short_id
from tracekit.propagators._prefixed_baggage import read_prefixed, written_prefixed
from tracekit.propagators._remote import with_remote_span
from tracekit.propagators._span_headers import SpanHeadersPropagator

__all__ = ["OTTracePropagator", "plugin"]

_TRACE_ID = "ot-tracer-traceid"
_SPAN_ID = "ot-tracer-spanid"
_SAMPLED = "ot-tracer-sampled"
_BAGGAGE_PREFIX = "ot-baggage-"
_LOW_64_BITS = 2**64 - 1


class OTTracePropagator(SpanHeadersPropagator):
    """Write and read ids of 64 bits: the upper half of a trace id does not travel.

    Source: https://opentelemetry.io/docs/specs/otel/context/api-propagators/#propagators-distribution
    """

    @property
    def fields(self) -> set[str]:
        return {_TRACE_ID, _SPAN_ID, _SAMPLED}

    def _written(
        self, span_context: SpanContext, context: Context | None
    ) -> Iterable[tuple[str, str]]:
        trace_id = span_context.trace_id & _LOW_64_BITS
        # What is left of the id may be the id that means none.
        if trace_id == 0:
            return
        yield _TRACE_ID, f"{trace_id:016x}"
        yield _SPAN_ID, f"{span_context.span_id:016x}"
        yield _SAMPLED, "true" if span_context.trace_flags & 1 else "false"
        yield from written_prefixed(_BAGGAGE_PREFIX, context)

    def _read(self, headers: Headers[Any], context: Context) -> Context:
        trace_text = headers.first(_TRACE_ID, "Ot-Tracer-Traceid")
        span_text = headers.first(_SPAN_ID, "Ot-Tracer-Spanid")
        if trace_text is None and span_text is None:
            return context
        trace_id = short_id(trace_text or "", "ottrace_trace_id", 32)
        span_id = short_id(span_text or "", "ottrace_span_id", 16)
        sampled = headers.first(_SAMPLED, "Ot-Tracer-Sampled") == "true"
        context = read_prefixed(_BAGGAGE_PREFIX, headers, context)
        return with_remote_span(context, trace_id, span_id, sampled)


plugin: type[TextMapPropagator] = OTTracePropagator
