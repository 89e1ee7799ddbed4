"""The base of every instrumentation: which functions to wrap, and when."""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import logging
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, ParamSpec, TypeVar

import wrapt
from opentelemetry import trace
from opentelemetry.trace import Tracer, TracerProvider

from tracekit import semconv
from tracekit._version import __version__
from tracekit.instrumentation._wrapping import (
    LOCK,
    PatchedFunction,
    WrapperFunction,
    put_on,
    take_off,
)

__all__ = ["InstrumentationStatus", "LibraryInstrumentor", "Patch", "quiet"]

_logger = logging.getLogger(__name__)

# What Python says of an argument, and from 3.12 on which one it may be meant for.
_UNKNOWN = re.compile(r"unexpected keyword argument '(\w+)'(.*)")
_WHERE_OPTIONS_ARE = "; docs/reference/configuration.md lists those there are"

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True)
class Patch:
    """One function of a library, and what is put around it.

    Attributes:
        module: Where it is, such as ``requests.sessions``; patched as soon as it is imported.
        attribute: Dotted path inside the module, such as ``Session.send``.
        wrapper: Called as ``wrapper(wrapped, instance, args, kwargs)`` instead of the function.
        optional: Do without, silently, where the library has no such function.
    """

    module: str
    attribute: str
    wrapper: WrapperFunction
    optional: bool = False


@dataclass(frozen=True)
class InstrumentationStatus:
    """What ``tracekit doctor`` shows of one instrumentation."""

    name: str
    installed: str | None
    supported: str
    active: bool
    reason: str


