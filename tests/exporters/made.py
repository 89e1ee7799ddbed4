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
        "context": context(span_id, trace_id),
        "start_time": start,
        "end_time": None if for_ms is None else start + int(for_ms * MS),
        **fields,
    }
    return SpanRecord(name=name, **values)


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


class Raising:
    """An object of which nothing can be asked."""

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(f"hostile {name}")

    def __repr__(self) -> str:
        raise RuntimeError("hostile repr")


class RaisingText(str):
    """A str whose own methods must not be called."""

    __slots__ = ()

    def __str__(self) -> str:
        raise RuntimeError("hostile str")

    def encode(self, *args: Any) -> bytes:
        raise RuntimeError("hostile encode")


class EndlessMap(Mapping[str, int]):
    """A mapping that never runs out of keys."""

    def __getitem__(self, key: str) -> int:
        return 1

    def __iter__(self) -> Iterator[str]:
        number = 0
        while True:
            yield f"key{number}"
            number += 1

    def __len__(self) -> int:
        return 1


class BrokenSpan:
    """A readable span of which the named fields raise when they are read."""

    def __init__(self, span: Any, *broken: str) -> None:
        self._span, self._broken = span, broken

    def __getattr__(self, name: str) -> Any:
        if name in self._broken:
            raise RuntimeError(f"hostile {name}")
        return getattr(self._span, name)


def _recursive() -> list[Any]:
    values: list[Any] = [1]
    values.append(values)
    return values


def _deep(levels: int) -> Any:
    value: Any = "bottom"
    for _ in range(levels):
        value = {"in": [value]}
    return value


def _laughing() -> Any:
    value: Any = ["ha"] * 10
    for _ in range(12):
        value = [value] * 10
    return value


HOSTILE_VALUES: dict[str, Any] = {
    "integer beyond 64 bits": 2**64,
    "integer of a million digits": -(10**1_000_000),
    "lone surrogate": "before \ud800 after",
    "not a number": float("nan"),
    "infinity": float("-inf"),
    "nested too deep": _deep(500),
    "recursive": _recursive(),
    "billion laughs": _laughing(),
    "endless mapping": EndlessMap(),
    "endless range": range(10**12),
    "object that raises": Raising(),
    "object": object(),
    "class": dict,
    "text that raises": RaisingText("text"),
    "megabyte": "x" * 1_000_000,
    "nothing": None,
    "bytes": b"\x00\xff",
    "set": {1},
    "complex": 1j,
    "control characters": "\x1b[2J\x00\r\n",
}

HOSTILE_SPANS: dict[str, Any] = {
    **{
        f"attribute: {name}": made(1, attributes={"hostile": value, "good": 1})
        for name, value in HOSTILE_VALUES.items()
    },
    "keys that are not str": made(1, attributes={1: "a", None: "b", "\ud800": "c", "good": 1}),
    "key that raises": made(1, attributes={Raising: 1, "good": 1}),
    "name that is not str": made(1, name=17, attributes={"good": 1}),
    "name that raises": made(1, name=Raising(), attributes={"good": 1}),
    "name with a surrogate": made(1, name="\udfff", attributes={"good": 1}),
    "empty name": made(1, name="", attributes={"good": 1}),
    "times before 1970": made(1, start_ms=-(10**13), attributes={"good": 1}),
    "times beyond 64 bits": made(1, for_ms=1e20, attributes={"good": 1}),
    "no start": made(1, start_time=None, end_time=None, attributes={"good": 1}),
    "ends before it starts": made(1, for_ms=-5, attributes={"good": 1}),
    "no kind": made(1, kind=None, attributes={"good": 1}),
    "no status": made(1, status=None, attributes={"good": 1}),
    "no resource": made(1, resource=None, attributes={"good": 1}),
    "no scope": made(1, instrumentation_scope=None, attributes={"good": 1}),
    "resource that raises": made(1, resource=Raising(), attributes={"good": 1}),
    "scope that raises": made(1, instrumentation_scope=Raising(), attributes={"good": 1}),
    "service that raises": made(1, service=Raising(), attributes={"good": 1}),
    "negative counts": made(1, dropped_attributes=-1, dropped_events=2**40, attributes={"good": 1}),
    "event that raises": made(1, events=(Raising(), Event("ok")), attributes={"good": 1}),
    "event time beyond 64 bits": made(1, events=(Event("e", {}, 2**70),), attributes={"good": 1}),
    "link that raises": made(1, links=(Raising(),), attributes={"good": 1}),
    "link without a context": made(1, links=(Link(None),), attributes={"good": 1}),  # type: ignore[arg-type]
    "its own parent": made(1, parent=1, attributes={"good": 1}),
    **{
        f"{field} raises": BrokenSpan(made(1, attributes={"good": 1}), field)
        for field in (
            *("name", "parent", "kind", "status", "start_time", "end_time", "events", "links"),
            *("resource", "instrumentation_scope", "dropped_attributes", "dropped_events"),
        )
    },
}
"""Spans that hold something odd; each must arrive, with its attribute ``good``."""

UNREADABLE_SPANS: dict[str, Any] = {
    "context raises": BrokenSpan(made(1), "context"),
    "no context": made(1, context=None),
    "ids beyond their size": made(2**64),
    "everything raises": Raising(),
    "not a span": object(),
}
"""Spans without ids that could be written; each is left out, and the others arrive."""
