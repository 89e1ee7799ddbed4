"""SQLAlchemy: one span for each statement of an engine, sync or async; drivers below are silent.

The seam are the three methods by which a dialect hands a statement to its driver: they are public,
in every version, and what is wrapped around them ends whatever else goes wrong. Events would be
left open by another listener's exception, and cannot be taken off without a trace. Dialects that
have such a method of their own are patched too, ours above theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tracekit.instrumentation._db import DatabaseSettings, DatabaseSteps, Target
from tracekit.instrumentation._db_api import DbApi
from tracekit.instrumentation._db_contrib import contrib
from tracekit.instrumentation._db_pool import unwatched, waiting
from tracekit.instrumentation._db_status import status_of_any
from tracekit.instrumentation._operation import Operation
from tracekit.instrumentation._patch import LibraryInstrumentor, report
from tracekit.instrumentation._replacing import Replacing, ReplacingInstrumentor
from tracekit.instrumentation._sqlite import target_of_path

__all__ = ["SqlalchemyInstrumentor"]

Call = Callable[..., Any]
Owners = Sequence[object]

_NOWHERE: tuple[Any, Any] = (None, None)
_SYSTEMS = {"mssql": "microsoft.sql_server", "oracle": "oracle.db", "redshift": "aws.redshift"}
_OF_DIALECTS = (
    ("postgresql.psycopg2", "PGDialect_psycopg2"),
    ("mysql.mysqldb", "MySQLDialect_mysqldb"),
    ("mssql.pyodbc", "MSDialect_pyodbc"),
    ("oracle.cx_oracle", "OracleDialect_cx_oracle"),
)
_MAKING = "_ConnectionRecord._ConnectionRecord__connect"
_PINGING = (
    ("sqlalchemy.engine.default", "DefaultDialect"),
    ("sqlalchemy.dialects.postgresql._psycopg_common", "_PGDialect_common_psycopg"),
    ("sqlalchemy.dialects.postgresql.asyncpg", "PGDialect_asyncpg"),
)


class SqlalchemyInstrumentor(ReplacingInstrumentor):
    """Watch SQLAlchemy. Options are those of :meth:`DatabaseSettings.read`."""

    name = "sqlalchemy"
    distributions = ("sqlalchemy",)
    supported = ">=1.4,<3"
    contrib = ("sqlalchemy",)

    def configure(self, options: Mapping[str, Any]) -> None:
        self._settings = DatabaseSettings.read(**options)

    def patches(self) -> Sequence[Replacing]:
        statements = _Statements(DatabaseSteps(self.tracer, self._settings))
        default = "sqlalchemy.engine.default"
        queue = "sqlalchemy.util.queue"
        return (
            Replacing(default, "DefaultDialect.do_execute", statements.execute),
            Replacing(default, "DefaultDialect.do_execute_no_params", statements.execute_alone),
            Replacing(default, "DefaultDialect.do_executemany", statements.executemany),
            *(
                Replacing(
                    f"sqlalchemy.dialects.{module}",
                    f"{cls}.do_executemany",
                    statements.executemany,
                    optional=True,
                )
                for module, cls in _OF_DIALECTS
            ),
            # asyncpg ends a transaction by a statement, where other drivers have none to show.
            Replacing(default, "DefaultDialect.do_commit", unwatched),
            Replacing(default, "DefaultDialect.do_rollback", unwatched),
            Replacing(queue, "Queue.get", waiting, optional=True),
            Replacing(queue, "AsyncAdaptedQueue.get", waiting, optional=True),
            *(
                Replacing(module, f"{cls}.do_ping", unwatched, optional=True)
                for module, cls in (() if self._settings.records_pings else _PINGING)
            ),
            # What a dialect wants to know of a server, and listeners set up, once a connection.
            *(
                ()
                if self._settings.records_pings
                else (Replacing("sqlalchemy.pool.base", _MAKING, unwatched, optional=True),)
            ),
        )


class _Statements:
    """What replaces the methods of dialects."""

    def __init__(self, steps: DatabaseSteps) -> None:
        self._steps = steps
        self._captures_rows = steps.settings.captures_rows
        self._writes_comments = steps.settings.writes_comments
        self._begin_query = steps.begin
        self._api = DbApi(steps, lambda cursor: cursor, status_of_any)

    def execute(self, original: Call, owners: Owners) -> Call:
        begin, captures_rows = self._begin, self._captures_rows
        writes_comments = self._writes_comments

        def do_execute(
            dialect: Any, cursor: Any, statement: Any, parameters: Any, context: Any = None
        ) -> Any:
            operation = begin(dialect, statement, parameters, context) if owners else None
            if operation is None:
                return original(dialect, cursor, statement, parameters, context)
            if writes_comments:
                statement = self._steps.commented(operation, statement)
            try:
                result = original(dialect, cursor, statement, parameters, context)
            except BaseException as error:
                self._api.fail(operation, error)
                raise
            operation.succeed(self._api.rows_of(cursor, None) if captures_rows else None)
            return result

        return do_execute

    def executemany(self, original: Call, owners: Owners) -> Call:
        def do_executemany(
            dialect: Any, cursor: Any, statement: Any, parameters: Any, context: Any = None
        ) -> Any:
            operation = None
            if owners:
                operation = self._begin(dialect, statement, True, context, len(parameters))
            if operation is None:
                return original(dialect, cursor, statement, parameters, context)
            statement = self._steps.commented(operation, statement)
            try:
                result = original(dialect, cursor, statement, parameters, context)
            except BaseException as error:
                self._api.fail(operation, error)
                raise
            operation.succeed()
            return result

        return do_executemany

    def execute_alone(self, original: Call, owners: Owners) -> Call:
        def do_execute_no_params(
            dialect: Any, cursor: Any, statement: Any, context: Any = None
        ) -> Any:
            operation = self._begin(dialect, statement, None, context) if owners else None
            if operation is None:
                return original(dialect, cursor, statement, context)
            statement = self._steps.commented(operation, statement)
            try:
                result = original(dialect, cursor, statement, context)
            except BaseException as error:
                self._api.fail(operation, error)
                raise
            rows = self._api.rows_of(cursor, None) if self._captures_rows else None
            operation.succeed(rows)
            return result

        return do_execute_no_params

    def _begin(
        self, dialect: Any, statement: Any, parameters: Any, context: Any, size: int = 1
    ) -> Operation | None:
        # try and not `quiet`: one frame less for each statement of the program.
        try:
            # OpenTelemetry's listeners, put on after us, keep their span there and nowhere else.
            if contrib.is_loaded and getattr(context, "_otel_span", None) is not None:
                return None
            # As `context.engine`, which is worked out anew for each statement.
            place = dialect if context is None else context.root_connection.engine
            by, target = getattr(place, "_tracekit_target", _NOWHERE)
            if by is not self:
                target = self._new_target(dialect, getattr(place, "url", None))
                # As an attribute of it: a dictionary keyed by weak references is asked in Python.
                place._tracekit_target = self, target
            return self._begin_query(target, statement, parameters, size)
        except Exception:
            report("what is known of a statement")
            return None

    def _new_target(self, dialect: Any, url: Any) -> Target:
        system = _SYSTEMS.get(dialect.name, dialect.name)
        if system == "mysql" and getattr(dialect, "is_mariadb", False):
            system = "mariadb"
        if url is None:
            return self._steps.target(system)
        if system == "sqlite":
            return target_of_path(self._steps, url.database or ":memory:")
        host = url.host or url.query.get("host") or url.query.get("unix_socket")
        if not isinstance(host, str):  # several of them, one of which is taken
            host = None
        return self._steps.target(system, url.database, host, url.port)


plugin: type[LibraryInstrumentor] = SqlalchemyInstrumentor
