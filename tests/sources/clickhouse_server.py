"""ClickHouse's engine behind its HTTP interface, in a process of its own: chdb and a small server.

``python -m sources.clickhouse_server FOLDER`` writes its port, and ends with standard input.
Sources: https://clickhouse.com/docs/interfaces/http, and for the table
https://github.com/open-telemetry/opentelemetry-collector-contrib/tree/main/exporter/clickhouseexporter
"""

from __future__ import annotations

import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.parse import parse_qsl, urlsplit

TABLE = """CREATE TABLE otel.otel_traces (
  Timestamp DateTime64(9) CODEC(Delta, ZSTD(1)),
  TraceId String, SpanId String, ParentSpanId String, TraceState String,
  SpanName LowCardinality(String), SpanKind LowCardinality(String),
  ServiceName LowCardinality(String),
  ResourceAttributes Map(LowCardinality(String), String),
  ScopeName String, ScopeVersion String,
  SpanAttributes Map(LowCardinality(String), String),
  Duration UInt64,
  StatusCode LowCardinality(String), StatusMessage String,
  Events Nested (
    Timestamp DateTime64(9), Name LowCardinality(String),
    Attributes Map(LowCardinality(String), String)
  ),
  Links Nested (
    TraceId String, SpanId String, TraceState String,
    Attributes Map(LowCardinality(String), String)
  )
) ENGINE MergeTree()
PARTITION BY toDate(Timestamp)
ORDER BY (ServiceName, SpanName, toDateTime(Timestamp))"""


def main() -> None:
    from chdb import session

    engine = session.Session(sys.argv[1])
    for statement in ("CREATE DATABASE IF NOT EXISTS otel ENGINE = Atomic", TABLE):
        engine.query(statement)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            given = dict(parse_qsl(urlsplit(self.path).query, keep_blank_values=True))
            self._answer(given, given["query"])

        def do_POST(self) -> None:
            rows = self.rfile.read(int(self.headers["Content-Length"])).decode()
            self._answer({"database": "otel"}, f"INSERT INTO otel_traces FORMAT JSONEachRow {rows}")

        def _answer(self, given: dict[str, str], query: str) -> None:
            # Escaped as for tab-separated values: the engine reads them like that itself.
            params = {
                key.removeprefix("param_"): value
                for key, value in given.items()
                if key.startswith("param_")
            }
            try:
                engine.query(f"USE {given.get('database', 'default')}")
                found = engine.query(query, "JSONEachRow", params=params)
                self._send(200, "application/x-ndjson", found.bytes() or b"")
            except Exception as error:
                status = 404 if "UNKNOWN_" in str(error) else 500
                self._send(status, "text/plain", str(error).encode())

        def _send(self, status: int, kind: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", f"{kind}; charset=UTF-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=lambda: (sys.stdin.read(), server.shutdown()), daemon=True).start()
    print(server.server_address[1], flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
