"""Where opentelemetry-api keeps the global propagator: a private name, read without a call.

Asking for it with ``get_global_textmap()`` takes 0.02 µs, and 1 µs where caches are cold, as they
are each time that a program has waited for a service. The name is looked up and tried once, when
this module is loaded; where it is not what was expected, the public function is asked.
"""

from __future__ import annotations

from typing import Any

from opentelemetry import propagate

__all__ = ["TEXTMAP"]


class _Asked:
    """Stands for the API's module where that has no such name."""

    __slots__ = ()

    @property
    def _HTTP_TEXT_FORMAT(self) -> Any:  # noqa: N802 - the API's name
        return propagate.get_global_textmap()


def _holder() -> Any:
    known = getattr(propagate, "_HTTP_TEXT_FORMAT", None)
    return propagate if known is propagate.get_global_textmap() else _Asked()


TEXTMAP: Any = _holder()
"""Its ``_HTTP_TEXT_FORMAT`` is the global propagator."""
