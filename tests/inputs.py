"""Values that a cache key has to tell apart, in pools, for kinds.py.

No two values of a pool are the same: a function may return something else for each.
Where the documentation says that two values are one argument (a row and its proxy, a
dict in another order), only one of them is here.
"""

from __future__ import annotations

import array
import ast
import collections
import contextvars
import ctypes
import dataclasses
import datetime
import decimal
import enum
import fractions
import functools
import hashlib
import io
import ipaddress
import itertools
import operator
import pathlib
import random
import re
import string
import struct
import threading
import time
import types
import typing
import uuid
import zoneinfo
from typing import Any

import attrs
import dateutil.tz
import pydantic
from django.contrib.auth.models import AnonymousUser, Group, User
from django.core.files.base import ContentFile
from django.db.models import Count, F, Q, Value
from django.http import HttpRequest, QueryDict
from django.utils.datastructures import ImmutableList, MultiValueDict
from django.utils.functional import SimpleLazyObject, cached_property, lazy
from django.utils.safestring import SafeString, mark_safe
from django.utils.translation import gettext_lazy, ngettext_lazy, pgettext_lazy

from tests.models import Place, Post, Restaurant, Tag

SEED = 11
UTC = datetime.UTC


# --- classes of a project ------------------------------------------------------------


class Text(str):
    pass


class Slug(Text):
    pass


class Whole(int):
    pass


class Real(float):
    pass


class Raw(bytes):
    pass


class Row(list):
    pass


class Bag(set):
    pass


class Table(dict):
    pass


class Money(decimal.Decimal):
    pass


class Day(datetime.date):
    pass


class Moment(datetime.datetime):
    pass


class Labelled(str):
    """A text with an attribute."""

    def __new__(cls, text: str, label: object) -> Labelled:
        self = super().__new__(cls, text)
        self.label = label
        return self


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


class Size(enum.Enum):
    RED = 1


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class State(enum.StrEnum):
    DRAFT = "draft"
    DONE = "done"


class Access(enum.Flag):
    READ = 1
    WRITE = 2


class Titled(enum.Enum):
    """Members whose own ``name`` and ``value`` hide those of the enum."""

    FIRST = 1
    SECOND = 2

    @property
    def name(self):
        return "the same"

    @property
    def value(self):
        return "the same"


class Point(typing.NamedTuple):
    x: object
    y: object


class Other(typing.NamedTuple):
    x: object
    y: object


@dataclasses.dataclass
class Pair:
    left: object
    right: object = None


@dataclasses.dataclass(frozen=True, slots=True)
class Frozen:
    left: object
    right: object = None


@dataclasses.dataclass(eq=False)
class Quiet:
    """Fields that neither the text nor the comparison shows."""

    left: object = dataclasses.field(default=None, repr=False, compare=False)

    def __repr__(self):
        return "quiet"

    def __eq__(self, other):
        return True

    def __hash__(self):
        return 1


class Slotted:
    __slots__ = ("left", "right")

    def __init__(self, left, right=None):
        self.left = left
        if right is not None:
            self.right = right


class SlottedChild(Slotted):
    __slots__ = ("left",)


class Hidden:
    """A slot and a dict behind properties."""

    __slots__ = ("__dict__", "_left")

    def __init__(self, left, right):
        object.__setattr__(self, "_left", left)
        type(self).__mro__[0].own.__get__(self)["right"] = right

    own: Any = None


Hidden.own = vars(Hidden)["__dict__"]


class Counted:
    def __init__(self, number):
        self.number = number

    @cached_property
    def doubled(self):
        return [self.number, self.number]


class Keeps:
    """An object that keeps its hash."""

    def __init__(self, number):
        self.number = number
        self._hash = None

    def __eq__(self, other):
        return type(other) is type(self) and other.number == self.number

    def __hash__(self):
        if self._hash is None:
            self._hash = hash(("kept", self.number))
        return self._hash


