"""psycopg 3: the contract of databases, sync and async, and what it alone can do."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.trace import StatusCode

from database_servers import DatabaseServer
from instrumentation.conftest import Instrument, Spans
from instrumentation.database_contract import DatabaseContract, Session, parent_id
from tracekit.instrumentation.psycopg import plugin

psycopg = pytest.importorskip("psycopg")


class CursorSession:
    """A connection of PEP 249, asked through cursors."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self.commit = connection.commit
        self.rollback = connection.rollback

    def execute(self, query: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        cursor = self.connection.cursor()
        try:
            cursor.execute(query, *((tuple(parameters),) if parameters else ()))
            return list(cursor.fetchall()) if cursor.description else []
        finally:
            cursor.close()

    def executemany(self, query: str, rows: Sequence[Sequence[Any]]) -> None:
        cursor = self.connection.cursor()
        try:
            cursor.executemany(query, list(rows))
        finally:
            cursor.close()


def in_threads(count: int, work: Callable[[int], object]) -> None:
    threads = [threading.Thread(target=work, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


class PostgresContract(DatabaseContract):
    """The contract, asked of PostgreSQL."""

    missing_table = "42P01"
    duplicate_key = "23505"
    bytes_type = "BYTEA"
    own_text = "SELECT query FROM pg_stat_activity WHERE pid = pg_backend_pid()"

    server: DatabaseServer

    @pytest.fixture(autouse=True)
    def database(self, postgresql: DatabaseServer) -> None:
        self.server = postgresql
        with psycopg.connect(**self.where(), autocommit=True) as connection:
            connection.execute("DROP TABLE IF EXISTS items")
            connection.execute("CREATE TABLE items (id INT PRIMARY KEY, name TEXT, data BYTEA)")

    def where(self) -> dict[str, Any]:
        at = self.server
        return {"host": at.host, "port": at.port, "user": at.user, "dbname": at.database}

    def place(self) -> dict[str, Any]:
        return {
            "db.system.name": "postgresql",
            "db.namespace": "shop",
            "server.address": "127.0.0.1",
            "server.port": self.server.port,
        }

    def program_text(self) -> str:
        return self.program.replace("WHERE", repr(self.where()))


class TestPsycopg(PostgresContract):
    plugin = plugin
    contrib_class = "PsycopgInstrumentor"
    library = "psycopg"
    program = "with psycopg.connect(**WHERE) as connection: connection.execute('SELECT 7')"

    @contextmanager
    def connect(self) -> Iterator[Session]:
        connection = psycopg.connect(**self.where())
        try:
            yield CursorSession(connection)
        finally:
            connection.close()

    def ask_together(self, count: int, under: Callable[[int], AbstractContextManager[Any]]) -> None:
        def work(number: int) -> None:
            with under(number):
                self.ask(f"SELECT {number}")

        in_threads(count, work)

    def test_server_side_cursor_is_one_span(self, instrument: Instrument, spans: Spans) -> None:
        instrument(self.plugin)
        with psycopg.connect(**self.where()) as connection, connection.cursor("big") as cursor:
            cursor.execute("SELECT generate_series(1, 1000)")
            assert len(list(cursor)) == 1000
        assert [span.name for span in spans.watched] == ["SELECT"]

    @pytest.mark.parametrize("stop_at", [None, 2])
    def test_stream_of_rows_is_one_span_until_its_end(
        self, instrument: Instrument, spans: Spans, stop_at: int | None
    ) -> None:
        instrument(self.plugin)
        with psycopg.connect(**self.where()) as connection, connection.cursor() as cursor:
            before = trace.get_current_span()
            rows = cursor.stream("SELECT generate_series(1, %s)", (5,))
            for number, _ in enumerate(rows):
                assert trace.get_current_span() is before
                assert spans.watched == []
                if number == stop_at:
                    break
            rows.close()
        assert spans.one().status.status_code is StatusCode.UNSET

    def test_copy_is_one_span_to_its_end(self, instrument: Instrument, spans: Spans) -> None:
        instrument(self.plugin)
        with (
            psycopg.connect(**self.where()) as connection,
            connection.cursor().copy("COPY items (id, name) FROM STDIN") as copy,
        ):
            copy.write_row((1, "a"))
            assert spans.watched == []
        assert spans.one().name == "COPY items"

    def test_copy_that_fails_is_an_error(self, instrument: Instrument, spans: Spans) -> None:
        instrument(self.plugin)
        with (
            pytest.raises(psycopg.Error),
            psycopg.connect(**self.where()) as connection,
            connection.cursor().copy("COPY items (id) FROM STDIN") as copy,
        ):
            copy.write("no number\n")
        assert (spans.one().attributes or {})["error.type"] == "22P02"

    def test_composed_query_is_read_as_text(self, instrument: Instrument, spans: Spans) -> None:
        from psycopg import sql

        instrument(self.plugin)
        query = sql.SQL("SELECT name FROM {} WHERE id = 5").format(sql.Identifier("items"))
        with psycopg.connect(**self.where()) as connection:
            connection.execute(query)
        assert spans.one().name == "SELECT items"
        assert self.texts(spans) == ['SELECT name FROM "items" WHERE id = ?']

    def test_wait_for_a_connection_is_told_by_the_statement_that_waited(
        self, instrument: Instrument, spans: Spans
    ) -> None:
        pool_of = pytest.importorskip("psycopg_pool").ConnectionPool
        instrument(self.plugin)
        with pool_of(kwargs=self.where(), min_size=1, max_size=1) as pool:
            taken = threading.Event()

            def hold() -> None:
                with pool.connection():
                    taken.set()
                    time.sleep(0.05)

            thread = threading.Thread(target=hold)
            thread.start()
            taken.wait(10)
            with pool.connection() as connection:
                connection.execute("SELECT 2")
                connection.execute("SELECT 3")
            thread.join()
        waits = self.each(spans, "tracekit.pool.wait_s")
        assert waits[0] >= 0.02
        assert waits[1] is None

    def test_pool_that_checks_its_connections_is_not_recorded(
        self, instrument: Instrument, spans: Spans
    ) -> None:
        pool_of = pytest.importorskip("psycopg_pool").ConnectionPool
        instrument(self.plugin)
        with (
            pool_of(kwargs=self.where(), min_size=1, check=pool_of.check_connection) as pool,
            pool.connection() as connection,
        ):
            connection.execute("SELECT 2")
        assert len(spans.watched) == 1


class TestAsyncPsycopg(PostgresContract):
    plugin = plugin
    contrib_class = "PsycopgInstrumentor"
    library = "psycopg"
    program = """
        import asyncio
        async def main():
            async with await psycopg.AsyncConnection.connect(**WHERE) as connection:
                await connection.execute('SELECT 7')
        asyncio.run(main())
    """

    @contextmanager
    def connect(self) -> Iterator[Session]:
        loop = asyncio.new_event_loop()
        run = loop.run_until_complete
        try:
            connection = run(psycopg.AsyncConnection.connect(**self.where()))
            try:
                yield _AsyncSession(run, connection)
            finally:
                run(connection.close())
        finally:
            loop.close()

    def ask_together(self, count: int, under: Callable[[int], AbstractContextManager[Any]]) -> None:
        async def work(number: int) -> None:
            with under(number):
                async with await psycopg.AsyncConnection.connect(**self.where()) as connection:
                    await connection.execute(f"SELECT {number}")

        async def together() -> None:
            await asyncio.gather(*map(work, range(count)))

        asyncio.run(together())

    def test_stream_copy_and_server_side_cursor_are_one_span_each(
        self, instrument: Instrument, spans: Spans
    ) -> None:
        instrument(self.plugin)

        async def main() -> None:
            async with await psycopg.AsyncConnection.connect(**self.where()) as connection:
                async with connection.cursor() as cursor:
                    rows = [row async for row in cursor.stream("SELECT generate_series(1, 9)")]
                    async with cursor.copy("COPY items (id) FROM STDIN") as copy:
                        await copy.write_row((1,))
                async with connection.cursor("big") as cursor:
                    await cursor.execute("SELECT generate_series(1, 9)")
                    assert len([row async for row in cursor]) == len(rows) == 9

        asyncio.run(main())
        assert [span.name for span in spans.watched] == ["SELECT", "COPY items", "SELECT"]

    def test_cancelled_query_is_no_error(self, instrument: Instrument, spans: Spans) -> None:
        instrument(self.plugin)

        async def main() -> None:
            async with await psycopg.AsyncConnection.connect(**self.where()) as connection:
                task = asyncio.create_task(connection.execute("SELECT pg_sleep(30)"))
                await asyncio.sleep(0.05)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task

        asyncio.run(main())
        assert spans.one().status.status_code is StatusCode.UNSET
        assert parent_id(spans.one()) is None


class _AsyncSession:
    def __init__(self, run: Callable[..., Any], connection: Any) -> None:
        self._run = run
        self.connection = connection

    def execute(self, query: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        return self._run(self._fetch(query, parameters))

    async def _fetch(self, query: str, parameters: Sequence[Any]) -> list[tuple[Any, ...]]:
        async with self.connection.cursor() as cursor:
            await cursor.execute(query, *((tuple(parameters),) if parameters else ()))
            return await cursor.fetchall() if cursor.description else []

    def executemany(self, query: str, rows: Sequence[Sequence[Any]]) -> None:
        async def execute() -> None:
            async with self.connection.cursor() as cursor:
                await cursor.executemany(query, list(rows))

        self._run(execute())

    def commit(self) -> None:
        self._run(self.connection.commit())

    def rollback(self) -> None:
        self._run(self.connection.rollback())
