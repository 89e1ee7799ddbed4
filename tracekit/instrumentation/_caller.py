"""Which line of the program made the call that a client or database span stands for.

A span of a library says what was asked, not who asked: the same query from two places, or twice
from one, look alike. So the stack is walked outwards past the library, the standard library and
ourselves, up to the first line that is the program's own.

Cost: some 0.1 µs a frame, since CPython makes a frame object for each that is looked at; a
database driver is two to four deep, and our own frames are stepped over, who calls knows how
many. What a file is, and what a line is called, is found out once. Whether a file is the program's
is kept by the file's name, whose hash text keeps; a code object's would be computed from all of
its bytes each time.

Nor is the stack walked each time: where the last search ended, there the next one looks first. The
same line, that many frames out, which calls the same function of a library, was found from here
before; what lies in between is taken to be what it was then.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from tracekit import semconv
from tracekit.errors import InvalidValueError
from tracekit.instrumentation._patch import report
from tracekit.instrumentation._said import Said

__all__ = ["Caller", "Line", "called_at", "caller_from", "frame_at"]

# An ORM that loads lazily inside of a template is some sixty deep.
_DEEPEST = 120
_STEPS = range(_DEEPEST)
_MOST_KEPT = 2048

_LIBRARY, _PROGRAM, _EVENT_LOOP = range(3)

_OURS = str(Path(__file__).resolve().parent.parent) + os.sep
_STANDARD_LIBRARY = os.path.dirname(os.__file__) + os.sep
_INSTALLED = re.compile(r"[\\/](?:site|dist)-packages[\\/]([^\\/]+?)(?:\.pyc?)?(?:[\\/]|$)")
# What a person types has such a name; so has generated code (`<frozen runpy>`,
# `<attrs generated init app.Order>`), which is nobody's line.
_TYPED = re.compile(r"<(?:stdin|string|console|(?:ipython|python)-input-.*)>")
# Further out is who runs the loop, not who asked: a task's own caller is not on the stack.
_LOOP_FILES = re.compile(
    r"[\\/](?:asyncio[\\/](?:events|base_events|runners)|uvloop[\\/]__init__)\.pyc?$"
)


def caller_from(environ: Mapping[str, str], code_location: bool | None = None) -> Caller | None:
    """Return what finds callers, or None where they are not to be recorded.

    Args:
        environ: ``TRACEKIT_CODE_LOCATION`` is ``true`` or ``false``;
            ``TRACEKIT_CODE_LOCATION_PACKAGES`` names, with commas, packages that count as the
            program's own although they are installed beside the libraries.
        code_location: An option that takes the first variable's place.

    Raises:
        InvalidValueError: The variable is neither true nor false.
    """
    wanted = _wanted(environ) if code_location is None else code_location
    if not wanted:
        return None
    packages = environ.get("TRACEKIT_CODE_LOCATION_PACKAGES", "").split(",")
    return Caller(name.strip() for name in packages if name.strip())


def _wanted(environ: Mapping[str, str]) -> bool:
    text = environ.get("TRACEKIT_CODE_LOCATION", "").strip() or "true"
    if text.lower() not in ("true", "false"):
        raise InvalidValueError("TRACEKIT_CODE_LOCATION", text, "true or false")
    return text.lower() == "true"


class Line(dict[str, Any]):
    """A line of the program that calls a library: its attributes, and where it was last seen.

    Attributes:
        code: Of its function. Kept, so that nothing else gets its id.
        at: The instruction that calls.
        depth: How far out it was from who asked :meth:`Caller.attributes`.
        called: What it called there, as :func:`called_at` tells it.

    Concurrency: two threads may come here by different ways, and one may read the depth of the one
    and what was called of the other. Both are compared with the stack each time.
    """

    __slots__ = ("at", "called", "code", "depth")

    code: CodeType | None
    at: int
    depth: int
    called: Any

    def __init__(self, code: CodeType | None, at: int, attributes: Mapping[str, Any]) -> None:
        super().__init__(attributes)
        self.code = code
        self.at = at
        self.depth = 1
        self.called = None


_NOWHERE = Line(None, 0, {})


class Caller:
    """Finds the line of the program that is calling, and says it as attributes.

    Concurrency: from any thread; dictionaries are read and written by single operations.
    """

    __slots__ = ("_depth", "_libraries", "_places", "_verdicts")

    def __init__(self, packages: Iterable[str] = ()) -> None:
        """Count `packages`, by their import names, as the program's own wherever they are."""
        self._verdicts = _Verdicts(frozenset(packages))
        self._libraries = self._verdicts.libraries
        self._places: dict[tuple[int, int], Line] = {}
        # Of the last one, as Line.depth. Not less than who asks: a frame that has itself among its
        # variables is a cycle, which keeps all frames outside of it, and what these return, from
        # being let go of.
        self._depth = 0

    def attributes(self, inside: int = 1, frame: FrameType | None = None) -> Line:
        """Return ``code.function.name``, ``code.file.path`` and ``code.line.number``.

        Args:
            inside: How many frames from here on are the instrumentation's and need no look: 1 to
                begin with who calls this, 2 with its caller.
            frame: Where to begin instead: of another thread.

        Returns:
            The attributes of the nearest line that is the program's; the same object each time,
            not to be changed. Empty where the library was called by none: from a thread or task
            that it started itself.

        Raises:
            Nothing.

        Cost: on the path of a client's call; ask only for a span that is recording.
        Source: https://opentelemetry.io/docs/specs/semconv/registry/attributes/code/
        """
        # In one function: a call of our own costs as much as a frame of the library's. Most
        # frames are a library's: a set says so in fewer steps than a dictionary of ours.
        try:
            if frame is None:
                depth = self._depth
                try:
                    caller = frame_at(depth + 1)
                    line = self._places.get((id(caller.f_code), caller.f_lasti))
                    if line is not None and line.depth == depth and line.called is called_at(depth):
                        return line
                except ValueError:  # the stack is not so deep
                    pass
            within, frame = (None, frame) if frame is not None else _from(inside + 1)
            libraries, in_greenlet = self._libraries, True
            for further in _STEPS:
                if frame is None:
                    frame, within = _outside_of_greenlet() if in_greenlet else None, None
                    if frame is None:
                        break
                    in_greenlet = False
                code = frame.f_code
                if code.co_filename not in libraries:
                    line = self._places.get((id(code), frame.f_lasti))
                    if line is not None and within is None:
                        return line
                    verdict = self._verdicts[code.co_filename]
                    if verdict == _PROGRAM:
                        return self._keep(frame, within, inside + further - 1)
                    if verdict == _EVENT_LOOP:
                        break
                if within is not None:
                    within = code
                frame = frame.f_back
        except Exception:
            report("the search for a caller")
        return _NOWHERE

    def asked(self, said: Said, frame: FrameType | None, depth: int) -> Mapping[str, Any]:
        """Return what `said` says, and which line of the program is calling.

        Args:
            frame: Where the search begins; not who ``said.seen`` is, or this need not be asked.
            depth: At which ``frame_at`` has that frame for who calls this.
        """
        place, last = self.attributes(depth + 2), said.last
        if last[0] is place:
            return last[1]
        both = said.asked_from(place)
        if frame is not None and self._verdicts[frame.f_code.co_filename] == _PROGRAM:
            said.seen = (frame.f_code, frame.f_lasti, both)
        return both

    def _keep(self, frame: FrameType, within: CodeType | None, depth: int) -> Line:
        code, at = frame.f_code, frame.f_lasti
        line = self._places.get((id(code), at))
        if line is None:
            if len(self._places) >= _MOST_KEPT:
                self._places.clear()
            line = self._places[id(code), at] = Line(code, at, _described(frame, code))
        # Where to look first the next time is known of this stack only: of no other thread's, and
        # not of what is outside of a greenlet.
        if within is not None and depth > 0:
            line.called = called_at(depth + 1)
            line.depth = self._depth = depth
        return line


