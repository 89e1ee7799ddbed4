"""PyMySQL: the contract of databases."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import pytest

from instrumentation.conftest import Instrument, Spans
from instrumentation.mysql_contract import MysqlContract
from tracekit.instrumentation.pymysql import plugin

pymysql: Any = pytest.importorskip("pymysql")


class TestPymysql(MysqlContract):
    plugin = plugin
    contrib_class = "PyMySQLInstrumentor"
    library = "pymysql"
    program = "at = pymysql.connect(**WHERE); at.cursor().execute('SELECT 7'); at.close()"

    def open(self) -> Any:
        return pymysql.connect(**self.where())

    def test_unbuffered_cursor_is_one_span(self, instrument: Instrument, spans: Spans) -> None:
        instrument(self.plugin)
        with (
            closing(self.open()) as connection,
            connection.cursor(pymysql.cursors.SSCursor) as cursor,
        ):
            cursor.execute("SELECT seq FROM seq_1_to_1000")
            assert len(list(cursor)) == 1000
        assert [span.name for span in spans.watched] == ["SELECT seq_1_to_1000"]

    def test_database_that_is_chosen_later_is_named(
        self, instrument: Instrument, spans: Spans
    ) -> None:
        instrument(self.plugin)
        with closing(self.open()) as connection, connection.cursor() as cursor:
            connection.select_db("mysql")
            connection.db = "mysql"
            cursor.execute("SELECT 2")
        assert (spans.one().attributes or {})["db.namespace"] == "mysql"

    def test_socket_is_the_address(self, instrument: Instrument, spans: Spans) -> None:
        instrument(self.plugin)
        at = self.server
        with closing(pymysql.connect(unix_socket=at.socket, user=at.user)) as connection:
            connection.cursor().execute("SELECT 2")
        attributes = spans.one().attributes or {}
        assert attributes["server.address"] == at.socket
        assert "server.port" not in attributes
        assert "db.namespace" not in attributes
