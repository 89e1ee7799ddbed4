"""Saying what a destination does: once that it fails, once that it works again."""

from __future__ import annotations

import logging
import threading
import time

from tracekit.exporters._answer import Sender, printable

__all__ = ["MAX_REASONS", "Reports"]

_logger = logging.getLogger("tracekit")

SAY_AGAIN_S = 60.0
"""A destination that fails now and then is not said to fail more often than this."""

MAX_REASONS = 32


class Reports:
    """Say once that a destination fails, and once that it works again.

    Concurrency: any thread.
    """

    def __init__(self, sender: Sender) -> None:
        self._sender = sender
        # Reentrant: a signal handler that shuts down may interrupt its holder.
        self._lock = threading.RLock()
        self.is_failing = self._was_said = False
        self._said_at = float("-inf")
        self._remarks: set[str] = set()
        self.last_failure = ""

    def failing(self, said: str) -> None:
        self.last_failure = said
        with self._lock:
            if self.is_failing:
                return
            self.is_failing = True
            self._was_said = time.monotonic() - self._said_at >= SAY_AGAIN_S
            if not self._was_said:
                return
            self._said_at = time.monotonic()
        # Not under the lock: a handler of the program's may do anything.
        _logger.warning("spans cannot be sent to %s: %s; trying on", self._sender.destination, said)

    def working(self) -> None:
        with self._lock:
            was_said = self.is_failing and self._was_said
            self.is_failing = False
        if was_said:
            _logger.warning("spans are sent to %s again", self._sender.destination)

    def remark(self, said: str, rejected: int, count: int) -> None:
        """Say what a destination remarked while taking a request, once for each text."""
        text = printable(said)
        with self._lock:
            if text in self._remarks or len(self._remarks) >= MAX_REASONS:
                return
            self._remarks.add(text)
        where = self._sender.destination
        if rejected:
            self.last_failure = text
            _logger.warning("%s rejected %d of %d spans: %s", where, rejected, count, text)
        else:
            _logger.warning("%s took %d spans and says: %s", where, count, text)
