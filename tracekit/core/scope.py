"""Leaving a scope that is not the current one: quietly, and without harm to its neighbours.

Three ways lead here. A generator that holds a scope open is closed in another Context, so
there is nothing of ours to restore. Two scopes overlap: the outer one is left while the
inner is still open; nothing may change now, but the inner one must not restore the outer
one later, so it is given the outer one's predecessor instead. And a scope that was entered
in one Context is left in a copy of it, where it is current but its token is void.
https://github.com/open-telemetry/opentelemetry-python/issues/2606
"""

from __future__ import annotations

from typing import Any, NamedTuple

from opentelemetry.context import Context

from tracekit._otel_context import SPAN_KEY, attach, current_context

__all__ = ["leave_elsewhere"]

MAX_OPEN_SCOPES = 10_000
"""How far the chain of open scopes is followed; a deeper one is left as it is."""


class _Relinked(NamedTuple):
    """What replaces a scope's token once the scope below it is gone."""

    old_value: Context


def leave_elsewhere(scope: Any, current: Any, token: Any) -> None:
    """Leave ``scope``, whose span ``current`` is not current or whose token is void here."""
    previous = getattr(token, "old_value", None)
    if not isinstance(previous, Context):
        # The token of a first attach has no old value: before it, there was no Context.
        previous = Context()
    if current_context().get(SPAN_KEY) is current:
        attach(previous)
        if isinstance(token, _Relinked):
            return
    elif _relink_scope_above(current, previous):
        return
    scope._binding.count_foreign_exit()


def _relink_scope_above(current: Any, previous: Context) -> bool:
    """Find the open scope that would restore ``current`` and let it restore ``previous``."""
    above: Any = current_context().get(SPAN_KEY)
    for _ in range(MAX_OPEN_SCOPES):
        token = getattr(above, "_token", None)
        below = getattr(token, "old_value", None)
        if not isinstance(below, Context):
            return False
        if below.get(SPAN_KEY) is current:
            above._token = _Relinked(previous)
            return True
        above = below.get(SPAN_KEY)
    return False
