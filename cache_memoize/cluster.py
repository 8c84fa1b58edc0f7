"""A cache in a Redis or Valkey cluster, over Django's own for one server."""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import cached_property
from typing import Any

from django.core.cache.backends.redis import RedisCache, RedisCacheClient
from django.core.exceptions import ImproperlyConfigured

__all__ = ["RedisClusterCache"]

#: Options of the client that let it read from replicas, which lag.
_REPLICAS = ("read_from_replicas", "load_balancing_strategy")

#: By process and settings.
_clients: dict[Any, Any] = {}


class RedisClusterClient(RedisCacheClient):
    _servers: list[str]
    _serializer: Any

    def __init__(self, servers: Any, serializer: Any = None, **options: Any) -> None:
        super().__init__(servers, serializer)
        if refused := [name for name in _REPLICAS if options.get(name)]:
            raise ImproperlyConfigured(
                "RedisClusterCache reads from the primaries only: a replica that lags "
                f"would serve what was invalidated; leave {refused[0]!r} out of OPTIONS"
            )
        self._options = options

    @cached_property
    def _cluster(self) -> Any:
        """The client, which asks the nodes for the topology: one for all threads."""
        key = os.getpid(), repr(self._servers), repr(self._options)
        if key not in _clients:
            _clients[key] = self._connect()
        return _clients[key]

    def _connect(self) -> Any:
        from redis import cluster, connection

        node: Any = cluster.ClusterNode
        first, *others = self._servers
        parts: Any = map(connection.parse_url, others)
        nodes = [node(each["host"], each.get("port", 6379)) for each in parts]
        return cluster.RedisCluster.from_url(
            first, startup_nodes=nodes, **self._options
        )

    def get_client(self, key: Any = None, *, write: bool = False) -> Any:
        return self._cluster

    # The commands on several keys, which may be on several nodes.

    def get_many(self, keys: Iterable[Any]) -> dict[Any, Any]:
        names, load = list(keys), self._serializer.loads
        found = zip(names, self._cluster.mget_nonatomic(names), strict=True)
        return {key: load(raw) for key, raw in found if raw is not None}

    def set_many(self, data: Any, timeout: Any) -> None:
        for key, value in data.items():
            self.set(key, value, timeout)


class RedisClusterCache(RedisCache):
    """A ``BACKEND`` for ``CACHES``; ``LOCATION`` is the URL of a node, or a list."""

    def __init__(self, server: Any, params: dict[str, Any]) -> None:
        super().__init__(server, params)
        self._class = RedisClusterClient
