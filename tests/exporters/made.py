"""Spans made by hand: plain ones, a whole trace, and those that nobody should have to encode."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from tracekit.model import Event, InstrumentationScope, Resource, SpanRecord

TRACE_ID = 0x4BF92F3577B34DA6A3CE929D0E0E4736
EPOCH = 1_700_000_000_000_000_000
MS = 1_000_000
SCOPE = InstrumentationScope("made", "1.0")


def context(span_id: int, trace_id: int = TRACE_ID, *, is_remote: bool = False) -> SpanContext:
    return SpanContext(trace_id, span_id, is_remote, TraceFlags(1))


def made(
    span_id: int,
    name: str = "work",
    parent: int | None = None,
    start_ms: float = 0,
    for_ms: float | None = 10,
    **fields: Any,
) -> SpanRecord:
    """Make a record: times in milliseconds of a common start, ``for_ms=None`` for one not ended."""
    trace_id = fields.pop("trace_id", TRACE_ID)
    is_remote = fields.pop("parent_is_remote", False)
    service = fields.pop("service", "shop")
    if message := fields.pop("error", None):
        fields["status"] = Status(StatusCode.ERROR, message)
    start = EPOCH + int(start_ms * MS)
    values = {
        "parent": context(parent, trace_id, is_remote=is_remote) if parent else None,
        "resource": Resource({"service.name": service}),
        "instrumentation_scope": SCOPE,
        "start_time": start,
        "end_time": None if for_ms is None else start + int(for_ms * MS),
        **fields,
    }
    return SpanRecord(name=name, context=context(span_id, trace_id), **values)


def checkout() -> list[SpanRecord]:
    """Return the trace of a checkout that waits for a fraud check which answers too late."""
    timeout = Event(
        "exception",
        {
            "exception.type": "requests.exceptions.ReadTimeout",
            "exception.message": "HTTPConnectionPool(host='fraud', port=8004): Read timed out.",
        },
        EPOCH + 2990 * MS,
    )
    client, server = {"kind": SpanKind.CLIENT}, {"kind": SpanKind.SERVER}
    ok = {"http.response.status_code": 200}
    query = {"db.system.name": "sqlite", "db.query.text": "SELECT price FROM items WHERE id = ?"}
    spans = [
        made(
            1,
            "POST /checkout",
            None,
            0,
            3020,
            service="gateway",
            **server,
            attributes={**ok, "http.route": "/checkout"},
        ),
        made(
            2,
            "POST",
            1,
            2,
            31,
            service="gateway",
            **client,
            attributes={**ok, "url.full": "http://auth:8001/verify?token=x"},
        ),
        made(
            3,
            "POST /verify",
            2,
            4,
            27,
            service="auth",
            **server,
            attributes={**ok, "http.route": "/verify"},
        ),
        made(4, "check password", 3, 5, 25, service="auth", attributes={"user.id": 42}),
        made(
            5,
            "POST",
            1,
            36,
            2980,
            service="gateway",
            **client,
            attributes={**ok, "url.full": "http://orders:8002/orders"},
        ),
        made(
            6,
            "POST /orders",
            5,
            38,
            2975,
            service="orders",
            **server,
            attributes={**ok, "http.route": "/orders"},
        ),
    ]
    spans += [
        made(
            20 + n, "SELECT items", 6, 40 + 2.5 * n, 2, service="orders", **client, attributes=query
        )
        for n in range(12)
    ]
    spans += [
        made(
            7,
            "POST",
            6,
            80,
            2930,
            service="orders",
            **client,
            attributes={"http.response.status_code": 402, "url.full": "http://payment:8003/pay"},
            error="",
        ),
        made(
            8,
            "POST /pay",
            7,
            82,
            2925,
            service="payment",
            **server,
            attributes={"http.response.status_code": 402, "http.route": "/pay"},
        ),
        made(
            9,
            "POST",
            8,
            140,
            2850,
            service="payment",
            **client,
            attributes={"url.full": "http://fraud:8004/score", "error.type": "ReadTimeout"},
            events=(timeout,),
            error="Read timed out",
        ),
        made(
            10,
            "charge card",
            8,
            84,
            50,
            service="payment",
            attributes={"amount": 12.5, "currency": "EUR"},
        ),
    ]
    return spans
