"""What is wrong with a trace as a reason to keep it: findings for the tail sampler."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tracekit import discovery
from tracekit.errors import InvalidValueError
from tracekit.exporters._readable import salvage
from tracekit.findings import find_all, kinds
from tracekit.interfaces import ReadableSpan
from tracekit.model import Severity
from tracekit.trace import traces_of

__all__ = ["finder"]

ELSEWHERE = frozenset(("broken_propagation",))
"""What nobody can say of the part of a trace that one process has."""


def finder(wanted: Any) -> Callable[[Sequence[ReadableSpan]], str] | None:
    """Return what finds out whether something is wrong with a trace, or None.

    Args:
        wanted: The names of findings; True for all that matter, False for none.

    Raises:
        ConfigurationError: There is no such finding.
    """
    if isinstance(wanted, bool):
        return _kind_found if wanted else None
    if not isinstance(wanted, (list, tuple)) or not all(isinstance(kind, str) for kind in wanted):
        expected = f"true, false or a list of {', '.join(sorted(kinds()))}"
        raise InvalidValueError("tail: findings", wanted, expected)
    for kind in wanted:
        discovery.find("finding", kind, "tail")
    chosen = frozenset(wanted)
    return lambda spans: _first(spans, lambda found: found.kind in chosen)


def _kind_found(spans: Sequence[ReadableSpan]) -> str:
    return _first(spans, lambda found: found.severity is not Severity.LOW)


def _first(spans: Sequence[ReadableSpan], counts: Callable[[Any], bool]) -> str:
    """Return the kind of the most important finding that counts, or nothing.

    Cost: about 10 µs a span, and 50 µs a trace.
    """
    for trace in traces_of(map(salvage, spans)):
        for found in find_all(trace):
            if counts(found) and found.kind not in ELSEWHERE:
                return found.kind
    return ""