@attrs.define
class Defined:
    left: object
    right: object = None


@attrs.frozen(cache_hash=True)
class Hashed:
    left: object


@attrs.define
class Lazily:
    left: object

    @functools.cached_property
    def doubled(self):
        return [self.left, self.left]


class Document(pydantic.BaseModel):
    title: str
    pages: int = 1


class Extra(pydantic.BaseModel, extra="allow"):
    _private: object = pydantic.PrivateAttr(0)


@attrs.define(eq=False)
class Unseen:
    left: object = attrs.field(repr=False)


class TableWithLabel(dict):
    __slots__ = ("label",)

    def __init__(self, label: object) -> None:
        super().__init__()
        self.label = label


class TupleWithLabel(tuple):
    def __new__(cls, label: object) -> TupleWithLabel:
        self = super().__new__(cls)
        self.label = label
        return self


class Unlisted(enum.Enum):
    """Members that are made as needed, all of one name."""

    ONE = 1

    @classmethod
    def _missing_(cls, value: object) -> Unlisted:
        member = object.__new__(cls)
        member._name_, member._value_ = "OTHER", value
        return member


class SlottedFault(Exception):
    __slots__ = ("code",)

    def __init__(self, code: object) -> None:
        super().__init__()
        self.code = code


class Shop:
    def __init__(self, name):
        self.name = name

    def sells(self):
        return self.name

    def __repr__(self):
        return "shop"


class SingletonLike:
    def __repr__(self):
        return "singleton"


class Offset(datetime.tzinfo):
    def __init__(self, hours):
        self.hours = hours

    def utcoffset(self, moment):
        return datetime.timedelta(hours=self.hours)

    def dst(self, moment):
        return datetime.timedelta(0)

    def tzname(self, moment):
        return "own"

    def __reduce__(self):
        return Offset, (self.hours,)


class Fault(Exception):
    def __init__(self, text, code=None):
        super().__init__(text)
        self.code = code


def double(number):
    return 2 * number


def triple(number):
    return 3 * number


def shown_rows(rows):
    return repr(rows)


# --- pools ---------------------------------------------------------------------------


def numbers() -> list[Any]:
    equal = [0, 1, 2, 10, 255, 2**53, 2**64, 10**5_000]
    found: list[Any] = [None, True, False, *equal, *(-each for each in equal[1:])]
    found += [float(n) for n in equal[:7]] + [-0.0, -1.0, 2**53 + 1, 1e16, 1e308]
    found += [
        float("nan"),
        float("inf"),
        float("-inf"),
        0.1,
        0.1 + 1e-17 + 1e-16,
        5e-324,
    ]
    found += [complex(n) for n in (0, 1, 2)] + [1j, complex(-0.0, 0), complex(0, -0.0)]
    texts = "0 -0 0.0 0E+1 1 1.0 1.00 1E0 10 1E+1 NaN sNaN NaN1 Infinity".split()
    found += [decimal.Decimal(text) for text in texts if text != "1E0"]
    found += [fractions.Fraction(n) for n in ("0", "1", "2", "1/10")]
    found += [Level.LOW, Level.HIGH, Whole(1), Whole(2), Real(1), Real(2), Money(1)]
    found += [ctypes.c_int(1), ctypes.c_int(2), ctypes.c_long(1)]
    return found


