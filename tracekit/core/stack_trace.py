"""The text of an exception's stack trace, at a cost that is bounded.

An exception that leaves a recursion passes a span at each level, and each of them writes down
what there is to see from there: nearly the same frames, again and again. Formatting one frame
takes 10 to 100 µs, most of it for the marks under the part of the line that failed, since the
line is parsed for them. So what was written of a frame is remembered, by everything that its
text is made of: any exception that comes by the same place again costs a look into a table.
"""

from __future__ import annotations

from collections.abc import Iterator
from operator import attrgetter
from traceback import FrameSummary, StackSummary, TracebackException
from types import TracebackType
from typing import Any

__all__ = ["stack_trace"]

MAX_STACKTRACE = 256 * 1024
"""Characters kept of a stack trace; a chain of exceptions could make one of many megabytes."""

MAX_FRAMES = 128
"""Frames kept of each traceback, the innermost."""

MAX_REMEMBERED = 1024
"""Texts of frames, some 200 bytes each."""

_remembered: dict[tuple[Any, ...], str] = {}


def stack_trace(exception: BaseException) -> str:
    """Return what Python would print, with causes, notes and the members of groups."""
    try:
        text = "".join(_described(exception).format())
    except Exception as error:
        text = f"<stack trace not readable: {type(error).__name__}>"
    if len(text) <= MAX_STACKTRACE:
        return text
    half = MAX_STACKTRACE // 2
    return f"{text[:half]}\n[... cut ...]\n{text[-half:]}"


def _described(exception: BaseException) -> TracebackException:
    described = TracebackException(
        type(exception),
        exception,
        _innermost(exception.__traceback__),
        limit=-MAX_FRAMES,  # for the tracebacks of causes; of a long one all frames are read first
        compact=True,
    )
    for part in _parts(described):
        part.stack = _Remembering(part.stack)
    return described


def _innermost(frames: TracebackType | None) -> TracebackType | None:
    """Return where the last frames of a traceback begin."""
    ahead = frames
    for _ in range(MAX_FRAMES):
        if ahead is None:
            return frames
        ahead = ahead.tb_next
    while frames is not None and ahead is not None:
        frames, ahead = frames.tb_next, ahead.tb_next
    return frames


def _parts(described: TracebackException) -> Iterator[TracebackException]:
    """Yield an exception, what it was caused by, and the members of groups."""
    pending: list[Any] = [described]
    while pending:
        part = pending.pop()
        if part is not None:
            yield part
            members = getattr(part, "exceptions", None) or ()
            pending += (part.__cause__, part.__context__, *members)


_place = attrgetter("end_lineno", "colno", "end_colno")


class _Remembering(StackSummary):
    """Frames whose text is made once. Python 3.10 has no such method, and no marks to make."""

    def format_frame_summary(self, frame_summary: FrameSummary, **options: Any) -> str:
        key = (
            frame_summary.filename,
            frame_summary.name,
            frame_summary.lineno,
            frame_summary.line,
            *_place(frame_summary),
            *options.items(),
        )
        text = _remembered.get(key)
        if text is None:
            plain: Any = super()
            text = str(plain.format_frame_summary(frame_summary, **options))
            if len(_remembered) >= MAX_REMEMBERED:
                _remembered.clear()
            _remembered[key] = text
        return text
