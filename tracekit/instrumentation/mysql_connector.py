"""MySQL Connector/Python, imported as mysql.connector: in Python, in C, and asynchronous.

From 8.1 on it tells the server by itself which span is current, in an attribute of each query.
MariaDB takes none, nor does MySQL before 8.0.23: the attribute is built, the program is warned that
it cannot be sent (by connections in Python), and it is taken away again, 10 µs. Such a connection
is told not to, by its own ``otel_context_propagation``.
https://dev.mysql.com/doc/refman/8.4/en/query-attributes.html
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from typing import Any

from tracekit.instrumentation._db import DatabaseSettings, DatabaseSteps, Target
from tracekit.instrumentation._db_api import DbApi
from tracekit.instrumentation._mysql import mysql_target, number_of, system_of
from tracekit.instrumentation._patch import LibraryInstrumentor, quiet
from tracekit.instrumentation._replacing import Replacing, ReplacingInstrumentor
from tracekit.instrumentation._wrapping import LOCK

__all__ = ["MysqlConnectorInstrumentor"]

# https://dev.mysql.com/doc/dev/mysql-server/latest/group__group__cs__capabilities__flags.html
_TAKES_ATTRIBUTES = 1 << 27


class MysqlConnectorInstrumentor(ReplacingInstrumentor):
    """Watch mysql.connector. Options are those of :meth:`DatabaseSettings.read`."""

    name = "mysql_connector"
    distributions = ("mysql-connector-python",)
    supported = ">=8.0.29,<100"
    contrib = ("mysql",)

    def __init__(self) -> None:
        super().__init__()
        self._silenced: weakref.WeakSet[Any] = weakref.WeakSet()

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
        # Compared with None: a weak proxy that is asked for its truth asks the connection.
        at = getattr(cursor, "_connection", None)
        if at is None:
            at = getattr(cursor, "_cnx", None)  # those in C, in version 8
            if at is None:
                return self._steps.target("mysql")
        try:
            # Not `database`, which asks the server. The handshake is of another one afterwards.
            steps, database, handshake, target = at._tracekit_target
            if steps is self._steps and database is at._database and handshake is at._handshake:
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
        at._tracekit_target = self._steps, database, at._handshake, target
        self._note_attributes(at)
        return target

    @quiet
    def _note_attributes(self, at: Any) -> None:
        """Let the connection tell its server of spans only if that takes query attributes."""
        if not hasattr(at, "otel_context_propagation"):  # before 8.1, and asynchronous
            return
        takes_attributes = at._handshake["capabilities"] & _TAKES_ATTRIBUTES
        connection = at.get_self()
        with LOCK:
            if takes_attributes and connection in self._silenced:
                self._silenced.discard(connection)
                connection.otel_context_propagation = True
            elif not takes_attributes and connection.otel_context_propagation:
                self._silenced.add(connection)
                connection.otel_context_propagation = False

    def _withdraw(self) -> None:
        for connection in self._silenced:
            connection.otel_context_propagation = True
        self._silenced.clear()
        super()._withdraw()


plugin: type[LibraryInstrumentor] = MysqlConnectorInstrumentor
