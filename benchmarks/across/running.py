"""Running the three services, sending requests, and reading what each of them kept."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from benchmarks.across.service import SERVICES, SHARES
from benchmarks.fresh import ROOT

__all__ = ["FATES", "ORDINARY", "Outcome", "fates_of", "run"]

ORDINARY = "ordinary"
FATES = ("error", "error that is answered", "slow", "asked for")
"""What becomes of requests that matter, one after the other."""

SPANS_EACH = 2
"""Of each service: one that serves and one for what it does, be it a call."""

_RANDOM_BITS = 56


@dataclass
class Outcome:
    """What is left of the requests of one fate.

    Attributes:
        kept: How many of them each service kept, or a part of.
        whole: Of how many all spans of all services are there.
        beyond: How often a service kept one that neither its share nor anything else speaks for.
    """

    requests: int = 0
    kept: Counter[str] = field(default_factory=Counter)
    whole: int = 0
    beyond: int = 0


def fates_of(requests: int, every: int) -> list[str]:
    """Return the fate of each request: of so many one matters."""
    return [
        FATES[number // every % len(FATES)] if number % every == 0 else ORDINARY
        for number in range(requests)
    ]


def run(fates: Sequence[str], mode: str = "auto", at_once: int = 8) -> dict[str, Outcome]:
    """Send a request for each fate to the front, and return what was kept, by fate.

    Args:
        mode: What ``TRACEKIT_TRACERESPONSE`` says.
    """
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        services: list[_Service] = []
        behind = ""
        for name in reversed(SERVICES):
            service = _Service(name, behind, Path(folder, f"{name}.jsonl"), mode)
            stack.callback(service.kill)
            services.append(service)
            behind = f"http://127.0.0.1:{service.port}"
        with ThreadPoolExecutor(at_once) as pool:
            port = services[-1].port
            list(pool.map(lambda item: _ask(port, *item), enumerate(fates)))
        # From the front on: whoever waits for an answer has it before the next one ends.
        for service in reversed(services):
            service.end()
        kept = {service.name: _kept_in(service.file) for service in services}
    return _outcomes(fates, kept)


class _Service:
    def __init__(self, name: str, behind: str, file: Path, mode: str) -> None:
        self.name, self.file = name, file
        others = {key: value for key, value in os.environ.items() if "OTEL_" not in key}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.across.service", name, behind, str(file)],
            cwd=ROOT,
            env=others | {"TRACEKIT_TRACERESPONSE": mode},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.port: int = self._read()

    def _read(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the service {self.name} ended; its error is above")
        return json.loads(line)

    def end(self) -> Mapping[str, Any]:
        """Have it export what it holds, and return its ledger."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        ledger: Mapping[str, Any] = self._read()
        self._process.wait(30)
        return ledger

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()


def _ask(port: int, number: int, fate: str) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("GET", f"/orders/{number}?fate={quote(fate)}")
        response = connection.getresponse()
        response.read()
        assert response.status == 200, f"request {number} ({fate}): {response.status}"
    finally:
        connection.close()


def _kept_in(file: Path) -> dict[str, tuple[int, int]]:
    """Return the request and the count of spans of each trace that a service exported."""
    counts: Counter[str] = Counter()
    numbers: dict[str, int] = {}
    for span in _spans_in(file):
        counts[span["traceId"]] += 1
        for attribute in span.get("attributes", ()):
            if attribute["key"] == "url.path":
                numbers[span["traceId"]] = int(attribute["value"]["stringValue"].split("/")[-1])
    return {trace_id: (numbers.get(trace_id, -1), count) for trace_id, count in counts.items()}


def _spans_in(file: Path) -> Iterator[Any]:
    if file.exists():
        for line in file.read_text("utf-8").splitlines():
            for resource in json.loads(line)["resourceSpans"]:
                for scope in resource["scopeSpans"]:
                    yield from scope["spans"]


def _outcomes(
    fates: Sequence[str], kept: Mapping[str, Mapping[str, tuple[int, int]]]
) -> dict[str, Outcome]:
    outcomes: defaultdict[str, Outcome] = defaultdict(Outcome)
    for fate in fates:
        outcomes[fate].requests += 1
    complete: Counter[int] = Counter()
    for service, traces in kept.items():
        for trace_id, (number, count) in traces.items():
            outcome = outcomes[fates[number]]
            outcome.kept[service] += 1
            complete[number] += count == SPANS_EACH
            outcome.beyond += fates[number] == ORDINARY and not _is_in_share(trace_id, service)
    for number, services in complete.items():
        outcomes[fates[number]].whole += services == len(SERVICES)
    return dict(outcomes)


def _is_in_share(trace_id: str, service: str) -> bool:
    randomness: int = int(trace_id, 16) % (1 << _RANDOM_BITS)
    return randomness >= (1 - SHARES[service]) * (1 << _RANDOM_BITS)
