"""A local trace as the tail sampler that holds it sees it, and what is decided about one."""

from __future__ import annotations

from collections.abc import Callable
from threading import RLock
from typing import Any

from tracekit._local_trace import LocalTrace

__all__ = ["BY_CHANCE", "HeldTrace", "Verdict"]

FIRST_LOOK = 8
EVERY = 32
BY_CHANCE = "share"


class Verdict:
    """What is decided about local traces, and how many it was decided about.

    There is one of a kind, so that counting is adding to it.

    Attributes:
        label: Why they are kept; or which share they do not belong to.
        threshold: Of the randomness, for those kept by chance; 0 where none was needed.
        traces, spans: How many so far; written under the lock of the stage.
    """

    __slots__ = ("is_kept", "label", "spans", "threshold", "traces")

    def __init__(self, is_kept: bool, label: str, threshold: int) -> None:
        self.is_kept, self.label, self.threshold = is_kept, label, threshold
        self.traces = self.spans = 0

    @property
    def has_reason(self) -> bool:
        return self.is_kept and not self.threshold and self.label != BY_CHANCE


class HeldTrace(LocalTrace):
    """The ended spans of a local trace, and what a tail sampler knows of it.

    Attributes:
        attention_at: The number of spans at which the stage looks; 0 once it is decided.
        root: The local root once it has ended, until it is decided.
        since_s: When the worker first saw it under way, on the monotonic clock.
        charged: Spans of it that are counted as held: as many as it may have before it is looked
            at again, so that the bound holds in between.
        charged_bytes: Their size, by estimate.
        is_early: Decided before its local root had ended.
    """

    # These are of every trace, the others of few. https://docs.python.org/3/reference/datamodel.html#slots
    __slots__ = ("attention_at", "root", "verdict")

    keeper: Any = None
    begun: Callable[[HeldTrace], None]
    """Tells the stage of it; a function of C, once for the class."""

    attention_at: int
    root: Any
    verdict: Verdict | None

    since_s: float = 0.0
    charged: int = 0
    charged_bytes: int = 0
    is_early: bool = False

    def __init__(self) -> None:
        self.attention_at = FIRST_LOOK
        self.root = self.verdict = None
        self.begun(self)

    @property
    def lock(self) -> RLock:
        """The one of the stage that holds it."""
        return self.keeper.settling  # type: ignore[no-any-return]

    def look_later(self) -> None:
        """Have the stage look at it again when it has grown."""
        self.attention_at = len(self) + EVERY
        if self.verdict is not None:
            # The worker decided in between: had it done so a moment later, its 0 would stand.
            self.attention_at = 0

    def take_all(self) -> list[Any]:
        """Return the spans and keep none; under the lock.

        What is appended meanwhile stays, and whoever appends it finds that it is decided.
        """
        spans = self[:]
        del self[: len(spans)]
        return spans

    def decide(self, verdict: Verdict) -> list[Any]:
        """Have all spans follow ``verdict``, and return those that are here; under the lock."""
        # In this order: who finds the number 0 finds the verdict as well, and who appended before
        # that was not called has left it here.
        self.verdict = verdict
        self.attention_at = 0
        self.root = None
        # take_all(), written out: this is the way of every trace.
        spans = self[:]
        del self[: len(spans)]
        verdict.traces += 1
        verdict.spans += len(spans)
        return spans
