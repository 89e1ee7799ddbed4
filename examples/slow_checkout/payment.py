"""Payment: charges the card, after asking an outside fraud check about large sums (FastAPI, httpx).

Here is the mistake of the example: a timeout of 2.85 s on a question that the customer waits for.
"""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI

import tracekit

tracekit.configure(service_name="payment")
tracekit.instrument()

app = FastAPI()

LARGE = 100
FRAUD_TIMEOUT_S = 2.85


@app.post("/payments")
async def pay(cart: dict[str, Any]) -> dict[str, Any]:
    checked = cart["amount"] < LARGE or await passes_fraud_check(cart)
    await charge_card(cart["amount"])
    return {"status": "paid" if checked else "paid, fraud check skipped"}


@tracekit.traced
async def passes_fraud_check(cart: dict[str, Any]) -> bool:
    async with httpx.AsyncClient(timeout=FRAUD_TIMEOUT_S) as client:
        try:
            answer = await client.post(f"{os.environ['FRAUD_URL']}/score", json=cart)
        except httpx.TimeoutException:
            return False
    return bool(answer.json()["ok"])


@tracekit.traced
async def charge_card(amount: float) -> None:
    tracekit.current_span().set_attribute("amount", amount)
    await asyncio.sleep(0.04)


if __name__ == "__main__":
    uvicorn.run(app, port=int(sys.argv[1]), log_level="warning")
