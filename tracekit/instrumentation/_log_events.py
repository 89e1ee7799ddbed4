"""Log records as events of the span in which they were written, where that is asked for.

Bounded on every side: from a level on, so many a span, messages and stack traces cut. What is left
out is counted on the span.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from opentelemetry.trace import INVALID_SPAN, Span, get_current_span

from tracekit import semconv
from tracekit.errors import InvalidValueError
from tracekit.instrumentation._http import error_type, message_of, truncated
from tracekit.instrumentation._patch import report

__all__ = ["LogEvents", "exception_in", "log_events_from"]

LEVELS: Mapping[str, int] = {
    "TRACE": 5,
    "DEBUG": logging.DEBUG,
    "INFO": logging.INFO,
    "SUCCESS": 25,
    "WARN": logging.WARNING,
    "WARNING": logging.WARNING,
    "ERROR": logging.ERROR,
    "EXCEPTION": logging.ERROR,
    "CRITICAL": logging.CRITICAL,
    "FATAL": logging.CRITICAL,
}
"""Names of the standard library's levels, and those that structlog and loguru add."""

# A span holds 128 events: half is left for exceptions and for the program's own.
MOST_EVENTS = 64
MOST_SPANS = 1024
LONGEST_MESSAGE = 4096
LONGEST_STACKTRACE = 16 * 1024

# What tracing says of itself is not the program's, and might be about the event just written.
_OURS = ("tracekit", "opentelemetry")

_EXPECTED = "a level such as WARNING, or its number"


def log_events_from(
    environ: Mapping[str, str], span_events: str | int | bool | None = None
) -> LogEvents | None:
    """Return what writes events, or None where they were not asked for.

    Args:
        environ: ``TRACEKIT_LOG_SPAN_EVENTS`` is the least level of records that become events.
        span_events: An option that takes its place; True is ``INFO``, False none.

    Raises:
        InvalidValueError: There is no such level.
    """
    wanted: Any = span_events
    if wanted is None:
        wanted = environ.get("TRACEKIT_LOG_SPAN_EVENTS", "").strip() or False
    if wanted is False:
        return None
    return LogEvents(logging.INFO if wanted is True else _level(wanted))


def _level(wanted: Any) -> int:
    if isinstance(wanted, str):
        number = LEVELS.get(wanted.upper())
        if number is None and wanted.isascii() and wanted.isdecimal() and len(wanted) < 4:
            number = int(wanted)
    else:
        number = wanted if isinstance(wanted, int) else None
    if number is None:
        raise InvalidValueError("span_events (TRACEKIT_LOG_SPAN_EVENTS)", wanted, _EXPECTED)
    return number


class LogEvents:
    """Write records as events, from one level on.

    Concurrency: from any thread; a count may be off by one where two write to one span at once.
    """

    def __init__(self, level: int) -> None:
        self.level = level
        # Counted here: a span need not be able to tell its events.
        self._written: dict[int, int] = {}

    def write(
        self,
        level: int,
        level_name: str,
        logger: str,
        message: object,
        exception: BaseException | None = None,
    ) -> None:
        """Add an event to the current span, if there is one that is recording.

        Args:
            message: As it was logged; what its own ``str()`` says.

        Raises:
            Nothing.
        """
        if level < self.level or logger.startswith(_OURS):
            return
        span = get_current_span()
        if span is INVALID_SPAN or not span.is_recording():
            return
        try:
            if self._has_room(span):
                attributes = _attributes(level_name, logger, message, exception)
                span.add_event(semconv.LOG_EVENT, attributes)
        except Exception:
            report("the event of a log record")

    def _has_room(self, span: Span) -> bool:
        key = span.get_span_context().span_id
        count = self._written.get(key, 0) + 1
        if len(self._written) >= MOST_SPANS and key not in self._written:
            # Spans that were written to long ago have ended, most likely.
            self._written.clear()
        self._written[key] = count
        if count <= MOST_EVENTS:
            return True
        span.set_attribute(semconv.LOG_DROPPED, count - MOST_EVENTS)
        return False


def _attributes(
    level_name: str, logger: str, message: object, exception: BaseException | None
) -> dict[str, Any]:
    found = {
        semconv.LOG_LEVEL: level_name.upper(),
        semconv.LOG_MESSAGE: truncated(str(message), LONGEST_MESSAGE),
    }
    if logger:
        found[semconv.LOG_LOGGER] = truncated(logger, LONGEST_MESSAGE)
    if exception is not None:
        lines = "".join(traceback.format_exception(exception))
        found[semconv.EXCEPTION_TYPE] = error_type(exception)
        found[semconv.EXCEPTION_MESSAGE] = message_of(exception)
        found[semconv.EXCEPTION_STACKTRACE] = truncated(lines, LONGEST_STACKTRACE)
    return found


def exception_in(
    exc_info: BaseException
    | tuple[type[BaseException] | None, BaseException | None, TracebackType | None]
    | object,
) -> BaseException | None:
    """Return the exception that a library's ``exc_info`` stands for: itself, a triple, or True."""
    if isinstance(exc_info, BaseException):
        return exc_info
    if isinstance(exc_info, tuple):
        return next((part for part in exc_info if isinstance(part, BaseException)), None)
    if exc_info:
        import sys

        return sys.exc_info()[1]
    return None
