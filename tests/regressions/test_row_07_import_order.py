"""Row 7: it does not matter whether the library or the tracer comes first.

contrib#3551, #3696, #683, opentelemetry-python#1790.
"""

from __future__ import annotations

import pytest

from programs import run

SERVER = """
import http.server, threading
class Quiet(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(204)
        self.end_headers()
    def log_message(self, *_):
        pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet)
threading.Thread(target=server.serve_forever, daemon=True).start()
url = f"http://127.0.0.1:{server.server_port}/"
"""

TRACING = """
import tracekit
from tracekit.sdk import InMemorySpanExporter, SimpleSpanProcessor
exporter = InMemorySpanExporter()
tracekit.configure(exporters="none", processors=[SimpleSpanProcessor(exporter)])
tracekit.instrument("requests", "httpx")
"""

REPORT = """
print([(span.name, span.kind.name) for span in exporter.get_finished_spans()])
"""

ORDERS = {
    "tracing first": [
        TRACING,
        "import requests; from httpx import get",
        "requests.get(url); get(url)",
    ],
    "libraries first": [
        "import requests; from httpx import get",
        TRACING,
        "requests.get(url); get(url)",
    ],
    "names bound before": [
        "from requests import get; from httpx import get as xget",
        TRACING,
        "get(url); xget(url)",
    ],
    "clients made before": [
        "import requests, httpx; session = requests.Session(); client = httpx.Client()",
        TRACING,
        "session.get(url); client.get(url)",
    ],
    "instrumented before configured": [
        "import tracekit; tracekit.instrument('requests', 'httpx')",
        TRACING,
        "import requests, httpx; requests.get(url); httpx.get(url)",
    ],
}


@pytest.mark.parametrize("order", ORDERS)
def test_every_order_gives_the_same_spans(order):
    done = run("\n".join([SERVER, *ORDERS[order], REPORT]))
    assert done.stdout == "[('GET', 'CLIENT'), ('GET', 'CLIENT')]\n", done.stderr


APP_FIRST = (
    """
import flask
app = flask.Flask("shop")
@app.get("/items/<int:number>")
def item(number):
    return str(number)
"""
    + TRACING.replace('"requests", "httpx"', '"flask"')
    + """
client = app.test_client()
assert client.get("/items/7").status_code == 200
"""
    + REPORT
)


def test_an_application_that_was_made_before_is_watched():
    done = run(APP_FIRST)
    assert done.stdout == "[('GET /items/<int:number>', 'SERVER')]\n", done.stderr
