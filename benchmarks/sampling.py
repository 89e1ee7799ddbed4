"""What a tail sampler keeps of a realistic mix, and how well the rest can be counted from it.

``python -m benchmarks.sampling`` sends requests to a Flask service over HTTP: 1 % fail, 1 % are
slow, and 200 operations are as popular as Zipf has it. What really happened is noted by a span
processor in front of the tail sampler. From what is kept, each span by its weight, requests are
counted and latencies estimated; beside it stands an ideal sampler: it knows exactly what happened
and keeps as many traces, each with the same probability.
"""

from __future__ import annotations

import argparse
import http.client
import math
import random
import statistics
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, NamedTuple

import flask
import werkzeug.serving

import tracekit
from tracekit.exporters._sample_rate import sample_rate
from tracekit.sdk import SpanExporter, SpanExportResult, SpanProcessor
from tracekit.testing import reset

__all__ = ["Mix", "Outcome", "compared", "main", "measured"]

OPERATIONS = 200
BUSIEST = 30
"""Operations whose requests are counted: of the others a run has too few to be off by a share."""
SLOW_S = 0.05
CLIENTS = 8
IDEAL_DRAWS = 40
PERCENTILES = (50, 90, 95)
"""Not the 99th: with 1 % that are slow it lies between two heaps, and jumps to and fro."""


class Happened(NamedTuple):
    """A request as it was, or as it is known from what was kept of it."""

    operation: str
    taken_ns: int
    has_failed: bool
    spans: int
    weight: float = 1.0

    @property
    def matters(self) -> bool:
        return self.has_failed or self.taken_ns >= SLOW_S * 1e9


class _Traces:
    """Joins the spans of each trace."""

    def __init__(self) -> None:
        self._spans: dict[int, list[Any]] = defaultdict(list)

    def add(self, span: Any) -> None:
        self._spans[span.trace_id].append(span)

    def __len__(self) -> int:
        return len(self._spans)

    def take(self) -> dict[int, Happened]:
        spans, self._spans = self._spans, defaultdict(list)
        return {key: _joined(found) for key, found in spans.items()}


def _joined(spans: Sequence[Any]) -> Happened:
    root = next((span for span in spans if span.kind.name == "SERVER"), spans[-1])
    has_failed = any(span.status_code == 2 for span in spans)
    weight = sample_rate(root.trace_state_header) if root.trace_state_header else 1
    taken_ns = root.end_time - root.start_time
    return Happened(root.name, taken_ns, has_failed, len(spans), weight or 1)


class Truth(SpanProcessor):
    """Notes every span, in front of the tail sampler."""

    def __init__(self) -> None:
        self.traces = _Traces()
        self._lock = threading.Lock()

    def on_end(self, span: Any) -> None:
        with self._lock:
            self.traces.add(span)


class Kept(SpanExporter):
    """Notes every span that is exported."""

    def __init__(self) -> None:
        self.traces = _Traces()

    def export(self, spans: Sequence[Any]) -> SpanExportResult:
        for span in spans:
            self.traces.add(span)
        return SpanExportResult.SUCCESS


