"""The outcome of one batch while it is being delivered."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence

from tracekit.interfaces import ExportOutcome, ReadableSpan

__all__ = ["Tally"]


class Tally:
    """The outcome of one batch while it is being delivered.

    Concurrency: written by one thread, until another one closes it and does the rest.
    """

    def __init__(self, spans: Sequence[ReadableSpan]) -> None:
        self.spans = spans
        self.sent = self.rejected = self.spooled = self.retried = self.split = 0
        self.dropped: Counter[str] = Counter()
        self.reason = ""
        self.rejected_for: Counter[str] = Counter()
        self.settled: list[Sequence[ReadableSpan]] = []
        self.lock = threading.RLock()
        self.is_closed = False
        self.is_over = threading.Event()

    def close(self) -> bool:
        """Take what is not settled yet; False when somebody else has."""
        with self.lock:
            was_closed, self.is_closed = self.is_closed, True
        return not was_closed

    def skip(self, span: ReadableSpan, error: Exception) -> None:
        self.dropped["unreadable"] += 1

    def rest(self) -> Tally:
        """Return a tally of what is not settled, with the counts of what is."""
        rest = Tally(self._unsettled())
        rest.sent, rest.rejected, rest.rejected_for = self.sent, self.rejected, self.rejected_for
        rest.retried, rest.split = self.retried, self.split
        rest.dropped.update(self.dropped)
        # They are among the unsettled ones, and will be counted again.
        rest.dropped.pop("unreadable", None)
        return rest

    def _unsettled(self) -> list[ReadableSpan]:
        """Return the spans of which nothing is known yet, those that nobody could read too."""
        settled = {_key(span) for spans in self.settled for span in spans}
        return [span for span in self.spans if not settled or _key(span) not in settled]

    def outcome(self) -> ExportOutcome:
        reason = self.reason or ("rejected" if self.rejected else next(iter(self.dropped), ""))
        dropped = dict(self.dropped)
        return ExportOutcome(self.sent, self.rejected, dropped, self.spooled, reason)


def _key(span: ReadableSpan) -> tuple[int, int] | None:
    """Return what tells a span from others, whoever wrapped it; None for one without ids."""
    try:
        return span.context.trace_id, span.context.span_id
    except Exception:
        return None
