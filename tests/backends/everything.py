"""A trace that holds all that a span can hold, of every type and at its limits."""

from __future__ import annotations

from typing import Any

from opentelemetry.trace import (
    Link,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    TraceState,
)

from tracekit.model import Event, InstrumentationScope, Resource, SpanRecord

__all__ = ["NOT_FINITE", "SHORT", "everything"]

# Ids begin with zeros: as numbers they are shorter than their texts.
_TRACE = 0x0AF7651916CD43DD0048EB211C80319C
_REMOTE = 0x00F067AA0BA902B7
_OTHER_TRACE = 0x000000000000000100000000000000FF

_START = 1_700_000_000_123_456_789
_STATE = TraceState([("congo", "t61rcWkgMzE"), ("ot", "th:8;rv:ffffffffffffff")])

TEXTS = {
    "text": "plain",
    "text.empty": "",
    "text.unicode": "naïve Ω 漢字 👩‍👩‍👧 e\u0301 \u202e",
    "text.controls": 'tab\t newline\n quote" backslash\\ nul\x00 bell\x07',
    "text.long": "x" * 70_000,
    "κλειδί with spaces": "a key of any letters",
}
NUMBERS = {
    "int.zero": 0,
    "int.small": -1,
    "int.largest": 2**63 - 1,
    "int.smallest": -(2**63),
    "int.beyond a double": 2**53 + 1,
    "float": 12.5,
    "float.whole": 3.0,
    "float.negative zero": -0.0,
    "float.tiny": 5e-324,
    "float.huge": 1.7976931348623157e308,
    "bool.true": True,
    "bool.false": False,
}
COMPOSITES = {
    "bytes": b"\x00\xff\xfe",
    "nothing": None,
    "array.texts": ["a", "", "ü"],
    "array.ints": [1, -(2**63)],
    "array.floats": [1.0, 2.5],
    "array.bools": [True, False],
    "array.empty": [],
    "array.mixed": [1, "a", None, [True]],
    "map": {"a": 1, "b": {"c": [1.5, {"d": "e"}]}, "empty": {}},
}

_SHOP = Resource(
    {
        "service.name": "shop",
        "service.version": "1.2.3",
        "service.instance.id": "c0ffee",
        "deployment.environment.name": "test",
        "process.pid": 4711,
        "process.command_args": ["python", "-m", "shop"],
        "host.name": "höst",
        "ratio": 0.25,
        "is.canary": True,
    },
    "https://opentelemetry.io/schemas/1.27.0",
)
_STOCK = Resource({"service.name": "stock"})

_LIBRARY = InstrumentationScope(
    "library", "2.1", "https://opentelemetry.io/schemas/1.26.0", {"scope.flag": True, "n": 1}
)
_BARE = InstrumentationScope("bare")


def _context(span_id: int, state: TraceState | None = None) -> SpanContext:
    return SpanContext(_TRACE, span_id, False, TraceFlags(0x03), state or TraceState())


def _span(number: int, name: str, below: int, **fields: Any) -> SpanRecord:
    values: dict[str, Any] = {
        "context": _context(number),
        "parent": _context(below),
        "start_time": _START + number,
        "end_time": _START + number + 5_000_001,
        "resource": _SHOP,
        "instrumentation_scope": _LIBRARY,
    }
    return SpanRecord(name=name, **{**values, **fields})


def everything() -> list[SpanRecord]:
    remote = SpanContext(_TRACE, _REMOTE, True, TraceFlags(1), _STATE)
    elsewhere = SpanContext(_OTHER_TRACE, 0x0A, True, TraceFlags(0), TraceState([("k", "v")]))
    http = {"http.request.method": "GET", "http.response.status_code": 503}
    return [
        _span(
            0x10,
            "GET /κατάλογος/{id}",
            _REMOTE,
            context=_context(0x10, _STATE),
            parent=remote,
            kind=SpanKind.SERVER,
            attributes={**TEXTS, **NUMBERS, **COMPOSITES, **http, "http.route": "/κατάλογος/{id}"},
        ),
        _span(
            0x11,
            "fails",
            0x10,
            status=Status(StatusCode.ERROR, "it broke: ü"),
            events=(
                Event("first", {}, _START + 1),
                Event("événement", {**TEXTS, **NUMBERS, **COMPOSITES}, _START + 2_000),
                Event(
                    "exception",
                    {
                        "exception.type": "shop.OutOfStock",
                        "exception.message": "no more",
                        "exception.stacktrace": "Traceback\n  in shop",
                    },
                    _START + 3_000,
                    2,
                ),
            ),
        ),
        _span(
            0x12,
            "calls",
            0x11,
            kind=SpanKind.CLIENT,
            status=Status(StatusCode.OK),
            attributes={
                **http,
                "peer.service": "stock",
                "server.address": "stock.example",
                "network.peer.address": "192.0.2.7",
                "network.peer.port": 8443,
            },
            links=(Link(elsewhere, {"why": "batch", "n": 3, "list": [1]}), Link(_context(0x10))),
        ),
        _span(
            0x13,
            "answers",
            0x12,
            kind=SpanKind.SERVER,
            resource=_STOCK,
            instrumentation_scope=_BARE,
            status=Status(StatusCode.ERROR),
        ),
        _span(0x14, "sends", 0x13, kind=SpanKind.PRODUCER, resource=_STOCK),
        _span(
            0x15,
            "receives",
            0x14,
            kind=SpanKind.CONSUMER,
            dropped_attributes=3,
            dropped_events=2,
            dropped_links=1,
        ),
        _span(0x16, "", 0x10, end_time=_START + 0x16),
        _span(2**64 - 2, "largest id", 0x16, start_time=_START, end_time=_START + 10**12),
    ]


SHORT = [
    SpanRecord(
        "short ids",
        SpanContext(_OTHER_TRACE & (2**64 - 1), 0x0F, False, TraceFlags(1)),
        start_time=_START,
        end_time=_START + 1_000,
        resource=_STOCK,
        instrumentation_scope=_BARE,
    )
]
"""A trace whose id has 64 bits, as older tracers make them."""

NOT_FINITE = [
    SpanRecord(
        "not finite",
        SpanContext(_TRACE + 1, 0x20, False, TraceFlags(1)),
        start_time=_START,
        end_time=_START + 1_000,
        attributes={"nan": float("nan"), "up": float("inf"), "down": float("-inf")},
        resource=_STOCK,
        instrumentation_scope=_BARE,
    )
]
"""Numbers for which JSON has no form."""
