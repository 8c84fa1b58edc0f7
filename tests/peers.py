"""What races.py compares: this library, wrong schemes, and other packages.

Each is a :class:`Subject`: a memoized function of one argument, and the ways to make it
forget. The roles of a trial are coroutines; over a subject that is not async they never
suspend, and run in threads.

PyPI's django-cache-memoize has our import name, so it is loaded from a folder: ``pip
install --no-deps --target DIR django-cache-memoize==0.2.1``. That folder is looked in
for the other peers, too, after the environment: ``pip install --target DIR cashews
dogpile.cache``.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from asgiref.sync import sync_to_async
from django.core.cache import caches

import cache_memoize as library
from tests import test_races as wrong
from tests.models import Post
from tests.servers import SERVERS

OURS = "this library"


class Missing(Exception):
    """Something that cannot be tried here; the message says why."""


class Subject:
    """A function under test. What a scheme does not know, it does not define:
    ``refresh(n)``, ``prime(n, value)``, ``tag(n)``, ``everything(n)``, ``evict(n)``,
    ``save(n, database, value)`` and ``update(n, database, value)``, which write a row.
    """

    #: Whether its roles are tasks of one event loop, not threads.
    tasks = False
    f: Any

    def begin(self, n: int) -> None:
        """Before a trial."""

    async def read(self, n: int) -> int:
        return self.f(n)

    async def end(self) -> None:
        """After the last one."""


# --- this library --------------------------------------------------------------------


class Ours(Subject):
    def __init__(self, alias: str, name: str, compute: Any, **options: Any) -> None:
        self.alias, self.name = alias, name
        options = {"cache_alias": alias, "prefix": name, **options}
        self.f = library.cache_memoize(options.pop("timeout", 60), **options)(compute)

    async def refresh(self, n):
        return self.f.refresh(n)

    async def prime(self, n, value):
        self.f.prime(value, n)

    async def invalidate(self, n):
        self.f.invalidate(n)

    async def evict(self, n):
        caches[self.alias].clear()


class Tagged(Ours):
    def __init__(self, alias: str, name: str, compute: Any, **options: Any) -> None:
        super().__init__(alias, name, compute, tags=self.tags_of, **options)

    def tags_of(self, n: int) -> list[str]:
        return [f"{self.name}.{n}", f"{self.name}.all"]

    async def tag(self, n):
        tag = self.tags_of(n)[n % 2]
        library.invalidate_tags(tag, cache_alias=self.alias)

    async def everything(self, n):
        self.f.invalidate_all()


class Signalled(Ours):
    """Rows are written, and the function hears of it."""

    def __init__(self, alias: str, name: str, compute: Any, **options: Any) -> None:
        super().__init__(alias, name, compute, tags=(), **options)
        self.f.invalidate_on(Post, lambda post: (post.pk,))

    async def save(self, n, database, value):
        Post(pk=n, title=str(value)).save(using=database, force_update=True)

    async def update(self, n, database, value):
        Post.objects.using(database).filter(pk=n).update(title=str(value))
        library.invalidate_model(Post)


class Watching(Ours):
    """Rows are written, and nothing is said."""

    async def write(self, n, database, value):
        post = Post(pk=n, title=str(value))
        if value % 2:
            post.save(using=database, force_update=True)
        else:
            Post.objects.using(database).filter(pk=n).update(title=post.title)


class InTasks:
    """The same with the methods for async code."""

    tasks = True
    f: Any
    alias: str

    async def read(self, n):
        return await self.f(n)

    async def refresh(self, n):
        return await self.f.arefresh(n)

    async def prime(self, n, value):
        await self.f.aprime(value, n)

    async def invalidate(self, n):
        await self.f.ainvalidate(n)

    async def evict(self, n):
        await sync_to_async(caches[self.alias].clear)()


class OursInTasks(InTasks, Ours):
    pass


class TaggedInTasks(InTasks, Tagged):
    async def tag(self, n):
        tag = self.tags_of(n)[n % 2]
        await library.ainvalidate_tags(tag, cache_alias=self.alias)

    async def everything(self, n):
        await self.f.ainvalidate_all()


def ours(alias: str, kind: str, compute: Any, acompute: Any) -> list[Subject]:
    """Callers that compute at once where others wait, so that much overlaps; some that
    wait; and tasks."""
    name = f"races.{alias}.{kind}".replace(" ", "-")
    hasty: dict[str, Any] = {"wait": 0}
    if kind == "models":
        return [
            Ours(alias, f"{name}.plain", compute, **hasty),
            Tagged(alias, f"{name}.tags", compute, **hasty),
            Signalled(alias, f"{name}.signals", compute, **hasty),
            Signalled(alias, f"{name}.patient", compute),
        ]
    if kind == "tables":
        stale = {"timeout": 0.003, "stale": 60}
        return [
            Watching(alias, f"{name}.reads", compute, depends_on="reads", **hasty),
            Watching(alias, f"{name}.model", compute, depends_on=Post, **hasty),
            Watching(alias, f"{name}.stale", compute, depends_on="reads", **stale),
            Watching(alias, f"{name}.patient", compute, depends_on="reads"),
        ]
    options: dict[str, Any] = {}
    if kind == "stale values":
        # Stale within a trial, so that reads refresh in the background meanwhile.
        options = {"timeout": 0.003, "stale": 60}
    threads, tasks = Ours, OursInTasks
    if kind in ("tags", "stale values"):
        threads, tasks = Tagged, TaggedInTasks
    found = [
        threads(alias, f"{name}.hasty", compute, **hasty, **options),
        threads(alias, f"{name}.hasty", compute, **hasty, **options),
        threads(alias, f"{name}.patient", compute, **options),
        tasks(alias, f"{name}.tasks", acompute, **hasty, **options),
    ]
    if kind == "stale values":
        early = {**options, "early_refresh": 1, "timeout": 0.005}
        found[1] = threads(alias, f"{name}.early", compute, **hasty, **early)
    return found


# --- wrong schemes -------------------------------------------------------------------


class Wrong(Subject):
    """One of test_races.py. They know one key, and are made anew for each trial."""

    scheme: Any

    def __init__(self, alias: str, compute: Any) -> None:
        self.alias, self.compute = alias, compute

    def begin(self, n):
        caches[self.alias].delete_many(["control", "version"])
        self.f = self.scheme(self.alias, lambda: self.compute(n))

    async def read(self, n):
        return self.f()

    async def refresh(self, n):
        return self.f.refresh()

    async def invalidate(self, n):
        self.f.invalidate()


class SetAfterCompute(Wrong):
    scheme = wrong.SetAfterCompute


class VersionCounter(Wrong):
    scheme = wrong.VersionCounter

    async def tag(self, n):
        self.f.invalidate()  # it is one counter for all


class CompareThenSet(Wrong):
    scheme = wrong.CompareThenSet


# --- other packages ------------------------------------------------------------------


def installed(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError:
        raise Missing("not installed") from None


def established(folder: Path | None) -> Any:
    """PyPI's django-cache-memoize, under another name."""
    path = folder and folder / "cache_memoize" / "__init__.py"
    if not path or not path.exists():
        raise Missing("not in the folder given by --peers")
    name = "established_cache_memoize"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        sys.modules[name] = module
    return sys.modules[name]


