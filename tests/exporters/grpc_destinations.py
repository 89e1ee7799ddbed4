"""OTLP servers on loopback that speak gRPC."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)

from exporters.destinations import span_names

Behaviour = Callable[[ExportTraceServiceRequest, grpc.ServicerContext], ExportTraceServiceResponse]


def take(request: Any, context: Any) -> ExportTraceServiceResponse:
    return ExportTraceServiceResponse()


class GrpcDestination(TraceServiceServicer):
    """A gRPC server that behaves by a script: the last entry stands for all that follow."""

    def __init__(self, *script: Behaviour) -> None:
        self.script: list[Behaviour] = list(script) or [take]
        self.received: list[ExportTraceServiceRequest] = []
        self.metadata: list[dict[str, Any]] = []
        self.url = ""

    def Export(self, request: Any, context: Any) -> ExportTraceServiceResponse:
        self.received.append(request)
        self.metadata.append(dict(context.invocation_metadata()))
        step = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        return step(request, context)

    def names(self) -> list[str]:
        return [name for request in self.received for name in span_names(request)]


@contextlib.contextmanager
def grpc_destination(
    *script: Behaviour,
    credentials: grpc.ServerCredentials | None = None,
    options: Sequence[tuple[str, Any]] = (),
) -> Iterator[GrpcDestination]:
    destination = GrpcDestination(*script)
    server = grpc.server(futures.ThreadPoolExecutor(8), options=options)
    add_TraceServiceServicer_to_server(destination, server)
    if credentials:
        destination.url = f"https://localhost:{server.add_secure_port('localhost:0', credentials)}"
    else:
        destination.url = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield destination
    finally:
        server.stop(None).wait(10)
