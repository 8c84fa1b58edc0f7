"""Memoized functions, figures and values in words: for the admin, the command, the
checks and the panel.

Front ends ask a function about itself only by :class:`FunctionInfo`.
"""

from __future__ import annotations

import dis
import hashlib
import inspect
import re
import sys
import traceback
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import timedelta
from typing import Any, NamedTuple

from django.db.models import Model
from django.template.defaultfilters import filesizeformat
from django.utils.formats import number_format
from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from .conf import conf
from .keys.tags import call_tags, table_tag, tag_key
from .options import SIGNATURE
from .planning import Function, functions, models_of, plan_of
from .protocol.policy import BACKEND
from .protocol.tables import tables_with
from .stats.history import place
from .stats.totals import Totals

__all__ = [
    "FIGURES",
    "Figure",
    "FunctionInfo",
    "Option",
    "Options",
    "Dependencies",
    "describe_default",
    "describe_dependencies",
    "describe_error",
    "describe_options",
    "describe_tags",
    "describe_timeout",
    "describe_totals",
    "describe_users",
    "describe_value",
    "format_duration",
    "info_of",
    "list_functions",
    "list_tags",
]

#: Shown where no number or text is known.
NOTHING = "–"

_UNITS = [
    (0.001, 1e6, "µs"),
    (1, 1e3, "ms"),
    (120, 1, "s"),
    (2 * 60 * 60, 1 / 60, "min"),
    (2 * 24 * 60 * 60, 1 / 60 / 60, "h"),
    (float("inf"), 1 / 24 / 60 / 60, "d"),
]


# --- functions -----------------------------------------------------------------------


class FunctionInfo:
    """One memoized function, with the options that the settings give it.

    Raises ImproperlyConfigured if the settings do not fit the function.
    """

    def __init__(self, record: Function, memoized: Any = None) -> None:
        plan = plan_of(record)
        self.record = record
        self.function, self.given = record.func, record.given
        #: The function with its controls, perhaps bound to an instance or class.
        self.memoized: Any = record.wrapper if memoized is None else memoized
        self.name, self.path, self.alias = record.name, record.path, plan.alias
        self.module: str = record.func.__module__
        self.options = plan.options
        #: Text that only the keys of this function begin with.
        self.prefix = record.prefix or record.path
        self._captured = plan.captured
        self.has_tags = plan.tag is not None
        self.has_many = record.many is not None
        self.timeout: Any = plan.policy.timeout
        self.enabled, self.holds = plan.policy.enabled, bool(plan.policy.hold)
        self.is_async = record.is_async
        self.breaker, self.clock, self.stats = plan.breaker, record.clock, record.stats

    @property
    def id(self) -> str:
        """20 hexadecimal digits, the same in every process, of the name, the prefix and
        the captured variables."""
        whole = f"{self.path} {self.prefix}"
        with suppress(TypeError):  # UnkeyableArgument
            whole += self._captured() if self._captured else ""
        return hashlib.sha256(whole.encode("utf-8", "surrogatepass")).hexdigest()[:20]

    @property
    def models(self) -> list[type[Model]]:
        """The models in depends_on=."""
        return models_of(self.options, self.name)

    @property
    def is_method(self) -> bool:
        """Whether the first argument of a call is an instance or a class."""
        if getattr(self.memoized, "__self__", None) is not None:
            return False
        parameters = inspect.signature(self.function).parameters
        if next(iter(parameters), "") in ("self", "cls"):
            return True
        owner: Any = sys.modules.get(self.module)
        *owners, name = getattr(self.function, "__qualname__", "").split(".")
        for each in owners:
            owner = getattr(owner, each, None)
        attribute = inspect.getattr_static(owner, name, None)
        return isinstance(owner, type) and not isinstance(attribute, staticmethod)

    @property
    def breaker_state(self) -> str:
        """The circuit breaker of the cache: closed, open or half-open."""
        return self.breaker.state(self.clock.monotonic())

    @property
    def location(self) -> tuple[str, int] | None:
        """The file and the line of the definition; None for a function in C."""
        return _find_code(self.function)

    @property
    def source(self) -> str:
        """The location as ``shop/catalogue.py:12``, from the package on."""
        return _locate(self.function)

    @property
    def documentation(self) -> str:
        return inspect.getdoc(self.function) or ""

    @property
    def signature(self) -> str:
        """The parameters, without values that may be confidential: defaults as in
        :func:`describe_default`, and no annotations with text or calls in them."""
        signature = inspect.signature(self.function)
        parameters = [
            each.replace(
                default=_mask_default(each.default),
                annotation=_mask_annotation(each.annotation),
            )
            for each in signature.parameters.values()
        ]
        returned = _mask_annotation(signature.return_annotation)
        shown = signature.replace(parameters=parameters, return_annotation=returned)
        return f"{self.name}{shown}"


