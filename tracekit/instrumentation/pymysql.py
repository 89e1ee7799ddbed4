"""PyMySQL: one span for each statement, procedure or batch, on connections made before too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

from tracekit.instrumentation._db import DatabaseSettings, DatabaseSteps, Target
from tracekit.instrumentation._db_api import DbApi
from tracekit.instrumentation._mysql import mysql_target, number_of, system_of
from tracekit.instrumentation._patch import LibraryInstrumentor
from tracekit.instrumentation._replacing import Replacing, ReplacingInstrumentor

__all__ = ["PymysqlInstrumentor"]


class PymysqlInstrumentor(ReplacingInstrumentor):
    """Watch PyMySQL. Options are those of :meth:`DatabaseSettings.read`."""

    name = "pymysql"
    distributions = ("pymysql",)
    supported = ">=0.9,<2"
    contrib = ("pymysql",)

    def configure(self, options: Mapping[str, Any]) -> None:
        self._steps = DatabaseSteps(self.tracer, DatabaseSettings.read(**options))
        self._systems: WeakKeyDictionary[Any, str] = WeakKeyDictionary()

    def patches(self) -> Sequence[Replacing]:
        api = DbApi(self._steps, self._target_of, number_of)
        cursors = "pymysql.cursors"
        return (
            Replacing(cursors, "Cursor.execute", api.execute),
            Replacing(cursors, "Cursor.executemany", api.executemany),
            Replacing(cursors, "Cursor.callproc", api.callproc),
        )

    def _target_of(self, cursor: Any) -> Target:
        at = cursor.connection
        if at is None:  # the cursor is closed
            return self._steps.target("mysql")
        system = self._systems.get(at)
        if system is None:
            system = self._systems[at] = system_of(at.get_server_info())
        return mysql_target(self._steps, system, at.db, at.host, at.port, at.unix_socket)


plugin: type[LibraryInstrumentor] = PymysqlInstrumentor
