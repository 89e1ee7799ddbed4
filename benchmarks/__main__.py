"""``python -m benchmarks``: measure the rows that were asked for and print the table."""

from __future__ import annotations

import os
import sys


def main() -> int:
    # Before anything is imported: settings of the shell would be measured otherwise.
    for name in [name for name in os.environ if name.startswith(("OTEL_", "TRACEKIT_"))]:
        del os.environ[name]
    from benchmarks.command import run

    return run(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
