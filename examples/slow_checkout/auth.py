"""Auth: knows the users (Starlette)."""

from __future__ import annotations

import asyncio
import sys

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

import tracekit

tracekit.configure(service_name="auth")
tracekit.instrument()


@tracekit.traced
async def check_session(name: str) -> str:
    await asyncio.sleep(0.03)
    return f"{name}@example.com"


async def user(request: Request) -> JSONResponse:
    name = request.path_params["name"]
    return JSONResponse({"name": name, "email": await check_session(name)})


app = Starlette(routes=[Route("/users/{name}", user)])

if __name__ == "__main__":
    uvicorn.run(app, port=int(sys.argv[1]), log_level="warning")
