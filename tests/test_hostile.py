"""Input of strangers: deep values, long texts, impossible keys, control characters."""

from __future__ import annotations

import copy
import functools
import gc
import itertools
import logging
import subprocess
import sys
import textwrap
import time
import tracemalloc
import warnings
import weakref
from contextlib import suppress
from pathlib import Path
from typing import Annotated
from unittest import mock

import pytest
from django.conf import settings
from django.core.cache import CacheKeyWarning, caches
from django.core.cache.backends.base import InvalidCacheKey
from django.core.management import ManagementUtility
from django.test import override_settings
from django.urls import reverse
from hypothesis import given
from hypothesis import strategies as st

from cache_memoize import cache_memoize, invalidate_tags
from cache_memoize import local as memory
from cache_memoize.arguments import parse_literal
from cache_memoize.cache import local as scope
from cache_memoize.cache.breaker import breaker_of
from cache_memoize.checks import check_caches, check_functions
from cache_memoize.describe import describe_error, describe_options, info_of
from cache_memoize.keys.tags import tag_key
from cache_memoize.panels import MemoizePanel
from cache_memoize.process import logger, printable
from cache_memoize.stats.counters import Stats
from cache_memoize.stats.reporter import reporter
from tests.conftest import FakeClock, in_thread
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

KINDS = ["tuple", "dict", "model"]
MORE = ["objects", "a tuple inside", "named tuple", "list", "frozenset", "deque"]
MORE += ["mapping", "frozen dataclass", "frozen dataclasses", "exceptions"]


@pytest.mark.parametrize(
    "kind", KINDS + [pytest.param(kind, marks=pytest.mark.thorough) for kind in MORE]
)
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
#: PostgreSQL too: it takes no key that is long.
ONE_OF_EACH = ["locmem", "sqlite", "redis", "pymemcache", "postgresql"]
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
@pytest.mark.backends(SERVERS, lean=ONE_OF_EACH)
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
@pytest.mark.backends(SERVERS, lean=ONE_OF_EACH)
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


# --- memory --------------------------------------------------------------------------


def long_text(number):
    return f"{number}{'x' * 10_000}"


def noop(x=None, *args, **kwargs): ...


def forget_errors(function):
    def call(number):
        with suppress(TypeError, ValueError):
            function(number)

    return call


def memoize(function=noop, **options):
    return cache_memoize(60, **{"cache_alias": "dummy", "prefix": "hostile"} | options)(
        function
    )


def nested(number):
    text = long_text(number)

    def inner():
        return text

    memoize(inner, prefix=None)()


#: Ways for a text of a visitor to reach the library.
WAYS = {
    "argument": lambda f: lambda number: f(long_text(number)),
    "bytes": lambda f: lambda number: f(long_text(number).encode()),
    "integer": lambda f: lambda number: f(number << 80_000),
    "keyword argument": lambda f: lambda number: f(x=long_text(number)),
    "name": lambda f: lambda number: f(**{long_text(number): 1}),
    "unexpected name": lambda f: lambda number: memoized_one(**{long_text(number): 1}),
    "many arguments": lambda f: lambda number: f(*range(number, number + 1_000)),
    "many names": lambda f: lambda n: f(**{f"{n} {m}": 1 for m in range(200)}),
    "list": lambda f: lambda number: f([long_text(number)]),
    "unkeyable": lambda f: lambda number: f(object(), long_text(number)),
    "key": lambda f: lambda number: f.get_cache_key(long_text(number)),
    "invalidated": lambda f: lambda number: f.invalidate(long_text(number)),
    "tag": lambda f: (
        lambda number: invalidate_tags(long_text(number), cache_alias="dummy")
    ),
    "captured variable": lambda f: nested,
}
OPTIONS = {
    "plain": {},
    "tagged": {"tags": lambda x=None, *args, **kwargs: [str(x)]},
    "varied": {"vary_on": lambda: long_text(next(numbers))},
    "rewritten": {"args_rewrite": lambda x=None, *args, **kwargs: (x, kwargs)},
    "generated": {"key_generator_callable": lambda *args, **kwargs: "a"},
}
numbers = itertools.count()


