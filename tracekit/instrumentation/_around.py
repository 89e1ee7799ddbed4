"""Write a function that has the parameters of a library's and steps of ours around its call.

A wrapper that takes ``*args, **kwargs`` makes a dictionary of what its caller named, and another
one to hand it on: for the dozen arguments that urllib3 names at each request that is 10,000
machine instructions, a fifteenth of all that tracing it adds. A function that names the same
parameters takes each as a local variable and hands it on as one. Only the library knows its
parameters, which differ from version to version, so the function is written when it is needed.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from inspect import Parameter
from typing import Any

__all__ = ["around"]

_NOTHING: Mapping[str, int] = {}
_SOMEBODY: Sequence[object] = [None]
_STARS: Mapping[Any, str] = {Parameter.VAR_POSITIONAL: "*", Parameter.VAR_KEYWORD: "**"}
_BY_PLACE = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)

# More than this, where what is named counts twice, CPython hands on in a tuple and a dictionary.
# https://github.com/python/cpython/blob/v3.13.0/Python/compile.c (STACK_USE_GUIDELINE)
_MOST_ON_STACK = 30
_ANY = [
    Parameter("args", Parameter.VAR_POSITIONAL),
    Parameter("kwargs", Parameter.VAR_KEYWORD),
]

_SOURCE = """
{define} call({parameters}):
    _step = _before({told}) if _owners else None
    if _step is None:
        return {call}_original({arguments})
{changes}    try:
        _result = {call}_original({arguments})
    except BaseException as _error:
        _failed(_step, _error)
        raise
    _after(_step, _result, {known})
    return _result
"""


def around(
    original: Callable[..., Any],
    told: Mapping[str, int],
    before: Callable[..., Any],
    after: Callable[..., object] | None = None,
    failed: Callable[[Any, BaseException], object] | None = None,
    changed: Mapping[str, int] = _NOTHING,
    owners: Sequence[object] = _SOMEBODY,
    awaits: bool = False,
) -> Callable[..., Any]:
    """Return a function that calls `original` with what it is called with itself.

    Args:
        told: Arguments that `before` and `after` get, and at which place each stands where it is
            not named. One that is not there is None.
        before: Called first; where it returns None, nothing else of ours is called.
        after: Called with what `before` returned, the result, and what is told.
        failed: Called with what `before` returned and the exception, which then goes on. None
            of the three may raise; a `before` that always returns None needs no others.
        changed: Arguments in whose place `original` gets the attribute of that name of what
            `before` returned; and at which place each stands.
        owners: While there are none, nothing of ours is called.
        awaits: Whether `original` is a coroutine function; then so is what is returned.
    """
    parameters = _parameters_of(original)
    names: dict[str, Any] = {
        "_original": original,
        "_before": before,
        "_after": after,
        "_failed": failed,
        "_put": _put,
        "_owners": owners,
    }
    names.update({f"_default_{each.name}": each.default for each in parameters})
    found = {name: _found(name, place, parameters) for name, place in told.items()}
    source = _SOURCE.format(
        define="async def" if awaits else "def",
        call="await " if awaits else "",
        parameters=_declared(parameters),
        arguments=", ".join(map(_handed_on, parameters)),
        told=", ".join(map(_looked_for, found, found.values())),
        known=", ".join(map(_known, found, found.values())),
        changes="".join(_change(name, place, parameters) for name, place in changed.items()),
    )
    # No file name of a session that a person types into: those lines are the program's.
    exec(compile(source, "<tracekit>", "exec"), names)
    call: Callable[..., Any] = names["call"]
    return call


def _parameters_of(original: Callable[..., Any]) -> Sequence[Parameter]:
    """Return what is taken and handed on: of so many that a dictionary is made anyhow, only those
    that the caller gave, in the one that was made for them."""
    named = list(inspect.signature(original, follow_wrapped=False).parameters.values())
    counts = [2 if each.kind is Parameter.KEYWORD_ONLY else 1 for each in named]
    return _ANY if sum(counts) > _MOST_ON_STACK else named


def _declared(parameters: Sequence[Parameter]) -> str:
    """Return the same parameters as source, each default by the name of what it is."""
    text, before = list[str](), None
    for each in parameters:
        if before is Parameter.POSITIONAL_ONLY is not each.kind:
            text.append("/")
        if each.kind is Parameter.KEYWORD_ONLY and before not in (
            Parameter.KEYWORD_ONLY,
            Parameter.VAR_POSITIONAL,
        ):
            text.append("*")
        default = "" if each.default is Parameter.empty else f"=_default_{each.name}"
        text.append(f"{_STARS.get(each.kind, '')}{each.name}{default}")
        before = each.kind
    return ", ".join([*text, "/"] if before is Parameter.POSITIONAL_ONLY else text)


def _handed_on(parameter: Parameter) -> str:
    if parameter.kind is Parameter.KEYWORD_ONLY:
        return f"{parameter.name}={parameter.name}"
    return _STARS.get(parameter.kind, "") + parameter.name


def _found(name: str, place: int, parameters: Sequence[Parameter]) -> str:
    """Return the source of an argument: a parameter, or one of those that are taken unnamed."""
    kinds = {each.kind: each.name for each in parameters}
    listed = [each.name for each in parameters if each.kind in _BY_PLACE]
    if _is_named(name, parameters):
        return name
    if place == 0 and listed:  # the instance, whatever they call it
        return listed[0]
    rest, named = kinds.get(Parameter.VAR_POSITIONAL), kinds.get(Parameter.VAR_KEYWORD)
    by_name = f"{named}.get({name!r})" if named else "None"
    index = place - len(listed)
    if rest is None or index < 0:
        return by_name
    return f"({rest}[{index}] if len({rest}) > {index} else {by_name})"


def _looked_for(name: str, source: str) -> str:
    """Return the source of an argument, kept for the second time where it is no variable."""
    return source if source.isidentifier() else f"({_known(name, source)} := {source})"


def _known(name: str, source: str) -> str:
    return source if source.isidentifier() else f"_told_{name}"


def _change(name: str, place: int, parameters: Sequence[Parameter]) -> str:
    """Return the line that puts something else in the place of an argument."""
    if _is_named(name, parameters):
        return f"    {name} = _step.{name}\n"
    kinds = {each.kind: each.name for each in parameters}
    rest, named = kinds.get(Parameter.VAR_POSITIONAL), kinds.get(Parameter.VAR_KEYWORD)
    index = place - sum(each.kind in _BY_PLACE for each in parameters)
    unnamed = f"{rest or ()}, {named or {}}, {index}, {name!r}, _step.{name}"
    return f"    {rest or '_rest'}, {named or '_named'} = _put({unnamed})\n"


def _put(
    rest: tuple[Any, ...], named: dict[str, Any], index: int, name: str, value: object
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if rest[index:]:
        return (*rest[:index], value, *rest[index + 1 :]), named
    return rest, {**named, name: value}


def _is_named(name: str, parameters: Sequence[Parameter]) -> bool:
    return name in (each.name for each in parameters if each.kind not in _STARS)
