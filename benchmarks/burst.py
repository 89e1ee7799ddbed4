"""One burst of spans in a process of its own: ``python -m benchmarks.burst SIDE THREADS SPANS``."""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Any

from benchmarks.fresh import memory_mib
from benchmarks.sides import both_sides
from benchmarks.threads import in_threads


def main(name: str, threads: int, spans: int) -> dict[str, Any]:
    """Make the spans as fast as they can be made, with default settings."""
    # It says so for the spans that it drops, which would be measured.
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
    with both_sides() as (theirs, ours):
        side = theirs if name == "opentelemetry" else ours
        in_threads(side.tracer, threads, threads)
        side.provider.force_flush()
        before, received = memory_mib(), side.exporter.received
        began = time.process_time()
        in_threads(side.tracer, spans, threads)
        side.provider.force_flush()
        took = time.process_time() - began
        made = spans // threads * threads
        return {
            "lost": made - (side.exporter.received - received),
            "cpu_us": took / made * 1e6,
            "peak_mib": memory_mib("VmHWM") - before,
        }


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))))
