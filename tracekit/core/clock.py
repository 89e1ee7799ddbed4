"""Where times come from: wall time for local roots, monotonic time for everything after."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

__all__ = ["SYSTEM_CLOCK", "Clock"]


class Clock(NamedTuple):
    """Two readings in nanoseconds, as plain callables because each span calls them.

    The difference of both is the anchor of a local root; later times are the anchor plus a
    monotonic reading, so children nest in their parents and no duration is negative, whatever
    is done to the wall clock meanwhile. Roots of the same millisecond share the system clock's.
    """

    wall_ns: Callable[[], int]
    monotonic_ns: Callable[[], int]


SYSTEM_CLOCK = Clock(time.time_ns, time.perf_counter_ns)
