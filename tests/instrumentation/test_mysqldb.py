"""mysqlclient: the contract of databases."""

from __future__ import annotations

from typing import Any

import pytest

from instrumentation.mysql_contract import MysqlContract
from tracekit.instrumentation.mysqldb import plugin

MySQLdb: Any = pytest.importorskip(
    "MySQLdb", reason="mysqlclient is built from source, with libmariadb-dev and pkg-config"
)


class TestMysqldb(MysqlContract):
    plugin = plugin
    contrib_class = "MySQLClientInstrumentor"
    library = "MySQLdb"
    program = "at = MySQLdb.connect(**WHERE); at.cursor().execute('SELECT 7'); at.close()"

    def open(self) -> Any:
        return MySQLdb.connect(**self.where())
