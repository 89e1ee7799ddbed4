"""What a server of Redis' protocol answered, read from the exception of a client."""

from __future__ import annotations

import re

__all__ = ["status_code_of"]

# The prefixes that a client takes off the message, by the class that stands for them.
_PREFIXES = {
    "AskError": "ASK",
    "AuthenticationError": "NOAUTH",
    "AuthenticationWrongNumberOfArgsError": "ERR",
    "BusyLoadingError": "LOADING",
    "ClusterCrossSlotError": "CROSSSLOT",
    "ClusterDownError": "CLUSTERDOWN",
    "ExecAbortError": "EXECABORT",
    "MasterDownError": "MASTERDOWN",
    "ModuleError": "ERR",
    "MovedError": "MOVED",
    "NoPermissionError": "NOPERM",
    "NoScriptError": "NOSCRIPT",
    "OutOfMemoryError": "OOM",
    "ReadOnlyError": "READONLY",
    "TryAgainError": "TRYAGAIN",
}
_PREFIX = re.compile(r"([A-Z][A-Z0-9_]*)(?: |$)")


def status_code_of(error: BaseException) -> str:
    """Return the prefix of an error that the server answered with; empty for any other."""
    names = [cls.__name__ for cls in type(error).__mro__]
    if "RedisError" not in names and "ValkeyError" not in names:
        return ""
    code = getattr(error, "status_code", None)
    if isinstance(code, str):
        return code
    if names[0] in _PREFIXES:
        return _PREFIXES[names[0]]
    if names[0] != "ResponseError":
        return ""
    prefix = _PREFIX.match(str(error))
    return prefix[1] if prefix else "ERR"
