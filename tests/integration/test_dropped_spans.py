"""Rules and compression in real servers: what arrives is whole, and the ledger knows the rest."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.trace import SpanKind

from integration.serving import serving, spans_of

UVICORN = str(Path(sys.executable).with_name("uvicorn"))
APP = """
import sqlite3
from urllib.request import urlopen

from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

DATABASE = sqlite3.connect("shop.db", check_same_thread=False)
DATABASE.execute("CREATE TABLE IF NOT EXISTS item (id INTEGER PRIMARY KEY, name TEXT)")


def healthz(request):
    DATABASE.execute("SELECT 1 FROM item LIMIT 1").fetchall()
    return PlainTextResponse("ok")


def order(request):
    for number in range(50):
        DATABASE.execute("SELECT name FROM item WHERE id = ?", (number,)).fetchall()
    port = request.query_params["port"]
    return PlainTextResponse(urlopen(f"http://127.0.0.1:{port}/stock").read())


def stock(request):
    return PlainTextResponse("plenty")


app = Starlette(routes=[Route("/" + f.__name__, f) for f in (healthz, order, stock)])
"""


@pytest.mark.slow
@pytest.mark.matrix_skip
def test_a_service_under_probes_leaves_its_orders_whole(tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "app.py").write_text(APP)
    store = tmp_path / "traces.db"
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setenv("TRACEKIT_DROP", 'drop kind=client url.full="*/stock"')
    monkeypatch.setenv("TRACEKIT_COMPRESS", "5")
    with serving([UVICORN, "--fd", "{fd}", "app:app"], store, tmp_path) as server:
        for _ in range(10):
            assert server.get("/healthz") == "ok"
        port = server.url.rpartition(":")[2]
        for _ in range(3):
            assert server.get(f"/order?port={port}") == "plenty"
        assert server.stop() in (0, -signal.SIGTERM)
    spans = [span for span in spans_of(store) if span.name != "CREATE TABLE item"]
    assert Counter(span.name for span in spans) == {
        "GET /order": 3,
        "GET /stock": 3,
        "SELECT item": 3 * 6,
    }
    orders = {span.context.span_id: span for span in spans if span.name == "GET /order"}
    for span in spans:
        if span.name != "GET /order":
            assert span.parent.span_id in orders
        if span.name == "GET /stock":
            # It came over HTTP from a client span that is nowhere.
            assert span.kind is SpanKind.SERVER
            assert span.parent.is_remote
    numbers = Counter(span.attributes.get("tracekit.compressed.count", 1) for span in spans)
    assert numbers[45] == 3
    (fate,) = _ledgers(tmp_path)
    checks, clients = (
        fate["filtered"]["health"],
        fate["filtered"]["drop kind=client url.full=*/stock"],
    )
    assert (checks, clients, fate["compressed"]) == (20, 3, 3 * 44)
    assert fate["started"] == sum(fate["exported"].values()) + fate["compressed"]


def _ledgers(state: Path) -> list[Any]:
    """Return what `tracekit doctor` says became of the spans of processes that have ended."""
    done = subprocess.run(
        [sys.executable, "-m", "tracekit", "doctor", "--json"],
        cwd=state,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return [ledger["fate"] for ledger in json.loads(done.stdout)["ledgers"]]
