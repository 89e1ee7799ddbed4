"""What the span store costs: writing one span, and asking a store of a million.

Run with ``python -m benchmarks.store [spans]``; ``bench_write`` and ``bench_read`` return
their figures for a table that somebody else prints.
"""

from __future__ import annotations

import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

from tracekit.model import InstrumentationScope, Resource, SpanRecord
from tracekit.store.query import SpanFilter, TraceFilter
from tracekit.store.reader import StoreReader
from tracekit.store.writer import StoreWriter

__all__ = ["bench_read", "bench_write", "example_batches", "fill"]

_START_NS = 1_700_000_000_000_000_000
_FLAGS = TraceFlags(3)
_SCOPES = [InstrumentationScope(f"library.{number}", "1.2.3") for number in range(3)]
_RESOURCES = [
    Resource({"service.name": name, "service.instance.id": name * 6, "process.pid": 4711})
    for name in ("gateway", "orders", "payment", "auth", "stock")
]
_FAILED, _UNSET = Status(StatusCode.ERROR), Status()


def example_batches(
    spans: int, spans_per_trace: int = 10, batch_size: int = 512, seed: int = 1
) -> Iterator[list[SpanRecord]]:
    """Yield batches of spans with five attributes each, of which two differ every time."""
    chance = random.Random(seed)
    batch: list[SpanRecord] = []
    for number in range(spans // spans_per_trace):
        batch.extend(_trace(chance, number, spans_per_trace))
        if len(batch) >= batch_size:
            yield batch
            batch = []
    if batch:
        yield batch


def _trace(chance: random.Random, number: int, size: int) -> list[SpanRecord]:
    trace_id, root = chance.getrandbits(128), None
    resource, start = _RESOURCES[number % 5], _START_NS + number * 1_000_000
    spans = []
    for place in range(size):
        context = SpanContext(trace_id, chance.getrandbits(64), False, _FLAGS)
        failed = number % 50 == 0 and place == size - 1
        spans.append(
            SpanRecord(
                f"step {place} of {number % 20}",
                context,
                root,
                SpanKind.SERVER if root is None else SpanKind.CLIENT,
                start + place * 1000,
                start + place * 1000 + int(chance.expovariate(1e-6)) + 1,
                {
                    "http.request.method": "GET",
                    "http.response.status_code": 500 if failed else 200,
                    "server.address": "127.0.0.1",
                    "url.path": f"/items/{chance.getrandbits(20)}",
                    "order.id": number * size + place,
                },
                status=_FAILED if failed else _UNSET,
                resource=resource,
                instrumentation_scope=_SCOPES[place % 3],
            )
        )
        root = root or context
    return spans


def bench_write(spans: int = 20_000, spans_per_trace: int = 10, rounds: int = 5) -> float:
    """Return the median CPU time of writing one span, in µs, in batches of 512."""
    batches = list(example_batches(spans, spans_per_trace))
    return statistics.median(_write_once(batches, spans) for _ in range(rounds))


def _write_once(batches: list[list[SpanRecord]], spans: int) -> float:
    with tempfile.TemporaryDirectory() as folder:
        writer = StoreWriter(Path(folder) / "traces.db")
        began = time.process_time()
        for batch in batches:
            writer.write(batch)
        took = time.process_time() - began
        writer.close()
    return took / spans * 1e6


def fill(path: Path, spans: int = 1_000_000) -> None:
    """Write a store of so many spans, ten in a trace."""
    writer = StoreWriter(path, max_bytes=8 << 30)
    for batch in example_batches(spans):
        writer.write(batch)
    writer.close()


def bench_read(path: Path, rounds: int = 5) -> dict[str, float]:
    """Return how long each question takes, in ms, the median of several times."""
    reader = StoreReader(path)
    some = reader.traces(200)[-1]
    old = f"{some.trace_id:032x}"
    last_order = reader.stats().spans - 1
    questions: dict[str, Callable[[], Any]] = {
        "list the newest": lambda: reader.traces(20),
        "list the slowest": lambda: reader.traces(20, order="slowest"),
        "list those with errors": lambda: reader.traces(20, where=TraceFilter(errors_only=True)),
        "open one": lambda: reader.trace(old),
        "open the last": lambda: reader.trace("last"),
        "search by attribute, one match": lambda: reader.traces(
            20, spans=SpanFilter(attributes={"order.id": last_order // 2})
        ),
        "search by attribute, 2 % match": lambda: reader.traces(
            20, spans=SpanFilter(attributes={"http.response.status_code": 500})
        ),
        "search by attribute, all match": lambda: reader.traces(
            20, spans=SpanFilter(attributes={"http.request.method": "GET"})
        ),
        "search by attribute, no match": lambda: reader.traces(
            20, spans=SpanFilter(attributes={"order.id": "none"})
        ),
        "search by duration, many match": lambda: reader.traces(
            20, where=TraceFilter(min_duration_ns=2_000_000)
        ),
        "search by duration, few match": lambda: reader.traces(
            20, where=TraceFilter(min_duration_ns=14_000_000)
        ),
        "search by span duration, few match": lambda: reader.traces(
            20, spans=SpanFilter(min_duration_ns=14_000_000)
        ),
        "search by service and name": lambda: reader.traces(
            20, spans=SpanFilter(service="orders", name="step 3 of 1")
        ),
        "changes since": lambda: reader.changes_since(reader.changes_since().cursor),
        "one operation's figures": lambda: reader.operations(service="orders", name="step 3 of 1"),
        "all operations' figures": reader.operations,
        "size and counts": reader.stats,
    }
    return {name: _median_ms(ask, rounds) for name, ask in questions.items()}


def _median_ms(ask: Callable[[], Any], rounds: int) -> float:
    took = []
    for _ in range(rounds):
        began = time.perf_counter()
        ask()
        took.append((time.perf_counter() - began) * 1e3)
    return statistics.median(took)


def bench_decode(spans: int = 100_000) -> float:
    """Return how long reading one trace of so many spans takes, in seconds."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "traces.db"
        writer = StoreWriter(path)
        for batch in example_batches(spans, spans_per_trace=spans, batch_size=1):
            writer.write(batch)
        began = time.perf_counter()
        found = StoreReader(path).trace("last")
        took = time.perf_counter() - began
    assert len(found) == spans
    return took


def main() -> None:
    spans = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    for size in (10, 1):
        print(f"write one span, {size} in a trace: {bench_write(spans_per_trace=size):.1f} µs CPU")
    print(f"read one trace of 100,000 spans: {bench_decode():.2f} s")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "traces.db"
        fill(path, spans)
        print(f"store of {spans:,} spans: {path.stat().st_size / 2**20:.0f} MiB")
        for name, took in bench_read(path).items():
            print(f"  {name:38}{took:9.1f} ms")


if __name__ == "__main__":
    main()
