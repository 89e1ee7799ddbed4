"""Row 10: setting up is one line, and it is visible on this machine.

sentry-python#2251, phoenix#3629.
"""

from __future__ import annotations

from programs import run


def test_one_line_and_the_span_is_in_the_store():
    done = run(
        """
import tracekit
tracekit.configure()
with tracekit.span("hello"):
    pass
tracekit.shutdown()
from tracekit.store.reader import StoreReader
with StoreReader() as reader:
    print([span.name for span in reader.trace("last")])
"""
    )
    assert done.stdout == "['hello']\n", done.stderr


def test_one_line_serves_everything_written_against_the_api():
    done = run(
        """
import tracekit
tracekit.configure(exporters="console")
from opentelemetry import trace
with trace.get_tracer("library").start_as_current_span("from a library"):
    pass
"""
    )
    assert "from a library" in done.stdout + done.stderr


def test_no_line_at_all_costs_nothing_and_says_nothing():
    done = run(
        """
import tracekit
@tracekit.traced
def f():
    return tracekit.inject({}), tracekit.stats(), tracekit.flush()
with tracekit.span("a"), tracekit.attributes(b=1):
    print(f())
import threading
print(threading.active_count())
"""
    )
    assert (done.stdout, done.stderr) == ("({}, {}, True)\n1\n", "")
