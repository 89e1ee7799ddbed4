"""What several findings need of a trace is worked out once."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from tracekit.trace import Trace

__all__ = ["once"]

T = TypeVar("T")


def once(work_out: Callable[[Trace], T]) -> Callable[[Trace], T]:
    """Keep the result of a function of a trace with the trace; callers must not change it."""

    def kept(trace: Trace) -> T:
        if work_out not in trace.derived:
            trace.derived[work_out] = work_out(trace)
        found: T = trace.derived[work_out]
        return found

    kept.__doc__ = work_out.__doc__
    return kept
