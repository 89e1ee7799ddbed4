"""The contract of databases, asked of MariaDB."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from typing import Any

import pytest

from database_servers import DatabaseServer
from instrumentation.conftest import Instrument, Spans
from instrumentation.database_contract import DatabaseContract, Session
from instrumentation.test_psycopg import CursorSession, in_threads

PROCEDURE = "CREATE OR REPLACE PROCEDURE twice(number INT) SELECT number * 2"
TABLE = "CREATE TABLE items (id INT PRIMARY KEY, name TEXT, data LONGBLOB)"


class MysqlContract(DatabaseContract):
    """The contract, and procedures."""

    missing_table = "1146"
    duplicate_key = "1062"
    own_text = "SELECT info FROM information_schema.processlist WHERE id = CONNECTION_ID()"

    server: DatabaseServer

    @pytest.fixture(autouse=True)
    def database(self, mariadb: DatabaseServer) -> None:
        self.server = mariadb
        with self.connect() as session:
            session.execute("DROP TABLE IF EXISTS items")
            session.execute(TABLE)
            session.execute(PROCEDURE)

    def where(self) -> dict[str, Any]:
        at = self.server
        return {"host": at.host, "port": at.port, "user": at.user, "database": at.database}

    def place(self) -> dict[str, Any]:
        return {
            "db.system.name": "mariadb",
            "db.namespace": "shop",
            "server.address": "127.0.0.1",
            "server.port": self.server.port,
        }

    def open(self) -> Any:
        """Return a connection."""
        raise NotImplementedError

    @contextmanager
    def connect(self) -> Iterator[Session]:
        with closing(self.open()) as connection:
            yield CursorSession(connection)

    def ask_together(self, count: int, under: Callable[[int], AbstractContextManager[Any]]) -> None:
        def work(number: int) -> None:
            with under(number):
                self.ask(f"SELECT {number}")

        in_threads(count, work)

    def call(self, name: str, parameters: Sequence[Any]) -> None:
        with closing(self.open()) as connection, closing(connection.cursor()) as cursor:
            cursor.callproc(name, parameters)

    def program_text(self) -> str:
        return self.program.replace("WHERE", repr(self.where()))

    def test_procedure_is_one_span_that_names_it(
        self, instrument: Instrument, spans: Spans
    ) -> None:
        instrument(self.plugin)
        self.call("twice", (21,))
        assert spans.one().name == "CALL twice"
        assert (spans.one().attributes or {})["db.stored_procedure.name"] == "twice"
