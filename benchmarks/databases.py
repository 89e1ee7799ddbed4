"""What tracing adds to one query of a database: in this process, or of a server on this machine."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from benchmarks.harness import Effort, Figures, row
from benchmarks.http import added

# The servers of the tests, which are no package of their own.
sys.path.append(str(Path(__file__).parent.parent / "tests"))
from database_servers import find_mariadb, find_postgresql, mariadb_server, postgres_server
from mongo_server import mongo_server

__all__ = ["mariadb", "mongodb", "postgresql"]


def _added(
    subject: str, effort: Effort, server: AbstractContextManager[int] | None = None
) -> Figures:
    return added(subject, effort, server, "benchmarks.databases_worker")


@row("db.sqlite3", "added to a query: sqlite3", must=0.25, aim=0.12)
def sqlite3_query(effort: Effort) -> Figures:
    return _added("sqlite3", effort)


@contextmanager
def postgresql() -> Iterator[int]:
    """Run a PostgreSQL of the benchmark's own; give its port."""
    programs = find_postgresql()
    if programs is None:
        raise RuntimeError("PostgreSQL is not installed")
    with postgres_server(programs) as server:
        yield server.port


def _added_on_postgresql(subject: str, effort: Effort) -> Figures:
    return _added(subject, effort, postgresql())


@contextmanager
def mariadb() -> Iterator[int]:
    """Run a MariaDB of the benchmark's own; give its port."""
    programs = find_mariadb()
    if programs is None:
        raise RuntimeError("MariaDB is not installed")
    with mariadb_server(programs) as server:
        yield server.port


def _added_on_mariadb(subject: str, effort: Effort) -> Figures:
    return _added(subject, effort, mariadb())


@row("db.sqlalchemy", "added to a query: SQLAlchemy on sqlite3", must=0.25, aim=0.12)
def sqlalchemy_query(effort: Effort) -> Figures:
    return _added("sqlalchemy", effort)


@row("db.psycopg", "added to a query: psycopg 3, loopback", must=0.25, aim=0.12)
def psycopg_query(effort: Effort) -> Figures:
    return _added_on_postgresql("psycopg", effort)


@row("db.psycopg_async", "added to a query: psycopg 3, asyncio, loopback", must=0.25, aim=0.12)
def psycopg_async_query(effort: Effort) -> Figures:
    return _added_on_postgresql("psycopg_async", effort)


@row("db.psycopg2", "added to a query: psycopg2, loopback", must=0.25, aim=0.12)
def psycopg2_query(effort: Effort) -> Figures:
    return _added_on_postgresql("psycopg2", effort)


@row("db.asyncpg", "added to a query: asyncpg, loopback", must=0.25, aim=0.12)
def asyncpg_query(effort: Effort) -> Figures:
    return _added_on_postgresql("asyncpg", effort)


@row("db.pymysql", "added to a query: PyMySQL, loopback", must=0.25, aim=0.12)
def pymysql_query(effort: Effort) -> Figures:
    return _added_on_mariadb("pymysql", effort)


@row("db.mysqldb", "added to a query: mysqlclient, loopback", must=0.25, aim=0.12)
def mysqldb_query(effort: Effort) -> Figures:
    return _added_on_mariadb("mysqldb", effort)


@row("db.mysql_connector", "added to a query: mysql.connector, loopback", must=0.25, aim=0.12)
def mysql_connector_query(effort: Effort) -> Figures:
    return _added_on_mariadb("mysql_connector", effort)


@contextmanager
def mongodb() -> Iterator[int]:
    """Run a FerretDB of the benchmark's own, which `make bench` fetches; give its port."""
    with tempfile.TemporaryDirectory() as folder, mongo_server(Path(folder)) as server:
        yield server.port


@row("db.pymongo", "added to a command: pymongo, FerretDB on loopback", must=0.25, aim=0.12)
def pymongo_command(effort: Effort) -> Figures:
    return _added("pymongo", effort, mongodb())
