"""Finds what means something else than in django-cache-memoize 0.2.1.

It reads Python files as text: nothing is imported, nothing runs. What it cannot follow
it leaves alone, so it finds much of what ``docs/migration.rst`` lists, not all of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from .differences import Difference, differences
from .usage import Known, Module

__all__ = ["CODES", "Finding", "find", "find_in"]

#: Code → what changes, and what to write instead.
CODES = {
    "M000": ("{} cannot be read: {}", "look at this file by hand"),
    "M001": (
        "{} is given the instance twice: a method's controls are bound now, and what "
        "is forgotten is another call, or the call is a TypeError",
        "leave the instance out",
    ),
    "M002": (
        "{} does not fit: {}. That was ignored, and nothing was forgotten; now it is a "
        "TypeError",
        "give the arguments of the call that is meant",
    ),
    "M003": (
        "args_rewrite of {} does not take {!r}, which this call gives by keyword: a "
        "TypeError, because it sees keywords now",
        "give args_rewrite the parameters of the function",
    ),
    "M004": (
        "args_rewrite of {} leaves out {!r}, which this call gives by keyword: it was "
        "part of the key, and is not any more",
        "let args_rewrite give this argument too, or spell out that it does not count",
    ),
    "M005": (
        "args_rewrite of {} gives something that can be read once only; it is refused "
        "when the function is called",
        "give a tuple",
    ),
    "M006": (
        "{} has {}, which counted by its text and is refused now when the function is "
        "called",
        "pass what the function reads from it; or ignore=, or args_rewrite=",
    ),
    "M007": (
        "{} is called with {}, which counted by its text and is refused now",
        "pass something plain in its place, such as an id; or ignore= or args_rewrite=",
    ),
    "M008": (
        "extra of {} gives {}, which is refused now when the function is called",
        "give the parts that the result depends on",
    ),
    "M009": (
        "key_generator_callable of {} gives no string, or an empty one: a TypeError",
        "give a string, such as an f-string",
    ),
    "M010": (
        "the cache is asked about the key of {} by hand: what is there is not the "
        "result any more, and what is written there is not served",
        "use peek(), prime() or a call; deleting the key still works",
    ),
    "M011": (
        "a key of 0.2.1 that was made by hand: keys are others now",
        "use get_cache_key(), invalidate(), peek() or prime()",
    ),
    "M012": (
        "a lambda without prefix= is refused when it is decorated",
        "give it a prefix= of its own, or use def",
    ),
    "M013": (
        "{} is a {}, which is refused when it is decorated",
        "memoize a function that returns a list, or makes the object",
    ),
    "M014": (
        "{}= of {} is refused when it is decorated: it is {}",
        "give what the option takes",
    ),
    "M015": (
        "{} has a parameter named _refresh, which is refused when it is decorated",
        "give the parameter another name",
    ),
    "M016": (
        "{} is a guard (store_result=False) with cache_exceptions: after an exception, "
        "calls gave True; now they raise it again",
        "leave cache_exceptions out, or expect the exception",
    ),
    "M017": (
        "{} returns an exception: it was raised in the caller, and is returned now",
        "raise it, and name its class in cache_exceptions=",
    ),
    "M018": (
        "{} is made inside a function and captures {!r}: all of its kind shared "
        "entries; now they differ by plain values, or a warning asks for a prefix",
        "give it prefix=, and pass what it captures as an argument",
    ),
    "M019": (
        "{} is decorated as a bound method: its instance did not count in the key, and "
        "does now",
        "decorate the method in its class, with ignore=('self',) if the instance does "
        "not count",
    ),
    "M020": (
        "a cache with a JSON serializer cannot store bytes: nothing is cached there, "
        "and invalidate() raises",
        "give cache_alias= the name of a cache whose serializer takes bytes",
    ),
    "M021": ("cache_memoize.{} is not there any more", "import it from Django"),
}


class Finding(NamedTuple):
    """One place that means something else now.

    :param path: as it was given, or below the folder that was given.
    :param line: from 1.
    :param column: from 1.
    :param code: ``M000`` and so on.
    :param message: what changes.
    :param cure: what to write instead.
    """

    path: str
    line: int
    column: int
    code: str
    message: str
    cure: str

    def __str__(self) -> str:
        place = f"{self.path}:{self.line}:{self.column}"
        return f"{place}: {self.code} {self.message}; {self.cure}"


def find(source: str, path: str) -> Iterator[Finding]:
    """What changes in one file.

    :param source: its text.
    :param path: its path, for the findings.
    """
    return _find([(path, source)])


def find_in(paths: Iterable[Path]) -> Iterator[Finding]:
    """What changes in files, and in all ``*.py`` files below folders. Functions that
    one file memoizes are known in the others.

    :param paths: files and folders. Hidden folders and virtual environments in them
        are left out. What cannot be read or is not Python is a finding, ``M000``.
    """
    texts: list[tuple[str, str | Exception]] = []
    for path in dict.fromkeys(f for given in paths for f in _files(given)):
        try:
            texts.append((str(path), path.read_bytes().decode("utf-8-sig")))
        except (OSError, UnicodeDecodeError) as error:
            texts.append((str(path), error))
    return _find(texts)


def _files(path: Path) -> Iterator[Path]:
    if not path.is_dir():
        yield path
        return
    try:
        inside = sorted(path.iterdir())
    except OSError:
        yield path  # reading it says why
        return
    if any(each.name == "pyvenv.cfg" for each in inside):
        return
    for each in inside:
        if each.is_dir():
            # A link may lead to where we are.
            if each.name[0] != "." and not each.is_symlink():
                yield from _files(each)
        elif each.suffix == ".py":
            yield each


def _find(texts: Iterable[tuple[str, str | Exception]]) -> Iterator[Finding]:
    modules, found = [], []
    for path, text in texts:
        try:
            if isinstance(text, Exception):
                raise text
            modules.append(Module(text, path))
        except (OSError, SyntaxError, ValueError, RecursionError, MemoryError) as error:
            line = getattr(error, "lineno", None) or 1
            said = ("this file", f"{type(error).__name__}: {error}")
            found.append(_finding(path, Difference("M000", line, 1, said)))
    known = Known(modules)
    for module in modules:
        found += {_finding(module.path, d) for d in differences(module, known)}
    return iter(sorted(found))


def _finding(path: str, found: Difference) -> Finding:
    message, cure = CODES[found.code]
    text = message.format(*found.said)
    return Finding(path, found.line, found.column, found.code, text, cure)
