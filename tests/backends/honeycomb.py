"""A receiver on loopback with the rules of Honeycomb's OTLP endpoint, which is also Refinery's.

Neither can be had from a package registry, so that what their pages say is written down here.
Source: https://docs.honeycomb.io/send-data/opentelemetry/ and
https://docs.honeycomb.io/manage-data-volume/sample/guidelines/
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from backends.normal import Plain, of_protobuf, of_record, typed
from exporters.destinations import Destination, Received, Reply
from tracekit.model import SpanRecord

__all__ = ["PROTOCOLS", "Honeycomb", "start"]

PROTOCOLS = ("http/protobuf",)

KEY = "hcaik_0123456789"

_CLASSIC = re.compile(r"[0-9a-f]{32}|hc[a-z]ic_[0-9a-z]{58}")
_TYPES = ("application/protobuf", "application/x-protobuf", "application/json")
_TAKEN = Reply(200, ExportTraceServiceResponse().SerializeToString())


def answer(received: Received) -> Reply:
    """Answer as the page says, in the order in which it is checked there."""
    key = received.headers.get("x-honeycomb-team", "")
    if received.path != "/v1/traces":
        return Reply(404)
    if received.headers.get("content-type") not in _TYPES:
        return Reply(415, b"unsupported content type")
    if not key:
        return Reply(401, b"missing 'x-honeycomb-team' header")
    if _CLASSIC.fullmatch(key) and not received.headers.get("x-honeycomb-dataset"):
        return Reply(401, b"missing 'x-honeycomb-dataset' header")
    return _TAKEN


class Honeycomb:
    """Everything of OTLP is kept; ``SampleRate`` is what a span counts for."""

    exporter = "honeycomb"

    def __init__(self, destination: Destination) -> None:
        self.url = destination.url
        self.variables = {"HONEYCOMB_API_ENDPOINT": destination.url, "HONEYCOMB_API_KEY": KEY}
        self._destination, self._read = destination, 0
        self._spans: list[Plain] = []

    def arguments(self, protocol: str) -> dict[str, Any]:
        return {"protocol": protocol}

    def found(self, trace_id: int) -> list[Plain]:
        new = self._destination.received[self._read :]
        self._read += len(new)
        taken = [each for each in new if answer(each) is _TAKEN]
        self._spans += [span for each in taken for span in of_protobuf(each.request())]
        return [span for span in self._spans if int(span["trace_id"], 16) == trace_id]

    def expected(self, span: SpanRecord) -> Plain:
        plain = of_record(span)
        threshold = re.search(r"th:([0-9a-f]+)", span.context.trace_state.to_header())
        if threshold:
            dropped = int(threshold[1].ljust(14, "0"), 16) / 16**14
            plain["attributes"]["SampleRate"] = typed(round(1 / (1 - dropped)))
        return plain


@contextmanager
def start(folder: Path) -> Iterator[Honeycomb]:
    with Destination(answer) as destination:
        yield Honeycomb(destination)
