"""The decision of a caller after a look at its key. Pure."""

from __future__ import annotations

from enum import Enum

from ..cache import record
from ..cache.connections import UNREADABLE
from ..cache.tokens import PATIENCE, Look

__all__ = ["Do", "decide"]


class Do(Enum):
    """The next act of a caller."""

    CLEAR = "delete a value that is not a record of this library"
    TAKE = "write a lease of its own"
    RETRY = "the same, after a computation that stored nothing"
    SERVE = "serve the entry"
    WAIT = "wait for the holder of the lease, and look again"
    RAISE = "raise the exception of the computation that it has waited for"
    COMPUTE = "compute, and store nothing"


def decide(
    look: Look, now: float, grace: float, awaited: bytes | None, lost: int
) -> Do:
    """Return the next act of a caller after a look at its key. Pure.

    :param grace: seconds after its timeout for which an entry is still served.
    :param awaited: the token of the lease that this caller has waited for, if any.
    :param lost: how many times in a row the key was empty, but ``add`` refused.
    """
    found = look.record
    if found is UNREADABLE or (found is None and lost == PATIENCE // 2):
        return Do.CLEAR  # some clients return None for a value they cannot read
    if found is None or found.kind == record.CLEARED:
        return Do.TAKE
    if found.kind == record.BLOCK:
        return Do.COMPUTE
    if found.tags != look.tags or not look.valid:  # a tag was invalidated
        return Do.TAKE
    if found.is_fresh(now, grace):
        return Do.SERVE
    if found.kind == record.FAILED and awaited is None:
        return Do.RETRY
    if found.kind == record.FAILED or (
        found.kind == record.RETRY and awaited not in (None, found.token)
    ):
        # The computation that this caller waited for has failed, or one after it. If it
        # waited for the next one too, the callers of a failing function would queue up.
        return Do.RAISE if found.end else Do.COMPUTE
    if found.kind in record.LEASES:
        return Do.WAIT
    return Do.TAKE  # it has expired
