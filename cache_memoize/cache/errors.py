"""The errors of a cache, and which of them is an outage. Pure.

Django does not say what a cache may raise: each client has classes of its own. Three
kinds have to be told apart. A value that cannot be decoded is a miss. A mistake in the
project is raised to the caller. All others are trouble with the server: the function
computes, and the circuit breaker counts.
"""

from __future__ import annotations

import sys
from typing import Any

from django.core.cache import InvalidCacheBackendError
from django.core.cache.backends.base import InvalidCacheKey
from django.core.exceptions import ImproperlyConfigured, SynchronousOnlyOperation

__all__ = [
    "MISTAKES",
    "CacheDidNotAnswer",
    "hangs",
    "is_about_call",
    "is_decoding_error",
    "is_of_test",
    "no_answer",
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


class CacheDidNotAnswer(Exception):
    """The cache client reported success, or nothing, and the server did not act.

    ``invalidate`` raises it when it could not make sure that the value is gone.
    """


def no_answer(store: Any) -> CacheDidNotAnswer:
    return CacheDidNotAnswer(
        f"the cache {store.alias!r} says that a key is taken, and that it has no value"
    )


def is_decoding_error(error: BaseException) -> bool:
    if isinstance(error, (*MISTAKES, OSError)):
        return False
    return (
        isinstance(error, _DECODING)
        or type(error).__name__ in _DECODING_NAMES
        or str(error).startswith(_DECODING_TEXTS)
    )


def is_about_call(error: BaseException) -> bool:
    """Return whether the server refused a key or a value, and would take others."""
    names = {cls.__name__ for cls in type(error).__mro__}
    return not names.isdisjoint(_REFUSALS) or "too large" in str(error).lower()


def hangs(error: BaseException) -> bool:
    """Return whether ``error`` is a time-out of any client."""
    return any("Timeout" in cls.__name__ for cls in type(error).__mro__)


#: Methods of a cache that tests replace.
_REPLACED = ("add", "delete", "get", "get_many", "set")
_MOCKS = ("unittest.mock", "mock.mock")


def is_of_test(error: BaseException, cache: Any) -> bool:
    """Return whether a test double caused the error: an assertion, or a mock that
    raises, or answers for the cache."""
    traceback = error.__traceback__
    while traceback is not None:
        if traceback.tb_frame.f_globals.get("__name__") in _MOCKS:
            return True
        traceback = traceback.tb_next
    mocks = [getattr(sys.modules.get(name), "NonCallableMock", ()) for name in _MOCKS]
    methods = [getattr(cache, name, None) for name in _REPLACED]
    return isinstance(error, AssertionError) or any(
        isinstance(method, mock) for method in methods for mock in mocks
    )
