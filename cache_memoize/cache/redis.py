"""Atomic replacement on Redis and Valkey, through Django's client and django-redis.

The server has one of three ways, tried in this order: ``SET ... IFEQ``, a script, and a
transaction (``WATCH``, ``MULTI``), which any server allows. A user of the server may be
forbidden the first two.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from .vouchers import Backend, Cache

__all__ = ["DjangoRedis", "Redis"]


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
    with values.client.pipeline() as pipeline:
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


class Redis(Backend):
    """Redis: the best of three ways that the server allows."""

    tells = True

    def __init__(self) -> None:
        #: By address of the server: how many of the ways it has refused.
        self._refused: dict[str, int] = {}

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

    def takes_bytes(self, cache: Cache) -> bool:
        try:
            encode = self.values(cache, "key").encode
        except Exception:  # wrong settings are reported elsewhere
            return True
        try:
            encode(b"\xff")
        except Exception:
            return False
        return True

    def values(self, cache: Cache, key: str) -> _Values:
        full_key, own = cache.make_and_validate_key(key), cache._cache
        client, serializer = own.get_client(full_key, write=True), own._serializer
        server = str(own._servers)
        return _Values(client, full_key, serializer.dumps, serializer.loads, server)


def _of_client(name: str) -> Any:
    """Return a command of the client of django-redis: with IGNORE_EXCEPTIONS, the cache
    object above it hides all errors, and time-outs take as long each time."""
    command = getattr(Backend, name)

    def run(self: Backend, cache: Cache, *args: Any) -> Any:
        try:
            return command(self, cache.client, *args)
        except Exception as error:
            if type(error).__name__ != "ConnectionInterrupted":
                raise
            raise error.__cause__ or error from None

    return run


class DjangoRedis(Redis):
    """django-redis with its default client."""

    get, get_many = _of_client("get"), _of_client("get_many")
    add, set, delete = _of_client("add"), _of_client("set"), _of_client("delete")

    def values(self, cache: Cache, key: str) -> _Values:
        own = cache.client
        client, full_key = own.get_client(write=True), own.make_key(key)
        return _Values(client, full_key, own.encode, own.decode, str(own._server))
