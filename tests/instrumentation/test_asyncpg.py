"""asyncpg: the contract of databases, prepared statements, cursors, COPY and pools."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest
from opentelemetry.trace import StatusCode

from instrumentation.conftest import Instrument, Spans
from instrumentation.database_contract import Session
from instrumentation.test_psycopg import PostgresContract
from tracekit.instrumentation.asyncpg import plugin

asyncpg: Any = pytest.importorskip("asyncpg")

Use = Callable[[Any], Coroutine[Any, Any, Any]]


class TestAsyncpg(PostgresContract):
    plugin = plugin
    contrib_class = "AsyncPGInstrumentor"
    library = "asyncpg"
    placeholder = "$1"
    program = """
        import asyncio
        async def main():
            at = await asyncpg.connect(**WHERE)
            await at.fetch('SELECT 7')
            await at.close()
        asyncio.run(main())
    """

    @property
    def second(self) -> str:
        return "$2"

    def at(self) -> dict[str, Any]:
        where = self.where()
        return {**{k: v for k, v in where.items() if k != "dbname"}, "database": where["dbname"]}

    def program_text(self) -> str:
        return self.program.replace("WHERE", repr(self.at()))

    @contextmanager
    def connect(self) -> Iterator[Session]:
        loop = asyncio.new_event_loop()
        run = loop.run_until_complete
        try:
            connection = run(asyncpg.connect(**self.at()))
            try:
                yield _Session(run, connection)
            finally:
                run(connection.close())
        finally:
            loop.close()

    def ask_together(self, count: int, under: Callable[[int], AbstractContextManager[Any]]) -> None:
        async def together() -> None:
            async with asyncpg.create_pool(**self.at(), min_size=1, max_size=3) as pool:

                async def work(number: int) -> None:
                    with under(number):
                        await pool.fetchval(f"SELECT {number}")

                await asyncio.gather(*map(work, range(count)))

        asyncio.run(together())

    def use(self, use: Use) -> None:
        """Run `use` with a connection."""

        async def main() -> None:
            connection = await asyncpg.connect(**self.at())
            try:
                await use(connection)
            finally:
                await connection.close()

        asyncio.run(main())

    @pytest.mark.parametrize("method", ["execute", "fetch", "fetchval", "fetchrow"])
    def test_each_way_of_asking_is_one_span(
        self, instrument: Instrument, spans: Spans, method: str
    ) -> None:
        instrument(self.plugin)
        self.use(lambda at: getattr(at, method)("SELECT name FROM items WHERE id = $1", 1))
        assert spans.one().name == "SELECT items"

    def test_cancelled_query_is_no_error(self, instrument: Instrument, spans: Spans) -> None:
        instrument(self.plugin)

        async def use(at: Any) -> None:
            task = asyncio.create_task(at.fetch("SELECT pg_sleep(30)"))
            await asyncio.sleep(0.05)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        self.use(use)
        assert spans.one().status.status_code is StatusCode.UNSET

    def test_query_that_takes_too_long_is_an_error(
        self, instrument: Instrument, spans: Spans
    ) -> None:
        instrument(self.plugin)

        async def use(at: Any) -> None:
            with pytest.raises(asyncio.TimeoutError):
                await at.fetch("SELECT pg_sleep(30)", timeout=0.05)

        self.use(use)
        assert spans.one().status.status_code is StatusCode.ERROR

    def test_prepared_statement_is_one_span_each_time(
        self, instrument: Instrument, spans: Spans
    ) -> None:
        instrument(self.plugin)

        async def use(at: Any) -> None:
            statement = await at.prepare("SELECT id FROM items WHERE id = $1")
            with spans.tracer.start_as_current_span("parent"):
                await statement.fetch(1)
                await statement.fetchval(1)
                await statement.fetchrow(2)

        self.use(use)
        assert [span.name for span in spans.watched] == ["SELECT items"] * 3
        first, again, other = self.each(spans, "tracekit.db.parameters.hash")
        assert first == again != other

    @pytest.mark.parametrize("rows", [0, 3, 120])
    def test_iterated_cursor_is_one_span(
        self, instrument: Instrument, spans: Spans, rows: int
    ) -> None:
        instrument(self.plugin)

        async def use(at: Any) -> None:
            async with at.transaction():
                query = "SELECT id FROM generate_series(1, $1::int) id"
                seen = [row async for row in at.cursor(query, rows)]
            assert len(seen) == rows

        self.use(use)
        assert [s.name for s in spans.watched if "SELECT" in s.name] == ["SELECT"]

    def test_cursor_that_is_left_half_way_is_one_ended_span(
        self, instrument: Instrument, spans: Spans
    ) -> None:
        instrument(self.plugin)

        async def use(at: Any) -> None:
            async with at.transaction():
                async for _ in at.cursor("SELECT generate_series(1, 1000)"):
                    break

        self.use(use)
        assert [s.name for s in spans.watched if "SELECT" in s.name] == ["SELECT"]

    def test_cursor_read_in_blocks_is_one_span(self, instrument: Instrument, spans: Spans) -> None:
        instrument(self.plugin)

        async def use(at: Any) -> None:
            async with at.transaction():
                cursor = await at.cursor("SELECT generate_series(1, 100)")
                await cursor.forward(10)
                assert len(await cursor.fetch(50)) == 50
                assert len(await cursor.fetch(500)) == 40
                assert await cursor.fetchrow() is None

        self.use(use)
        assert [s.name for s in spans.watched if "SELECT" in s.name] == ["SELECT"]

    def test_copy_is_one_span_that_names_its_table(
        self, instrument: Instrument, spans: Spans
    ) -> None:
        instrument(self.plugin)

        async def use(at: Any) -> None:
            await at.copy_records_to_table("items", records=[(1, "a")], columns=["id", "name"])
            await at.copy_from_table("items", output="/dev/null")
            await at.copy_from_query("SELECT id FROM items", output="/dev/null")

        self.use(use)
        assert [span.name for span in spans.watched] == ["COPY items", "COPY items", "SELECT items"]

    def test_wait_for_a_connection_is_told_by_the_statement_that_waited(
        self, instrument: Instrument, spans: Spans
    ) -> None:
        instrument(self.plugin)

        async def main() -> None:
            async with asyncpg.create_pool(**self.at(), min_size=1, max_size=1) as pool:

                async def hold() -> None:
                    async with pool.acquire():
                        await asyncio.sleep(0.05)

                task = asyncio.create_task(hold())
                await asyncio.sleep(0)
                async with pool.acquire(timeout=5) as connection:
                    await connection.fetch("SELECT 2")
                    await connection.fetch("SELECT 3")
                await task

        asyncio.run(main())
        waits = self.each(spans, "tracekit.pool.wait_s")
        assert len(waits) == 2  # and nothing for the pool's own statements
        assert waits[0] >= 0.02
        assert waits[1] is None


class _Session:
    def __init__(self, run: Callable[..., Any], connection: Any) -> None:
        self._run = run
        self.connection = connection

    def execute(self, query: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        return self._run(self._fetch(query, parameters))

    async def _fetch(self, query: str, parameters: Sequence[Any]) -> list[tuple[Any, ...]]:
        return [tuple(row) for row in await self.connection.fetch(query, *parameters)]

    def executemany(self, query: str, rows: Sequence[Sequence[Any]]) -> None:
        self._run(self.connection.executemany(query, rows))

    def commit(self) -> None:
        """Each statement is a transaction of its own."""

    rollback = commit