class LibraryInstrumentor:
    """Patch one library once it is imported, and take the patches off again.

    A subclass names the library, says in :meth:`patches` what to wrap and reads its options in
    :meth:`configure`. Nothing is imported here: a library that is not imported yet is patched
    right after its import, and one that never is costs nothing.
    Concurrency: every method may be called from any thread.
    """

    name: str
    """What users type; the name of the file."""
    distributions: tuple[str, ...] = ()
    """Names on PyPI, any of which provides the library; none for the standard library."""
    supported: str = ""
    """Versions that are patched, such as ``>=2.22,<3``; empty for any."""
    contrib: tuple[str, ...] = ()
    """Names of ``opentelemetry_instrumentor`` entry points that watch the same library."""
    makes_spans: bool = True
    """False where only context is carried: that is needed beside other tracers too."""
    contrib_class: str = ""
    """The class that does, where its package has others for other libraries."""

    def __init__(self) -> None:
        self._tracer: Tracer = trace.NoOpTracer()
        self._tracer_provider: TracerProvider | None = None
        self._wanted = False
        self._patches: tuple[Patch, ...] = ()
        self._put_on: dict[str, list[PatchedFunction]] = {}
        self._refusal: str | None = None
        self._said: str | None = None

    def configure(self, options: Mapping[str, Any]) -> None:
        """Read settings from the environment, overridden by `options`, before patching.

        Raises:
            TypeError: an option that this instrumentation does not have.
        """
        for option in options:
            raise TypeError(f"unexpected keyword argument {option!r}")

    def patches(self) -> Sequence[Patch]:
        """Return what to wrap. The tracer and the settings are there when this is called."""
        raise NotImplementedError

    @property
    def tracer(self) -> Tracer:
        """The tracer of this instrumentation's scope; it follows the provider."""
        return self._tracer

    def tracer_of(self, library: str) -> Tracer:
        """Return the tracer of the scope that belongs to `library`."""
        return trace.get_tracer(
            f"tracekit.instrumentation.{library}",
            __version__,
            tracer_provider=self._tracer_provider,
            schema_url=semconv.SCHEMA_URL,
        )

    def instrument(self, *, tracer_provider: TracerProvider | None = None, **options: Any) -> None:
        """Patch the library now or as soon as it is imported; options of a second call are lost.

        Raises:
            TypeError: an option that this instrumentation does not have.
        """
        if not self._wanted:
            self._start(tracer_provider, options)
        self._refusal = None  # what stood in the way may be gone
        for module in dict.fromkeys(patch.module for patch in self._patches):
            if module not in self._put_on:
                _watch(module, self)

    def uninstrument(self) -> None:
        """Leave the library as it was found, byte for byte."""
        with LOCK:
            self._wanted = False
            self._refusal = None
            self._withdraw()
        _unwatch(self)

    @property
    def status(self) -> InstrumentationStatus:
        installed = _installed_version(self.distributions)
        with LOCK:
            active = bool(self._put_on)
            reason = "active" if active else self._why_not(installed)
        return InstrumentationStatus(self.name, installed, self.supported, active, reason)

    def _start(self, tracer_provider: TracerProvider | None, options: Mapping[str, Any]) -> None:
        self._tracer_provider = tracer_provider
        self._tracer = self.tracer_of(self.name)
        try:
            self.configure(options)
        except TypeError as error:
            unknown = _UNKNOWN.search(str(error))
            if unknown is None or unknown[1] not in options:
                raise
            hint = unknown[2] or _WHERE_OPTIONS_ARE
            raise TypeError(
                f"instrumentation {self.name!r} has no option {unknown[1]!r}{hint}"
            ) from None
        self._patches = tuple(self.patches())
        self._wanted = True

    def _why_not(self, installed: str | None) -> str:
        if self._refusal is not None:
            return self._refusal
        if self.distributions and installed is None:
            return "not installed"
        return self._hindrance(installed) or (
            "waiting for import" if self._wanted else "not instrumented"
        )

    def _hindrance(self, installed: str | None) -> str | None:
        if installed is not None and not _is_supported(installed, self.supported):
            return f"version {installed} is not supported ({self.supported})"
        contrib = _active_contrib(self.contrib, self.contrib_class)
        return None if contrib is None else f"already instrumented by {contrib}"

    def _patch_module(self, module: ModuleType, name: str) -> None:
        """Put all wrappers of one module on, or none at all of this instrumentation."""
        with LOCK:
            if not self._wanted or self._refusal is not None or name in self._put_on:
                return
            version = _installed_version(self.distributions) if self.supported else None
            refusal = self._hindrance(version) or self._put_all_on(module, name)
            if refusal is not None:
                self._withdraw()
            self._report(refusal)

    def _put_all_on(self, module: ModuleType, name: str) -> str | None:
        done = self._put_on.setdefault(name, [])
        for patch in self._patches:
            if patch.module != name:
                continue
            result = put_on(module, patch.attribute, patch.wrapper, self)
            if isinstance(result, PatchedFunction):
                done.append(result)
            elif not patch.optional:
                return result
        return None

    def _withdraw(self) -> None:
        # Last on, first off: an inherited attribute may have been patched on both classes.
        for done in reversed(self._put_on.values()):
            for patched in reversed(done):
                take_off(patched, self)
        self._put_on = {}

    def _report(self, refusal: str | None) -> None:
        self._refusal = refusal
        if refusal is not None and refusal != self._said:
            self._said = refusal
            _logger.warning("tracekit does not instrument %s: %s", self.name, refusal)


# Instrumentations that wait for a module. A key stays until the module is imported: wrapt keeps
# its hook until then too, and a second one would patch twice.
_waiting: dict[str, list[LibraryInstrumentor]] = {}


def _watch(name: str, instrumentor: LibraryInstrumentor) -> None:
    module = sys.modules.get(name)
    if getattr(getattr(module, "__spec__", None), "_initializing", False):
        # Another thread is importing it: this waits for it. In the importing thread itself it
        # returns at once, with what there is.
        module = importlib.import_module(name)
    if module is not None:
        _patch_quietly(instrumentor, module, name)
        return
    with LOCK:
        first = name not in _waiting
        watchers = _waiting.setdefault(name, [])
        if instrumentor not in watchers:
            watchers.append(instrumentor)
    if first:
        # Outside the lock: when the module came in meanwhile, the hook is called right here.
        wrapt.register_post_import_hook(functools.partial(_on_import, name), name)


