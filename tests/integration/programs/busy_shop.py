"""A shop under load that checks its own traces.

FastAPI, SQLAlchemy on asyncpg, redis, httpx and celery, all of it instrumented.

``python busy_shop.py REQUESTS`` with ``DATABASE``, ``CACHE`` and ``BROKER`` in the environment;
prints a report as JSON. With ``PLAIN`` set nothing is traced: that is how much memory the service
itself takes. Each order has a number, which is its trace id, an inherited attribute of all its
spans, and what every layer is asked for: a span in another order's trace shows.

The celery worker is ``celery -A busy_shop worker``; ``WORKER_REPORT`` names the file that it
writes its own findings to when it ends, and ``ORDERS`` says how many it will get. Both measure what
they hold ten times, the shop while no order is under way.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import asynccontextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import celery
import celery.signals
from memory_held import held_memory
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

import tracekit

CONCURRENCY = 16
_TRACE = 0xB0550000 << 96  # + the order's number
_MOST_ORDERS = 1 << 40
_SAMPLES = 10

# Every order, in all, whatever the layers are made of.
EXPECTED = {
    "POST /orders/{number}": 1,
    "GET": 1,
    "GET /stock/{number}": 1,
    "INCRBY": 1,
    "EXPIRE": 1,
    "INSERT orders": 1,
    "SELECT orders": 1,
    "apply_async busy_shop.pack": 1,
}


class Checking(SpanExporter):
    """Keep the spans of an order until all are there, check them, and forget them.

    Counts what is wrong, and quotes the first few.
    """

    def __init__(self, expected: Counter[str]) -> None:
        self.expected = expected
        self.orders: dict[int, list[Any]] = {}
        self.whole = self.wrong = 0
        self.quoted: list[str] = []

    def export(self, spans: Any) -> SpanExportResult:
        for span in spans:
            number = span.context.trace_id - _TRACE
            if not 0 < number < _MOST_ORDERS:
                continue  # of no order: tables are made at the start
            found = self.orders.setdefault(number, [])
            found.append(span)
            if len(found) == self.expected.total():
                self.check(number, self.orders.pop(number))
        return SpanExportResult.SUCCESS

    def check(self, number: int, spans: list[Any]) -> None:
        names = Counter(_name_of(span) for span in spans)
        by_id = {span.context.span_id: span for span in spans}
        problems = [] if names == self.expected else [f"spans {dict(names)}"]
        for span in spans:
            if (span.attributes or {}).get("order") != number:
                problems.append(f"{span.name} says it is of {(span.attributes or {}).get('order')}")
            parent = by_id.get(span.parent.span_id if span.parent else 0)
            wanted = _parent_of(_name_of(span))
            if (parent.name if parent else None) != wanted:
                problems.append(f"{span.name} is below {parent.name if parent else None}")
        self.whole += 1
        self.wrong += bool(problems)
        if problems and len(self.quoted) < 5:
            self.quoted.append(f"order {number}: {'; '.join(problems)}")


def _name_of(span: Any) -> str:
    """Return a span's name without the server's address, whose port differs from run to run."""
    name: str = span.name
    return name.partition(" 127.0.0.1:")[0]


def _parent_of(name: str) -> str | None:
    """Return the name of the span that one of this name belongs below, None for the order's own."""
    if name == "POST /orders/{number}":
        return None
    return {"GET /stock/{number}": "GET", "EXPIRE": "GET /stock/{number}"}.get(
        name, "POST /orders/{number}"
    )


shop = celery.Celery("busy_shop", broker=os.environ["BROKER"])
shop.conf.update(
    broker_connection_retry_on_startup=True, task_ignore_result=True, worker_prefetch_multiplier=50
)
packed: dict[str, Any] = {"tasks": 0, "wrong": 0, "memory": []}


def _pack(number: int) -> None:
    """Check that the task is in its order's trace, below the message that carried it."""
    from opentelemetry import trace

    span: Any = trace.get_current_span()
    packed["tasks"] = done = packed["tasks"] + 1
    if "PLAIN" not in os.environ:
        packed["wrong"] += span.context.trace_id != _TRACE + number or span.parent is None
    if done % _tenth(int(os.environ["ORDERS"])) == 0:
        packed["memory"].append(held_memory())


