"""Redis and Valkey: atomic replacement, and commands without a thread.

The server has one of three ways to replace, tried in this order: ``SET ... IFEQ``, a
script, and a transaction (``WATCH``, ``MULTI``), which any server allows. A user of the
server may be forbidden the first two. Sync and async code share them, as coroutines.
All commands go to the primary: a replica that lags would serve what was invalidated.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, NamedTuple

from asgiref.sync import sync_to_async
from django.core.cache.backends.redis import RedisCacheClient

from ..process import LoopStandstill, Standstill, run
from .errors import is_decoding_error
from .multiplexed import Multiplexed, twin_of
from .vouchers import UNREADABLE, VOUCHER, Backend, Cache, ServerMemory

__all__ = ["Awaited", "DirectRedis", "DjangoRedis", "Redis"]


class _Values(NamedTuple):
    """A Redis client, the full key, and the encoding of values."""

    client: Any
    key: str
    encode: Callable[[bytes], Any]
    decode: Callable[[Any], Any]
    #: The address of the server.
    server: str


#: Sends one command to a server and returns its answer.
Ask = Callable[..., Awaitable[Any]]


def _lifetime(seconds: int | None) -> tuple[Any, ...]:
    return () if seconds is None else ("EX", seconds)


def _by_comparison(
    key: str, stored: Any, new: Any, seconds: int | None
) -> tuple[Any, ...]:
    """Redis from 8.4 on, Valkey from 8.1 on."""
    return "SET", key, new, "IFEQ", stored, *_lifetime(seconds)


_SCRIPT = (
    "if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end "
    "if ARGV[3] == '' then redis.call('SET', KEYS[1], ARGV[2]) "
    "else redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[3]) end return 1"
)


def _by_script(key: str, stored: Any, new: Any, seconds: int | None) -> tuple[Any, ...]:
    lifetime = "" if seconds is None else seconds
    return "EVAL", _SCRIPT, 1, key, stored, new, lifetime


#: The ways that are one command.
_WAYS = (_by_comparison, _by_script)


def _by_watching(values: _Values, new: Any, old: bytes, seconds: int | None) -> bool:
    with values.client.pipeline(True) as pipeline:
        pipeline.watch(values.key)
        found = pipeline.get(values.key)
        if found is None or values.decode(found) != old:
            return False
        pipeline.multi()
        pipeline.set(values.key, new, ex=seconds)
        try:
            pipeline.execute()
        except Exception as error:
            if type(error).__name__ != "WatchError":
                raise
            return False
        return True


def is_refused(error: Exception) -> bool:
    """Return whether a server does not have, or not allow, a command."""
    text = str(error).lower()
    refusals = "syntax error", "unknown command", "no permission", "not allowed"
    return any(words in text for words in refusals)


def _is_of_cluster(client: Any) -> bool:
    return hasattr(client, "mget_nonatomic")


class Redis(Backend):
    """Django's Redis cache: the best of three ways that the server allows."""

    tells = True

    def __init__(self) -> None:
        #: By address of the server: how many of the ways it has refused.
        self._refused: dict[str, int] = {}

    def fitting(self, cache: Cache) -> Backend:
        if cache._class is not RedisCacheClient:
            return _SILENT
        return self if len(cache._servers) == 1 else _DIRECT

    def swap(
        self, cache: Cache, key: str, old: bytes, new: bytes, seconds: int | None
    ) -> bool:
        values = self.values(cache, key)

        async def ask(*command: Any) -> Any:
            return values.client.execute_command(*command)

        done = run(self.replace(values, ask, old, new, seconds))
        if done is None:
            return _by_watching(values, values.encode(new), old, seconds)
        return done

    async def replace(
        self, values: _Values, ask: Ask, old: bytes, new: bytes, seconds: int | None
    ) -> bool | None:
        """Replace ``old`` by one command; return None if the server allows none."""
        expected, encoded = values.encode(old), values.encode(new)
        done = await self._replace(values, ask, expected, encoded, seconds)
        if done is not False:
            return done
        # Some encodings are another one each time: with a nonce, or the time (gzip).
        stored = await ask("GET", values.key)
        if stored is None or stored == expected or values.decode(stored) != old:
            return False
        return await self._replace(values, ask, stored, encoded, seconds)

    async def _replace(
        self, values: _Values, ask: Ask, stored: Any, new: Any, seconds: int | None
    ) -> bool | None:
        number = self._refused.get(values.server, 0)
        while number < len(_WAYS):
            try:
                return bool(await ask(*_WAYS[number](values.key, stored, new, seconds)))
            except Exception as error:
                if not is_refused(error):
                    raise
                number += 1
                self._refused[values.server] = number
        return None

    def client(self, cache: Cache) -> Any:
        return self.values(cache, "").client

    def takes_bytes(self, cache: Cache) -> bool:
        try:
            encode = self.encoder(cache)
        except Exception:  # wrong settings are reported elsewhere
            return True
        try:
            encode(b"\xff")
        except Exception:
            return False
        return True

    def ask_server(self, cache: Cache) -> str | None:
        client = self.client(cache)
        if _is_of_cluster(client):
            return None
        about = client.info()
        if about.get("cluster_enabled"):
            shards = client.execute_command("CLUSTER INFO")["cluster_size"]
            return "MOVED" if int(shards) > 1 else None
        return "READONLY" if about["role"] == "slave" else None

    def ask_memory(self, cache: Cache) -> ServerMemory | None:
        client = self.client(cache)
        if _is_of_cluster(client):
            return None
        about = client.info()
        names = "evicted_keys", "uptime_in_seconds", "maxmemory", "maxmemory_policy"
        return ServerMemory(*(about[name] for name in names))

    def full_key(self, cache: Cache, key: str) -> str:
        return str(cache.make_and_validate_key(key))

    def encoder(self, cache: Cache) -> Callable[[bytes], Any]:
        encode: Callable[[bytes], Any] = cache._cache._serializer.dumps
        return encode

    def values(self, cache: Cache, key: str) -> _Values:
        full_key, own = self.full_key(cache, key), cache._cache
        client, serializer = own.get_client(full_key, write=True), own._serializer
        server = str(own._servers)
        return _Values(client, full_key, serializer.dumps, serializer.loads, server)

    def has_plain_client(self, cache: Cache) -> bool:
        """Return whether the client is that of Django, and not a subclass."""
        return type(cache._cache) is RedisCacheClient

    def awaited(self, cache: Cache) -> Awaited | None:
        with suppress(Exception):  # a thread reports what is wrong with the settings
            if self.has_plain_client(cache):
                return Awaited(self, cache)
        return None


