"""What tracing does in one call, counted in steps of the interpreter.

``python -m benchmarks.steps http.requests`` prints how many Python frames tracing enters on the
calling thread, how many bytecodes it executes there, and how many of those stayed generic;
``--details`` prints each frame, and the line of each generic instruction.

A time of microseconds depends on who else uses the machine; the steps do not. Once code is warm,
CPython replaces an instruction by a form for what it meets there (PEP 659). Where it meets too much
it leaves the generic form, which costs several times as much: a class attribute that instances
override, a method that is called on an imported name, ``|`` of integers.
"""

from __future__ import annotations

import argparse
import dis
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from threading import get_ident
from types import CodeType
from typing import Any, NamedTuple

__all__ = ["Frame", "count", "main"]

_Calls = Callable[[int], object]

CALLS = 20
"""That are counted: what most of them do belongs to a call, what one of them does to none."""

WARM = 2000
"""Calls before: an instruction that could not be replaced is tried again, less and less often."""

# What https://docs.python.org/3/library/dis.html names have other forms; no public name lists them.
_REPLACEABLE = {
    "BINARY_OP",
    "BINARY_SUBSCR",
    "CALL",
    "CALL_FUNCTION_EX",
    "CALL_KW",
    "COMPARE_OP",
    "CONTAINS_OP",
    "FOR_ITER",
    "LOAD_ATTR",
    "LOAD_GLOBAL",
    "LOAD_SUPER_ATTR",
    "SEND",
    "STORE_ATTR",
    "STORE_SUBSCR",
    "TO_BOOL",
    "UNPACK_SEQUENCE",
}


class Frame(NamedTuple):
    """One function of tracing's: how often a call enters it, and what is executed in it.

    ``generic`` has the line and the text of each instruction that stayed generic.
    """

    name: str
    file: str
    entered: float
    bytecodes: float
    generic: list[tuple[int, str]]


def count(do: _Calls, is_counted: Callable[[str], bool], warm: int = WARM) -> list[Frame]:
    """Return the frames of one call, most bytecodes first.

    Args:
        do: Does so many calls, all of them alike.
        is_counted: Told the file of a function.

    Raises:
        ValueError: Another tool watches this process.

    Concurrency: what other threads do is not counted.
    Cost: hundreds of times what the calls themselves take.
    """
    do(warm)
    executed, entered = _steps_of(partial(do, CALLS))
    # Watching put the generic forms back.
    do(warm)
    by_code: dict[CodeType, dict[int, float]] = {}
    for (code, offset), times in executed.items():
        if times * 2 >= CALLS and is_counted(code.co_filename):
            by_code.setdefault(code, {})[offset] = times / CALLS
    frames = [_frame(code, entered[code] / CALLS, offsets) for code, offsets in by_code.items()]
    return sorted(frames, key=lambda frame: -frame.bytecodes)


def _steps_of(run: Callable[[], object]) -> tuple[Counter[tuple[CodeType, int]], Counter[CodeType]]:
    """Run, and return how often each instruction was executed and each function entered."""
    executed: Counter[tuple[CodeType, int]] = Counter()
    entered: Counter[CodeType] = Counter()
    caller = get_ident()

    def note_instruction(code: CodeType, offset: int) -> None:
        if get_ident() == caller:
            executed[code, offset] += 1

    def note_start(code: CodeType, _offset: int) -> None:
        if get_ident() == caller:
            entered[code] += 1

    watching = sys.monitoring
    tool, events = watching.PROFILER_ID, watching.events
    watching.use_tool_id(tool, __name__)
    try:
        watching.register_callback(tool, events.INSTRUCTION, note_instruction)
        watching.register_callback(tool, events.PY_START, note_start)
        watching.set_events(tool, events.INSTRUCTION | events.PY_START)
        run()
    finally:
        watching.set_events(tool, events.NO_EVENTS)
        watching.register_callback(tool, events.INSTRUCTION, None)
        watching.register_callback(tool, events.PY_START, None)
        watching.free_tool_id(tool)
    return executed, entered


def _frame(code: CodeType, entered: float, offsets: Mapping[int, float]) -> Frame:
    generic = [
        (line, f"{instruction.opname} {instruction.argrepr}".rstrip())
        for instruction in dis.get_instructions(code, adaptive=True)
        if instruction.offset in offsets and instruction.opname in _REPLACEABLE
        if (line := instruction.positions.lineno if instruction.positions else None) is not None
    ]
    return Frame(code.co_qualname, code.co_filename, entered, sum(offsets.values()), generic)


def _is_tracing() -> Callable[[str], bool]:
    """Tell files of tracekit and of OpenTelemetry, and of what both stand on, from all others."""
    import contextvars_extras
    import opentelemetry
    import wrapt

    import tracekit

    packages: list[Any] = [contextvars_extras, opentelemetry, tracekit, wrapt]
    folders = [os.path.join(folder, "") for package in packages for folder in package.__path__]
    # The last is what wrappers are compiled as that have a library's own parameters.
    places = (*folders, "<tracekit>")
    return lambda file: file.startswith(places)


