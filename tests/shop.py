"""Memoized functions of every kind, for ``manage.py memoize``.

Each run of one is in ``RUNS``, and a line of the file that ``SHOP_RUNS`` names.
"""

from __future__ import annotations

import asyncio
import functools
import os
import threading
import time
from pathlib import Path

from cache_memoize import cache_memoize

RUNS: list[object] = []
FILE = os.environ.get("SHOP_RUNS")


def ran(*call: object) -> None:
    RUNS.append(call)
    if FILE:
        with Path(FILE).open("a") as file:
            file.write(f"{call}\n")


@cache_memoize(60, tags=())
def price(item, currency="EUR"):
    print("computing")  # not on the command's stdout
    ran(item, currency)
    if item == "broken":
        raise LookupError("no such item")
    if item == "lock":
        return threading.Lock()  # cannot be pickled
    return [item, currency]


@cache_memoize(None)
async def rate(currency):
    ran(currency)
    return f"rate of {currency}"


@cache_memoize(timeout=lambda result, *args: 60, tags=lambda n: f"step:{n}")
def step(n):
    ran(n)
    return n


@cache_memoize(60, tags=("steps",), cache_if=lambda result: False)
def unstored():
    return 1


@cache_memoize
def square(n):
    ran(n)
    return n * n


@square.many
def squares(numbers):
    ran(*numbers)
    return [n * n for n in numbers]


@cache_memoize(60)
def patient(n):
    """Goes on when the file that ``SHOP_GO`` names is there."""
    ran(n)
    while not Path(os.environ["SHOP_GO"]).exists():
        time.sleep(0.01)
    return n


@cache_memoize(60)
async def apatient(n):
    ran(n)
    while not Path(os.environ["SHOP_GO"]).exists():
        await asyncio.sleep(0.01)
    return n


def logged(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return function(*args, **kwargs)

    return wrapper


@logged
@cache_memoize(60)
def wrapped(n):
    return n


class Shop:
    @cache_memoize(60)
    def price(self, item):
        return item

    @classmethod
    @cache_memoize(60)
    def columns(cls, kind):
        return f"{cls.__name__} {kind}"

    @staticmethod
    @cache_memoize(60)
    def rounded(number):
        return round(number)

    @cache_memoize(60)
    @property
    def total(self):
        return 42


shop = Shop()
length = cache_memoize(60, prefix="length")(len)


def plain():
    """Not memoized."""


def some_items():
    return [1, (2,), (3,)]


def many_items():
    yield from range(3)


def no_items():
    return 7


def broken_items():
    yield 1
    raise RuntimeError("the source is gone")
