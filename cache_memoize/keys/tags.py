"""Tags: names that calls share, so that all of them can be forgotten at once. Pure.

Each tag is a key in the cache that holds a random token. An entry carries the tokens
that its tags had before it was computed, and counts only while they are the present
ones. So forgetting a tag is deleting one key, however many entries have it; no list of
them is kept, and a token that was lost forgets too much, never too little.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any

from .encoding import digest

__all__ = ["TaggedKey", "function_tag", "tag_key", "tagging", "tags_of"]

#: So many tags fit into one entry.
MOST = 255

_TAG, _FUNCTION = "cache_memoize.tag:", "cache_memoize.all:"
_of_tag = digest("cache_memoize tag")
_of_function = digest("cache_memoize function")


class TaggedKey(str):
    """The key of a call, and the keys of its tags: what is read together."""

    __slots__ = ("tags",)

    tags: tuple[str, ...]


@functools.lru_cache(4096)
def tag_key(tag: str) -> str:
    """The key under which the token of a tag stands."""
    return f"{_TAG}{_of_tag(tag)}"


def function_tag(name: str) -> str:
    """The key of the tag that all calls of one function have."""
    return f"{_FUNCTION}{_of_function(name)}"


def is_tag(key: str) -> bool:
    """Whether it may be the key of a tag."""
    return key.startswith((_TAG, _FUNCTION))


def tags_of(given: Any, whose: str) -> tuple[str, ...]:
    """``given`` as a tuple of tags: one string, or several."""
    tags = (given,) if isinstance(given, str) else given
    if isinstance(tags, (bytes, dict)) or not isinstance(tags, Iterable):
        raise TypeError(
            f"cache_memoize: tags= of {whose} takes strings, or a callable of the "
            f"call's arguments that gives strings, not {type(given).__name__}"
        )
    found = tuple(tags)
    for tag in found:
        if not isinstance(tag, str) or not tag:
            raise TypeError(
                f"cache_memoize: tags= of {whose} gave a tag that is not a string with "
                f"something in it, but {type(tag).__name__}; write f'post:{{pk}}' for "
                "a number"
            )
    return found


def tagging(
    key_of: Callable[[Any, Any], str], given: Any, own: str, name: str
) -> Callable[[Any, Any], TaggedKey]:
    """``key_of``, with the tags of the call beside its key.

    ``own`` is the key of the function's own tag; ``given`` what the user wrote.
    """
    if not callable(given):
        fixed = _keys_of(given, own, name)
        return lambda args, kwargs: _tagged(key_of(args, kwargs), fixed)
    return lambda args, kwargs: _tagged(
        key_of(args, kwargs), _keys_of(given(*args, **kwargs), own, name)
    )


def _tagged(key: str, tags: tuple[str, ...]) -> TaggedKey:
    found = TaggedKey(key)
    found.tags = tags
    return found


def _keys_of(given: Any, own: str, name: str) -> tuple[str, ...]:
    keys = {own, *map(tag_key, tags_of(given, name))}
    if len(keys) > MOST:
        raise ValueError(
            f"cache_memoize: tags= of {name} gave {len(keys) - 1} tags; {MOST - 1} "
            "fit; give one tag that stands for many"
        )
    return tuple(sorted(keys))
