"""AWS X-Ray: the `X-Amzn-Trace-Id` header."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from opentelemetry.context import Context
from opentelemetry.propagators.textmap import TextMapPropagator
from opentelemetry.trace import SpanContext

from tracekit.propagators._headers import Headers
from tracekit.propagators._hex_id import exact_id
from tracekit.propagators._refusal import RefusedError
from tracekit.propagators._remote import with_remote_span
from tracekit.propagators._span_headers import SpanHeadersPropagator

__all__ = ["XRayPropagator", "plugin"]

_HEADER = "X-Amzn-Trace-Id"
# The three fields that matter take 75 characters; AWS adds Self and Lineage, and promises no end.
_MAX_HEADER = 1024


class XRayPropagator(SpanHeadersPropagator):
    """Write and read `Root=1-{8 hex}-{24 hex};Parent={16 hex};Sampled={0 or 1}`.

    A header without a decision (`Sampled=?` or none) counts as not sampled, as in the packages
    that OpenTelemetry publishes for X-Ray.
    Source: https://docs.aws.amazon.com/xray/latest/devguide/xray-concepts.html#xray-concepts-tracingheader
    """

    @property
    def fields(self) -> set[str]:
        return {_HEADER}

    def _written(
        self, span_context: SpanContext, context: Context | None
    ) -> Iterable[tuple[str, str]]:
        trace_hex = f"{span_context.trace_id:032x}"
        root = f"Root=1-{trace_hex[:8]}-{trace_hex[8:]}"
        sampled = span_context.trace_flags & 1
        yield _HEADER, f"{root};Parent={span_context.span_id:016x};Sampled={sampled}"

    def _read(self, headers: Headers[Any], context: Context) -> Context:
        header = headers.first(_HEADER, "x-amzn-trace-id")
        if header is None:
            return context
        fields = _fields(header)
        # A load balancer sends a root without a parent: a trace's name, but nobody's child.
        if "Root" in fields and "Parent" not in fields:
            return context
        trace_id = _trace_id(fields.get("Root", ""))
        span_id = exact_id(fields.get("Parent", ""), "xray_parent", 16)
        return with_remote_span(context, trace_id, span_id, _sampled(fields))


def _fields(header: str) -> dict[str, str]:
    if len(header) > _MAX_HEADER:
        raise RefusedError("xray_length")
    fields = {}
    for part in header.split(";"):
        name, equals, value = part.partition("=")
        if equals:
            fields[name.strip(" \t")] = value.strip(" \t")
    return fields


def _trace_id(root: str) -> int:
    parts = root.split("-")
    if len(parts) != 3 or parts[0] != "1" or len(parts[1]) != 8:
        raise RefusedError("xray_root")
    return exact_id(parts[1] + parts[2], "xray_root", 32)


def _sampled(fields: dict[str, str]) -> bool:
    decision = fields.get("Sampled", "")
    if decision not in ("", "?", "0", "1"):
        raise RefusedError("xray_sampled")
    return decision == "1"


plugin: type[TextMapPropagator] = XRayPropagator
