"""Signatures: an entry that nobody with the project's secret wrote is not unpickled.

``CACHE_MEMOIZE["SIGN"]`` turns them on. What is signed is the whole record and the key
it stands under, with HMAC-SHA256 (RFC 2104) by :func:`django.utils.crypto.salted_hmac`,
the ground of :class:`django.core.signing.Signer`. It stands behind the payload, where
``pickle.loads`` does not look.
"""

from __future__ import annotations

from django.utils.crypto import constant_time_compare, salted_hmac

from ..conf import conf, on_change, secrets
from .record import (
    ENTRIES,
    VOUCHED,
    Record,
    parse,
)

__all__ = ["SIZE", "is_genuine", "is_on", "seal"]

SIZE = 32
_SALT = "cache_memoize.cache.signing"

#: Whether signatures are on; None: not asked yet. Read on every hit.
state: bool | None = None


def is_on() -> bool:
    global state
    if state is None:
        state = bool(conf().SIGN)
    return state


def _ask_again() -> None:
    global state
    state = None


on_change(_ask_again)


def seal(key: str, raw: bytes) -> bytes:
    """An entry with its signature, if signatures are on; all else as it is."""
    if not is_on():
        return raw
    found = parse(raw)
    if found is None or found.kind not in ENTRIES:
        return raw
    head, rest = raw[: found.end], raw[found.end :]
    return head + _signature(secrets()[0], key, head, rest) + rest


def is_genuine(key: str, found: Record) -> bool:
    """Whether the signature in a record is right, by any of the project's secrets."""
    at = found.end - SIZE
    if at < 0:
        return False
    raw = found.raw
    head, signature, rest = raw[:at], raw[at : found.end], raw[found.end :]
    return any(
        constant_time_compare(signature, _signature(secret, key, head, rest))
        for secret in secrets()
    )


def _signature(secret: str | bytes, key: str, head: bytes, rest: bytes) -> bytes:
    # A voucher is marked later than the entry is signed (backends.py).
    kind = int.from_bytes(rest[-2:], "little") & ~VOUCHED
    name = key.encode()
    signed = b"%d:%b%d:%b%b" % (len(name), name, len(head), head, rest[:-2])
    signed += kind.to_bytes(2, "little")
    return salted_hmac(_SALT, signed, secret=secret, algorithm="sha256").digest()
