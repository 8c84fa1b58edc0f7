"""Signatures: only records that were written with the project's secret are read.

``CACHE_MEMOIZE["SIGN"]`` turns them on. The signature covers the record and its name:
the alias of the cache and the key as the backend makes it. It is an HMAC-SHA256 (RFC
2104) by :func:`django.utils.crypto.salted_hmac`, on which
:class:`django.core.signing.Signer` is built too, and follows the payload, where
``pickle.loads`` does not look. Records are signed on their way to the cache and lose
their signature on the way back, in the thread of the command: a ``KEY_FUNCTION`` may
make another key in another thread.
"""

from __future__ import annotations

from typing import Any

from django.utils.crypto import constant_time_compare, salted_hmac

from ..conf import conf, on_change, secrets
from .record import (
    TAG,
    VOUCHED,
    parse,
)

__all__ = ["SIZE", "is_on", "seal", "seals", "unseal"]

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


def seal(name: str, raw: bytes, secret: str | bytes | None = None) -> bytes:
    """Return a record with its signature; tags and foreign values as they are.

    A tag needs none: its token is compared with those in signed entries.
    """
    found = parse(raw)
    if found is None or found.kind == TAG:
        return raw
    head, rest = raw[: found.end], raw[found.end :]
    secret = secrets()[0] if secret is None else secret
    return head + _signature(secret, name, head, rest) + rest


def seals(name: str, raw: bytes) -> list[bytes]:
    """Return the forms in which a record may be stored: one for each secret."""
    return [seal(name, raw, secret) for secret in secrets()]


def unseal(name: str, stored: Any) -> bytes | None:
    """Return a record without its signature; None if the signature is not one of the
    project's, or if ``stored`` is no record."""
    found = parse(stored)
    if found is None:
        return None
    raw = found.raw
    if found.kind == TAG:
        return raw
    start = found.end - SIZE
    if start < 0:
        return None
    head, signature, rest = raw[:start], raw[start : found.end], raw[found.end :]
    for secret in secrets():
        if constant_time_compare(signature, _signature(secret, name, head, rest)):
            return head + rest
    return None


def _signature(secret: str | bytes, name: str, head: bytes, rest: bytes) -> bytes:
    # Without the flag VOUCHED, which is set after the record was signed (vouchers.py).
    kind = int.from_bytes(rest[-2:], "little") & ~VOUCHED
    named = name.encode("utf-8", "surrogatepass")
    signed = b"%d:%b%d:%b%b" % (len(named), named, len(head), head, rest[:-2])
    signed += kind.to_bytes(2, "little")
    return salted_hmac(_SALT, signed, secret=secret, algorithm="sha256").digest()
