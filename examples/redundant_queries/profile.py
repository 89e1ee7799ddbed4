"""The profile: reads the same user for the name, then finds the picture (Flask, sqlite3)."""

from __future__ import annotations

import sys
import time

from flask import Flask, Response, jsonify

import tracekit

tracekit.configure(service_name="profile")
tracekit.instrument()

from users import find_user  # noqa: E402

app = Flask("profile")


@app.get("/profile/<email>")
def profile(email: str) -> Response:
    user = find_user(email)
    return jsonify({"name": user["name"], "picture": picture(user["name"])})


@tracekit.traced
def picture(name: str) -> str:
    time.sleep(0.04)
    return f"/pictures/{name}.png"


if __name__ == "__main__":
    app.run(port=int(sys.argv[1]))
