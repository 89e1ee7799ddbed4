"""sqlite3: one span for each statement, on connections made by ``sqlite3.connect``.

Its connections and cursors are types of C, so ``connect`` makes them of watching subclasses
(:mod:`_db_subclasses`). A connection that was made before, or by calling a class instead of
``connect``, is not seen.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from typing import Any

from tracekit.instrumentation._aiosqlite import aiosqlite_patches
from tracekit.instrumentation._db import DatabaseSettings, DatabaseSteps
from tracekit.instrumentation._db_api import DbApi
from tracekit.instrumentation._db_subclasses import Subclasses
from tracekit.instrumentation._patch import LibraryInstrumentor, report
from tracekit.instrumentation._replacing import Replacing
from tracekit.instrumentation._sqlite import status_of, target_of_path
from tracekit.instrumentation._taken import TakenNamesInstrumentor

__all__ = ["Sqlite3Instrumentor"]

_TARGET = "_tracekit_target"
_FACTORY = 5  # its place among the arguments of connect()


class Sqlite3Instrumentor(TakenNamesInstrumentor):
    """Watch sqlite3. Options are those of :meth:`DatabaseSettings.read`."""

    name = "sqlite3"
    contrib = ("sqlite3",)

    def configure(self, options: Mapping[str, Any]) -> None:
        self._settings = DatabaseSettings.read(**options)

    def patches(self) -> Sequence[Replacing]:
        steps = DatabaseSteps(self.tracer, self._settings, nests=False)
        return (
            Replacing("sqlite3.dbapi2", "connect", _Connecting(steps).connect),
            # Asynchronous use is this library in a thread, where the caller's span is not known.
            *aiosqlite_patches(DatabaseSteps(self.tracer, self._settings)),
        )


class _Connecting:
    """Makes connections that watch their statements."""

    def __init__(self, steps: DatabaseSteps) -> None:
        self._steps = steps

    def connect(self, original: Callable[..., Any], owners: Sequence[object]) -> Any:
        from sqlite3.dbapi2 import Connection, Cursor

        api = DbApi(self._steps, attrgetter(f"connection.{_TARGET}"), status_of)
        cursors = Subclasses(Cursor, lambda cls: _cursor_methods(cls, api, owners))
        connections = Subclasses(
            Connection, lambda cls: _connection_methods(cls, cursors, owners), slots=(_TARGET,)
        )

        def connect(*args: Any, **kwargs: Any) -> Any:
            if not owners or _is_the_store(sys._getframe(1)):
                return original(*args, **kwargs)
            if len(args) > _FACTORY:
                watching = connections.of(args[_FACTORY])
                args = (*args[:_FACTORY], watching, *args[_FACTORY + 1 :])
            else:
                watching = connections.of(kwargs.get("factory", Connection))
                kwargs["factory"] = watching
            connection = original(*args, **kwargs)
            try:
                path = args[0] if args else kwargs.get("database")
                setattr(connection, _TARGET, target_of_path(self._steps, path))
            except AttributeError:
                pass  # a factory that is a function made what it liked
            except Exception:
                report("the name of a database")
            return connection

        return connect


def _is_the_store(frame: Any) -> bool:
    name = frame.f_globals.get("__name__", "")
    return isinstance(name, str) and name.startswith("tracekit.store")


def _cursor_methods(cls: Any, api: DbApi, owners: Sequence[object]) -> Mapping[str, Any]:
    return {
        "execute": api.execute(cls.execute, owners),
        "executemany": api.executemany(cls.executemany, owners),
        "executescript": api.execute(cls.executescript, owners),
    }


def _connection_methods(
    cls: Any, cursors: Subclasses, owners: Sequence[object]
) -> Mapping[str, Any]:
    from sqlite3.dbapi2 import Cursor

    def cursor(connection: Any, *args: Any, **kwargs: Any) -> Any:
        if not owners or len(args) > 1 or kwargs.keys() - {"factory"}:
            return cls.cursor(connection, *args, **kwargs)
        asked = args[0] if args else kwargs.get("factory", Cursor)
        return cls.cursor(connection, cursors.of(asked))

    # Those of C make a cursor of their own, of the plain class, from Python 3.11 on.
    def through_cursor(name: str) -> Any:
        original = getattr(cls, name)
        if original is not getattr(_plain(), name):
            return original  # of the program's own class, and comes by here if it calls super()

        def execute(connection: Any, *args: Any) -> Any:
            if not owners:
                return original(connection, *args)
            return getattr(connection.cursor(), name)(*args)

        return execute

    shortcuts = ("execute", "executemany", "executescript")
    return {"cursor": cursor, **{name: through_cursor(name) for name in shortcuts}}


def _plain() -> Any:
    from sqlite3.dbapi2 import Connection

    return Connection


plugin: type[LibraryInstrumentor] = Sqlite3Instrumentor