class Mix:
    """Requests as a service gets them, the same for the same seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._weights = [1 / rank for rank in range(1, OPERATIONS + 1)]

    def paths(self, count: int) -> list[str]:
        operations = self._random.choices(range(OPERATIONS), self._weights, k=count)
        return [self._path(operation) for operation in operations]

    def _path(self, operation: int) -> str:
        draw = self._random
        usual_ms = 0.2 + operation % 7 * 0.2
        taken_ms = usual_ms * draw.lognormvariate(0, 0.5)
        fate = draw.random()
        if fate < 0.01:
            return f"/operation{operation}?ms={taken_ms:.3f}&fail=1"
        return f"/operation{operation}?ms={taken_ms + SLOW_S * 1200 * (fate < 0.02):.3f}"


def _answer() -> tuple[str, int]:
    arguments = flask.request.args
    with tracekit.span("authorise"):
        pass
    with tracekit.span("work"):
        time.sleep(float(arguments["ms"]) / 1000)
        try:
            with tracekit.span("query"):
                if "fail" in arguments:
                    raise LookupError("no such row")
        except LookupError:
            return "failed", 500
    return "ok", 200


class _Quiet(werkzeug.serving.WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log(self, *_said: Any) -> None:
        """Say nothing."""


@contextmanager
def service(share: float) -> Iterator[tuple[Callable[[Sequence[str]], None], Truth, Kept]]:
    """Run the service with a tail sampler; yield what sends requests, and what was noted."""
    truth, kept = Truth(), Kept()
    tail = {"share": share, "slow_s": SLOW_S, "slow_percentile": None}
    tracekit.configure("shop", exporters=[kept], processors=[truth], tail=tail)
    app = flask.Flask("shop")
    for number in range(OPERATIONS):
        app.add_url_rule(f"/operation{number}", f"operation{number}", _answer)
    tracekit.instrument("flask")
    server = werkzeug.serving.make_server(
        "127.0.0.1", 0, app, threaded=True, request_handler=_Quiet
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        with ThreadPoolExecutor(CLIENTS) as pool:
            yield lambda paths: _send(pool, server.server_port, paths), truth, kept
    finally:
        server.shutdown()
        server.server_close()
        reset()


def _send(pool: ThreadPoolExecutor, port: int, paths: Sequence[str]) -> None:
    list(pool.map(lambda part: _ask(port, part), [paths[n::CLIENTS] for n in range(CLIENTS)]))


def _ask(port: int, paths: Sequence[str]) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port)
    for path in paths:
        connection.request("GET", path)
        connection.getresponse().read()
    connection.close()


# Estimating --------------------------------------------------------------------------------------


def measured(requests: Sequence[Happened]) -> dict[str, float]:
    """Return what somebody reads of requests that stand for others: counts and percentiles."""
    found: Counter[str] = Counter()
    for each in requests:
        found[each.operation] += each.weight  # type: ignore[assignment]
    figures = {f"requests of {name}": float(count) for name, count in found.items()}
    figures["requests"] = float(sum(found.values()))
    for percent in PERCENTILES:
        figures[f"p{percent}"] = _percentile(requests, percent)
    return figures


def _percentile(requests: Sequence[Happened], percent: float) -> float:
    ordered = sorted(requests, key=lambda each: each.taken_ns)
    left = sum(each.weight for each in ordered) * percent / 100
    for each in ordered:
        left -= each.weight
        if left <= 0:
            return each.taken_ns / 1e6
    return ordered[-1].taken_ns / 1e6


def ideal(requests: Sequence[Happened], share: float, draw: random.Random) -> list[Happened]:
    kept = [each for each in requests if draw.random() < share]
    return [each._replace(weight=1 / share) for each in kept] or list(requests[:1])


class Outcome(NamedTuple):
    """One run: what was, and by how much each figure was off, as a share of what it is."""

    requests: int
    kept: int
    target: float
    lost: int
    off: dict[str, float]
    ideal_off: dict[str, list[float]]


def compared(
    truth: dict[int, Happened], kept: dict[int, Happened], share: float, draw: random.Random
) -> Outcome:
    """Compare a run with what really happened, and with an ideal sampler of the same size."""
    # The tail sampler writes its weight on the very spans that were noted.
    really = [each._replace(weight=1.0) for each in truth.values()]
    figures = measured(really)
    matter = {key: each for key, each in truth.items() if each.matters}
    target = len(matter) + share * (len(truth) - len(matter))
    whole = [key for key in matter if key in kept and kept[key].spans == matter[key].spans]
    ideals = [measured(ideal(really, target / len(really), draw)) for _ in range(IDEAL_DRAWS)]
    busiest = sorted((name for name in figures if " of " in name), key=lambda name: -figures[name])
    told = ["requests", *(f"p{percent}" for percent in PERCENTILES), *busiest[:BUSIEST]]
    ours = measured(list(kept.values()))
    return Outcome(
        len(truth),
        len(kept),
        target,
        len(matter) - len(whole),
        {name: _off(ours.get(name, 0.0), figures[name]) for name in told},
        {name: [_off(one.get(name, 0.0), figures[name]) for one in ideals] for name in told},
    )


def _off(estimate: float, truth: float) -> float:
    return estimate / truth - 1


class Line(NamedTuple):
    """A figure over all runs: how far off it is, on average and as a rule, in percent."""

    name: str
    bias: float
    bias_error: float
    ideal_bias: float
    error: float
    ideal_error: float

    @property
    def ratio(self) -> float:
        return self.error / self.ideal_error


def lines(outcomes: Sequence[Outcome]) -> Iterator[Line]:
    yield _line("requests", outcomes, lambda name: name == "requests")
    yield _line(f"requests of the {BUSIEST} busiest", outcomes, lambda name: " of " in name)
    for percent in PERCENTILES:
        yield _line(f"p{percent}", outcomes, lambda name, known=f"p{percent}": name == known)  # type: ignore[misc]


def _line(name: str, outcomes: Sequence[Outcome], is_meant: Callable[[str], bool]) -> Line:
    off = [value for each in outcomes for key, value in each.off.items() if is_meant(key)]
    ideal_off = [
        value
        for each in outcomes
        for key, values in each.ideal_off.items()
        if is_meant(key)
        for value in values
    ]
    spread = statistics.stdev(off) if len(off) > 1 else math.inf
    return Line(
        name,
        100 * statistics.fmean(off),
        100 * spread / math.sqrt(len(off)),
        100 * statistics.fmean(ideal_off),
        100 * _root_mean_square(off),
        100 * _root_mean_square(ideal_off),
    )


def _root_mean_square(values: Sequence[float]) -> float:
    return math.sqrt(statistics.fmean(value * value for value in values))


# Running -----------------------------------------------------------------------------------------


def outcomes(runs: int, requests: int, share: float, seed: int = 1) -> Iterator[Outcome]:
    """Send the mix so many times, and yield what came of each."""
    draw = random.Random(seed)
    with service(share) as (send, truth, kept):
        for run in range(runs):
            send(Mix(seed + run).paths(requests))
            while len(truth.traces) < requests:
                time.sleep(0.01)  # a client has its answer before the server is done
            assert tracekit.flush()
            yield compared(truth.traces.take(), kept.traces.take(), share, draw)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sampling", description=__doc__)
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--requests", type=int, default=1000, help="in a run")
    parser.add_argument("--share", type=float, default=0.1, help="of ordinary traces")
    options = parser.parse_args(arguments)
    found = list(outcomes(options.runs, options.requests, options.share))
    print("\n".join(_page(found)))
    return int(any(each.lost for each in found))


def _page(found: Sequence[Outcome]) -> Iterator[str]:
    requests, kept = sum(each.requests for each in found), sum(each.kept for each in found)
    target, lost = sum(each.target for each in found), sum(each.lost for each in found)
    yield f"{len(found)} runs, {requests:,} requests over HTTP, {kept:,} traces kept"
    yield f"of a target of {target:,.0f} ({100 * (kept / target - 1):+.1f} %)"
    yield f"failed or slow, and not kept whole: {lost}"
    yield ""
    yield f"{'':30} {'bias %':>14} {'ideal':>6} {'error %':>8} {'ideal':>6} {'ratio':>6}"
    for line in lines(found):
        bias = f"{line.bias:+.2f} ± {line.bias_error:.2f}"
        yield (
            f"{line.name:30} {bias:>14} {line.ideal_bias:+6.2f} {line.error:8.2f}"
            f" {line.ideal_error:6.2f} {line.ratio:6.2f}"
        )


if __name__ == "__main__":
    raise SystemExit(main())
