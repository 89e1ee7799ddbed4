"""The cart: reads the same user for the currency, then prices the goods (Flask, sqlite3)."""

from __future__ import annotations

import sys
import time

from flask import Flask, Response, jsonify

import tracekit

tracekit.configure(service_name="cart")
tracekit.instrument()

from users import find_user  # noqa: E402

app = Flask("cart")


@app.get("/cart/<email>")
def cart(email: str) -> Response:
    user = find_user(email)
    return jsonify(priced(user["currency"]))


@tracekit.traced
def priced(currency: str) -> dict[str, object]:
    time.sleep(0.04)
    return {"total": 42.5, "currency": currency}


if __name__ == "__main__":
    app.run(port=int(sys.argv[1]))