def info_of(memoized: Any) -> FunctionInfo:
    """Describe a memoized function, or a bound method."""
    return FunctionInfo(memoized._memoized, memoized)


def list_functions() -> list[FunctionInfo]:
    """Describe all memoized functions that this process has imported."""
    return [FunctionInfo(record) for record in functions()]


def _find_code(function: Any) -> tuple[str, int] | None:
    code = getattr(inspect.unwrap(function), "__code__", None)
    return (code.co_filename, code.co_firstlineno) if code else None


def _locate(function: Any) -> str:
    """Return the file, from the package on, and the line of a function."""
    found = _find_code(function)
    if found is None:
        return ""
    return place(*found, function.__module__)


class Dependencies(NamedTuple):
    """The results that a function's results have been made of in this process."""

    #: Tables, and the paths of memoized functions.
    depends_on: list[str]
    #: The paths of functions whose results have been made with those of this one.
    used_by: list[str]


def describe_dependencies(info: FunctionInfo) -> Dependencies:
    others = {each: call_tags(each.prefix, "")[1] for each in functions()}
    mine = info.record.made_of
    used = {each.path for each, tag in others.items() if tag in mine}
    using = {each.path for each in others if others[info.record] in each.made_of}
    tables = [f"table {name}" for name in tables_with(_tags_of(info))]
    return Dependencies([*tables, *sorted(used)], sorted(using))


def describe_users(infos: Iterable[FunctionInfo]) -> dict[str, list[str]]:
    """Return the tables and tags that these functions depend on, each with the paths of
    all functions of this process that depend on it."""
    names: dict[str, str] = {}
    for info in infos:
        names |= {
            table_tag(each): f"table {each}" for each in tables_with(_tags_of(info))
        }
        names |= {tag_key(each): f"tag {each}" for each in _fixed_tags(info)}
    users = [(info.path, _tags_of(info)) for info in list_functions()] if names else []
    return {
        name: sorted({path for path, tags in users if tag in tags})
        for tag, name in names.items()
    }


def _tags_of(info: FunctionInfo) -> set[str]:
    """Return the keys of the tags that results of a function are known to depend on."""
    fixed = map(tag_key, _fixed_tags(info))
    return info.record.made_of | plan_of(info.record).tables | {*fixed}


def _fixed_tags(info: FunctionInfo) -> list[str]:
    tags = info.options.tags
    return [] if callable(tags) else list_tags(tags) or []


class _Verbatim:
    """A default or an annotation in a signature, as the text that is shown."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return self._text


_EMPTY = inspect.Parameter.empty


def _mask_default(default: Any) -> Any:
    return default if default is _EMPTY else _Verbatim(describe_default(default))


def _mask_annotation(annotation: Any) -> Any:
    if annotation is _EMPTY:
        return annotation
    is_text = isinstance(annotation, str)  # from __future__ import annotations
    text = annotation if is_text else inspect.formatannotation(annotation)
    return _EMPTY if re.search("""["'()=]""", text) else _Verbatim(text)


def describe_default(value: Any) -> str:
    """Return a default, or a part of a key, as text: None, truth values and numbers of
    at most four digits as they are, and nothing but the type of others, which may be
    confidential."""
    is_number = type(value) in (int, float) and abs(value) < 10_000
    is_shown = value is None or type(value) is bool or is_number
    return repr(value) if is_shown else f"<{type(value).__name__}>"


# --- options -------------------------------------------------------------------------


class Option(NamedTuple):
    name: str
    value: str
    #: "this function", "settings" or "library".
    origin: str


class Options(NamedTuple):
    #: Options that the function or the project sets.
    explicit: list[Option]
    #: Options that have the default of the library.
    defaults: list[Option]


def describe_options(info: FunctionInfo) -> Options:
    """Return all options of a function, each with its value and origin."""
    project, found = conf().DEFAULTS, Options([], [])
    for name in SIGNATURE.parameters:
        value = getattr(info.options, name)
        text = _describe_option(value)
        if name == "extra" and not callable(value):
            text = describe_default(value)
        if name in info.given:
            found.explicit.append(Option(name, text, _("this function")))
        # A guard ignores some of the project's defaults.
        elif name in project and project[name] == value:
            found.explicit.append(Option(name, text, _("settings")))
        else:
            found.defaults.append(Option(name, text, _("library")))
    return found


def _describe_option(value: Any) -> str:
    if value is BACKEND:
        return "DEFAULT_TIMEOUT"
    if isinstance(value, (tuple, list, set, frozenset)):
        return ", ".join(sorted(map(_describe_option, value)) or ["()"])
    if value is None or isinstance(value, (bool, int, float, str)):
        return repr(value)[:80]
    if isinstance(value, timedelta):
        return str(value)
    name = getattr(value, "__qualname__", None) or type(value).__name__
    # Never its contents.
    return f"{name} ({_locate(value)})" if name.endswith("<lambda>") else name


