"""One decorator that puts any Python function behind Django's cache framework."""

from .controls import Entry
from .decorator import Memoized, cache_memoize
from .invalidation import ainvalidate_tags, invalidate_tags
from .keys import UnkeyableArgument, register_key
from .stats import CacheInfo
from .store import CacheDidNotAnswer

__all__ = [
    "CacheDidNotAnswer",
    "CacheInfo",
    "Entry",
    "Memoized",
    "UnkeyableArgument",
    "ainvalidate_tags",
    "cache_memoize",
    "invalidate_tags",
    "register_key",
]
__version__ = "1.0.0"
