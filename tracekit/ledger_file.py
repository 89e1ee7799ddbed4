"""The ledger of each process as a small file, so that ``tracekit doctor`` sees it from outside.

Theory of operation. The batch processor's worker calls ``LedgerFile.save_if_due`` each time it
has been through its queue, so a running process is at most ``EVERY_S`` old on the disk and an
idle one costs nothing; a last time it is written when the process ends. A forked child writes a
file of its own. Only the newest ``KEPT`` files stay.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from tracekit import _fork
from tracekit.store.location import private_folder, state_folder
from tracekit.store.process import is_lost, this_process

__all__ = ["EVERY_S", "KEPT", "LedgerFile", "folder", "read_all", "start"]

_logger = logging.getLogger("tracekit")

EVERY_S = 10.0
KEPT = 50
MAX_BYTES = 64 * 1024
"""Of a file that is read; ours have about a kilobyte."""


class _Provider(Protocol):
    @property
    def span_processors(self) -> tuple[Any, ...]: ...
    @property
    def resource(self) -> Any: ...
    def stats(self) -> dict[str, Any]: ...
    def shutdown(self, timeout_s: float | None = None) -> None: ...


def folder(environ: Mapping[str, str] | None = None) -> Path:
    """Return where ledgers are: beside the default store, wherever the chosen one is."""
    return state_folder(environ) / "ledger"


class LedgerFile:
    """Write one provider's ledger to this process's file; it never raises."""

    def __init__(self, provider: _Provider) -> None:
        self._provider = provider
        self.after_fork_in_child()
        _fork.on_fork_in_child(self)

    def after_fork_in_child(self) -> None:
        self._started_s = time.time()
        self._due = 0.0
        self._saved: dict[str, Any] | None = None

    @property
    def path(self) -> Path:
        return folder() / f"{os.getpid()}-{self._started_s:.6f}.json"

    def save_if_due(self) -> None:
        """Write the file if that was long enough ago."""
        now = time.monotonic()
        if now >= self._due:
            self._due = now + EVERY_S
            self.save()

    def save(self) -> None:
        """Write the file if there is anything new to say."""
        try:
            stats = self._provider.stats()
            if self._says_anything(stats) and stats != self._saved:
                self._write(stats)
                self._saved = stats
        except Exception:
            _logger.debug("the ledger could not be written", exc_info=True)

    @staticmethod
    def _says_anything(stats: Mapping[str, Any]) -> bool:
        return bool(stats["started"] or stats["sampled_out"] or stats.get("filtered"))

    def _write(self, stats: dict[str, Any]) -> None:
        path = self.path
        if self._saved is None:
            private_folder(path.parent)
            _remove_old(path.parent)
        new = path.with_suffix(".new")
        new.write_text(json.dumps({**self._identity(), "stats": stats}), "utf-8")
        new.replace(path)  # a reader finds the whole of it, old or new

    def _identity(self) -> dict[str, Any]:
        return {
            "process": this_process(),
            "pid": os.getpid(),
            "service": str(self._provider.resource.attributes.get("service.name", "")),
            "command": [str(word)[:200] for word in sys.argv[:8]],
            "started_s": self._started_s,
            "saved_s": time.time(),
        }

    def finish(self) -> None:
        """Shut the provider down, and write what came of everything."""
        self._provider.shutdown()
        self.save()


_current: LedgerFile | None = None


def start(provider: _Provider, at_exit: Callable[[Callable[[], Any]], Any]) -> None:
    """Keep the ledger of a provider on the disk from now on, unless TRACEKIT_LEDGER is 0.

    Called again after the provider's processors were replaced, it follows them.

    Args:
        at_exit: Registers what is called when the process ends.
    """
    global _current
    if os.environ.get("TRACEKIT_LEDGER", "").strip() == "0":
        return
    if _current is None or _current._provider is not provider:
        _current = LedgerFile(provider)
        at_exit(_current.finish)
    for processor in provider.span_processors:
        if hasattr(processor, "after_hand_out"):
            processor.after_hand_out = _current.save_if_due


def save() -> None:
    """Write the ledger that is kept, if one is; for a process that ends unannounced."""
    if _current is not None:
        _current.save()


def stop(not_at_exit: Callable[[Callable[[], Any]], Any]) -> None:
    """Keep no ledger any more; what was written stays."""
    global _current
    if _current is not None:
        not_at_exit(_current.finish)
        _current = None


def _remove_old(place: Path) -> None:
    files = sorted(place.glob("*.json"), key=_age)
    for path in files[KEPT - 1 :]:
        path.unlink(missing_ok=True)
    for path in place.glob("*.new"):
        if time.time() - path.stat().st_mtime > 60:
            path.unlink(missing_ok=True)


def _age(path: Path) -> float:
    try:
        return -path.stat().st_mtime
    except OSError:
        return 0.0


def read_all(place: Path | None = None) -> list[dict[str, Any]]:
    """Return the ledgers of processes, newest first, each with ``running`` added.

    What is not a ledger, or of another version's form, is passed over.
    """
    return list(_readable(sorted((place or folder()).glob("*.json"), key=_age)))


def _readable(paths: list[Path]) -> Iterator[dict[str, Any]]:
    for path in paths:
        try:
            ledger = json.loads(path.read_bytes()[:MAX_BYTES])
            running = not is_lost(str(ledger["process"]))
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if isinstance(ledger.get("stats"), dict) and {"pid", "service"} <= ledger.keys():
            yield {**ledger, "running": running}
