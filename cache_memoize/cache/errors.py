"""The errors of a cache, and which of them is an outage. Pure.

Django does not say what a cache may raise: each client has classes of its own. Three
kinds have to be told apart. A value that cannot be decoded is a miss. A mistake in the
project is raised to the caller. All others are trouble with the server: the function
computes, and the circuit breaker counts.
"""

from __future__ import annotations

import sys
import traceback
from typing import Any

from django.core.cache import InvalidCacheBackendError
from django.core.cache.backends.base import InvalidCacheKey
from django.core.exceptions import ImproperlyConfigured, SynchronousOnlyOperation

__all__ = [
    "MISTAKES",
    "UNFIT",
    "CacheDidNotAnswer",
    "KeyNotTaken",
    "hangs",
    "is_about_call",
    "is_decoding_error",
    "is_of_test",
    "unfitness",
]

#: Mistakes in the project, which must not look like an outage.
MISTAKES = (
    ImproperlyConfigured,
    InvalidCacheBackendError,
    InvalidCacheKey,
    SynchronousOnlyOperation,
)

#: Raised by unpickling and decoding. Only foreign values are: ours are bytes.
_DECODING = (
    ArithmeticError,
    AttributeError,
    EOFError,
    ImportError,
    LookupError,
    MemoryError,
    TypeError,
    ValueError,
)
_DECODING_NAMES = {"UnpicklingError", "PickleError", "error"}  # "error": zlib, struct
#: Redis, where a list is stored under our key; pylibmc, where the value is no zip.
_DECODING_TEXTS = ("WRONGTYPE", "Failed to decompress")

#: Raised for a key or a value that the server cannot store, as one with a NUL: by
#: databases and redis-py, pymemcache, pylibmc, and Django where warnings are errors.
_REFUSALS = {"DataError", "MemcacheIllegalInputError", "TooBig", "CacheKeyWarning"}
_REFUSALS |= {"KeyNotTaken"}

#: By the answer of a server that can never work: what it is, and the cure.
UNFIT = {
    "MOVED": (
        "is a node of a cluster, and its client knows no other node",
        "use the BACKEND cache_memoize.cluster.RedisClusterCache, or another client "
        "for clusters",
    ),
    "READONLY": (
        "is a read-only replica",
        "write the address of the primary first in LOCATION, or use Sentinel",
    ),
}
#: These answers where the client has a class for them, and leaves the word out.
_ANSWERS = {"MovedError": "MOVED", "ReadOnlyError": "READONLY"}


class CacheDidNotAnswer(Exception):
    """The cache client reported success, or nothing, and the server did not act.

    ``invalidate`` raises it when it could not make sure that the value is gone.
    """


class KeyNotTaken(CacheDidNotAnswer):
    """The cache keeps nothing under a key that Django warns of: one that is long, as
    on PostgreSQL, or has spaces or control characters."""


def is_decoding_error(error: BaseException) -> bool:
    if isinstance(error, (*MISTAKES, OSError)) or _is_of_key_function(error):
        return False
    return (
        isinstance(error, _DECODING)
        or type(error).__name__ in _DECODING_NAMES
        or str(error).startswith(_DECODING_TEXTS)
    )


def is_about_call(error: BaseException) -> bool:
    """Return whether the server refused a key or a value, and would take others; or
    whether there is no key, because ``KEY_FUNCTION`` raised."""
    names = {cls.__name__ for cls in type(error).__mro__}
    if not names.isdisjoint(_REFUSALS) or "too large" in str(error).lower():
        return True
    return _is_of_key_function(error)


def _is_of_key_function(error: BaseException) -> bool:
    """Return whether the error was raised below ``make_key()`` of any backend."""
    frames = traceback.walk_tb(error.__traceback__)
    return any(frame.f_code.co_name == "make_key" for frame, _ in frames)


def hangs(error: BaseException) -> bool:
    """Return whether ``error`` is a time-out of any client."""
    return any("Timeout" in cls.__name__ for cls in type(error).__mro__)


def unfitness(error: BaseException) -> tuple[str, str] | None:
    """Return what is wrong with the server, and the cure, if it can never work."""
    name = type(error).__name__
    return UNFIT.get(_ANSWERS.get(name) or str(error).partition(" ")[0])


#: Methods of a cache that tests replace.
_REPLACED = ("add", "delete", "get", "get_many", "set")
_MOCKS = ("unittest.mock", "mock.mock")


def is_of_test(error: BaseException, cache: Any) -> bool:
    """Return whether a test double caused the error: an assertion, or a mock that
    raises, or answers for the cache."""
    frames = traceback.walk_tb(error.__traceback__)
    if any(frame.f_globals.get("__name__") in _MOCKS for frame, _ in frames):
        return True
    mocks = [getattr(sys.modules.get(name), "NonCallableMock", ()) for name in _MOCKS]
    methods = [getattr(cache, name, None) for name in _REPLACED]
    return isinstance(error, AssertionError) or any(
        isinstance(method, mock) for method in methods for mock in mocks
    )
