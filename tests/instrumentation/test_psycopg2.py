"""psycopg2: the contract of databases, and what its types of C ask for."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from typing import Any

import pytest

from instrumentation.conftest import Instrument, Spans
from instrumentation.database_contract import Session
from instrumentation.test_psycopg import CursorSession, PostgresContract, in_threads
from tracekit.instrumentation.psycopg2 import plugin

psycopg2 = pytest.importorskip("psycopg2")
extras: Any = pytest.importorskip("psycopg2.extras")


class TestPsycopg2(PostgresContract):
    plugin = plugin
    contrib_class = "Psycopg2Instrumentor"
    library = "psycopg2"
    watches_old_connections = False
    raises_in_python = False
    program = "at = psycopg2.connect(**WHERE); at.cursor().execute('SELECT 7'); at.close()"

    @contextmanager
    def connect(self) -> Iterator[Session]:
        with closing(psycopg2.connect(**self.where())) as connection:
            yield CursorSession(connection)

    def ask_together(self, count: int, under: Callable[[int], AbstractContextManager[Any]]) -> None:
        def work(number: int) -> None:
            with under(number):
                self.ask(f"SELECT {number}")

        in_threads(count, work)

    @pytest.mark.parametrize(
        ("name", "expected"),
        [("RealDictCursor", {"a": 7}), ("DictCursor", [7]), ("NamedTupleCursor", (7,))],
    )
    def test_cursors_are_of_the_classes_that_were_asked_for(
        self, instrument: Instrument, spans: Spans, name: str, expected: Any
    ) -> None:
        cls = getattr(extras, name)
        instrument(self.plugin)
        ways: list[Callable[[], Any]] = [
            lambda: psycopg2.connect(**self.where()).cursor(cursor_factory=cls),
            lambda: psycopg2.connect(**self.where()).cursor(None, cls),
            lambda: psycopg2.connect(**self.where(), cursor_factory=cls).cursor(),
        ]
        for way in ways:
            cursor = way()
            cursor.execute("SELECT 7 AS a")
            assert isinstance(cursor, cls)
            assert cursor.fetchone() == expected
            cursor.connection.close()
        assert len(spans.watched) == len(ways)

    def test_connection_of_extras_keeps_its_own_cursors(
        self, instrument: Instrument, spans: Spans
    ) -> None:
        instrument(self.plugin)
        factory = extras.RealDictConnection
        with closing(psycopg2.connect(**self.where(), connection_factory=factory)) as connection:
            assert isinstance(connection, factory)
            cursor = connection.cursor()
            cursor.execute("SELECT 7 AS a")
            assert cursor.fetchall() == [{"a": 7}]
        assert len(spans.watched) == 1

    def test_functions_of_the_library_take_what_is_watched(
        self, instrument: Instrument, spans: Spans
    ) -> None:
        instrument(self.plugin)
        with closing(psycopg2.connect(**self.where())) as connection:
            extras.register_uuid(conn_or_curs=connection)
            cursor = connection.cursor()
            extras.register_default_json(cursor)
            extras.execute_values(cursor, "INSERT INTO items (id, name) VALUES %s", [(1, "secret")])
        assert spans.one().name == "INSERT items"
        assert self.texts(spans) == ["INSERT INTO items (id, name) VALUES (?,?)"]

    def test_copy_and_procedures_are_spans(self, instrument: Instrument, spans: Spans) -> None:
        instrument(self.plugin)
        with closing(psycopg2.connect(**self.where())) as connection:
            cursor = connection.cursor()
            cursor.copy_from(io.StringIO("1\ta\n"), "items", columns=("id", "name"))
            cursor.copy_to(io.StringIO(), "items")
            cursor.copy_expert("COPY items TO STDOUT", io.StringIO())
            cursor.callproc("upper", ("a",))
        names = [span.name for span in spans.watched]
        assert names == ["COPY items", "COPY items", "COPY items", "CALL upper"]
        assert self.each(spans, "db.stored_procedure.name")[-1] == "upper"
        assert self.each(spans, "db.query.text")[1] == "COPY items TO STDOUT"

    def test_named_cursor_is_one_span(self, instrument: Instrument, spans: Spans) -> None:
        instrument(self.plugin)
        with (
            closing(psycopg2.connect(**self.where())) as connection,
            connection.cursor("big") as cursor,
        ):
            cursor.execute("SELECT generate_series(1, 1000)")
            assert len(list(cursor)) == 1000
        assert [span.name for span in spans.watched] == ["SELECT"]
