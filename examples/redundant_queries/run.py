"""Four services, one page: three of them read the same row for the same request.

    python examples/redundant_queries/run.py

Everything runs on this machine, in processes that are stopped at the end.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import requests

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE)]

from _services import command_name, new_store, run, services, tracekit, wait_for_trace  # noqa: E402
from users import make_table  # noqa: E402

SERVICES = ("page", "auth", "cart", "profile")


def main() -> None:
    store = new_store("queries")
    os.environ["USERS_DB"] = str(store.parent / "users.db")
    email = make_table(Path(os.environ["USERS_DB"]))
    with services(HERE, SERVICES, store) as urls:
        print(f"Running: {', '.join(SERVICES)}.\n")
        with requests.Session() as session:
            session.trust_env = False
            session.get(f"{urls['page']}/account/{email}", timeout=20).raise_for_status()
        trace = wait_for_trace(store, SERVICES)
    trace_id = f"{trace[0].context.trace_id:032x}"
    tracekit("findings", trace_id, store=store)
    print(f"\nLook at it:  {command_name()} show --store {store}")


if __name__ == "__main__":
    run(main)
