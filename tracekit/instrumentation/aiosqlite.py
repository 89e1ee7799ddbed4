"""aiosqlite: one span for each statement, around the wait for the thread that runs it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tracekit.instrumentation._aiosqlite import aiosqlite_patches
from tracekit.instrumentation._db import DatabaseSettings, DatabaseSteps
from tracekit.instrumentation._patch import LibraryInstrumentor
from tracekit.instrumentation._replacing import Replacing
from tracekit.instrumentation._taken import TakenNamesInstrumentor

__all__ = ["AiosqliteInstrumentor"]


class AiosqliteInstrumentor(TakenNamesInstrumentor):
    """Watch aiosqlite. Options are those of :meth:`DatabaseSettings.read`."""

    name = "aiosqlite"
    distributions = ("aiosqlite",)
    supported = ">=0.17,<1"

    def configure(self, options: Mapping[str, Any]) -> None:
        self._steps = DatabaseSteps(self.tracer, DatabaseSettings.read(**options))

    def patches(self) -> Sequence[Replacing]:
        return aiosqlite_patches(self._steps)


plugin: type[LibraryInstrumentor] = AiosqliteInstrumentor
