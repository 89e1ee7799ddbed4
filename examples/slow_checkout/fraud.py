"""The fraud check of another company: right, but too late (Starlette)."""

from __future__ import annotations

import asyncio
import sys

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

import tracekit

tracekit.configure(service_name="fraud-check")
tracekit.instrument()


@tracekit.traced
async def ask_the_model() -> bool:
    await asyncio.sleep(3.2)
    return True


async def score(_: Request) -> JSONResponse:
    return JSONResponse({"ok": await ask_the_model()})


app = Starlette(routes=[Route("/score", score, methods=["POST"])])

if __name__ == "__main__":
    uvicorn.run(app, port=int(sys.argv[1]), log_level="warning")
