"""Two layers of Collectors, configured by tracekit: one place decides about a trace, whole."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from backends.running import free_ports, running, until
from backends.where import NotThereError, program
from exporters.made import made
from tracekit.exporters.otlp import OTLPSpanExporter

pytestmark = [pytest.mark.slow, pytest.mark.matrix_skip]

PATIENCE_S = 20
TRACES = [0x1234567 << 96 | number * 0x9E3779B97F4A7C15 for number in range(1, 41)]


def configuration(*words: str) -> Any:
    command = [sys.executable, "-m", "tracekit", "collector-config", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return yaml.safe_load(done.stdout)


@contextmanager
def collector(settings: Any, folder: Path, http: int, **protocols: int) -> Iterator[None]:
    """Run a Collector with its settings, but for where it listens."""
    settings["receivers"]["otlp"]["protocols"] = {
        name: {"endpoint": f"127.0.0.1:{port}"}
        for name, port in {"http": http, **protocols}.items()
    }
    settings["service"]["telemetry"] = {"metrics": {"level": "none"}}
    folder.mkdir()
    path = folder / "collector.yaml"
    path.write_text(yaml.safe_dump(settings))
    words = [program("balancer", "otelcol"), "--config", path]
    with running(words, f"http://127.0.0.1:{http}", folder / "collector.log"):
        yield


def kept_in(path: Path) -> dict[str, int]:
    """Return how many spans of each trace a Collector has kept."""
    found: dict[str, int] = defaultdict(int)
    for line in path.read_text().split("\n")[:-1]:
        for of_resource in json.loads(line)["resourceSpans"]:
            for span in of_resource["scopeSpans"][0]["spans"]:
                found[span["traceId"]] += 1
    return dict(found)


def test_failed_traces_are_kept_whole_by_the_one_collector_that_has_them(tmp_path: Path) -> None:
    try:
        program("balancer", "otelcol")
    except NotThereError as why:
        pytest.skip(str(why))
    entry, *ports = free_ports(5)
    samplers = list(zip(ports[::2], ports[1::2], strict=True))
    kept = [tmp_path / f"kept{number}.jsonl" for number in range(len(samplers))]
    with ExitStack() as stack:
        for (http, grpc), path in zip(samplers, kept, strict=True):
            path.touch()
            settings = configuration("--layer", "sampling", "--keep", "0", "--decision-wait", "1s")
            settings["exporters"] = {"file": {"path": str(path), "flush_interval": "50ms"}}
            settings["service"]["pipelines"]["traces"]["exporters"] = ["file"]
            stack.enter_context(collector(settings, path.with_suffix(""), http, grpc=grpc))
        names = [word for _, grpc in samplers for word in ("--sampler", f"127.0.0.1:{grpc}")]
        balancing = configuration("--layer", "balancing", *names)
        stack.enter_context(collector(balancing, tmp_path / "balancing", entry))

        exporter = OTLPSpanExporter(f"http://127.0.0.1:{entry}")
        # Each request has one span of every trace, as four services would send them.
        for part in range(4):
            exporter.export(
                [
                    made(4 * number + part + 1, trace_id=trace_id, error=_error(number, part))
                    for number, trace_id in enumerate(TRACES)
                ]
            )
        exporter.shutdown()
        failed = len(TRACES) // 2
        until(lambda: sum(map(len, map(kept_in, kept))) >= failed, PATIENCE_S)
        found = [kept_in(path) for path in kept]

    assert {count for each in found for count in each.values()} == {4}
    assert [len(each) for each in found if not each] == [], "both have traces of their own"
    assert sorted(int(trace_id, 16) for each in found for trace_id in each) == TRACES[::2]


def _error(number: int, part: int) -> str | None:
    return "broke" if number % 2 == 0 and part == 2 else None
