"""What tracing adds inside the process: to a log record, to work that is handed to a thread."""

from __future__ import annotations

from benchmarks.harness import Effort, Figures, row
from benchmarks.http import added

__all__: list[str] = []

TIMES = 6000
"""As many as take the time of a round of requests. All are done in one span; the way of that
through the pipeline, which other rows measure, would be much of what is added to a few."""

_WORKER = "benchmarks.inside_worker"


@row("log.logging", "added to one of 6,000 records in a span: logging", must=0.25, aim=0.12)
def logging_record(effort: Effort) -> Figures:
    return added("logging", effort, module=_WORKER, requests=TIMES)


@row("inside.thread", "added to Thread.start() below a span, and join()")
def started_thread(effort: Effort) -> Figures:
    return added("thread", effort, module=_WORKER, requests=TIMES)


@row("inside.submit", "added to submit() to a pool of threads, and result()")
def submitted_call(effort: Effort) -> Figures:
    return added("submit", effort, module=_WORKER, requests=TIMES)
