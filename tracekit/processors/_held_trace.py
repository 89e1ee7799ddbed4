"""A local trace as the tail sampler that holds it sees it."""

from __future__ import annotations

from itertools import repeat, starmap
from threading import RLock
from typing import Any, NamedTuple

from tracekit._local_trace import LocalTrace

__all__ = ["BY_CHANCE", "HeldTrace", "Verdict"]

FIRST_LOOK = 8
EVERY = 32
BY_CHANCE = "share"


class Verdict(NamedTuple):
    """What was decided about a local trace.

    Attributes:
        label: Why it is kept; or which share it does not belong to.
        threshold: Of the randomness, for one that was kept by chance; 0 where none was needed.
    """

    is_kept: bool
    label: str
    threshold: int = 0

    @property
    def has_reason(self) -> bool:
        return self.is_kept and not self.threshold and self.label != BY_CHANCE


class HeldTrace(LocalTrace):
    """The ended spans of a local trace, and what a tail sampler knows of it.

    Attributes:
        root: The local root once it has ended.
        since_s: When the worker first saw it, on the monotonic clock.
        is_ending: Whether its late spans are being waited for.
        charged: Spans of it that are counted as held: as many as it may have before it is looked
            at again, so that the bound holds in between.
        charged_bytes: Their size, by estimate.
        is_slow: Whether the root took unusually long; None until that was asked.
        is_early: Decided before its local root had ended.
    """

    keeper: Any = None

    root: Any = None
    since_s: float = 0.0
    is_ending: bool = False
    charged: int = 0
    charged_bytes: int = 0
    is_slow: bool | None = None
    is_early: bool = False
    verdict: Verdict | None = None

    @property
    def lock(self) -> RLock:
        """The one of the stage that holds it."""
        return self.keeper.settling  # type: ignore[no-any-return]

    def look_later(self) -> None:
        """Have the stage look at it again when it has grown."""
        count = len(self)
        self.attention_at = FIRST_LOOK if count < FIRST_LOOK else count + EVERY
        if self.verdict is not None:
            # The worker decided in between: had it done so a moment later, its 0 would stand.
            self.attention_at = 0

    def take_all(self) -> list[Any]:
        """Return the spans and keep none; under the lock.

        What is appended meanwhile stays, and whoever appends it finds that it is decided.
        """
        taken: list[Any] = []
        try:
            # In C throughout: no span is between the lists when a signal handler looks.
            taken.extend(starmap(self.pop, repeat((), len(self))))
        except IndexError:  # that handler took the rest
            pass
        taken.reverse()
        return taken
