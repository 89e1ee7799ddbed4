"""aiosqlite's calls, which run in a thread of each connection: one span around the wait for each.

The thread runs them in the caller's context, so that the call of sqlite3 below knows that it is
spoken for, and a function of the program's that SQLite calls has the right parent.
"""

from __future__ import annotations

import contextvars
from collections.abc import Awaitable, Callable, Sequence
from typing import Any
from weakref import WeakKeyDictionary

from tracekit.instrumentation._db import DatabaseSteps, Target
from tracekit.instrumentation._db_api import DbApi
from tracekit.instrumentation._patch import report
from tracekit.instrumentation._replacing import Replacing
from tracekit.instrumentation._sqlite import status_of, target_of_path

__all__ = ["aiosqlite_patches"]

_ASKING = frozenset(("execute", "executescript", "_execute_insert", "_execute_fetchall"))


def aiosqlite_patches(steps: DatabaseSteps) -> Sequence[Replacing]:
    """Return what watches aiosqlite; without, its queries would be roots in another thread."""
    watched = _Watched(steps)
    return (
        Replacing("aiosqlite.core", "connect", watched.connect, optional=True),
        Replacing("aiosqlite.core", "Connection._execute", watched.call, optional=True),
    )


class _Watched:
    """What replaces functions of aiosqlite."""

    def __init__(self, steps: DatabaseSteps) -> None:
        self._steps = steps
        self._targets: WeakKeyDictionary[Any, Target] = WeakKeyDictionary()
        self._unknown = target_of_path(steps, None)
        api = DbApi(steps, lambda c: self._targets.get(c, self._unknown), status_of)
        self._execute = api.execute_async
        self._executemany = api.executemany_async

    def connect(self, original: Callable[..., Any], owners: Sequence[object]) -> Any:
        def connect(*args: Any, **kwargs: Any) -> Any:
            connection = original(*args, **kwargs)
            if owners:
                try:
                    path = args[0] if args else kwargs.get("database")
                    self._targets[connection] = target_of_path(self._steps, path)
                except Exception:
                    report("the name of a database")
            return connection

        return connect

    def call(self, original: Callable[..., Awaitable[Any]], owners: Sequence[object]) -> Any:
        async def in_thread(connection: Any, *args: Any) -> Any:
            *values, function = args
            run = contextvars.copy_context().run
            return await original(connection, run, function, *values)

        async def one(connection: Any, sql: Any, *args: Any) -> Any:
            return await in_thread(connection, sql, *args)

        execute = self._execute(one, owners)
        executemany = self._executemany(one, owners)

        async def call(connection: Any, fn: Any, *args: Any, **kwargs: Any) -> Any:
            name = getattr(fn, "__name__", "")
            if not owners or kwargs or not args:
                return await original(connection, fn, *args, **kwargs)
            if name in _ASKING:
                return await execute(connection, *args, fn)
            if name == "executemany":
                return await executemany(connection, *args, fn)
            return await original(connection, fn, *args)

        return call
