"""One process that calls another service when told to on its input.

``python -m benchmarks.services_worker redis|grpc|celery|botocore bare|opentelemetry|tracekit PORT``
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

from benchmarks.http_worker import BEFORE, CONTRIB, SUBJECTS, main

__all__ = ["main"]

_Calls = Callable[[int], None]


def _redis(port: int) -> _Calls:
    import redis

    client = redis.Redis(port=port, protocol=2)

    def send(count: int) -> None:
        for number in range(count):
            client.execute_command("PING", number)

    return send


def _grpc(port: int) -> _Calls:
    import grpc

    call = grpc.insecure_channel(f"127.0.0.1:{port}").unary_unary("/shop.Orders/Get")

    def send(count: int) -> None:
        for _ in range(count):
            call(b"7", timeout=10)

    return send


def _celery(_port: int) -> _Calls:
    import celery

    app: Any = celery.Celery("shop", broker="memory://")

    @app.task(name="shop.pack", ignore_result=True)
    def pack(order: int) -> None:
        """Never run: what is measured is how it is sent."""

    def send(count: int) -> None:
        for number in range(count):
            pack.apply_async((number,))
        app.control.purge()

    return send


def _botocore(port: int) -> _Calls:
    import botocore.session

    client = botocore.session.get_session().create_client(
        "s3",
        region_name="eu-north-1",
        endpoint_url=f"http://127.0.0.1:{port}",
        aws_access_key_id="benchmark",
        aws_secret_access_key="benchmark",
    )

    def send(count: int) -> None:
        for _ in range(count):
            client.head_bucket(Bucket="orders")

    return send


def _logging(_port: int) -> _Calls:
    import logging

    from opentelemetry import trace

    logger = logging.getLogger("shop")
    logger.propagate = False
    logger.addHandler(logging.NullHandler())
    logger.setLevel(logging.INFO)
    tracer = trace.get_tracer("shop")

    def write(count: int) -> None:
        with tracer.start_as_current_span("work"):
            for number in range(count):
                logger.info("order %d", number)

    return write


def _correlate() -> None:
    """Have OpenTelemetry's instrumentation write ids into records, as ours does unasked."""
    os.environ["OTEL_PYTHON_LOG_CORRELATION"] = "true"


SUBJECTS.update(
    {
        "redis": _redis,
        "grpc": _grpc,
        "celery": _celery,
        "botocore": _botocore,
        "logging": _logging,
    }
)
BEFORE["logging"] = _correlate
CONTRIB.update(
    {
        "redis": "RedisInstrumentor",
        "grpc": "GrpcInstrumentorClient",
        "celery": "CeleryInstrumentor",
        "botocore": "BotocoreInstrumentor",
        "logging": "LoggingInstrumentor",
    }
)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
