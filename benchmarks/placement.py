"""Which core the processes of a row run on: the same, for all of them.

The kernel keeps a client and its server on one core, or takes one of them to another, as it finds
the cores when they wake each other. Apart, each wait puts a core to sleep and each answer wakes
it, with caches that went cold: a query of psycopg takes 51 µs of CPU time instead of 25, where
tracekit adds 11 in one place and 14 in the other. A process stays for seconds where it is, and goes
when a thread waits for another, as at the end of a round: that of a side whose spans are exported
on a thread of its own goes more often. Then the place is measured, and not what tracing adds.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["on_one_core"]


@contextmanager
def on_one_core() -> Iterator[None]:
    """Keep on one core what is started meanwhile, where the system can be told to.

    Concurrency: of the calling thread, whose place its children inherit.
    Source: https://man7.org/linux/man-pages/man2/sched_setaffinity.2.html
    """
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    # Not the first, which as a rule serves the interrupts.
    os.sched_setaffinity(0, {max(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
