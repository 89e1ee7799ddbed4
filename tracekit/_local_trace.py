"""The local trace: where the ended spans below one local root wait for a tail sampler."""

from __future__ import annotations

from typing import Any, Protocol

__all__ = ["LocalTrace"]


class _Keeper(Protocol):
    def has_reason(self, trace: LocalTrace, span: Any) -> bool: ...


class LocalTrace(list[Any]):
    """The spans below one local root that have ended and are not decided about.

    A local root makes one when it starts and hands it down to all that starts below it, so that
    a span reaches it without a search, two requests of one trace in one process stay apart, and
    what ends late finds the decision as long as anybody can end late.

    The stage that holds it makes a class of its own out of this one and is named there, once for
    all. What most traces never have is a default on the class.

    Attributes:
        may_have_failed: Whether a span of it was given an error status, which may have been
            taken back since.
        asked: Why somebody asked that it be kept, or nothing.

    Concurrency: spans are appended by any thread without a lock; all else is the stage's.
    """

    __slots__ = ("__dict__",)

    keeper: _Keeper | None = None

    may_have_failed: bool = False
    asked: str = ""

    def keep(self, reason: str) -> None:
        # The first reason stays; what is no text is a name's mistake, and no object is kept.
        named: object = reason
        if not self.asked:
            self.asked = named if isinstance(named, str) and named else "asked"

    def is_kept(self, span: Any) -> bool:
        """Whether it is settled that it will be kept, or was; ``span`` is one of it."""
        return self.keeper is not None and self.keeper.has_reason(self, span)
