"""Which calls a warming has refreshed: so that one that was stopped can go on.

A file of lines: what it is about, and then for each call a digest of its key. A call is
known by what it is, not by its place: the items may come in another order the next
time. Each line is written at once; nothing is believed of a line that a crash tore.
"""

from __future__ import annotations

import hashlib
import os
from array import array
from bisect import bisect_left
from pathlib import Path
from types import TracebackType

from django.core.management.base import CommandError

__all__ = ["Record"]

#: Of a line: 16 hexadecimal digits.
_DIGITS = 16
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0)


def _digest(key: str) -> bytes:
    return (
        hashlib.blake2b(key.encode(errors="surrogatepass"), digest_size=_DIGITS // 2)
        .hexdigest()
        .encode()
    )


class Record:
    """The file at ``path``, for the memoized function ``name``.

    Raises CommandError for a file of another function, of something else, or one that
    cannot be read and written.
    """

    def __init__(self, path: Path, name: str) -> None:
        self.path = path
        #: Whether all is done: then the file goes, and the next run begins anew.
        self.complete = False
        self._header = f"cache_memoize warm 1 {name}\n".encode()
        #: Sorted, of 8 bytes each: as small as it gets, for millions.
        self._done = array("Q")
        try:
            self._file = os.open(path, _FLAGS, 0o666)
        except OSError as error:
            raise self._trouble(error) from error
        try:
            self._load()
        except BaseException as error:
            os.close(self._file)
            if isinstance(error, OSError):
                raise self._trouble(error) from error
            raise

    def _load(self) -> None:
        with open(self._file, "rb", closefd=False) as lines:
            first = lines.readline(len(self._header) + 1)
            end = len(first)
            if first != self._header:
                if not self._header.startswith(first):
                    raise CommandError(
                        f"{self.path} is not the record of a warming of this function "
                        f"(it begins {first[:60]!r}); give --resume another file"
                    )
                end = 0  # empty, or torn at once
            for line in lines:
                if not line.endswith(b"\n"):
                    break
                end += len(line)
                try:
                    self._done.append(int(line, 16))
                except (ValueError, OverflowError):
                    continue  # that call is made again
        os.truncate(self._file, end)
        if not end:
            self._write(self._header)
        self._done = array("Q", sorted(self._done))

    def __contains__(self, key: str) -> bool:
        number = int(_digest(key), 16)
        at = bisect_left(self._done, number)
        return at < len(self._done) and self._done[at] == number

    def add(self, key: str) -> None:
        """This call has been refreshed."""
        self._write(_digest(key) + b"\n")

    def _write(self, line: bytes) -> None:
        try:
            os.write(self._file, line)
        except OSError as error:
            raise self._trouble(error) from error

    def _trouble(self, error: OSError) -> CommandError:
        return CommandError(
            f"the record {self.path} cannot be kept: {error.strerror}; give --resume a "
            "file that can be read and written"
        )

    def __enter__(self) -> Record:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._file)
        if self.complete:
            self.path.unlink(missing_ok=True)