@functools.partial(cache_memoize, 60, cache_alias="dummy")()
def memoized_one(x): ...


MOST = pytest.mark.thorough


@pytest.mark.parametrize(
    "options",
    [n if n in ("plain", "varied") else pytest.param(n, marks=MOST) for n in OPTIONS],
)
@pytest.mark.parametrize("way", WAYS)
def test_nothing_that_is_long_is_remembered(way, options):
    """10,000 characters or 1,000 arguments at a time: 600 KB and more, if they were."""
    send = forget_errors(WAYS[way](memoize(**OPTIONS[options])))
    for number in range(5):
        send(number)
    gc.collect()
    tracemalloc.start()
    try:
        for number in range(1000, 1060):
            send(number)
        gc.collect()
        kept = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert kept < 200_000


def test_what_is_long_has_the_same_key_as_before():
    for size in (1, 63, 64, 65, 66, 1000):
        texts = ["x" * size, "y" * size]
        active = []
        f = memoize(vary_on=functools.partial(max, active))
        found = []
        for language in [*texts, *texts]:
            active[:] = [language]
            found.append(f.get_cache_key(1))
            assert f.get_cache_key(1) == f.get_cache_key(x=1) == found[-1]
            assert tag_key(language) == tag_key(language)
        assert found[:2] == found[2:] and len(set(found)) == 2


def test_counts_that_wait_to_be_reported_keep_no_captured_variable(monkeypatch):
    class Large:
        def __call__(self):
            return 1

    captured = Large()
    made = memoize(captured)
    made()
    stats, gone = made._memoized.stats, weakref.ref(captured)
    monkeypatch.setattr(reporter, "_kept", {stats})
    del made, captured
    gc.collect()
    assert gone() is None and stats.totals().misses == 1


@pytest.mark.backends(["locmem", "file"], lean=["locmem"])
def test_the_memory_of_a_request_has_a_bound_in_bytes(backend):
    @cache_memoize(60, cache_alias=backend, local="request", tags=())
    def f(number, size):
        return bytes(size)

    def total():
        memories = scope._scope.get()._memories.values()
        places = [place for each in memories for place in each.values()]
        return sum(len(raw) for place in places for raw, _ in place.values())

    with memory():
        for number in range(100):
            for _ in range(2):
                f(number, 1_000_000)
            in_thread(lambda number=number: f(number, 500_000))
            assert total() <= scope.MOST_BYTES
        f(0, 17_000_000), f(0, 17_000_000)
        assert total() <= scope.MOST_BYTES
        f(0, 10), f(0, 10)
        assert total() > 0


# --- text ----------------------------------------------------------------------------

#: A forged line, a title for the terminal, text from right to left, and a secret.
HOSTILE = "a\r\nERROR forged\x1b]0;x\x07\x9b\u202e\u2028\0b"
SECRET = "sk-secret"


def is_harmless(text, keep="\n"):
    return all(char in keep or printable(char) == char for char in text)


@given(st.text() | st.just(HOSTILE))
def test_what_is_printable_stays_and_nothing_else(text):
    shown = printable(text)
    assert is_harmless(shown, keep="") and printable(shown) == shown
    assert shown == text or not is_harmless(text, keep="")
    shown.encode()
    for char in "é\u05d0\u200d\xa0 \N{PILE OF POO}":
        assert printable(char) == char


class Hostile:
    """A value whose repr is hostile, and which cannot be pickled."""

    def __repr__(self):
        return f"{SECRET}{HOSTILE}"

    def __reduce__(self):
        raise HostileError(repr(self))


class HostileError(Exception): ...


def raise_hostile(*args, **kwargs):
    raise HostileError(f"{SECRET}{HOSTILE}")


class Unreadable:
    """A value that is written, and cannot be read."""

    def __reduce__(self):
        return raise_hostile, ()


def call_hostile_hook():
    cache_memoize(60, prefix="hook", hit_callable=raise_hostile)(noop)()
    cache_memoize(60, prefix="hook", hit_callable=raise_hostile)(noop)()


