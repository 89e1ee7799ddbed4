"""A whole service under load, traces checked and memory watched: ``python -m benchmarks.soak``.

Runs tests/integration/programs/busy_shop.py, which checks each of its traces itself, on a
PostgreSQL and a redis-server that are started for it, with a celery worker beside it; its tasks go
through that redis-server or, with ``--broker rabbitmq``, a RabbitMQ.

What is in use must not grow: a span that is kept is a dozen blocks. What is resident grows all the
same, traced or not (``--plain``). asyncio takes 256 KiB for whatever a socket receives, and gives
most of it back at once: the heap of glibc is soon in pieces none of which has 256 KiB, and is
extended. With ``GLIBC_TUNABLES=glibc.malloc.mmap_threshold=131072`` these are taken elsewhere.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.fresh import ROOT

__all__ = ["grown", "holds_more", "missing", "soak"]

PROGRAMS = ROOT / "tests" / "integration" / "programs"
_WORKER = "-m celery -A busy_shop worker --pool threads --concurrency 2 -l ERROR --without-mingle"
_PACKAGES = ("asyncpg", "celery", "fastapi", "httpx", "redis", "sqlalchemy", "uvicorn")
_PATIENCE_S = 60
_TO_AND_FRO = 15_000
"""Blocks, of 600,000: a cache of 512 URLs that is full is emptied, and fills again."""
_UNITS = {
    "resident_kib": "KiB resident",
    "malloc_kib": "KiB of malloc",
    "blocks": "blocks of Python",
}


def missing(broker: str = "redis") -> str:
    """Say what is not installed that this needs, if anything."""
    database, cache, rabbit = _servers()
    absent = {name: find_spec(name) is None for name in _PACKAGES} | {
        "PostgreSQL": database.find_postgresql() is None,
        "redis-server": cache.PROGRAM is None,
        "rabbitmq-server": broker == "rabbitmq" and rabbit.PROGRAM is None,
    }
    return " and ".join(name for name, is_absent in absent.items() if is_absent)


def soak(requests: int, *, plain: bool = False, broker: str = "redis") -> dict[str, Any]:
    """Send so many orders, traced or not; return what the shop and its worker report."""
    database, cache, _ = _servers()
    with (
        tempfile.TemporaryDirectory() as folder,
        database.postgres_server(database.find_postgresql()) as postgres,
        cache.redis_server(Path(folder)) as port,
        _broker(broker, Path(folder), f"redis://127.0.0.1:{port}/0") as broker_url,
    ):
        at = f"{postgres.user}@{postgres.host}:{postgres.port}/{postgres.database}"
        environ = os.environ | {
            "DATABASE": f"postgresql+asyncpg://{at}",
            "CACHE": f"redis://127.0.0.1:{port}/0",
            "BROKER": broker_url,
            "ORDERS": str(requests),
            "WORKER_REPORT": f"{folder}/worker.json",
            **({"PLAIN": "1"} if plain else {}),
        }
        with _python(_WORKER.split(), environ) as worker:
            try:
                report: dict[str, Any] = json.loads(_shop(requests, environ))
                _await_tasks(broker_url, requests)
            finally:
                worker.terminate()
                worker.wait(_PATIENCE_S)
        return report | {"worker": json.loads(Path(folder, "worker.json").read_text())}


@contextmanager
def _broker(name: str, folder: Path, cache_url: str) -> Iterator[str]:
    if name == "redis":
        yield cache_url
        return
    with _servers()[2].rabbit_server(folder) as url:
        yield url


def grown(memory: Sequence[Mapping[str, int]]) -> dict[str, int]:
    """Return by how much each figure grew from the second tenth to the last, when all is warm."""
    return {name: count - memory[1][name] for name, count in memory[-1].items()}


def holds_more(memory: Sequence[Mapping[str, int]], requests: int) -> bool:
    """Say whether something is kept of requests: of one in ten, beside what caches move to and fro.

    What is resident has no say in it.
    """
    return grown(memory)["blocks"] > requests // 10 + _TO_AND_FRO


def _servers() -> tuple[Any, Any, Any]:
    # Helpers of the tests, which are no package.
    sys.path.insert(0, str(ROOT / "tests"))
    import database_servers
    import rabbit_server
    import redis_servers

    return database_servers, redis_servers, rabbit_server


def _python(words: list[str], environ: Mapping[str, str], **options: Any) -> Any:
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", *words],
        cwd=PROGRAMS,
        env=environ,
        stdout=subprocess.PIPE,
        text=True,
        **options,
    )


def _shop(requests: int, environ: Mapping[str, str]) -> str:
    with _python(["busy_shop.py", str(requests)], environ) as shop:
        out: str = shop.communicate()[0]
        if shop.returncode:
            raise RuntimeError(f"busy_shop.py ended with {shop.returncode}; its error is above")
    return out


def _await_tasks(broker: str, requests: int) -> None:
    """Wait until the worker has begun the task of every order; it ends those when it is stopped."""
    import celery

    with celery.Celery(broker=broker, set_as_current=False) as app:
        end = time.monotonic() + _PATIENCE_S + requests / 50
        while _begun(app) < requests:
            if time.monotonic() > end:
                raise RuntimeError("the worker does not come to an end")
            time.sleep(0.1)


def _begun(app: Any) -> int:
    answers = app.control.inspect(timeout=5, limit=1).stats() or {}
    return sum(number for answer in answers.values() for number in answer["total"].values())


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--plain", action="store_true", help="without tracing, to compare with")
    parser.add_argument("--broker", choices=("redis", "rabbitmq"), default="redis")
    options = parser.parse_args()
    requests = options.requests
    if absent := missing(options.broker):
        print(f"needs {absent}")
        return 1
    began = time.monotonic()
    report = soak(requests, plain=options.plain, broker=options.broker)
    print(json.dumps(report, indent=2))
    print(f"{requests / (time.monotonic() - began):.0f} orders/s")
    memories = {"the shop": report["memory"], "the worker": report["worker"]["memory"]}
    for name, memory in memories.items():
        print(f"{name}, from the second tenth to the last: {_told(grown(memory))}")
    is_wrong = report["errors"] or report["wrong"] or report["incomplete"]
    return int(bool(is_wrong) or any(holds_more(part, requests) for part in memories.values()))


def _told(growth: Mapping[str, int]) -> str:
    return ", ".join(f"{count:+} {_UNITS[name]}" for name, count in growth.items())


if __name__ == "__main__":
    sys.exit(main())
