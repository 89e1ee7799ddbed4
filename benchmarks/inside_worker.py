"""One process that logs, or hands work to its threads, when told to on its input.

``python -m benchmarks.inside_worker logging|thread|submit bare|opentelemetry|tracekit PORT``
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from benchmarks.http_worker import BEFORE, CONTRIB, OURS, SUBJECTS, main

__all__ = ["main"]

_Work = Callable[[int], None]


def _logging(_port: int) -> _Work:
    import logging

    logger = logging.getLogger("shop")
    logger.propagate = False
    logger.addHandler(logging.NullHandler())
    logger.setLevel(logging.INFO)

    def write(count: int) -> None:
        for number in range(count):
            logger.info("order %d", number)

    return _in_a_span(write)


def _correlate() -> None:
    """Have OpenTelemetry's instrumentation write ids into records, as ours does unasked."""
    os.environ["OTEL_PYTHON_LOG_CORRELATION"] = "true"


def _thread(_port: int) -> _Work:
    from threading import Thread

    def start(count: int) -> None:
        for _ in range(count):
            thread = Thread(target=_nothing)
            thread.start()
            thread.join()

    return _in_a_span(start)


def _submit(_port: int) -> _Work:
    from concurrent.futures import ThreadPoolExecutor

    pool = ThreadPoolExecutor(1)

    def submit(count: int) -> None:
        for _ in range(count):
            pool.submit(_nothing).result()

    return _in_a_span(submit)


def _in_a_span(work: _Work) -> _Work:
    from opentelemetry import trace

    tracer = trace.get_tracer("shop")

    def work_in_a_span(count: int) -> None:
        with tracer.start_as_current_span("work"):
            work(count)

    return work_in_a_span


def _nothing() -> None:
    """Have nothing to do in the other thread."""


SUBJECTS.update({"logging": _logging, "thread": _thread, "submit": _submit})
BEFORE["logging"] = _correlate
CONTRIB.update(
    {
        "logging": "LoggingInstrumentor",
        "thread": "threading.ThreadingInstrumentor",
        "submit": "threading.ThreadingInstrumentor",
    }
)
OURS.update({"thread": "threading", "submit": "concurrent_futures"})


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
