"""One decorator that puts any Python function behind Django's cache framework."""

from . import checks as _checks  # noqa: F401  # registers them
from .controls import Entry
from .decorator import Memoized, cache_memoize
from .dependencies import ainvalidate_model, invalidate_model
from .invalidation import ainvalidate_tags, invalidate_tags
from .keys import UnkeyableArgument, register_key
from .progress import Progress
from .scope import local
from .stats import CacheInfo
from .store import CacheDidNotAnswer

__all__ = [
    "CacheDidNotAnswer",
    "CacheInfo",
    "Entry",
    "Memoized",
    "Progress",
    "UnkeyableArgument",
    "ainvalidate_model",
    "ainvalidate_tags",
    "cache_memoize",
    "invalidate_model",
    "invalidate_tags",
    "local",
    "register_key",
]
__version__ = "1.0.0"
