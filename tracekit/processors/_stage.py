"""What the stages between the end of a span and its export share: each holds the next one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tracekit._listening import listens
from tracekit._local_trace import LocalTrace
from tracekit.errors import InvalidValueError
from tracekit.interfaces import ReadableSpan, SpanExporter, SpanProcessor

__all__ = ["Stage", "is_sampled"]


def is_sampled(span: Any) -> bool:
    try:
        flags = getattr(span, "trace_flags", None)
        return bool((span.context.trace_flags if flags is None else flags) & 1)
    except Exception:  # not a span; the worker goes on with the others
        return False


def _nobody_follows() -> None:
    """Stand for a provider, where a stage has none."""


class Stage(SpanProcessor):
    """Stand in front of another processor and say all that is asked of that one.

    To the provider a stage and what is behind it are one processor with one ledger. A stage
    overrides ``on_end_sampled``, hands on with ``pass_on`` what it does not keep back, and says
    with ``kept_back`` how much that was. One that overrides ``on_start`` or ``on_ending`` calls
    the next one's itself; one that does not costs nothing there, unless somebody behind listens.

    Args:
        following: The next stage, or the processor that exports; it must keep a ledger.

    Raises:
        InvalidValueError: ``following`` keeps none, so that spans would vanish uncounted.

    Concurrency: all methods may be called from any thread.
    """

    def __init__(self, following: Any) -> None:
        if not (listens(following, "received") and listens(following, "stats")):
            expected = "a processor of tracekit, such as BatchSpanProcessor(exporter)"
            raise InvalidValueError("following", following, expected)
        self.next = following
        self._when_changed: Callable[[], None] = _nobody_follows
        self.pass_on: Callable[[ReadableSpan], None]
        self.pass_on = getattr(following, "on_end_sampled", following.on_end)
        for name in ("on_start", "on_ending"):
            # On the object, so that it counts as listening only where the next one listens.
            if not listens(self, name) and listens(following, name):
                setattr(self, name, getattr(following, name))

    # What is asked before spans start -----------------------------------------------------

    @property
    def drops(self) -> Any:
        """What decides at the start of a span that it is not recorded; None for nothing."""
        return getattr(self.next, "drops", None)

    @property
    def marks_parents(self) -> bool:
        """Whether a span must know at its end if it had children."""
        return bool(getattr(self.next, "marks_parents", False))

    @property
    def new_local_trace(self) -> Callable[[], LocalTrace] | None:
        """What makes a local trace for each local root; None where no tail sampler holds them."""
        found: Callable[[], LocalTrace] | None = getattr(self.next, "new_local_trace", None)
        return found

    @property
    def when_changed(self) -> Callable[[], None]:
        """To be called by a stage whose answers, or whose way of a span, are others now."""
        return self._when_changed

    @when_changed.setter
    def when_changed(self, follow: Callable[[], None]) -> None:
        self._when_changed = follow
        if hasattr(self.next, "when_changed"):
            self.next.when_changed = follow

    # The way of a span ------------------------------------------------------------------

    def on_end(self, span: ReadableSpan) -> None:
        if is_sampled(span):
            self.on_end_sampled(span)
        else:
            self.next.on_end(span)

    def on_end_sampled(self, span: ReadableSpan) -> None:
        """Take a span that is known to be sampled: what the tracer itself calls."""
        self.pass_on(span)

    # Flushing and stopping --------------------------------------------------------------

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self.next.force_flush(timeout_millis) is not False

    def flush_or_keep(self, timeout_millis: int) -> bool:
        """Leave nothing in memory, within the time; see ``BatchSpanProcessor.flush_or_keep``."""
        flush = getattr(self.next, "flush_or_keep", self.next.force_flush)
        return flush(timeout_millis) is not False

    def shutdown(self, timeout_millis: int = 5_000) -> None:
        self.next.shutdown(timeout_millis)

    # What is asked of a processor that exports ------------------------------------------

    @property
    def exporters(self) -> tuple[SpanExporter, ...]:
        found: tuple[SpanExporter, ...] = getattr(self.next, "exporters", ())
        return found

    def spare(self, exporters: Sequence[SpanExporter]) -> None:
        """Leave these running at shutdown: another processor goes on with them."""
        if hasattr(self.next, "spare"):
            self.next.spare(exporters)

    @property
    def takes_unfinished(self) -> bool:
        return bool(getattr(self.next, "takes_unfinished", False))

    def export_unfinished(self, spans: Sequence[ReadableSpan], timeout_millis: int) -> None:
        """Let exporters that can note spans which are still open."""
        self.next.export_unfinished(spans, timeout_millis)

    # What the next one does not have, the stage has not either: asked for, it is absent.
    @property
    def employ(self) -> Callable[[Callable[[], float | None]], Callable[[], None]]:
        """Have its worker do work that is due; see ``BatchSpanProcessor.employ``."""
        employ: Callable[[Callable[[], float | None]], Callable[[], None]] = self.next.employ
        return employ

    @property
    def after_hand_out(self) -> Callable[[], None] | None:
        """Called by the worker each time it has been through its queue."""
        called: Callable[[], None] | None = self.next.after_hand_out
        return called

    @after_hand_out.setter
    def after_hand_out(self, called: Callable[[], None] | None) -> None:
        self.next.after_hand_out = called

    # The ledger -------------------------------------------------------------------------

    def kept_back(self) -> int:
        """Return how many spans came here and were not handed on, for good or until now."""
        return 0

    def received(self) -> int:
        """Return how many ended spans came here since the process began."""
        return int(self.next.received()) + self.kept_back()

    def stats(self) -> dict[str, Any]:
        """Return the next one's ledger; a stage adds what it keeps back, under names of its own."""
        behind = self.next.stats()
        return {**behind, "received": behind["received"] + self.kept_back()}
