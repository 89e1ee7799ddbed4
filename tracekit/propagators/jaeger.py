"""Jaeger: the `uber-trace-id` header, and baggage in `uberctx-…`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from urllib.parse import unquote

from opentelemetry.context import Context
from opentelemetry.propagators.textmap import TextMapPropagator
from opentelemetry.trace import SpanContext

from tracekit.propagators._debug_mark import is_debug, with_debug
from tracekit.propagators._headers import Headers
from tracekit.propagators._hex_id import short_id
from tracekit.propagators._prefixed_baggage import read_prefixed, written_prefixed
from tracekit.propagators._refusal import RefusedError
from tracekit.propagators._remote import with_remote_span
from tracekit.propagators._span_headers import SpanHeadersPropagator

__all__ = ["JaegerPropagator", "plugin"]

_HEADER = "uber-trace-id"
_BAGGAGE_PREFIX = "uberctx-"
# 32 + 16 + 16 + 2 characters and three colons, each of which may come as %3A.
_MAX_HEADER = 75
_SAMPLED = 1
_DEBUG = 2


class JaegerPropagator(SpanHeadersPropagator):
    """Write and read `{trace id}:{span id}:{parent id}:{flags}`.

    Source: https://www.jaegertracing.io/docs/1.76/external/client-libraries/#propagation-format
    """

    @property
    def fields(self) -> set[str]:
        return {_HEADER}

    def _written(
        self, span_context: SpanContext, context: Context | None
    ) -> Iterable[tuple[str, str]]:
        flags = span_context.trace_flags & _SAMPLED
        if is_debug(context, span_context.trace_id):
            flags = _SAMPLED | _DEBUG
        ids = f"{span_context.trace_id:032x}:{span_context.span_id:016x}"
        # The parent's id is deprecated: "0 value is valid and means root span".
        yield _HEADER, f"{ids}:0:{flags:02x}"
        yield from written_prefixed(_BAGGAGE_PREFIX, context)

    def _read(self, headers: Headers[Any], context: Context) -> Context:
        header = headers.first(_HEADER, "Uber-Trace-Id")
        if header is None:
            return context
        if len(header) > _MAX_HEADER:
            raise RefusedError("jaeger_length")
        # Some clients percent-encode the colons.
        parts = unquote(header).split(":") if "%" in header else header.split(":")
        if len(parts) != 4:
            raise RefusedError("jaeger_fields")
        trace_id = short_id(parts[0], "jaeger_trace_id", 32)
        span_id = short_id(parts[1], "jaeger_span_id", 16)
        flags = _flags(parts[3])
        context = read_prefixed(_BAGGAGE_PREFIX, headers, context)
        if flags & _DEBUG:
            context = with_debug(context, trace_id)
        return with_remote_span(context, trace_id, span_id, flags & (_SAMPLED | _DEBUG) != 0)


def _flags(text: str) -> int:
    # One byte in hexadecimal, with or without its leading zero; no flag set is a legal value.
    return short_id("1" + text, "jaeger_flags", 3) if text else _no_flags()


def _no_flags() -> int:
    raise RefusedError("jaeger_flags")


plugin: type[TextMapPropagator] = JaegerPropagator