def _on_import(name: str, module: ModuleType) -> None:
    with LOCK:
        watchers = _waiting.pop(name, [])
    for instrumentor in watchers:
        _patch_quietly(instrumentor, module, name)


def _unwatch(instrumentor: LibraryInstrumentor) -> None:
    with LOCK:
        for watchers in _waiting.values():
            if instrumentor in watchers:
                watchers.remove(instrumentor)


def _patch_quietly(instrumentor: LibraryInstrumentor, module: ModuleType, name: str) -> None:
    # An exception in an import hook would fail the program's import of the library.
    try:
        instrumentor._patch_module(module, name)
    except Exception:
        _logger.warning("tracekit could not instrument %s", instrumentor.name, exc_info=True)


def _installed_version(distributions: Sequence[str]) -> str | None:
    for distribution in distributions:
        try:
            return importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def _active_contrib(names: Sequence[str], class_name: str) -> str | None:
    """Name the package of OpenTelemetry's that has instrumented the library already.

    Read from the classes that are loaded: one that is active must be, and loading entry points
    to find out would import every instrumentation there is.
    """
    base = getattr(
        sys.modules.get("opentelemetry.instrumentation.instrumentor"), "BaseInstrumentor", None
    )
    if base is None or not names:
        return None
    modules = {name.replace("-", "_"): name for name in names}
    classes = list(base.__subclasses__())
    for cls in classes:  # grows while it is read
        classes.extend(cls.__subclasses__())
        module = cls.__module__.removeprefix("opentelemetry.instrumentation.").split(".")[0]
        name = modules.get(module)
        if class_name:
            name = module if cls.__name__ == class_name else None
        if name and getattr(cls._instance, "_is_instrumented_by_opentelemetry", False):
            return f"opentelemetry-instrumentation-{name}"
    return None


_CLAUSE = re.compile(r"\s*(>=|<=|==|!=|>|<)\s*([0-9][0-9a-zA-Z.]*)\s*")
_COMPARE: dict[str, Callable[[tuple[int, ...], tuple[int, ...]], bool]] = {
    ">=": lambda a, b: a >= b,
    "<=": lambda a, b: a <= b,
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    ">": lambda a, b: a > b,
    "<": lambda a, b: a < b,
}


def _is_supported(version: str, specifier: str) -> bool:
    """Compare the leading numbers of a version; what follows (``rc1``, ``.dev0``) is ignored."""
    if not specifier:
        return True
    for clause in specifier.split(","):
        match = _CLAUSE.fullmatch(clause)
        if match is None:
            raise ValueError(f"not a version clause: {clause!r}")
        if not _COMPARE[match[1]](_numbers(version), _numbers(match[2])):
            return False
    return True


def _numbers(version: str) -> tuple[int, ...]:
    parts = [int(part) for part in re.match(r"[0-9.]*", version)[0].split(".") if part]  # type: ignore[index]
    while parts and parts[-1] == 0:  # 2.0 and 2 are the same version
        parts.pop()
    return tuple(parts)


_reported: set[str] = set()


def quiet(step: Callable[P, R]) -> Callable[P, R | None]:
    """Make a step of ours return None instead of raising into the traced program.

    Put it on everything of ours that runs around a call of the program's, and never on what
    makes the call. Said once a step at warning level, later at debug level.
    """

    @functools.wraps(step)
    def quietly(*args: P.args, **kwargs: P.kwargs) -> R | None:
        try:
            return step(*args, **kwargs)
        except Exception:
            report(step.__qualname__)
            return None

    return quietly


def report(step: str) -> None:
    """Log the exception being handled, at warning level the first time for each step."""
    level = logging.DEBUG if step in _reported else logging.WARNING
    _reported.add(step)
    _logger.log(level, "tracekit failed in %s; the program is not affected", step, exc_info=True)
