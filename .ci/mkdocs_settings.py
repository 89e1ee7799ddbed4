"""Print [tool.mkdocs] of pyproject.toml as JSON, which is YAML: mkdocs reads it from a pipe."""

import json
import sys
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

print(json.dumps(tomllib.loads(Path("pyproject.toml").read_text("utf-8"))["tool"]["mkdocs"]))
