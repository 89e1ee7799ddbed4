"""One of three services, as a process: ``python -m benchmarks.across.service NAME NEXT FILE``.

The front is Flask and calls by requests, the middle is FastAPI and calls by httpx, the back is
aiohttp. Each prints its port, serves until its input ends, and prints its ledger. What becomes of
a request, its *fate*, happens in the back: the two in front of it answer with 200 whatever it is.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
from collections.abc import Callable
from typing import Any

from opentelemetry.trace import StatusCode

import tracekit
from tracekit.exporters.otlp_file import OtlpFileExporter

__all__ = ["SERVICES", "SHARES", "SLOW_S", "main"]

SHARES = {"front": 0.05, "middle": 0.05, "back": 0.2}
"""Of the traces for which nothing speaks. That of the back is not to become that of the front."""

SLOW_S = 0.25
"""What the back takes for slow; the others do not ask."""

Serve = Callable[[Callable[[int], None]], None]


def _front(behind: str) -> Serve:
    import flask
    import requests
    from werkzeug.serving import make_server

    app = flask.Flask("front")

    @app.get("/orders/<int:number>")
    def order(number: int) -> str:
        fate = flask.request.args["fate"]
        return requests.get(f"{behind}/prices/{number}", {"fate": fate}, timeout=30).text

    def serve(listens: Callable[[int], None]) -> None:
        server = make_server("127.0.0.1", 0, app, threaded=True)
        listens(server.server_port)
        server.serve_forever()

    return serve


def _middle(behind: str) -> Serve:
    import fastapi
    import httpx
    import uvicorn

    app = fastapi.FastAPI()
    client = httpx.AsyncClient(timeout=30)

    @app.get("/prices/{number}")
    async def price(number: int, fate: str) -> str:
        answer = await client.get(f"{behind}/stock/{number}", params={"fate": fate})
        return "unknown" if answer.status_code >= 500 else answer.text

    def serve(listens: Callable[[int], None]) -> None:
        server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None))
        socket = server.config.bind_socket()
        listens(socket.getsockname()[1])
        server.run([socket])

    return serve


def _back(_behind: str) -> Serve:
    import asyncio

    from aiohttp import web

    async def stock(request: web.Request) -> web.Response:
        fate = request.query["fate"]
        with tracekit.span("look up") as span:
            if fate == "error that is answered":
                span.set_status(StatusCode.ERROR)
            elif fate == "slow":
                await asyncio.sleep(SLOW_S)
            elif fate == "asked for":
                span.keep()
        if fate == "error":
            raise RuntimeError("out of stock")
        return web.Response(text="7")

    def serve(listens: Callable[[int], None]) -> None:
        asyncio.run(listen(listens))

    async def listen(listens: Callable[[int], None]) -> None:
        app = web.Application()
        app.router.add_get("/stock/{number}", stock)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        listens(runner.addresses[0][1])
        await asyncio.Event().wait()

    return serve


SERVICES = {"front": _front, "middle": _middle, "back": _back}
"""From the one that is asked to the one that nobody is behind."""


def main(name: str, behind: str, file: str) -> None:
    tracekit.configure(
        service_name=name,
        exporters=[OtlpFileExporter(file)],
        tail={
            "share": SHARES[name],
            "slow_percentile": None,
            "slow_s": SLOW_S if name == "back" else None,
        },
    )
    tracekit.instrument("flask", "requests", "fastapi", "httpx", "aiohttp_server")
    for noisy in ("werkzeug", "aiohttp"):  # a line for each request, a stack for each error
        logging.getLogger(noisy).setLevel(logging.CRITICAL)
    serve = SERVICES[name](behind)
    thread = threading.Thread(target=serve, args=(_say,), daemon=True)
    thread.start()
    sys.stdin.read()
    tracekit.shutdown()
    _say(tracekit.stats())
    os._exit(0)


def _say(what: Any) -> None:
    print(json.dumps(what, default=str), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
