"""The spans of one trace that travel together to a Datadog agent, and what is said once for them.

A chunk is an array of the spans of one trace. What is true of a whole chunk (sampling priority,
upper half of the trace id, origin) is written on the spans whose parents are not in it.
Source: https://github.com/DataDog/datadog-agent/blob/main/pkg/proto/datadog/trace/span.proto
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tracekit.interfaces import ReadableSpan

__all__ = ["Body", "EncodedSpan", "Layout", "Trace", "mark_roots"]


@dataclass
class EncodedSpan:
    """One span on its way: its fields by their names in the protocol, and where it belongs."""

    span: ReadableSpan
    trace_id: int
    span_id: int
    parent_id: int
    state: str
    fields: dict[str, Any]
    container_id: str


Trace = list[EncodedSpan]


@dataclass
class Body:
    """One request's body, the spans in it, and in how many chunks they are."""

    content: bytes
    spans: list[ReadableSpan]
    chunks: int


Layout = Callable[[Sequence[Trace], int], Iterator[Body]]
"""Write traces as bodies of at most so many bytes; a span that is larger comes alone."""


def mark_roots(trace: Trace) -> None:
    """Write on a chunk what is true of all of it. May be done again for a part of the chunk."""
    here = {encoded.span_id for encoded in trace}
    # The first one when parents go in a circle.
    roots = [encoded for encoded in trace if encoded.parent_id not in here] or trace[:1]
    for root in roots:
        _mark_root(root)


def _mark_root(encoded: EncodedSpan) -> None:
    meta, metrics = encoded.fields["meta"], encoded.fields["metrics"]
    said = _said_by_caller(encoded.state)
    # Only sampled spans come here: 1 keeps them as sampled by us, 2 as wanted by somebody.
    priority = said.get("s", "")
    metrics["_sampling_priority_v1"] = 2.0 if priority == "2" else 1.0
    if upper := encoded.trace_id >> 64:
        meta["_dd.p.tid"] = f"{upper:016x}"
    if "o" in said:
        meta["_dd.origin"] = said["o"]
    for name, value in said.items():
        if name.startswith("t."):
            meta[f"_dd.p.{name.removeprefix('t.')}"] = value


def _said_by_caller(state: str) -> dict[str, str]:
    """Return the parts of Datadog's own member of a tracestate.

    Source: https://docs.datadoghq.com/tracing/trace_collection/trace_context_propagation/
    """
    for member in state.split(","):
        key, _, value = member.strip().partition("=")
        if key == "dd":
            pairs = (part.partition(":") for part in value.split(";"))
            # "=" cannot stand in a tracestate value, so it travels as "~".
            return {name: text.replace("~", "=") for name, colon, text in pairs if colon}
    return {}
