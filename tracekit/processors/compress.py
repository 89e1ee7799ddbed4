"""The compression stage: of siblings that are alike the first few are exported, the rest as one.

Theory of operation
-------------------
Children end before their parent, so it is known by then how many were alike. Of the spans with
one parent and name the first ``above`` go on as they are. What ends after those is looked at:
spans that say the same (see _alike.py) become one record, which goes on when their parent ends.
Failed ones say something else than those that did not, so they are a record of their own.

A span that something refers to, a child or another process, stays as it is; so does a slow one.

Bounds. At most ``MAX_WAITING`` records wait, of one parent and name ``MAX_KINDS``; what is more
goes on as it is. At most ``MAX_PARENTS`` parents are known, of which the oldest makes room, with
``MAX_NAMES`` names each. A record waits for ``MAX_AGE_S`` where the parent does not end:
the batch processor's worker looks at that. Each record counts what it stands for, so that their
sum is exact whenever they go on.

Fork. What waits is the parent process's; the child starts with nothing.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable
from typing import Any

from tracekit import _fork, semconv
from tracekit.errors import InvalidValueError
from tracekit.interfaces import SpanProcessor
from tracekit.processors._alike import Alike
from tracekit.processors._stage import Stage

__all__ = ["CompressionProcessor"]

_logger = logging.getLogger("tracekit")

DEFAULT_ABOVE = 10
MAX_WAITING = 2_000
MAX_KINDS = 16
MAX_NAMES = 200
MAX_PARENTS = 5_000
MAX_AGE_S = 10.0
LONGEST_NS = 50_000_000
"""What takes longer is worth a look of its own; so Elastic's agents think as well.
https://www.elastic.co/docs/reference/apm/agents/python/configuration#config-span-compression-exact-match-max_duration
"""


class _Children:
    """What is known of the children of one span."""

    __slots__ = ("is_over", "numbers", "waiting")

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}
        self.waiting: dict[str, list[Alike]] = {}
        self.is_over = False


class CompressionProcessor(Stage):
    """Put siblings that are alike together, in front of whatever follows.

    Args:
        following: The next stage, or the processor that exports.
        above: How many spans of one parent and name are exported as they are.

    Raises:
        InvalidValueError: ``above`` is no whole number, or less than 1.

    Concurrency: all methods may be called from any thread.
    Cost: about 2.5 µs a span, a part of it because each span must know whether it had children.
    """

    def __init__(self, following: Any, above: int = DEFAULT_ABOVE) -> None:
        super().__init__(following)
        given: Any = above
        if isinstance(given, bool) or not isinstance(given, int) or given < 1:
            raise InvalidValueError("compress", above, "a whole number above 0")
        self._above = above
        self._is_closed = False
        self._begin()
        employ = getattr(following, "employ", None)
        if employ is not None:
            employ(self._hand_on_old)
        _fork.on_fork_in_child(self)

    @classmethod
    def above_of(cls, given: Any, source: str) -> int | None:
        """Return what ``configure(compress=...)``, a variable or a table says; None for off.

        Raises:
            InvalidValueError: It is neither true nor false, nor a whole number above 0.
        """
        word = str(given).strip().lower()
        if word in ("false", "0", "none"):
            return None
        if word == "true":
            return DEFAULT_ABOVE
        if word.isdecimal() and len(word) <= 9:
            return int(word)
        expected = "true, false, or how many siblings stay as they are, such as 10"
        raise InvalidValueError("compress" if source == "argument" else source, given, expected)

    def _begin(self) -> None:
        self._parents: dict[int, _Children] = {}
        # Reentrant: a signal handler that ends spans may interrupt the same thread.
        self._lock = threading.RLock()
        self._waiting = self._compressed = 0

    def after_fork_in_child(self) -> None:
        self._begin()

    @property
    def marks_parents(self) -> bool:
        return True

    # The way of a span ------------------------------------------------------------------

    def on_end_sampled(self, span: Any) -> None:
        # Only our own spans know whether something refers to them.
        is_referred_to = getattr(span, "is_referred_to", None)
        if is_referred_to is None:
            self.pass_on(span)
            return
        if is_referred_to:
            children = self._parents.pop(span.span_id, None)
            if children is not None:
                self._end(children)
            self.pass_on(span)
        elif not self._is_put_together(span):
            self.pass_on(span)

    def _is_put_together(self, span: Any) -> bool:
        fields = span.alike_fields()
        name, parent, start, end, *_ = fields
        if not parent or self._is_closed:
            return False
        children = self._parents.get(parent) or self._children_of(parent)
        number = children.numbers.get(name, 0) + 1
        if number > 1 or len(children.numbers) < MAX_NAMES:
            children.numbers[name] = number
        if number <= self._above or end - start > LONGEST_NS or not Alike.may_have_equals(fields):
            return False
        with self._lock:
            return self._put(children, span, fields)

    def _children_of(self, parent: int) -> _Children:
        with self._lock:
            children = self._parents.setdefault(parent, _Children())
            while len(self._parents) > MAX_PARENTS:
                self._end(self._parents.pop(next(iter(self._parents))))
            return children

    def _put(self, children: _Children, span: Any, fields: tuple[Any, ...]) -> bool:
        """Count a span with those that are alike, or begin such a group, under the lock."""
        # The parent may have ended, in another thread, since it was looked up.
        if children.is_over:
            return False
        alikes = children.waiting.setdefault(fields[0], [])
        try:
            if any(alike.takes(fields) for alike in alikes):
                self._compressed += 1
                return True
        except Exception:
            _logger.debug("it cannot be told what %r is like", span, exc_info=True)
            return False
        if len(alikes) >= MAX_KINDS or self._waiting >= MAX_WAITING:
            return False
        alikes.append(Alike(span, fields, time.monotonic()))
        self._waiting += 1
        return True

    # Going on ---------------------------------------------------------------------------

    def _end(self, children: _Children) -> None:
        with self._lock:
            children.is_over = True
            for alikes in children.waiting.values():
                self._hand_on(alikes)

    def _hand_on(self, alikes: Iterable[Alike]) -> None:
        """Hand records on, under the lock: no span is counted twice, or not at all."""
        for alike in alikes:
            self.pass_on(alike.single or alike.record(_measures(alike)))
            self._waiting -= 1

    def _hand_on_old(self) -> float | None:
        """Let records go on that waited too long; called by the worker in each round."""
        self._hand_on_older_than(MAX_AGE_S)
        return MAX_AGE_S if self._waiting else None

    def _hand_on_older_than(self, age_s: float) -> None:
        if not self._waiting:
            return
        until = time.monotonic() - age_s
        with self._lock:
            for children in tuple(self._parents.values()):
                for name, alikes in children.waiting.items():
                    self._hand_on(alike for alike in alikes if alike.begun_s <= until)
                    children.waiting[name] = [a for a in alikes if a.begun_s > until]

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Hand on what is put together by now, and have it exported."""
        self._hand_on_older_than(0.0)
        return super().force_flush(timeout_millis)

    def flush_or_keep(self, timeout_millis: int) -> bool:
        self._hand_on_older_than(0.0)
        return super().flush_or_keep(timeout_millis)

    def shutdown(self, timeout_millis: int = 5_000) -> None:
        self._is_closed = True
        self._hand_on_older_than(0.0)
        super().shutdown(timeout_millis)

    # The ledger -------------------------------------------------------------------------

    def kept_back(self) -> int:
        return self._waiting + self._compressed

    def received(self) -> int:
        with self._lock:
            return super().received()

    def stats(self) -> dict[str, Any]:
        with self._lock:
            counts = {"compressed": self._compressed, "compressing": self._waiting}
            return {**super().stats(), **counts}


def _measures(alike: Alike) -> dict[str, int]:
    return {
        semconv.COMPRESSED_COUNT: alike.count,
        semconv.COMPRESSED_TOTAL: alike.total_ns,
        semconv.COMPRESSED_MIN: alike.min_ns,
        semconv.COMPRESSED_MAX: alike.max_ns,
    }


plugin: type[SpanProcessor] = CompressionProcessor
