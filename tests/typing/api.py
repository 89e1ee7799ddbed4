"""What type checkers must see of the public names; checked by mypy and pyright, never run.

An `ignore` here is a promise too: it is reported as unused once the mistake on its line is no
longer found.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any

from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, Tracer
from typing_extensions import assert_type

import tracekit


@tracekit.traced
def price(cart: list[int], discount: float = 0.0) -> float:
    return sum(cart) * (1 - discount)


@tracekit.traced(name="price.again", kind=SpanKind.CLIENT, record_args=["cart"], record_result=True)
def price_again(cart: list[int], *, currency: str) -> str:
    return f"{price(cart)} {currency}"


@tracekit.traced
async def fetch(url: str) -> bytes:
    return url.encode()


@tracekit.traced(attributes={"tenant": "acme"})
async def fetch_again(url: str) -> bytes:
    return await fetch(url)


@tracekit.traced
def numbers(stop: int) -> Iterator[int]:
    yield from range(stop)


@tracekit.traced
async def rows(table: str) -> AsyncIterator[dict[str, str]]:
    yield {"table": table}


@tracekit.span("price", tenant="acme")
def price_in_a_span(cart: list[int]) -> int:
    return len(cart)


@tracekit.traced
class Shop:
    def __init__(self, name: str) -> None:
        self.name = name

    def buy(self, item: str, *, count: int = 1) -> int:
        return len(item) * count


class Orders:
    @tracekit.traced
    def place(self, item: str) -> int:
        return len(item)

    @tracekit.traced(record_args=True)
    async def cancel(self, number: int) -> bool:
        return number > 0

    @classmethod
    @tracekit.traced
    def empty(cls) -> Orders:
        return cls()

    @staticmethod
    @tracekit.traced
    def total(*amounts: float) -> float:
        return sum(amounts)


def a_decorated_function_keeps_its_type(shop: Shop, orders: Orders) -> None:
    plain: Callable[[list[int], float], float] = price
    assert_type(plain([1], 0.5), float)
    assert_type(price([1, 2], discount=0.5), float)
    assert_type(price_again([1], currency="EUR"), str)
    assert_type(numbers(3), Iterator[int])
    assert_type(rows("carts"), AsyncIterator[dict[str, str]])
    assert_type(price_in_a_span([1]), int)
    assert_type(shop.buy("pen", count=2), int)
    assert_type(Shop("corner"), Shop)
    assert_type(orders.place("pen"), int)
    assert_type(Orders.empty(), Orders)
    assert_type(Orders.total(1.0, 2.0), float)


async def a_decorated_coroutine_keeps_its_type(orders: Orders) -> None:
    awaited: Callable[[str], Coroutine[Any, Any, bytes]] = fetch
    assert_type(await awaited("https://example.com"), bytes)
    assert_type(await fetch_again("https://example.com"), bytes)
    assert_type(await orders.cancel(7), bool)


def a_wrong_call_of_a_decorated_function_is_found(shop: Shop, orders: Orders) -> None:
    price("cart")  # type: ignore[arg-type]
    price([1], rebate=1)  # type: ignore[call-arg]
    price_again([1])  # type: ignore[call-arg]
    numbers("three")  # type: ignore[arg-type]
    price_in_a_span(1)  # type: ignore[arg-type]
    shop.buy(1)  # type: ignore[arg-type]
    Shop()  # type: ignore[call-arg]
    orders.place(1)  # type: ignore[arg-type]
    tracekit.traced(nam="price")  # type: ignore[call-overload]


def a_span_is_opentelemetrys() -> None:
    with tracekit.span("checkout", kind=SpanKind.SERVER, cart_id=42) as span:
        otel: Span = span
        otel.set_attribute("amount", 12.5)
        span.add_event("paid", {"method": "card"})
    with tracekit.attributes(tenant="acme", tier=2):
        assert_type(tracekit.current_span(), Span)
    assert_type(tracekit.get_tracer("shop", "1.0"), Tracer)


def carriers_keep_their_type(incoming: dict[str, str]) -> None:
    assert_type(tracekit.inject({"accept": "*/*"}), dict[str, str])
    assert_type(tracekit.extract(incoming), Context)
    with tracekit.continue_trace(incoming):
        pass
    tracekit.inject("traceparent")  # type: ignore[type-var]


def the_life_of_tracekit_is_typed() -> None:
    tracekit.configure(service_name="shop")
    tracekit.instrument()
    tracekit.instrument("httpx", "flask")
    tracekit.uninstrument("httpx")
    tracekit.uninstrument()
    with tracekit.set_sampling(0.5, rules="drop route=/health", for_s=60.0) as change:
        change.undo()
    tracekit.set_sampling()
    assert_type(tracekit.flush(), bool)
    tracekit.shutdown()
    assert_type(tracekit.__version__, str)
    tracekit.configure(service_nam="shop")  # type: ignore[call-arg]
