"""B3 in several headers, `X-B3-…`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from opentelemetry.context import Context
from opentelemetry.propagators.textmap import TextMapPropagator
from opentelemetry.trace import SpanContext

from tracekit.propagators._b3_reading import FLAGS, SAMPLED, SPAN_ID, TRACE_ID, read_b3
from tracekit.propagators._debug_mark import is_debug
from tracekit.propagators._headers import Headers
from tracekit.propagators._span_headers import SpanHeadersPropagator

__all__ = ["B3MultiPropagator", "plugin"]


class B3MultiPropagator(SpanHeadersPropagator):
    """Write one header per field; read both encodings of B3.

    Source: https://github.com/openzipkin/b3-propagation#multiple-headers
    """

    @property
    def fields(self) -> set[str]:
        return {TRACE_ID, SPAN_ID, SAMPLED, FLAGS}

    def _written(
        self, span_context: SpanContext, context: Context | None
    ) -> Iterable[tuple[str, str]]:
        yield TRACE_ID, f"{span_context.trace_id:032x}"
        yield SPAN_ID, f"{span_context.span_id:016x}"
        # "Debug implies an accept decision, so don't also send the X-B3-Sampled header."
        if is_debug(context, span_context.trace_id):
            yield FLAGS, "1"
        else:
            yield SAMPLED, "1" if span_context.trace_flags & 1 else "0"

    def _read(self, headers: Headers[Any], context: Context) -> Context:
        return read_b3(headers, context)


plugin: type[TextMapPropagator] = B3MultiPropagator
