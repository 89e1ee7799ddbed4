"""Put one wrapper on one attribute of a library, and take it off leaving no trace.

A wrapper is put where the library defines or inherits the attribute, as an entry of the named
class or module. Taking it off puts the very same object back, or removes the entry where there
was none. A wrapper that somebody else has wrapped since cannot be taken out from underneath; it
stays and lets every call through.
"""

from __future__ import annotations

import copy
import inspect
import threading
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import wrapt

from tracekit.instrumentation._other_tracers import other_tracer

__all__ = ["PatchedFunction", "WrapperFunction", "put_on", "take_off"]

WrapperFunction = Callable[[Callable[..., Any], Any, tuple[Any, ...], dict[str, Any]], Any]

# Wrappers are put on from the thread that instruments and from import hooks in any other.
LOCK = threading.RLock()

_ABSENT = object()
# A chain of wrappers is walked this far; `__wrapped__` may be a cycle in a library's own code.
_DEEPEST = 32


class _PatchedMethod(wrapt.BoundFunctionWrapper):  # type: ignore[type-arg]
    """A patched method as looked up on an instance or a class; copies and pickles like one."""

    def __reduce_ex__(self, protocol: Any) -> Any:
        holder, name, _ = self._self_parent._self_place
        return getattr, (holder if self._self_instance is None else self._self_instance, name)

    def __copy__(self) -> Any:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        if self._self_instance is None:
            return self
        return getattr(copy.deepcopy(self._self_instance, memo), self.__name__)


class PatchedFunction(wrapt.FunctionWrapper):  # type: ignore[type-arg]
    """A function of a library with our wrapper around it, for as long as it has owners."""

    __bound_function_wrapper__ = _PatchedMethod

    def __init__(self, wrapped: Any, wrapper: WrapperFunction, holder: Any, name: str) -> None:
        # wrapt calls the wrapped function directly while `enabled` is false; a list is asked
        # for its truth in C, where a callable would cost a Python call each time.
        owners: Any = []
        super().__init__(wrapped, wrapper, owners)
        self._self_owners = owners
        self._self_key = _key(wrapper)
        self._self_place = (holder, name, vars(holder).get(name, _ABSENT))

    def __reduce_ex__(self, protocol: Any) -> str:
        return str(self.__qualname__)

    def __copy__(self) -> PatchedFunction:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> PatchedFunction:
        return self

    def restore(self) -> None:
        """Take this wrapper off unless somebody else's is on top of it."""
        holder, name, before = self._self_place
        if vars(holder).get(name) is not self:
            return
        if before is _ABSENT:
            delattr(holder, name)
        else:
            setattr(holder, name, before)


def put_on(
    module: ModuleType, attribute: str, wrapper: WrapperFunction, owner: object
) -> PatchedFunction | str:
    """Wrap `attribute` of `module` on behalf of `owner`, or return why it is left alone.

    The same wrapper function is put on once, however many owners ask for it.
    """
    with LOCK:
        holder, name, original = _find(module, attribute)
        if original is _ABSENT:
            return f"{module.__name__} has no {attribute}"
        for layer in _layers(original):
            if isinstance(layer, PatchedFunction) and layer._self_key == _key(wrapper):
                layer._self_owners.append(owner)
                return layer
            other = other_tracer(layer) if getattr(owner, "makes_spans", True) else None
            if other is not None:
                return f"already instrumented by {other}"
        return _wrap(holder, name, original, wrapper, owner)


def take_off(patched: PatchedFunction, owner: object) -> None:
    """Undo one :func:`put_on`; the last owner to leave takes the wrapper along."""
    with LOCK:
        if owner in patched._self_owners:
            patched._self_owners.remove(owner)
        if not patched._self_owners:
            patched.restore()


def _wrap(
    holder: Any, name: str, original: Any, wrapper: WrapperFunction, owner: object
) -> PatchedFunction | str:
    patched = PatchedFunction(original, wrapper, holder, name)
    try:
        setattr(holder, name, patched)
    except (AttributeError, TypeError):
        return f"{holder.__name__}.{name} cannot be patched"
    patched._self_owners.append(owner)
    return patched


def _find(module: ModuleType, attribute: str) -> tuple[Any, str, Any]:
    """Return what holds the attribute, its last name, and the entry as it is stored.

    The entry comes from ``__dict__`` along the MRO: ``getattr`` would bind a method and hide
    whether it is a static or a class method.
    """
    holder: Any = module
    *path, name = attribute.split(".")
    for part in path:
        holder = getattr(holder, part, None)
    if holder is None:
        return holder, name, _ABSENT
    places = inspect.getmro(holder) if inspect.isclass(holder) else (holder,)
    for place in places:
        if name in vars(place):
            return holder, name, vars(place)[name]
    return holder, name, _ABSENT


def _layers(function: Any) -> Iterator[Any]:
    for _ in range(_DEEPEST):
        yield function
        function = inspect.getattr_static(function, "__wrapped__", None) or getattr(
            function, "__wrapped__", None
        )
        if function is None:
            return


def _key(wrapper: Any) -> object:
    """Tell one wrapper function from another, the same across instances of its class."""
    function = getattr(wrapper, "__func__", wrapper)
    name = getattr(function, "__qualname__", None)
    return wrapper if name is None else (function.__module__, name)
