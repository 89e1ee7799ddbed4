"""Auth: reads the user to see whether the account is open (Flask, sqlite3)."""

from __future__ import annotations

import sys

from flask import Flask, Response, jsonify

import tracekit

tracekit.configure(service_name="auth")
tracekit.instrument()

from users import find_user  # noqa: E402

app = Flask("auth")


@app.get("/auth/<email>")
def auth(email: str) -> Response:
    user = find_user(email)
    return jsonify({"open": user["state"] == "open"})


if __name__ == "__main__":
    app.run(port=int(sys.argv[1]))
