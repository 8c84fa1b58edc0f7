"""What is measured next to this library: by hand, and other packages that memoize.

Each is a function that takes a :class:`Case` and gives a decorator, or raises
:class:`Missing` with the reason. PyPI's django-cache-memoize has our import name, so it
is loaded from a folder: ``pip install --no-deps --target DIR django-cache-memoize``.
The others are imported from the environment. All have a timeout of one hour and else
their defaults.
"""

from __future__ import annotations

import hashlib
import importlib.util
import itertools
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from django.core.cache import caches
from django.utils.connection import ConnectionProxy

from benchmarks.places import CACHE_RESULTS, FILE, LOCAL, MEMCACHED, VALKEY, Backend
from cache_memoize import cache_memoize
from tests.servers import SERVERS

OURS = "this library"
BY_HAND = "written by hand"
TIMEOUT = 3600

Decorate = Callable[[Any], Any]


class Style(NamedTuple):
    """How ``related(post, limit=10)`` is called."""

    title: str
    call: str = "(42, 10)"
    #: What stands for the post in a key that is written by hand.
    key: str = "post"
    awaited: bool = False
    method: bool = False
    tags: tuple[str, ...] | None = None


class Case(NamedTuple):
    """Where and how the function is called."""

    backend: Backend
    style: Style
    #: Where django-cache-memoize is.
    folder: Path | None

    def refuse(self, *, awaited: bool = True, tags: bool = True) -> None:
        """For packages that do not know async functions, or tags."""
        if awaited and self.style.awaited:
            raise Missing("it does not know async functions")
        if tags and self.style.tags:
            raise Missing("it has no tags")


class Missing(Exception):
    """Somebody who cannot be measured here; the message says why."""


