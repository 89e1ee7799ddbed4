"""aiosqlite: the contract of databases, through its thread."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from instrumentation.conftest import Instrument, Spans
from instrumentation.database_contract import DatabaseContract, Session, parent_id
from tracekit.instrumentation import aiosqlite as instrumentation
from tracekit.instrumentation import sqlite3 as sqlite3_instrumentation

aiosqlite = pytest.importorskip("aiosqlite")

Run = Callable[[Coroutine[Any, Any, Any]], Any]


class AioSession:
    """A connection, asked from an event loop that runs for the time of each call."""

    def __init__(self, run: Run, connection: Any) -> None:
        self._run = run
        self.connection = connection

    def execute(self, query: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        return self._run(self._fetch(query, parameters))

    async def _fetch(self, query: str, parameters: Sequence[Any]) -> Any:
        arguments = (parameters,) if parameters else ()
        async with self.connection.execute(query, *arguments) as cursor:
            return await cursor.fetchall()

    def executemany(self, query: str, rows: Sequence[Sequence[Any]]) -> None:
        async def execute() -> None:
            await self.connection.executemany(query, rows)

        self._run(execute())

    def commit(self) -> None:
        self._run(self.connection.commit())

    def rollback(self) -> None:
        self._run(self.connection.rollback())


class TestAiosqlite(DatabaseContract):
    plugin = instrumentation.plugin
    library = "aiosqlite"
    placeholder = "?"
    missing_table = "SQLITE_ERROR"
    duplicate_key = "SQLITE_CONSTRAINT_PRIMARYKEY"
    counts_rows = False
    watches_old_connections = False
    raises_in_python = False
    program = """
        import asyncio
        async def main():
            async with aiosqlite.connect('x.db') as connection:
                async with connection.execute('SELECT 7'):
                    pass
        asyncio.run(main())
    """

    @pytest.fixture(autouse=True)
    def database(self, tmp_path: Path) -> None:
        self.path = tmp_path / "shop.db"
        with closing(sqlite3.connect(self.path)) as connection:
            connection.execute("CREATE TABLE items (id INTEGER PRIMARY KEY, name TEXT, data BLOB)")

    def place(self) -> dict[str, Any]:
        return {"db.system.name": "sqlite", "db.namespace": str(self.path)}

    @contextmanager
    def connect(self) -> Iterator[Session]:
        loop = asyncio.new_event_loop()
        try:
            connection = loop.run_until_complete(self._open())
            try:
                yield AioSession(loop.run_until_complete, connection)
            finally:
                loop.run_until_complete(connection.close())
        finally:
            loop.close()

    async def _open(self) -> Any:
        return await aiosqlite.connect(self.path)

    def ask_together(self, count: int, under: Callable[[int], AbstractContextManager[Any]]) -> None:
        async def work(number: int) -> None:
            with under(number):
                async with aiosqlite.connect(self.path) as connection:
                    await connection.execute_fetchall(f"SELECT {number}")

        async def together() -> None:
            await asyncio.gather(*map(work, range(count)))

        asyncio.run(together())

    def program_text(self) -> str:
        return self.program.replace("x.db", str(self.path))

    # What its thread asks for

    @pytest.mark.parametrize("names", ["sqlite3", "sqlite3 aiosqlite", "aiosqlite sqlite3"])
    def test_query_is_one_span_below_the_callers_whatever_is_watched(
        self, instrument: Instrument, spans: Spans, names: str
    ) -> None:
        both = {"sqlite3": sqlite3_instrumentation.plugin, "aiosqlite": self.plugin}
        for name in names.split():
            instrument(both[name])
        with spans.tracer.start_as_current_span("parent") as parent:
            self.ask("SELECT 1")
        assert parent_id(spans.one()) == parent.get_span_context().span_id
