"""sqlite3: the contract of databases, and what its types of C ask for."""

from __future__ import annotations

import sqlite3
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.trace import SpanKind

from instrumentation.conftest import Instrument, Spans
from instrumentation.database_contract import DatabaseContract, Session
from tracekit.instrumentation.sqlite3 import plugin
from tracekit.store import writer

TABLE = "CREATE TABLE items (id INTEGER PRIMARY KEY, name TEXT, data BLOB)"


class SqliteSession:
    """A connection, asked through cursors."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        self.commit = connection.commit
        self.rollback = connection.rollback

    def execute(self, query: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with closing(self.connection.cursor()) as cursor:
            arguments = (parameters,) if parameters else ()
            return cursor.execute(query, *arguments).fetchall()

    def executemany(self, query: str, rows: Sequence[Sequence[Any]]) -> None:
        self.connection.executemany(query, rows)


class TestSqlite3(DatabaseContract):
    plugin = plugin
    contrib_class = "SQLite3Instrumentor"
    library = "sqlite3"
    placeholder = "?"
    missing_table = "SQLITE_ERROR"
    duplicate_key = "SQLITE_CONSTRAINT_PRIMARYKEY"
    counts_rows = False
    watches_old_connections = False
    raises_in_python = False
    program = "at = sqlite3.connect('x.db'); at.execute('SELECT 7'); at.close()"

    @pytest.fixture(autouse=True)
    def database(self, tmp_path: Path) -> None:
        self.path = tmp_path / "shop.db"
        with closing(sqlite3.connect(self.path)) as connection:
            connection.execute(TABLE)

    def place(self) -> dict[str, Any]:
        return {"db.system.name": "sqlite", "db.namespace": str(self.path)}

    @contextmanager
    def connect(self) -> Iterator[Session]:
        with closing(sqlite3.connect(self.path)) as connection:
            yield SqliteSession(connection)

    def ask_together(self, count: int, under: Callable[[int], AbstractContextManager[Any]]) -> None:
        def work(number: int) -> None:
            with under(number):
                self.ask(f"SELECT {number}")

        threads = [threading.Thread(target=work, args=(number,)) for number in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def program_text(self) -> str:
        return self.program.replace("x.db", str(self.path))

    # What types of C ask for

    def test_database_in_memory_is_no_client(self, instrument: Instrument, spans: Spans) -> None:
        instrument(self.plugin)
        for path in (":memory:", "file::memory:?cache=shared", "file:a?mode=memory"):
            with closing(sqlite3.connect(path, uri=path.startswith("file:"))) as connection:
                connection.execute("SELECT 1")
        assert {span.kind for span in spans.watched} == {SpanKind.INTERNAL}

    def test_function_imported_before_is_watched(
        self, instrument: Instrument, spans: Spans, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        module = sys.modules[__name__]
        monkeypatch.setattr(module, "connect_of_before", sqlite3.connect, raising=False)
        before = sqlite3.connect
        instrumentor = instrument(self.plugin)
        with closing(vars(module)["connect_of_before"](self.path)) as connection:
            connection.execute("SELECT 1")
        assert spans.one().name == "SELECT"
        instrumentor.uninstrument()
        assert vars(module)["connect_of_before"] is sqlite3.connect is before

    @pytest.mark.parametrize("name", ["execute", "executemany", "executescript"])
    def test_shortcuts_of_a_connection_are_one_span(
        self, instrument: Instrument, spans: Spans, name: str
    ) -> None:
        instrument(self.plugin)
        rows = {"executemany": ([(1,), (2,)],)}
        query = "INSERT INTO items (id) VALUES (?)" if name == "executemany" else "SELECT 'x'"
        with closing(sqlite3.connect(self.path)) as connection:
            cursor = getattr(connection, name)(query, *rows.get(name, ()))
        assert isinstance(cursor, sqlite3.Cursor)
        assert len(spans.watched) == 1

    def test_objects_are_of_the_classes_that_were_asked_for(
        self, instrument: Instrument, spans: Spans
    ) -> None:
        class Connection(sqlite3.Connection):
            def shout(self) -> str:
                return "hey"

        class Cursor(sqlite3.Cursor):
            pass

        instrument(self.plugin)
        with closing(sqlite3.connect(self.path, factory=Connection)) as connection:
            assert connection.shout() == "hey"
            assert type(connection).__name__ == "Connection"
            assert not hasattr(connection.cursor(), "__dict__")  # as before
            assert isinstance(connection.cursor(), sqlite3.Cursor)
            cursor = connection.cursor(Cursor)
            assert isinstance(cursor, Cursor)
            assert cursor.execute("SELECT 1").fetchall() == [(1,)]
        assert len(spans.watched) == 1

    def test_factory_that_is_a_function_is_left_alone(
        self, instrument: Instrument, spans: Spans
    ) -> None:
        instrument(self.plugin)

        def factory(*args: Any, **kwargs: Any) -> sqlite3.Connection:
            return sqlite3.Connection(*args, **kwargs)

        with closing(sqlite3.connect(self.path, factory=factory)) as connection:  # pyright: ignore
            assert connection.execute("SELECT 7").fetchall() == [(7,)]
        assert spans.ended == []

    def test_generator_of_rows_is_left_to_the_library(
        self, instrument: Instrument, spans: Spans
    ) -> None:
        instrument(self.plugin)
        with closing(sqlite3.connect(self.path)) as connection:
            connection.executemany(
                "INSERT INTO items (id) VALUES (?)", ((number,) for number in range(5))
            )
            assert connection.execute("SELECT COUNT(*) FROM items").fetchone() == (5,)
        assert self.each(spans, "db.operation.batch.size") == [None, None]

    def test_named_values_are_recorded_by_their_names(
        self, instrument: Instrument, spans: Spans
    ) -> None:
        instrument(self.plugin, capture_parameters=True)
        with closing(sqlite3.connect(self.path)) as connection:
            connection.execute("SELECT :who", {"who": "amy"})
        assert (spans.one().attributes or {})["db.query.parameter.who"] == "amy"

    def test_the_store_of_spans_is_never_watched(
        self, instrument: Instrument, spans: Spans, tmp_path: Path
    ) -> None:
        instrument(self.plugin)
        # Run in the store's own name, as its code is.
        scope = {"__name__": writer.__name__, "sqlite3": sqlite3, "path": tmp_path / "store.db"}
        exec("at = sqlite3.connect(path); at.execute('SELECT 1'); at.close()", scope)
        assert spans.ended == []
