"""One process that asks a database when told to on its input.

``python -m benchmarks.databases_worker sqlite3|pymongo|… bare|opentelemetry|tracekit PORT``
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

from opentelemetry.instrumentation.instrumentor import BaseInstrumentor

from benchmarks.http_worker import CONTRIB, OURS, SUBJECTS, main, new_loop

__all__ = ["main"]

_Queries = Callable[[int], None]

_QUERY = "SELECT name FROM items WHERE id = {}"
_ROWS = [(number, "x") for number in range(10)]
_TABLE = "CREATE TEMPORARY TABLE items (id INTEGER PRIMARY KEY, name TEXT)"


def _sqlite3(_port: int) -> _Queries:
    import sqlite3

    connection = sqlite3.connect(":memory:")
    connection.execute(_TABLE)
    connection.executemany("INSERT INTO items VALUES (?, ?)", _ROWS)
    cursor, query = connection.cursor(), _QUERY.format("?")

    def ask(count: int) -> None:
        for number in range(count):
            cursor.execute(query, (number % 10,)).fetchall()

    return ask


def _sqlalchemy(_port: int) -> _Queries:
    import sqlalchemy

    connection = sqlalchemy.create_engine("sqlite://").connect()
    connection.exec_driver_sql(_TABLE)
    connection.exec_driver_sql("INSERT INTO items VALUES (?, ?)", _ROWS)
    query = sqlalchemy.text(_QUERY.format(":id"))

    def ask(count: int) -> None:
        for number in range(count):
            connection.execute(query, {"id": number % 10}).fetchall()

    return ask


def _psycopg(port: int) -> _Queries:
    import psycopg

    return _driver(psycopg.connect(**_where(port), dbname="shop"))


def _psycopg_async(port: int) -> _Queries:
    import psycopg

    loop, query = new_loop(), _QUERY.format("%s")

    async def connect() -> Any:
        connection = await psycopg.AsyncConnection.connect(**_where(port), dbname="shop")
        cursor = connection.cursor()
        await cursor.execute(_TABLE)
        await cursor.executemany("INSERT INTO items VALUES (%s, %s)", _ROWS)
        return connection

    connection = loop.run_until_complete(connect())

    async def ask(count: int) -> None:
        cursor = connection.cursor()
        for number in range(count):
            await cursor.execute(query, (number % 10,))
            await cursor.fetchall()

    return lambda count: loop.run_until_complete(ask(count))


def _psycopg2(port: int) -> _Queries:
    import psycopg2

    return _driver(psycopg2.connect(**_where(port), dbname="shop"))


def _pymysql(port: int) -> _Queries:
    import pymysql

    return _driver(pymysql.connect(**_where(port), database="shop"))


def _mysqldb(port: int) -> _Queries:
    import MySQLdb

    return _driver(MySQLdb.connect(**_where(port), database="shop"))


def _mysql_connector(port: int) -> _Queries:
    import mysql.connector

    return _driver(mysql.connector.connect(**_where(port), database="shop"))


def _pymongo(port: int) -> _Queries:
    import pymongo

    client: Any = pymongo.MongoClient("127.0.0.1", port, username="shop", password="a password")
    items = client.shop[f"items{os.getpid()}"]
    items.insert_many({"_id": number, "name": name} for number, name in _ROWS)

    def ask(count: int) -> None:
        for number in range(count):
            items.find_one({"_id": number % 10})

    return ask


def _where(port: int) -> dict[str, Any]:
    return {"host": "127.0.0.1", "port": port, "user": "shop"}


def _driver(connection: Any) -> _Queries:
    cursor = connection.cursor()
    cursor.execute(_TABLE)
    cursor.executemany("INSERT INTO items VALUES (%s, %s)", _ROWS)
    query = _QUERY.format("%s")

    def ask(count: int) -> None:
        cursor = connection.cursor()  # which may know the connection only as long as it is kept
        for number in range(count):
            cursor.execute(query, (number % 10,))
            cursor.fetchall()

    return ask


def _asyncpg(port: int) -> _Queries:
    import asyncpg

    loop, query = new_loop(), _QUERY.format("$1")
    connection = loop.run_until_complete(asyncpg.connect(**_where(port), database="shop"))
    loop.run_until_complete(connection.execute(_TABLE))
    loop.run_until_complete(connection.executemany("INSERT INTO items VALUES ($1, $2)", _ROWS))

    async def fetch(count: int) -> None:
        for number in range(count):
            await connection.fetch(query, number % 10)

    return lambda count: loop.run_until_complete(fetch(count))


SUBJECTS.update(
    {
        "sqlite3": _sqlite3,
        "sqlalchemy": _sqlalchemy,
        "psycopg": _psycopg,
        "psycopg_async": _psycopg_async,
        "psycopg2": _psycopg2,
        "asyncpg": _asyncpg,
        "pymysql": _pymysql,
        "mysqldb": _mysqldb,
        "mysql_connector": _mysql_connector,
        "pymongo": _pymongo,
    }
)
CONTRIB.update(
    {
        "sqlite3": "SQLite3Instrumentor",
        "sqlalchemy": "SQLAlchemyInstrumentor",
        "psycopg": "PsycopgInstrumentor",
        "psycopg_async": "psycopg.PsycopgInstrumentor",
        "psycopg2": "Psycopg2Instrumentor",
        "asyncpg": "AsyncPGInstrumentor",
        "pymysql": "PyMySQLInstrumentor",
        "mysqldb": "mysqlclient.MySQLClientInstrumentor",
        "mysql_connector": "mysql.MySQLInstrumentor",
        "pymongo": "PymongoInstrumentor",
    }
)
OURS["psycopg_async"] = "psycopg"
# The newest versions of libraries are newer than what it says it supports, and work.
BaseInstrumentor._check_dependency_conflicts = lambda _self: None  # type: ignore[method-assign]


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