frame_at = sys._getframe
"""Return the frame so many calls further out; ValueError where the stack begins before."""


def _code_at(depth: int) -> Any:
    return frame_at(depth + 1).f_code


# Makes no frame object, whose size is that of all variables of its function.
called_at: Callable[[int], Any] = getattr(sys, "_getframemodulename", _code_at)
"""Return what tells apart which function runs so many calls further out: the name of its module,
which functions of one module share as one object, and so does a wrapper that took it over; before
Python 3.12 the code."""


class _Verdicts(dict[str, int]):
    """What a file is, by its name; found out when it is first asked for."""

    __slots__ = ("_packages", "libraries")

    libraries: set[str]
    """Those that are a library's, the standard library's or ours."""

    def __init__(self, packages: frozenset[str]) -> None:
        super().__init__()
        self._packages = packages
        self.libraries = set()

    def __missing__(self, file_name: str) -> int:
        if len(self) >= _MOST_KEPT:
            self.clear()
            self.libraries.clear()
        verdict = self[file_name] = _kind_of(file_name, self._packages)
        if verdict == _LIBRARY:
            self.libraries.add(file_name)
        return verdict


def _kind_of(file_name: str, packages: frozenset[str]) -> int:
    if _LOOP_FILES.search(file_name):
        return _EVENT_LOOP
    installed = _INSTALLED.search(file_name)
    if installed is not None:
        return _PROGRAM if installed[1] in packages else _LIBRARY
    if file_name.startswith("<"):
        return _PROGRAM if _TYPED.fullmatch(file_name) else _LIBRARY
    return _LIBRARY if file_name.startswith((_STANDARD_LIBRARY, _OURS)) else _PROGRAM


def _described(frame: FrameType, code: CodeType) -> Mapping[str, Any]:
    # Python 3.10 knows a function by its last name only.
    name = getattr(code, "co_qualname", code.co_name)
    module = frame.f_globals.get("__name__")
    path = code.co_filename
    found: dict[str, Any] = {
        semconv.CODE_FUNCTION_NAME: f"{module}.{name}" if isinstance(module, str) else name,
        semconv.CODE_FILE_PATH: path if path.startswith("<") else os.path.abspath(path),
    }
    line = frame.f_lineno
    if line:
        found[semconv.CODE_LINE_NUMBER] = line
    return found


def _from(depth: int) -> tuple[CodeType | None, FrameType | None]:
    """Return the frame that is so far out, behind the code of the one that it called."""
    try:
        return frame_at(depth - 1).f_code, frame_at(depth)
    except ValueError:  # the stack begins with the instrumentation
        return None, None


def _outside_of_greenlet() -> FrameType | None:
    """Return where the stack goes on when it ends in a greenlet, as SQLAlchemy's asyncio has it.

    A greenlet's outermost frame leads nowhere; the coroutine that waits for it is in its parent.
    One step only: the parent of gevent's hub is whoever happens to wait for it.
    """
    greenlet: Any = sys.modules.get("greenlet")
    if greenlet is None:
        return None
    parent = greenlet.getcurrent().parent
    return None if parent is None else parent.gr_frame
