"""A tail sampler holds no more than it may, whatever a program does with its traces."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

BEGIN = """
import resource
from opentelemetry import trace
from tracekit.sdk import BatchSpanProcessor, SpanExporter, SpanExportResult
from tracekit.sdk import TailSampler, TailSettings, TracerProvider

class Discard(SpanExporter):
    def export(self, spans):
        return SpanExportResult.SUCCESS

def begin(**settings):
    global provider, stage, start, before_kib
    settings = {"share": 0.0, "slow_percentile": None, **settings}
    provider = TracerProvider(shutdown_on_exit=False)
    batch = BatchSpanProcessor(Discard(), schedule_delay_millis=200)
    stage = TailSampler(batch, TailSettings(**settings))
    provider.add_span_processor(stage)
    start = provider.get_tracer("t").start_as_current_span
    with start("warm"):
        pass
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

def tail():
    return provider.stats()["processors"][0]["tail"]

def end():
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib
    assert provider.force_flush()
    stats = provider.stats()
    (processor,) = stats["processors"]
    told = tail()
    out = sum(told["sampled_out"].values()) + sum(told["kept"].values())
    assert stats["ended"] == processor["received"] == out, stats
    assert sum(told["kept"].values()) == processor["exporters"][0]["exported"], stats
    print(grown // 1024, out, told["decided_early"])
"""


def run(program: str) -> tuple[int, int, str]:
    """Return by how many MiB the process grew, how many spans ended, and what was decided early."""
    done = subprocess.run(
        [sys.executable, "-c", BEGIN + textwrap.dedent(program)],
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )
    assert done.returncode == 0, done.stderr
    grown, spans, early = done.stdout.strip().split(" ", 2)
    return int(grown), int(spans), early


def test_ten_thousand_open_traces_are_held_within_the_bound():
    grown, spans, early = run("""
        begin(max_spans=50_000, max_bytes=32 * 1024 * 1024)
        roots = [provider.get_tracer("t").start_span("root") for _ in range(10_000)]
        for _ in range(20):
            for root in roots:
                with trace.use_span(root), start("step"):
                    pass
            assert tail()["held"] <= 80_000, tail()
        for root in roots:
            root.end()
        end()
    """)
    assert spans == 210_001
    assert "'spans'" in early or "'bytes'" in early
    assert grown < 100  # all of them are 150 MiB


def test_traces_that_never_end_are_given_up_in_time():
    grown, spans, early = run("""
        begin(max_age_s=0.2)
        import time
        deadline = time.monotonic() + 1.5
        while time.monotonic() < deadline:
            root = provider.get_tracer("t").start_span("never ends")
            with trace.use_span(root):
                for _ in range(3):
                    with start("step"):
                        pass
        time.sleep(1.0)
        assert tail()["held"] == 0, tail()
        end()
    """)
    assert spans > 1000
    assert "'age'" in early
    assert grown < 100


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_trace_of_a_million_spans_streams(share):
    grown, spans, early = run(f"""
        begin(share={share})
        with start("root"):
            for number in range(1_000_000):
                with start("step"):
                    pass
        end()
    """)
    assert spans == 1_000_002
    assert "'size': 1" in early
    assert grown < (64 if not share else 600)
