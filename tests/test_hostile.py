"""Input of strangers: deep values, long texts, impossible keys, control characters."""

from __future__ import annotations

import copy
import subprocess
import sys
import textwrap
import time
import warnings
from contextlib import suppress
from pathlib import Path

import pytest
from django.conf import settings
from django.core.cache import CacheKeyWarning
from django.core.cache.backends.base import InvalidCacheKey
from django.test import override_settings

from cache_memoize import cache_memoize
from cache_memoize import local as memory
from cache_memoize.cache.breaker import breaker_of
from tests.test_binding import both, remembering

ROOT = Path(__file__).resolve().parent.parent

# --- nesting -------------------------------------------------------------------------

#: The work of C functions that recurse without a limit would end the process.
DEEP = """
    import asyncio, collections, dataclasses, os, sys, threading, types
    import django
    from django.conf import settings

    settings.configure(CACHE_MEMOIZE={"DEFAULTS": {"tags": ()}}, INSTALLED_APPS=[
        "django.contrib.contenttypes", "django.contrib.auth"])
    django.setup()
    from django.contrib.auth.models import User
    from cache_memoize import UnkeyableArgument, cache_memoize

    class Sub(tuple): pass

    class Plain:
        def __init__(self, value): self.value = value

    Named = collections.namedtuple("Named", "value")

    @dataclasses.dataclass(frozen=True)
    class Frozen:
        value: object

    def deep(wrap):
        value = "x"
        for _ in range(300_000):
            value = wrap(value)
        return value

    def sets():
        value = frozenset()
        for _ in range(300_000):
            value = frozenset({value})
        return value

    row = lambda value: (value,)
    MAKERS = {
        "tuple": lambda: deep(row),
        "a tuple inside": lambda: (1, Sub([deep(row)])),
        "named tuple": lambda: deep(Named),
        "list": lambda: deep(lambda value: [value]),
        "dict": lambda: deep(lambda value: {"a": value}),
        "frozenset": sets,
        "deque": lambda: deep(lambda value: collections.deque([value])),
        "frozen dataclass": lambda: Frozen(deep(row)),
        "frozen dataclasses": lambda: deep(Frozen),
        "objects": lambda: deep(Plain),
        "exceptions": lambda: deep(ValueError),
        "model": lambda: User(pk=deep(row)),
        "mapping": lambda: types.MappingProxyType({"a": deep(row)}),
    }
    value = MAKERS[sys.argv[1]]()

    def f(x=None, *args, **kwargs): return 1
    async def af(x): return 1
    def nested():
        def inner(): return value_here
        value_here = value
        return cache_memoize(60)(inner)

    plain = cache_memoize(60)(f)
    varied = cache_memoize(60, prefix="v", vary_on=["language"])(f)
    by_part = cache_memoize(60, prefix="p", vary_on=lambda: value)(f)
    further = cache_memoize(60, prefix="e", extra=lambda x, *a, **k: x)(f)
    rewritten = cache_memoize(60, prefix="r", args_rewrite=lambda x, *a, **k: x)(f)
    CALLS = [
        lambda: plain(value), lambda: plain(x=value), lambda: plain(1, value, 2),
        lambda: plain(1, other=value), lambda: plain.get_cache_key(value),
        lambda: plain.invalidate(value), lambda: plain.refresh(value),
        lambda: plain.peek(value), lambda: list(plain.map([(value,), (1,)])),
        lambda: list(plain.warm([(value,)])), lambda: varied(value),
        lambda: varied(x=value), lambda: by_part(1), lambda: further(value),
        lambda: rewritten(value), lambda: asyncio.run(cache_memoize(60)(af)(value)),
        lambda: nested()(),
    ]

    def try_all():
        for number, call in enumerate(CALLS):
            try:
                call()
            except UnkeyableArgument as error:
                assert "nested too deeply" in str(error), error
            else:
                raise AssertionError(number)
        # As a result it is returned, and not stored.
        result = cache_memoize(60, prefix="result")(lambda: value)
        assert result() is value and result() is value

    def in_thread():
        try_all()
        print("survived", flush=True)
        os._exit(0)  # without taking the value apart

    threading.Thread(target=in_thread).start()
"""

