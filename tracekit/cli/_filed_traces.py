"""Traces of files that some tracer or server wrote."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from tracekit.cli import _trace_files
from tracekit.cli._traces import Traces, Wanted

if TYPE_CHECKING:
    from tracekit.findings._history import History
    from tracekit.formats._reading import TraceFile
    from tracekit.trace import Trace

__all__ = ["FiledTraces"]


class FiledTraces(Traces):
    """The traces of all files together, read at once; what cannot be read is told.

    Raises:
        ClickException: A file cannot be opened, or they hold no trace at all.
    """

    most = 1_000_000

    def __init__(self, paths: Sequence[str], format_name: str | None) -> None:
        from tracekit.trace import traces_of

        spans: list[Any] = []
        self._where = ", ".join(paths)
        why = ""
        for path in paths:
            file = _read(path, format_name, spans)
            if file.spans:
                _tell_partial(path, file)
            elif file.unreadable:
                first = file.unreadable[0]
                why = why or f" (line {first.line}: {first.reason})"
        self._newest = sorted(traces_of(spans), key=lambda trace: -trace.start)
        if not self._newest:
            raise click.ClickException(f"there is no trace in {self._where}{why}")
        self.nothing = f"no such trace in {self._where}"
        self._by_id = {f"{trace.trace_id:032x}": trace for trace in self._newest}

    def one(self, name: str) -> Trace:
        if name == "last":
            return self._newest[0]
        if (known := self._by_id.get(name)) is not None:
            return known
        wanted = name.lower().removeprefix("0x")
        found = [each for each in self._newest if f"{each.trace_id:032x}".startswith(wanted)]
        if not found:
            raise click.ClickException(f"no trace that begins with {name} in {self._where}")
        if len(found) > 1:
            raise click.ClickException(
                f"{len(found)} traces in {self._where} begin with {name}: give more digits"
            )
        return found[0]

    def many(self, wanted: Wanted, limit: int) -> list[Trace]:
        return [trace for trace in self._newest if wanted.matches(trace)][:limit]

    def unnamed(self, limit: int) -> list[Trace]:
        return self._newest[:limit]

    def usual(self, trace: Trace | None = None) -> History:
        from tracekit.findings._history import history_of

        return history_of(self._newest)


def _read(path: str, format_name: str | None, spans: list[Any]) -> TraceFile:
    """Add the spans of a file; return the file, which knows what could not be read."""
    try:
        with _trace_files.opened(path, format_name) as file:
            spans += file
    except OSError as error:
        raise click.ClickException(f"{path}: {error.strerror or error}") from error
    return file


def _tell_partial(path: str, file: TraceFile) -> None:
    _trace_files.tell_unreadable(path, file)
    if file.unreadable_count:
        click.echo(f"{path}: partial: {file.spans} spans of it were read", err=True)
