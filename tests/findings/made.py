"""Traces with known faults: shapes, sizes and noise, and what a finding must say of each.

A ``Scene`` is a trace in the making: calls are put one after another on a clock that moves.
Each fault is a function that adds itself to a scene; ``FAULTS`` names them with the kinds that
must be found. Noise adds what is innocent, or what hides the fault.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

from tracekit.model import Event, Resource, SpanRecord

MS = 1_000_000
EPOCH = 1_700_000_000_000_000_000
CLIENT, SERVER, INTERNAL = SpanKind.CLIENT, SpanKind.SERVER, SpanKind.INTERNAL


@dataclass
class Open:
    """A span that has begun."""

    name: str
    service: str
    kind: SpanKind
    span_id: int
    parent: Open | None
    start: int
    attributes: dict[str, Any] = field(default_factory=dict)
    end: int = 0
    failed: str | None = None
    events: list[Event] = field(default_factory=list)


class Scene:
    """A trace in the making, with a clock in milliseconds."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.trace_id = self.random.getrandbits(127) | 1
        self.now = EPOCH
        self.done: list[Open] = []
        self.stack: list[Open] = []

    def between(self, low: float, high: float) -> float:
        return self.random.uniform(low, high)

    def rest(self, ms: float) -> None:
        self.now += round(ms * MS)

    @contextmanager
    def span(
        self,
        service: str,
        name: str,
        kind: SpanKind = INTERNAL,
        *,
        failed: str | None = None,
        **attributes: Any,
    ) -> Iterator[Open]:
        parent = self.stack[-1] if self.stack else None
        made = Open(
            name, service, kind, self.random.getrandbits(63) | 1, parent, self.now, attributes
        )
        made.failed = failed
        self.stack.append(made)
        yield made
        self.stack.pop()
        made.end = made.end or self.now
        self.done.append(made)

    def query(self, service: str, text: str, ms: float, parameters: str = "", **more: Any) -> None:
        words = text.split()
        table = words[words.index("FROM") + 1] if "FROM" in words else words[2]
        attributes = {
            "db.system.name": "postgresql",
            "db.namespace": "shop",
            "server.address": "db",
            "db.query.text": text,
            "db.query.summary": f"{words[0]} {table}",
            "tracekit.db.query.hash": f"{hash(text) & 0xFFFFFFFF:08x}",
            **({"tracekit.db.parameters.hash": parameters} if parameters else {}),
            **more,
        }
        with self.span(service, f"{words[0]} {table}", CLIENT, **_dotted(attributes)):
            self.rest(ms)

    @contextmanager
    def blocking(
        self, service: str, name: str, ms: float, kind: SpanKind = INTERNAL
    ) -> Iterator[Open]:
        """A span that holds the event loop up at its beginning, seen half way."""
        began = self.now
        code = {
            "code.function.name": f"app.{name}",
            "code.file.path": "/srv/app.py",
            "code.line.number": 11,
        }
        with self.span(service, name, kind, **{"tracekit.loop.blocked_ms": ms}) as made:
            self.rest(ms)
            made.events.append(Event("tracekit.loop.blocked", code, began + round(ms * MS / 2)))
            yield made

    @contextmanager
    def http(
        self,
        caller: str,
        callee: str,
        method: str = "GET",
        path: str = "/",
        status: int = 200,
        error: str | None = None,
        **more: Any,
    ) -> Iterator[Open]:
        """A call: the client's span, and inside it the server's, which is yielded."""
        attributes = {
            "http.request.method": method,
            "url.full": f"http://{callee}:80{path}",
            "server.address": callee,
            "server.port": 80,
            **({} if error else {"http.response.status_code": status}),
            **({"error.type": error} if error else {}),
            **more,
        }
        client_failed = error or (f"status {status}" if status >= 400 else None)
        server_failed = f"status {status}" if status >= 500 and not error else None
        with self.span(caller, method, CLIENT, failed=client_failed, **_dotted(attributes)):
            self.rest(self.between(0.1, 0.4))
            with self.span(callee, f"{method} {path}", SERVER, failed=server_failed) as server:
                server.attributes["http.response.status_code"] = status
                yield server
            self.rest(self.between(0.1, 0.4))

    def outside(
        self,
        caller: str,
        host: str,
        ms: float,
        method: str = "POST",
        path: str = "/v1",
        status: int = 200,
        error: str | None = None,
        **more: Any,
    ) -> None:
        """A call to somebody who is not traced."""
        attributes = {
            "http.request.method": method,
            "url.full": f"https://{host}{path}",
            "server.address": host,
            "server.port": 443,
            **({"error.type": error} if error else {"http.response.status_code": status}),
            **more,
        }
        failed = error or (f"status {status}" if status >= 400 else None)
        with self.span(caller, method, CLIENT, failed=failed, **_dotted(attributes)):
            self.rest(ms)

    def at_once(self, calls: list[Callable[[], None]]) -> None:
        """Run calls that all begin now; the clock then stands at the last end."""
        began, latest = self.now, self.now
        for call in calls:
            self.now = began + round(self.between(0.01, 0.3) * MS)
            call()
            latest = max(latest, self.now)
        self.now = latest

    def records(self) -> list[SpanRecord]:
        return [self._record(span) for span in self.done]

    def _record(self, span: Open) -> SpanRecord:
        flags = TraceFlags(TraceFlags.SAMPLED)
        parent = None
        if span.parent is not None:
            is_remote = span.parent.service != span.service
            parent = SpanContext(self.trace_id, span.parent.span_id, is_remote, flags)
        events = tuple(span.events)
        if span.failed and "." in span.failed:
            events += (Event("exception", {"exception.type": span.failed}, span.end),)
        return SpanRecord(
            name=span.name,
            context=SpanContext(self.trace_id, span.span_id, False, flags),
            parent=parent,
            kind=span.kind,
            start_time=span.start,
            end_time=span.end,
            attributes=span.attributes,
            events=events,
            status=Status(StatusCode.ERROR, span.failed) if span.failed else Status(),
            resource=Resource({"service.name": span.service}),
        )


