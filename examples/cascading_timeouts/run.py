"""Three services and an API that fails slowly: everybody times out, and one of them is to blame.

    python examples/cascading_timeouts/run.py

Everything runs on this machine, in processes that are stopped at the end.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import requests

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from _services import command_name, new_store, run, services, tracekit, wait_for_trace  # noqa: E402

SERVICES = ("front", "middle", "back")
API = "rates"
BACK_TAKES_S = 3 * 2.0
"""Three attempts of two seconds: the back goes on when everybody else has given up."""


def main() -> None:
    store = new_store("timeouts")
    with services(HERE, (*SERVICES, API), store) as urls:
        print(f"Running: {', '.join(SERVICES)} and the API {API}.\n")
        with requests.Session() as session:
            session.trust_env = False
            answer = session.get(f"{urls['front']}/quote", timeout=20)
        print(f"  the customer got {answer.status_code} {answer.text!r}\n")
        time.sleep(BACK_TAKES_S)
        trace = wait_for_trace(store, SERVICES)
    trace_id = f"{trace[0].context.trace_id:032x}"
    tracekit("findings", trace_id, store=store)
    print(f"\nLook at it:  {command_name()} show --store {store}")


if __name__ == "__main__":
    run(main)
