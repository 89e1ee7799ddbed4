"""Calling several span processors as one, whoever wrote them."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from opentelemetry.context import Context
from opentelemetry.trace import Span

from tracekit._listening import listens
from tracekit._local_trace import LocalTrace
from tracekit.core.counts import Counts
from tracekit.interfaces import ReadableSpan

__all__ = ["Chain", "call_bounded"]

_logger = logging.getLogger("tracekit")

MAX_NESTING = 8
"""How deep processors may make spans while they are told of one; without end, a span that one
makes in its own ``on_end`` would be hundreds, up to the recursion limit."""


class _Nesting(threading.local):
    depth = 0


_nesting = _Nesting()


class Chain:
    """Processors in the order in which they were added, each kept from harming the others.

    ``on_start`` and ``on_ending`` are None when nobody listens, which is what a span tests.
    With one processor of our own that takes ended spans, ``on_end`` is its method itself.

    Args:
        before: The chain that this one replaces; what went there is counted on.
    """

    def __init__(
        self, processors: Sequence[Any], counts: Counts, before: Chain | None = None
    ) -> None:
        self.processors = tuple(processors)
        self._counts = counts
        # The first of ours counts the spans that end, so that the chain need not. It goes on
        # counting those that were started with a chain and end after it was replaced.
        self._tellers: tuple[tuple[Any, int], ...] = before._tellers if before else ()
        self._teller = next((part for part in self.processors if _counts_spans(part)), None)
        if self._teller is not None and self._teller not in [part for part, _ in self._tellers]:
            self._tellers += ((self._teller, self._teller.received()),)
        self._warned: set[int] = before._warned if before else set()
        self._starts = _listeners(self.processors, "on_start")
        self._endings = _listeners(self.processors, "on_ending", "_on_ending")
        self._ends = _listeners(self.processors, "on_end")
        self.on_start: Callable[[Span, Context | None], None] | None = None
        self.on_ending: Callable[[Span], None] | None = None
        if self._starts:
            self.on_start = self._on_start
        if self._endings:
            self.on_ending = self._on_ending
        self.on_end: Callable[[ReadableSpan], None] = self._on_end
        # For spans known to be sampled: a processor of ours need not look again.
        self.on_end_sampled: Callable[[ReadableSpan], None] = self.on_end
        if len(self._ends) == 1 and self._teller is not None:
            self.on_end = self._ends[0]
            self.on_end_sampled = getattr(self._teller, "on_end_sampled", self.on_end)

    @property
    def drops(self) -> Any:
        """What decides at the start of a span that it is not recorded; None where nothing does."""
        return next((found for found in self._said("drops") if found is not None), None)

    @property
    def marks_parents(self) -> bool:
        """Whether somebody asks at the end of a span whether it had children."""
        return any(self._said("marks_parents"))

    @property
    def new_local_trace(self) -> Callable[[], LocalTrace] | None:
        """What makes a local trace for each local root; None where no tail sampler holds them."""
        return next(filter(None, self._said("new_local_trace")), None)

    def call_when_changed(self, follow: Callable[[], None]) -> None:
        """Have the processors say when they answer otherwise than they did."""
        for part in self.processors:
            if _is_ours(part) and hasattr(part, "when_changed"):
                part.when_changed = follow

    def _said(self, name: str) -> list[Any]:
        return [getattr(part, name, None) for part in self.processors if _is_ours(part)]

    def _on_start(self, span: Span, parent_context: Context | None = None) -> None:
        self._tell(self._starts, span, parent_context=parent_context)

    def _on_ending(self, span: Span) -> None:
        self._tell(self._endings, span)

    def _on_end(self, span: ReadableSpan) -> None:
        if self._teller is None:
            self._counts.ended.add()
        self._tell(self._ends, span)

    def _tell(self, listeners: tuple[Callable[..., None], ...], *span: Any, **named: Any) -> None:
        depth = _nesting.depth
        _nesting.depth = depth + 1
        try:
            for listener in listeners:
                try:
                    if depth >= MAX_NESTING:
                        _refuse_strangers(listener)
                    listener(*span, **named)
                except Exception:
                    self._warn(listener)
        finally:
            _nesting.depth = depth

    def _warn(self, listener: Any) -> None:
        """Count, and say once per processor, that it raised; its spans are its own loss."""
        self._counts.processor_errors.add()
        owner = getattr(listener, "__self__", listener)
        if id(owner) not in self._warned:
            self._warned.add(id(owner))
            _logger.warning("span processor %r raised; told once", owner, exc_info=True)

    def ended(self) -> int:
        """Return how many spans were handed to the processors, of this chain and those before."""
        told = sum(int(part.received()) - before for part, before in self._tellers)
        return self._counts.ended.read() + told

    def stats(self) -> list[dict[str, Any]]:
        """Return the ledgers of the processors, and of those that went and still count."""
        gone = [part for part, _ in self._tellers if part not in self.processors]
        return [part.stats() for part in (*self.processors, *gone) if hasattr(part, "stats")]

    def after_fork_in_child(self) -> None:
        # The processors count from zero in the child.
        self._tellers = tuple((part, 0) for part, _ in self._tellers)

    def force_flush(self, timeout_millis: int) -> bool:
        """Flush all; True only when every processor said so in time."""
        return self._flush_each(timeout_millis, "force_flush")

    def flush_or_keep(self, timeout_millis: int) -> bool:
        """Flush all; of what is left, each keeps on the disk what it can."""
        return self._flush_each(timeout_millis, "flush_or_keep", "force_flush")

    def _flush_each(self, timeout_millis: int, *methods: str) -> bool:
        deadline = time.monotonic() + timeout_millis / 1000
        flushed = True
        for processor in self.processors:
            left = max(0, int((deadline - time.monotonic()) * 1000))
            named = (getattr(processor, method, None) for method in methods)
            flush = next((method for method in named if callable(method)), _nothing_to_do)
            done = call_bounded(flush, left, left / 1000, _is_ours(processor))
            # None is what a processor returns that does not say.
            flushed = flushed and done is not False
        return flushed

    def shutdown(self, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        for processor in self.processors:
            left = max(0.1, deadline - time.monotonic())
            if _is_ours(processor):
                call_bounded(processor.shutdown, int(left * 1000), left, True)
            else:
                stop = getattr(processor, "shutdown", _nothing_to_do)
                call_bounded(stop, None, left, False)


def _nothing_to_do(_timeout_millis: int = 0) -> None:
    """Stand for a method that somebody's processor does not have."""