def texts() -> list[Any]:
    plain = [
        "",
        " ",
        "  ",
        "\0",
        "a",
        "A",
        "b",
        "a:b",
        "a,b",
        "a b",
        "a|b",
        "a/b",
        "a%3Ab",
    ]
    plain += ["None", "True", "1", "1.0", "'a'", '"a"', "b'a'", "[]", "()", "{}", "a=1"]
    plain += [
        "\xe9",
        "e\u0301",
        "\xc9",
        "e",
        "\ufb01",
        "fi",
        "\xdf",
        "ss",
        "\u0130",
        "i\u0307",
        "\u0131",
        "i",
        "\u03a9",
        "\u2126",
    ]
    plain += [
        "\ud800",
        "\udcff",
        "\ufeff",
        "\u200b",
        "a\u200b",
        "\n",
        "\r\n",
        "\\n",
        "\x7f",
    ]
    plain += ["0x1", "s1:a", "a" * 60, "a" * 61, "a" * 250, "a" * 251, "a" * 10_000]
    plain += [
        "a" * 10_001,
        "\U0001f600",
        "\U0001f600\ufe0f",
        "%s",
        "{}:",
        "a\tb",
        "a+b",
        "a&b",
    ]
    plain += ["\xc5", "A\u030a", "\u212b", "\ud55c", "\u1112\u1161\u11ab"]
    found: list[Any] = [*dict.fromkeys(plain)]
    found += [SafeString("a"), Text("a"), Slug("a"), State.DRAFT, State.DONE, "draft"]
    found += [Labelled("a", 1), Labelled("a", True), Labelled("a", "1"), mark_safe("1")]
    found += [
        b"",
        b"a",
        b"1",
        b"\xe9",
        "\xe9".encode(),
        bytearray(b"a"),
        bytearray(b"b"),
    ]
    found += [Raw(b"a"), array.array("b", b"a"), array.array("B", b"a")]
    found += [string.Template("a"), string.Template("b"), collections.UserString("a")]
    found += [re.compile("a"), re.compile("a", re.I), re.compile(b"a"), re.compile("b")]
    return found


def containers() -> list[Any]:
    pairs = [(1, 2), (3, 4)]
    ordered = [collections.OrderedDict(each) for each in (pairs, pairs[::-1])]
    found: list[Any] = [[], (), {}, set(), frozenset(), [[]], ((),), [()], ([],), [{}]]
    for one in (1, True, 1.0, "1", b"1", None, decimal.Decimal(1)):
        found += [[one], (one,), {one}, frozenset({one}), {one: 0}, {0: one}, [[one]]]
        found += [collections.deque([one]), Row([one]), Bag([one]), Table({one: 0})]
        found += [Point(one, 0), Other(one, 0), collections.OrderedDict({one: 0})]
        found += [{"a": [one]}, {"a": (one,)}, types.SimpleNamespace(a=one)]
    found += [[1, 2], [2, 1], [[1], 2], [1, [2]], [[1, 2]], [1, 2, None], ["1, 2"]]
    found += [
        ["a", "b"],
        ["a:b"],
        ["a", "b", ""],
        ["", "a", "b"],
        ["ab"],
        ["a", "", "b"],
    ]
    found += [
        ("a", "b"),
        ("a,b",),
        ("a", ("b",)),
        (("a",), "b"),
        ("a, b",),
        ("a', 'b",),
    ]
    found += [
        {1: 2, 3: 4},
        {1: 4, 3: 2},
        {1: {3: 2}},
        {"1": 2, "3": 4},
        [(1, 2), (3, 4)],
    ]
    found += [collections.OrderedDict([(1, 2), (3, 4)])]
    found += [collections.OrderedDict([(3, 4), (1, 2)])]
    found += [collections.deque([1], 5), collections.deque([1], 6)]
    found += [collections.defaultdict(int, a=1), collections.defaultdict(list, a=1)]
    found += [collections.Counter("aab"), collections.Counter("abb")]
    found += [
        collections.ChainMap({1: 1}, {2: 2}),
        collections.ChainMap({2: 2}, {1: 1}),
    ]
    found += [
        collections.UserDict(a=1),
        collections.UserList([1]),
        ImmutableList([1, 2]),
    ]
    found += [
        types.MappingProxyType({1: 1}),
        types.MappingProxyType({1: 2}),
        *map(types.MappingProxyType, ordered),
    ]
    found += [
        range(3),
        range(1, 3),
        range(0, 3, 2),
        slice(3),
        slice(0, 3),
        slice(3, None),
    ]
    found += [
        QueryDict("a=1"),
        QueryDict("a=1&a=2"),
        QueryDict("a=2&a=1"),
        QueryDict("b=1"),
    ]
    found += [MultiValueDict({"a": ["1"]}), MultiValueDict({"a": ["0", "1"]})]
    found += [time.struct_time(range(9)), time.gmtime(0), array.array("i", [1])]
    found += [
        array.array("l", [1]),
        array.array("d", [1]),
        [0.0],
        [-0.0],
        [float("nan")],
    ]
    return found


