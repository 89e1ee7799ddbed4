"""Trace and span ids from a random generator of our own."""

from __future__ import annotations

from tracekit import _fork as fork

__all__ = ["RandomIdGenerator"]


class RandomIdGenerator:
    """Make random ids without touching the program's ``random`` stream.

    ``random.seed(1)`` in the program therefore makes no two processes share ids, and a
    seeded program draws the same numbers with and without tracing. Reseeded in a forked child.

    Concurrency: ``getrandbits`` is one C call, atomic under the GIL and locked without it.
    Cost: 0.06 µs an id; ``os.urandom`` would be 0.6.
    """

    def __init__(self) -> None:
        import random  # with hashlib and math behind it: not on the way of `import tracekit`

        self._source = source = random.Random()
        if type(self) is RandomIdGenerator:
            # What spans call instead of the methods below: a C function saves a Python frame.
            self.random_bits = source.getrandbits
        fork.on_fork_in_child(self)

    def generate_trace_id(self) -> int:
        return self._source.getrandbits(128) or self.generate_trace_id()

    def generate_span_id(self) -> int:
        return self._source.getrandbits(64) or self.generate_span_id()

    def is_trace_id_random(self) -> bool:
        """True: all 128 bits are uniformly random, so the level-2 random flag is set."""
        return True

    def after_fork_in_child(self) -> None:
        self._source.seed()
