"""The middle: waits for the back for two seconds, twice as long as its caller waits (Flask)."""

from __future__ import annotations

import os
import sys

import requests
from flask import Flask

import tracekit

tracekit.configure(service_name="middle")
tracekit.instrument()

app = Flask("middle")

TIMEOUT_S = 2.0


@app.get("/quote")
def quote() -> tuple[str, int]:
    try:
        answer = requests.get(f"{os.environ['BACK_URL']}/quote", timeout=TIMEOUT_S)
    except requests.Timeout:
        return "too late", 504
    return answer.text, answer.status_code


if __name__ == "__main__":
    app.run(port=int(sys.argv[1]), threaded=True)
