"""One decorator that puts any Python function behind Django's cache framework."""

from . import checks as _checks  # noqa: F401  # registers them
from .cache.errors import CacheDidNotAnswer
from .cache.local import local
from .decorator import Memoized, cache_memoize, preset
from .explain import Explanation
from .keys.encoding import UnkeyableArgument, register_key
from .model_controls import ainvalidate_model, invalidate_model, invalidate_tags_on
from .protocol.current import Current, current
from .protocol.entries import Entry
from .protocol.invalidation import ainvalidate_tags, invalidate_tags
from .protocol.progress import Progress
from .stats.counters import CacheInfo
from .stats.reporter import flush_stats

__all__ = [
    "CacheDidNotAnswer",
    "CacheInfo",
    "Current",
    "Entry",
    "Explanation",
    "Memoized",
    "Progress",
    "UnkeyableArgument",
    "ainvalidate_model",
    "ainvalidate_tags",
    "cache_memoize",
    "current",
    "flush_stats",
    "invalidate_model",
    "invalidate_tags",
    "invalidate_tags_on",
    "local",
    "preset",
    "register_key",
]
__version__ = "1.0.0"
