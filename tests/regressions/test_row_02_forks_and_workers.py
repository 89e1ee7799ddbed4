"""Row 2: workers that fork lose no span, send none twice and do not hang.

opentelemetry-python#1567, #3307, #4215, #2765, contrib#385, #2086. Each server is tried in
tests/integration/test_run_servers.py, each way to start a process in tests/core/test_fork.py.
"""

from __future__ import annotations

import re

import pytest

from programs import EXPORTERS, run

PRE_FORK = (
    EXPORTERS
    + """
import signal
class Quick(ToStderr):
    def export(self, spans):
        os.write(2, "".join(f"{os.getpid()} {span.name}\\n" for span in spans).encode())
        return SpanExportResult.SUCCESS

tracekit.configure(exporters=[Quick()], schedule_delay_millis=60_000)
with tracekit.span("while loading"):
    pass
FLUSH

def serve(number):
    for request in range(20):
        with tracekit.span(f"worker{number}.request{request}"):
            pass

workers = []
for number in range(3):
    child = os.fork()
    if child == 0:
        serve(number)
        tracekit.shutdown()
        os._exit(0)
    workers.append(child)
for child in workers:
    assert os.waitpid(child, 0)[1] == 0
tracekit.shutdown()
"""
)


@pytest.mark.parametrize("flush", ["", "assert tracekit.flush(10)"])
def test_a_program_that_loads_and_then_forks_its_workers(flush):
    """Also when the worker thread of the loading process is already at work."""
    done = run(PRE_FORK.replace("FLUSH", flush))
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    names = [line.split(" ", 1)[1] for line in lines]
    assert len(names) == len(set(names)) == 61
    for number in range(3):
        pids = {line.split()[0] for line in lines if f"worker{number}." in line}
        assert len(pids) == 1


def test_workers_share_no_trace_id():
    done = run(
        """
import os, tracekit
tracekit.configure(exporters="none")
with tracekit.span("seeded"):
    pass
for _ in range(4):
    if os.fork() == 0:
        with tracekit.span("request") as span:
            os.write(1, f"{span.get_span_context().trace_id:032x}\\n".encode())
        os._exit(0)
for _ in range(4):
    os.wait()
"""
    )
    ids = re.findall(r"[0-9a-f]{32}", done.stdout)
    assert len(ids) == len(set(ids)) == 4
