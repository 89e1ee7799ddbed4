"""The base for a library of which some calls are one span each: all that a small one needs.

Who adds a library says which of its functions, what each span is named and starts with, and what
an answer or an exception tells. Putting on and taking off, sync and async, who called, what is
silenced, and that no exception of ours reaches the program is done here.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tracekit import semconv
from tracekit.instrumentation._around import around
from tracekit.instrumentation._caller import caller_from
from tracekit.instrumentation._operation import Operation, begin
from tracekit.instrumentation._patch import quiet
from tracekit.instrumentation._replacing import Replacing, ReplacingInstrumentor

__all__ = ["Call", "CallInstrumentor"]

Told = dict[str, Any]


@dataclass(frozen=True)
class Call:
    """A function of a library, each call of which is a CLIENT span.

    Attributes:
        module: Where it is, as in :class:`Patch`.
        attribute: Dotted path inside the module, such as ``SMTP.sendmail``.
        began: Returns the span's name, and the attributes it starts with. It gets the arguments
            that it has parameters for, by the library's names, None for one that was not given
            and has no default; the first is the instance, whatever it is named.
        ended: Returns what the function's answer adds to them; an ``error.type`` among them makes
            the call a failed one.
    """

    module: str
    attribute: str
    began: Callable[..., tuple[str, Told]]
    ended: Callable[[Any], Told | None] | None = None


class CallInstrumentor(ReplacingInstrumentor):
    """Make a span of each call that :meth:`calls` names. Option: ``code_location``.

    A call inside of another of the same library is part of that, and has none.
    """

    def calls(self) -> Sequence[Call]:
        """Return what to watch."""
        raise NotImplementedError

    def code_of(self, error: Any) -> object:
        """Return the code by which the library tells a failure, for ``error.type``; None for none.

        May raise: then the exception's class is what is told.
        """

    def configure(self, options: Mapping[str, Any]) -> None:
        self._caller = caller_from(os.environ, **options)

    def patches(self) -> Sequence[Replacing]:
        return [
            Replacing(call.module, call.attribute, _Watched(call, self)) for call in self.calls()
        ]

    @quiet
    def _begin(self, call: Call, *arguments: Any) -> Operation | None:
        name, attributes = call.began(*arguments)
        if self._caller is not None:
            attributes = attributes | self._caller.attributes()
        return begin(self.tracer.start_span, self.name, name, attributes)

    def _fail(self, operation: Operation, error: BaseException) -> None:
        code = quiet(self.code_of)(error)
        operation.fail(error, None if code is None else {semconv.ERROR_TYPE: str(code)})


@dataclass(frozen=True)
class _Watched:
    """Makes the function that takes the place of a library's; equal for equal calls."""

    call: Call
    by: CallInstrumentor = field(compare=False)

    def __call__(self, original: Callable[..., Any], owners: Sequence[object]) -> Any:
        call, instrumentor = self.call, self.by
        ended = None if call.ended is None else quiet(call.ended)
        return around(
            original,
            {name: at for at, name in enumerate(inspect.signature(call.began).parameters)},
            before=lambda *arguments: instrumentor._begin(call, *arguments),
            after=lambda operation, answer, *_: _end(operation, ended and ended(answer)),
            failed=instrumentor._fail,
            owners=owners,
            awaits=inspect.iscoroutinefunction(inspect.unwrap(original)),
        )


def _end(operation: Operation, told: Told | None) -> None:
    if told and semconv.ERROR_TYPE in told:
        operation.fail_with(str(told.pop(semconv.ERROR_TYPE)), "", told)
    else:
        operation.succeed(told)
