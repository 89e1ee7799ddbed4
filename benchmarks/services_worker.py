"""One process that calls another service, or is called by one, when told to on its input.

``python -m benchmarks.services_worker SUBJECT bare|opentelemetry|tracekit PORT``
"""

from __future__ import annotations

import asyncio
import atexit
import json
import os
import sys
import time
import types
from collections.abc import Callable
from concurrent import futures
from typing import Any

from opentelemetry.metrics import NoOpMeterProvider, set_meter_provider

from benchmarks.http import Worker
from benchmarks.http_worker import BEFORE, BESIDE, CONTRIB, OURS, SUBJECTS, main, new_loop

__all__ = ["main"]

_Calls = Callable[[int], None]


def _redis(port: int) -> _Calls:
    import redis

    client = redis.Redis(port=port, protocol=2)

    def send(count: int) -> None:
        for number in range(count):
            client.execute_command("PING", number)

    return send


def _redis_async(port: int) -> _Calls:
    import redis.asyncio

    client, loop = redis.asyncio.Redis(port=port, protocol=2), new_loop()

    async def send(count: int) -> None:
        for number in range(count):
            await client.execute_command("PING", number)

    return lambda count: loop.run_until_complete(send(count))


def _grpc(port: int) -> _Calls:
    import grpc

    call = grpc.insecure_channel(f"127.0.0.1:{port}").unary_unary("/shop.Orders/Get")

    def send(count: int) -> None:
        for _ in range(count):
            call(b"7", timeout=10)

    return send


def _grpc_aio(port: int) -> _Calls:
    import grpc.aio

    loop = new_loop()

    async def connect() -> Any:
        return grpc.aio.insecure_channel(f"127.0.0.1:{port}").unary_unary("/shop.Orders/Get")

    async def send(count: int) -> None:
        for _ in range(count):
            await call(b"7", timeout=10)

    call = loop.run_until_complete(connect())
    return lambda count: loop.run_until_complete(send(count))


def _grpc_server(_port: int) -> _Calls:
    import grpc

    server: Any = grpc.server(futures.ThreadPoolExecutor(2))
    port = _add_method(grpc, server, lambda request, _context: request)
    server.start()
    client = _grpc_client(port, server)
    return client.ask


def _grpc_aio_server(_port: int) -> _Calls:
    import grpc.aio

    loop = new_loop()

    async def answer(request: bytes, _context: Any) -> bytes:
        return request

    async def start() -> Worker:
        server = grpc.aio.server()
        port = _add_method(grpc, server, answer)
        await server.start()
        return _grpc_client(port, server)

    client = loop.run_until_complete(start())
    return lambda count: loop.run_until_complete(asyncio.to_thread(client.ask, count))


def _add_method(grpc: Any, server: Any, answer: Callable[..., object]) -> int:
    """Have a server answer one method, and return its port."""
    handlers = {"Get": grpc.unary_unary_rpc_method_handler(answer)}
    handler = grpc.method_handlers_generic_handler("shop.Orders", handlers)
    server.add_generic_rpc_handlers((handler,))
    port: int = server.add_insecure_port("127.0.0.1:0")
    return port


def _grpc_client(port: int, server: object) -> Worker:
    """Start a process that is not watched, and calls the server of this one until that is over."""
    client = Worker("benchmarks.services_loopback", "grpc_client", str(port))
    # With it the server, which ends when nobody holds it.
    atexit.register(lambda _server: client.stop(), server)
    return client


def _celery_worker(_port: int) -> _Calls:
    """Have a task run as a pool runs one, for messages of a program that is watched."""
    import celery
    from celery.app import trace

    app: Any = celery.Celery("shop", broker="memory://")

    @app.task(name="shop.pack", ignore_result=True)
    def pack(order: int) -> int:
        return order

    app.finalize()
    trace.setup_worker_optimizations(app)
    pack.__trace__ = trace.build_tracer(pack.name, pack, app.loader, app=app)
    body = b'[[7], {}, {"callbacks": null, "errbacks": null, "chain": null, "chord": null}]'

    def run(count: int) -> None:
        for number in range(count):
            request = {**_MESSAGE, "id": str(number), "root_id": str(number)}
            trace.fast_trace_task(
                pack.name, request["id"], request, body, "application/json", "utf-8"
            )

    return run


# What a worker hands to its pool: the message's headers, properties and where it came from.
_MESSAGE: dict[str, Any] = {
    "lang": "py",
    "task": "shop.pack",
    "retries": 0,
    "parent_id": None,
    "timelimit": [None, None],
    "ignore_result": True,
    "delivery_info": {"exchange": "", "routing_key": "celery", "priority": 0},
    "reply_to": "b3c5",
    "hostname": "worker@shop",
    "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
}


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


