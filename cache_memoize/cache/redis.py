"""Atomic replacement on Redis and Valkey: one server, replicas, Sentinel, a cluster.

The server has one of three ways, tried in this order: ``SET ... IFEQ``, a script, and a
transaction (``WATCH``, ``MULTI``), which any server allows. A user of the server may be
forbidden the first two. All commands go to the primary: a replica that lags would
serve what was invalidated.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

from .vouchers import VOUCHER, Backend, Cache

__all__ = ["DirectRedis", "DjangoRedis", "Redis"]


class _Values(NamedTuple):
    """A Redis client, the full key, and the encoding of values."""

    client: Any
    key: str
    encode: Callable[[bytes], Any]
    decode: Callable[[Any], Any]
    #: The address of the server.
    server: str


def _by_comparison(
    values: _Values, stored: Any, old: bytes, new: Any, seconds: int | None
) -> bool:
    """Redis from 8.4 on, Valkey from 8.1 on."""
    lifetime = () if seconds is None else ("EX", seconds)
    command = "SET", values.key, new, "IFEQ", stored, *lifetime
    return bool(values.client.execute_command(*command))


_SCRIPT = (
    "if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end "
    "if ARGV[3] == '' then redis.call('SET', KEYS[1], ARGV[2]) "
    "else redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[3]) end return 1"
)


def _by_script(
    values: _Values, stored: Any, old: bytes, new: Any, seconds: int | None
) -> bool:
    lifetime = "" if seconds is None else seconds
    return bool(values.client.eval(_SCRIPT, 1, values.key, stored, new, lifetime) == 1)


def _by_watching(
    values: _Values, stored: Any, old: bytes, new: Any, seconds: int | None
) -> bool:
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


_WAYS = (_by_comparison, _by_script, _by_watching)


def _is_refused(error: Exception) -> bool:
    """Return whether a server does not have, or not allow, a command."""
    text, refusals = str(error).lower(), ("syntax error", "unknown command")
    return type(error).__name__ == "NoPermissionError" or any(
        words in text for words in (*refusals, "no permission", "not allowed")
    )


def _is_of_cluster(client: Any) -> bool:
    return hasattr(client, "mget_nonatomic")


class Redis(Backend):
    """Django's Redis cache: the best of three ways that the server allows."""

    def __init__(self) -> None:
        #: By address of the server: how many of the ways it has refused.
        self._refused: dict[str, int] = {}

    def fitting(self, cache: Cache) -> Backend:
        return self if len(cache._servers) == 1 else _DIRECT

    def swap(
        self, cache: Cache, key: str, old: bytes, new: bytes, seconds: int | None
    ) -> bool:
        values = self.values(cache, key)
        expected, encoded = values.encode(old), values.encode(new)
        if self._replace(values, expected, old, encoded, seconds):
            return True
        # Some encodings are another one each time: with a nonce, or the time (gzip).
        stored = values.client.get(values.key)
        if stored is None or stored == expected or values.decode(stored) != old:
            return False
        return self._replace(values, stored, old, encoded, seconds)

    def _replace(self, values: _Values, *operands: Any) -> bool:
        """Replace the value ``stored``, which is decoded ``old``, in the first way that
        the server allows."""
        number = self._refused.get(values.server, 0)
        while True:
            try:
                return _WAYS[number](values, *operands)
            except Exception as error:
                if number + 1 == len(_WAYS) or not _is_refused(error):
                    raise
                number += 1
                self._refused[values.server] = number

    def client(self, cache: Cache) -> Any:
        return self.values(cache, "").client

    def can_tell(self, cache: Cache) -> bool:
        # In a cluster, a script may not use keys of several slots.
        try:
            return not _is_of_cluster(self.client(cache))
        except Exception:  # it cannot be made now: the holder will say so
            return True

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

    def values(self, cache: Cache, key: str) -> _Values:
        full_key, own = self.full_key(cache, key), cache._cache
        client, serializer = own.get_client(full_key, write=True), own._serializer
        server = str(own._servers)
        return _Values(client, full_key, serializer.dumps, serializer.loads, server)

    def full_key(self, cache: Cache, key: str) -> str:
        return str(cache.make_and_validate_key(key))

    def encoder(self, cache: Cache) -> Callable[[bytes], Any]:
        encode: Callable[[bytes], Any] = cache._cache._serializer.dumps
        return encode


class DirectRedis(Redis):
    """Several servers: by the client of the primary, or of a cluster.

    The methods of Django's cache, and of django-redis, read from a replica.
    """

    def fitting(self, cache: Cache) -> Backend:
        return self

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


_DIRECT = DirectRedis()


class DjangoRedis(DirectRedis):
    """django-redis and django-valkey, with a client that they do not change much.

    With IGNORE_EXCEPTIONS, the cache object above it hides all errors, and time-outs
    take as long each time.
    """

    def fitting(self, cache: Cache) -> Backend:
        cls: Any = type(cache.client)
        return self if _is_known_client(cls) else VOUCHER

    def values(self, cache: Cache, key: str) -> _Values:
        own = cache.client
        client, full_key = own.get_client(write=True), own.make_key(key)
        return _Values(client, full_key, own.encode, own.decode, str(own._server))

    def full_key(self, cache: Cache, key: str) -> str:
        return str(cache.client.make_key(key))

    def encoder(self, cache: Cache) -> Callable[[bytes], Any]:
        encode: Callable[[bytes], Any] = cache.client.encode
        return encode


_CLIENTS = {
    "django_redis.client.default.DefaultClient",
    "django_valkey.client.default.DefaultClient",
    "django_valkey.cluster_cache.client.default.DefaultClusterClient",
}


@functools.lru_cache(64)
def _is_known_client(cls: Any) -> bool:
    """Return whether a client reads and writes as one that we know."""
    parts = ("get", "add", "set", "delete", "encode", "make_key")
    return any(
        all(getattr(cls, part) is getattr(each, part) for part in parts)
        for each in cls.__mro__
        if f"{each.__module__}.{each.__qualname__}" in _CLIENTS
    )
