"""Orders: reserves the stock, then has the order paid (FastAPI, httpx)."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI

import tracekit

tracekit.configure(service_name="orders")
tracekit.instrument()

app = FastAPI()


@app.post("/orders")
async def create(cart: dict[str, Any]) -> dict[str, Any]:
    await reserve_stock(cart["items"])
    async with httpx.AsyncClient(timeout=10) as client:
        answer = await client.post(f"{os.environ['PAYMENT_URL']}/payments", json=cart)
    return {"id": f"order-{cart['user']}", "payment": answer.json()["status"]}


@tracekit.traced
async def reserve_stock(items: int) -> None:
    tracekit.current_span().set_attribute("items", items)
    await asyncio.sleep(0.05)


if __name__ == "__main__":
    uvicorn.run(app, port=int(sys.argv[1]), log_level="warning")
