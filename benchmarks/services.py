"""What tracing adds to one call of another service: a command, a call, a message."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from benchmarks.harness import Effort, Figures, row
from benchmarks.http import Worker, added

__all__ = ["server"]

INVOCATIONS = 2000
"""As many as take the time of a round of requests: what invokes a function takes 12 µs, and the
flush of a round several times that."""

_WORKER = "benchmarks.services_worker"


def _added_to(
    subject: str, effort: Effort, at: AbstractContextManager[int] | None = None
) -> Figures:
    return added(subject, effort, at, _WORKER)


@contextmanager
def server(kind: str) -> Iterator[int]:
    """Run a server in a process of its own, where nothing is watched."""
    worker = Worker("benchmarks.services_loopback", kind)
    try:
        yield worker.read()
    finally:
        worker.stop()


@row("db.redis", "added to a command: redis, loopback", must=0.25, aim=0.12)
def redis_command(effort: Effort) -> Figures:
    return _added_to("redis", effort, server("redis"))


@row("db.redis_async", "added to a command: redis.asyncio, loopback", must=0.25, aim=0.12)
def redis_async_command(effort: Effort) -> Figures:
    return _added_to("redis_async", effort, server("redis"))


@row("rpc.grpc", "added to a call: grpc, unary, loopback", must=0.25, aim=0.12)
def grpc_call(effort: Effort) -> Figures:
    return _added_to("grpc", effort, server("grpc"))


@row("rpc.grpc_aio", "added to a call: grpc.aio, unary, loopback", must=0.25, aim=0.12)
def grpc_aio_call(effort: Effort) -> Figures:
    return _added_to("grpc_aio", effort, server("grpc"))


@row("rpc.grpc_server", "added to a call that is served: grpc, unary", must=0.25, aim=0.12)
def grpc_server_call(effort: Effort) -> Figures:
    return _added_to("grpc_server", effort)


@row("rpc.grpc_aio_server", "added to a call that is served: grpc.aio", must=0.25, aim=0.12)
def grpc_aio_server_call(effort: Effort) -> Figures:
    return _added_to("grpc_aio_server", effort)


@row("queue.celery_worker", "added to a task: celery, run as in a pool", must=0.25, aim=0.12)
def celery_run(effort: Effort) -> Figures:
    return _added_to("celery_worker", effort)


@row("queue.celery", "added to apply_async: celery, broker in memory", must=0.25, aim=0.12)
def celery_send(effort: Effort) -> Figures:
    return _added_to("celery", effort)


@row("cloud.botocore", "added to a call: botocore, HeadBucket, loopback", must=0.25, aim=0.12)
def botocore_call(effort: Effort) -> Figures:
    return _added_to("botocore", effort, server("http"))


@row("cloud.botocore_urllib3", "the same, urllib3 watched as well", must=0.25, aim=0.12)
def botocore_call_on_urllib3(effort: Effort) -> Figures:
    return _added_to("botocore_urllib3", effort, server("http"))


@row("cloud.aws_lambda", "added to an invocation: AWS Lambda, not flushed", must=0.25, aim=0.12)
def lambda_invocation(effort: Effort) -> Figures:
    return added("aws_lambda", effort, module=_WORKER, requests=INVOCATIONS)


@row("cloud.aws_lambda_flushed", "added to an invocation: AWS Lambda, flushed behind it")
def flushed_invocation(effort: Effort) -> Figures:
    return _added_to("aws_lambda_flushed", effort)