def refresh_hostile():
    stale = FakeClock()

    @cache_memoize(5, prefix="refreshed", stale=60, _clock=stale)
    def f():
        return raise_hostile() if stale.time() > began else 1

    began = stale.time()
    with override_settings(CACHE_MEMOIZE={"REFRESH": "inline"}):
        f()
        stale.tick(10)
        f()


def store_hostile_exception():
    @cache_memoize(60, cache_exceptions=HostileError)
    def f():
        error = HostileError(SECRET + HOSTILE)
        error.value = Hostile()
        raise error

    with suppress(HostileError):
        f()


def compute(result, times=1, **options):
    f = cache_memoize(60, prefix="result", **options)(lambda: result)
    for _ in range(times):
        f()


def generate(x):
    return HOSTILE + SECRET[:0]


def sign():
    with override_settings(CACHE_MEMOIZE={"SIGN": True}):
        f = cache_memoize(60, key_generator_callable=generate)(noop)
        f(1)
        with override_settings(SECRET_KEY="another"):
            f(1)


#: Ways for hostile text into the log. A traceback shows what the project raised.
LOGGED = {
    "unpicklable": (lambda: compute(Hostile()), True),
    "unpicklable exception": (store_hostile_exception, True),
    "unreadable": (lambda: compute(Unreadable(), 2), True),
    "hook": (call_hostile_hook, False),
    "refresh": (refresh_hostile, False),
    "key": (lambda: cache_memoize(60, key_generator_callable=generate)(noop)(1), True),
    "signature": (sign, True),
    "error of the cache": (
        lambda: Stats("f", "m.f", noop).trouble("x", HostileError(HOSTILE)),
        True,
    ),
}


@pytest.mark.parametrize("way", LOGGED)
@pytest.mark.backends(["locmem"])
def test_no_line_of_a_log_is_forged_and_none_shows_a_result(backend, caplog, way):
    warnings.simplefilter("ignore", CacheKeyWarning)
    caches["default"].clear()  # a hit under a key of another test would log nothing
    caplog.set_level(logging.DEBUG, "cache_memoize")
    act, is_secret = LOGGED[way]
    with suppress(HostileError):
        act()
    formatter = logging.Formatter("LEVEL %(levelname)s %(message)s")
    lines = "\n".join(map(formatter.format, caplog.records)).split("\n")
    assert any("HostileError" in each or "forged" in each for each in lines)
    assert all(each.startswith(("LEVEL ", "  ")) for each in lines)
    assert all(map(is_harmless, lines))
    assert not (is_secret and SECRET in "".join(lines))


def test_messages_of_a_project_to_the_same_logger_are_as_they_were(caplog):
    logger.warning("%(done)d of %(total)s", {"done": 1, "total": 2})
    logger.warning("%s %r %d %.1f%%", "a", "b", 3, 4.5)
    assert caplog.messages == ["1 of 2", "a 'b' 3 4.5%"]


def test_the_text_of_an_exception_is_shown_only_if_it_is_ours():
    def described(function, *args):
        with pytest.raises(Exception) as caught:
            function(*args)
        return describe_error(caught.value)

    assert described(memoize(tags=()).invalidate_all, 1).startswith("TypeError")
    assert described(raise_hostile) == "HostileError"
    assert described(int, SECRET) == "ValueError"
    assert described(raise_own_text, 1) == "ValueError"
    assert described(memoized_one).startswith("TypeError: memoized_one(): missing")
    assert described(parse_literal, "[1").startswith("ValueError: [1 is not a Python")
    assert describe_error(ValueError(SECRET)) == "ValueError"


def shout(x=HOSTILE, *, token=SECRET, limit=10, price=12345, flag=True, none=None):
    return Hostile()


shown = cache_memoize(60, extra=SECRET, tags=[HOSTILE])(shout)
shown.__wrapped__.__doc__ = HOSTILE


@cache_memoize(60)
def text_of(x):
    return Shown()


class Shown:
    def __repr__(self):
        return HOSTILE


