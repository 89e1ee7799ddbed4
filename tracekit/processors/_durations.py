"""How long operations usually take: a running percentile of each, in bounded memory.

Theory of operation
-------------------
Durations of an operation are counted in buckets a sixteenth of an octave wide, so that a
percentile read from them is wrong by at most 6 %, upwards. Once ``WINDOW`` durations are
counted, all counts are halved: what was usual an hour ago fades. The percentile is worked out
anew each time a sixteenth more was counted.

An operation that was seen too seldom to have a percentile is compared with all operations
together. Operations beyond ``MAX_OPERATIONS`` push out the one that was not seen for longest.

Concurrency: none; called by one thread at a time.
"""

from __future__ import annotations

__all__ = ["MAX_OPERATIONS", "Durations", "Percentile"]

MAX_OPERATIONS = 1000
WINDOW = 4096
EVERY, EVERY_OF_ALL = 3, 7
"""Once a percentile is known, one of so many durations is counted: counting is half of the cost.
Odd, because programs do things by turns."""
FINE_BITS = 4
"""Bits of a duration behind the first that choose its bucket."""


class Percentile:
    """A percentile of the durations that it was told, in nanoseconds.

    Args:
        share: Of the durations that is longer, such as 0.01 for the 99th percentile.
    """

    __slots__ = ("_counts", "_due", "_halvings", "_least", "_share", "_total", "_window", "value")

    def __init__(self, share: float) -> None:
        self._share = share
        # So many that two are expected beyond it: with fewer its value is mere chance.
        self._least = self._due = max(8, round(2 / share))
        self._window = max(WINDOW, 4 * self._least)
        self._counts: dict[int, int] = {}
        self._total = self._halvings = 0
        self.value: int | None = None

    def add(self, duration_ns: int) -> None:
        bits = duration_ns.bit_length() - 1 - FINE_BITS
        bucket = (bits << FINE_BITS) + (duration_ns >> bits) if bits > 0 else duration_ns
        counts = self._counts
        counts[bucket] = counts.get(bucket, 0) + 1
        self._total += 1
        if self._total >= self._due:
            self._work_out()

    def _work_out(self) -> None:
        """Find the bucket that the percentile falls into; its upper end is the answer."""
        if self._total >= self._window:
            self._halve()
        beyond = self._total * self._share
        for bucket in sorted(self._counts, reverse=True):
            beyond -= self._counts[bucket]
            if beyond < 0:
                self.value = _upper_end(bucket)
                break
        self._due = self._total + max(8, self._total // 16)

    def _halve(self) -> None:
        # Rounded up and down by turns: always down would wear off the ends of the distribution,
        # where buckets hold few; always up would keep an outlier for ever.
        self._halvings += 1
        up = self._halvings & 1
        halved = {bucket: (count + up) >> 1 for bucket, count in self._counts.items()}
        self._counts = {bucket: count for bucket, count in halved.items() if count}
        self._total = sum(self._counts.values())


def _upper_end(bucket: int) -> int:
    bits = (bucket >> FINE_BITS) - 1
    if bits <= 0:
        return bucket
    return ((bucket - (bits << FINE_BITS) + 1) << bits) - 1


class Durations:
    """Tell slow calls of an operation from usual ones.

    Args:
        percentile: Such as 99: a call beyond it is slow.

    Cost: 0.3 µs for each duration.
    """

    def __init__(self, percentile: float) -> None:
        self.percentile = percentile
        self._share = (100 - percentile) / 100
        self._all = Percentile(self._share)
        self._operations: dict[str, Percentile] = {}
        self._is_full = False
        self._seen = 0

    def is_slow(self, operation: str, duration_ns: int) -> bool:
        """Say whether it took unusually long, compared with those before; and count it."""
        usual = self._operations.get(operation)
        if usual is None or self._is_full:
            usual = self._moved_to_the_end(operation)
        limit = usual.value
        if limit is None:
            limit = self._all.value
            usual.add(duration_ns)
        self._seen = seen = self._seen + 1
        if not seen % EVERY:
            usual.add(duration_ns)
        if limit is None or not seen % EVERY_OF_ALL:
            self._all.add(duration_ns)
        return limit is not None and duration_ns > limit

    def _moved_to_the_end(self, operation: str) -> Percentile:
        """Put an operation where those stay longest that are seen most; make room if it is new."""
        usual = self._operations.pop(operation, None) or self._new()
        self._operations[operation] = usual
        return usual

    def limit_ns(self, operation: str) -> int | None:
        """Return the duration beyond which a call is slow; None while nobody can say."""
        usual = self._operations.get(operation)
        return self._all.value if usual is None or usual.value is None else usual.value

    def _new(self) -> Percentile:
        while len(self._operations) >= MAX_OPERATIONS:
            del self._operations[next(iter(self._operations))]
        self._is_full = len(self._operations) + 1 >= MAX_OPERATIONS
        return Percentile(self._share)
