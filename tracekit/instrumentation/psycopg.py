"""psycopg 3, sync and async: one span for each statement, stream of rows or COPY.

All of its cursors are classes of Python, so connections made before are watched too. A statement
that is executed through a connection's shortcut goes through a cursor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tracekit.instrumentation._db import (
    DatabaseSettings,
    DatabaseSteps,
    Target,
    text_of,
)
from tracekit.instrumentation._db_api import DbApi
from tracekit.instrumentation._db_pool import waiting, waiting_async
from tracekit.instrumentation._db_stream import DbStreams
from tracekit.instrumentation._patch import LibraryInstrumentor
from tracekit.instrumentation._replacing import Replacing, ReplacingInstrumentor

__all__ = ["PsycopgInstrumentor"]


class PsycopgInstrumentor(ReplacingInstrumentor):
    """Watch psycopg. Options are those of :meth:`DatabaseSettings.read`."""

    name = "psycopg"
    distributions = ("psycopg",)
    supported = ">=3.1.10,<4"
    contrib = ("psycopg",)

    def configure(self, options: Mapping[str, Any]) -> None:
        settings = DatabaseSettings.read(**options)
        self._steps = DatabaseSteps(self.tracer, settings, nests=False)

    def patches(self) -> Sequence[Replacing]:
        api = DbApi(self._steps, self._target_of, _status_of, _text_of)
        streams = DbStreams(api)
        sync, aio = "psycopg.cursor", "psycopg.cursor_async"
        return (
            Replacing(sync, "Cursor.execute", api.execute),
            Replacing(sync, "Cursor.executemany", api.executemany),
            Replacing(sync, "Cursor.stream", streams.rows),
            Replacing(sync, "Cursor.copy", streams.block),
            Replacing(aio, "AsyncCursor.execute", api.execute_async),
            Replacing(aio, "AsyncCursor.executemany", api.executemany_async),
            Replacing(aio, "AsyncCursor.stream", streams.rows_async),
            Replacing(aio, "AsyncCursor.copy", streams.block_async),
            *_server_cursor_patches(api),
            *_pool_patches(),
        )

    def _target_of(self, cursor: Any) -> Target:
        try:
            # Not `connection`, a property of Python's.
            steps, target = cursor._conn._tracekit_target
            if steps is self._steps:
                return target  # type: ignore[no-any-return]
        except AttributeError:
            pass
        return self._new_target(cursor.connection)

    def _new_target(self, connection: Any) -> Target:
        if connection.closed:
            return self._steps.target("postgresql")
        info = connection.info
        target = self._steps.target("postgresql", info.dbname, info.host, info.port)
        # As an attribute of it: a dictionary keyed by weak references is asked in Python.
        connection._tracekit_target = self._steps, target
        return target


def _server_cursor_patches(api: DbApi) -> Sequence[Replacing]:
    # Where they are has an underscore in front from 3.2 on.
    return tuple(
        Replacing(module, name, make, optional=True)
        for module, name, make in (
            ("psycopg.server_cursor", "ServerCursor.execute", api.execute),
            ("psycopg.server_cursor", "AsyncServerCursor.execute", api.execute_async),
            ("psycopg._server_cursor", "ServerCursor.execute", api.execute),
            ("psycopg._server_cursor_async", "AsyncServerCursor.execute", api.execute_async),
        )
    )


def _pool_patches() -> Sequence[Replacing]:
    pool, aio = "psycopg_pool.pool", "psycopg_pool.pool_async"
    return (
        Replacing(pool, "WaitingClient.wait", waiting, optional=True),
        Replacing(aio, "WaitingClient.wait", waiting_async, optional=True),
        Replacing(aio, "AsyncClient.wait", waiting_async, optional=True),  # before 3.2
    )


def _text_of(query: Any, cursor: Any) -> str:
    as_string = getattr(query, "as_string", None)
    return text_of(query) if as_string is None else text_of(as_string(cursor))


def _status_of(error: BaseException) -> str | None:
    return getattr(error, "sqlstate", None)


plugin: type[LibraryInstrumentor] = PsycopgInstrumentor
