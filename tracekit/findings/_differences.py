"""What differs between two sets of traces: attribute values, and steps that grew."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from tracekit.findings._calls import label
from tracekit.findings._critical_path import own_times
from tracekit.trace import Trace

__all__ = ["Grown", "Overrepresented", "grown_steps", "overrepresented"]

MAX_VALUE = 200
MIN_DIFFERENCE = 0.2
SURROUNDINGS = (
    "client.port",
    "network.peer.port",
    "process.",
    "service.instance.id",
    "telemetry.",
    "thread.",
)
"""Attributes that differ everywhere and explain nothing."""


class Overrepresented(NamedTuple):
    """An attribute value, and in which parts of the two sets' traces it is found."""

    key: str
    value: str
    share: float
    usual_share: float

    @property
    def difference(self) -> float:
        return self.share - self.usual_share


class Grown(NamedTuple):
    """A step, and how many nanoseconds and spans of it a trace of either set has on average."""

    service: str
    name: str
    mean_ns: float
    usual_ns: float
    mean_spans: float
    usual_spans: float

    @property
    def by_ns(self) -> float:
        return self.mean_ns - self.usual_ns


def overrepresented(traces: Sequence[Trace], usual: Sequence[Trace]) -> list[Overrepresented]:
    """Return values that are more frequent in ``traces`` than in ``usual``, clearest first.

    A value counts once a trace. Where every trace has another value, none is frequent.
    """
    here, there = _values(traces), _values(usual)
    found = [
        Overrepresented(*pair, count / len(traces), there[pair] / max(1, len(usual)))
        for pair, count in here.items()
    ]
    told = [item for item in found if item.difference >= MIN_DIFFERENCE]
    return sorted(told, key=lambda item: (-item.difference, item.key, item.value))


def _values(traces: Sequence[Trace]) -> Counter[tuple[str, str]]:
    counts: Counter[tuple[str, str]] = Counter()
    for trace in traces:
        counts.update({pair for node in trace.nodes for pair in _pairs(node.attributes)})
        counts.update({pair for resource in _resources(trace) for pair in _pairs(resource)})
    return counts


def _resources(trace: Trace) -> list[Mapping[str, object]]:
    """Return each resource of a trace once: its spans share the object."""
    spans = [node.span for node in trace.nodes if node.span is not None]
    return list({id(span.resource): span.resource.attributes for span in spans}.values())


def _pairs(attributes: Mapping[str, object]) -> list[tuple[str, str]]:
    return [
        (key, str(value)[:MAX_VALUE])
        for key, value in attributes.items()
        if not key.startswith(SURROUNDINGS) and isinstance(value, (str, bool, int))
    ]


def grown_steps(traces: Sequence[Trace], usual: Sequence[Trace]) -> list[Grown]:
    """Return the steps whose time or number differs, those that grew most first."""
    here, there = _steps(traces), _steps(usual)
    nothing = (0.0, 0.0)
    found = [
        Grown(
            *key,
            here.get(key, nothing)[0],
            there.get(key, nothing)[0],
            here.get(key, nothing)[1],
            there.get(key, nothing)[1],
        )
        for key in {**here, **there}
    ]
    changed = [step for step in found if step[2:4] != (step.usual_ns, step.mean_ns)]
    return sorted(changed, key=lambda step: (-step.by_ns, step.service, step.name))


def _steps(traces: Sequence[Trace]) -> dict[tuple[str, str], tuple[float, float]]:
    """Return for each service and name the time and spans that a trace has on average."""
    times: Counter[tuple[str, str]] = Counter()
    spans: Counter[tuple[str, str]] = Counter()
    for trace in traces:
        for node, taken in own_times(trace).items():
            times[node.service, label(node)] += taken
        spans.update((node.service, label(node)) for node in trace.nodes if node.span is not None)
    count = max(1, len(traces))
    return {key: (times[key] / count, spans[key] / count) for key in spans}
