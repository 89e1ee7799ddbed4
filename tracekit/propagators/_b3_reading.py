"""Reads B3 in either of its encodings, which is what both B3 propagators do.

Source: https://github.com/openzipkin/b3-propagation and
https://opentelemetry.io/docs/specs/otel/context/api-propagators/#b3-requirements
"""

from __future__ import annotations

from typing import Any, NamedTuple

from opentelemetry.context import Context

from tracekit.propagators._debug_mark import with_debug
from tracekit.propagators._headers import Headers
from tracekit.propagators._hex_id import exact_id
from tracekit.propagators._refusal import RefusedError
from tracekit.propagators._remote import with_remote_span

__all__ = ["FLAGS", "SAMPLED", "SINGLE", "SPAN_ID", "TRACE_ID", "read_b3"]

SINGLE = "b3"
TRACE_ID = "x-b3-traceid"
SPAN_ID = "x-b3-spanid"
SAMPLED = "x-b3-sampled"
FLAGS = "x-b3-flags"

# 32 + 16 + 1 + 16 characters and three dashes.
_MAX_SINGLE = 68
# Absent means that the receiver decides. A SpanContext cannot say "undecided", and one that says
# "not sampled" would drop the trace without anybody having decided so: it is accepted.
_ACCEPTED = {"": True, "0": False, "1": True, "d": True}
# "some tracers propagated X-B3-Sampled as true or false [...] a lenient implementation may
# accept them"
_ACCEPTED_WORDS = {**_ACCEPTED, "true": True, "false": False}


class _Fields(NamedTuple):
    trace_id: str
    span_id: str
    accepted: bool
    debug: bool


def read_b3(headers: Headers[Any], context: Context) -> Context:
    """Return the context with the caller's span, from the single header if that can be used."""
    try:
        fields = _single(headers)
    except RefusedError:
        # A good set of X-B3 headers counts more than a bad b3.
        fields = _multiple(headers)
        if fields is None:
            raise
    if fields is None:
        fields = _multiple(headers)
    return context if fields is None else _with_fields(context, fields)


def _with_fields(context: Context, fields: _Fields) -> Context:
    trace_id = exact_id(fields.trace_id, "b3_trace_id", 16, 32)
    span_id = exact_id(fields.span_id, "b3_span_id", 16)
    context = with_remote_span(context, trace_id, span_id, fields.accepted)
    return with_debug(context, trace_id) if fields.debug else context


def _single(headers: Headers[Any]) -> _Fields | None:
    header = headers.first(SINGLE)
    # "b3: 0" and its like: a decision about a trace that has no name yet. There is no span
    # context to carry it, and nothing wrong with the header.
    if header is None or header in _ACCEPTED:
        return None
    if len(header) > _MAX_SINGLE:
        raise RefusedError("b3_length")
    parts = header.split("-")
    if not 2 <= len(parts) <= 4:
        raise RefusedError("b3_fields")
    trace_id, span_id, state = (*parts, "")[:3]
    if state not in _ACCEPTED:
        raise RefusedError("b3_sampling_state")
    # The parent's id names no parent of ours, but a header with a bad one is not B3.
    if len(parts) == 4:
        exact_id(parts[3], "b3_parent_span_id", 16)
    # Read here, so that a bad one still lets the other encoding speak.
    exact_id(trace_id, "b3_trace_id", 16, 32)
    exact_id(span_id, "b3_span_id", 16)
    return _Fields(trace_id, span_id, _ACCEPTED[state], state == "d")


def _multiple(headers: Headers[Any]) -> _Fields | None:
    trace_id = headers.first(TRACE_ID, "X-B3-TraceId")
    span_id = headers.first(SPAN_ID, "X-B3-SpanId")
    if trace_id is None and span_id is None:
        return None
    # "Debug is encoded as X-B3-Flags: 1. Debug implies an accept decision"
    debug = headers.first(FLAGS, "X-B3-Flags") == "1"
    state = headers.first(SAMPLED, "X-B3-Sampled") or ""
    accepted = True if debug else _ACCEPTED_WORDS.get(state[:5].lower())
    if accepted is None:
        raise RefusedError("b3_sampling_state")
    return _Fields(trace_id or "", span_id or "", accepted, debug or state == "d")
