"""Tags: names that calls share, so that all of them can be invalidated at once. Pure.

Each tag is a key in the cache that holds a random token. An entry carries the tokens
that its tags had before it was computed, and is valid only while these are the present
ones. So invalidating a tag is deleting one key, however many entries have it. The
obvious way, a list of the keys that have a tag, would have to be complete on a cache
that may lose values; a lost token invalidates too much, never too little.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from .encoding import LONGEST_REMEMBERED, digest

__all__ = [
    "Expected",
    "PredictedKey",
    "TaggedKey",
    "also_tagged",
    "call_tags",
    "common_group",
    "function_tag",
    "group_of",
    "may_be_returned",
    "predicting",
    "remember_expected",
    "is_tag",
    "table_tag",
    "tag_key",
    "tag_of_calls",
    "tagging",
    "tags_of",
    "undeclared",
    "variant_of",
    "young_key",
]

#: Tags of one entry, at most: their number is stored in a byte.
MOST = 255

_TAG, _FUNCTION = "cache_memoize.tag:", "cache_memoize.all:"
_CALL, _CALLS = "cache_memoize.call:", "cache_memoize.calls:"
_TABLE = "cache_memoize.table:"
#: A place for a value, as in a string that was to be formatted.
_PLACE = re.compile(r"\{[^{}]*\}|%(\(\w+\))?[sd](?!\w)")
#: Tags that functions of this process have whatever their arguments.
_declared: set[str] = set()
#: Whether a function of this process has a callable that returns its tags.
_has_callable = False
_of_tag = digest("cache_memoize tag")
_of_function = digest("cache_memoize function")
_of_call = digest("cache_memoize call")
_of_table = digest("cache_memoize table")


class Expected(NamedTuple):
    """The tags that an entry is expected to depend on besides those of its call."""

    keys: tuple[str, ...] = ()
    #: Their names as a record holds them.
    packed: bytes = b""


#: What the entries of calls are expected to depend on, by their keys: at most this many
#: of them, and so many bytes of names.
MOST_EXPECTED, MOST_EXPECTED_BYTES = 20_000, 16 * 2**20
_expected: dict[str, Expected] = {}
_expected_bytes = 0


def remember_expected(key: str, packed: bytes, names: Iterable[str]) -> Expected:
    """Remember the tags that the entry of a call depends on. Return those of them that
    entries of other calls of the function may depend on too."""
    global _expected_bytes
    found = _expected.get(key)
    keys = tuple(name for name in names if "\t" not in name)
    if found is None or found.packed != packed:
        _expected_bytes += len(key) + 2 * len(packed)
        if len(_expected) >= MOST_EXPECTED or _expected_bytes > MOST_EXPECTED_BYTES:
            _expected.clear()
            _expected_bytes = 0
        _expected[str(key)] = Expected(keys, packed)
    if len(keys) == packed.count(b"\n") and not any(map(tag_of_calls, keys)):
        return Expected(keys, packed)
    return Expected()


def predicting(
    key_of: Callable[[Any, Any], str], usual: Expected
) -> Callable[[Any, Any], TaggedKey]:
    """Return ``key_of`` with what the entry of each key is expected to depend on.

    :param usual: for calls whose entry has not been seen.
    """

    def predict(args: Any, kwargs: Any) -> TaggedKey:
        key = key_of(args, kwargs)
        found = PredictedKey(key)
        found.tags = getattr(key, "tags", ())
        found.expected = _expected.get(key, usual)
        return found

    return predict


class TaggedKey(str):
    """The key of a call with the keys of its tags, which are read together."""

    __slots__ = ("tags",)

    tags: tuple[str, ...]
    expected = Expected()

    @property
    def all_tags(self) -> tuple[str, ...]:
        """The keys that are read together with this one."""
        return self.tags + self.expected.keys


class PredictedKey(TaggedKey):
    """The key of a call whose entry is expected to depend on more tags."""

    __slots__ = ("expected",)

    expected: Expected


def tag_key(tag: str) -> str:
    """Return the key under which the token of a tag is stored."""
    if len(tag) <= LONGEST_REMEMBERED:
        return _key_of_short_tag(tag)
    return f"{_TAG}{_of_tag(tag)}"


@functools.lru_cache(4096)
def _key_of_short_tag(tag: str) -> str:
    return f"{_TAG}{_of_tag(tag)}"


def young_key(key: str) -> str:
    """Return the key of the mark that the token under the key of a tag is young."""
    return f"{key}.young"


def function_tag(name: str) -> str:
    """Return the key of the tag that all calls of one function have."""
    return f"{_FUNCTION}{_of_function(name)}"


def call_tags(name: str, key: str) -> tuple[str, str]:
    """Return the keys of the tags that are renewed when a call is invalidated: that of
    the call, and that of all calls of its function. Results depend on them that were
    made with the call, or with many calls of the function."""
    function = _of_function(name)
    return f"{_CALL}{function}:{_of_call(key)}", f"{_CALLS}{function}"


def tag_of_calls(tag: str) -> str | None:
    """Return the tag of all calls of the function, if ``tag`` is that of a call."""
    alias, tab, key = tag.rpartition("\t")
    if not key.startswith(_CALL):
        return None
    return f"{alias}{tab}{_CALLS}{key[len(_CALL) :].partition(':')[0]}"


def group_of(tag: str) -> str | None:
    """Return the name of the function of whose calls ``tag`` is; None for others."""
    key = tag.rpartition("\t")[2]
    for head in (_CALL, _CALLS):
        if key.startswith(head):
            return key[len(head) :].partition(":")[0]
    return None


def common_group(keys: Iterable[str]) -> str:
    """Return the name of the function that a call's key and its tags belong to; empty
    if there are tags of others."""
    groups = {group_of(key) for key in keys if is_tag(key)}
    return (groups.pop() or "") if len(groups) == 1 else ""


def table_tag(table: str) -> str:
    """Return the key of the tag of a database table."""
    return f"{_TABLE}{_of_table(table.lower())}"


def is_tag(key: str) -> bool:
    """Return whether ``key`` may be that of a tag."""
    return key.startswith((_TAG, _FUNCTION, _CALL, _CALLS, _TABLE))


def tags_of(given: Any, whose: str) -> tuple[str, ...]:
    """Return one tag, or several, as a tuple. Raise TypeError for other values."""
    tags = (given,) if isinstance(given, str) else given
    if isinstance(tags, (bytes, dict)) or not isinstance(tags, Iterable):
        raise TypeError(
            f"cache_memoize: tags= of {whose} takes strings, or a callable of the "
            f"call's arguments that returns strings, not {type(given).__name__}"
        )
    tags = tuple(tags)
    for tag in tags:
        if not isinstance(tag, str) or not tag:
            raise TypeError(
                f"cache_memoize: tags= of {whose} has a tag of type "
                f"{type(tag).__name__}; a tag is a string that is not empty: write "
                "f'post:{pk}' for a number"
            )
    return tags


def undeclared(tags: Iterable[str]) -> list[str]:
    """Return the tags that are not written at a function of this process."""
    return [tag for tag in tags if tag not in _declared]


def may_be_returned() -> bool:
    """Return whether a function of this process has a callable that returns its tags,
    or none has any tags."""
    return _has_callable or not _declared


def _declare(tags: tuple[str, ...], whose: str) -> None:
    """Remember the tags of a function. Raise ValueError for one with a place for a
    value: it would be the same for all calls, and never be invalidated."""
    for tag in tags:
        if _PLACE.search(tag):
            raise ValueError(
                f"cache_memoize: tags= of {whose} has the tag {tag!r}, into which no "
                "value is put; write a callable of the call's arguments, as "
                "tags=lambda pk: f'product:{pk}'"
            )
    _declared.update(tags)


def tagging(
    key_of: Callable[[Any, Any], str], given: Any, own: str, name: str
) -> Callable[[Any, Any], TaggedKey]:
    """Return ``key_of`` with tags added to each key.

    :param given: the option ``tags=``.
    :param own: the key of the function's own tag.
    """
    global _has_callable
    if not callable(given):
        _declare(tags_of(given, name), name)
        fixed = _keys_of(given, own, name)
        return lambda args, kwargs: _tagged(key_of(args, kwargs), fixed)
    _has_callable = True
    return lambda args, kwargs: _tagged(
        key_of(args, kwargs), _keys_of(given(*args, **kwargs), own, name)
    )


def also_tagged(
    key_of: Callable[[Any, Any], str], more: Iterable[str]
) -> Callable[[Any, Any], TaggedKey]:
    """Return ``key_of`` with these tags added to each key."""
    more = frozenset(more)

    def tag(args: Any, kwargs: Any) -> TaggedKey:
        key = key_of(args, kwargs)
        return _tagged(key, tuple(sorted(more.union(getattr(key, "tags", ())))))

    return tag


def variant_of(
    key_of: Callable[[Any, Any], str], call_of: Callable[[Any, Any], str], name: str
) -> Callable[[Any, Any], TaggedKey]:
    """Return ``key_of`` with the tag that all variants of a call have.

    :param call_of: returns the key of a call without the values of ``vary_on=``.
    """

    def tag(args: Any, kwargs: Any) -> TaggedKey:
        key = key_of(args, kwargs)
        own = call_tags(name, call_of(args, kwargs))[0]
        found = _tagged(key, tuple(sorted({own, *getattr(key, "tags", ())})))
        return found

    return tag


def _tagged(key: str, tags: tuple[str, ...]) -> TaggedKey:
    tagged = TaggedKey(key)
    tagged.tags = tags
    return tagged


def _keys_of(given: Any, own: str, name: str) -> tuple[str, ...]:
    keys = {own, *map(tag_key, tags_of(given, name))}
    if len(keys) > MOST:
        raise ValueError(
            f"cache_memoize: tags= of {name} has {len(keys) - 1} tags; at most "
            f"{MOST - 1} are possible: use one tag in place of many"
        )
    return tuple(sorted(keys))
