"""W3C Trace Context Level 2: the traceparent and tracestate headers."""

from __future__ import annotations

import re
from binascii import unhexlify
from struct import Struct
from typing import Any

from opentelemetry.context import Context
from opentelemetry.propagators.textmap import (
    Getter,
    Setter,
    TextMapPropagator,
    default_getter,
    default_setter,
)
from opentelemetry.trace import (
    DEFAULT_TRACE_STATE,
    SpanContext,
    TraceFlags,
    TraceState,
    get_current_span,
)

from tracekit._otel_context import (
    FLAGS,
    NO_CONTEXT,
    PLAIN_SPANS,
    SPAN_KEY,
    OnlySpan,
    current_context,
    new_span_context,
    span_context,
    with_span,
)
from tracekit._remote_span import RemoteSpan
from tracekit.propagators._headers import header_values
from tracekit.propagators._refusal import RefusedError, count_refusal
from tracekit.propagators._remote import KNOWN_FLAGS
from tracekit.propagators._trace_state import (
    MAX_RECEIVED,
    MAX_SENT,
    RemoteTraceState,
    truncated,
)

__all__ = ["TraceContextPropagator", "plugin"]

_LENGTH_00 = 55
# "only disallow prohibitively large headers": nothing longer can be a version that we outlive.
# https://www.w3.org/TR/trace-context-2/#versioning-of-traceparent
_MAX_TRACEPARENT = 512

# A whole header of version 00. Everything that it does not match takes the slow way, which
# accepts what else is legal and names what is not.
_VALID_00 = re.compile("00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}").fullmatch
_VERSION = re.compile("[0-9a-f]{2}-").match
_FIELDS = re.compile("-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}").fullmatch

_unpack = Struct(">B16sQB").unpack
_number = int.from_bytes
_FLAGS_OF = tuple(FLAGS[flags & KNOWN_FLAGS] for flags in range(256))

# "Vendors MUST set those [other flags] to zero": https://www.w3.org/TR/trace-context-2/#other-flags
_FLAGS_TEXT = tuple(f"-{flags & KNOWN_FLAGS:02x}" for flags in range(256))


# For a byte of flags, what RemoteSpan.followed_flags says.
_FOLLOWED = tuple(
    flags & KNOWN_FLAGS if flags & TraceFlags.SAMPLED else None for flags in range(256)
)


def _below_caller(header: str) -> OnlySpan | None:
    """Return a context of the span that a whole header of version 00 names, and nothing else.

    None for all that takes more care.

    Decoding says what is no hexadecimal digit, and takes half as long behind these comparisons as
    behind a regular expression. Nearly every request is read, so nothing is put off.
    """
    if len(header) != _LENGTH_00 or not header[2] == header[35] == header[52] == "-":
        return None
    try:
        # Exactly three: a fourth dash is no digit.
        version, digits, span_id, flags = _unpack(unhexlify(header.replace("-", "", 3)))
    except ValueError:
        return None
    trace_id = _number(digits, "big")
    if version or not trace_id or not span_id or header != header.lower():
        return None
    span: RemoteSpan = RemoteSpan()
    span._context = new_span_context(
        SpanContext, (trace_id, span_id, True, _FLAGS_OF[flags], DEFAULT_TRACE_STATE, True)
    )
    span.followed_flags = _FOLLOWED[flags]
    # with_span(), written out for most requests.
    only = OnlySpan()
    only.span = span
    return only


