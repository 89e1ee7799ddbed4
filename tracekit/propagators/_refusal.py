"""What every propagator does with a header that it cannot use: count it and go on."""

from __future__ import annotations

__all__ = ["RefusedError", "count_refusal"]


class RefusedError(Exception):
    """A header cannot be used. Never leaves this package.

    Args:
        reason: One of a handful of fixed words, so that counting by it stays bounded.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def count_refusal(refused: dict[str, int], reason: str) -> None:
    """Add one to the count of a reason.

    Concurrency: from any thread, without a lock; two at the same instant may count as one.
    """
    refused[reason] = refused.get(reason, 0) + 1
