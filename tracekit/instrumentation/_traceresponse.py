"""What a callee decided late, on its way back to the caller: the header traceresponse.

A tail sampler decides when a request is over. By then the caller's spans of the same trace may
be about to be thrown away, so the response says what was settled until its headers were sent:

- ``traceresponse: 00-{trace id}-{span id}-01`` where the callee keeps its part of the trace for
  what is in it, ``-00`` where nothing says so yet. Its share may still fall on it: that is drawn
  from the trace id, by the caller as well.
- ``tracekit-kept: 1`` beside it in the first case. The flag alone will not do: a callee that
  samples at the head, as most do, sets it on each response to a sampled request, and a caller that
  followed it would keep everything.

What happens behind the headers, in a streamed body, is not told. Trailers would be the place, and
neither proxies nor clients pass them on.

Nothing is written, and nothing read, where no tail sampler is at work: spans say so by ``kept``,
which is None there and missing under other providers.
https://w3c.github.io/trace-context/#traceresponse-header
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

from opentelemetry.trace import Span

from tracekit.errors import InvalidValueError
from tracekit.instrumentation._patch import quiet

__all__ = [
    "ALWAYS",
    "AUTO",
    "KEPT_BY_CALLEE",
    "NEVER",
    "Answer",
    "answer",
    "hear",
    "mode_of",
    "refused",
    "with_answer",
]

AUTO, ALWAYS, NEVER = "auto", "always", "never"
KEPT_BY_CALLEE = "callee"
"""The reason that a client's span gives when it asks to be kept."""

_HEADER, _KEPT = "traceresponse", "tracekit-kept"
_OURS = frozenset((_HEADER, _KEPT, _HEADER.encode(), _KEPT.encode()))
_LONGEST = 512
# Version 00 ends behind its flags, a later one may go on behind a dash; ff is none.
_VALID = re.compile(
    "(?!ff|00.{54})[0-9a-f]{2}-(?P<trace_id>(?!0{32})[0-9a-f]{32})-(?!0{16})[0-9a-f]{16}"
    "-(?P<flags>[0-9a-f]{2})(?:-.*)?"
).fullmatch
_SAMPLED = 1

_T = TypeVar("_T", str, bytes)
Answer = Sequence[tuple[str, str]]
"""Headers to add to a response; often none."""

refused: dict[str, int] = {}
"""How often what a callee answered could not be used, by reason."""


def mode_of(option: str | None, environ: Mapping[str, str]) -> str:
    """Return when responses say what was decided, from the option or ``TRACEKIT_TRACERESPONSE``.

    Raises:
        InvalidValueError: Something else was asked for.
    """
    mode = environ.get("TRACEKIT_TRACERESPONSE") or AUTO if option is None else option
    if mode not in (AUTO, ALWAYS, NEVER):
        raise InvalidValueError("TRACEKIT_TRACERESPONSE", mode, f"{AUTO}, {ALWAYS} or {NEVER}")
    return mode


def answer(span: Span, kept: bool | None, mode: str) -> Answer:
    """Return the headers that tell the caller what is settled about a server's span.

    In the mode ``auto`` only a caller whose trace is continued is told: nobody else has anything
    to decide, and neither a browser nor an untrusted caller is to learn of our traces.
    """
    if mode == AUTO and not _continues(span):
        return ()
    context = span.get_span_context()
    is_sampled = context.trace_flags.sampled if kept is None else kept
    ids = f"00-{context.trace_id:032x}-{context.span_id:016x}"
    told = (_HEADER, f"{ids}-{'01' if is_sampled else '00'}")
    return (told, (_KEPT, "1")) if kept else (told,)


def with_answer(headers: Iterable[tuple[_T, _T]], told: Iterable[tuple[_T, _T]]) -> list[Any]:
    """Return headers of texts or bytes with the answer among them, in the place of any other.

    A gateway that passes on what it was answered passes on its callee's as well; what the callee
    decided is in the gateway's own decision by then.
    """
    return [*(pair for pair in headers if pair[0].lower() not in _OURS), *told]


def _continues(span: Any) -> bool:
    parent = getattr(span, "parent", None)
    return parent is not None and bool(parent.is_remote)


@quiet
def hear(span: Any, headers: Any) -> None:
    """Ask that a client's span be kept if a response says that the callee keeps its part.

    Args:
        headers: What has a ``get()`` that takes a name in lower case; all else says nothing.
    """
    get = getattr(headers, "get", None)
    if get is None:
        return
    header = get(_HEADER)
    if header is None:
        return
    is_short = isinstance(header, str) and len(header) <= _LONGEST
    found = _VALID(header.strip(" \t")) if is_short else None
    if found is None:
        _refuse("traceresponse_malformed")
    elif int(found["trace_id"], 16) != span.get_span_context().trace_id:
        # Out of a cache, or of a callee that began a trace of its own.
        _refuse("traceresponse_other_trace")
    elif int(found["flags"], 16) & _SAMPLED and get(_KEPT) == "1":
        span.keep(KEPT_BY_CALLEE)


def _refuse(reason: str) -> None:
    refused[reason] = refused.get(reason, 0) + 1  # two at the same instant may count as one
