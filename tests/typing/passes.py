"""What type checkers have to accept, and what they have to see. Never run."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Generic, NamedTuple, TypeVar, assert_type

from cache_memoize import Memoized, Progress, cache_memoize, preset
from tests.models import Article, Post

V = TypeVar("V")


class Point(NamedTuple):
    x: int
    y: int


# --- what an item is -----------------------------------------------------------------


@cache_memoize(60)
def none() -> str:
    return ""


@cache_memoize(60)
def one(a: int) -> str:
    return str(a)


@cache_memoize(60)
def perhaps_one(a: int = 1) -> str:
    return str(a)


@cache_memoize(60)
def one_or_two(a: int, b: str = "") -> str:
    return b * a


@cache_memoize(60)
def two(a: int, b: str) -> str:
    return b * a


@cache_memoize(60)
def perhaps_two(a: int = 1, b: str = "") -> str:
    return b * a


@cache_memoize(60)
def one_to_three(a: int, b: str = "", c: bytes = b"") -> str:
    return b * a + str(c)


@cache_memoize(60)
def two_or_three(a: int, b: str, c: bytes = b"") -> str:
    return b * a + str(c)


@cache_memoize(60)
def three(a: int, b: str, c: bytes) -> str:
    return b * a + str(c)


@cache_memoize(60)
def perhaps_three(a: int = 1, b: str = "", c: bytes = b"") -> str:
    return b * a + str(c)


@cache_memoize(60)
def with_keyword(a: int, *, b: str = "") -> str:
    return b * a


@cache_memoize(60)
def of_point(point: Point) -> int:
    return point.x


none.map([(), ()])
one.map([1, (2,)])
one.map(range(3))
one.map({1, 2})
one.map(number for number in (1, 2))
perhaps_one.map([(), 1, (2,)])
one_or_two.map([1, (2,), (3, "x")])
two.map([(1, "x")])
two.map({1: "x"}.items())
two.map(zip([1], ["x"], strict=True))
perhaps_two.map([(), 1, (2, "x")])
one_to_three.map([1, (2, "x"), (3, "x", b"")])
two_or_three.map([(1, "x"), (1, "x", b"")])
three.map([(1, "x", b"")])
perhaps_three.map([(), 1, (2,), (2, "x"), (2, "x", b"")])
with_keyword.map([1, (2,)])
of_point.map([Point(1, 2), (Point(1, 2),)])  # a named tuple is one argument
assert_type(one.map([1]), list[str])
assert_type(one.map([1], return_exceptions=False), list[str])
assert_type(one.map([1], return_exceptions=True), list[str | Exception])
for step in one_or_two.warm([1, (2, "x")]):
    assert_type(step, Progress)
one.map(Post.objects.values_list("pk", flat=True))
[one.map([post.pk]) for post in Post.objects.all()]


# Where it cannot be said, anything goes.


@cache_memoize(60)
def four(a: int, b: int, c: int, d: int) -> str:
    return str(a)


@cache_memoize(60)
def variadic(*numbers: int) -> str:
    return str(numbers)


@cache_memoize(60)
def pair(both: tuple[int, int]) -> int:
    return sum(both)


four.map([(1, 2, 3, 4)])
variadic.map([1, (1, 2), (1, 2, 3, 4, 5), ()])
pair.map([((1, 2),)])


def untyped(function: Memoized[..., int, int]) -> None:
    function.map([1, "x", (1, 2, 3)])


# --- asynchronous --------------------------------------------------------------------


@cache_memoize
async def aone(a: int) -> str:
    return str(a)


async def numbers() -> AsyncIterator[int]:
    yield 1


async def asynchronous() -> None:
    assert_type(await aone.amap([1, (2,)]), list[str])
    assert_type(await aone.amap(numbers()), list[str])
    assert_type(await one.amap(numbers()), list[str])
    assert_type(
        await aone.amap([1], return_exceptions=True),
        list[str | Exception],
    )
    async for step in aone.awarm(numbers()):
        assert_type(step, Progress)
    await one.amap(Post.objects.values_list("pk", flat=True))


# --- many ----------------------------------------------------------------------------


@one.many
def many_in_a_list(items: list[int]) -> list[str]:
    return [str(item) for item in items]


@two.many
def many_in_a_dict(items: list[tuple[int, str]]) -> dict[tuple[int, str], str]:
    return dict.fromkeys(items, "")


@three.many
def many_in_a_tuple(items: list[Any]) -> tuple[str, ...]:
    return ("",) * len(items)


@aone.many
async def amany(items: list[int]) -> list[str]:
    return [str(item) for item in items]


assert_type(many_in_a_list([1]), list[str])
assert_type(many_in_a_dict([]), Sequence[str] | Mapping[Any, str])


# --- methods, class methods, static methods, properties ------------------------------


class Shop:
    @cache_memoize(60)
    def price(self, item: str, currency: str = "EUR") -> float:
        return 1.0

    @price.many
    def many_prices(self, items: list[str]) -> list[float]:
        return [1.0 for _ in items]

    @cache_memoize
    async def aprice(self, item: str) -> float:
        return 1.0

    @classmethod
    @cache_memoize(60)
    def class_below(cls, item: str) -> float:
        return 1.0

    @cache_memoize(60)
    @classmethod
    def class_above(cls, item: str) -> float:
        return 1.0

    @staticmethod
    @cache_memoize
    def static_below(item: str) -> float:
        return 1.0

    @cache_memoize(60)
    @staticmethod
    def static_above(item: str) -> float:
        return 1.0

    @cache_memoize
    @staticmethod
    def static_of_class(kind: type[int]) -> float:
        return 1.0

    @property
    @cache_memoize
    def size(self) -> int:
        return 1


class Branch(Shop):
    pass


class Box(Generic[V]):
    @cache_memoize(60)
    def first(self, default: V) -> V:
        return default


shop = Branch()
assert_type(shop.price("x"), float)
assert_type(shop.price.map(["x", ("x", "USD")]), list[float])
assert_type(Shop.price.map([(shop, "x")]), list[float])
shop.price.invalidate("x", currency="USD")
shop.many_prices(["x"])
assert_type(Shop.class_below("x"), float)
assert_type(Branch.class_below("x"), float)
assert_type(shop.class_below("x"), float)
assert_type(Shop.class_above("x"), float)
assert_type(shop.class_above("x"), float)
Shop.class_above.invalidate("x")
shop.class_above.invalidate("x")
assert_type(Branch.class_below.map(["x"]), list[float])
assert_type(Shop.static_below("x"), float)
assert_type(shop.static_below("x"), float)
assert_type(shop.static_above("x"), float)
shop.static_above.invalidate("x")
assert_type(Shop.static_of_class(int), float)
assert_type(shop.static_of_class(bool), float)
assert_type(shop.size, int)


def generic(box: Box[int]) -> None:
    assert_type(box.first(1), int)
    assert_type(box.first.map([1]), list[int])


async def asynchronous_methods() -> None:
    assert_type(await shop.aprice("x"), float)
    assert_type(await shop.aprice.arefresh("x"), float)
    assert_type(await shop.aprice.amap(["x"]), list[float])


# --- models --------------------------------------------------------------------------


@cache_memoize(60, tags=())
def similar(article: Article, most: int = 5) -> list[Article]:
    return list(article.similar.all()[:most])


@cache_memoize(60)
def title(post_id: int) -> str:
    return Post.objects.get(pk=post_id).title


title.invalidate_on(Post, lambda post: (post.pk,))
title.invalidate_on("tests.Post", lambda post: (post.pk,))
title.invalidate_on(Post, lambda post: [(post.pk,), (post.pk + 1,)])
title.invalidate_on(Post, lambda post: (post.pk,) if post.title else None)
similar.invalidate_on(Article)
assert_type(similar.map(Article.objects.all()), list[list[Article]])


# --- presets -------------------------------------------------------------------------

fast = preset(60, stale=600)


@fast
def by_default(a: int) -> str:
    return str(a)


@fast(tags="shop")
async def with_tags(a: int) -> str:
    return str(a)


assert_type(by_default(1), str)
assert_type(by_default.map([1]), list[str])
assert_type(with_tags.refresh(1), str)
