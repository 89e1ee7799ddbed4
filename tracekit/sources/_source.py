"""What a source of traces is: a server that is asked for one trace, or for recent ones."""

from __future__ import annotations

import io
import re
import time
from collections.abc import Iterator
from typing import NamedTuple

from tracekit.errors import SourceError
from tracekit.formats._reading import TraceFile
from tracekit.model import SpanRecord
from tracekit.sources._server import Answer, Server

__all__ = ["DAY_NS", "Recent", "TraceSource", "checked_trace_id"]

DAY_NS = 86_400_000_000_000
MOST_TOLD = 20
_TRACE_ID = re.compile(r"[0-9a-fA-F]{1,32}").fullmatch


class Recent(NamedTuple):
    """Which recent traces: with a span of a service and of a name, begun within these times.

    Without ``since_ns`` the last day is asked for: no server likes to search all it has.
    """

    limit: int
    service: str | None = None
    name: str | None = None
    since_ns: int | None = None
    until_ns: int | None = None

    def window_ns(self) -> tuple[int, int]:
        until = time.time_ns() if self.until_ns is None else self.until_ns
        return (until - DAY_NS if self.since_ns is None else self.since_ns), until


class TraceSource:
    """Read traces through the query API of a server; for use by one thread.

    Attributes:
        remarks: What of the answers is missing, in words; what was read is used all the same.
    """

    name: str
    """What users type in front of the address; the name of the file."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.remarks: list[str] = []

    def trace(self, trace_id: str) -> Iterator[SpanRecord]:
        """Yield the spans of one trace; none if the server has no such trace.

        Raises:
            SourceError: The server cannot be asked, or answers something else.
        """
        raise NotImplementedError

    def recent(self, wanted: Recent) -> Iterator[SpanRecord]:
        """Yield the spans of recent traces, the newest ``wanted.limit`` or more.

        Raises:
            SourceError: As for ``trace``.
        """
        raise NotImplementedError

    def spans(self, answer: Answer, format_name: str) -> Iterator[SpanRecord]:
        """Yield the spans of an answer in one of the formats of files, and remark what is lost."""
        file = TraceFile(io.BytesIO(answer.body), format_name)
        yield from file
        for item in file.unreadable:
            self.remark(f"{item.reason} (line {item.line} of an answer)")
        if answer.cut:
            self.remark(answer.cut)

    def remark(self, text: str) -> None:
        if text not in self.remarks and len(self.remarks) < MOST_TOLD:
            self.remarks.append(text)


def checked_trace_id(text: str) -> str:
    """Return a trace id as servers want it.

    Raises:
        SourceError: It is none; parts of one are not looked up.
    """
    if not _TRACE_ID(text):
        raise SourceError(f"{text!r} is not a trace id: 32 hexadecimal digits are asked for")
    return text.lower()
