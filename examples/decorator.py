"""Trace your own functions: decorate them, and open a span where there is no function.

python examples/decorator.py && tracekit show
"""

from __future__ import annotations

import time

import tracekit


@tracekit.traced
def price(item: str) -> float:
    time.sleep(0.01)
    return {"tea": 3.5, "milk": 1.2}[item]


@tracekit.traced(record_args=["items"])
def total(items: list[str]) -> float:
    return sum(price(item) for item in items)


def main() -> None:
    tracekit.configure(service_name="till")
    with tracekit.span("checkout", customer="ada") as span:
        amount = total(["tea", "milk"])
        span.set_attribute("amount", amount)
    print(f"{amount:.2f}")


if __name__ == "__main__":
    main()
