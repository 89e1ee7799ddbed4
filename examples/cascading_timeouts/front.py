"""The front: waits for the middle for a second, then gives up (Flask, requests)."""

from __future__ import annotations

import os
import sys

import requests
from flask import Flask

import tracekit

tracekit.configure(service_name="front")
tracekit.instrument()

app = Flask("front")

TIMEOUT_S = 1.0


@app.get("/quote")
def quote() -> tuple[str, int]:
    try:
        answer = requests.get(f"{os.environ['MIDDLE_URL']}/quote", timeout=TIMEOUT_S)
    except requests.Timeout:
        return "too late", 504
    return answer.text, answer.status_code


if __name__ == "__main__":
    app.run(port=int(sys.argv[1]), threaded=True)