def _dotted(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return dict(attributes)


# What is innocent ----------------------------------------------------------------------------


def ordinary_work(scene: Scene, service: str, most: int = 4) -> None:
    """What every request does: a few queries and calls, each another question."""
    for _ in range(scene.random.randrange(1, most + 1)):
        kind = scene.random.randrange(4)
        if kind == 0:
            table = scene.random.choice(("carts", "prices", "stock", "users", "coupons"))
            key = f"{scene.random.getrandbits(48):012x}"
            column = scene.random.choice(("id", "sku", "owner"))
            text = f"SELECT * FROM {table} WHERE {column} = $1"
            scene.query(service, text, scene.between(0.5, 4), key)
        elif kind == 1:
            path = f"/{scene.random.choice(('a', 'b', 'c'))}/{scene.random.randrange(10**6)}"
            with scene.http(service, f"{service}-helper", "GET", path):
                scene.rest(scene.between(1, 8))
        elif kind == 2:
            with scene.span(service, scene.random.choice(("render", "validate", "price"))):
                scene.rest(scene.between(0.5, 5))
        else:
            key = f"{scene.random.getrandbits(48):012x}"
            scene.query(service, "INSERT INTO log VALUES ($1)", scene.between(0.5, 2), key)
        scene.rest(scene.between(0.2, 1))


# What is wrong -------------------------------------------------------------------------------

Fault = Callable[[Scene, int], None]


def same_row_by_one(scene: Scene, size: int) -> None:
    for _ in range(2 + size):
        scene.query("orders", "SELECT * FROM users WHERE id = $1", scene.between(8, 14), "u7")
        scene.rest(1)


def same_row_by_three(scene: Scene, size: int) -> None:
    for service in ("auth", "cart", "profile"):
        with scene.http("orders", service, "GET", f"/{service}"):
            for _ in range(1 + size // 3):
                text = "SELECT * FROM users WHERE id = $1"
                scene.query(service, text, scene.between(15, 25), "u7")


def same_literal_query(scene: Scene, size: int) -> None:
    for _ in range(2 + size):
        text = "SELECT * FROM settings"
        scene.query("orders", text, scene.between(8, 12))
        scene.rest(0.5)


def same_page_twice(scene: Scene, size: int) -> None:
    for _ in range(2 + size // 2):
        with scene.http("orders", "catalog", "GET", "/products/7"):
            scene.rest(scene.between(15, 25))


def same_outside_read(scene: Scene, size: int) -> None:
    for _ in range(2 + size // 2):
        scene.outside("orders", "rates.example", scene.between(20, 30), "GET", "/eur")
        ordinary_work(scene, "orders", 1)


def same_redis_key(scene: Scene, size: int) -> None:
    for _ in range(6 + size):
        scene.query(
            "orders", "GET FROM session", scene.between(3, 5), "s1", **{"db.system.name": "redis"}
        )


def list_then_each(scene: Scene, size: int) -> None:
    scene.query("orders", "SELECT id FROM items WHERE cart = $1", 3, "c1")
    for number in range(6 + 3 * size):
        text = "SELECT * FROM products WHERE id = $1"
        scene.query("orders", text, scene.between(3, 5), f"p{number}")
        scene.rest(0.3)


def list_then_each_in_functions(scene: Scene, size: int) -> None:
    for number in range(6 + 3 * size):
        with scene.span("orders", "load_product"):
            scene.rest(0.2)
            text = "SELECT * FROM products WHERE id = $1"
            scene.query("orders", text, scene.between(3, 5), f"p{number}")


def list_then_each_unknown(scene: Scene, size: int) -> None:
    for _ in range(6 + 3 * size):
        scene.query("orders", "SELECT * FROM products WHERE id = %s", scene.between(3, 5))
        scene.rest(0.1)


def insert_one_by_one(scene: Scene, size: int) -> None:
    for number in range(6 + 3 * size):
        text = "INSERT INTO lines VALUES ($1, $2)"
        scene.query("orders", text, scene.between(3, 5), f"l{number}")


def page_for_each(scene: Scene, size: int) -> None:
    for number in range(6 + 2 * size):
        with scene.http("orders", "catalog", "GET", f"/products/{number + 10}"):
            scene.rest(scene.between(4, 7))


def retried_then_fine(scene: Scene, size: int) -> None:
    for _ in range(1 + size // 3):
        scene.outside("orders", "bank.example", scene.between(40, 60), status=503)
        scene.rest(10)
    scene.outside("orders", "bank.example", scene.between(40, 60))


def retried_in_vain(scene: Scene, size: int) -> None:
    for number in range(2 + size // 2):
        more = {"http.request.resend_count": number} if number else {}
        scene.outside("orders", "bank.example", scene.between(80, 120), status=503, **more)
        scene.rest(5)


def retried_after_timeout(scene: Scene, size: int) -> None:
    for _ in range(2 + size // 3):
        scene.outside("orders", "bank.example", 100, error="httpx.ReadTimeout")
        scene.rest(3)
    scene.outside("orders", "bank.example", 30)


def retried_refusal(scene: Scene, size: int) -> None:
    for _ in range(3 + size // 3):
        scene.outside("orders", "bank.example", scene.between(20, 40), status=422)
        scene.rest(5)


def retried_connection(scene: Scene, size: int) -> None:
    for number in range(2 + size // 3):
        more = {"http.request.resend_count": number} if number else {}
        error = "requests.ConnectionError"
        scene.outside("orders", "bank.example", scene.between(5, 9), error=error, **more)
        scene.rest(30)
    scene.outside("orders", "bank.example", 20, **{"http.request.resend_count": 9})


def retried_in_two_layers(scene: Scene, size: int) -> None:
    for outer in range(2):
        status = 503 if outer == 0 else 200
        with scene.http("orders", "payment", "POST", "/pay", status):
            for _ in range(2 + size // 4):
                scene.outside("payment", "bank.example", scene.between(30, 50), status=503)
                scene.rest(5)
            if outer:
                scene.outside("payment", "bank.example", scene.between(30, 50))
        scene.rest(5)


def _gives_up(scene: Scene, caller: str, callee: str, after_ms: float, takes_ms: float) -> None:
    began = scene.now
    with scene.http(caller, callee, "POST", "/work", error="httpx.ReadTimeout"):
        scene.rest(takes_ms)
    client = scene.done[-1]
    client.end = began + round(after_ms * MS)
    client.attributes["tracekit.timeout.total_s"] = after_ms / 1000
    scene.now = client.end


def gives_up_while_callee_works(scene: Scene, size: int) -> None:
    _gives_up(scene, "orders", "stock", 60 + 20 * size, 300 + 100 * size)


def gives_up_twice(scene: Scene, size: int) -> None:
    began = scene.now
    with scene.http("orders", "stock", "POST", "/work", error="httpx.ReadTimeout"):
        inner = scene.now
        with scene.http("stock", "depot", "POST", "/count", error="httpx.ReadTimeout"):
            scene.rest(600 + 100 * size)
        scene.done[-1].end = inner + 300 * MS
        scene.now = inner + 301 * MS
    scene.done[-1].end = began + 100 * MS
    scene.now = began + 100 * MS


def slow_query(scene: Scene, size: int) -> None:
    scene.query("orders", "SELECT * FROM reports WHERE day = $1", 900 + 400 * size, "d1")


def slow_outside(scene: Scene, size: int) -> None:
    scene.outside("orders", "tax.example", 900 + 400 * size)


def slow_until_timeout(scene: Scene, size: int) -> None:
    scene.outside("orders", "fraud.example", 1000 + 500 * size, error="httpx.ReadTimeout")


def slow_function(scene: Scene, size: int) -> None:
    with scene.span("orders", "compress"):
        scene.rest(900 + 400 * size)


def slow_below(scene: Scene, size: int) -> None:
    with scene.http("orders", "search", "GET", "/search"):
        scene.rest(2)
        with scene.span("search", "rank"):
            scene.rest(900 + 400 * size)


def slow_gap(scene: Scene, size: int) -> None:
    with scene.span("orders", "export"):
        scene.query("orders", "SELECT * FROM exports WHERE id = $1", 2, "e1")
        scene.rest(900 + 400 * size)


def fails_below(scene: Scene, size: int) -> None:
    with scene.http("orders", "stock", "GET", "/stock", 500):
        ordinary_work(scene, "stock")
        with scene.span("stock", "count", failed="builtins.ValueError"):
            scene.rest(2)
    scene.stack[0].failed = "status 500"


def fails_two_services_down(scene: Scene, size: int) -> None:
    above = scene.http("orders", "stock", "GET", "/stock", 502)
    below = scene.http("stock", "depot", "GET", "/depot", 500)
    with above, below:
        ordinary_work(scene, "depot")
        with scene.span("depot", "open", failed="builtins.OSError"):
            scene.rest(1)
    scene.stack[0].failed = "status 502"


def fails_in_query(scene: Scene, size: int) -> None:
    more = {"db.response.status_code": "42P01", "error.type": "42P01"}
    scene.query("orders", "SELECT * FROM nowhere WHERE id = $1", 2, "n1", **more)
    scene.done[-1].failed = "no such table"
    scene.stack[0].failed = "status 500"


def fails_itself(scene: Scene, size: int) -> None:
    scene.stack[0].failed = "builtins.KeyError"


def fails_unnoticed(scene: Scene, size: int) -> None:
    with scene.span("orders", "send_mail", failed="smtplib.SMTPException"):
        scene.rest(4)


def asks_in_turn(scene: Scene, size: int) -> None:
    for name in ("user", "cart", "rates", "stock", "offers")[: 3 + size % 3]:
        with scene.http("orders", name, "GET", f"/{name}"):
            scene.rest(scene.between(90, 110))


def asks_databases_in_turn(scene: Scene, size: int) -> None:
    for table in ("users", "carts", "prices", "coupons")[: 3 + size % 2]:
        text = f"SELECT * FROM {table} WHERE owner = $1"
        scene.query("orders", text, scene.between(90, 110), f"{table}1")


def waits_for_pool(scene: Scene, size: int) -> None:
    wait = 40 + 20 * size
    with scene.span("orders", "load"):
        scene.rest(wait)
        more = {"tracekit.pool.wait_s": wait / 1000}
        scene.query("orders", "SELECT * FROM users WHERE id = $1", 3, "u1", **more)


def waits_for_pool_often(scene: Scene, size: int) -> None:
    for number in range(3):
        scene.rest(15 + 5 * size)
        more = {"tracekit.pool.wait_s": (15 + 5 * size) / 1000}
        text = f"SELECT * FROM t{number} WHERE id = $1"
        scene.query("orders", text, 2, f"u{number}", **more)


def waits_for_lock(scene: Scene, size: int) -> None:
    more = {"db.response.status_code": "55P03", "error.type": "55P03"}
    scene.query("orders", "UPDATE stock SET n = $1", 60 + 10 * size, "x", **more)
    scene.done[-1].failed = "lock not available"


def deadlock(scene: Scene, size: int) -> None:
    more = {"db.response.status_code": "40P01", "error.type": "40P01"}
    scene.query("orders", "UPDATE accounts SET n = $1", 60 + 10 * size, "x", **more)
    scene.done[-1].failed = "deadlock detected"
    scene.stack[0].failed = "status 500"


def computes_in_the_loop(scene: Scene, size: int) -> None:
    with scene.blocking("orders", "report", 60 + 20 * size):
        scene.query("orders", "SELECT * FROM reports WHERE id = $1", 3, "r1")


def blocks_again_and_again(scene: Scene, size: int) -> None:
    for number in range(2 + size // 2):
        with scene.blocking("orders", f"sign {number}", 30 + 5 * size):
            scene.query("orders", f"SELECT * FROM keys{number} WHERE id = $1", 3, f"k{number}")


def blocks_while_others_wait(scene: Scene, size: int) -> None:
    def compute() -> None:
        with scene.blocking("orders", "resize", 60 + 10 * size):
            scene.query("orders", "SELECT * FROM images WHERE id = $1", 3, "i1")

    def ask(name: str) -> Callable[[], None]:
        return lambda: scene.outside("orders", f"{name}.example", 80 + 10 * size, "GET", "/")

    scene.at_once([compute, ask("rates"), ask("tax")])


def blocks_one_service_down(scene: Scene, size: int) -> None:
    asked = scene.http("orders", "stock", "GET", "/stock")
    with asked, scene.blocking("stock", "count", 60 + 20 * size):
        scene.query("stock", "SELECT * FROM shelves WHERE id = $1", 3, "s1")


def asks_everybody(scene: Scene, size: int) -> None:
    def ask(number: int) -> Callable[[], None]:
        return lambda: scene.outside("orders", f"shard{number}", scene.between(20, 60), "GET", "/q")

    scene.at_once([ask(number) for number in range(25 + 10 * size)])


def asks_everybody_in_tasks(scene: Scene, size: int) -> None:
    def ask(number: int) -> None:
        with scene.span("orders", f"task {number}"):
            scene.outside("orders", f"shard{number}", scene.between(20, 60), "GET", "/q")

    scene.at_once([lambda number=number: ask(number) for number in range(25 + 10 * size)])


def talks_too_much(scene: Scene, size: int) -> None:
    for number in range(35 + 5 * size):
        text = f"SELECT * FROM table{number % 9} WHERE id = $1 AND v = {number % 9}"
        scene.query("orders", text, scene.between(2, 3), f"k{number}")
        scene.rest(scene.between(0.3, 0.8))


def talks_too_much_http(scene: Scene, size: int) -> None:
    for number in range(32 + 4 * size):
        path = f"/part{number % 8}/{number}"
        with scene.http("orders", "catalog", "POST", path):
            scene.rest(scene.between(2, 3))


def loses_a_parent(scene: Scene, size: int) -> None:
    with scene.span("orders", "lost") as lost:
        for _ in range(1 + size):
            ordinary_work(scene, "orders", 2)
    scene.done.remove(lost)


def starts_anew(scene: Scene, size: int) -> None:
    with scene.span("orders", "job") as job:
        for _ in range(1 + size):
            scene.query("orders", f"SELECT * FROM jobs{_} WHERE id = $1", 2, f"j{_}")
    job.parent = None


def is_its_own_ancestor(scene: Scene, size: int) -> None:
    with scene.span("orders", "loop") as outer:
        scene.rest(1)
        with scene.span("orders", "inner") as inner:
            scene.rest(2)
    outer.parent = inner


def is_hours_off(scene: Scene, size: int) -> None:
    with scene.http("orders", "stock", "GET", "/stock") as server:
        scene.rest(5)
    shift = (3600 + size) * 1000 * MS
    server.start -= shift
    server.end -= shift


# What else may be said, for it is true as well: these ask independent questions in turn.
MAY_BE_FOUND = {"same_row_by_three": {"serial_calls"}, "starts_anew": {"serial_calls"}}

FAULTS: dict[str, tuple[Fault, set[str]]] = {
    fault.__name__: (fault, kinds)
    for fault, kinds in (
        (same_row_by_one, {"redundant_calls"}),
        (same_row_by_three, {"redundant_calls"}),
        (same_literal_query, {"redundant_calls"}),
        (same_page_twice, {"redundant_calls"}),
        (same_outside_read, {"redundant_calls"}),
        (same_redis_key, {"redundant_calls"}),
        (list_then_each, {"n_plus_one"}),
        (list_then_each_in_functions, {"n_plus_one"}),
        (list_then_each_unknown, {"n_plus_one"}),
        (insert_one_by_one, {"n_plus_one"}),
        (page_for_each, {"n_plus_one"}),
        (retried_then_fine, {"retries"}),
        (retried_in_vain, {"retries", "first_failure"}),
        (retried_after_timeout, {"retries"}),
        (retried_refusal, {"retries"}),
        (retried_connection, {"retries"}),
        (retried_in_two_layers, {"retries"}),
        (gives_up_while_callee_works, {"timeouts", "first_failure"}),
        (gives_up_twice, {"timeouts", "first_failure"}),
        (slow_query, {"slow_step"}),
        (slow_outside, {"slow_step"}),
        (slow_until_timeout, {"slow_step", "first_failure"}),
        (slow_function, {"slow_step"}),
        (slow_below, {"slow_step"}),
        (slow_gap, {"slow_step"}),
        (fails_below, {"first_failure"}),
        (fails_two_services_down, {"first_failure"}),
        (fails_in_query, {"first_failure"}),
        (fails_itself, {"first_failure"}),
        (fails_unnoticed, {"first_failure"}),
        (asks_in_turn, {"serial_calls"}),
        (asks_databases_in_turn, {"serial_calls"}),
        (waits_for_pool, {"waiting"}),
        (waits_for_pool_often, {"waiting"}),
        (waits_for_lock, {"waiting", "first_failure"}),
        (deadlock, {"waiting", "first_failure"}),
        (computes_in_the_loop, {"blocked_loop"}),
        (blocks_again_and_again, {"blocked_loop"}),
        (blocks_while_others_wait, {"blocked_loop"}),
        (blocks_one_service_down, {"blocked_loop"}),
        (asks_everybody, {"fan_out"}),
        (asks_everybody_in_tasks, {"fan_out"}),
        (talks_too_much, {"chatty"}),
        (talks_too_much_http, {"chatty"}),
        (loses_a_parent, {"broken_propagation"}),
        (starts_anew, {"broken_propagation"}),
        (is_its_own_ancestor, {"broken_propagation"}),
        (is_hours_off, {"broken_propagation"}),
    )
}


# Noise ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Noise:
    """What surrounds a fault, or hides it."""

    interleaved: bool = False
    skew_ms: float = 0.0
    missing: float = 0.0
    twice: bool = False

    def add(self, records: list[SpanRecord], source: random.Random) -> list[SpanRecord]:
        if self.skew_ms:
            records = [_skewed(record, self.skew_ms) for record in records]
        if self.missing:
            inner = {record.parent.span_id for record in records if record.parent}
            records = [
                record
                for record in records
                # Spans that others hang on are kept: losing those is a fault of its own.
                if record.context.span_id in inner
                or record.kind is CLIENT
                or source.random() >= self.missing
            ]
        if self.twice:
            records = [*records, *source.sample(records, len(records) // 3)]
        source.shuffle(records)
        return records


def _skewed(record: SpanRecord, ms: float) -> SpanRecord:
    """Set back the clock of every service but the one that was asked."""
    if record.resource.attributes["service.name"] == "orders":
        return record
    shift = round(ms * MS)
    end = record.end_time
    return replace(
        record,
        events=tuple(
            Event(event.name, event.attributes, event.timestamp + shift) for event in record.events
        ),
        start_time=record.start_time + shift,
        end_time=None if end is None else end + shift,
    )


NOISES = {
    "none": Noise(),
    "interleaved": Noise(interleaved=True),
    "clock skew": Noise(skew_ms=-180),
    "missing leaves": Noise(interleaved=True, missing=0.3),
    "sent twice": Noise(twice=True),
}


def faulty(name: str, size: int, noise: Noise, seed: int) -> list[SpanRecord]:
    """Make a trace of one request with a fault in it."""
    scene = Scene(seed)
    fault, _ = FAULTS[name]
    with scene.span("orders", "POST /orders", SERVER):
        scene.rest(scene.between(1, 3))
        if noise.interleaved:
            ordinary_work(scene, "orders")
        fault(scene, size)
        if noise.interleaved:
            ordinary_work(scene, "orders")
        scene.rest(scene.between(1, 3))
    return noise.add(scene.records(), scene.random)


def healthy(seed: int) -> list[SpanRecord]:
    """Make a trace of one request in which nothing is wrong."""
    scene = Scene(seed)
    with scene.span("orders", "POST /orders", SERVER):
        for _ in range(scene.random.randrange(1, 5)):
            ordinary_work(scene, "orders")
            if scene.random.random() < 0.3:
                with scene.http("orders", "stock", "GET", f"/stock/{scene.random.random()}"):
                    ordinary_work(scene, "stock")
        scene.rest(scene.between(1, 3))
    return NOISES[scene.random.choice(["none", "clock skew", "sent twice"])].add(
        scene.records(), scene.random
    )
