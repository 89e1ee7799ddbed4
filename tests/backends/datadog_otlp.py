"""Datadog's test agent by its other door: OTLP, as its own API tells what came."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from google.protobuf.json_format import ParseDict
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from backends import datadog
from backends.normal import Plain, of_protobuf, of_record
from backends.running import fetched
from tracekit.model import SpanRecord

__all__ = ["PROTOCOLS", "DatadogOtlp", "start"]

PROTOCOLS = ("http/protobuf", "grpc")


class DatadogOtlp:
    exporter = "datadog_otlp"

    def __init__(self, agent: datadog.Datadog) -> None:
        self.url = agent.otlp_url
        self.variables = {"TRACEKIT_DATADOG_OTLP_ENDPOINT": self.url}
        self._grpc_url = agent.otlp_grpc_url

    def arguments(self, protocol: str) -> dict[str, Any]:
        endpoint = {"endpoint": self._grpc_url} if protocol == "grpc" else {}
        return {"protocol": protocol, **endpoint}

    def found(self, trace_id: int) -> list[Plain]:
        taken = fetched(f"{self.url}/test/session/traces").json()
        requests = [ParseDict(each, ExportTraceServiceRequest()) for each in taken]
        spans = [span for request in requests for span in of_protobuf(request)]
        return [span for span in spans if int(span["trace_id"], 16) == trace_id]

    def expected(self, span: SpanRecord) -> Plain:
        return of_record(span)


@contextmanager
def start(folder: Path) -> Iterator[DatadogOtlp]:
    with datadog.start(folder) as agent:
        yield DatadogOtlp(agent)
