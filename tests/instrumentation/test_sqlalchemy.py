"""SQLAlchemy: the contract of databases, over drivers that are watched as well."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.trace import StatusCode

from database_servers import DatabaseServer
from instrumentation.conftest import Instrument, Spans
from instrumentation.database_contract import DatabaseContract, Session, parent_id
from instrumentation.test_psycopg import PostgresContract, in_threads
from tracekit.instrumentation import aiosqlite, asyncpg, psycopg, psycopg2, pymysql, sqlite3
from tracekit.instrumentation.sqlalchemy import plugin

sqlalchemy: Any = pytest.importorskip("sqlalchemy")
# Imported while OpenTelemetry's instrumentation is on, it would keep what that had wrapped.
sqlalchemy_asyncio: Any = pytest.importorskip("sqlalchemy.ext.asyncio")

# Before version 2 a pool of SQLite's connections was for one thread.
OF_ANY_THREAD = {"connect_args": {"check_same_thread": False}}
DRIVERS = (aiosqlite, asyncpg, psycopg, psycopg2, pymysql, sqlite3)


class EngineSession:
    """A connection of an engine, asked in the driver's own SQL."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self.commit = connection.commit
        self.rollback = connection.rollback

    def execute(self, query: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        result = self.connection.exec_driver_sql(
            query, *((tuple(parameters),) if parameters else ())
        )
        return [tuple(row) for row in result] if result.returns_rows else []

    def executemany(self, query: str, rows: Sequence[Sequence[Any]]) -> None:
        self.connection.exec_driver_sql(query, [tuple(row) for row in rows])


class EngineContract(DatabaseContract):
    """The contract, asked of an engine."""

    plugin = plugin
    contrib_class = "SQLAlchemyInstrumentor"
    library = "sqlalchemy"
    counts_rows = False
    raises_in_python = False

    def url(self) -> str:
        raise NotImplementedError

    def engine(self, **options: Any) -> Any:
        return sqlalchemy.create_engine(self.url(), future=True, **options)

    @contextmanager
    def connect(self) -> Iterator[Session]:
        engine = self.engine()
        try:
            with engine.connect() as connection:
                yield EngineSession(connection)
        finally:
            engine.dispose()

    def ask_together(self, count: int, under: Callable[[int], AbstractContextManager[Any]]) -> None:
        def work(number: int) -> None:
            with under(number):
                self.ask(f"SELECT {number}")

        in_threads(count, work)

    def watch_drivers(self, instrument: Instrument) -> None:
        for driver in DRIVERS:
            instrument(driver.plugin)

    def test_drivers_below_are_silent(self, instrument: Instrument, spans: Spans) -> None:
        self.watch_drivers(instrument)
        instrument(self.plugin)
        with self.connect() as session:
            spans.clear()
            session.execute("SELECT 2")
            session.executemany(self.insert, [(1, "a"), (2, "b")])
        assert [span.name for span in spans.watched if span.name[0] in "SI"] == [
            "SELECT",
            "INSERT items",
        ]

    def test_ping_of_the_pool_is_not_recorded(self, instrument: Instrument, spans: Spans) -> None:
        self.watch_drivers(instrument)
        instrument(self.plugin)
        engine = self.engine(pool_pre_ping=True)
        for _ in range(2):
            spans.clear()
            with engine.connect() as connection:
                connection.exec_driver_sql("SELECT 2")
        engine.dispose()
        assert len([span for span in spans.watched if span.name == "SELECT"]) == 1

    def program_text(self) -> str:
        return f"""
            import sqlalchemy
            engine = sqlalchemy.create_engine({self.url()!r}, future=True)
            with engine.connect() as at:
                spans.clear()
                at.exec_driver_sql('SELECT 7')
            engine.dispose()
        """


class TestOverSqlite(EngineContract):
    placeholder = "?"
    missing_table = "SQLITE_ERROR"
    duplicate_key = "SQLITE_CONSTRAINT_PRIMARYKEY"

    @pytest.fixture(autouse=True)
    def database(self, tmp_path: Path) -> None:
        import sqlite3 as library

        self.path = tmp_path / "shop.db"
        with closing(library.connect(self.path)) as connection:
            connection.execute("CREATE TABLE items (id INTEGER PRIMARY KEY, name TEXT, data BLOB)")

    def url(self) -> str:
        return f"sqlite:///{self.path}"

    def place(self) -> dict[str, Any]:
        return {"db.system.name": "sqlite", "db.namespace": str(self.path)}

    def test_objects_of_an_orm_are_one_span_a_statement(
        self, instrument: Instrument, spans: Spans
    ) -> None:
        from sqlalchemy.orm import Session as OrmSession
        from sqlalchemy.orm import registry

        class Item:
            id: int
            name: str

        mapper = registry()
        columns = sqlalchemy.Column
        table = sqlalchemy.Table(
            "items",
            mapper.metadata,
            columns("id", sqlalchemy.Integer, primary_key=True),
            columns("name", sqlalchemy.Text),
        )
        mapper.map_imperatively(Item, table)
        self.watch_drivers(instrument)
        instrument(self.plugin)
        engine = self.engine()
        with OrmSession(engine) as session, spans.tracer.start_as_current_span("parent") as parent:
            session.add_all([Item(), Item()])
            session.commit()
            assert len(session.execute(sqlalchemy.select(Item)).all()) == 2
        mapper.dispose()
        engine.dispose()
        names = [span.name for span in spans.watched]
        assert names[-1] == "SELECT items"
        assert set(names) == {"INSERT items", "SELECT items"}
        assert {parent_id(span) for span in spans.watched} == {parent.get_span_context().span_id}

    def test_wait_for_a_connection_is_told_by_the_statement_that_waited(
        self, instrument: Instrument, spans: Spans
    ) -> None:
        instrument(self.plugin)
        engine = self.engine(
            poolclass=sqlalchemy.pool.QueuePool, pool_size=1, max_overflow=0, **OF_ANY_THREAD
        )
        taken = threading.Event()

        def hold() -> None:
            with engine.connect():
                taken.set()
                time.sleep(0.05)

        thread = threading.Thread(target=hold)
        thread.start()
        taken.wait(10)
        with engine.connect() as connection:
            connection.exec_driver_sql("SELECT 2")
            connection.exec_driver_sql("SELECT 3")
        thread.join()
        engine.dispose()
        first, second = self.each(spans, "tracekit.pool.wait_s")
        assert first >= 0.02
        assert second is None

    def test_engine_made_before_is_watched(self, instrument: Instrument, spans: Spans) -> None:
        engine = self.engine()
        instrument(self.plugin)
        with engine.connect() as connection:
            connection.exec_driver_sql("SELECT 2")
        engine.dispose()
        assert spans.one().name == "SELECT"

    def test_listener_that_raises_leaves_nothing_behind(
        self, instrument: Instrument, spans: Spans
    ) -> None:
        instrument(self.plugin)
        engine = self.engine()

        @sqlalchemy.event.listens_for(engine, "before_cursor_execute")
        def listen(*_: Any) -> None:
            raise ArithmeticError("broken")

        with engine.connect() as connection, pytest.raises(ArithmeticError):
            connection.exec_driver_sql("SELECT 2")
        engine.dispose()
        assert spans.ended == []


class TestOverPsycopg(EngineContract, PostgresContract):
    placeholder = "%s"
    counts_rows = True

    def url(self) -> str:
        at = self.server
        driver = "psycopg2" if sqlalchemy.__version__ < "2" else "psycopg"
        return f"postgresql+{driver}://{at.user}:secret@{at.host}:{at.port}/{at.database}"

    def test_credentials_are_nowhere(self, instrument: Instrument, spans: Spans) -> None:
        instrument(self.plugin)
        self.ask("SELECT 2")
        assert "secret" not in str([dict(span.attributes or {}) for span in spans.watched])


class TestOverPsycopg2:
    """A dialect with a batch method of its own."""

    def test_batch_is_one_span_and_the_driver_is_silent(
        self, instrument: Instrument, spans: Spans, postgresql: DatabaseServer
    ) -> None:
        at = postgresql
        instrument(psycopg2.plugin)
        instrument(plugin)
        engine = sqlalchemy.create_engine(
            f"postgresql+psycopg2://{at.user}@{at.host}:{at.port}/{at.database}", future=True
        )
        with engine.connect() as connection:
            query = "SELECT %(number)s"
            connection.exec_driver_sql(query, [{"number": number} for number in range(3)])
            connection.exec_driver_sql("SELECT 2")
        engine.dispose()
        assert [span.name for span in spans.watched] == ["SELECT", "SELECT"]
        assert (spans.watched[0].attributes or {})["db.operation.batch.size"] == 3


class TestAsyncOverAsyncpg:
    """The asynchronous engine, whose statements run in a greenlet."""

    @pytest.fixture(autouse=True)
    def server(self, postgresql: DatabaseServer) -> None:
        pytest.importorskip("greenlet")
        if sqlalchemy.__version__ < "2":
            pytest.skip("in 1.4 the context of a statement does not reach the driver's coroutine")
        at = postgresql
        self.url = f"postgresql+asyncpg://{at.user}@{at.host}:{at.port}/{at.database}"

    def run(self, use: Callable[[Any], Any], **options: Any) -> None:
        async def main() -> None:
            engine = sqlalchemy_asyncio.create_async_engine(self.url, **options)
            try:
                await use(engine)
            finally:
                await engine.dispose()

        asyncio.run(main())

    def test_cancelled_statement_is_no_error(self, instrument: Instrument, spans: Spans) -> None:
        instrument(asyncpg.plugin)
        instrument(plugin)

        async def ask(engine: Any) -> None:
            async with engine.connect() as connection:
                await connection.execute(sqlalchemy.text("SELECT pg_sleep(30)"))

        async def use(engine: Any) -> None:
            task = asyncio.create_task(ask(engine))
            while True:  # until the server is asked
                await asyncio.sleep(0.2)
                async with engine.connect() as connection:
                    asked = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(30%'"
                    if (await connection.exec_driver_sql(asked)).scalar() > 1:
                        break
            spans.clear()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        self.run(use)
        (span,) = [s for s in spans.watched if s.name == "SELECT"]
        assert span.status.status_code is StatusCode.UNSET

    def test_statements_at_the_same_time_have_their_own_parents(
        self, instrument: Instrument, spans: Spans
    ) -> None:
        instrument(asyncpg.plugin)
        instrument(plugin)
        parents: dict[str, int] = {}

        async def ask(engine: Any, number: int) -> None:
            with spans.tracer.start_as_current_span("parent") as parent:
                async with engine.connect() as connection:
                    query = f"SELECT {number} AS column_{number}"
                    parents[f"SELECT ? AS column_{number}"] = parent.get_span_context().span_id
                    await connection.execute(sqlalchemy.text(query))

        async def use(engine: Any) -> None:
            await asyncio.gather(*(ask(engine, number) for number in range(8)))

        self.run(use, pool_size=3)
        found = {
            str((span.attributes or {})["db.query.text"]): parent_id(span)
            for span in spans.watched
            if "AS column" in str((span.attributes or {})["db.query.text"])
        }
        assert found == parents

    def test_line_of_the_program_is_found_outside_of_the_greenlet(
        self, instrument: Instrument, spans: Spans
    ) -> None:
        instrument(asyncpg.plugin)
        instrument(plugin)

        async def use(engine: Any) -> None:
            async with engine.connect() as connection:
                spans.clear()
                await connection.execute(sqlalchemy.text("SELECT 2"))

        self.run(use)
        assert [span.name for span in spans.watched] == ["SELECT"]
        assert (spans.one().attributes or {})["code.file.path"] == __file__
