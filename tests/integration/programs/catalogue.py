"""The list of programs that are run twice, and what each of them is given."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from opentelemetry.trace import Tracer

__all__ = ["PROGRAMS", "Program", "World", "program"]


@dataclass
class World:
    """What a program needs beside opentelemetry-api: a provider, and the names of its package."""

    provider: Any
    names: Any
    """``TracerProvider``, ``SamplingResult`` and so on: the SDK's, or those of tracekit.sdk."""

    @property
    def tracer(self) -> Tracer:
        return self.provider.get_tracer("program", "1.0")


@dataclass(frozen=True)
class Program:
    """One small program; what it returns is compared as well as what it exports."""

    run: Callable[[World], Any]
    environment: Mapping[str, str]
    options: Callable[[Any], dict[str, Any]]

    @property
    def name(self) -> str:
        return self.run.__name__


PROGRAMS: list[Program] = []


def program(
    environment: Mapping[str, str] | None = None,
    options: Callable[[Any], dict[str, Any]] = lambda names: {},
) -> Callable[[Callable[[World], Any]], Callable[[World], Any]]:
    """Put a program on the list.

    Args:
        environment: Variables that are set before the provider is made.
        options: Makes the provider's arguments from the names of its package.
    """

    def add(run: Callable[[World], Any]) -> Callable[[World], Any]:
        PROGRAMS.append(Program(run, environment or {}, options))
        return run

    return add
