"""The shop, watched by Datadog's tracer: run by ``ddtrace-run``, which patches its libraries.

``front`` asks ``back`` for the same user three times, and for a score that takes too long.
"""

from __future__ import annotations

import contextlib
import sqlite3
import sys
import time

import flask
import requests

SCORE_S, PATIENCE_S = 0.8, 0.5

app = flask.Flask(__name__)
role, port, back_port = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
back = f"http://127.0.0.1:{back_port}"


@app.get("/ready")
def ready() -> str:
    return "yes"


@app.get("/checkout")
def checkout() -> str:
    for _ in range(3):
        requests.get(f"{back}/users/7", timeout=5).raise_for_status()
    with contextlib.suppress(requests.Timeout):
        requests.get(f"{back}/score", timeout=PATIENCE_S)
    return "paid"


@app.get("/users/<int:user>")
def find_user(user: int) -> dict[str, str]:
    with sqlite3.connect(":memory:") as database:
        database.create_function("slowly", 1, lambda value: time.sleep(0.04) or value)
        database.execute("CREATE TABLE users (id, name)")
        database.execute("INSERT INTO users VALUES (7, 'ada')")
        query = "SELECT slowly(name) FROM users WHERE id = ?"
        (name,) = database.execute(query, (user,)).fetchone()
    return {"name": name}


@app.get("/score")
def score() -> str:
    time.sleep(SCORE_S)
    return "fine"


app.run("127.0.0.1", port, threaded=True)
