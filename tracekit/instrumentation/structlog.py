"""Put the ids of the current span into every event of structlog.

Why ``_process_event`` and not a processor: a program's list of processors is its own, is replaced
by `configure()` and emptied by `capture_logs()`, and a logger may be made with another.
"""

from __future__ import annotations

import functools
import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from types import FunctionType
from typing import Any

from tracekit.instrumentation._log_events import LEVELS, LogEvents, exception_in, log_events_from
from tracekit.instrumentation._log_fields import current_fields
from tracekit.instrumentation._patch import LibraryInstrumentor, quiet, report
from tracekit.instrumentation._replacing import Make, Replacing, ReplacingInstrumentor

__all__ = ["StructlogInstrumentor", "plugin"]

# https://opentelemetry.io/docs/specs/otel/compatibility/logging_trace_context/
TRACE_ID, SPAN_ID = "trace_id", "span_id"


class StructlogInstrumentor(ReplacingInstrumentor):
    """Add ``trace_id`` and ``span_id`` to every event, ``"0"`` outside of a span.

    A key that the program has bound, or passes along, is left alone. With ``span_events`` (or
    ``TRACEKIT_LOG_SPAN_EVENTS``) what is logged from that level on becomes an event of the span,
    unless the standard library's logging, to which structlog may hand over, writes it.
    Makes no spans.
    """

    name = "structlog"
    makes_spans = False
    distributions = ("structlog",)
    supported = ">=22.2"
    contrib = ("structlog",)

    _events: LogEvents | None = None

    def configure(self, options: Mapping[str, Any]) -> None:
        others = dict(options)
        self._events = log_events_from(os.environ, others.pop("span_events", None))
        super().configure(others)

    def patches(self) -> Sequence[Replacing]:
        make = _in_place(self._events)
        return (Replacing("structlog._base", "BoundLoggerBase._process_event", make),)


def _in_place(events: LogEvents | None) -> Make:
    """Return what makes our function, which passes for a part of structlog.

    Processors look for the line that logs by stepping over frames of modules named structlog, and
    would take the function's for it.
    """
    before, after = _add_ids, None if events is None else functools.partial(_write, events)

    def make(original: Callable[..., Any], owners: Sequence[object]) -> Callable[..., Any]:
        def process_event(self: Any, method_name: Any, event: Any, event_kw: Any) -> Any:
            if not owners:
                return original(self, method_name, event, event_kw)
            exc_info = before(self, event_kw)
            result = original(self, method_name, event, event_kw)
            if after is not None:
                after(self, method_name, event, exc_info)
            return result

        return FunctionType(
            process_event.__code__,
            {"__name__": "structlog.tracekit"},
            process_event.__name__,
            None,
            process_event.__closure__,
        )

    return make


def _add_ids(bound: Any, event_kw: Any) -> Any:
    """Add the ids to an event's own keys; return its ``exc_info``, which processors take out."""
    # As quiet() has it, without the call: on the path of every event.
    try:
        context, fields = bound._context, current_fields()
        if TRACE_ID not in event_kw and TRACE_ID not in context:
            event_kw[TRACE_ID] = fields[0]
        if SPAN_ID not in event_kw and SPAN_ID not in context:
            event_kw[SPAN_ID] = fields[1]
        return event_kw.get("exc_info")
    except Exception:
        report("the ids of an event")
        return None


@quiet
def _write(events: LogEvents, bound: Any, method: str, event: Any, exc_info: Any) -> None:
    """Write an event that no processor has dropped."""
    native = bound._logger
    if isinstance(native, logging.Logger) and _logging_writes():
        return
    name = getattr(native, "name", "")
    level = LEVELS.get(method.upper(), logging.INFO)
    exception = exception_in(exc_info)
    events.write(level, method, name if isinstance(name, str) else "", event, exception)


def _logging_writes() -> bool:
    """Tell whether the records that structlog hands on become events there."""
    module = sys.modules.get("tracekit.instrumentation.logging")
    return module is not None and module.writes_events()


plugin: type[LibraryInstrumentor] = StructlogInstrumentor
