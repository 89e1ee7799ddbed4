"""The caller's span, as most callers send it: what the start of a span below it reads in one look.

A propagator makes it and a tracer reads it; neither knows the other.
"""

from __future__ import annotations

from typing import Any

from opentelemetry.trace import NonRecordingSpan, SpanContext

__all__ = ["RemoteSpan"]


class RemoteSpan(NonRecordingSpan):
    """The caller's span; kept in slots, where the API's class fills a dictionary.

    Whoever makes one fills both.

    Attributes:
        followed_flags: The trace flags of a span below it whose sampler follows its parent; None
            where it would not be recorded, or where a trace state came along, of which a sampler
            may make another.
    """

    __slots__ = ("_context", "followed_flags")

    _context: SpanContext
    followed_flags: int | None

    # An __init__ that fills the slots would cost a frame.
    __init__: Any = object.__init__

    def get_span_context(self) -> SpanContext:
        return self._context

    def __reduce__(self) -> tuple[Any, ...]:
        return NonRecordingSpan, (self._context,)
