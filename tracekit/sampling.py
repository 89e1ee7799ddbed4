"""Which sampling is in force, and changing it while the program runs.

Theory of operation
-------------------
Three sources lie over each other: what the program was configured with, the file that
``TRACEKIT_CONFIG`` names, and what ``set_sampling()`` said. When one of them changes, the parts
are made anew from all three, and put in force only if all could be made. Spans under way keep the
parts that they were started with, and what is queued is not touched.

The file is looked at by the batch processor's worker, which wakes about once a second anyway. It
is started by the first span that ends: where all are sampled out there would be none, in a forked
child neither. So the sampler is wrapped until the worker has come by, and the first root span
starts it. Without a worker, every second one of the root spans looks.

A file that was changed a moment ago may be half written. It is read when it looks the same as a
second before; a signal has it read at once. What cannot be used is said once, and changes nothing.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from opentelemetry.context import Context
from opentelemetry.trace import Link, SpanKind

from tracekit import _fork, _hangup
from tracekit.errors import ConfigurationError, InvalidValueError
from tracekit.interfaces import Sampler
from tracekit.model import Attributes, SamplingResult
from tracekit.settings import Settings, load_file, over
from tracekit.settings_file import SettingsFile

__all__ = ["Sampling", "SamplingChange"]

_logger = logging.getLogger("tracekit")

SAMPLER_KEYS = ("sampler", "sampler_argument", "rules")
"""The settings that make what decides at the start of a root span."""
EVERY_S = 1.0
MAX_NESTING = 16
"""Changes that are remembered below the one in force, to go back to."""


class _Provider(Protocol):
    @property
    def span_processors(self) -> tuple[Any, ...]: ...
    def use_sampler(self, sampler: Sampler) -> None: ...


class SamplingChange:
    """What one call of ``set_sampling()`` changed, and the way back.

    As a context manager it is taken back at the end of the block; ``undo()`` does it at any time,
    any number of times. A change that was made over it stays, and goes back to what is under it.
    """

    def __init__(
        self, owner: Sampling, settings: Settings, before: SamplingChange | None, for_s: float
    ) -> None:
        self._owner = owner
        self.settings = settings
        self.before = before
        self.until = time.monotonic() + for_s
        self.until_unix_s = None if for_s == math.inf else time.time() + for_s
        self._is_undone = False

    @property
    def is_over(self) -> bool:
        return self._is_undone or time.monotonic() >= self.until

    def undo(self) -> None:
        """Return to what was in force before; what has been changed since stays."""
        self._is_undone = True
        self._owner.settle()

    def __enter__(self) -> SamplingChange:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.undo()


class Sampling:
    """Keep a provider's sampling as its settings, a file and the program say.

    Args:
        configured: The settings without those of the file.
        make: Makes the sampler that settings describe; what it raises changes nothing.
        stages: For the setting of each stage that can be changed, what makes ready for it what
            settings say; it returns what puts that in force, or raises, which changes nothing.
        file: Watched, where there is one.

    Concurrency: all methods may be called from any thread, ``hang_up`` from a signal handler too.
    """

    def __init__(
        self,
        provider: _Provider,
        configured: Settings,
        make: Callable[[Settings], Sampler],
        stages: Mapping[str, Callable[[Settings], Callable[[], None]]],
        file: SettingsFile | None = None,
    ) -> None:
        self.provider = provider
        self._configured = configured
        self._make = make
        self._stages = stages
        self._file = file
        self._lock = threading.RLock()
        self._from_file: Settings = {}
        self._change: SamplingChange | None = None
        self._said = self._seen = file.signature() if file else None
        self._is_stopped = self._is_urgent = self._is_visited = self._is_telling = False
        self._due = 0.0
        self._call_workers: list[Callable[[], None]] = []
        self._problem = ""
        self._settings: Settings = {}
        self._sampler: Sampler | None = None
        self._since_unix_s = time.time()

    # Beginning and end ------------------------------------------------------------------

    def start(self, sampler: Sampler, from_file: Settings) -> None:
        """Take over a provider on which ``sampler`` was put, made of the settings and the file."""
        self._from_file = from_file
        self._settings = self._of_sampling(self._merged(self._change))
        self._sampler = sampler
        employs = [getattr(part, "employ", None) for part in self.provider.span_processors]
        self._call_workers = [employ(self.tick) for employ in employs if employ is not None]
        self._use()
        _fork.on_fork_in_child(self)
        if self._file is not None:
            if self._said is None:
                _logger.warning("%s is not there yet; it is read when it is", self._file.path)
            _hangup.on_sighup(self.hang_up)

    def stop(self) -> None:
        """Look no more, and leave everything as it is; whoever is looking just now, too."""
        with self._lock:
            self._file = self._change = None
            self._is_stopped = True
        _hangup.not_on_sighup()

    def after_fork_in_child(self) -> None:
        # The worker is the parent's; the first root starts one here.
        self._lock = threading.RLock()
        self._is_visited = False
        self._use()

    # What the program says --------------------------------------------------------------

    def set(self, given: Settings, for_s: float | None = None) -> SamplingChange:
        """Put settings over what is in force; with none, go back to what was configured.

        Raises:
            ConfigurationError: They cannot be used; nothing has changed.
        """
        for_s = math.inf if for_s is None else _seconds(for_s)
        with self._lock:
            before = _active(self._change)
            settings = over(before.settings, given) if before and given else given
            change = SamplingChange(self, settings, _shortened(before), for_s)
            self._put_in_force(change)
        return change

    def settle(self) -> None:
        """Leave changes that are over."""
        with self._lock:
            active = _active(self._change)
            if active is not self._change:
                self._put_in_force(active)

    # What the file says -----------------------------------------------------------------

    def hang_up(self) -> None:
        """Have the file read at the next look, changed or not; for a signal handler."""
        self._is_urgent = True

    def at_root(self) -> None:
        """See to it that somebody looks, now that a root span starts; it never raises."""
        now = time.monotonic()
        if now < self._due:
            return
        self._due = now + EVERY_S
        try:
            self.settle()
            for call in self._call_workers:
                call()
            if not self._call_workers:
                self.look()
        except Exception:
            _logger.debug("sampling could not be looked after", exc_info=True)

    def tick(self) -> float | None:
        """Look, if the last time was a second ago; called by the worker, and never raises.

        Returns:
            How soon it wants to be called again.
        """
        if self._is_stopped:
            return None
        now = time.monotonic()
        if self._due - EVERY_S < now < self._due and not self._is_urgent and self._is_visited:
            return self._due - now
        self._due = now + EVERY_S
        try:
            self.look()
            self._is_visited = True
            if self._is_telling:
                self._use()
        except Exception:
            _logger.warning("sampling stays as it is", exc_info=True)
        return EVERY_S if self._is_needed() else None

    def _is_needed(self) -> bool:
        return self._file is not None or _expires(self._change)

    def look(self) -> None:
        """Leave what is over, and take over what the file says by now."""
        self.settle()
        file = self._file
        if file is None:
            return
        is_urgent, self._is_urgent = self._is_urgent, False
        signature = file.signature()
        is_steady, self._seen = signature == self._seen, signature
        if is_urgent or (is_steady and signature != self._said):
            self._said = signature
            self._take_over(file, is_there=signature is not None)

    def _take_over(self, file: SettingsFile, is_there: bool) -> None:
        try:
            if not is_there:
                raise ConfigurationError(f"{file.path} is not there")
            found = load_file(file)
            with self._lock:
                before, self._from_file = self._from_file, found
                try:
                    self._put_in_force(self._change)
                except Exception:
                    self._from_file = before
                    raise
        except ConfigurationError as error:
            self._problem = str(error)
            _logger.warning("%s; sampling stays as it was", str(error).rstrip("."))
            return
        self._problem = ""
        _logger.info("%s is in force: %s", file.path, self._description())
        self._tell_what_waits(before, found)

    def _tell_what_waits(self, before: Settings, found: Settings) -> None:
        if waiting := sorted(_changed(before, found) - {*SAMPLER_KEYS, *self._stages}):
            _logger.warning("%s takes effect at the next start only", ", ".join(waiting))

    # Putting in force -------------------------------------------------------------------

    def _merged(self, change: SamplingChange | None) -> Settings:
        return over(over(self._configured, self._from_file), change.settings if change else {})

    def _put_in_force(self, change: SamplingChange | None) -> None:
        settings = self._of_sampling(self._merged(change))
        changed = _changed(self._settings, settings)
        ready = [self._stages[key](settings) for key in self._stages if key in changed]
        if changed.intersection(SAMPLER_KEYS):
            self._sampler = self._make(settings)
        # From here on nothing can go wrong.
        for put_in_force in ready:
            put_in_force()
        if changed:
            self._since_unix_s = time.time()
        self._change, self._settings = change, settings
        self._use()

    def _of_sampling(self, settings: Settings) -> Settings:
        keys = (*SAMPLER_KEYS, *self._stages)
        return {key: settings[key] for key in keys if key in settings}

    def _use(self) -> None:
        with self._lock:
            sampler = self._sampler
            if sampler is None or self._is_stopped:
                return
            self._is_telling = self._is_needed() and not self._is_visited
            if self._is_telling:
                sampler = _telling(sampler, self.at_root)
            self.provider.use_sampler(sampler)

    # What is told -----------------------------------------------------------------------

    def _description(self) -> str:
        return self._sampler.get_description() if self._sampler is not None else ""

    def stats(self) -> dict[str, Any]:
        """Return what is in force, by whom and since when, in Unix seconds."""
        change = self._change
        root = getattr(self._sampler, "root_sampler", self._sampler)
        counts = getattr(root, "counts", None)
        found: dict[str, Any] = {
            "sampler": self._description(),
            "by": self._source(),
            "since": self._since_unix_s,
            **{
                key: str(self._settings[key].value) for key in self._stages if key in self._settings
            },
        }
        if counts is not None:
            found["rules"] = counts()
        if change is not None and change.until_unix_s is not None:
            found["until"] = change.until_unix_s
        if self._problem:
            found["problem"] = self._problem
        return found

    def _source(self) -> str:
        if self._change is not None and self._change.settings:
            return "set_sampling()"
        if self._file is not None and self._of_sampling(self._from_file):
            return self._file.path
        return "configuration"


def _changed(before: Settings, after: Settings) -> set[str]:
    # The line of a file at which something stands may change without what it says.
    values = [{key: found[key].value for key in found} for found in (before, after)]
    return {key for key in {*before, *after} if values[0].get(key) != values[1].get(key)}


def _seconds(for_s: float) -> float:
    given: Any = for_s
    # Written so that NaN is refused too.
    if isinstance(given, bool) or not isinstance(given, (int, float)) or not given > 0:
        raise InvalidValueError("for_s", for_s, "seconds, a number above 0")
    return for_s


def _active(change: SamplingChange | None) -> SamplingChange | None:
    while change is not None and change.is_over:
        change = change.before
    return change


def _expires(change: SamplingChange | None) -> bool:
    while change is not None:
        if change.until < math.inf:
            return True
        change = change.before
    return False


def _shortened(change: SamplingChange | None) -> SamplingChange | None:
    """Forget what lies deep below, so that calls without a way back do not pile up."""
    depth, below = 1, change
    while below is not None and below.before is not None:
        below, depth = below.before, depth + 1
        if depth == MAX_NESTING:
            below.before = None
    return change


def _telling(sampler: Any, tell: Callable[[], None]) -> Sampler:
    """Return the sampler as one that tells of each root span that it decides about."""
    with_root = getattr(sampler, "with_root", None)
    if with_root is None:
        return _TellingSampler(sampler, tell)
    found: Sampler = with_root(_TellingSampler(sampler.root_sampler, tell))
    return found


class _TellingSampler:
    """Another sampler, whose answers nobody knows beforehand: it is asked about each root."""

    def __init__(self, sampler: Sampler, tell: Callable[[], None]) -> None:
        self._sampler, self._tell = sampler, tell
        self.follows_local_parent = bool(getattr(sampler, "follows_local_parent", False))

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes | None = None,
        links: Sequence[Link] | None = None,
    ) -> SamplingResult:
        self._tell()
        return self._sampler.should_sample(parent_context, trace_id, name, kind, attributes, links)

    def get_description(self) -> str:
        return self._sampler.get_description()

    def __repr__(self) -> str:
        return self.get_description()
