"""mysql.connector: the contract of databases, in Python, in C and asynchronous."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from typing import Any

import pytest
from opentelemetry.trace import StatusCode

from instrumentation.conftest import Instrument, Spans
from instrumentation.database_contract import Session
from instrumentation.mysql_contract import MysqlContract
from tracekit.instrumentation.mysql_connector import plugin

connector: Any = pytest.importorskip("mysql.connector")

# It tells MySQL the current span by itself, and warns that MariaDB cannot be told; while it
# connects, too, where nothing of ours has seen the connection yet.
pytestmark = pytest.mark.filterwarnings("ignore:This version of the server does not support")
tells_spans = pytest.mark.skipif(
    connector.__version_info__ < (8, 1), reason="mysql-connector-python before 8.1 tells no spans"
)


class _Synchronous(MysqlContract):
    """What connections have in common that tell their server of spans."""

    plugin = plugin
    contrib_class = "MySQLInstrumentor"
    library = "mysql.connector"
    counts_rows = False

    @pytest.mark.parametrize("broken", ["set_attributes", "end"])
    def test_a_span_that_raises_does_not_break_the_call(
        self,
        instrument: Instrument,
        spans: Spans,
        monkeypatch: pytest.MonkeyPatch,
        broken: str,
    ) -> None:
        # The library itself asks the current span whether it is recording.
        super().test_a_span_that_raises_does_not_break_the_call(
            instrument, spans, monkeypatch, broken
        )

    def execute(self, connection: Any) -> None:
        connection.cursor(buffered=True).execute("SELECT 1")

    @tells_spans
    def test_a_program_is_not_warned_that_its_server_cannot_be_told_of_spans(
        self, instrument: Instrument, spans: Spans
    ) -> None:
        instrument(plugin)
        with closing(self.open()) as connection, warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            self.execute(connection)
        assert [str(each.message) for each in said] == []
        assert spans.one().name == "SELECT"

    @tells_spans
    def test_a_connection_is_left_as_it_was_found(self, instrument: Instrument) -> None:
        instrumentor = instrument(plugin)
        with closing(self.open()) as found, closing(self.open()) as switched_off:
            switched_off.otel_context_propagation = False
            self.execute(found)
            self.execute(switched_off)
            assert not found.otel_context_propagation
            instrumentor.uninstrument()
            assert found.otel_context_propagation
            assert not switched_off.otel_context_propagation

    @tells_spans
    def test_a_server_that_takes_query_attributes_is_told_of_spans(
        self, instrument: Instrument, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        told: list[Any] = []
        with closing(self.open()) as connection:
            monkeypatch.setattr(connection, "query_attrs_append", lambda value: told.append(value))
            instrument(plugin)
            self.execute(connection)
            assert told == []
            # As it is when the same connection was made anew, to another server.
            connection._handshake = {**connection._handshake, "capabilities": 1 << 27}
            self.execute(connection)
        assert [name for name, _ in told] == ["traceparent"]


class TestMysqlConnector(_Synchronous):
    program = """
        at = mysql.connector.connect(**WHERE, use_pure=True)
        at.otel_context_propagation = False
        at.cursor(buffered=True).execute('SELECT 7')
        at.close()
    """

    def open(self) -> Any:
        return connector.connect(**self.where(), use_pure=True)


@pytest.mark.skipif(
    not connector.HAVE_CEXT, reason="this build of mysql-connector-python has none in C"
)
class TestMysqlConnectorInC(_Synchronous):
    program = """
        at = mysql.connector.connect(**WHERE, use_pure=False)
        at.cursor(buffered=True).execute('SELECT 7')
        at.close()
    """

    def open(self) -> Any:
        return connector.connect(**self.where(), use_pure=False)


class TestAsyncMysqlConnector(MysqlContract):
    plugin = plugin
    library = "mysql.connector"
    counts_rows = False
    program = """
        import asyncio, mysql.connector.aio
        async def main():
            at = await mysql.connector.aio.connect(**WHERE, ssl_disabled=True)
            await (await at.cursor(buffered=True)).execute('SELECT 7')
            await at.close()
        asyncio.run(main())
    """

    @contextmanager
    def connect(self) -> Iterator[Session]:
        aio: Any = pytest.importorskip("mysql.connector.aio")
        loop = asyncio.new_event_loop()
        run = loop.run_until_complete
        try:
            connection = run(aio.connect(**self.where(), ssl_disabled=True))
            try:
                yield _AsyncSession(run, connection)
            finally:
                run(connection.close())
        finally:
            loop.close()

    def ask_together(self, count: int, under: Callable[[int], AbstractContextManager[Any]]) -> None:
        async def work(number: int) -> None:
            with under(number):
                connection = await connector.aio.connect(**self.where(), ssl_disabled=True)
                cursor = await connection.cursor(buffered=True)
                await cursor.execute(f"SELECT {number}")
                await cursor.close()  # of 8.4 no connection can be closed before
                await connection.close()

        async def together() -> None:
            await asyncio.gather(*map(work, range(count)))

        asyncio.run(together())

    def test_cancelled_query_is_no_error(self, instrument: Instrument, spans: Spans) -> None:
        aio: Any = pytest.importorskip("mysql.connector.aio")
        instrument(self.plugin)

        async def main() -> None:
            connection = await aio.connect(**self.where(), ssl_disabled=True)
            cursor = await connection.cursor()
            task = asyncio.create_task(cursor.execute("SELECT sleep(1)"))
            await asyncio.sleep(0.05)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await connection.shutdown()

        asyncio.run(main())
        assert spans.one().status.status_code is StatusCode.UNSET

    def call(self, name: str, parameters: Sequence[Any]) -> None:
        async def call() -> None:
            connection = await connector.aio.connect(**self.where(), ssl_disabled=True)
            cursor = await connection.cursor()
            await cursor.callproc(name, parameters)
            await cursor.close()
            await connection.close()

        asyncio.run(call())


class _AsyncSession:
    def __init__(self, run: Callable[..., Any], connection: Any) -> None:
        self._run = run
        self.connection = connection

    def execute(self, query: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        return self._run(self._fetch(query, parameters))

    async def _fetch(self, query: str, parameters: Sequence[Any]) -> list[tuple[Any, ...]]:
        cursor = await self.connection.cursor()
        try:
            await cursor.execute(query, *((tuple(parameters),) if parameters else ()))
            return await cursor.fetchall() if cursor.description else []
        finally:
            await cursor.close()

    def executemany(self, query: str, rows: Sequence[Sequence[Any]]) -> None:
        async def execute() -> None:
            cursor = await self.connection.cursor()
            await cursor.executemany(query, list(rows))
            await cursor.close()

        self._run(execute())

    def commit(self) -> None:
        self._run(self.connection.commit())

    def rollback(self) -> None:
        self._run(self.connection.rollback())
