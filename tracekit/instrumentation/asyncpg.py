"""asyncpg: one span for each statement, prepared ones and COPY too, and one for each cursor.

Cursors are read while a transaction goes on, row by row or in blocks, without being closed: their
span lasts from the first row to the last, or until nobody can read on.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextvars import ContextVar
from typing import Any

from tracekit import semconv
from tracekit.instrumentation._db import (
    DatabaseSettings,
    DatabaseSteps,
    Target,
    add_pool_wait,
    text_of,
)
from tracekit.instrumentation._db_api import Arguments, DbApi, Named
from tracekit.instrumentation._db_pool import unwatched_async
from tracekit.instrumentation._operation import Operation
from tracekit.instrumentation._patch import LibraryInstrumentor, quiet, report
from tracekit.instrumentation._replacing import Replacing, ReplacingInstrumentor

__all__ = ["AsyncpgInstrumentor"]

CallAsync = Callable[..., Awaitable[Any]]
Owners = Sequence[object]


class AsyncpgInstrumentor(ReplacingInstrumentor):
    """Watch asyncpg. Options are those of :meth:`DatabaseSettings.read`."""

    name = "asyncpg"
    distributions = ("asyncpg",)
    supported = ">=0.24,<1"
    contrib = ("asyncpg",)

    def configure(self, options: Mapping[str, Any]) -> None:
        self._settings = DatabaseSettings.read(**options)
        self._steps = DatabaseSteps(self.tracer, self._settings, nests=False)

    def patches(self) -> Sequence[Replacing]:
        asked, prepared = _Asked(self._steps), _Prepared(self._steps)
        cursors = _Cursors(self._steps)
        connection, statement = "asyncpg.connection", "asyncpg.prepared_stmt"
        cursor, pool = "asyncpg.cursor", "asyncpg.pool"
        plain = (
            Replacing(connection, "Connection.execute", asked.execute_async),
            Replacing(connection, "Connection.fetch", asked.execute_async),
            Replacing(connection, "Connection.fetchval", asked.execute_async),
            Replacing(connection, "Connection.fetchrow", asked.execute_async),
            Replacing(connection, "Connection.executemany", asked.executemany_async),
            Replacing(connection, "Connection.fetchmany", asked.executemany_async, optional=True),
            Replacing(connection, "Connection.copy_from_query", asked.execute_async),
            Replacing(connection, "Connection.copy_from_table", asked.copy_out),
            Replacing(connection, "Connection.copy_to_table", asked.copy_in),
            Replacing(connection, "Connection.copy_records_to_table", asked.copy_in),
            Replacing(statement, "PreparedStatement.fetch", prepared.execute_async),
            Replacing(statement, "PreparedStatement.fetchval", prepared.execute_async),
            Replacing(statement, "PreparedStatement.fetchrow", prepared.execute_async),
            Replacing(
                statement, "PreparedStatement.fetchmany", prepared.executemany_async, optional=True
            ),
            Replacing(statement, "PreparedStatement.executemany", prepared.executemany_async),
            Replacing(cursor, "CursorIterator.__anext__", cursors.iterate),
            Replacing(cursor, "Cursor._init", cursors.read),
            Replacing(cursor, "Cursor.fetch", cursors.read),
            Replacing(cursor, "Cursor.fetchrow", cursors.read),
            Replacing(cursor, "Cursor.forward", cursors.read),
            Replacing(cursor, "BaseCursor.__del__", cursors.abandon),
            Replacing(pool, "Pool._acquire", _acquire, optional=True),
            Replacing(pool, "PoolConnectionHolder.acquire", _acquired, optional=True),
        )
        if self._settings.records_pings:
            return plain
        # What a pool runs before somebody else may have the connection.
        return *plain, Replacing(connection, "Connection.reset", unwatched_async)


class _Asked(DbApi):
    """Methods of connections, which are given a query and its values one by one."""

    def __init__(self, steps: DatabaseSteps) -> None:
        super().__init__(steps, self.target_of, _status_of)

    def target_of(self, connection: Any) -> Target:
        at, database = connection._addr, connection._params.database
        if isinstance(at, tuple):
            return self.steps.target("postgresql", database, at[0], at[1])
        return self.steps.target("postgresql", database, at)

    def query_of(self, args: Arguments, kwargs: Named) -> tuple[Any, str, Any]:
        """Return the connection, the query, and the values that go with it."""
        if len(args) > 1:
            query = args[1]
            return args[0], query if type(query) is str else text_of(query), args[2:]
        return args[0], text_of(kwargs.get("query") or kwargs.get("command", "")), ()

    def _begin_query(self, args: Arguments, kwargs: Named) -> Operation | None:
        # try and not `quiet`: one frame less for each query of the program.
        try:
            connection, query, values = self.query_of(args, kwargs)
            return self._begin(self.target_of(connection), query, values)
        except Exception:
            report("what is known of a query")
            return None

    @quiet
    def _begin_batch(self, args: Arguments, kwargs: Named) -> Operation | None:
        connection, query, values = self.query_of(args, kwargs)
        rows: Any = values[0] if values else kwargs.get("args")
        size = len(rows) if hasattr(rows, "__len__") else -1
        return self._begin(self.target_of(connection), query, True, size)

    @quiet
    def rows_of(self, cursor: Any, result: Any) -> Mapping[str, Any] | None:
        count = len(result) if isinstance(result, list) else None
        return None if count is None else {semconv.DB_RESPONSE_RETURNED_ROWS: count}

    def copy_in(self, original: CallAsync, owners: Owners) -> CallAsync:
        return self._copying(original, owners, "COPY {} FROM STDIN")

    def copy_out(self, original: CallAsync, owners: Owners) -> CallAsync:
        return self._copying(original, owners, "COPY {} TO STDOUT")

    def _copying(self, original: CallAsync, owners: Owners, statement: str) -> CallAsync:
        """Replace a method that is given a table, and makes the statement itself."""

        async def copy(connection: Any, table_name: Any, **kwargs: Any) -> Any:
            schema = kwargs.get("schema_name")
            table = f"{schema}.{table_name}" if schema else table_name
            operation = None
            if owners:
                operation = self._begin_query((connection, statement.format(table)), {})
            if operation is None:
                return await original(connection, table_name, **kwargs)
            try:
                result = await original(connection, table_name, **kwargs)
            except BaseException as error:
                self.fail(operation, error)
                raise
            operation.succeed()
            return result

        return copy


class _Prepared(_Asked):
    """Methods of prepared statements, which are given values alone."""

    def query_of(self, args: Arguments, kwargs: Named) -> tuple[Any, str, Any]:
        statement = args[0]
        return statement._connection, statement._query, args[1:]

    def _commented(self, operation: Operation, args: Any, kwargs: Any) -> Any:
        return args, kwargs  # the query is with the database already


class _Cursors:
    """Cursors, whose spans last from call to call.

    A cursor has a place for neither an attribute nor a weak reference, but a finalizer.
    """

    def __init__(self, steps: DatabaseSteps) -> None:
        self._api = _Asked(steps)
        self._open: dict[int, Operation] = {}

    def iterate(self, original: CallAsync, owners: Owners) -> CallAsync:
        async def __anext__(cursor: Any) -> Any:  # noqa: N807
            return await self._step(original, cursor, (), {}, owners)

        return __anext__

    def read(self, original: CallAsync, owners: Owners) -> CallAsync:
        async def read(cursor: Any, *args: Any, **kwargs: Any) -> Any:
            return await self._step(original, cursor, args, kwargs, owners)

        return read

    def abandon(self, original: Callable[[Any], None], _owners: Owners) -> Any:
        def __del__(cursor: Any) -> None:  # noqa: N807
            operation = self._open.pop(id(cursor), None)
            if operation is not None:
                operation.succeed()
            original(cursor)

        return __del__

    async def _step(
        self, original: CallAsync, cursor: Any, args: Any, kwargs: Any, owners: Owners
    ) -> Any:
        if owners and id(cursor) not in self._open and not cursor._exhausted:
            self._begin(cursor)
        try:
            result = await original(cursor, *args, **kwargs)
        except StopAsyncIteration:
            self._end(cursor)
            raise
        except BaseException as error:
            operation = self._open.pop(id(cursor), None)
            if operation is not None:
                self._api.fail(operation, error)
            raise
        if cursor._exhausted:
            self._end(cursor)
        return result

    @quiet
    def _begin(self, cursor: Any) -> None:
        if cursor._portal_name is not None:
            return  # of a cursor that was opened unwatched
        values = (text_of(cursor._query), *(cursor._args or ()))
        operation = self._api.begin_apart((cursor._connection, *values), {})
        if operation is not None:
            self._open[id(cursor)] = operation

    def _end(self, cursor: Any) -> None:
        operation = self._open.pop(id(cursor), None)
        if operation is not None:
            operation.succeed()


# When a connection was handed over to whom waits in `Pool._acquire`, in a task of its own.
_handed_over: ContextVar[list[int] | None] = ContextVar("tracekit-asyncpg-pool", default=None)


def _acquire(original: CallAsync, owners: Owners) -> CallAsync:
    async def acquire(pool: Any, *args: Any, **kwargs: Any) -> Any:
        if not owners:
            return await original(pool, *args, **kwargs)
        began, at = time.perf_counter_ns(), list[int]()
        token = _handed_over.set(at)
        try:
            connection = await original(pool, *args, **kwargs)
        finally:
            _handed_over.reset(token)
        if at:
            add_pool_wait(at[0] - began)
        return connection

    return acquire


def _acquired(original: CallAsync, _owners: Owners) -> CallAsync:
    async def acquire(holder: Any) -> Any:
        at = _handed_over.get()
        if at is not None:
            # What follows may be a new connection, which is not the pool's fault.
            at.append(time.perf_counter_ns())
        return await original(holder)

    return acquire


def _status_of(error: BaseException) -> str | None:
    return getattr(error, "sqlstate", None)


plugin: type[LibraryInstrumentor] = AsyncpgInstrumentor
