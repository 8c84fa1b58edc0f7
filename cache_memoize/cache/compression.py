"""Compressed payloads: a pickle that decompresses another one when it is loaded.

A flag in the trailer would be the obvious mark, but then each reader would have to look
at it, also those of entries without compression. ``pickle.loads`` looks anyway. A
release without this module, and a process without the codec, cannot load such a pickle:
to them it is an unreadable entry, as one of a class that was renamed, and a miss.
"""

from __future__ import annotations

import pickle
import zlib
from contextlib import suppress
from importlib import import_module
from typing import Any

__all__ = ["Undecompressable", "compress", "decompress"]

#: Bytes from which ``compress=True`` compresses: below, hardly anything is gained.
LEAST = 1024
#: The fastest level of zlib: a fifth of the time of the default, a tenth more bytes.
_LEVEL = 1


class Undecompressable(ValueError):
    """A compressed value of another size than it says, or of an unknown codec."""


def _import_zstd() -> Any:
    """Return the module for Zstandard; None if there is none."""
    for name in ("compression.zstd", "backports.zstd"):
        with suppress(ImportError):
            return import_module(name)
    return None


_zstd = _import_zstd()


class _Compressed:
    def __init__(self, payload: bytes) -> None:
        if _zstd is None:
            codec, data = "zlib", zlib.compress(payload, _LEVEL)
        else:
            codec, data = "zstd", _zstd.compress(payload)
        self._parts = codec, len(payload), data

    def __reduce__(self) -> Any:
        return decompress, self._parts


def compress(payload: bytes) -> bytes:
    """Return a pickle of the same value with fewer bytes, or ``payload`` itself."""
    return min(payload, pickle.dumps(_Compressed(payload), 5), key=len)


def decompress(codec: str, size: int, data: bytes) -> Any:
    """Return the value in a compressed pickle of ``size`` bytes. Entries have the path
    of this function in them.

    Not a byte more than ``size`` is made of ``data``.
    """
    if codec == "zstd" and _zstd is not None:
        decompressor = _zstd.ZstdDecompressor()
    elif codec == "zlib":
        decompressor = zlib.decompressobj()
    else:
        raise Undecompressable(f"{codec} is not installed")
    payload = decompressor.decompress(data, size + 1)
    if len(payload) != size or not decompressor.eof:
        raise Undecompressable(f"these are not {size} bytes")
    return pickle.loads(payload)