def moments() -> list[Any]:
    zones = [None, UTC, zoneinfo.ZoneInfo("UTC"), zoneinfo.ZoneInfo("Europe/Berlin")]
    zones += [zoneinfo.ZoneInfo("Europe/Paris"), zoneinfo.ZoneInfo("Etc/GMT-1")]
    hours = datetime.timedelta(hours=1)
    zones += [datetime.timezone(hours), datetime.timezone(hours, "CET")]
    zones += [datetime.timezone(datetime.timedelta(0), "CET"), Offset(1), Offset(2)]
    zones += [datetime.timezone(hours, "UTC"), dateutil.tz.gettz("Europe/Berlin")]
    zones += [dateutil.tz.tzoffset("A", 3600), dateutil.tz.tzoffset("B", 3600)]
    found: list[Any] = []
    for zone, fold in itertools.product(zones, (0, 1)):
        night = datetime.datetime(2026, 10, 25, 2, 30, tzinfo=zone, fold=fold)
        found += [night, night.timetz()]
        if fold == 0:
            found += [night.replace(microsecond=1), Moment(2026, 1, 1, tzinfo=zone)]
    found += [datetime.date(2026, 1, 1), Day(2026, 1, 1), datetime.datetime(2026, 1, 1)]
    found += ["2026-01-01", "2026-01-01 00:00:00", datetime.time(), datetime.time(0, 1)]
    found += [datetime.timedelta(seconds=n) for n in (0, 1, 60, 86_400, -1)]
    found += [datetime.timedelta(microseconds=1), 60, 60.0, *zones[1:]]
    return found


def projects() -> list[Any]:
    """Enums, lazy values, model instances."""
    found: list[Any] = [Colour.RED, Colour.BLUE, Size.RED, Titled.FIRST, Titled.SECOND]
    found += [Unlisted.ONE, Unlisted(2), Unlisted(3)]
    found += [Access.READ, Access.WRITE, Access.READ | Access.WRITE, Access(0)]
    found += [State.DRAFT, Level.LOW, Level.HIGH, Colour, Size, "RED", 1, 2, "draft"]
    found += [
        gettext_lazy("May"),
        gettext_lazy("June"),
        pgettext_lazy("x", "July"),
        "may",
    ]
    found += [ngettext_lazy("%(n)d day", "%(n)d days", "n")]
    found += [ngettext_lazy("%(n)d row", "%(n)d rows", "n")]
    found += [lazy(lambda: "<b>", str)(), lazy(lambda: mark_safe("<b>"), SafeString)()]
    found += [lazy(lambda: 5, str, int)(), lazy(lambda: "5", str, int)()]
    found += [lazy(lambda: 5, int)(), lazy(lambda: 6, int)(), lazy(lambda: [1], list)()]
    found += [SimpleLazyObject(lambda: 5), SimpleLazyObject(lambda: "5.")]
    found += [
        SimpleLazyObject(lambda: User(pk=3)),
        SimpleLazyObject(lambda: User(pk=4)),
    ]
    for model in (Post, Tag, User, Group, Place, Restaurant):
        found += [model(pk=n) for n in (1, 2, 11, 0, -1)]
        found += [model(), model(pk="")]
    found += [Post(title="a"), Post(title="b"), User(username="a"), AnonymousUser()]
    found += [
        [Post(pk=1)],
        [Tag(pk=1)],
        {"a": Post(pk=1)},
        {"a": Post(pk=2)},
        Post,
        Tag,
    ]
    found += [Q(a=1), Q(a=2), Q(b=1), ~Q(a=1), Q(a=1) | Q(b=2), Q(a=1) & Q(b=2)]
    found += [F("a"), F("b"), F("a") + 1, F("a") + 2, Value(1), Value("1"), Count("a")]
    return found


