"""Five services, one slow checkout: start them, buy something, see what is wrong.

    make demo          or          python examples/slow_checkout/run.py

Everything runs on this machine, in processes that are stopped at the end. The spans go to a
SQLite file in a temporary folder; with ``--to jaeger,zipkin`` also there, where ``make backends``
starts such servers.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import requests

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from _services import command_name, new_store, run, services, tracekit, wait_for_trace  # noqa: E402

SERVICES = ("gateway", "auth", "orders", "payment", "fraud")

CARTS = (
    {"user": "ada", "items": 1, "amount": 20},
    {"user": "ben", "items": 2, "amount": 45},
    {"user": "cleo", "items": 3, "amount": 950},
)


def main() -> None:
    parser = argparse.ArgumentParser(description="Find out what made a checkout slow.")
    parser.add_argument("--to", metavar="NAMES", help="send the spans there too: jaeger,zipkin")
    to = parser.parse_args().to
    store = new_store("demo")
    with services(HERE, SERVICES, store, to=to) as urls:
        print(f"Running: {', '.join(SERVICES)}.\n")
        for cart in CARTS:
            buy(urls["gateway"], cart)
        # Asked while they run: a span is in the store about a second after it ended.
        trace = wait_for_trace(store, SERVICES)
    trace_id = f"{trace[0].context.trace_id:032x}"
    print()
    tracekit("show", trace_id, store=store)
    print(f"\nWhat to do:  {command_name()} findings --store {store}")
    print(f"Look again:  {command_name()} show --store {store}")
    print(f"All traces:  {command_name()} ls --store {store}")
    print("Two more stories:  examples/redundant_queries/  examples/cascading_timeouts/")


def buy(gateway: str, cart: Mapping[str, object]) -> None:
    began = time.monotonic()
    with requests.Session() as session:
        session.trust_env = False
        answer = session.post(f"{gateway}/checkout", json=cart, timeout=20)
    answer.raise_for_status()
    took = time.monotonic() - began
    print(
        f"  {cart['user']:<5} pays {cart['amount']:>4}   {took:5.2f} s   {answer.json()['payment']}"
    )


if __name__ == "__main__":
    run(main)