class DirectRedis(Redis):
    """Several servers: by the client of the primary, or of a cluster.

    The methods of Django's cache, and of django-redis, read from a replica.
    """

    def answers_in_order(self, cache: Cache) -> bool:
        return self.tells  # else it may be a cluster

    def get(self, cache: Cache, key: str) -> Any:
        values = self.values(cache, key)
        found = values.client.get(values.key)
        return None if found is None else values.decode(found)

    def get_many(self, cache: Cache, keys: list[str]) -> dict[str, Any]:
        values = self.values(cache, keys[0])
        client = values.client
        # In a cluster: a command for the keys of each slot, all of them sent at once.
        read = client.mget_nonatomic if _is_of_cluster(client) else client.mget
        names = [self.full_key(cache, key) for key in keys]
        found = zip(keys, read(names), strict=True)
        return {key: values.decode(raw) for key, raw in found if raw is not None}

    def add(self, cache: Cache, key: str, new: bytes, seconds: int | None) -> bool:
        values, encoded = self._encoded(cache, key, new)
        return bool(values.client.set(values.key, encoded, ex=seconds, nx=True))

    def set(self, cache: Cache, key: str, new: bytes, seconds: int | None) -> None:
        values, encoded = self._encoded(cache, key, new)
        values.client.set(values.key, encoded, ex=seconds)

    def delete(self, cache: Cache, key: str) -> bool:
        values = self.values(cache, key)
        return bool(values.client.delete(values.key))

    def _encoded(self, cache: Cache, key: str, new: bytes) -> tuple[_Values, Any]:
        values = self.values(cache, key)
        return values, values.encode(new)


class SilentRedis(DirectRedis):
    """A cluster, or a client that we do not know: none to tell processes of changes."""

    tells = False


_DIRECT, _SILENT = DirectRedis(), SilentRedis()


class DjangoRedis(DirectRedis):
    """django-redis and django-valkey, with a client that they do not change much.

    With IGNORE_EXCEPTIONS, the cache object above it hides all errors, and time-outs
    take as long each time.
    """

    def fitting(self, cache: Cache) -> Backend:
        cls: Any = type(cache.client)
        factory = type(cache.client.connection_factory)
        if not _is_known_client(cls):
            return VOUCHER
        return self if _path_of(factory) in _FACTORIES else _SILENT_PACKAGE

    def full_key(self, cache: Cache, key: str) -> str:
        return str(cache.client.make_key(key))

    def values(self, cache: Cache, key: str) -> _Values:
        own, full_key = cache.client, self.full_key(cache, key)
        client, server = own.get_client(write=True), str(own._server)
        return _Values(client, full_key, own.encode, own.decode, server)

    def has_plain_client(self, cache: Cache) -> bool:
        package, _, rest = _path_of(type(cache.client)).partition(".")
        known = package in ("django_redis", "django_valkey")
        return known and rest == "client.default.DefaultClient"

    def encoder(self, cache: Cache) -> Callable[[bytes], Any]:
        encode: Callable[[bytes], Any] = cache.client.encode
        return encode


