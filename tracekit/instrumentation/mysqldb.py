"""mysqlclient, imported as MySQLdb: one span for each statement, procedure or batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tracekit.instrumentation._db import DatabaseSettings, DatabaseSteps, Target
from tracekit.instrumentation._db_api import DbApi
from tracekit.instrumentation._mysql import mysql_target, number_of, system_of
from tracekit.instrumentation._patch import LibraryInstrumentor, quiet
from tracekit.instrumentation._replacing import Replacing, ReplacingInstrumentor

__all__ = ["MysqldbInstrumentor"]

_ARGUMENTS = ("host", "user", "password", "database", "port", "unix_socket")


class MysqldbInstrumentor(ReplacingInstrumentor):
    """Watch mysqlclient. Options are those of :meth:`DatabaseSettings.read`."""

    name = "mysqldb"
    distributions = ("mysqlclient",)
    supported = ">=1.4,<3"
    contrib = ("mysqlclient",)

    def configure(self, options: Mapping[str, Any]) -> None:
        self._steps = DatabaseSteps(self.tracer, DatabaseSettings.read(**options), nests=False)

    def patches(self) -> Sequence[Replacing]:
        api = DbApi(self._steps, self._target_of, number_of)
        cursors = "MySQLdb.cursors"
        return (
            Replacing("MySQLdb.connections", "Connection.__init__", self._init),
            Replacing(cursors, "BaseCursor.execute", api.execute),
            Replacing(cursors, "BaseCursor.executemany", api.executemany),
            Replacing(cursors, "BaseCursor.callproc", api.callproc),
        )

    # What a connection was made with it does not tell afterwards, before version 2.3.
    def _init(self, original: Callable[..., None], owners: Sequence[object]) -> Any:
        def __init__(connection: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807
            original(connection, *args, **kwargs)
            if owners:
                self._note(connection, {**dict(zip(_ARGUMENTS, args, strict=False)), **kwargs})

        return __init__

    @quiet
    def _note(self, connection: Any, given: Mapping[str, Any]) -> None:
        self._keep_target(
            connection,
            given.get("host") or "localhost",
            given.get("port"),
            given.get("unix_socket"),
            given.get("database") or given.get("db"),
        )

    def _keep_target(
        self, at: Any, host: Any, port: Any, socket: Any = None, database: Any = None
    ) -> Target:
        system = system_of(at.get_server_info())
        target = mysql_target(self._steps, system, database, host, port, socket)
        # As an attribute of it: a dictionary keyed by weak references is asked in Python.
        at._tracekit_target = self._steps, target
        return target

    def _target_of(self, cursor: Any) -> Target:
        at = cursor.connection
        if at is None:  # the cursor is closed
            return self._steps.target("mysql")
        try:
            steps, target = at._tracekit_target
            if steps is self._steps:
                return target  # type: ignore[no-any-return]
        except AttributeError:
            pass
        host, port, database = (getattr(at, name, None) for name in ("host", "port", "db"))
        return self._keep_target(at, host, port, database=database)


plugin: type[LibraryInstrumentor] = MysqldbInstrumentor
