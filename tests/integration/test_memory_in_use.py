"""What a program has in use does not grow with the requests that are traced.

In use, not resident: an allocator keeps what it gets back. tests/integration/test_busy_shop.py asks
the same of services, in less detail.
"""

from __future__ import annotations

import json

import pytest

from programs import run

pytestmark = [pytest.mark.slow, pytest.mark.matrix_skip]

ROUND = 512
"""As many as the caches that hold one entry for each URL have room for: they are as full after each
round."""

SERVICE = """
import asyncio, logging
import fastapi, httpx, opentelemetry.trace, sqlalchemy

engine = sqlalchemy.create_engine("sqlite://")
query = sqlalchemy.text("SELECT :number + 1")
app = fastapi.FastAPI()
logging.getLogger().addHandler(logging.NullHandler())

@app.post("/orders/{number}")
async def order(number: int):
    stock = (await client.get(f"/stock/{number}")).json()
    with tracekit.span("pack", order=number), engine.connect() as connection:
        connection.execute(query, {"number": number}).scalar_one()
        logging.warning("order %d", number)
    await asyncio.to_thread(pack, number)
    return stock

@app.get("/stock/{number}")
async def stock(number: int):
    return number % 100

@tracekit.traced
def pack(number):
    opentelemetry.trace.get_current_span().add_event("packed", {"order": number})

client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://shop")
loop = asyncio.new_event_loop()

def work(number):
    assert loop.run_until_complete(client.post(f"/orders/{number}")).json() == number % 100
"""

CLIENTS = """
import http.server, threading, urllib.request
import httpx, requests

class Quiet(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        self.send_response(200 if int(self.path[1:]) % 8 else 503)
        self.send_header("Content-Length", "0")
        self.end_headers()
    def log_message(self, *_):
        pass

server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet)
threading.Thread(target=server.serve_forever, daemon=True).start()
session, client = requests.Session(), httpx.Client()

def work(number):
    url = f"http://127.0.0.1:{server.server_port}/{number}"
    session.get(url)
    client.get(url)
    try:
        with urllib.request.urlopen(url):
            pass
    except urllib.error.HTTPError as error:
        error.close()
"""

TRACING = """
import tracekit
from tracekit.interfaces import SpanExporter, SpanExportResult

class Count(SpanExporter):
    spans = 0
    def export(self, spans):
        self.spans += len(spans)
        return SpanExportResult.SUCCESS

count = Count()
tracekit.configure(exporters=[count])
tracekit.instrument()
"""

MEASURE = """
import gc, json, sys

def in_use(orders):
    for number in orders:
        work(number)
    tracekit.flush()
    gc.collect()
    return sys.getallocatedblocks()

first = 10**6  # numbers of as many digits
blocks = [in_use(range(start, start + ROUND)) for start in range(first, first + 4 * ROUND, ROUND)]
print(json.dumps({"blocks": blocks, "spans": count.spans}))
"""


@pytest.mark.parametrize(
    ("program", "spans"), [(SERVICE, 7), (CLIENTS, 3)], ids=["service", "clients"]
)
def test_nothing_is_kept_of_a_request_that_is_over(program, spans):
    done = run("\n".join([TRACING, program, f"ROUND = {ROUND}", MEASURE]))
    report = json.loads(done.stdout or done.stderr)
    assert report["spans"] == 4 * ROUND * spans
    _, second, _, last = report["blocks"]
    assert last - second < ROUND // 2, report  # not of one request in four