def _tenth(orders: int) -> int:
    return max(orders // _SAMPLES, 1)


pack: Any = shop.task(name="busy_shop.pack")(_pack)


@celery.signals.worker_init.connect
def _trace_worker(**_: Any) -> None:
    if "PLAIN" in os.environ:
        return
    tracekit.configure("busy-worker", exporters=["none"])
    tracekit.instrument()


@celery.signals.worker_shutdown.connect
def _report(**_: Any) -> None:
    Path(os.environ["WORKER_REPORT"]).write_text(json.dumps(packed))


def make_app(base: str) -> Any:
    """Return the application whose orders ask itself, at `base`, for what is in stock."""
    import fastapi
    import httpx
    import redis.asyncio
    import sqlalchemy as sa
    from sqlalchemy.ext.asyncio import create_async_engine

    orders = sa.Table(
        "orders", sa.MetaData(), sa.Column("number", sa.BigInteger), sa.Column("stock", sa.Integer)
    )
    engine = create_async_engine(os.environ["DATABASE"], pool_size=CONCURRENCY)
    cache = redis.asyncio.Redis.from_url(os.environ["CACHE"], max_connections=4 * CONCURRENCY)
    client = httpx.AsyncClient(base_url=base, trust_env=False)

    @asynccontextmanager
    async def lifespan(app: Any) -> Any:
        async with engine.begin() as connection:
            await connection.run_sync(orders.metadata.create_all)
        yield
        await client.aclose()
        await cache.aclose()
        await engine.dispose()

    app = fastapi.FastAPI(lifespan=lifespan)

    @app.post("/orders/{number}")
    async def order(number: int) -> dict[str, int]:
        seen = await cache.incr(f"order:{number}")
        stock = (await client.get(f"/stock/{number}")).json()["stock"]
        async with engine.begin() as connection:
            await connection.execute(sa.insert(orders).values(number=number, stock=stock))
            query = sa.select(sa.func.count()).where(orders.c.number == number)
            count = (await connection.execute(query)).scalar_one()
        await asyncio.to_thread(pack.delay, number)
        return {"number": number, "seen": seen, "count": count}

    @app.get("/stock/{number}")
    async def stock(number: int) -> dict[str, int]:
        await cache.expire(f"order:{number}", 60)
        return {"stock": number % 100}

    return app


class _InheritNumber:
    """Give each request's number to all spans that it starts, from the header it came with."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        with tracekit.attributes(order=int(scope["path"].rpartition("/")[2])):
            await self.app(scope, receive, send)


async def ask(port: int, number: int) -> str:
    """Send one order on a connection of its own; return what went wrong, or nothing."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = (
        f"POST /orders/{number} HTTP/1.1\r\nHost: shop\r\nContent-Length: 0\r\n"
        f"traceparent: 00-{_TRACE + number:032x}-{number + 1:016x}-01\r\nConnection: close\r\n\r\n"
    )
    writer.write(head.encode())
    answer = await reader.read()
    writer.close()
    expected = {"number": number, "seen": 1, "count": 1}
    body = answer.rpartition(b"\r\n\r\n")[2]
    if answer.startswith(b"HTTP/1.1 200 ") and json.loads(body) == expected:
        return ""
    return answer.decode(errors="replace")[-300:]


async def drive(port: int, requests: int, checking: Checking) -> dict[str, Any]:
    """Send orders, so many at once; pause after each tenth of them, and measure the memory."""
    numbers = iter(range(1, requests + 1))
    errors: list[str] = []
    memory: list[dict[str, int]] = []
    done = 0

    async def customer(tenth: Iterator[int]) -> None:
        nonlocal done
        for number in tenth:
            error = await ask(port, number)
            if error:
                errors.append(error)
            done += 1

    while tenth := list(islice(numbers, _tenth(requests))):
        ordered = iter(tenth)
        await asyncio.gather(*(customer(ordered) for _ in range(CONCURRENCY)))
        await _settle(checking)
        memory.append(held_memory())
    return {
        "requests": done,
        "errors": errors[:5],
        "whole": checking.whole,
        "incomplete": len(checking.orders),
        "first_incomplete": [
            sorted(span.name for span in spans) for spans in list(checking.orders.values())[:1]
        ],
        "wrong": checking.wrong,
        "quoted": checking.quoted,
        "memory": memory,
        "lost": tracekit.stats().get("dropped", {}),
    }


async def _settle(checking: Checking) -> None:
    """Wait until the spans of all orders are there.

    A customer has the answer a moment before the server is done with it.
    """
    for _ in range(50):
        await asyncio.to_thread(tracekit.flush)
        if not checking.orders:
            break
        await asyncio.sleep(0.1)


async def main(requests: int) -> None:
    import uvicorn

    checking = Checking(Counter(EXPECTED))
    if "PLAIN" not in os.environ:
        tracekit.configure("busy-shop", exporters=[checking])
        tracekit.instrument()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        app = _InheritNumber(make_app(f"http://127.0.0.1:{port}"))
        # Longer than httpx keeps a connection (5 s, as uvicorn): else a request meets its end.
        config = uvicorn.Config(app, log_level="error", lifespan="on", timeout_keep_alive=60)
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve([listening]))
        while not server.started:
            await asyncio.sleep(0.01)
        print(json.dumps(await drive(port, requests, checking)), flush=True)
        server.should_exit = True
        await serving


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
