"""The table of users that three services read: large, and without an index on the e-mail."""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import closing
from pathlib import Path

CHUNK = 100_000
READ_S = 0.08
TABLE = "CREATE TABLE users (id INTEGER PRIMARY KEY, email, name, state, currency)"
ONE = "SELECT name, state, currency FROM users WHERE lower(email) = lower(?)"


def make_table(path: Path) -> str:
    """Add users until reading the last one takes as long as it should; return who that is."""
    size = 0
    with closing(sqlite3.connect(path)) as database:
        database.execute(TABLE)
        while not size or _fastest_read(database, size) < READ_S:
            with database:
                database.executemany("INSERT INTO users VALUES (?, ?, ?, ?, ?)", _rows(size))
            size += CHUNK
    return _email(size - 1)


def _rows(first: int) -> list[tuple[object, ...]]:
    numbers = range(first, first + CHUNK)
    return [(number, _email(number), f"user{number}", "open", "EUR") for number in numbers]


def _email(number: int) -> str:
    return f"user{number}@example.com"


def _fastest_read(database: sqlite3.Connection, size: int) -> float:
    times = []
    for _ in range(3):
        began = time.perf_counter()
        database.execute(ONE, (_email(size - 1),)).fetchone()
        times.append(time.perf_counter() - began)
    return min(times)


def find_user(email: str) -> dict[str, str]:
    with closing(sqlite3.connect(os.environ["USERS_DB"])) as database:
        name, state, currency = database.execute(ONE, (email,)).fetchone()
    return {"name": name, "state": state, "currency": currency}
