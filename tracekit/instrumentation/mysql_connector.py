"""MySQL Connector/Python, imported as mysql.connector: in Python, in C, and asynchronous."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tracekit.instrumentation._db import DatabaseSettings, DatabaseSteps, Target
from tracekit.instrumentation._db_api import DbApi
from tracekit.instrumentation._mysql import mysql_target, number_of, system_of
from tracekit.instrumentation._patch import LibraryInstrumentor
from tracekit.instrumentation._replacing import Replacing, ReplacingInstrumentor

__all__ = ["MysqlConnectorInstrumentor"]


class MysqlConnectorInstrumentor(ReplacingInstrumentor):
    """Watch mysql.connector. Options are those of :meth:`DatabaseSettings.read`."""

    name = "mysql_connector"
    distributions = ("mysql-connector-python",)
    supported = ">=8.0.29,<100"
    contrib = ("mysql",)

    def configure(self, options: Mapping[str, Any]) -> None:
        # On request a cursor asks for warnings, with `execute`, inside of another one's.
        self._steps = DatabaseSteps(self.tracer, DatabaseSettings.read(**options))

    def patches(self) -> Sequence[Replacing]:
        api = DbApi(self._steps, self._target_of, number_of)
        sync = {"execute": api.execute, "executemany": api.executemany, "callproc": api.callproc}
        aio = {
            "execute": api.execute_async,
            "executemany": api.executemany_async,
            "callproc": api.callproc_async,
        }
        package = "mysql.connector"
        classes = (
            (f"{package}.cursor", "MySQLCursor", sync),
            (f"{package}.cursor", "MySQLCursorPrepared", sync),
            (f"{package}.cursor_cext", "CMySQLCursor", sync),
            (f"{package}.cursor_cext", "CMySQLCursorPrepared", sync),
            (f"{package}.aio.cursor", "MySQLCursor", aio),
            (f"{package}.aio.cursor", "MySQLCursorPrepared", aio),
        )
        return tuple(
            Replacing(module, f"{cls}.{name}", make, optional=(module, cls) != classes[0][:2])
            for module, cls, methods in classes
            for name, make in methods.items()
            if not (cls.endswith("Prepared") and name == "callproc")
        )

    def _target_of(self, cursor: Any) -> Target:
        # Those in C called it by another name in version 8.
        at = getattr(cursor, "_connection", None) or getattr(cursor, "_cnx", None)
        if at is None:
            return self._steps.target("mysql")
        try:
            # Not `database`, which asks the server.
            steps, database, target = at._tracekit_target
            if steps is self._steps and database is at._database:
                return target  # type: ignore[no-any-return]
        except AttributeError:
            pass
        return self._new_target(at)

    def _new_target(self, at: Any) -> Target:
        # A weak proxy, whose type() is not the connection's.
        is_new = hasattr(at.__class__, "server_info")
        info = at.server_info if is_new else at.get_server_info()
        database, host, port = at._database, at._host, at._port
        system = system_of(info)
        target = mysql_target(self._steps, system, database, host, port, at._unix_socket)
        # As an attribute of it: a dictionary keyed by weak references is asked in Python.
        at._tracekit_target = self._steps, database, target
        return target


plugin: type[LibraryInstrumentor] = MysqlConnectorInstrumentor
