"""The back: asks an outside API, and asks again when it fails, three times (Flask, requests).

Here is the mistake of the example: no circuit breaker, and more patience than anybody above has.
"""

from __future__ import annotations

import os
import sys

import requests
from flask import Flask

import tracekit

tracekit.configure(service_name="back")
tracekit.instrument()

app = Flask("back")

ATTEMPTS = 3


@app.get("/quote")
def quote() -> tuple[str, int]:
    for _ in range(ATTEMPTS):
        answer = requests.get(f"{os.environ['RATES_URL']}/rates", timeout=10)
        if answer.ok:
            return answer.text, 200
    return "no rates today", 503


if __name__ == "__main__":
    app.run(port=int(sys.argv[1]), threaded=True)