def objects() -> list[Any]:
    found: list[Any] = []
    for one in (1, True, "1", None, [1], (1,)):
        found += [Pair(one), Pair(0, one), Frozen(one), Frozen(0, one), Quiet(one)]
        found += [Slotted(one), Slotted(0, one), SlottedChild(one), Hidden(one, 0)]
        found += [Hidden(0, one), Counted(one), Defined(one), Defined(0, one)]
        found += [
            Lazily(one),
            Shop(one),
            types.SimpleNamespace(a=one),
            Pair([Pair(one)]),
        ]
    for one in (1, True, "1", None):
        found += [Extra(left=one), Unseen(one), TableWithLabel(one), SlottedFault(one)]
        found += [TupleWithLabel(one)]
    for word in ("a", "b"):
        found += [NameError("c", name=word), AttributeError("c", name=word)]
        found += [ImportError("c", name=word), ImportError("c", path=word)]
    found += [Keeps(1), Keeps(2), Hashed(1), Hashed(2), Document(title="a")]
    found += [Document(title="b"), Document(title="a", pages=2), SingletonLike()]
    found += [uuid.UUID(int=n) for n in (0, 1, 2)] + [ipaddress.ip_address("::1")]
    found += [
        ipaddress.ip_address(n) for n in ("127.0.0.1", "127.0.0.2", "::2", "::1%a")
    ]
    found += [ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("10.0.0.0/9")]
    found += [pathlib.PurePosixPath("a"), pathlib.PurePosixPath("b")]
    found += [
        pathlib.PureWindowsPath("a"),
        pathlib.Path("a"),
        pathlib.PureWindowsPath("A"),
    ]
    found += [KeyError("a"), KeyError("b"), ValueError("a"), Fault("a"), Fault("a", 1)]
    found += [
        OSError(2, "a"),
        OSError(2, "a", "b"),
        OSError(2, "a", "c"),
        Fault("a", 2),
    ]
    found += [
        ExceptionGroup("a", [ValueError(1)]),
        ExceptionGroup("a", [ValueError(2)]),
    ]
    found += [UnicodeDecodeError("utf-8", b"a", 0, 1, "x")]
    found += [UnicodeDecodeError("utf-8", b"b", 0, 1, "x")]
    found += [object(), object(), HttpRequest(), HttpRequest(), ContentFile(b"a", "a")]
    found += [ContentFile(b"b", "a")]
    return found


def callables() -> list[Any]:
    found: list[Any] = [
        double,
        triple,
        len,
        max,
        str.upper,
        "a".upper,
        "b".upper,
        Pair,
        int,
    ]
    found += [functools.partial(double, 1), functools.partial(double, 2)]
    found += [functools.partial(triple, 1), functools.partial(double, number=1)]
    found += [Shop("a").sells, Shop("b").sells, Shop("a").__repr__, Shop.sells]
    found += [[].append, [1].append, (1).__add__, (2).__add__, {}.get, {1: 1}.get]
    found += [
        lambda: 1,
        lambda: 2,
        lambda a=1: a,
        lambda a=2: a,
        operator.itemgetter(1),
    ]
    found += [
        operator.itemgetter(2),
        operator.attrgetter("a"),
        operator.attrgetter("b"),
    ]
    found += [operator.methodcaller("a"), operator.methodcaller("b")]
    found += [functools.lru_cache(double), functools.lru_cache(triple)]
    found += [list[int], list[str], dict[int, str], int | str, int | None, typing.Any]
    found += [typing.Optional[bool], typing.Literal[1], typing.Literal[True]]  # noqa: UP045
    found += [types, functools, print, type, type(None), ..., NotImplemented]
    found += [staticmethod(double), staticmethod(triple), property(double)]
    found += [property(triple), functools.partialmethod(double, 1)]
    found += [functools.partialmethod(double, 2), functools.singledispatch(double)]
    return found


