"""What a result may depend on besides its arguments: ready-made parts of keys.

.. code-block:: python

    @cache_memoize(60, vary_on=[vary.language, vary.time_zone])

Each is an ordinary function, called without arguments at every call of the memoized
one; what it gives becomes part of the key. So write your own where these do not do.
In settings, where importing is awkward, their names stand for them: ``"language"``.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.db import connection
from django.utils import timezone, translation

from .conf import site_id

__all__ = ["language", "parts", "site", "tenant", "time_zone", "travel"]


def language() -> str | None:
    """The active language, as ``"en-gb"``; None while translations are off."""
    return translation.get_language()


def time_zone() -> str:
    """The name of the current time zone, as ``"Europe/Paris"``, and its offset from UTC
    where that is fixed: anybody may give such a zone a name."""
    name = timezone.get_current_timezone_name()
    fixed = timezone.get_current_timezone().utcoffset(None)
    return f"{name} {fixed}" if fixed else name


def site() -> int:
    """``SITE_ID``. Raises ImproperlyConfigured where it is not set: then the site
    depends on the request, which a function does not see, so pass it as an argument."""
    found = site_id()
    if found is None:
        raise ImproperlyConfigured(
            "cache_memoize: vary.site is settings.SITE_ID, which is not set; where the "
            "site depends on the request, pass its id to the function as an argument"
        )
    return int(found)


def tenant() -> str:
    """The schema of the tenant, as django-tenants and django-tenant-schemas put it on
    the connection. Raises ImproperlyConfigured where there is none, and in async code:
    the connection of an event loop is not that of the request."""
    with suppress(RuntimeError):
        asyncio.get_running_loop()
        raise ImproperlyConfigured(
            "cache_memoize: vary.tenant is on the connection of a thread, and async "
            "code runs in another one, with the public schema or the last tenant's; "
            "give vary_on= a function of your own that knows the tenant, from a "
            "context variable for instance, or pass the tenant as an argument"
        )
    found = getattr(connection, "schema_name", None)
    if not isinstance(found, str):
        raise ImproperlyConfigured(
            "cache_memoize: vary.tenant is connection.schema_name, as django-tenants "
            "sets it, and this connection has none; give vary_on= a function of your "
            "own that knows the tenant"
        )
    return found


_READY_MADE: dict[str, Callable[[], Any]] = {
    "language": language,
    "time_zone": time_zone,
    "site": site,
    "tenant": tenant,
}


#: What a thread that refreshes takes along from its caller, or finds by itself.
_TRAVELLING = {language, time_zone, site}


def travel(parts: Iterable[Callable[[], Any]]) -> bool:
    """Whether another thread, on behalf of a caller, sees the same as the caller."""
    return _TRAVELLING.issuperset(parts)


def parts(given: Any, name: str) -> tuple[Callable[[], Any], ...]:
    """The functions that ``vary_on=`` of the function ``name`` stands for."""
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
                f"and {getattr(part, '__qualname__', part)} needs some; for what "
                "depends on the arguments of the call write extra="
            ) from None
        except ValueError:  # some builtins tell nobody
            pass
        found.append(part)
    return tuple(found)
