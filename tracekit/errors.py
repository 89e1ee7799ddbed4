"""Every exception that tracekit raises on purpose, as one tree.

They are raised only towards somebody who asked for a thing by name (in code, in an
environment variable, on the command line); the traced program's own calls never see one.
"""

from __future__ import annotations

from collections.abc import Iterable

__all__ = [
    "ConfigurationError",
    "InvalidValueError",
    "NotInstalledError",
    "SourceError",
    "StoreCorruptError",
    "StoreError",
    "StoreVersionError",
    "TracekitError",
    "UnknownNameError",
]


class TracekitError(Exception):
    """Root of all errors raised by tracekit."""


class ConfigurationError(TracekitError, ValueError):
    """A setting cannot work; the message says which, where it came from and what to write."""


class UnknownNameError(ConfigurationError):
    """A part was asked for by a name that nothing answers to."""

    def __init__(self, kind: str, name: str, known: Iterable[str], source: str = "") -> None:
        self.kind, self.name, self.known = kind, name, sorted(known)
        import difflib  # only an error needs it

        # `aiohttp` is two: aiohttp_client and aiohttp_server.
        near = [other for other in self.known if other.startswith(f"{name}_")]
        near = near or difflib.get_close_matches(name, self.known, n=1)
        where = f" (from {source})" if source else ""
        hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
        super().__init__(
            f"unknown {kind} {name!r}{where}.{hint} Known names: {', '.join(self.known)}."
        )


class InvalidValueError(ConfigurationError):
    """A setting was given a value of the wrong form."""

    def __init__(self, setting: str, value: object, expected: str) -> None:
        super().__init__(f"{setting}={value!r} is not valid: expected {expected}.")


class NotInstalledError(ConfigurationError, ImportError):
    """A part exists but the package that it needs is not installed."""

    def __init__(self, what: str, requirement: str) -> None:
        self.requirement = requirement
        super().__init__(f"{what} needs a package: pip install '{requirement}'")


class StoreError(TracekitError):
    """The span store cannot be read or written."""


class StoreVersionError(StoreError):
    """The store file was written by a newer tracekit."""


class StoreCorruptError(StoreError):
    """The store file is not a readable SQLite database."""


class SourceError(TracekitError):
    """A server that traces were asked of cannot be asked, or answers something else."""
