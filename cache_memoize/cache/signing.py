"""Signatures: only entries that were written with the project's secret are unpickled.

``CACHE_MEMOIZE["SIGN"]`` turns them on. The signature covers the record and its key,
with HMAC-SHA256 (RFC 2104) by :func:`django.utils.crypto.salted_hmac`, on which
:class:`django.core.signing.Signer` is built too. It follows the payload, where
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

#: Whether signatures are on; None: the setting was not read yet. Read on every hit.
state: bool | None = None


def is_on() -> bool:
    global state
    if state is None:
        state = bool(conf().SIGN)
    return state


def _reset() -> None:
    global state
    state = None


on_change(_reset)


def seal(key: str, raw: bytes) -> bytes:
    """Return an entry with its signature if signatures are on, other records as they
    are."""
    if not is_on():
        return raw
    found = parse(raw)
    if found is None or found.kind not in ENTRIES:
        return raw
    head, rest = raw[: found.end], raw[found.end :]
    return head + _signature(secrets()[0], key, head, rest) + rest


def is_genuine(key: str, found: Record) -> bool:
    """Return whether a record has the signature of one of the project's secrets."""
    start = found.end - SIZE
    if start < 0:
        return False
    raw = found.raw
    head, signature, rest = raw[:start], raw[start : found.end], raw[found.end :]
    return any(
        constant_time_compare(signature, _signature(secret, key, head, rest))
        for secret in secrets()
    )


def _signature(secret: str | bytes, key: str, head: bytes, rest: bytes) -> bytes:
    # Without the flag VOUCHED, which is set after the entry was signed (vouchers.py).
    kind = int.from_bytes(rest[-2:], "little") & ~VOUCHED
    name = key.encode()
    signed = b"%d:%b%d:%b%b" % (len(name), name, len(head), head, rest[:-2])
    signed += kind.to_bytes(2, "little")
    return salted_hmac(_SALT, signed, secret=secret, algorithm="sha256").digest()
