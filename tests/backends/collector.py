"""The OpenTelemetry Collector: OTLP in by all of its protocols, OTLP JSON out to a file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from backends.normal import Plain, from_json, of_otlp, of_record
from backends.running import free_ports, running
from backends.where import program
from tracekit.model import SpanRecord

__all__ = ["PROTOCOLS", "Collector", "start"]

PROTOCOLS = (
    *("http/protobuf", "http/json", "grpc"),
    *("http/protobuf gzip", "http/json gzip", "grpc gzip"),
)

SETTINGS = """
receivers:
  otlp:
    protocols:
      http: {{ endpoint: "127.0.0.1:{http}" }}
      grpc: {{ endpoint: "127.0.0.1:{grpc}" }}
exporters:
  file: {{ path: "{received}", flush_interval: 50ms }}
service:
  telemetry:
    metrics: {{ level: none }}
  pipelines:
    traces: {{ receivers: [otlp], exporters: [file] }}
"""


class Collector:
    exporter = "otlp"

    def __init__(self, http: int, grpc: int, received: Path) -> None:
        self.url = f"http://127.0.0.1:{http}"
        self.grpc_url = f"http://127.0.0.1:{grpc}"
        self.variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": self.url}
        self._received, self._read_bytes = received, 0
        self._spans: list[Plain] = []

    def arguments(self, protocol: str) -> dict[str, Any]:
        """Return what an exporter must be told to send by a protocol."""
        name, _, compression = protocol.partition(" ")
        endpoint = {"endpoint": self.grpc_url} if name == "grpc" else {}
        return {"protocol": name, "compression": compression or "none", **endpoint}

    def found(self, trace_id: int) -> list[Plain]:
        self._read_on()
        return [span for span in self._spans if int(span["trace_id"], 16) == trace_id]

    def _read_on(self) -> None:
        with self._received.open("rb") as received:
            received.seek(self._read_bytes)
            # The last line may still be under way.
            for line in received.read().splitlines(keepends=True):
                if line.endswith(b"\n"):
                    self._read_bytes += len(line)
                    self._spans += of_otlp(from_json(line.decode()))

    def expected(self, span: SpanRecord) -> Plain:
        return of_record(span)


@contextmanager
def start(folder: Path, *, keeps: bool = True) -> Iterator[Collector]:
    """Run a Collector; one that keeps nothing is for measuring what it can be fed."""
    binary = program("collector", "otelcol")
    http, grpc = free_ports(2)
    received = folder / "received.jsonl" if keeps else Path("/dev/null")
    received.touch()
    settings = folder / "collector.yaml"
    settings.write_text(SETTINGS.format(http=http, grpc=grpc, received=received))
    server = Collector(http, grpc, received)
    with running([binary, "--config", settings], server.url, folder / "collector.log"):
        yield server
