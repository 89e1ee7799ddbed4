"""psycopg2: one span for each statement, on connections made by ``psycopg2.connect``.

Its connections and cursors are types of C, so ``connect`` makes them of watching subclasses
(:mod:`_db_subclasses`). A connection that was made before, or by calling a class instead of
``connect``, is not seen.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tracekit.instrumentation._db import DatabaseSettings, DatabaseSteps, Target, text_of
from tracekit.instrumentation._db_api import DbApi
from tracekit.instrumentation._db_subclasses import Subclasses
from tracekit.instrumentation._patch import LibraryInstrumentor
from tracekit.instrumentation._replacing import Replacing
from tracekit.instrumentation._taken import TakenNamesInstrumentor

__all__ = ["Psycopg2Instrumentor"]

_TARGET = "_tracekit_target"


class Psycopg2Instrumentor(TakenNamesInstrumentor):
    """Watch psycopg2. Options are those of :meth:`DatabaseSettings.read`."""

    name = "psycopg2"
    distributions = ("psycopg2", "psycopg2-binary")
    supported = ">=2.8,<3"
    contrib = ("psycopg2",)

    def configure(self, options: Mapping[str, Any]) -> None:
        self._steps = DatabaseSteps(self.tracer, DatabaseSettings.read(**options), nests=False)

    def patches(self) -> Sequence[Replacing]:
        return (Replacing("psycopg2", "connect", self._connect),)

    def _connect(self, original: Callable[..., Any], owners: Sequence[object]) -> Any:
        plain: Any = sys.modules["psycopg2.extensions"]
        api = DbApi(self._steps, self._target_of, _status_of, _text_of)
        cursors = Subclasses(plain.cursor, lambda cls: _cursor_methods(cls, api, owners))
        connections = Subclasses(
            plain.connection,
            lambda cls: {"cursor": _cursor_method(cls, plain, cursors, owners)},
            slots=(_TARGET,),
        )

        def connect(
            dsn: Any = None,
            connection_factory: Any = None,
            cursor_factory: Any = None,
            **kwargs: Any,
        ) -> Any:
            if owners:
                connection_factory = connections.of(connection_factory or plain.connection)
            return original(dsn, connection_factory, cursor_factory, **kwargs)

        return connect

    def _target_of(self, cursor: Any) -> Target:
        try:
            return cursor.connection._tracekit_target  # type: ignore[no-any-return]
        except AttributeError:
            return self._new_target(cursor.connection)

    def _new_target(self, connection: Any) -> Target:
        # The names as they were given, without a call that a closed connection refuses.
        given = connection.get_dsn_parameters() if not connection.closed else {}
        port = given.get("port", "")
        target = self._steps.target(
            "postgresql",
            given.get("dbname"),
            given.get("host"),
            int(port) if port.isdecimal() else None,
        )
        setattr(connection, _TARGET, target)
        return target


def _cursor_method(cls: Any, plain: Any, cursors: Subclasses, owners: Sequence[object]) -> Any:
    makes_plain = cls.cursor is plain.connection.cursor

    def cursor(connection: Any, *args: Any, **kwargs: Any) -> Any:
        if not owners:
            return cls.cursor(connection, *args, **kwargs)
        asked = args[1] if len(args) > 1 else kwargs.get("cursor_factory")
        asked = asked or connection.cursor_factory or (plain.cursor if makes_plain else None)
        if asked is not None:
            watching = cursors.of(asked)
            if len(args) > 1:
                args = (args[0], watching, *args[2:])
            else:
                kwargs["cursor_factory"] = watching
            return cls.cursor(connection, *args, **kwargs)
        # A class of the program's, or one of psycopg2.extras, has cursors of its own choice.
        made = cls.cursor(connection, *args, **kwargs)
        try:
            made.__class__ = cursors.of(type(made))
        except TypeError:
            pass
        return made

    return cursor


def _cursor_methods(cls: Any, api: DbApi, owners: Sequence[object]) -> Mapping[str, Any]:
    return {
        "execute": api.execute(cls.execute, owners),
        "executemany": api.executemany(cls.executemany, owners),
        "callproc": api.callproc(cls.callproc, owners),
        "copy_expert": api.execute(cls.copy_expert, owners),
        "copy_from": _copying(cls.copy_from, "COPY {} FROM STDIN", api, owners),
        "copy_to": _copying(cls.copy_to, "COPY {} TO STDOUT", api, owners),
    }


def _copying(original: Any, statement: str, api: DbApi, owners: Sequence[object]) -> Any:
    """Replace a method that is given a file and a table, and makes the statement itself."""

    def copy(cursor: Any, file: Any, table: Any, *args: Any, **kwargs: Any) -> Any:
        query = statement.format(table)
        run = api.execute(lambda at, _: original(at, file, table, *args, **kwargs), owners)
        return run(cursor, query)

    return copy


def _text_of(query: Any, cursor: Any) -> str:
    as_string = getattr(query, "as_string", None)
    return text_of(query) if as_string is None else text_of(as_string(cursor))


def _status_of(error: BaseException) -> str | None:
    return getattr(error, "pgcode", None)


plugin: type[LibraryInstrumentor] = Psycopg2Instrumentor