def _refuse_strangers(listener: Any) -> None:
    """Spans that somebody's processor makes of spans that it made go to our processors only."""
    if not _is_ours(getattr(listener, "__self__", listener)):
        raise RecursionError("a span processor makes spans of the spans that it makes")


def _is_ours(processor: Any) -> bool:
    return type(processor).__module__.startswith("tracekit.")


def _counts_spans(processor: Any) -> bool:
    return _is_ours(processor) and hasattr(processor, "received")


def _listeners(processors: Sequence[Any], *names: str) -> tuple[Callable[..., None], ...]:
    """Return the methods that do something: those of the base classes are no-ops."""
    found = []
    for processor in processors:
        for name in names:
            if listens(processor, name):
                found.append(getattr(processor, name))
                break
    return tuple(found)


def call_bounded(
    function: Callable[..., Any], argument: int | None, timeout_s: float, trusted: bool
) -> Any:
    """Call a processor's method, and give up waiting when it does not keep to its time.

    Ours keep to it by themselves; others run in a thread that can be left behind. At the
    interpreter's exit no thread can be started any more, and they run right here.

    Returns:
        What the call returned; False when it raised or took too long.
    """
    result: list[Any] = []

    def run() -> None:
        try:
            result.append(function() if argument is None else function(argument))
        except Exception:
            result.append(False)
            _logger.warning("%r raised", function, exc_info=True)

    if trusted:
        run()
        return result[0]
    thread = threading.Thread(target=run, name="tracekit-flush", daemon=True)
    try:
        thread.start()
    except RuntimeError:
        run()
        return result[0]
    thread.join(timeout_s)
    return result[0] if result else False