@cache_memoize(60, args_rewrite=lambda x: int(f"{SECRET}{x}"))
def rewritten(x): ...


def raise_own_text(x):
    raise ValueError(f"{SECRET} {x}")


@cache_memoize(60, args_rewrite=raise_own_text)
def refused(x): ...


failing = cache_memoize(60, prefix="failing")(raise_hostile)


def test_values_of_defaults_and_parts_of_keys_are_masked():
    info = info_of(shown)
    assert info.signature == (
        "shout(x=<str>, *, token=<str>, limit=10, price=<int>, flag=True, none=None)"
    )
    assert SECRET not in str(describe_options(info))

    def f(a, b, c): ...

    f.__annotations__ = {"a": Annotated[int, SECRET], "b": "Literal['sk-secret']"}
    f.__annotations__ |= {"c": list[int], "return": "dict[str, int] | None"}
    signature = info_of(cache_memoize(60)(f)).signature
    assert signature.endswith("f(a, b, c: list[int]) -> dict[str, int] | None")


@pytest.mark.parametrize(
    "words",
    [
        ["peek", "text_of", "1"],
        ["key", "text_of", f"'{HOSTILE}'"],
        ["key", "text_of", HOSTILE],
        ["key", HOSTILE],
        ["invalidate", "--tag", HOSTILE],
        ["invalidate", "--tag", "a", "--alias", HOSTILE],
        ["refresh", "failing"],
        ["refresh", "failing", "--traceback"],
        ["key", "rewritten", "1"],
        ["key", "refused", "1"],
        ["warm", "shown", "--from", "tests.test_hostile.raise_hostile"],
        ["warm", "failing", "--from", "tests.test_hostile.hostile_items"],
        ["list"],
    ],
    ids=lambda words: ascii(" ".join(words))[:40],
)
@pytest.mark.backends(["locmem"])
def test_the_terminal_gets_no_control_characters(backend, words, capsys):
    text_of(1)
    words = [f"tests.test_hostile.{w}" if w in globals() else w for w in words]
    with suppress(SystemExit):
        ManagementUtility(["manage.py", "memoize", *words]).execute()
    shown = capsys.readouterr()
    assert is_harmless(shown.out + shown.err) and shown.out + shown.err
    if "--traceback" not in words:
        assert SECRET not in shown.out + shown.err


def hostile_items():
    return [HOSTILE]


@pytest.mark.django_db
def test_no_page_shows_control_characters_or_texts_of_the_project(admin_client):
    for memoized in (shown, rewritten, refused, failing):
        object_id = info_of(memoized).id
        page = reverse("admin:cache_memoize_memoizedfunction_change", args=[object_id])
        for name in ("", "look/", "invalidate/", "refresh/"):
            for arguments in ("1", f"'{HOSTILE}'", HOSTILE, ""):
                asked = admin_client.post if name else admin_client.get
                response = asked(page + name, {"arguments": arguments})
                text = response.content.decode()
                assert is_harmless(text, keep="\n\t\r") and SECRET not in text
    text = admin_client.get(
        reverse("admin:cache_memoize_memoizedfunction_changelist")
    ).content.decode()
    assert is_harmless(text, keep="\n\t\r") and "forged" in text


def test_checks_show_no_control_characters():
    options = {"prefix": HOSTILE, "cache_alias": HOSTILE}
    with pytest.warns(RuntimeWarning, match="one prefix=") as warned:
        kept = [cache_memoize(60, **options)(noop), cache_memoize(60, **options)(shout)]
    assert is_harmless(str(warned[0].message), keep="")
    found = check_functions(None) + check_caches(None)
    assert kept and any("forged" in each.msg for each in found)
    assert all(is_harmless(f"{each.msg}{each.hint}", keep="") for each in found)


def test_the_panel_shows_no_control_characters():
    assert not is_harmless(HOSTILE)
    panel = MemoizePanel(None, None)
    events = {"events": [{"key": HOSTILE, "function": HOSTILE, "alias": HOSTILE}]}
    with mock.patch.object(MemoizePanel, "_shown", events):
        assert is_harmless(panel.content, keep="\n\t\r")