class Established(Subject):
    def __init__(self, alias: str, compute: Any, folder: Path | None) -> None:
        memoize = established(folder).cache_memoize
        self.f = memoize(60, prefix=f"races.{alias}", cache_alias=alias)(compute)

    async def refresh(self, n):
        return self.f(n, _refresh=True)

    async def invalidate(self, n):
        self.f.invalidate(n)


class Dogpile(Subject):
    """dogpile.cache, with its own backends."""

    def __init__(self, alias: str, compute: Any) -> None:
        backends = {
            "locmem": ("dogpile.cache.memory", {}),
            "valkey": ("dogpile.cache.redis", {"port": SERVERS["valkey"].port}),
            "pymemcache": (
                "dogpile.cache.pymemcache",
                {"url": [f"127.0.0.1:{SERVERS['memcached'].port}"]},
            ),
        }
        if alias not in backends:
            raise Missing("only where it has a backend of its own")
        name, arguments = backends[alias]
        self.region = installed("dogpile.cache").make_region()
        self.region.configure(name, expiration_time=60, arguments=arguments)
        self.f = self.region.cache_on_arguments()(compute)

    async def refresh(self, n):
        return self.f.refresh(n)

    async def prime(self, n, value):
        self.f.set(value, n)

    async def invalidate(self, n):
        self.f.invalidate(n)

    async def everything(self, n):
        self.region.invalidate()


class Cashews(Subject):
    """Tasks in one loop; ``lock=True`` is its protection against stampedes."""

    tasks = True

    def __init__(self, alias: str, acompute: Any) -> None:
        urls = {
            "locmem": "mem://",
            "valkey": f"redis://127.0.0.1:{SERVERS['valkey'].port}",
        }
        if alias not in urls:
            raise Missing("only where it has a backend of its own")
        self.cache = installed("cashews").Cache()
        self.cache.setup(urls[alias])
        decorate = self.cache(ttl=60, key="races:{n}", tags=["tag:{n}"], lock=True)
        self.f = decorate(acompute)

    async def read(self, n):
        return await self.f(n)

    async def invalidate(self, n):
        await self.cache.delete(f"races:{n}")

    async def tag(self, n):
        await self.cache.delete_tags(f"tag:{n}")

    async def end(self):
        await self.cache.clear()
        await self.cache.close()


#: What is tried next to this library, by title.
Factory = Callable[[str, Any, Any, Path | None], Subject]
CONTROLS: dict[str, Factory] = {
    "set after computing": lambda a, c, ac, folder: SetAfterCompute(a, c),
    "version read after computing": lambda a, c, ac, folder: VersionCounter(a, c),
    "compare, then set": lambda a, c, ac, folder: CompareThenSet(a, c),
}
PEERS: dict[str, Factory] = {
    "django-cache-memoize": lambda a, c, ac, folder: Established(a, c, folder),
    "dogpile.cache": lambda a, c, ac, folder: Dogpile(a, c),
    "cashews": lambda a, c, ac, folder: Cashews(a, ac),
}
