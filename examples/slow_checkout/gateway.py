"""The gateway: takes a checkout from the shop, asks auth, then orders (Flask, requests)."""

from __future__ import annotations

import os
import sys

import requests
from flask import Flask, Response, jsonify, request

import tracekit

tracekit.configure(service_name="gateway")
tracekit.instrument()

app = Flask("gateway")


@app.post("/checkout")
def checkout() -> Response:
    cart = request.get_json()
    user = requests.get(f"{os.environ['AUTH_URL']}/users/{cart['user']}", timeout=5).json()
    order = requests.post(
        f"{os.environ['ORDERS_URL']}/orders", json={**cart, "email": user["email"]}, timeout=10
    ).json()
    return jsonify(receipt(order))


@tracekit.traced
def receipt(order: dict[str, object]) -> dict[str, object]:
    tracekit.current_span().set_attribute("order.id", str(order["id"]))
    return {"order": order["id"], "payment": order["payment"]}


if __name__ == "__main__":
    app.run(port=int(sys.argv[1]))
