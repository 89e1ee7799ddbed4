"""Put the ids of the current span into every record of loguru.

Why ``_log`` and not ``logger.configure(patcher=...)``: there is one patcher, and it is the
program's.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from tracekit.instrumentation._log_events import LogEvents, log_events_from
from tracekit.instrumentation._log_fields import current_fields
from tracekit.instrumentation._patch import LibraryInstrumentor, Patch, quiet

__all__ = ["LoguruInstrumentor", "plugin"]

# https://opentelemetry.io/docs/specs/otel/compatibility/logging_trace_context/
TRACE_ID, SPAN_ID = "trace_id", "span_id"

# exception, depth, record, lazy, colors, raw, capture, patchers, extra: what a record is made with.
_OPTIONS = 9
_DEPTH, _PATCHERS = 1, 7


class LoguruInstrumentor(LibraryInstrumentor):
    """Add ``extra[trace_id]`` and ``extra[span_id]`` to every record, ``"0"`` outside of a span.

    What the program has bound under these names is left alone. With ``span_events`` (or
    ``TRACEKIT_LOG_SPAN_EVENTS``) records from that level on become events of the span.
    Makes no spans.
    """

    name = "loguru"
    makes_spans = False
    distributions = ("loguru",)
    supported = ">=0.7,<1"

    _events: LogEvents | None = None

    def configure(self, options: Mapping[str, Any]) -> None:
        others = dict(options)
        self._events = log_events_from(os.environ, others.pop("span_events", None))
        super().configure(others)

    def patches(self) -> Sequence[Patch]:
        return (Patch("loguru._logger", "Logger._log", self._log),)

    def _log(self, wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
        if len(args) < 3 or not isinstance(args[2], (tuple, list)) or len(args[2]) != _OPTIONS:
            return wrapped(*args, **kwargs)
        # One frame more between the program and what looks for its line.
        options = list(args[2])
        options[_DEPTH] += 1
        options[_PATCHERS] = [*options[_PATCHERS], self._patch]
        return wrapped(*args[:2], tuple(options), *args[3:], **kwargs)

    @quiet
    def _patch(self, record: Any) -> None:
        """Complete a record that is going to be written; the program's own patchers come first."""
        fields = current_fields()
        extra = record["extra"]
        extra.setdefault(TRACE_ID, fields[0])
        extra.setdefault(SPAN_ID, fields[1])
        if self._events is not None:
            level, exception = record["level"], record["exception"]
            self._events.write(
                level.no,
                level.name,
                record["name"] or "",
                record["message"],
                None if exception is None else exception.value,
            )


plugin: type[LibraryInstrumentor] = LoguruInstrumentor
