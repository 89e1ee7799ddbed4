"""The page: shows a user's account, for which it asks three services in turn (Flask, requests)."""

from __future__ import annotations

import os
import sys
import time

import requests
from flask import Flask, Response, jsonify

import tracekit

tracekit.configure(service_name="page")
tracekit.instrument()

app = Flask("page")

RENDERING_S = 0.06


@app.get("/account/<email>")
def account(email: str) -> Response:
    parts = {
        name: requests.get(f"{os.environ[f'{name.upper()}_URL']}/{name}/{email}", timeout=10).json()
        for name in ("auth", "cart", "profile")
    }
    return jsonify(render(parts))


@tracekit.traced
def render(parts: dict[str, object]) -> dict[str, object]:
    time.sleep(RENDERING_S)
    return parts


if __name__ == "__main__":
    app.run(port=int(sys.argv[1]))
