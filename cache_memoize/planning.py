"""One memoized function, made of its options, the project's, and the library's.

Settings are read when they are used. So a function is settled at its first call, not
where it is decorated, and again after the settings have changed.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable
from typing import Any
from weakref import WeakSet

from django.apps import apps
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed

from . import (
    conf,
    options,
    process,
    registry,
    vary,
)
from .cache import local, record
from .cache.breaker import breaker_of
from .cache.connections import (
    afetch,
    afetch_tagged,
    fetch,
    fetch_tagged,
    place_from_afar,
    place_of,
)
from .cache.store import AsyncStore, Store
from .clock import Clock
from .keys.binding import Binder, default_prefix
from .keys.maker import key_maker
from .keys.tags import function_tag, tagging
from .protocol.many import Batchable
from .protocol.policy import Policy
from .stats.reporter import reporter

__all__ = ["Core", "everyone", "known"]

#: The options that protocol/policy.py knows.
_POLICY = (
    "timeout",
    "store_result",
    "cache_exceptions",
    "cache_if",
    "wait",
    "lease",
    "stale",
    "early_refresh",
    "jitter",
    "hold",
)
#: What a guard (store_result=False) cannot have, and does not take from the project.
_NOT_FOR_GUARDS = ("stale", "early_refresh")

#: What the project says: its DEFAULTS, whether it is ENABLED, its KEY_PREFIX.
_Project = tuple[dict[str, Any], bool, str]
_NOTHING_SAID: _Project = ({}, True, "")

#: Held while a function is settled. Not while one is decorated: that happens in
#: modules that are being imported, perhaps because whoever holds this reads settings.
_lock = threading.RLock()
#: Held for moments, to add a function or to list them.
_listing = threading.RLock()
_everyone: WeakSet[Core] = WeakSet()


@process.after_fork
def _after_fork() -> None:
    """Another thread of the parent may have held them."""
    global _lock, _listing
    _lock, _listing = threading.RLock(), threading.RLock()
    for core in known():  # the reporter of the child starts with its first plan
        core.unsettle()


class Core(Batchable):
    """What the wrapper, the controls and the flows share of one function."""

    def __init__(
        self, function: Callable[..., Any], given: dict[str, Any], clock: Clock
    ) -> None:
        super().__init__(function, clock)
        name = self.name
        #: The options as they were given, without what was not.
        self.given = given
        self.options = options.LIBRARY | given
        #: Told whenever something of what is here has changed: the wrapper.
        self.rebind: Callable[[], None] = lambda: None
        #: What the decorator gave: the function with its controls.
        self.memoized: Any = None
        options.check(name, self.options)
        options.check_given(name, given)
        Policy.of(name, **{option: self.options[option] for option in _POLICY})
        self._binder = Binder(function, name, self.options["ignore"])
        self._prefix: str = self.options["prefix"] or ""
        if not self._prefix and self.options["key_generator_callable"] is None:
            self._prefix, whole = default_prefix(function)
            registry.note(self._prefix, whole, function)
        # What can be known to be wrong now is not left to the first call.
        self._settle(_NOTHING_SAID)
        self._is_settled = False
        self.key_of = self._first
        with _listing:
            _everyone.add(self)

    @property
    def prefix(self) -> str:
        """What sets its keys apart; its address where it makes its own keys."""
        return self._prefix or self.stats.path

    def _first(self, args: Any, kwargs: Any) -> str:
        """Stands for ``key_of`` until the settings have been read."""
        return self.settled()._key_of(args, kwargs)

    def settled(self) -> Core:
        """This, with what the settings say; raises ImproperlyConfigured."""
        if self._is_settled:
            return self
        with _lock:
            if self._is_settled:  # by another thread, meanwhile
                return self
            conf.check()  # all: else a wrong ON_ERROR shows when the cache is down
            said = conf.defaults(), conf.get("ENABLED"), conf.get("KEY_PREFIX")
            try:
                self._settle(said)
            except (TypeError, ValueError) as error:
                raise ImproperlyConfigured(
                    f"CACHE_MEMOIZE['DEFAULTS'] does not fit {self.stats.path}: {error}"
                ) from error
            # Settings may call what they define, and are not complete then.
            if not apps.ready:
                self.key_of = self._first
            self.rebind()
            self._is_settled = apps.ready
        if apps.ready:
            reporter.watch(self.stats)
        return self

    def unsettle(self) -> None:
        """The settings have changed: read them again at the next call."""
        with _lock:
            self._is_settled = False
            self.key_of = self._first
            self.rebind()

    def _settle(self, project: _Project) -> None:
        defaults, enabled, key_prefix = project
        if not self.options["store_result"]:
            defaults = {k: v for k, v in defaults.items() if k not in _NOT_FOR_GUARDS}
        self.options = all_ = options.LIBRARY | defaults | self.given
        name = self.name
        options.check(name, all_)
        all_ = options.asking(name, all_)
        rules = {option: all_[option] for option in _POLICY}
        self.policy = Policy.of(name, enabled=enabled, **rules)
        self.alias = self.stats.alias = all_["cache_alias"]
        self.hit, self.miss = all_["hit_callable"], all_["miss_callable"]
        self.breaker = breaker_of(self.alias)
        self.store = Store(self.alias, self.breaker, self.clock)
        self.astore = AsyncStore(self.alias, self.breaker, self.clock)
        parts = vary.parts(all_["vary_on"], name)
        self.varies, self.travels = bool(parts), vary.travel(parts)
        key_of: Callable[[Any, Any], str] = key_maker(
            self._binder,
            self._prefix,
            version=all_["version"],
            extra=all_["extra"],
            args_rewrite=all_["args_rewrite"],
            key_generator=all_["key_generator_callable"],
            vary_on=parts,
            key_prefix=key_prefix,
        )
        read: Any = fetch
        aread: Any = afetch
        tag, plain = None, record.ENTRY
        if all_["tags"] is not None:
            tag = function_tag(self.prefix)
            key_of = tagging(key_of, all_["tags"], tag, name)
            read, aread = fetch_tagged, afetch_tagged
            plain = record.ENTRY | record.TAGGED
        if all_["local"]:
            read = local.fetching(read, plain, place_of)
            aread = local.afetching(aread, plain, place_from_afar)
            local.watch_requests()
        #: The key of the tag that all calls have, if the function has tags. Calls may
        #: be under way: whoever looks sees the old ones or the new ones.
        self.tag = tag
        self.fetch, self.afetch = read, aread
        #: The kind of the records that a hit may take without a second look.
        self.plain = plain
        self.key_of = self._key_of = key_of

    def state(self) -> str:
        """Of the circuit breaker of its cache: closed, open or half-open."""
        return self.breaker.state(self.clock.monotonic())

    @property
    def is_async(self) -> bool:
        return inspect.iscoroutinefunction(self.function)


def known() -> list[Core]:
    """All memoized functions of this process, perhaps not settled yet."""
    with _listing:
        return list(_everyone)


def everyone() -> list[Core]:
    """All of them, with what the settings say; raises ImproperlyConfigured."""
    return [core.settled() for core in known()]


def _settings_changed(*, setting: str, **kwargs: Any) -> None:
    if setting == "CACHE_MEMOIZE":
        for core in known():
            core.unsettle()


setting_changed.connect(_settings_changed, dispatch_uid="cache_memoize.planning")
