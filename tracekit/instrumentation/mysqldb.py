"""mysqlclient, imported as MySQLdb: one span for each statement, procedure or batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from tracekit.instrumentation._db import DatabaseSettings, DatabaseSteps, Target
from tracekit.instrumentation._db_api import DbApi
from tracekit.instrumentation._mysql import mysql_target, number_of, system_of
from tracekit.instrumentation._patch import LibraryInstrumentor, quiet
from tracekit.instrumentation._replacing import Replacing, ReplacingInstrumentor

__all__ = ["MysqldbInstrumentor"]

_ARGUMENTS = ("host", "user", "password", "database", "port", "unix_socket")


class _Place(NamedTuple):
    """What a connection was made with; it does not tell that afterwards, before version 2.3."""

    system: str
    host: Any
    port: Any
    socket: Any
    database: Any


class MysqldbInstrumentor(ReplacingInstrumentor):
    """Watch mysqlclient. Options are those of :meth:`DatabaseSettings.read`."""

    name = "mysqldb"
    distributions = ("mysqlclient",)
    supported = ">=1.4,<3"
    contrib = ("mysqlclient",)

    def configure(self, options: Mapping[str, Any]) -> None:
        self._steps = DatabaseSteps(self.tracer, DatabaseSettings.read(**options))
        self._places: WeakKeyDictionary[Any, _Place] = WeakKeyDictionary()

    def patches(self) -> Sequence[Replacing]:
        api = DbApi(self._steps, self._target_of, number_of)
        cursors = "MySQLdb.cursors"
        return (
            Replacing("MySQLdb.connections", "Connection.__init__", self._init),
            Replacing(cursors, "BaseCursor.execute", api.execute),
            Replacing(cursors, "BaseCursor.executemany", api.executemany),
            Replacing(cursors, "BaseCursor.callproc", api.callproc),
        )

    def _init(self, original: Callable[..., None], owners: Sequence[object]) -> Any:
        def __init__(connection: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807
            original(connection, *args, **kwargs)
            if owners:
                self._note(connection, {**dict(zip(_ARGUMENTS, args, strict=False)), **kwargs})

        return __init__

    @quiet
    def _note(self, connection: Any, given: Mapping[str, Any]) -> None:
        self._places[connection] = _Place(
            system_of(connection.get_server_info()),
            given.get("host") or "localhost",
            given.get("port"),
            given.get("unix_socket"),
            given.get("database") or given.get("db"),
        )

    def _target_of(self, cursor: Any) -> Target:
        at = cursor.connection
        if at is None:  # the cursor is closed
            return self._steps.target("mysql")
        place = self._places.get(at)
        if place is None:
            host, port, database = (getattr(at, name, None) for name in ("host", "port", "db"))
            place = _Place(system_of(at.get_server_info()), host, port, None, database)
            self._places[at] = place
        return mysql_target(
            self._steps, place.system, place.database, place.host, place.port, place.socket
        )


plugin: type[LibraryInstrumentor] = MysqldbInstrumentor