def _aws_lambda(port: int) -> _Calls:
    """Invoke a function that is not flushed behind each invocation; a batch is exported as ever."""
    from opentelemetry import trace

    provider: Any = trace.get_tracer_provider()
    provider.force_flush = lambda *_timeout: True
    return _aws_lambda_flushed(port)


def _aws_lambda_flushed(_port: int) -> _Calls:
    """Invoke a function as AWS's own runtime does, which hands it what a Runtime API sent."""
    from awslambdaric import bootstrap
    from awslambdaric.lambda_runtime_marshaller import LambdaMarshaller

    runtime, handler = _Runtime(LambdaMarshaller()), sys.modules["shop_function"].handler
    about = {"http": {"method": "GET", "path": "/orders/7", "sourceIp": "10.0.0.9"}}
    headers = {
        "host": "api.example",
        "user-agent": "benchmark",
        "x-forwarded-proto": "https",
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    }
    event = {
        "version": "2.0",
        "routeKey": "GET /orders/{id}",
        "rawPath": "/orders/7",
        "rawQueryString": "",
        "headers": headers,
        "requestContext": about,
    }
    arn = "arn:aws:lambda:eu-north-1:123456789012:function:shop:live"
    request, deadline = "8476a536-e9f4-11e8-9739-2dfe598c3fcd", int(time.time() * 1000) + 86_400_000
    sent = (json.dumps(event).encode(), "application/json", "", "", arn, deadline)

    def invoke(count: int) -> None:
        for _ in range(count):
            bootstrap.handle_event_request(runtime, handler, request, *sent, None, None)

    return invoke


class _Runtime:
    """What takes the answer, in place of a connection to AWS's Runtime API."""

    def __init__(self, marshaller: object) -> None:
        self.marshaller = marshaller

    def post_invocation_result(self, *_answer: object) -> None:
        """Leave it at that."""


class _NoMetrics(NoOpMeterProvider):
    """What OpenTelemetry's instrumentation flushes too; it logs an error where it cannot."""

    def force_flush(self, _timeout_millis: float = 0) -> bool:
        return True


def _write_function() -> None:
    """Have a module with a handler, where OpenTelemetry's instrumentation looks for one."""
    set_meter_provider(_NoMetrics())
    module: Any = types.ModuleType("shop_function")
    module.handler = lambda _event, _context: {"statusCode": 200, "body": "7"}
    sys.modules[module.__name__] = module
    os.environ["AWS_LAMBDA_FUNCTION_NAME"] = "shop"
    os.environ["_HANDLER"] = "shop_function.handler"


SUBJECTS.update(
    {
        "redis": _redis,
        "redis_async": _redis_async,
        "grpc": _grpc,
        "grpc_aio": _grpc_aio,
        "grpc_server": _grpc_server,
        "grpc_aio_server": _grpc_aio_server,
        "celery": _celery,
        "celery_worker": _celery_worker,
        "botocore": _botocore,
        "botocore_urllib3": _botocore,
        "aws_lambda": _aws_lambda,
        "aws_lambda_flushed": _aws_lambda_flushed,
    }
)
BEFORE["aws_lambda"] = BEFORE["aws_lambda_flushed"] = _write_function
OURS["aws_lambda_flushed"] = "aws_lambda"
OURS["botocore_urllib3"] = "botocore"
BESIDE["botocore_urllib3"] = "urllib3"
CONTRIB.update(
    {
        "redis": "RedisInstrumentor",
        "redis_async": "redis.RedisInstrumentor",
        "grpc": "GrpcInstrumentorClient",
        "grpc_aio": "grpc.GrpcAioInstrumentorClient",
        "grpc_server": "grpc.GrpcInstrumentorServer",
        "grpc_aio_server": "grpc.GrpcAioInstrumentorServer",
        "celery": "CeleryInstrumentor",
        "celery_worker": "celery.CeleryInstrumentor",
        "botocore": "BotocoreInstrumentor",
        "botocore_urllib3": "botocore.BotocoreInstrumentor",
        "aws_lambda": "AwsLambdaInstrumentor",
        "aws_lambda_flushed": "aws_lambda.AwsLambdaInstrumentor",
    }
)
OURS.update(
    {
        "grpc_aio": "grpc",
        "grpc_server": "grpc",
        "grpc_aio_server": "grpc",
        "celery_worker": "celery",
        "redis_async": "redis",
    }
)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
