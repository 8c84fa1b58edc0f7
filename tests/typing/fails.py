"""What type checkers have to refuse. Never run.

Each marked line, and no other, is an error: of mypy with the first code, of pyright
with the second, which begins with ``report``.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from cache_memoize import cache_memoize, preset
from tests.models import Post


@cache_memoize(60)
def none() -> str:
    return ""


@cache_memoize(60)
def one(a: int) -> str:
    return str(a)


@cache_memoize(60)
def one_or_two(a: int, b: str = "") -> str:
    return b * a


@cache_memoize(60)
def two(a: int, b: str) -> str:
    return b * a


@cache_memoize(60)
def three(a: int, b: str, c: bytes = b"") -> str:
    return b * a + str(c)


@cache_memoize
async def aone(a: int) -> str:
    return str(a)


class Shop:
    @cache_memoize(60)
    def price(self, item: str, currency: str = "EUR") -> float:
        return 1.0

    @classmethod
    @cache_memoize(60)
    def made(cls, item: str) -> float:
        return 1.0

    @staticmethod
    @cache_memoize(60)
    def static(item: str) -> float:
        return 1.0


# Items.
one.map(1)  # error: call-overload, ArgumentType
one.map([1], True)  # error: call-overload, CallIssue


async def some_words() -> AsyncIterator[str]:
    yield "x"


async def asynchronous() -> None:
    one.map(some_words())  # error: call-overload, ArgumentType
    aone.awarm(1)  # error: arg-type, ArgumentType
    await aone.aprime(1, 1)  # error: arg-type, ArgumentType
    text: str = aone(1)  # error: assignment, AssignmentType
    print(text)


# What many gives.
@one.many  # error: arg-type, ArgumentType/CallIssue
def many_numbers(items: list[int]) -> list[int]:
    return items


@one.many  # error: arg-type, ArgumentType/CallIssue
def many_numbers_in_a_dict(items: list[int]) -> dict[int, int]:
    return {item: item for item in items}


@one.many  # error: arg-type, ArgumentType/CallIssue
async def many_asynchronous(items: list[int]) -> list[str]:
    return [str(item) for item in items]


@aone.many  # error: arg-type, ArgumentType/CallIssue
def many_synchronous(items: list[int]) -> list[str]:
    return [str(item) for item in items]


# Calls and controls.
shop = Shop()
one("x")  # error: arg-type, ArgumentType
one()  # error: call-arg, CallIssue
one.prime(5, 1)  # error: arg-type, ArgumentType
one.invalidate()  # error: call-arg, CallIssue
one.get_cache_key(b=1)  # error: call-arg, CallIssue
two.peek(1)  # error: call-arg, CallIssue
number: int = one.refresh(1)  # error: assignment, AssignmentType
shop.price(1)  # error: arg-type, ArgumentType
shop.price.invalidate(shop, "x", "EUR")  # error: arg-type/call-arg, CallIssue
Shop.price("x")  # error: arg-type/call-arg, CallIssue
Shop.made(1)  # error: arg-type, ArgumentType
shop.made()  # error: call-arg, CallIssue
Shop.made.invalidate(1)  # error: arg-type, ArgumentType
shop.static(1)  # error: arg-type, ArgumentType
Shop.static.invalidate(1)  # error: arg-type, ArgumentType

# Models.
on = one.invalidate_on
on(int)  # error: type-var, ArgumentType/CallIssue
on(Post, lambda it: it.x)  # error: attr-defined, AttributeAccessIssue
on(Post, lambda it: "x")  # error: arg-type/return-value, ArgumentType/CallIssue
on(Post, lambda: (1,))  # error: arg-type/misc, ArgumentType/CallIssue

# Options.
listed = [ValueError]
cache_memoize("1h")  # error: call-overload, ArgumentType/CallIssue
cache_memoize(60, prefx="x")  # error: call-overload, CallIssue
cache_memoize(60, local="thread")  # error: call-overload, ArgumentType
cache_memoize(60, cache_exceptions=listed)  # error: call-overload, ArgumentType

# Presets.
fast = preset(60)
fast(tag="shop")  # error: call-overload, CallIssue


@fast
def by_default(a: int) -> str:
    return str(a)


by_default("x")  # error: arg-type, ArgumentType
