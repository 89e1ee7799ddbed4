"""Traces of a server that is asked over its query API."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import click

from tracekit.cli._traces import Traces, Wanted
from tracekit.errors import SourceError

if TYPE_CHECKING:
    from tracekit.findings._history import History
    from tracekit.trace import Trace

__all__ = ["ServedTraces"]

USUAL_NS = 3600 * 1_000_000_000
MOST_USUAL = 30
"""Traces of the same endpoint that a single one is compared with."""


class ServedTraces(Traces):
    """What a server has, and only reads are asked of it; what is missing is told at the end."""

    def __init__(self, given: str) -> None:
        """Take ``NAME:URL``. Asks nothing yet.

        Raises:
            UnknownNameError: There is no source of that name.
            SourceError: The address is none.
        """
        from tracekit.sources._opening import source_of

        self._source = source_of(given, "--from")
        self._known: dict[str, Trace] = {}
        self.nothing = f"{self._source.server.url} has no such trace in that time"

    def one(self, name: str) -> Trace:
        if (known := self._known.get(name)) is not None:
            return known
        found = (
            self._recent(Wanted(), 1) if name == "last" else self._read(self._source.trace(name))
        )
        if not found:
            what = "trace in that time" if name == "last" else f"trace {name}"
            raise click.ClickException(f"{self._source.server.url} has no {what}")
        return found[0]

    def many(self, wanted: Wanted, limit: int) -> list[Trace]:
        return self._recent(wanted, limit)

    def usual(self, trace: Trace | None = None) -> History:
        """Return what is usual in others of a trace's endpoint, or in all that were read."""
        from tracekit.findings._history import history_of

        if trace is None:
            return history_of(self._known.values())
        try:
            return history_of(self._beside(trace))
        except SourceError as error:
            self._source.remark(f"what is usual is not known: {error}")
            return {}

    def _beside(self, trace: Trace) -> list[Trace]:
        wanted = Wanted(trace.start - USUAL_NS, trace.asked.service or None, trace.asked.name)
        found = self._recent(wanted, MOST_USUAL)
        return [trace, *(each for each in found if each.trace_id != trace.trace_id)]

    def _recent(self, wanted: Wanted, limit: int) -> list[Trace]:
        from tracekit.sources._source import Recent

        asked = Recent(limit, wanted.service, wanted.name, wanted.since_ns, wanted.until_ns)
        return self._read(self._source.recent(asked))[:limit]

    def _read(self, spans: Iterable[Any]) -> list[Trace]:
        from tracekit.trace import traces_of

        found = sorted(traces_of(spans), key=lambda trace: -trace.start)
        self._known.update((f"{trace.trace_id:032x}", trace) for trace in found)
        return found

    def close(self) -> None:
        self._source.server.close()
        for remark in self._source.remarks:
            click.echo(f"{self._source.server.url}: partial: {remark}", err=True)
