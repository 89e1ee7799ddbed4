"""PyMySQL: one span for each statement, procedure or batch, on connections made before too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

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
        self._steps = DatabaseSteps(self.tracer, DatabaseSettings.read(**options), nests=False)

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
        try:
            steps, database, target = at._tracekit_target
            if steps is self._steps and database is at.db:
                return target  # type: ignore[no-any-return]
        except AttributeError:
            pass
        return self._new_target(at)

    def _new_target(self, at: Any) -> Target:
        system = system_of(at.get_server_info())
        target = mysql_target(self._steps, system, at.db, at.host, at.port, at.unix_socket)
        # As an attribute of it: a dictionary keyed by weak references is asked in Python.
        at._tracekit_target = self._steps, at.db, target
        return target


plugin: type[LibraryInstrumentor] = PymysqlInstrumentor