class SilentDjangoRedis(DjangoRedis):
    tells = False


_SILENT_PACKAGE = SilentDjangoRedis()
_CLIENTS = {
    "django_redis.client.default.DefaultClient",
    "django_valkey.client.default.DefaultClient",
    "django_valkey.cluster_cache.client.default.DefaultClusterClient",
}
#: Their clients are of one server each.
_FACTORIES = {
    f"{package}.pool.{name}ConnectionFactory"
    for package in ("django_redis", "django_valkey")
    for name in ("", "Sentinel")
}


def _path_of(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


@functools.lru_cache(64)
def _is_known_client(cls: Any) -> bool:
    """Return whether a client reads and writes as one that we know."""
    parts = ("get", "add", "set", "delete", "encode", "make_key")
    return any(
        all(getattr(cls, part) is getattr(each, part) for part in parts)
        for each in cls.__mro__
        if _path_of(each) in _CLIENTS
    )


class Awaited:
    """The commands on one cache for event loops, each over one connection.

    A connection takes as long as some commands through a thread, and async_to_sync()
    makes a loop for each call: so the first commands of a loop go through a thread.
    """

    #: The number of those commands.
    FIRST = 3

    def __init__(self, backend: Redis, cache: Cache) -> None:
        self.backend, self.cache = backend, cache
        self._values = backend.values(cache, "")
        self._make = twin_of(self._values.client)
        self._loop: Any = None
        self._commands = 0
        self._connection: Multiplexed | None = None
        #: Whether the server refuses commands with several keys.
        self._by_one = False

    def standstill(self) -> Standstill:
        return LoopStandstill()

    def is_ready(self) -> bool:
        """Note a command in the running loop; return whether it is to be sent here."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._loop, self._commands, self._connection = loop, 0, None
        self._commands += 1
        return self._commands > self.FIRST

    def ask(self, *command: Any) -> asyncio.Future[Any]:
        if self._connection is None or self._connection.closed:
            self._connection = Multiplexed(self._make())
        return self._connection.ask(*command)

    async def do(self, command: str, *args: Any) -> Any:
        return await getattr(self, command)(*args)

    async def get(self, key: str) -> Any:
        stored = await self.ask("GET", self.backend.full_key(self.cache, key))
        return None if stored is None else self._values.decode(stored)

    async def get_many(self, keys: list[str]) -> dict[str, Any]:
        names = [self.backend.full_key(self.cache, key) for key in keys]
        if not self._by_one:
            try:
                stored = await self.ask("MGET", *names)
            except Exception as error:
                if "slot" not in str(error).lower():
                    raise
                self._by_one = True
        if self._by_one:
            stored = await asyncio.gather(*[self.ask("GET", name) for name in names])
        found = zip(keys, stored, strict=True)
        return {key: self._read(each) for key, each in found if each is not None}

    def _read(self, stored: Any) -> Any:
        try:
            return self._values.decode(stored)
        except Exception as error:
            if not is_decoding_error(error):
                raise
            return UNREADABLE

    async def add(self, key: str, new: bytes, seconds: int | None) -> bool:
        return bool(await self._set(key, new, seconds, "NX"))

    async def set(self, key: str, new: bytes, seconds: int | None) -> None:
        await self._set(key, new, seconds)

    def _set(self, key: str, new: bytes, seconds: int | None, *how: str) -> Any:
        name, encoded = self.backend.full_key(self.cache, key), self._values.encode(new)
        return self.ask("SET", name, encoded, *_lifetime(seconds), *how)

    async def delete(self, key: str) -> bool:
        return bool(await self.ask("DEL", self.backend.full_key(self.cache, key)))

    async def swap(self, key: str, old: bytes, new: bytes, seconds: int | None) -> bool:
        backend, cache = self.backend, self.cache
        values = self._values._replace(key=backend.full_key(cache, key))
        done = await backend.replace(values, self.ask, old, new, seconds)
        if done is None:  # WATCH needs a connection of its own
            return await sync_to_async(backend.swap)(cache, key, old, new, seconds)
        return done
