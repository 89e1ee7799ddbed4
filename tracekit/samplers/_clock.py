"""The clock of samplers that count by the second: the machine's, unless traces are replayed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

__all__ = ["clock_in_use", "using_clock"]

Clock = Callable[[], float]

_in_use: ContextVar[Clock] = ContextVar("tracekit-sampler-clock", default=time.monotonic)


def clock_in_use() -> Clock:
    """Return the clock of a sampler that is made now and was not given one."""
    return _in_use.get()


@contextmanager
def using_clock(clock: Clock) -> Iterator[None]:
    """Give samplers that are made in this block another clock, of seconds that never go back."""
    token = _in_use.set(clock)
    try:
        yield
    finally:
        _in_use.reset(token)