KINDS = ["tuple", "a tuple inside", "named tuple", "list", "dict", "frozenset", "deque"]
KINDS += ["frozen dataclass", "frozen dataclasses", "objects", "exceptions", "model"]
KINDS += ["mapping"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_value_that_is_nested_too_deeply_is_refused_and_ends_no_process(kind):
    program = [sys.executable, "-c", textwrap.dedent(DEEP), kind]
    done = subprocess.run(program, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout == "survived\n", done.stderr[-2000:]


class Hashed:
    """Refuses to be hashed or compared."""

    def __init__(self, name="x"):
        self.name = name

    def __hash__(self):
        raise AssertionError("hashed")

    def __eq__(self, other):
        raise AssertionError("compared")


@pytest.mark.parametrize("options", [{}, {"vary_on": (str,)}], ids=["plain", "varied"])
def test_types_are_looked_at_before_anything_is_hashed(options):
    binder, key = remembering(both, **options)
    first = key(Hashed()), key(1, Hashed()), key(1, c=Hashed()), key(a=Hashed())
    again = key(Hashed()), key(1, Hashed()), key(1, c=Hashed()), key(a=Hashed())
    assert first == again
    assert binder.written == 8


# --- keys ----------------------------------------------------------------------------

SERVERS = ["locmem", "file", "sqlite", "postgresql", "redis", "django_redis"]
SERVERS += ["pymemcache", "pylibmc", "unknown"]
KEYS = ["a\0b", "a\ud800b", "a\nb", "a b", "x" * 300, "\x1b[2J", "é" * 100]


def try_often(f, backend):
    """Call with arguments whose keys are impossible; then nothing else has changed."""
    for number in range(8):
        with suppress(InvalidCacheKey):  # of Memcached, for this call alone
            assert f(number) == "result"
    assert breaker_of(backend).state(time.monotonic()) == "closed"
    assert not breaker_of(backend)._failures


@pytest.mark.parametrize("warned", ["error", "ignore"])
@pytest.mark.parametrize("bad", KEYS, ids=ascii)
@pytest.mark.backends(SERVERS, lean=SERVERS)
def test_a_key_that_no_server_takes_is_the_trouble_of_its_call(backend, bad, warned):
    warnings.simplefilter(warned, CacheKeyWarning)
    options = {"cache_alias": backend, "stale": 60}

    @cache_memoize(60, key_generator_callable=lambda x: f"{bad}{x}", **options)
    def f(x):
        return "result"

    try_often(f, backend)
    try_often(cache_memoize(60, tags=(), **options)(f.__wrapped__), backend)


def raise_error(*args):
    raise RuntimeError("no tenant")


def raise_lookup_error(*args):
    raise KeyError("no tenant")


@pytest.mark.parametrize(
    "made",
    [raise_error, raise_lookup_error, lambda *args: None, lambda *args: 1]
    + [lambda key, *args, bad=bad: f"{bad}{key}" for bad in KEYS],
    ids=["RuntimeError", "KeyError", "None", "int", *map(ascii, KEYS)],
)
@pytest.mark.parametrize("tags", [None, ()], ids=["plain", "tagged"])
@pytest.mark.backends(SERVERS, lean=SERVERS)
def test_neither_is_a_key_function_that_fails_for_some(backend, made, tags):
    """As one that needs a tenant, in code that has none."""
    warnings.simplefilter("ignore", CacheKeyWarning)
    settings_of = copy.deepcopy(settings.CACHES)
    settings_of[backend]["KEY_FUNCTION"] = made
    with override_settings(CACHES=settings_of):
        for local in (None, "request"):

            @cache_memoize(60, cache_alias=backend, tags=tags, local=local)
            def f(x):
                return "result"

            with memory():
                try_often(f, backend)
