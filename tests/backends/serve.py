"""``make backends``: run the servers on this machine until Ctrl-C, and say where they are."""

from __future__ import annotations

import signal
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from backends.started import FETCHED, started
from backends.where import NotThereError


def main(names: list[str]) -> int:
    chosen = [name for name in FETCHED if name in names or not names]
    if not chosen:  # what else is fetched is started by tests alone
        return 0
    with (
        tempfile.TemporaryDirectory(prefix="tracekit-backends-") as folder,
        started(chosen, Path(folder)) as servers,
    ):
        running = {name: each for name, each in servers.items() if is_running(name, each)}
        # A shell without job control has what it starts in the background ignore Ctrl-C.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.default_int_handler)
        try:
            print(how_to_send(running), flush=True)
            while running:
                signal.pause()
        except KeyboardInterrupt:
            print("stopped")
    return int(not running)


def is_running(name: str, server: Any) -> bool:
    if isinstance(server, NotThereError):
        print(server, file=sys.stderr)
        return False
    return True


def how_to_send(servers: Mapping[str, Any]) -> str:
    lines = [f"{name:<10} {server.url}" for name, server in servers.items()]
    variables = [
        f"export {key}={value}"
        for server in servers.values()
        for key, value in server.variables.items()
    ]
    to = ",".join(server.exporter for server in servers.values())
    send = f"python examples/slow_checkout/run.py --to {to}"
    return "\n".join([*lines, "", "In another shell:", "", *variables, send, "", "Ctrl-C stops."])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
