"""The checkout as each format has it: what real servers answered, and OTLP of our own."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

from exporters.made import checkout
from tracekit.exporters._otlp_json import encode
from tracekit.formats._reading import TraceFile
from tracekit.model import SpanRecord

SAMPLES = Path(__file__).with_name("samples")


def written(name: str) -> Any:
    """Return the document of a format: the sample of its name, kept beside this file.

    ``jaeger_json`` is what Jaeger 1.76 answered at ``/api/traces/ID``, ``zipkin_json`` what
    Zipkin 3.5 answered at ``/api/v2/trace/ID``, and ``datadog_json`` what Datadog's test agent
    answered at ``/test/traces``, each after it got the checkout from our exporter.
    """
    if name == "otlp_json":
        return encode(checkout())
    return json.loads((SAMPLES / f"{name}.json").read_text("utf-8"))


def one_line(document: Any) -> bytes:
    return json.dumps(document, ensure_ascii=False).encode()


def read(content: bytes, format_name: str | None = None) -> tuple[TraceFile, list[SpanRecord]]:
    file = TraceFile(io.BytesIO(content), format_name)
    return file, list(file)


def spans_in(document: Any) -> list[dict[str, Any]]:
    """Return the spans of a document as they are written in it, to be changed by tests."""
    if isinstance(document, list):
        return document[0] if isinstance(document[0], list) else document
    if "data" in document:
        return document["data"][0]["spans"]
    groups = [group for item in document["resourceSpans"] for group in item["scopeSpans"]]
    return [span for group in groups for span in group["spans"]]
