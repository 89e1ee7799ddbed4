"""``python -m benchmarks.across``: what three services in a row keep of traces that matter.

Each has a tail sampler, and knows of the others only by headers. Requests fail, are slow or are
asked for in the last one, and the two in front of it answer as if nothing were. The table says how
many of each kind were kept by whom, and how many as a whole; below it, the same without the
response header that tells.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping

from benchmarks.across.running import FATES, ORDINARY, Outcome, fates_of, run
from benchmarks.across.service import SERVICES, SHARES

LEAST_WHOLE = 0.99
"""Of the traces that matter."""


def _print(title: str, outcomes: Mapping[str, Outcome]) -> None:
    print(f"\n{title}\n{'':<26}{'requests':>9}", end="")
    print("".join(f"{name:>9}" for name in SERVICES), f"{'whole':>15}{'beyond share':>14}")
    for fate in (*FATES, ORDINARY):
        outcome = outcomes.get(fate, Outcome())
        counts = "".join(f"{outcome.kept[name]:>9}" for name in SERVICES)
        part = f"{outcome.whole / outcome.requests:.1%}" if outcome.requests else "-"
        whole = f"{outcome.whole} ({part})"
        print(f"{fate:<26}{outcome.requests:>9}{counts} {whole:>15}{outcome.beyond:>14}")


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.across", description=__doc__)
    parser.add_argument("--requests", type=int, default=4000)
    parser.add_argument("--every", type=int, default=20, help="of so many requests one matters")
    asked = parser.parse_args(arguments)
    fates = fates_of(asked.requests, asked.every)
    print("shares:", ", ".join(f"{name} {share:.0%}" for name, share in SHARES.items()))
    told = run(fates)
    _print("traceresponse: auto", told)
    _print("traceresponse: never", run(fates, "never"))
    matter = [told[fate] for fate in FATES if fate in told]
    whole = sum(outcome.whole for outcome in matter) / sum(found.requests for found in matter)
    beyond = told[ORDINARY].beyond
    print(f"\nkept whole: {whole:.2%} of those that matter; ordinary ones beyond a share: {beyond}")
    return 0 if whole >= LEAST_WHOLE and not beyond else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
