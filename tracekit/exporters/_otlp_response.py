"""What OTLP servers answer: partial success, error status and retry delays, read by hand.

Source: https://opentelemetry.io/docs/specs/otlp/#otlphttp-response
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

__all__ = ["PartialSuccess", "error_message", "partial_success", "retry_delay_s"]

MAX_FIELDS = 1000


class PartialSuccess(NamedTuple):
    rejected: int
    message: str


def partial_success(body: bytes, is_json: bool) -> PartialSuccess:
    """Return how many spans an ExportTraceServiceResponse rejects, and the server's reason.

    What cannot be read rejects nothing: the status has said that the request was taken.
    """
    try:
        return _json_partial(body) if is_json else _protobuf_partial(body)
    except (ValueError, TypeError, AttributeError, RecursionError):
        return PartialSuccess(0, "")


def _json_partial(body: bytes) -> PartialSuccess:
    part = (json.loads(body) if body.strip() else {}).get("partialSuccess") or {}
    return PartialSuccess(int(part.get("rejectedSpans") or 0), str(part.get("errorMessage") or ""))


def _protobuf_partial(body: bytes) -> PartialSuccess:
    """ExportTraceServiceResponse {partial_success=1 {rejected_spans=1, error_message=2}}."""
    rejected, message = 0, ""
    for part in _messages(body, 1):
        for number, value in _fields(part):
            if number == 1 and isinstance(value, int):
                rejected = value if value < 2**63 else value - 2**64
            elif number == 2 and isinstance(value, bytes):
                message = value.decode("utf-8", "replace")
    return PartialSuccess(rejected, message)


def error_message(body: bytes, content_type: str) -> str:
    """Return the reason in the body of an error: a google.rpc.Status, or whatever text it is."""
    if content_type == "application/x-protobuf":
        try:
            texts = list(_messages(body, 2))
            return texts[-1].decode("utf-8", "replace") if texts else ""
        except ValueError:
            pass
    elif content_type == "application/json":
        try:
            found = json.loads(body)
            if isinstance(found, dict) and isinstance(found.get("message"), str):
                return str(found["message"])
        except (ValueError, RecursionError):
            pass
    return body[:4096].decode("utf-8", "replace")


def retry_delay_s(status: bytes) -> float | None:
    """Return the delay of the RetryInfo among a google.rpc.Status's details; None without one.

    Status {details=3 {type_url=1, value=2}}, RetryInfo {retry_delay=1 {seconds=1, nanos=2}}.
    """
    try:
        for detail in _messages(status, 3):
            (type_url,) = list(_messages(detail, 1)) or [b""]
            if type_url.endswith(b"google.rpc.RetryInfo"):
                return sum(map(_duration_s, _messages(b"".join(_messages(detail, 2)), 1)))
    except ValueError:
        pass
    return None


def _duration_s(message: bytes) -> float:
    parts = {number: value for number, value in _fields(message) if isinstance(value, int)}
    return float(parts.get(1, 0)) + parts.get(2, 0) / 1e9


def _messages(body: bytes, wanted: int) -> Iterator[bytes]:
    """Yield the length-delimited values of one field."""
    for number, value in _fields(body):
        if number == wanted and isinstance(value, bytes):
            yield value


def _fields(body: bytes) -> Iterator[tuple[int, Any]]:
    """Yield field numbers with an int (varint), or bytes (all else).

    Raises:
        ValueError: It is not protobuf, or has more fields than any answer needs.
    """
    position = count = 0
    while position < len(body):
        count += 1
        if count > MAX_FIELDS:
            raise ValueError("too many fields")
        tag, position = _varint(body, position)
        number, wire_type = tag >> 3, tag & 7
        if wire_type == 0:
            value, position = _varint(body, position)
            yield number, value
            continue
        if wire_type == 2:
            size, position = _varint(body, position)
        elif wire_type in (1, 5):
            size = 8 if wire_type == 1 else 4
        else:
            raise ValueError("not a wire type")
        if position + size > len(body):
            raise ValueError("cut short")
        yield number, body[position : position + size]
        position += size


def _varint(body: bytes, position: int) -> tuple[int, int]:
    number = 0
    for shift in range(0, 70, 7):
        if position >= len(body):
            raise ValueError("cut short")
        byte = body[position]
        position += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, position
    raise ValueError("a varint without end")