def states() -> list[Any]:
    """Values whose state is in C, or changes by itself."""
    tree, other = ast.parse("a"), ast.parse("b")
    found: list[Any] = [
        random.Random(1),
        random.Random(2),
        struct.Struct("i"),
        tree,
        other,
    ]
    found += [struct.Struct("q"), io.StringIO("a"), io.StringIO("b"), io.BytesIO(b"a")]
    found += [io.BytesIO(b"b"), hashlib.sha256(b"a"), hashlib.sha256(b"b")]
    found += [decimal.Context(prec=5), decimal.Context(prec=6), itertools.count(1)]
    found += [itertools.count(2), iter([1]), iter([2]), iter(range(3)), map(str, [1])]
    found += [
        (n for n in (1,)),
        (n for n in (2,)),
        map(max, [1], [2]),
        map(max, [1], [3]),
    ]
    found += [memoryview(b"a"), memoryview(b"b"), {1: 1}.keys(), {2: 1}.keys()]
    found += [{1: 1}.items(), {1: 2}.items(), {1: 1}.values(), re.match("a", "a")]
    found += [
        re.match("a", "ab"),
        threading.Lock(),
        threading.Event(),
        threading.local(),
    ]
    found += [contextvars.ContextVar("a"), contextvars.ContextVar("b"), double.__code__]
    found += [
        triple.__code__,
        typing.TypeVar("A"),
        typing.TypeVar("B"),
        ctypes.c_char(b"a"),
    ]
    found += [ctypes.c_char(b"b"), types.CellType(1), types.CellType(2)]
    local, another = threading.local(), threading.local()
    local.a, another.a = 1, 2
    return [*found, local, another]


def plain_values() -> list[Any]:
    """Random plain values, nested, of a small alphabet."""
    chance = random.Random(SEED)
    leaves = [
        None,
        True,
        False,
        0,
        1,
        2,
        1.0,
        -0.0,
        0.0,
        "",
        "a",
        "1",
        "b",
        b"a",
        "a,b",
    ]
    leaves += [b"", (), "None", "s1:a", ")", "(", "l3:", decimal.Decimal(1)]

    def leaf_of() -> Any:
        return chance.choice(leaves)

    def value_of(depth: int) -> Any:
        kind = chance.randrange(8) if depth else 0
        size = chance.randrange(4)
        if kind < 3:
            return leaf_of()
        if kind == 3:
            return [value_of(depth - 1) for _ in range(size)]
        if kind == 4:
            return tuple(value_of(depth - 1) for _ in range(size))
        if kind == 5:
            return {leaf_of(): value_of(depth - 1) for _ in range(size)}
        if kind == 6:
            return {leaf_of() for _ in range(size)}
        return frozenset(leaf_of() for _ in range(size))

    return list(
        {exact(value): value for value in (value_of(3) for _ in range(900))}.values()
    )


def exact(value: Any) -> str:
    """Return plain values as text, in another way than the library does."""
    name = type(value).__name__
    if isinstance(value, dict):
        return f"{name}<{sorted((exact(k), exact(v)) for k, v in value.items())}>"
    if isinstance(value, (set, frozenset)):
        return f"{name}<{sorted(map(exact, value))}>"
    if isinstance(value, (list, tuple)):
        return f"{name}<{list(map(exact, value))}>"
    return f"{name}<{value!r}>"


POOLS = {
    "numbers": numbers,
    "texts": texts,
    "containers": containers,
    "moments": moments,
    "projects": projects,
    "objects": objects,
    "callables": callables,
    "states": states,
    "plain values": plain_values,
}


@functools.cache
def pool(name: str) -> list[Any]:
    return POOLS[name]()
