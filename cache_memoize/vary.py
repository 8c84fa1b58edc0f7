"""Ready-made parts of keys, for results that depend on more than their arguments.

.. code-block:: python

    @cache_memoize(60, vary_on=[vary.language, vary.time_zone])

Each is an ordinary function, called without arguments on every call of the memoized
one; its result becomes part of the key. You can write others. In settings, where
importing is awkward, use their names: ``"language"``.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

from django.apps import apps
from django.core.exceptions import ImproperlyConfigured
from django.db import connection, router
from django.utils import timezone, translation

from .conf import site_id

__all__ = ["database", "language", "parts", "site", "tenant", "time_zone", "travel"]


def language() -> str | None:
    """Return the active language, as ``"en-gb"``; None while translations are off."""
    return translation.get_language()


def time_zone() -> str:
    """Return the name of the current time zone, as ``"Europe/Paris"``, and its offset
    from UTC where that is fixed: the names of such zones are arbitrary."""
    name = timezone.get_current_timezone_name()
    fixed = timezone.get_current_timezone().utcoffset(None)
    return f"{name} {fixed}" if fixed else name


def site() -> int:
    """Return ``SITE_ID``. Raise ImproperlyConfigured if it is not set: then the site
    depends on the request, which a function does not see, so pass it as an argument."""
    found = site_id()
    if found is None:
        raise ImproperlyConfigured(
            "cache_memoize: vary.site is settings.SITE_ID, which is not set; where the "
            "site depends on the request, pass its id to the function as an argument"
        )
    return int(found)


def tenant() -> str:
    """Return the schema of the tenant, which django-tenants and django-tenant-schemas
    set on the connection. Raise ImproperlyConfigured if it has none, and in async code:
    the connection of an event loop is not that of the request."""
    with suppress(RuntimeError):
        asyncio.get_running_loop()
        raise ImproperlyConfigured(
            "cache_memoize: vary.tenant is on the connection of a thread, and async "
            "code runs in another one, with the public schema or the last tenant's; "
            "write vary_on= with a function of your own that knows the tenant, from a "
            "context variable for instance, or pass the tenant as an argument"
        )
    schema = getattr(connection, "schema_name", None)
    if not isinstance(schema, str):
        raise ImproperlyConfigured(
            "cache_memoize: vary.tenant is connection.schema_name, as django-tenants "
            "sets it, and this connection has none; write vary_on= with a function of "
            "your own that knows the tenant"
        )
    return schema


def database() -> tuple[str, ...]:
    """Return the aliases of the databases to which ``DATABASE_ROUTERS`` send the writes
    of all models: for projects with a database per tenant, where one primary key names
    another row in each. Routers without ``db_for_write`` are asked for reading."""
    if not router.routers:
        return ()
    writes = any(hasattr(each, "db_for_write") for each in router.routers)
    route = router.db_for_write if writes else router.db_for_read
    return tuple(sorted({route(model) for model in apps.get_models()}))


_READY_MADE: dict[str, Callable[[], Any]] = {
    "language": language,
    "time_zone": time_zone,
    "site": site,
    "tenant": tenant,
    "database": database,
}


#: Parts with the same result in a thread that refreshes on behalf of a caller.
_TRAVELLING = {language, time_zone, site}


def travel(parts: Iterable[Callable[[], Any]]) -> bool:
    """Return whether ``parts`` have the same results in another thread."""
    return _TRAVELLING.issuperset(parts)


def parts(given: Any, name: str) -> tuple[Callable[[], Any], ...]:
    """Return the functions that the option ``vary_on=`` of ``name`` stands for."""
    one = isinstance(given, str) or callable(given) or not isinstance(given, Iterable)
    found = []
    for each in [given] if one else given:
        if isinstance(each, str) and each not in _READY_MADE:
            raise ValueError(
                f"cache_memoize: vary_on= of {name} names {each!r}; known are "
                f"{sorted(_READY_MADE)}, and any function without arguments"
            )
        part = _READY_MADE[each] if isinstance(each, str) else each
        if not callable(part) or inspect.iscoroutinefunction(part):
            raise TypeError(
                f"cache_memoize: vary_on= of {name} takes functions without arguments, "
                f"or names out of {sorted(_READY_MADE)}, not {type(part).__name__}; "
                "write vary_on=[vary.language]"
            )
        try:
            inspect.signature(part).bind()
        except TypeError:
            raise TypeError(
                f"cache_memoize: vary_on= of {name} takes functions without arguments, "
                f"and {getattr(part, '__qualname__', part)} needs some; use extra= for "
                "a part that depends on the arguments of the call"
            ) from None
        except ValueError:  # some builtins have no signature
            pass
        found.append(part)
    return tuple(found)