class TraceContextPropagator(TextMapPropagator):
    """Carry the span context in `traceparent` and `tracestate`.

    Attributes:
        refused: How often what came in could not be used, by reason. A bad tracestate is found
            and counted when it is first read.

    Concurrency: any thread. Cost: on the path of every request, in and out.
    Source: https://www.w3.org/TR/trace-context-2/
    """

    context_alone = staticmethod(_below_caller)
    """Takes a header traceparent; returns the context that :meth:`extract` makes of it where there
    is no tracestate, or None where that must be asked."""

    # A tracestate alone is not looked at.
    extracts_headers = ("traceparent", "Traceparent")
    reads = ("traceparent", "tracestate")

    def __init__(self) -> None:
        self.refused: dict[str, int] = {}

    @property
    def fields(self) -> set[str]:
        return {"traceparent", "tracestate"}

    def inject(
        self,
        carrier: Any,
        context: Context | None = None,
        setter: Setter[Any] = default_setter,
    ) -> None:
        """Write the headers of the context's span, if that has a valid span context.

        A tracestate of more than 512 characters is cut by whole members, as the Level 2 text
        orders: those over 128 characters first, then from the end.
        """
        if context is None:
            context = current_context()
        span: Any = context.span if type(context) is OnlySpan else context.get(SPAN_KEY)
        if type(span) in PLAIN_SPANS and not span._binding.marks_parents:
            trace_id, span_id = span._trace_id, span._span_id
            flags, state, _, _ = span._anchor
        elif span is None:
            return
        else:
            trace_id, span_id, flags, state, is_valid = _told_by(span, context)
            if not is_valid:
                return
        # The cheapest way to padded hex, a dash behind the first 16 bytes; format() takes twice as
        # long for each of the two.
        ids = (trace_id << 64 | span_id).to_bytes(24, "big").hex("-", -16)
        header = f"00-{ids}{_FLAGS_TEXT[flags]}"
        if setter is default_setter and type(carrier) is dict:
            carrier["traceparent"] = header
        else:
            setter.set(carrier, "traceparent", header)
        if state is not None:
            _inject_state(carrier, state, setter)

    @staticmethod
    def traceparent_alone(span: Any) -> str | None:
        """Return all that :meth:`inject` would write of a span that is current, and nothing else.

        None where it would write more, less or otherwise.

        Args:
            span: Has started.

        Cost: a third of the steps, and no dictionary.
        """
        if type(span) in PLAIN_SPANS and not span._binding.marks_parents:
            flags, state, _, _ = span._anchor
            if state is None:  # as in inject(), without its frame
                # Each by itself: warm that takes longer than both at once, and cold, as behind a
                # wait for a service, half as long.
                trace_id = span._trace_id.to_bytes(16, "big").hex()
                span_id = span._span_id.to_bytes(8, "big").hex()
                return f"00-{trace_id}-{span_id}{_FLAGS_TEXT[flags]}"
        return None

    def extract(
        self,
        carrier: Any,
        context: Context | None = None,
        getter: Getter[Any] = default_getter,
    ) -> Context:
        """Return the context with the caller's span as remote parent.

        The context is returned as it is when there is no traceparent or it is not valid, and a
        new empty one when none was given.
        """
        if getter is default_getter and type(carrier) is dict:
            header = carrier.get("traceparent")
            if type(header) is str and (only := _below_caller(header)) is not None:
                if "tracestate" in carrier:
                    self._keep_state(only.span, carrier, getter)
                if context is not None and context is not NO_CONTEXT:
                    return with_span(context, only.span)
                return only
            if header is None and "Traceparent" not in carrier:
                return Context() if context is None else context
        return self._extract_any(carrier, Context() if context is None else context, getter)

    def _extract_any(self, carrier: Any, context: Context, getter: Getter[Any]) -> Context:
        found = header_values(carrier, "traceparent", getter, "Traceparent")
        if not found:
            return context
        is_text = len(found) == 1 and type(found[0]) is str
        only: Any = _below_caller(found[0]) if is_text else None
        if only is None:
            try:
                only = _below_caller(_checked(found))
            except RefusedError as error:
                # "If the vendor failed to parse traceparent, it MUST NOT attempt to parse
                # tracestate": https://www.w3.org/TR/trace-context-2/#tracestate-header
                count_refusal(self.refused, error.reason)
                return context
        self._keep_state(only.span, carrier, getter)
        return with_span(context, only.span)

    def _keep_state(self, span: RemoteSpan, carrier: Any, getter: Getter[Any]) -> None:
        values = header_values(carrier, "tracestate", getter, "Tracestate")
        if not values:
            return
        try:
            state = RemoteTraceState.received(_combined(values), self.refused)
        except RefusedError as error:
            # "failure to parse tracestate MUST NOT affect the parsing of traceparent"
            count_refusal(self.refused, error.reason)
            return
        trace_id, span_id, is_remote, flags, _, _ = span._context
        span._context = span_context(trace_id, span_id, is_remote, flags, state)
        span.followed_flags = None