@contextmanager
def _spans(work: Callable[[Any, int], object], share: str | None, side: str) -> Iterator[_Calls]:
    """Make spans, of which the sampler drops all where it has a name."""
    from opentelemetry.sdk.trace import sampling

    from benchmarks.sides import both_sides
    from tracekit import sdk

    samplers: dict[str | None, tuple[Any, Any]] = {
        None: (None, None),
        "ratio": (sampling.ParentBasedTraceIdRatio(0.0), sdk.ParentBasedTraceIdRatio(0.0)),
        "always_off": (sampling.ALWAYS_OFF, sdk.ALWAYS_OFF),
    }
    with both_sides(samplers[share]) as (theirs, ours):
        tracer = (ours if side == "tracekit" else theirs).tracer
        yield lambda calls: work(tracer, calls)


def _one_tree(tracer: Any, calls: int) -> None:
    from benchmarks.spans import CHILDREN, trees

    trees(tracer, calls * (1 + CHILDREN))


def _root(tracer: Any, calls: int) -> None:
    from benchmarks.spans import roots

    roots(tracer, calls)


@contextmanager
def _library(subject: str, side: str) -> Iterator[_Calls]:
    """Make calls of a library that is watched, as the worker processes do that are timed."""
    from benchmarks import http_worker

    with _server_for(subject) as port:
        http_worker.BEFORE.get(subject, lambda: None)()
        http_worker.TRACING[side](subject)
        yield http_worker.SUBJECTS[subject](port)


def _server_for(subject: str) -> AbstractContextManager[int]:
    if subject in {"requests", "httpx", "httpx_async", "urllib3", "urllib", "aiohttp_client"}:
        from benchmarks.http import loopback

        return loopback()
    kinds = {
        "grpc": "grpc",
        "grpc_aio": "grpc",
        "redis": "redis",
        "redis_async": "redis",
        "botocore": "http",
        "botocore_urllib3": "http",
    }
    if subject in kinds:
        from benchmarks.services import server

        return server(kinds[subject])
    if subject in {"psycopg", "psycopg_async", "psycopg2", "asyncpg"}:
        from benchmarks.databases import postgresql

        return postgresql()
    if subject in {"pymysql", "mysqldb", "mysql_connector"}:
        from benchmarks.databases import mariadb

        return mariadb()
    if subject == "pymongo":
        from benchmarks.databases import mongodb

        return mongodb()
    return nullcontext(0)


def _subjects() -> dict[str, Callable[[str], AbstractContextManager[_Calls]]]:
    """Return what can be counted: a row's name, or the name of its library alone."""
    # Workers put their subjects beside those of HTTP when they are imported.
    from benchmarks import databases_worker, inside_worker, services_worker  # noqa: F401
    from benchmarks.command import load_rows
    from benchmarks.http_worker import SUBJECTS

    found: dict[str, Callable[[str], AbstractContextManager[_Calls]]] = {
        "spans.root": partial(_spans, _root, None),
        "spans.tree": partial(_spans, _one_tree, None),
        "dropped.ratio": partial(_spans, _root, "ratio"),
        "dropped.always_off": partial(_spans, _root, "always_off"),
    }
    for row in load_rows():
        subject = row.rpartition(".")[2]
        if subject in SUBJECTS:
            found[row] = found[subject] = partial(_library, subject)
    return found


def main(arguments: list[str] | None = None) -> int:
    """Print the steps of one call."""
    if not hasattr(sys, "monitoring"):
        raise SystemExit("Counting steps needs sys.monitoring, which came with Python 3.12.")
    options = _parser().parse_args(arguments)
    subjects = _subjects()
    if options.subject not in subjects:
        raise SystemExit(f"nothing is called {options.subject}; there are {', '.join(subjects)}")
    with ExitStack() as stack:
        do = stack.enter_context(subjects[options.subject](options.side))
        frames = count(do, _is_tracing())
    if options.details:
        print("\n".join(_details(frames)))
    print(f"{options.subject}, {options.side}: {_total(frames)}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.steps", description=__doc__)
    parser.add_argument("subject", help="a row or a library: http.requests, requests, spans.root")
    parser.add_argument("--side", choices=["tracekit", "opentelemetry"], default="tracekit")
    parser.add_argument("--details", action="store_true", help="each frame and generic instruction")
    return parser


def _details(frames: list[Frame]) -> Iterator[str]:
    yield "bytecodes  frames  generic"
    for frame in frames:
        numbers = f"{frame.bytecodes:9.0f}  {frame.entered:6.1f}  {len(frame.generic):7}"
        yield f"{numbers}  {frame.name}  {os.path.relpath(frame.file)}"
        yield from (f"{'':>26}  line {line}: {text}" for line, text in frame.generic)


def _total(frames: list[Frame]) -> str:
    entered = sum(frame.entered for frame in frames)
    bytecodes = sum(frame.bytecodes for frame in frames)
    generic = sum(len(frame.generic) for frame in frames)
    return f"{entered:.0f} frames, {bytecodes:.0f} bytecodes, {generic} of them generic"


if __name__ == "__main__":
    raise SystemExit(main())
