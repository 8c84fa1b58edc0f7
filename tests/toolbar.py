"""Views that call memoized functions, for test_panels.py."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

from asgiref.sync import sync_to_async
from django.http import HttpResponse
from django.urls import include, path

from cache_memoize import cache_memoize

#: What a view does while two requests are under way at once; set by the test.
together: list[Callable[[], object]] = []


@cache_memoize(60, prefix="toolbar.price")
def price(item: str) -> int:
    return len(item)


@cache_memoize(60, prefix="toolbar.stock", local="request")
def stock(item: str) -> int:
    return len(item) * 10


@cache_memoize(60, prefix="toolbar.rating", tags="ratings")
def rating(item: str) -> float:
    return len(item) / 2


@cache_memoize(60, prefix="toolbar.aprice")
async def aprice(item: str) -> int:
    await asyncio.sleep(0)
    return len(item)


@cache_memoize(60, prefix="toolbar.bill")
def bill(item: str) -> float:
    return price(item) * rating(item)


def page(text: object) -> HttpResponse:
    return HttpResponse(
        '<!doctype html><html lang="en"><head><title>Shop</title>'
        '<link rel="icon" href="data:,"></head>'
        f"<body><main><h1>Shop</h1><p>{text}</p></main></body></html>"
    )


def shop(request: Any) -> HttpResponse:
    """A page as there are many: the same calls again and again."""
    basket = ["tea", "milk", "tea", "bread", "tea"]
    total = sum(price(item) for item in basket)
    for item in basket:
        stock(item)
    rating("tea")
    rating.invalidate_all()
    rating("tea")
    return page(total)


def one(request: Any, item: str) -> HttpResponse:
    for each in together:
        each()
    result = price(item)
    for each in together:
        each()
    return page(result)


def several(request: Any, number: int) -> HttpResponse:
    return page(sum(price("tea") for _ in range(number)))


def nothing(request: Any) -> HttpResponse:
    return page("nothing")


def fails(request: Any) -> HttpResponse:
    price("tea")
    raise LookupError("the view")


def threads(request: Any) -> HttpResponse:
    """A thread that does not inherit the context is not part of the request."""
    other = threading.Thread(target=price, args=["other"])
    other.start()
    other.join()
    return page(price("tea"))


async def aone(request: Any, item: str) -> HttpResponse:
    """Some of it in tasks, some of it in a thread."""
    await asyncio.gather(aprice(item), aprice(f"{item}s"))
    await sync_to_async(price)(item)
    return page(await aprice(item))


def calls_in_a_call(request: Any, item: str) -> HttpResponse:
    return page(bill(item))


urlpatterns = [
    path("bill/<item>/", calls_in_a_call),
    path("", shop),
    path("one/<str:item>/", one),
    path("aone/<str:item>/", aone),
    path("several/<int:number>/", several),
    path("nothing/", nothing),
    path("fails/", fails),
    path("threads/", threads),
    path("__debug__/", include("debug_toolbar.urls")),
]
