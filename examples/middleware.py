"""Trace a web framework: requests come in, and go on to another service, in one trace.

python examples/middleware.py && tracekit show
"""

from __future__ import annotations

import threading

import requests
from flask import Flask
from werkzeug.serving import make_server

import tracekit

app = Flask(__name__)


@app.get("/hello/<name>")
def hello(name: str) -> str:
    with tracekit.span("greet"):
        return f"Hello, {name}!"


def main() -> None:
    tracekit.configure(service_name="hello")
    tracekit.instrument("flask", "requests")
    server = make_server("127.0.0.1", 0, app)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with tracekit.span("visit"):
        print(requests.get(f"http://127.0.0.1:{server.port}/hello/ada", timeout=5).text)
    server.shutdown()


if __name__ == "__main__":
    main()
