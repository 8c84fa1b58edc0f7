"""What comparison.py tries: this library and its peers, each set up well.

PyPI's django-cache-memoize has our import name: :func:`tests.peers.established` loads
it from a folder.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import threading
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

from django.core.cache import caches
from django.test import override_settings
from django.utils import timezone
from django.utils.translation import get_language

from tests.models import Post


def established(folder: Path) -> Any:
    # Not above: what it imports needs the present version of this library.
    return import_module("tests.peers").established(folder)


class Unknown(Exception):
    """The package does not know such a thing."""


class Contender:
    """A package, in one process.

    :param port: of the server that it is to use. :param memory: the process's own
        memory instead. :param folder: where packages are.
    """

    title: ClassVar[str]
    #: The distribution and the package; the folder of the package is looked at.
    names: ClassVar[tuple[str, str]]
    #: Whether several processes see one cache.
    shared: ClassVar[bool] = True
    #: Whether functions run in the thread of their caller.
    in_caller: ClassVar[bool] = True
    #: Whether it can have the memory of the process for its cache.
    in_memory: ClassVar[bool] = True
    needs_django: ClassVar[bool] = True
    #: What is written by hand where there is no ready-made part of keys.
    parts: ClassVar[dict[str, Any]] = {
        "language": get_language,
        "time_zone": lambda: (
            timezone.get_current_timezone_name(),
            str(timezone.get_current_timezone().utcoffset(None)),
        ),
    }

    def __init__(self, port: int, folder: Path, *, memory: bool) -> None:
        self.port, self.folder, self.in_process = port, folder, memory

    def memoize(self, function: Any) -> Any:
        """A memoized function that sync code calls."""
        raise NotImplementedError

    def plain(self, function: Any) -> Any:
        """Without what costs a hit something and others do not have."""
        return self.memoize(function)

    def amemoize(self, function: Any) -> Any:
        """One for async code."""
        return self.memoize(function)

    def invalidate(self, f: Any, *args: Any, **kwargs: Any) -> None:
        raise NotImplementedError

    def everything(self, f: Any) -> None:
        raise Unknown

    # --- for kinds.py ---

    def refresh(self, f: Any, *args: Any) -> None:
        raise Unknown

    def by_rows(self, function: Any, model: Any, calls: Any) -> Any:
        """A memoized function of which saves of ``model`` invalidate ``calls(row)``."""
        raise Unknown

    def varied(self, function: Any, part: Any) -> Any:
        """One whose result depends on ``part()``, a ready-made part if there is one."""
        raise Unknown

    def raising(self, function: Any, errors: Any) -> Any:
        """One whose exceptions are stored."""
        raise Unknown

    @contextlib.contextmanager
    def signed(self) -> Any:
        """While entries are signed."""
        raise Unknown
        yield

    def stored(self) -> dict[str, bytes]:
        """The entries as they are in the cache."""
        raise NotImplementedError

    def write(self, key: str, raw: bytes) -> None:
        """Write an entry as another program would."""
        raise NotImplementedError


class Ours(Contender):
    title, names = "this library", ("django-cache-memoize", "cache_memoize")

    def memoize(self, function):
        return import_module("cache_memoize").cache_memoize(60, tags=())(function)

    def plain(self, function):
        return import_module("cache_memoize").cache_memoize(60)(function)

    def invalidate(self, f, *args, **kwargs):
        f.invalidate(*args, **kwargs)

    def everything(self, f):
        f.invalidate_all()

    def refresh(self, f, *args):
        f.refresh(*args)

    def by_rows(self, function, model, calls):
        f = self.memoize(function)
        f.invalidate_on(model, calls)
        return f

    def varied(self, function, part):
        return import_module("cache_memoize").cache_memoize(60, vary_on=part)(function)

    def raising(self, function, errors):
        decorate = import_module("cache_memoize").cache_memoize
        return decorate(60, cache_exceptions=errors)(function)

    @contextlib.contextmanager
    def signed(self):
        with override_settings(CACHE_MEMOIZE={"SIGN": True, "STATS_INTERVAL": 0}):
            yield

    def stored(self):
        cache = caches["default"]
        if self.in_process:
            keys = [key.split(":", 2)[2] for key in cache._cache]
        else:
            client = cache._cache.get_client()
            keys = [key.decode().split(":", 2)[2] for key in client.scan_iter()]
        return {key: raw for key in keys if type(raw := cache.get(key)) is bytes}

    def write(self, key, raw):
        caches["default"].set(key, raw, 60)


class Before(Ours):
    """This library at an older commit, which is first on the path."""

    title = "this library before"


class Established(Contender):
    title = "django-cache-memoize 0.2"
    names = ("django-cache-memoize", "cache_memoize")

    def memoize(self, function):
        return established(self.folder).cache_memoize(60)(function)

    def invalidate(self, f, *args, **kwargs):
        f.invalidate(*args, **kwargs)

    def refresh(self, f, *args):
        f(*args, _refresh=True)

    def varied(self, function, part):
        extra = self.parts[part] if isinstance(part, str) else part
        decorate = established(self.folder).cache_memoize
        return decorate(60, extra=lambda *args: extra())(function)

    def raising(self, function, errors):
        decorate = established(self.folder).cache_memoize
        return decorate(60, cache_exceptions=errors)(function)


class DjangoMemoize(Contender):
    title, names = "django-memoize", ("django-memoize", "memoize")

    def memoize(self, function):
        return import_module(self.names[1]).memoize(60)(function)

    def invalidate(self, f, *args, **kwargs):
        import_module(self.names[1]).delete_memoized(f, *args, **kwargs)

    def everything(self, f):
        import_module(self.names[1]).delete_memoized(f)


class Swr(DjangoMemoize):
    title, names = "django-swr-memoize", ("django-swr-memoize", "swr_memoize")


class Cached(Contender):
    title, names = "cacheops cached", ("django-cacheops", "cacheops")
    in_memory = False

    def memoize(self, function):
        return import_module("cacheops").cached(timeout=60)(function)

    def invalidate(self, f, *args, **kwargs):
        f.invalidate(*args, **kwargs)


class CachedAs(Cached):
    """What it forgets by is the model; there is nothing smaller by hand."""

    title = "cacheops cached_as"

    def memoize(self, function):
        decorate = import_module("cacheops").cached_as
        return decorate(Post, timeout=60, lock=True, keep_fresh=True)(function)

    def invalidate(self, f, *args, **kwargs):
        import_module("cacheops").invalidate_model(Post)

    def everything(self, f):
        self.invalidate(f)

    def by_rows(self, function, model, calls):
        return import_module("cacheops").cached_as(model, timeout=60)(function)

    def varied(self, function, part):
        extra = self.parts[part] if isinstance(part, str) else part
        decorate = import_module("cacheops").cached_as
        return decorate(Post, timeout=60, extra=lambda *args: extra())(function)


class Dogpile(Contender):
    title, names = "dogpile.cache", ("dogpile.cache", "dogpile")
    needs_django = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        module = import_module("dogpile.cache")
        #: One that knows names, as its documentation advises.
        generate = module.util.kwarg_function_key_generator
        self.region = module.make_region(function_key_generator=generate)
        arguments = {"port": self.port, "distributed_lock": True, "socket_timeout": 2}
        if self.in_process:
            self.region.configure("dogpile.cache.memory", expiration_time=60)
        else:
            self.region.configure(
                "dogpile.cache.redis", expiration_time=60, arguments=arguments
            )

    def memoize(self, function):
        return self.region.cache_on_arguments()(function)

    def invalidate(self, f, *args, **kwargs):
        f.invalidate(*args, **kwargs)

    def refresh(self, f, *args):
        f.refresh(*args)


class Flask(Contender):
    title, names = "flask-caching", ("flask-caching", "flask_caching")
    needs_django = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        server = {
            "CACHE_TYPE": "RedisCache",
            "CACHE_REDIS_PORT": self.port,
            "CACHE_OPTIONS": {"socket_timeout": 2},
        }
        memory = {"CACHE_TYPE": "SimpleCache"}
        app = import_module("flask").Flask("comparison")
        config = memory if self.in_process else server
        self.cache = import_module("flask_caching").Cache(app, config=config)

    def memoize(self, function):
        return self.cache.memoize(60, cache_none=True)(function)

    def invalidate(self, f, *args, **kwargs):
        self.cache.delete_memoized(f, *args, **kwargs)

    def everything(self, f):
        self.cache.delete_memoized(f)


class Cashews(Contender):
    """Async only: sync code calls it through a loop in a thread, and the functions run
    in threads of their own."""

    title, names = "cashews", ("cashews", "cashews")
    needs_django = False
    in_caller = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.cache = import_module("cashews").Cache()
        self.url = f"redis://127.0.0.1:{self.port}?socket_timeout=2"
        self.cache.setup("mem://" if self.in_process else self.url)
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()

    def wait(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(60)

    def memoize(self, function):
        @functools.wraps(function)
        async def afunction(*args, **kwargs):
            return await asyncio.to_thread(function, *args, **kwargs)

        decorated = self.cache(ttl=60, lock=True)(afunction)

        @functools.wraps(function)
        def call(*args, **kwargs):
            return self.wait(decorated(*args, **kwargs))

        call.original = afunction  # type: ignore[attr-defined]
        return call

    def amemoize(self, function):
        decorated = self.cache(ttl=60, lock=True)(function)

        @functools.wraps(function)
        async def call(*args, **kwargs):
            coroutine = decorated(*args, **kwargs)
            future = asyncio.run_coroutine_threadsafe(coroutine, self.loop)
            return await asyncio.wrap_future(future)

        return call

    def invalidate(self, f, *args, **kwargs):
        key = import_module("cashews.key").get_cache_key(f.original, None, args, kwargs)
        self.wait(self.cache.delete(key))

    @contextlib.contextmanager
    def signed(self):
        plain, self.cache = self.cache, import_module("cashews").Cache()
        self.cache.setup(self.url, secret="only for the tests", digestmod="sha256")
        yield
        self.cache = plain

    def stored(self):
        client = self.client
        return {key.decode(): client.get(key) for key in client.scan_iter()}

    def write(self, key, raw):
        self.client.set(key, raw, 60)

    @property
    def client(self):
        return import_module("redis").Redis(port=self.port)


class Cachetools(Contender):
    title, names = "cachetools", ("cachetools", "cachetools")
    shared = needs_django = False

    def memoize(self, function):
        cachetools = import_module("cachetools")
        cache = cachetools.TTLCache(10_000, 60)
        condition, key = threading.Condition(), cachetools.keys.typedkey
        return cachetools.cached(cache, key, condition=condition)(function)

    def invalidate(self, f, *args, **kwargs):
        with f.cache_condition:
            f.cache.pop(f.cache_key(*args, **kwargs), None)

    def everything(self, f):
        f.cache_clear()


class LruCache(Contender):
    """It forgets everything or nothing."""

    title, names = "lru_cache", ("", "functools")
    shared = needs_django = False

    def memoize(self, function):
        return functools.lru_cache(maxsize=10_000, typed=True)(function)

    def invalidate(self, f, *args, **kwargs):
        f.cache_clear()

    def everything(self, f):
        f.cache_clear()


CONTENDERS: dict[str, type[Contender]] = {
    each.title: each
    for each in (
        Ours,
        Established,
        DjangoMemoize,
        Swr,
        Cached,
        CachedAs,
        Dogpile,
        Cashews,
        Flask,
        Cachetools,
        LruCache,
    )
}