def describe_timeout(timeout: Any) -> str:
    """Return ``policy.timeout`` as "5 min"."""
    if timeout is BACKEND:
        return _("default of the cache")
    if callable(timeout):
        return _("by result")
    return format_duration(timeout) if timeout else _("not stored")


def describe_tags(tags: Any) -> str:
    """Return the option tags= as "shop, prices"; empty for a function without tags."""
    if callable(tags):
        return _("by call")
    found = list_tags(tags)
    return "" if found is None else ", ".join(found) or "()"


def list_tags(tags: str | Iterable[str] | None) -> list[str] | None:
    """Return the tags of an option that is not a function of the call."""
    if tags is None:
        return None
    return [tags] if isinstance(tags, str) else list(tags)


# --- figures and values --------------------------------------------------------------


def format_duration(seconds: float) -> str:
    """Return a duration as "1.5 ms"; a dash for 0, "unlimited" for infinity."""
    if not seconds:
        return NOTHING
    for limit, factor, unit in _UNITS:
        if seconds < limit:
            amount = seconds * factor
            places = 0 if amount >= 99.95 or amount == int(amount) else 1
            amount = round(amount, places)
            return f"{number_format(amount, places, force_grouping=True)} {unit}"
    return _("unlimited")


def format_percent(rate: float | None) -> str:
    """Return a rate from 0 to 1 as "98.2 %"; a dash for None."""
    if rate is None:
        return NOTHING
    # 100 % means all, and 0 % none.
    shown = min(max(rate * 100, 0.1), 99.9) if 0 < rate < 1 else rate * 100
    return f"{number_format(round(shown, 1), 1)} %"


def format_count(count: int) -> str:
    return number_format(count, force_grouping=True)


def format_size(size: int) -> str:
    return filesizeformat(size) if size else NOTHING


class Figure(NamedTuple):
    """A column of figures in the admin and on the command line."""

    name: str
    title: Promise
    value: Callable[[Totals], Any]
    format: Callable[[Any], str] = format_count


#: In the order of the tables.
FIGURES = [
    Figure("hits", gettext_lazy("Hits"), lambda t: t.hits),
    Figure("misses", gettext_lazy("Misses"), lambda t: t.misses),
    Figure("rate", gettext_lazy("Hit rate"), lambda t: t.hit_rate, format_percent),
    Figure("saved", gettext_lazy("Saved"), lambda t: t.saved, format_duration),
    Figure("runs", gettext_lazy("Runs"), lambda t: t.computations),
    Figure("mean", gettext_lazy("Mean"), lambda t: t.mean, format_duration),
    Figure("p95", gettext_lazy("95 %"), lambda t: t.p95, format_duration),
    Figure("stale", gettext_lazy("Stale"), lambda t: t.stale),
    Figure("waits", gettext_lazy("Waits"), lambda t: t.waits),
    Figure("errors", gettext_lazy("Errors"), lambda t: t.errors),
    Figure("failed", gettext_lazy("Failed"), lambda t: t.failed),
    Figure("near", gettext_lazy("Near"), lambda t: t.near),
    Figure("size", gettext_lazy("Size"), lambda t: t.size, format_size),
]


def describe_totals(totals: Totals) -> dict[str, str]:
    """Return all figures as text, by their names."""
    return {each.name: each.format(each.value(totals)) for each in FIGURES}


def describe_value(value: Any) -> str:
    """Return the type and size of a value, which may itself be confidential."""
    name = type(value).__name__
    if type(value) in (str, bytes):
        count = len(value)
        text = ngettext("%(name)s of length %(n)s", "%(name)s of length %(n)s", count)
    elif type(value) in (list, tuple, set, frozenset, dict):
        count = len(value)
        text = ngettext("%(name)s with %(n)s item", "%(name)s with %(n)s items", count)
    else:
        return name
    return text % {"name": name, "n": format_count(count)}


# --- errors --------------------------------------------------------------------------


def describe_error(error: BaseException) -> str:
    """Return an exception as "TypeError: the text"; without its text, which may show
    arguments or secrets, unless this package has written it."""
    name = type(error).__name__
    return f"{name}: {error}" if is_ours(error) else name


def is_ours(error: BaseException) -> bool:
    """Return whether a ``raise`` of this package has raised an exception; not Python on
    its behalf, as for ``int("secret")``."""
    frames = list(traceback.walk_tb(error.__traceback__))
    if not frames:
        return False
    code, at = frames[-1][0].f_code, frames[-1][0].f_lasti
    module = frames[-1][0].f_globals.get("__name__", "")
    is_raise = code.co_code[at] == dis.opmap["RAISE_VARARGS"]
    return is_raise and module.partition(".")[0] == __package__
