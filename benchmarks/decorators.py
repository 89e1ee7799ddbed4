"""Decorated functions: theirs with the tracer's span as decorator, ours with ``traced``."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import closing
from functools import partial
from typing import Any

import tracekit
from benchmarks.harness import Contestant, Effort, Figures, compare, row
from benchmarks.sides import both_sides, configured
from benchmarks.spans import SPANS

_Decorator = Callable[[Any], Any]


def _sync(decorate: _Decorator, settle: Callable[[], object]) -> Contestant:
    @decorate
    def price(cart: int) -> int:
        return cart

    def run(items: int) -> None:
        for cart in range(items):
            price(cart)

    return Contestant(run, settle)


def _async(
    loop: asyncio.AbstractEventLoop, decorate: _Decorator, settle: Callable[[], object]
) -> Contestant:
    @decorate
    async def price(cart: int) -> int:
        return cart

    def run(items: int) -> None:
        loop.run_until_complete(_await_each(price, items))

    return Contestant(run, settle)


async def _await_each(price: Callable[[int], Awaitable[int]], items: int) -> None:
    for cart in range(items):
        await price(cart)


def _compare(make: Callable[..., Contestant], effort: Effort) -> Figures:
    with both_sides() as (theirs, _), configured() as ours:
        other = make(theirs.tracer.start_as_current_span("price"), theirs.provider.force_flush)
        mine = make(tracekit.traced, ours.provider.force_flush)
        return compare(other, mine, SPANS, effort)


@row("decorators.sync", "decorator on a function", must=0.12, aim=0.07)
def sync_function(effort: Effort) -> Figures:
    return _compare(_sync, effort)


@row("decorators.async", "decorator on a coroutine function", must=0.12, aim=0.07)
def coroutine_function(effort: Effort) -> Figures:
    with closing(asyncio.new_event_loop()) as loop:
        return _compare(partial(_async, loop), effort)