def _told_by(span: Any, context: Context) -> tuple[int, int, int, TraceState | None, bool]:
    """Return ids, flags, trace state (None when it is empty) and validity, as any span says."""
    try:
        # A SpanContext is a tuple, and its properties are calls.
        trace_id, span_id, _, flags, state, valid = span.get_span_context()
    except (AttributeError, TypeError, ValueError):
        # What is no span has an invalid context here, and a SpanContext may have any layout.
        found = get_current_span(context).get_span_context()
        trace_id, span_id, flags = found.trace_id, found.span_id, found.trace_flags
        state, valid = found.trace_state, found.is_valid
    return trace_id, span_id, flags & 0xFF, None if state is DEFAULT_TRACE_STATE else state, valid


def _inject_state(carrier: Any, state: TraceState, setter: Setter[Any]) -> None:
    if type(state) is RemoteTraceState:
        header = state.to_header()
    else:
        # Not its to_header(), which takes half as long again.
        header = ",".join([f"{key}={value}" for key, value in state.items()])
    if len(header) > MAX_SENT:
        header = truncated(header)
    # "Vendors [...] SHOULD avoid sending [empty tracestate headers]"
    if header:
        setter.set(carrier, "tracestate", header)


def _checked(values: list[Any]) -> str:
    """Return a traceparent in the form of version 00, or refuse it."""
    # The header is not a list: two of them, even alike, do not say who the parent is.
    if len(values) > 1:
        raise RefusedError("traceparent_repeated")
    header = values[0]
    if not isinstance(header, str):
        raise RefusedError("traceparent_type")
    if len(header) > _MAX_TRACEPARENT:
        raise RefusedError("traceparent_length")
    # White space around a field's value is the protocol's, not the value's:
    # https://www.rfc-editor.org/rfc/rfc9110#section-5.5
    header = header.strip(" \t")
    # "When the version prefix cannot be parsed [...] the implementation should restart the
    # trace." "Version ff is invalid": https://www.w3.org/TR/trace-context-2/#version
    if not _VERSION(header) or header.startswith("ff"):
        raise RefusedError("traceparent_version")
    # "If the size of the header is shorter than 55 characters, the vendor should not parse"
    if len(header) < _LENGTH_00:
        raise RefusedError("traceparent_length")
    # Version 00 ends here; a later one may go on, "either at the end of the string or followed
    # by a dash": https://www.w3.org/TR/trace-context-2/#versioning-of-traceparent
    if len(header) > _LENGTH_00 and (header.startswith("00") or header[_LENGTH_00] != "-"):
        raise RefusedError("traceparent_length")
    # "Vendors MUST ignore the traceparent when the parent-id is invalid (for example, if it
    # contains non-lowercase hex characters)": https://www.w3.org/TR/trace-context-2/#parent-id
    if not _FIELDS(header, 2, _LENGTH_00):
        raise RefusedError("traceparent_fields")
    # "Vendors MUST use these fields to construct the new traceparent field according to the
    # highest version of the specification known to the implementation"
    header = "00" + header[2:_LENGTH_00]
    # "All bytes as zero [...] is considered an invalid value."
    if not _VALID_00(header):
        raise RefusedError("traceparent_zero_id")
    return header


def _combined(values: list[Any]) -> str:
    """Join tracestate fields in their order, or refuse them unread.

    Source: https://www.rfc-editor.org/rfc/rfc9110#section-5.3
    """
    length = 0
    for value in values:
        if not isinstance(value, str):
            raise RefusedError("tracestate_type")
        length += len(value) + 1
    if length - 1 > MAX_RECEIVED:
        raise RefusedError("tracestate_length")
    return values[0] if len(values) == 1 else ",".join(values)


plugin: type[TextMapPropagator] = TraceContextPropagator
