"""The running computation, as the function itself sees it: ``current()``."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from ..cache.connections import is_in_memory
from ..cache.store import AsyncStore, run, store_of
from ..keys.tags import tag_key, tags_of
from .call import decode
from .capture import Origins, computation
from .policy import to_seconds

__all__ = ["Current", "current"]


class Current:
    """The computation of a memoized function that is under way. Outside of one, it
    takes everything and does nothing."""

    __slots__ = ("_origins",)

    def __init__(self, origins: Origins | None) -> None:
        self._origins = origins

    def tag(self, *tags: str) -> None:
        """Give the result these tags, as ``tags=`` does: ``invalidate_tags()`` with one
        of them invalidates it.

        Call it before reading what a tag stands for: what is invalidated between the
        read and this call goes unnoticed.

        :raises TypeError: for a tag that is not a string, or empty.
        :raises RuntimeError: in async code with a cache on a server: use :meth:`atag`.
        """
        names = tags_of(tags, "current().tag()")
        if self._origins is None:
            return
        store = store_of(self._origins.alias)
        if not store.can_wait() and not is_in_memory(store.alias):
            raise RuntimeError(
                "current().tag() would block the event loop; write await "
                "current().atag(...)"
            )
        run(self._origins.note(store, map(tag_key, names)))

    async def atag(self, *tags: str) -> None:
        """:meth:`tag` for async code."""
        names = tags_of(tags, "current().atag()")
        if self._origins is not None:
            store = store_of(self._origins.alias, AsyncStore)
            await self._origins.note(store, map(tag_key, names))

    @property
    def timeout(self) -> Any:
        """The timeout of this result in place of ``timeout=``, which is the longest
        possible: seconds, a ``timedelta``, or None (unlimited)."""
        return None if self._origins is None else self._origins.timeout

    @timeout.setter
    def timeout(self, value: Any) -> None:
        seconds = to_seconds(value, "timeout", "current()")
        if self._origins is not None:
            self._origins.timeout = float(seconds)

    @property
    def previous(self) -> Any:
        """The value that this computation is to replace; None if there is none at hand:
        readers get one only while it is refreshed."""
        found = None if self._origins is None else self._origins.previous
        with suppress(Exception):  # a class decides what unpickling raises
            return None if found is None else decode(found)
        return None

    def unchanged(self) -> Any:
        """Return the previous value, to be returned and stored with a new timeout, as
        when an API answers "304 Not Modified".

        :raises LookupError: if there is no previous value.
        """
        previous = self.previous
        if previous is None:
            raise LookupError(
                "current().unchanged(): there is no previous value; ask for the whole "
                "answer if current().previous is None"
            )
        return previous

    def skip(self) -> None:
        """Store nothing: the result is for this caller alone."""
        if self._origins is not None:
            self._origins.timeout = 0.0


def current() -> Current:
    """Return the computation that is under way here, of the innermost memoized
    function."""
    around = computation()
    return Current(around.origins if around else None)
