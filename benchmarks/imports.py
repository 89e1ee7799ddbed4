"""Time to import, in fresh processes."""

from __future__ import annotations

from benchmarks.fresh import run_code
from benchmarks.harness import Effort, Figures, row

_TIMED = """
import json, time
began = time.process_time()
import opentelemetry.trace
api = time.process_time()
import {module}
ended = time.process_time()
print(json.dumps([(api - began) * 1e3, (ended - api) * 1e3]))
"""


@row("imports.time", "import, over opentelemetry-api", must=20, aim=10, unit="ms", limit="figure")
def over_the_api(effort: Effort) -> Figures:
    """Take the least of many: a process start is disturbed in one direction only."""
    modules = ("opentelemetry.sdk.trace.export", "tracekit")
    codes = [_TIMED.format(module=module) for module in modules]
    rounds = [[run_code(code) for code in codes] for _ in range(effort.rounds)]
    theirs, ours = (min(pair[side][1] for pair in rounds) for side in (0, 1))
    api = min(found[0] for pair in rounds for found in pair)
    return Figures(theirs, ours, ours / theirs, note=f"opentelemetry-api alone {api:.0f} ms")
