"""The migration check: code whose meaning has changed since django-cache-memoize 0.2.1.

``python -m cache_memoize.migrate PATH`` reads Python files as text, and runs none of
them. It finds much of what ``docs/migration.rst`` lists, not all of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from .differences import find_differences
from .shapes import Difference
from .usage import Known, Module

__all__ = ["CODES", "Finding", "Report", "find", "find_in", "report_on"]

#: By code: the message, and what to write instead.
CODES = {
    "M000": ("{} cannot be read: {}", "look at this file by hand"),
    "M001": (
        "{} is given the instance twice: the controls of a bound method know it, so "
        "this is deprecated, and invalidates two calls if both readings fit",
        "leave the instance out",
    ),
    "M002": (
        "{} does not fit: {}. In 0.2.1 nothing was invalidated; now a TypeError is "
        "raised",
        "give the arguments of the call that is meant",
    ),
    "M004": (
        "args_rewrite of {} leaves out {!r}, which this call passes by keyword: it was "
        "part of the key, and is not any more",
        "let args_rewrite return this argument too, if the result depends on it",
    ),
    "M005": (
        "args_rewrite of {} returns an iterator or a view, which is refused when the "
        "function is called",
        "return a tuple",
    ),
    "M006": (
        "{} has {}, which was in the key by its text, and is refused now when the "
        "function is called",
        "memoize what a view calls, and pass the values that the function reads from "
        "it; or ignore= or args_rewrite=",
    ),
    "M007": (
        "{} is called with {}, which was in the key by its text, and is refused now",
        "pass a plain value instead, such as an id; or ignore= or args_rewrite=",
    ),
    "M008": (
        "extra of {} has {}, which is refused now when the function is called",
        "use the values that the result depends on",
    ),
    "M009": (
        "key_generator_callable of {} returns no string, or an empty one: a TypeError",
        "return a string, such as an f-string",
    ),
    "M010": (
        "the cache is used with a key of {}: the value stored there is not the result "
        "any more, and a value written there is not served",
        "use peek(), prime() or a call; deleting the key still works",
    ),
    "M011": (
        "a key of 0.2.1 that was made without the library: keys have changed",
        "use get_cache_key(), invalidate(), peek() or prime()",
    ),
    "M012": (
        "a lambda without prefix= is refused when it is decorated",
        "give it a prefix= of its own, or use def",
    ),
    "M013": (
        "{} is a {}, which is refused when it is decorated",
        "memoize a function that returns a list or an instance",
    ),
    "M014": (
        "{}= of {} is refused when it is decorated: it is {}",
        "give a value that the option takes",
    ),
    "M015": (
        "{} has a parameter named _refresh, which is refused when it is decorated",
        "give the parameter another name",
    ),
    "M016": (
        "{} is a guard (store_result=False) with cache_exceptions: after an exception, "
        "calls returned True; now they raise it again",
        "leave cache_exceptions out, or expect the exception",
    ),
    "M017": (
        "{} returns an exception: it was raised in the caller, and is returned now",
        "raise it, and name its class in cache_exceptions=",
    ),
    "M018": (
        "{} is made in a function and captures {!r}: in 0.2.1 all such functions "
        "shared entries; now they differ by plain values, or there is a warning",
        "give it prefix=, and pass the captured value as an argument",
    ),
    "M019": (
        "{} is decorated as a bound method: its instance was not part of the key, and "
        "is now",
        "decorate the method in its class, with ignore=('self',) if the result does "
        "not depend on the instance",
    ),
    "M020": (
        "a cache with a JSON serializer cannot store bytes: nothing is cached there, "
        "and invalidate() raises",
        "give cache_alias= the name of a cache whose serializer takes bytes",
    ),
    "M021": ("cache_memoize.{} does not exist any more", "import it from Django"),
}


class Finding(NamedTuple):
    """One place in the code that has another meaning now.

    :param path: as it was given, or below the folder that was given.
    :param line: from 1.
    :param column: from 1.
    :param code: ``M000`` and so on.
    :param message: the change.
    :param cure: the code to write instead, in words.
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


#: What the text of files does not show.
_LIMITS = (
    "Not seen: decorators of other packages, plain calls of methods on objects of an "
    "unknown class, arguments whose type shows only at run time, tests that patch the "
    "cache, results that depend on transactions or timing: run your tests, and read "
    "docs/migration.rst."
)


class Report(NamedTuple):
    """The findings, and how much was looked at."""

    findings: list[Finding]
    #: The number of files.
    files: int
    #: The number of memoized functions in them.
    functions: int

    def __str__(self) -> str:
        counts = [
            _count(self.files, "file"),
            _count(self.functions, "memoized function"),
            _count(len(self.findings), "finding"),
        ]
        missing = (
            "" if self.functions else " Nothing is memoized there; is this all code?"
        )
        return (
            f"Looked at {counts[0]} with {counts[1]}: {counts[2]}.{missing} {_LIMITS}"
        )


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def find(source: str, path: str) -> Iterator[Finding]:
    """Yield the findings in one file.

    :param source: the text of the file.
    :param path: the path for the findings.
    """
    return iter(_report_on_texts([(path, source)]).findings)


def find_in(paths: Iterable[Path]) -> Iterator[Finding]:
    """Yield the findings in files, and in all ``*.py`` files below folders.

    Functions that one file memoizes are known in the others. A file that cannot be
    read or is not Python is a finding, ``M000``.

    :param paths: files and folders. Hidden folders and virtual environments in them
        are skipped.
    """
    return iter(report_on(paths).findings)


def report_on(paths: Iterable[Path]) -> Report:
    """Return the findings of :func:`find_in`, and the numbers of files and functions
    that were looked at. Its text says what the check cannot see."""
    texts: list[tuple[str, str | Exception]] = []
    for path in dict.fromkeys(f for given in paths for f in _list_files(given)):
        try:
            texts.append((str(path), path.read_bytes().decode("utf-8-sig")))
        except (OSError, UnicodeDecodeError) as error:
            texts.append((str(path), error))
    return _report_on_texts(texts)


def _list_files(path: Path) -> Iterator[Path]:
    if not path.is_dir():
        yield path
        return
    try:
        inside = sorted(path.iterdir())
    except OSError:
        yield path  # reading it raises the error
        return
    if any(each.name == "pyvenv.cfg" for each in inside):
        return
    for each in inside:
        if each.is_dir():
            # A link may lead to a folder above.
            if each.name[0] != "." and not each.is_symlink():
                yield from _list_files(each)
        elif each.suffix == ".py":
            yield each


def _report_on_texts(texts: list[tuple[str, str | Exception]]) -> Report:
    modules, found = [], []
    for path, text in texts:
        try:
            if isinstance(text, Exception):
                raise text
            modules.append(Module(text, path))
        except (OSError, SyntaxError, ValueError, RecursionError, MemoryError) as error:
            line = getattr(error, "lineno", None) or 1
            said = ("this file", f"{type(error).__name__}: {error}")
            found.append(_explain_difference(path, Difference("M000", line, 1, said)))
    known = Known(modules)
    for module in modules:
        found += {
            _explain_difference(module.path, d) for d in find_differences(module, known)
        }
    functions = sum(len(module.declared) for module in modules)
    return Report(sorted(found), len(texts), functions)


def _explain_difference(path: str, found: Difference) -> Finding:
    message, cure = CODES[found.code]
    text = message.format(*found.words)
    return Finding(path, found.line, found.column, found.code, text, cure)
