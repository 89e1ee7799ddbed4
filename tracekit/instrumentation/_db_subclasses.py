"""Connections and cursors of C, which cannot be patched: subclasses that watch take their place.

An object of such a subclass is what the program asked for in every other way: ``isinstance``
holds, the library's own C functions take it, and it has no attributes more than before.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["Subclasses"]


class Subclasses:
    """Makes one watching subclass for each class that a program uses, once."""

    def __init__(
        self, base: type, methods: Callable[[type], Mapping[str, Any]], slots: tuple[str, ...] = ()
    ) -> None:
        """Watch classes derived from `base`.

        Args:
            methods: Returns what a subclass of the given class has in place of its methods.
        """
        self._base = base
        self._methods = methods
        self._slots = slots
        # A program has few classes of cursors; one that makes them all the time has the last.
        self._of: Callable[[Any], Any] = functools.lru_cache(maxsize=64)(self._make)

    def of(self, cls: Any) -> Any:
        """Return the subclass of `cls`; what is no class, or watches already, as it is."""
        if not isinstance(cls, type) or not issubclass(cls, self._base):
            return cls
        return cls if _MARK in vars(cls) else self._of(cls)

    def _make(self, cls: type) -> type:
        try:
            names = {
                **self._methods(cls),
                "__slots__": self._slots,
                "__module__": cls.__module__,
                "__qualname__": cls.__qualname__,
                "__doc__": cls.__doc__,
                _MARK: True,
            }
            return type(cls)(cls.__name__, (cls,), names)
        except TypeError:  # a metaclass of the program's, or a class that is final
            return cls


_MARK = "_tracekit_watches"
