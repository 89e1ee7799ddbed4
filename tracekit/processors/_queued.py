"""What waits in an exporter's lane: batches of spans, and calls of the exporter's methods."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, NamedTuple

from tracekit._own_work import suppressed
from tracekit.interfaces import ReadableSpan, SpanExporter

__all__ = ["Queued", "Request", "Settled", "size_of"]

_logger = logging.getLogger("tracekit")

EXACT_SIZES = 64
"""Spans in a batch up to which each is asked for its size."""


def size_of(spans: Sequence[ReadableSpan]) -> int:
    """Estimate the bytes of a batch: of a large one every 23rd span stands for its like.

    Asking each would cost more than all the rest of the hand-over, up to 1 µs a span, and
    asking every seventh still as much as taking them out of the queue. 23, because programs
    make spans in step with other numbers: loops of ten, trees of eight.
    """
    asked = spans[::23] if len(spans) > EXACT_SIZES else spans
    try:
        size = sum([getattr(span, "size_hint", 1024) for span in asked])
        return size * len(spans) // (len(asked) or 1)
    except Exception:  # somebody else's span
        return 1024 * len(spans)


class Request:
    """A call of an exporter's method, waiting for its turn in a thread of the lane."""

    def __init__(self, exporter: SpanExporter, method: str, arguments: tuple[Any, ...]) -> None:
        self._exporter, self._method, self._arguments = exporter, method, arguments
        self._result: Any = None
        self._done = threading.Event()

    def answer(self) -> None:
        try:
            method = getattr(self._exporter, self._method, None)
            self._result = method(*self._arguments) if callable(method) else None
        except Exception:
            self._result = False
            _logger.debug("%s of %r raised", self._method, self._exporter, exc_info=True)
        finally:
            self._done.set()

    def answer_suppressed(self) -> None:
        with suppressed():
            self.answer()

    def wait(self, timeout_s: float) -> Any:
        return self._result if self._done.wait(timeout_s) else False


class Queued(NamedTuple):
    """An entry of a lane's queue.

    Attributes:
        number: Its own in this lane.
        size: Of the spans, in bytes.
        request: To be answered instead of exporting spans.
    """

    number: int
    spans: Sequence[ReadableSpan] = ()
    size: int = 0
    request: Request | None = None


class Settled:
    """How far a lane is, where batches may be over in another order than they came.

    Concurrency: the caller holds the lane's lock.
    """

    def __init__(self) -> None:
        self._last = 0
        self._number = 0
        self._open: OrderedDict[int, int] = OrderedDict()

    def take_number(self) -> int:
        """Return a number for something that settles no spans."""
        self._number += 1
        return self._number

    def expect(self, last: int) -> int:
        """Note a batch and the number of its last span; return the batch's own number."""
        number = self.take_number()
        self._open[number] = self._last
        self._last = max(self._last, last)
        return number

    def over(self, number: int) -> None:
        self._open.pop(number, None)

    @property
    def spans(self) -> int:
        """How many of the first spans are settled, without a gap."""
        return next(iter(self._open.values()), self._last)
