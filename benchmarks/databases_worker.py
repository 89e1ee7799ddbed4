"""One process that asks a database when told to on its input.

``python -m benchmarks.databases_worker sqlite3 bare|opentelemetry|tracekit 0``
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from benchmarks.http_worker import CONTRIB, SUBJECTS, main

__all__ = ["main"]

_Queries = Callable[[int], None]


def _sqlite3(_port: int) -> _Queries:
    import sqlite3

    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE TABLE items (id INTEGER PRIMARY KEY, name TEXT)")
    connection.executemany("INSERT INTO items VALUES (?, ?)", [(n, "x") for n in range(10)])
    cursor = connection.cursor()

    def ask(count: int) -> None:
        for number in range(count):
            cursor.execute("SELECT name FROM items WHERE id = ?", (number % 10,)).fetchall()

    return ask


SUBJECTS.update({"sqlite3": _sqlite3})
CONTRIB.update({"sqlite3": "SQLite3Instrumentor"})


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
