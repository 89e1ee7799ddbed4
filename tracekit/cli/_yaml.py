"""Plain data as YAML, with comments: enough for a configuration file."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["yaml_text"]

# What no reader of YAML 1.1 or 1.2 takes for anything but text. A colon in the middle of a word
# is plain; so is `${env:NAME}`, which the Collector replaces.
_PLAIN = re.compile(r"(?!(?:true|false|yes|no|on|off|null|y|n)$)[A-Za-z_/][\w./-]*", re.IGNORECASE)
_WIDTH = 88


def yaml_text(tree: Mapping[str, Any], comments: Mapping[str, str]) -> str:
    """Return mappings, lists, texts, numbers and truth values as block YAML.

    Args:
        comments: What stands above a key, by its dotted path.
    """
    return "\n".join(_mapping(tree, comments, "", "")) + "\n"


def _mapping(
    tree: Mapping[str, Any], comments: Mapping[str, str], path: str, indent: str
) -> Iterator[str]:
    for key, value in tree.items():
        place = f"{path}{key}"
        yield from _comment(comments.get(place, ""), indent)
        yield from _entry(f"{indent}{_scalar(key)}:", value, comments, f"{place}.", indent)


def _entry(
    head: str, value: Any, comments: Mapping[str, str], path: str, indent: str
) -> Iterator[str]:
    if isinstance(value, Mapping) and value:
        yield head
        yield from _mapping(value, comments, path, f"{indent}  ")
    elif isinstance(value, (list, tuple)) and any(isinstance(item, Mapping) for item in value):
        yield head
        for item in value:
            yield from _item(item, comments, path, f"{indent}  ")
    else:
        yield f"{head} {_scalar(value)}"


def _item(item: Any, comments: Mapping[str, str], path: str, indent: str) -> Iterator[str]:
    lines = list(_mapping(item, comments, path, f"{indent}  "))
    yield f"{indent}- {lines[0].lstrip()}"
    yield from lines[1:]


def _comment(text: str, indent: str) -> Iterator[str]:
    import textwrap

    for line in textwrap.wrap(text, _WIDTH - len(indent)):
        yield f"{indent}# {line}"


def _scalar(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_scalar, value))}]"
    if isinstance(value, str):
        # JSON's texts are YAML's double-quoted ones.
        return value if _PLAIN.fullmatch(value) else json.dumps(value, ensure_ascii=False)
    if isinstance(value, Mapping):
        return "{}"
    return json.dumps(value)
