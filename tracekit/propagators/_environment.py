"""Environment variables as carrier: TRACEPARENT, TRACESTATE, BAGGAGE and their like.

Source: https://opentelemetry.io/docs/specs/otel/context/env-carriers/
"""

from __future__ import annotations

import re
from collections.abc import Mapping, MutableMapping

from opentelemetry.propagators.textmap import Getter, Setter

__all__ = ["EnvironmentGetter", "EnvironmentSetter", "environment_with", "variable_name"]

# A process that is started fails when a variable is longer than the platform allows, and Windows
# allows the least: 32767 characters for name, value and what joins them.
_MAX_VARIABLE = 32_767


def variable_name(field: str) -> str:
    """Spell a propagation field as the name of an environment variable."""
    name = re.sub(r"[^A-Z0-9_]", "_", field.upper())
    return f"_{name}" if not name or name[0].isdigit() else name


class EnvironmentGetter(Getter[Mapping[str, str]]):
    """Read propagation fields from an environment, such as os.environ."""

    def get(self, carrier: Mapping[str, str], key: str) -> list[str] | None:
        value = carrier.get(variable_name(key))
        return None if value is None else [value]

    def keys(self, carrier: Mapping[str, str]) -> list[str]:
        """List the variables whose names a propagation field could have been given."""
        return [name for name in carrier if name == variable_name(name)]


class EnvironmentSetter(Setter[MutableMapping[str, str]]):
    """Write propagation fields into the environment of a process to be started.

    A value that no environment could hold is left out, whole: half a field is no field. The
    propagators cut theirs to far less, by whole members
    (https://www.w3.org/TR/trace-context-2/#tracestate-limits).
    """

    def set(self, carrier: MutableMapping[str, str], key: str, value: str) -> None:
        name = variable_name(key)
        if "\0" in value or len(name) + len(value) + 2 > _MAX_VARIABLE:
            return
        carrier[name] = value


def environment_with(environment: Mapping[str, str], fields: Mapping[str, str]) -> dict[str, str]:
    """Copy an environment and write propagation fields into the copy.

    "Applications SHOULD NOT modify context-related environment variables of the environment in
    which the parent process exists": os.environ goes in and stays as it is.
    """
    copied = dict(environment)
    setter = EnvironmentSetter()
    for field, value in fields.items():
        setter.set(copied, field, value)
    return copied