def installed(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError:
        raise Missing("not installed") from None


def ours(case: Case) -> Decorate:
    alias, tags = case.backend.alias, case.style.tags
    decorate: Decorate = cache_memoize(TIMEOUT, cache_alias=alias, tags=tags)
    return decorate


_BY_HAND = """
{a}def {name}({me}post, limit=10):
    key = f"{name}:{{{key}}}:{{limit}}"
    value = {w}cache.{g}get(key, MISSING)
    if value is MISSING:
        value = {w}compute({me}post, limit)
        {w}cache.{g}set(key, value, {timeout})
    return value
"""


def by_hand(case: Case) -> Decorate:
    """The usual block, as it is written into the function that it is for."""
    case.refuse(awaited=False)
    awaited = case.style.awaited

    def decorate(function: Any) -> Any:
        source = _BY_HAND.format(
            a="async " if awaited else "",
            w="await " if awaited else "",
            g="a" if awaited else "",
            me="self, " if case.style.method else "",
            name=function.__name__,
            key=case.style.key,
            timeout=TIMEOUT,
        )
        # Of the default alias, this is django.core.cache.cache.
        cache = ConnectionProxy(caches, case.backend.alias)
        scope: dict[str, Any] = {
            "cache": cache,
            "compute": function,
            "hashlib": hashlib,
        }
        scope["MISSING"] = object()
        exec(source, scope)
        return scope[function.__name__]

    return decorate


def established(case: Case) -> Decorate:
    case.refuse()
    path = case.folder and case.folder / "cache_memoize" / "__init__.py"
    if not path or not path.exists():
        raise Missing("not in the folder given by --peers")
    name = "established_cache_memoize"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    decorate: Decorate = module.cache_memoize(TIMEOUT, cache_alias=case.backend.alias)
    return decorate


def results(case: Case) -> Decorate:
    case.refuse(awaited=False)
    CACHE_RESULTS["CACHE_ALIAS"] = case.backend.alias
    decorate: Decorate = installed("cache_results").cache_results(TIMEOUT)
    return decorate


def memoizer(module: str, case: Case) -> Decorate:
    """The API of django-memoize, which two packages go on with."""
    case.refuse()
    # By default they use django.core.cache.cache: the same proxy, of the default alias.
    cache: Any = ConnectionProxy(caches, case.backend.alias)
    decorate: Decorate = installed(module).Memoizer(cache).memoize(TIMEOUT)
    return decorate


def compat(case: Case) -> Decorate:
    if not (3, 12) <= sys.version_info < (3, 14):
        raise Missing("not installable here, it needs Python 3.12 or 3.13")
    return memoizer("memoize_compat", case)


def swr(case: Case) -> Decorate:
    return memoizer("swr_memoize", case)


def dogpile(case: Case) -> Decorate:
    case.refuse()
    port = SERVERS[case.backend.server].port if case.backend.server else 0
    backends: dict[Backend, tuple[str, dict[str, Any]]] = {
        LOCAL: ("memory_pickle", {}),
        VALKEY: ("redis", {"port": port}),
        MEMCACHED: ("pymemcache", {"url": [f"127.0.0.1:{port}"]}),
    }
    if case.backend not in backends:
        raise Missing("it has no such backend")
    name, arguments = backends[case.backend]
    make_region = installed("dogpile.cache").make_region
    util = import_module("dogpile.cache.util")
    # Its default is the faster one, and refuses keyword arguments.
    key_of = util.function_key_generator
    if "=" in case.style.call:
        key_of = util.kwarg_function_key_generator
    mangle = util.sha1_mangle_key if case.backend is MEMCACHED else None
    region = make_region(function_key_generator=key_of, key_mangler=mangle)
    region.configure(
        f"dogpile.cache.{name}", expiration_time=TIMEOUT, arguments=arguments
    )
    decorate: Decorate = region.cache_on_arguments()
    return decorate


def cashews(case: Case) -> Decorate:
    if not case.style.awaited:
        raise Missing("it knows async functions only")
    port = SERVERS["valkey"].port
    urls = {LOCAL: "mem://", VALKEY: f"redis://127.0.0.1:{port}"}
    if case.backend not in urls:
        raise Missing("it has no such backend")
    cache = installed("cashews").Cache()
    cache.setup(urls[case.backend])
    decorate: Decorate = cache(ttl=TIMEOUT)
    return decorate


def flask(case: Case) -> Decorate:
    case.refuse()
    settings: dict[Backend, dict[str, Any]] = {
        LOCAL: {"CACHE_TYPE": "SimpleCache"},
        VALKEY: {
            "CACHE_TYPE": "RedisCache",
            "CACHE_REDIS_HOST": "127.0.0.1",
            "CACHE_REDIS_PORT": SERVERS["valkey"].port,
        },
        FILE: {
            "CACHE_TYPE": "FileSystemCache",
            "CACHE_DIR": str(getattr(caches[FILE.alias], "_dir", "")) + "-flask",
        },
    }
    if case.backend not in settings:
        raise Missing("not with the client that the others have here")
    app = installed("flask").Flask("benchmarks")
    cache = installed("flask_caching").Cache(app, config=settings[case.backend])
    decorate: Decorate = cache.memoize(TIMEOUT)
    return decorate


def cacheops(case: Case) -> Decorate:
    case.refuse()
    if case.backend is not VALKEY:
        raise Missing("it knows Redis only")
    decorate: Decorate = installed("cacheops").cached(timeout=TIMEOUT)
    return decorate


PEERS: dict[str, Callable[[Case], Decorate]] = {
    BY_HAND: by_hand,
    "django-cache-memoize": established,
    "cache-results": results,
    "django-memoize-compat": compat,
    "django-swr-memoize": swr,
    "dogpile.cache": dogpile,
    "cashews": cashews,
    "flask-caching": flask,
    "django-cacheops": cacheops,
}


def decorators(case: Case) -> tuple[dict[str, Decorate], dict[str, str]]:
    """The decorators by name, ours first; and why others are missing."""
    found, missing = {OURS: ours(case)}, {}
    for name, decorator in PEERS.items():
        try:
            found[name] = decorator(case)
        except Missing as why:
            missing[name] = str(why)
        except Exception as trouble:  # in the package, on this Python or Django
            missing[name] = f"it does not work here: {trouble!r}"
    return found, missing


_numbers = itertools.count()


def subject(value: Any, style: Style) -> tuple[Any, list[object]]:
    """A function to memoize, and the list of its computations."""
    computed: list[object] = []

    def related(post: object, limit: int = 10) -> Any:
        computed.append(post)
        return value

    async def arelated(post: object, limit: int = 10) -> Any:
        computed.append(post)
        return value

    def method(self: object, post: object, limit: int = 10) -> Any:
        computed.append(post)
        return value

    function: Any = related
    if style.awaited or style.method:
        function = arelated if style.awaited else method
    # Keys hold the name, and every measurement needs keys of its own.
    function.__name__ = function.__qualname__ = f"related_{next(_numbers)}"
    return function, computed


class Blog:
    """The class of the bound methods: nothing tells two of its objects apart."""

    def __repr__(self) -> str:
        return "<the blog>"


def callee(function: Any, decorated: Any, style: Style) -> tuple[str, Any]:
    """An expression with ``related``, and what that is, to call the function."""
    if not style.method:
        return "related", decorated
    setattr(Blog, function.__name__, decorated)
    return f"related.{function.__name__}", Blog()
