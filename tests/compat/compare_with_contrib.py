"""Make the same calls under OpenTelemetry's instrumentations and under tracekit's; print a table.

    python tests/compat/compare_with_contrib.py [LIBRARY ...]

Each library is called once by two processes, in stable conventions, below a span of the program's;
what is compared are the names of the attributes, of all spans that the call made. The rows are
those of ``docs/reference/beside-contrib.md``, which gives the reasons.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

# Which worker of the benchmarks makes the call, and what it calls.
SUBJECTS: Mapping[str, tuple[str, str]] = {
    "requests": ("http_worker", "loopback"),
    "urllib3": ("http_worker", "loopback"),
    "httpx": ("http_worker", "loopback"),
    "urllib": ("http_worker", "loopback"),
    "aiohttp_client": ("http_worker", "loopback"),
    "flask": ("http_worker", ""),
    "django": ("http_worker", ""),
    "fastapi": ("http_worker", ""),
    "starlette": ("http_worker", ""),
    "aiohttp_server": ("http_worker", ""),
    "wsgi": ("http_worker", ""),
    "asgi": ("http_worker", ""),
    "sqlite3": ("databases_worker", ""),
    "sqlalchemy": ("databases_worker", ""),
    "psycopg": ("databases_worker", "postgresql"),
    "psycopg2": ("databases_worker", "postgresql"),
    "asyncpg": ("databases_worker", "postgresql"),
    "pymysql": ("databases_worker", "mariadb"),
    "mysqldb": ("databases_worker", "mariadb"),
    "mysql_connector": ("databases_worker", "mariadb"),
    "pymongo": ("databases_worker", "mongodb"),
    "redis": ("services_worker", "redis"),
    "grpc": ("services_worker", "grpc"),
    "grpc_aio": ("services_worker", "grpc"),
    "grpc_server": ("services_worker", ""),
    "grpc_aio_server": ("services_worker", ""),
    "celery": ("services_worker", ""),
    "celery_worker": ("services_worker", ""),
    "botocore": ("services_worker", "http"),
    "aws_lambda": ("services_worker", ""),
}


class Seen(NamedTuple):
    """What one side said of one call: how many spans, and the names of their attributes."""

    spans: int
    names: frozenset[str]


@contextmanager
def _server(kind: str) -> Iterator[int]:
    from benchmarks.databases import mariadb, mongodb, postgresql
    from benchmarks.http import Worker

    real = {"postgresql": postgresql, "mariadb": mariadb, "mongodb": mongodb, "": _none}
    if kind in real:
        with real[kind]() as port:
            yield port
        return
    loopback = ("benchmarks.loopback",)
    worker = Worker(*(loopback if kind == "loopback" else ("benchmarks.services_loopback", kind)))
    try:
        yield worker.read()
    finally:
        worker.stop()


def _none() -> AbstractContextManager[int]:
    return nullcontext(0)


def seen(library: str, side: str, port: int) -> Seen:
    """Ask a process of its own, where nothing else is watched."""
    worker = SUBJECTS[library][0]
    command = [sys.executable, __file__, "--call", worker, library, side, str(port)]
    environ = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    environ["OTEL_SEMCONV_STABILITY_OPT_IN"] = "http,database"
    done = subprocess.run(
        command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=60, check=False
    )
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1])
    spans, names = json.loads(done.stdout.splitlines()[-1])
    return Seen(spans, frozenset(names))


def _call(worker: str, library: str, side: str, port: int) -> None:
    import importlib

    from benchmarks import http_worker

    importlib.import_module(f"benchmarks.{worker}")
    http_worker.BEFORE.get(library, lambda: None)()
    ended, tracer = (_under_contrib if side == "contrib" else _under_tracekit)(library)
    do = http_worker.SUBJECTS[library](port)
    ended.clear()
    with tracer.start_as_current_span("program"):
        do(1)
    _await(lambda: len(ended.get_finished_spans()) > 1)
    mine = [span for span in ended.get_finished_spans() if span.name != "program"]
    print(json.dumps([len(mine), sorted({name for span in mine for name in span.attributes})]))


def _await(is_there: Callable[[], bool]) -> None:
    """Wait for a server, whose span ends when its client has the answer already."""
    until = time.monotonic() + 10
    while not is_there() and time.monotonic() < until:
        time.sleep(0.01)


def _under_contrib(library: str) -> tuple[Any, Any]:
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    from benchmarks.http_worker import instrument_contrib

    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    instrument_contrib(library)
    return exporter, provider.get_tracer("program")


def _under_tracekit(library: str) -> tuple[Any, Any]:
    import tracekit
    from benchmarks.http_worker import instrument_ours
    from tracekit.sdk import InMemorySpanExporter, SimpleSpanProcessor

    exporter = InMemorySpanExporter()
    provider = tracekit.configure("shop", exporters=[])
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    instrument_ours(library)
    return exporter, provider.get_tracer("program")


def row(library: str) -> str:
    """Return the row of the table: spans of each side, and what only one of them says."""
    with _server(SUBJECTS[library][1]) as port:
        theirs, ours = (seen(library, side, port) for side in ("contrib", "tracekit"))
    spans = f"{theirs.spans} / {ours.spans}"
    cells = [_shown(theirs.names - ours.names), _shown(ours.names - theirs.names)]
    return f"| `{library}` | {spans} | {' | '.join(cells)} |"


def _shown(names: frozenset[str]) -> str:
    """List names, those of one family by their common beginning."""
    families = sorted({_family(name) for name in names})
    return ", ".join(f"`{name}`" for name in families)


def _family(name: str) -> str:
    return next((family for family in _FAMILIES if name.startswith(family[:-1])), name)


_FAMILIES = ("code.*", "tracekit.timeout.*", "network.peer.*")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("libraries", nargs="*", metavar="LIBRARY", help=", ".join(SUBJECTS))
    chosen = parser.parse_args(arguments)
    for library in chosen.libraries or SUBJECTS:
        print(row(library), flush=True)
    return 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--call"]:
        _call(*sys.argv[2:5], int(sys.argv[5]))
    else:
        sys.exit(main())
