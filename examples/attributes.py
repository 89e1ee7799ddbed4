"""Say something once for every span below: here, whose order it is.

python examples/attributes.py && tracekit show
"""

from __future__ import annotations

import asyncio

import tracekit


@tracekit.traced
async def reserve(item: str) -> str:
    await asyncio.sleep(0.01)
    return f"{item} reserved"


async def order(tenant: str, items: list[str]) -> list[str]:
    with tracekit.attributes(tenant=tenant), tracekit.span("order"):
        # Both run at once, and both are children of "order".
        return list(await asyncio.gather(*map(reserve, items)))


def main() -> None:
    tracekit.configure(service_name="orders")
    print(asyncio.run(order("acme", ["tea", "milk"])))


if __name__ == "__main__":
    main()
