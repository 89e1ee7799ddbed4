"""B3 in one header, `b3`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from opentelemetry.context import Context
from opentelemetry.propagators.textmap import TextMapPropagator
from opentelemetry.trace import SpanContext

from tracekit.propagators._b3_reading import SINGLE, read_b3
from tracekit.propagators._debug_mark import is_debug
from tracekit.propagators._headers import Headers
from tracekit.propagators._span_headers import SpanHeadersPropagator

__all__ = ["B3SinglePropagator", "plugin"]


class B3SinglePropagator(SpanHeadersPropagator):
    """Write `b3: {trace id}-{span id}-{sampling state}`; read both encodings of B3.

    Source: https://github.com/openzipkin/b3-propagation#single-header
    """

    @property
    def fields(self) -> set[str]:
        return {SINGLE}

    def _written(
        self, span_context: SpanContext, context: Context | None
    ) -> Iterable[tuple[str, str]]:
        state = "1" if span_context.trace_flags & 1 else "0"
        if is_debug(context, span_context.trace_id):
            state = "d"
        # OpenTelemetry: "MUST NOT propagate X-B3-ParentSpanId", the fourth field of this form.
        yield SINGLE, f"{span_context.trace_id:032x}-{span_context.span_id:016x}-{state}"

    def _read(self, headers: Headers[Any], context: Context) -> Context:
        return read_b3(headers, context)


plugin: type[TextMapPropagator] = B3SinglePropagator
