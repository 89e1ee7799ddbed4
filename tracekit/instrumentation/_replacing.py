"""Put a plain function in the place of a library's, for what every request goes through.

A wrapper of ``wrapt`` serves every kind of function and makes a bound method at each call, which
takes a microsecond, and three with cold caches. What stands here instead is a function with the
library's own parameters, which it takes and hands on as they are.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import FunctionType, ModuleType
from typing import Any

from tracekit.instrumentation._other_tracers import other_tracer
from tracekit.instrumentation._patch import LibraryInstrumentor, Patch
from tracekit.instrumentation._wrapping import (
    _ABSENT,
    LOCK,
    _find,
    _key,
    _layers,
)

__all__ = ["Make", "Replacement", "Replacing", "ReplacingInstrumentor", "put_in_place"]

Make = Callable[[Callable[..., Any], Sequence[object]], Callable[..., Any]]

_MARK = "_tracekit_replacement"


@dataclass(frozen=True)
class Replacing(Patch):
    """One function of a library, and what takes its place.

    Attributes:
        wrapper: Called once, as ``wrapper(original, owners)``; returns the function that takes
            the place of `original`, whose first argument is the instance if it is a method. While
            there are no owners, that must do what the original does.
    """

    wrapper: Any


class Replacement:
    """A function that was put in the place of another, for as long as it has owners."""

    def __init__(self, original: Any, make: Make, holder: Any, name: str) -> None:
        self._self_owners = owners = list[object]()
        self._self_key = _key(make)
        self._self_place = (holder, name, vars(holder).get(name, _ABSENT))
        # By type(), because a proxy claims to be of the class that it stands for.
        inner = original if type(original) is FunctionType else _called_by(original, holder)
        self.function: Any = functools.update_wrapper(make(inner, owners), inner)
        self.function.__wrapped__ = original
        vars(self.function)[_MARK] = self

    @property
    def owners(self) -> Sequence[object]:
        return self._self_owners

    @property
    def holder(self) -> Any:
        """The class or module whose attribute it is."""
        return self._self_place[0]

    @property
    def original(self) -> Any:
        return self.function.__wrapped__

    def restore(self) -> None:
        """Put the original back unless somebody else's wrapper is on top."""
        holder, name, before = self._self_place
        if vars(holder).get(name) is not self.function:
            return
        if before is _ABSENT:
            delattr(holder, name)
        else:
            setattr(holder, name, before)


class ReplacingInstrumentor(LibraryInstrumentor):
    """An instrumentor all of whose patches are :class:`Replacing`."""

    def _put_all_on(self, module: ModuleType, name: str) -> str | None:
        done: list[Any] = self._put_on.setdefault(name, [])
        for patch in self._patches:
            if patch.module != name:
                continue
            make: Any = patch.wrapper
            result = put_in_place(module, patch.attribute, make, self)
            if not isinstance(result, str):
                done.append(result)
            elif not patch.optional:
                return result
        return None


def put_in_place(
    module: ModuleType, attribute: str, make: Make, owner: object
) -> Replacement | str:
    """Replace `attribute` of `module` on behalf of `owner`, or return why it is left alone.

    The same `make` is used once, however many owners ask for it.
    """
    with LOCK:
        holder, name, original = _find(module, attribute)
        if original is _ABSENT:
            return f"{module.__name__} has no {attribute}"
        for layer in _layers(original):
            ours = _replacement_of(layer)
            if ours is not None and ours._self_key == _key(make):
                ours._self_owners.append(owner)
                return ours
            other = other_tracer(layer) if getattr(owner, "makes_spans", True) else None
            if other is not None:
                return f"already instrumented by {other}"
        replacement = Replacement(original, make, holder, name)
        try:
            setattr(holder, name, replacement.function)
        except (AttributeError, TypeError):
            return f"{holder.__name__}.{name} cannot be patched"
        replacement._self_owners.append(owner)
        return replacement


def _replacement_of(layer: Any) -> Replacement | None:
    found = vars(layer).get(_MARK) if type(layer) is FunctionType else None
    # `functools.wraps` copies the mark to a function that somebody puts on top.
    return found if isinstance(found, Replacement) and found.function is layer else None


def _called_by(original: Any, holder: Any) -> Callable[..., Any]:
    """Return a function that calls `original`, somebody's wrapper, the way its holder would."""

    @functools.wraps(original)
    def call(*args: Any, **kwargs: Any) -> Any:
        return original(*args, **kwargs)

    @functools.wraps(original)
    def call_on(instance: Any, *args: Any, **kwargs: Any) -> Any:
        return original.__get__(instance, type(instance))(*args, **kwargs)

    return call_on if inspect.isclass(holder) else call
