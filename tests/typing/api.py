"""What type checkers see. Never run; mypy (strict) and pyright read it."""

from __future__ import annotations

import functools
from collections.abc import Coroutine
from datetime import timedelta
from typing import Any, assert_type

from cache_memoize import (
    CacheInfo,
    Entry,
    Memoized,
    Progress,
    cache_memoize,
    local,
)


@cache_memoize(60)
def related(post_id: int, lang: str = "en") -> list[str]:
    return [lang] * post_id


@cache_memoize
def bare(x: int) -> str:
    return str(x)


@cache_memoize()
async def arelated(post_id: int) -> list[str]:
    return [str(post_id)]


@cache_memoize
async def abare(x: int) -> str:
    return str(x)


class Shop:
    @cache_memoize(timedelta(minutes=5), prefix="price")
    def price(self, item: str, /, *, currency: str = "EUR") -> float:
        return float(len(item + currency))

    @cache_memoize(None)
    async def aprice(self, item: str) -> float:
        return float(len(item))

    @staticmethod
    @cache_memoize(60)
    def static(item: str) -> float:
        return float(len(item))

    @property
    @cache_memoize(60)
    def size(self) -> int:
        return 1


def timeout(result: list[str], x: int) -> float | timedelta | None:
    return None if result else x


@cache_memoize(
    timeout=timeout,
    extra={"version": 2},
    args_rewrite=lambda x: x,
    hit_callable=lambda x: None,
    miss_callable=print,
    store_result=True,
    cache_exceptions=(ValueError, KeyError),
    cache_alias="default",
    version=1,
    ignore=["x"],
    cache_if=lambda result, x: bool(result),
    wait=0.5,
    lease=timedelta(seconds=30),
)
def everything(x: int) -> list[str]:
    return []


# Functions: the signature of the function itself, and every control.
assert_type(related(1), list[str])
assert_type(related(post_id=1, lang="de"), list[str])
assert_type(bare(1), str)
assert_type(everything(1), list[str])
assert_type(related.refresh(1), list[str])
assert_type(related.peek(1), Entry | None)
assert_type(related.map([1, 2]), list[list[str]])
assert_type(arelated.map([1, 2]), list[list[str]])
for step in related.warm([1, 2]):
    assert_type(step, Progress)


@related.many
def many_related(items: list[int]) -> list[list[str]]:
    return [[str(item)] for item in items]


assert_type(many_related([1]), list[list[str]])
with local():
    assert_type(related(1), list[str])
assert_type(related.get_cache_key(1, lang="de"), str)
assert_type(related.cache_info(), CacheInfo)
assert_type(related.__wrapped__(1), list[str])
assert_type(functools.partial(related, 1)(), list[str])
related.invalidate(1)
related.prime(["x"], 1, "en")
related()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
related("x")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
related.invalidate("x")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
related.prime(5, 1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
related.nothing(1)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]


async def asynchronous() -> None:
    assert_type(await arelated(1), list[str])
    assert_type(await abare(1), str)
    assert_type(await arelated.arefresh(1), list[str])
    assert_type(await arelated.apeek(1), Entry | None)
    assert_type(await related.amap([1, 2]), list[list[str]])
    async for step in arelated.awarm([1, 2]):
        assert_type(step, Progress)
    assert_type(arelated.refresh(1), list[str])
    assert_type(await related.arefresh(1), list[str])
    await related.ainvalidate(1)
    await arelated.ainvalidate(1)
    await arelated.aprime(["x"], 1)
    assert_type(await arelated.aget_cache_key(1), str)
    assert_type(await arelated.acache_info(), CacheInfo)
    shop = Shop()
    assert_type(await shop.aprice("x"), float)
    await shop.aprice.ainvalidate("x")
    await arelated("x")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


# Methods: bound to their instance, controls too.
shop = Shop()
assert_type(shop.price("x"), float)
assert_type(shop.price("x", currency="USD"), float)
assert_type(shop.price.refresh("x"), float)
shop.price.invalidate("x", currency="USD")
shop.price.prime(1.0, "x")
assert_type(Shop.price(shop, "x"), float)
assert_type(Shop.static("x"), float)
assert_type(shop.size, int)
shop.price(5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
shop.price.invalidate()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]

function: Memoized[[int], str, str] = bare
coroutine: Memoized[[int], Coroutine[Any, Any, str], str] = abare

cache_memoize("1h")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
