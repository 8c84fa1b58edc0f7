"""What a value is in a key: which values are the same, and which are refused."""

from __future__ import annotations

import array
import collections
import contextlib
import copy
import dataclasses
import datetime
import decimal
import enum
import fractions
import functools
import io
import itertools
import math
import os
import pathlib
import pickle
import pkgutil
import re
import struct
import subprocess
import sys
import threading
import time
import types
import uuid
import zoneinfo

import django
import pytest
from django.core.files.base import ContentFile
from django.db import models
from django.http import HttpRequest
from django.test import RequestFactory
from django.test.utils import isolate_apps
from django.utils import translation
from django.utils.functional import SimpleLazyObject, lazy
from django.utils.functional import cached_property as django_cached_property
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy, ngettext_lazy
from django.views import View
from hypothesis import given
from hypothesis import strategies as st

from cache_memoize import UnkeyableArgument, cache_memoize, register_key
from cache_memoize.keys import encoding
from cache_memoize.keys.binding import Binder
from cache_memoize.keys.encoding import digest, encode, label
from cache_memoize.keys.maker import KeyParts, key_maker
from tests.conftest import example_settings, examples
from tests.models import Post, Restaurant, Shop, SpecialPost, Tag

ROOT = pathlib.Path(__file__).parent.parent
BERLIN = zoneinfo.ZoneInfo("Europe/Berlin")
CET = datetime.timezone(datetime.timedelta(hours=1))
UTC = datetime.timezone.utc  # noqa: UP017 - a name of its own in every test below


# --- the classes of a user -----------------------------------------------------------


class Text(str):
    pass


class Slug(Text):
    """A subclass of a subclass."""


class Whole(int):
    pass


class Real(float):
    pass


class Raw(bytes):
    pass


class Row(list):
    pass


class Couple(tuple):
    __slots__ = ()


class Bag(set):
    pass


class FrozenBag(frozenset):
    pass


class Table(dict):
    pass


class Colour(enum.Enum):
    RED = 1
    GREEN = 2
    CRIMSON = 1  # noqa: PIE796 - an alias


class Size(enum.Enum):
    RED = 1


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Access(enum.Flag):
    READ = 1
    WRITE = 2


class Unsure(enum.IntFlag):
    READ = 1


Pair = collections.namedtuple("Pair", "left right")
Twins = collections.namedtuple("Twins", "left right")


@dataclasses.dataclass
class Point:
    x: object
    y: object = 0


@dataclasses.dataclass(frozen=True)
class Fixed:
    x: object
    y: object = 0


@dataclasses.dataclass(frozen=True, slots=True)
class Slim:
    x: object
    y: object = 0


class Slotted:
    __slots__ = ("__hidden", "x")

    def __init__(self, hidden, **values):
        self.__hidden = hidden
        for name, value in values.items():
            setattr(self, name, value)


class SlottedChild(Slotted):
    """Slots of its base, and a ``__dict__`` of its own."""


class Plain:
    def __init__(self, **attributes):
        vars(self).update(attributes)


class OtherPlain(Plain):
    pass


class Service:
    """What a dependency container hands out: no attributes, no text of its own."""


class OtherService:
    pass


class Lazybones:
    """Leaves values of both kinds of cached property behind."""

    def __init__(self, width):
        self.width = width

    @functools.cached_property
    def area(self):
        return self.width**2

    @django_cached_property
    def volume(self):
        return self.width**3


class LazyText(str):
    @functools.cached_property
    def shouted(self):
        return self.upper()


class Locked:
    """A lock cannot be part of a key, and a text of its own does not help."""

    def __init__(self, name):
        self.name = name
        self.lock = threading.Lock()

    def __repr__(self): ...


class Worded:
    """No attributes, but a text of its own."""

    words = {}

    def __init__(self, word):
        self.words[id(self)] = word

    def __repr__(self):
        return self.words[id(self)]


class WordedByStr(Worded):
    """Two of them may have one ``__repr__`` and differ by their ``__str__``."""

    def __repr__(self):
        return "WordedByStr"

    def __str__(self):
        return self.words[id(self)]


class Addressed:
    def __repr__(self):
        return f"<Addressed at {id(self):#x}>"


class AddressedInCapitals:
    def __repr__(self):
        return f"<Addressed at 0x{0xFEDCBA98:X}>"


class Silent:
    def __init__(self):
        self.lock = threading.Lock()


class Table2D:
    """As numpy and pandas: their text is shortened, their attributes are not theirs."""

    def __init__(self):
        self.secret = "a secret"

    def __array__(self): ...


class Money:
    def __init__(self, amount, currency):
        self.amount, self.currency, self.lock = amount, currency, threading.Lock()


class Price(Money):
    pass


register_key(Money, lambda money: (money.amount, money.currency))


class Service2:
    def method(self): ...

    @classmethod
    def of_class(cls): ...

    @cache_memoize(60)
    def remembered(self): ...


def function(): ...


def other_function(): ...


def nested():
    def inside(): ...

    return inside


def zone_from_a_file(offset):
    head = b"TZif" + bytes(16) + struct.pack(">6l", 0, 0, 0, 0, 1, 4)
    return zoneinfo.ZoneInfo.from_file(
        io.BytesIO(head + struct.pack(">lbb", offset, 0, 0) + b"CET\0")
    )


def made(cls, *args, **attributes):
    value = cls(*args)
    vars(value).update(attributes)
    return value


# --- every type, decided one by one --------------------------------------------------


def different():
    """Values that are all different calls, by kind."""
    return {
        "None": [None, "None", "N", ()],
        "bool": [True, False, "True", "T", "F"],
        "int": [
            1,
            0,
            -1,
            10,
            16,
            "1",
            "i1;",
            2**64,
            10**5_000,
            10**5_000 + 1,
            -(10**5_000),
        ],
        "float": [
            1.0,
            0.0,
            -0.0,
            float("nan"),
            math.inf,
            -math.inf,
            0.1 + 0.2,
            0.3,
            5e-324,
        ],
        "complex": [
            1 + 0j,
            complex(0.0, 0.0),
            complex(0.0, -0.0),
            complex(-0.0, 0.0),
            1j,
        ],
        "str": [
            "",
            "a",
            "a\0",
            "\0a",
            "a:b",
            "s1:a",
            "e\u0301",
            "\u00e9",
            "\ud83d",
            "\ud83d\ude00",
            "\U0001f600",
            "a" * 300,
            "a\nb",
        ],
        "bytes": [
            b"",
            b"1",
            b"a\0",
            b"\xff",
            b"b1:1",
            bytearray(b"1"),
        ],
        "tuple": [
            (1,),
            (1, 2),
            (2, 1),
            ((1,), 2),
            (1, (2,)),
            ((1, 2),),
            ("a:b",),
            ("a", "b"),
            ("",),
            ("", ""),
            (None,),
        ],
        "list": [[], [1], [1, 2], [2, 1], [[1, 2]]],
        "set": [
            set(),
            {1, 2},
            {"1", 2},
            {(1, 2)},
            frozenset(),
            frozenset({1, 2}),
            frozenset({frozenset({1}), frozenset({2})}),
            frozenset({frozenset({1, 2})}),
        ],
        "dict": [
            {},
            {1: 2},
            {2: 1},
            {True: 2},
            {"1": 2},
            {1: {2: 3}},
            {1: 2, 3: 4},
            {1: 4, 3: 2},
            [(1, 2)],
            types.MappingProxyType({1: 2}),
        ],
        "subclasses of built-ins": [
            Text("1"),
            Slug("1"),
            SafeString("1"),
            made(Text, "1", lang="de"),
            made(Text, "1", lang="en"),
            Whole(1),
            made(Whole, 1, unit="m"),
            Real(1.0),
            Real("-0.0"),
            Raw(b"1"),
            Raw(b"2"),
            Row([1]),
            made(Row, [1], total=5),
            Couple((1,)),
            Bag({1}),
            Bag({2}),
            FrozenBag({1}),
            FrozenBag({2}),
            Table({1: 2}),
            made(Table, {1: 2}, name="t"),
            collections.Counter("aab"),
            collections.Counter("abb"),
        ],
        "collections": [
            collections.OrderedDict([(1, 2), (3, 4)]),
            collections.OrderedDict([(3, 4), (1, 2)]),
            collections.defaultdict(int, {1: 2}),
            collections.defaultdict(list, {1: 2}),
            collections.defaultdict(None, {1: 2}),
            collections.deque([1, 2]),
            collections.deque([2, 1]),
            collections.deque([1, 2], 5),
            collections.ChainMap({1: 2}),
            collections.UserDict({1: 2}),
            array.array("i", [1, 2]),
            array.array("l", [1, 2]),
            array.array("i", [2, 1]),
            types.SimpleNamespace(a=1),
            types.SimpleNamespace(a=2),
        ],
        "range": [range(3), range(1, 3), range(0, 3, 2)],
        "slice": [slice(3), slice(0, 3), slice(0, 3, 1)],
        "singletons": [...],
        "Decimal": [
            decimal.Decimal("1"),
            decimal.Decimal("1.0"),
            decimal.Decimal("-0"),
            decimal.Decimal("0"),
            decimal.Decimal("NaN"),
            decimal.Decimal("sNaN"),
            decimal.Decimal("1E+400"),
        ],
        "Fraction": [fractions.Fraction(1, 2), fractions.Fraction(2, 1)],
        "UUID": [uuid.UUID(int=1), uuid.UUID(int=2)],
        "date": [
            datetime.date(2026, 1, 2),
            datetime.date(2026, 2, 1),
            "2026-01-02",
        ],
        "datetime": [
            datetime.datetime(2026, 1, 2),
            datetime.datetime(2026, 1, 2, 0, 0, 0, 1),
            datetime.datetime(2026, 1, 2, fold=1),
            datetime.datetime(2026, 1, 2, tzinfo=UTC),
            datetime.datetime(2026, 1, 2, tzinfo=zoneinfo.ZoneInfo("UTC")),
            datetime.datetime(2026, 1, 2, 1, tzinfo=CET),
            datetime.datetime(2026, 1, 2, 1, tzinfo=BERLIN),
            datetime.datetime(2026, 10, 25, 2, 30, tzinfo=BERLIN),
            datetime.datetime(2026, 10, 25, 2, 30, tzinfo=BERLIN, fold=1),
        ],
        "time": [
            datetime.time(1, 2),
            datetime.time(1, 2, 0, 1),
            datetime.time(1, 2, fold=1),
            datetime.time(1, 2, tzinfo=UTC),
            datetime.time(1, 2, tzinfo=CET),
        ],
        "timedelta": [
            datetime.timedelta(1),
            datetime.timedelta(0, 1),
            datetime.timedelta(0, 0, 1),
            datetime.timedelta(-1),
        ],
        "time zone": [
            UTC,
            CET,
            datetime.timezone(datetime.timedelta(hours=1), "CET"),
            BERLIN,
            zoneinfo.ZoneInfo("Europe/Paris"),
        ],
        "Path": [
            pathlib.PurePosixPath("a"),
            pathlib.PureWindowsPath("a"),
            pathlib.Path("a"),
            pathlib.Path("/a"),
            pathlib.Path("b"),
        ],
        "regular expression": [
            re.compile("a"),
            re.compile("a", re.IGNORECASE),
            re.compile(b"a"),
        ],
        "Enum": [
            Colour.RED,
            Colour.GREEN,
            Size.RED,
            Level.LOW,
            Level.HIGH,
            Access.READ,
            Access.READ | Access.WRITE,
            Access(0),
            Unsure.READ,
            Unsure(8),
            Unsure(16),
        ],
        "named tuple": [
            Pair(1, 2),
            Pair(2, 1),
            Twins(1, 2),
        ],
        "dataclass": [
            Point(1, 2),
            Point(2, 1),
            Fixed(1, 2),
            Slim(1, 2),
            Slim(2, 1),
            Slim(Slim(1, 2)),
        ],
        "slots": [
            Slotted(1),
            Slotted(2),
            Slotted(1, x=None),
            Slotted(1, x=2),
            SlottedChild(1, x=2),
            SlottedChild(1, x=2, y=3),
            SlottedChild(1, y=2),
        ],
        "object": [
            Plain(a=1),
            Plain(a=2),
            Plain(b=1),
            Plain(a=1, b=2),
            OtherPlain(a=1),
            Plain(a=Plain(a=1)),
        ],
        "service": [Service(), OtherService()],
        "text of its own": [
            Worded("a"),
            Worded("b"),
            WordedByStr("a"),
            WordedByStr("b"),
        ],
        "class": [Plain, OtherPlain, int, Post],
        "generic": [list[int], list[str], set[int], list],
        "module": [math, re],
        "function": [
            function,
            other_function,
            Service2().remembered,
            len,
            math.sqrt,
            "a".upper,
            "b".upper,
            "a".lower,
            dict.fromkeys,
            collections.OrderedDict.fromkeys,
            Service2.method,
            Service2().method,
        ],
        "partial": [
            functools.partial(function),
            functools.partial(other_function),
            functools.partial(function, 1),
            functools.partial(function, a=1),
        ],
        "exception": [
            ValueError("a"),
            ValueError("b"),
            TypeError("a"),
            made(ValueError, "a", code=1),
        ],
        "model": [
            Post(pk=1),
            Post(pk=2),
            Tag(pk=1),
            Post(pk="a"),
        ],
        "registered": [
            Money(1, "EUR"),
            Money(1, "USD"),
            Price(1, "EUR"),
        ],
    }


DIFFERENT = different()
EVERY = list(itertools.chain.from_iterable(DIFFERENT.values()))


@pytest.mark.parametrize("kind", DIFFERENT)
def test_values_of_one_kind_differ_and_made_again_are_the_same(kind):
    texts = [encode(value) for value in DIFFERENT[kind]]
    assert len(set(texts)) == len(texts)
    # Not being the same object makes no difference.
    assert texts == [encode(value) for value in different()[kind]]


def test_values_of_any_two_kinds_differ_and_none_begins_another():
    """So they can stand side by side, and nobody can write one into another."""
    texts = sorted(set(map(encode, EVERY)))
    assert len(texts) == len(EVERY)
    for one, after in itertools.pairwise(texts):  # sorted: a prefix comes just before
        assert not after.startswith(one)


def test_one_two_three_spellings_of_one_are_five_values():
    """The classic: f(1), f("1"), f(1.0), f(True), f(b"1") and f(None), f("None")."""
    values = [1, "1", 1.0, True, b"1", None, "None"]
    assert len(set(map(encode, values))) == len(values)


def test_no_character_ends_a_string_before_its_end():
    for number in range(0x180):
        longer = f"a{chr(number)}"
        assert not encode(longer).startswith(encode("a"))
        assert not encode(longer.encode()).startswith(encode(b"a"))
        forged = f"{longer}{encode('')[0]}b"
        assert encode((forged,)) != encode(("a", "b"))


def test_nan_is_nan_whatever_its_bits():
    weird = struct.unpack("<d", struct.pack("<Q", 0xFFF8_0000_0000_0001))[0]
    assert encode(weird) == encode(math.nan) == encode(math.inf - math.inf)


def test_an_integer_of_any_size_is_written_in_spite_of_the_limit_for_decimals():
    with pytest.raises(ValueError, match="4300"):
        str(10**5_000)
    assert encode(10**5_000) != encode(10**5_000 + 1)


@pytest.mark.parametrize("kind", [set, frozenset, Bag, FrozenBag])
def test_a_set_does_not_depend_on_order(kind):
    # 0, 8, 16 fall into one place of a small hash table: the first to come sits there.
    forth, back = kind([0, 8, 16, "a"]), kind(["a", 16, 8, 0])
    assert list(forth) != list(back)
    assert encode(forth) == encode(back)


def test_members_that_do_not_compare_are_no_trouble():
    assert encode({1, "a", None, (1, "a")}) == encode({(1, "a"), None, "a", 1})
    assert encode({1: "a", "b": 2}) == encode({"b": 2, 1: "a"})


@pytest.mark.parametrize("kind", [dict, Table, types.MappingProxyType])
def test_a_dict_does_not_depend_on_order(kind):
    assert encode(kind({1: 2, 3: 4})) == encode(kind({3: 4, 1: 2}))


def test_attributes_do_not_depend_on_the_order_in_which_they_were_set():
    assert encode(Plain(a=1, b=2)) == encode(Plain(b=2, a=1))


class Liar(str):
    def __str__(self):
        return "always the same"

    __repr__ = __format__ = __str__


def test_a_subclass_cannot_lie_about_its_content():
    assert str(Liar("a")) == str(Liar("b"))
    assert encode(Liar("a")) != encode(Liar("b"))


class Operation(enum.Enum):
    """Members whose values could not be part of a key."""

    ADD = object()
    LOCK = threading.Lock()


def test_an_enum_member_is_its_name_whatever_its_value():
    assert encode(Operation.ADD) != encode(Operation.LOCK)


def test_an_enum_alias_is_the_member():
    assert encode(Colour.CRIMSON) == encode(Colour.RED)


def test_a_flag_without_a_name_is_its_value():
    assert Access(0).name is None
    assert encode(Access(0)) == encode(Access.READ & Access.WRITE)


def test_a_uuid_is_its_number_whoever_made_it():
    safe = uuid.UUID(int=1, is_safe=uuid.SafeUUID.safe)
    assert encode(safe) == encode(uuid.UUID(int=1))


def test_what_a_cached_property_left_behind_does_not_count():
    used = Lazybones(2)
    assert (used.area, used.volume) == (4, 8)
    assert vars(used).keys() == {"width", "area", "volume"}
    assert encode(used) == encode(Lazybones(2)) != encode(Lazybones(4))
    shouted = LazyText("a")
    assert shouted.shouted == "A"
    assert encode(shouted) == encode(LazyText("a"))


def test_a_service_object_is_its_class_in_every_process():
    assert encode(Service()) == encode(Service()) != encode(OtherService())


def test_an_object_without_attributes_is_its_text():
    assert encode(Worded("a")) == encode(Worded("a")) != encode(Worded("b"))
    # __repr__ may be equal where __str__ tells them apart, and the other way round.
    assert encode(WordedByStr("a")) != encode(WordedByStr("b"))


# --- models and Django's lazy objects ------------------------------------------------


def test_a_model_instance_is_its_model_and_primary_key():
    """Whatever its other fields and its text say."""
    assert encode(Post(pk=1, title="a")) == encode(Post(pk=1, title="b"))
    assert str(Post(pk=1)) == str(Post(pk=2)) == str(Tag(pk=1))
    assert len({encode(Post(pk=1)), encode(Post(pk=2)), encode(Tag(pk=1))}) == 3


def test_a_proxy_and_a_deferred_instance_are_the_same_row():
    deferred = Post.from_db("default", ["id"], [1])
    assert deferred.get_deferred_fields() == {"title"}
    assert encode(SpecialPost(pk=1)) == encode(Post(pk=1)) == encode(deferred)


def test_the_database_alias_does_not_count():
    """A row read from a replica is the same row, and invalidate() must find it."""
    replica = Post.from_db("replica", ["id", "title"], [1, "a"])
    assert replica._state.db == "replica"
    assert encode(replica) == encode(Post(pk=1))


def test_what_is_set_on_an_instance_does_not_count():
    """An annotation or a prefetched relation comes and goes with the query."""
    assert encode(made(Post, 1, comments=5)) == encode(Post(pk=1))


def test_a_lazy_object_is_what_it_wraps():
    """request.user is the user: f(request.user) and f(user) are one call."""
    user = SimpleLazyObject(lambda: Post(pk=1))
    assert encode(user) == encode(Post(pk=1)) == encode(user)
    assert encode(SimpleLazyObject(lambda: "1")) == encode("1") != encode(1)


def test_a_lazy_translation_is_its_text_in_the_language_of_now():
    month = gettext_lazy("January")
    with translation.override("en"):
        english = encode(month)
        assert english == encode(gettext_lazy("January"))
    with translation.override("de"):
        assert encode(month) == encode(gettext_lazy("January")) != english


# --- refused -------------------------------------------------------------------------


def refusal(value, reason=None):
    """The error of a call with ``value``, after a look at all that it has to say."""

    def fetch(argument): ...

    key_of = key_maker(Binder(fetch, "blog.fetch"), "prefix")
    with pytest.raises(UnkeyableArgument, match=reason) as caught:
        key_of((value,), {})
    error, message = caught.value, str(caught.value)
    assert isinstance(error, TypeError)
    assert (error.function, error.parameter) == ("blog.fetch", "argument")
    assert message.startswith(
        f"blog.fetch(): the argument 'argument' of type {error.type_name}"
    )
    assert error.reason in message
    for cure in ("ignore=('argument',)", "args_rewrite=", "an id"):
        assert cure in message
    taught = f"register_key({error.teachable}, function)" in message
    assert taught == (error.teachable is not None)
    assert "secret" not in message
    return error


REFUSED = {
    "lambda": (lambda: lambda: "secret", "a lambda"),
    "nested function": (nested, "inside a function"),
    "nested class": (lambda: types.new_class("x.<locals>.secret"), "inside a function"),
    "bare object": (object, "its address"),
    "array": (Table2D, "an array or table may keep data that no attribute shows"),
    "lock": (threading.Lock, "state that no attribute shows"),
    "generator": (lambda: (x for x in "secret"), "state that no attribute shows"),
    "iterator": (lambda: iter(["secret"]), "state that no attribute shows"),
    "buffer": (lambda: io.BytesIO(b"secret"), "state that no attribute shows"),
    "view": ({"secret": 1}.keys, "state that no attribute shows"),
    "memoryview": (lambda: memoryview(b"secret"), "state that no attribute shows"),
    "object with a lock": (Silent, "state that no attribute shows"),
    "text beside a lock": (lambda: Locked("secret"), "state that no attribute shows"),
    "text with an address": (Addressed, "a memory address"),
    "in capitals": (AddressedInCapitals, "a memory address"),
    "method of a locked": (lambda: Silent().__init__, "state that no attribute shows"),
    "subclass with a lock": (
        lambda: made(Text, "secret", lock=threading.Lock()),
        "state that no attribute shows",
    ),
    "request": (HttpRequest, "not the user"),
    "request of a server": (
        lambda: RequestFactory().get("/secret/"),
        "a request names a URL but not the user, the language or the session",
    ),
    "query set": (lambda: Post.objects.filter(title="secret"), "a query, not a value"),
    "values of a query set": (lambda: Post.objects.values("pk"), "a query"),
    "manager": (lambda: Post.objects, "makes queries"),
    "unsaved model": (
        lambda: Post(title="secret"),
        "unsaved model instance has no identity",
    ),
    "unsaved user": (lambda: SimpleLazyObject(lambda: Post()), "has no identity"),
    "time zone from a file": (lambda: zone_from_a_file(3600), "has no name"),
}


#: Where a part of the value is refused: its path, and the type of the part.
INSIDE = {
    "object with a lock": "argument.lock has the type _thread.lock, and it holds",
    "method of a locked": "argument.lock has the type _thread.lock",
    "subclass with a lock": r"argument\[...\] has the type _thread.lock",
    "unsaved user": "argument has the type .*Post, and an unsaved",
    "text beside a lock": "argument.lock has the type _thread.lock",
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_told_apart_is_refused_with_the_cure(name):
    make, reason = REFUSED[name]
    value = make()
    error = refusal(value, reason)
    assert error.type_name == encoding.class_name(type(value))
    assert re.search(INSIDE.get(name, "^(?!argument)"), error.reason)


@pytest.mark.parametrize("wrap", [lambda v: v, lambda v: [v], lambda v: Plain(a=v)])
@pytest.mark.parametrize("name", REFUSED)
def test_the_cures_that_an_error_names_work(monkeypatch, name, wrap):
    def fetch(argument): ...

    value = wrap(REFUSED[name][0]())
    with pytest.raises(UnkeyableArgument) as caught:
        key_maker(Binder(fetch, "fetch"), "p")((value,), {})
    said = str(caught.value)
    [ignore] = re.findall(r"ignore=\('(\w+)',\)", said)
    assert key_maker(Binder(fetch, "fetch", (ignore,)), "p")((value,), {})
    assert key_maker(Binder(fetch, "fetch"), "p", KeyParts(args_rewrite=id))(
        (value,), {}
    )
    assert key_maker(Binder(fetch, "fetch"), "p")((5,), {})
    taught = re.findall(r"register_key\(([\w.]+), function\)", said)
    # Before Python 3.13, no module has the class of locks.
    unnamed = ("builtins.", "_thread.")
    assert taught or caught.value.type_name.startswith(unnamed)
    for each in taught:
        cls = type(value)  # of a class that is made in a function, its own name
        if "." in each:
            cls = pkgutil.resolve_name(each)
        assert issubclass(type(value), cls) and cls.__name__ == each.rsplit(".", 1)[-1]
        monkeypatch.setattr("cache_memoize.keys.encoding._REGISTERED", {})
        monkeypatch.setattr("cache_memoize.keys.encoding._writers", {})
        register_key(cls, id)
        assert key_maker(Binder(fetch, "fetch"), "p")((value,), {})


def local_class():
    class Zone(datetime.tzinfo):
        pass

    class Inner:
        pass

    Odd = type("Europe/Berlin", (), {"__module__": "zones", "__qualname__": "x/y"})
    return Zone(), Inner(), Odd()


def test_a_class_without_a_name_is_taught_by_its_base_or_where_it_is_made():
    found = [refusal(value).teachable for value in local_class()]
    assert found == ["datetime.tzinfo", "Inner", None]


class Holder:
    def __init__(self, client):
        self.client = client


def service_in_a_ring():
    service = Holder([Holder(None)])
    service.client[0].client = service
    return service


PATHS = {
    "argument.client._lock": lambda: Holder(Plain(_lock=threading.Lock())),
    "argument.client[1].x": lambda: Holder([1, Plain(x=object())]),
    "argument[...].client": lambda: {"secret": Holder(lambda: 1)},
    "argument[...]": lambda: types.MappingProxyType({"secret": object()}),
    "argument[0]": lambda: functools.partial(len, object()),
    "argument.client[0].client contains itself": service_in_a_ring,
    "argument" + "[0]" * 19: lambda: functools.reduce(
        lambda inner, _: [inner], range(100), object()
    ),
}


@pytest.mark.parametrize("path", PATHS)
def test_the_path_to_the_refused_part_is_named(path):
    value = PATHS[path]()
    error = refusal(value)
    assert error.reason.startswith(path)
    assert error.type_name == encoding.class_name(type(value))


def test_the_parts_of_a_registered_type_are_named_too(monkeypatch):
    monkeypatch.setattr("cache_memoize.keys.encoding._REGISTERED", {})
    monkeypatch.setattr("cache_memoize.keys.encoding._writers", {})
    register_key(Holder, lambda service: (1, service.client))
    assert refusal(Holder(object())).reason.startswith("argument has the type builtins")


@pytest.mark.parametrize("pseudo", ["extra=", "args_rewrite=", "vary_on="])
def test_what_an_option_returns_cannot_be_ignored(pseudo):
    of = ("shop.Basket", "reason", "f", pseudo, "argument", "shop.Basket")
    said = str(UnkeyableArgument(*of))
    assert said == (
        f"f(): the argument '{pseudo}' of type shop.Basket cannot be part of a cache "
        "key: reason. Cure: pass something plain in its place (an id, for instance); "
        "or teach its type to the library with "
        "cache_memoize.register_key(shop.Basket, function)."
    )


@pytest.mark.parametrize("name", ["self", "cls"])
def test_the_object_of_a_method_is_given(name):
    said = str(UnkeyableArgument("shop.Basket", "reason", "f", name))
    assert "Cure: describe it with args_rewrite=; or leave it out" in said
    assert f"ignore=('{name}',)" in said


class HttpView(View):
    @cache_memoize(60)
    def total(self, x): ...


def test_a_view_is_refused_before_it_holds_a_request():
    with pytest.raises(UnkeyableArgument, match="memoize a function that the view"):
        HttpView().total(1)


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize(
    "wrap", [lambda v: [v], lambda v: {"a": (v,)}, lambda v: Plain(a=v)]
)
def test_however_deep_it_lies(name, wrap):
    refusal(wrap(REFUSED[name][0]()))


def test_an_open_file_is_refused():
    with pathlib.Path(__file__).open() as file:
        refusal(file, "state that no attribute shows")
    with pathlib.Path(__file__).open("rb", buffering=0) as file:
        refusal(file)


def test_what_contains_itself_is_refused():
    endless = []
    endless.append(endless)
    refusal(endless, r"argument\[0\] contains itself")
    ring = Plain()
    ring.ring = ring
    refusal(ring, "contains itself")


def test_a_refusal_of_a_value_alone_says_so():
    with pytest.raises(UnkeyableArgument, match="^a value of type builtins.object"):
        encode(object())


def test_a_refusal_travels_between_processes():
    error = refusal(object())
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == str(error) and vars(again) == vars(error)
    alone = UnkeyableArgument(error.type_name, error.reason, "blog.fetch", "argument")
    assert error.args == alone.args == tuple(vars(error).values())


# --- register_key --------------------------------------------------------------------


def test_a_registered_type_is_what_its_function_says():
    """And comes before every rule of the library; subclasses are types of their own."""
    assert encode(Money(1, "EUR")) == encode(Money(1, "EUR"))
    texts = [encode(Money(1, "EUR")), encode(Price(1, "EUR")), encode(Money(1, "USD"))]
    assert len(set(texts)) == 3


class Weekday(enum.Enum):
    MONDAY = 1
    SUNDAY = 7


class Grid(Table2D):
    pass


class Remembered(SimpleLazyObject):
    pass


class Tags(list):
    pass


@pytest.mark.parametrize("given", [(5, str), (Grid(), str), (Grid, "x"), ("Grid", str)])
def test_register_key_takes_a_class_and_a_function(given):
    with pytest.raises(TypeError, match="register_key takes a class and a function"):
        register_key(*given)


def test_register_key_comes_before_every_rule():
    """Before enums, subclasses of built-ins, arrays and lazy objects."""
    register_key(Grid, lambda grid: "grid")
    register_key(Remembered, lambda lazy_object: "not loaded")
    register_key(Tags, lambda tags: frozenset(tags))
    register_key(Weekday, lambda day: day is Weekday.SUNDAY)
    assert encode(Grid()) == encode(Grid())
    assert encode(Remembered(nested)) == encode(Remembered(function))
    assert encode(Tags("ab")) == encode(Tags("ba"))
    assert encode(Weekday.MONDAY) != encode(Weekday.SUNDAY)


class Base:
    pass


class Near(Base):
    pass


class Child(Near):
    pass


def test_the_nearest_registered_class_counts():
    register_key(Base, lambda value: object())
    register_key(Near, lambda value: 1)
    assert encode(Child()) == encode(Child())
    refusal(Base())


def test_registering_again_replaces_the_rule():
    register_key(Child, lambda value: 1)
    before = encode(Child())
    register_key(Child, lambda value: 2)
    assert encode(Child()) != before


def service_of(tenant):
    class Tenant:
        def name(self):
            return tenant

    return Tenant()


def test_objects_of_classes_made_by_a_function_are_not_taken_for_each_other():
    """Their class has no name that leads to it; register_key does not change that."""
    one, other = service_of("one"), service_of("other")
    assert one.name() != other.name()
    for value in (one, other):
        refusal(value, "made inside a function")


def twice(original):
    @functools.wraps(original)
    def wrapper(): ...

    return wrapper


decorated = twice(other_function)


@twice
def in_its_place(): ...


def test_a_function_that_only_bears_the_name_of_another_is_refused():
    assert told_apart(function, twice(function))
    assert told_apart(other_function, decorated)
    assert encode(in_its_place) == encode(in_its_place)


def test_a_file_is_refused_not_taken_by_its_name():
    refusal(ContentFile(b"secret", name="a.txt"), "a file is more than its name")


# --- nothing is lost ------------------------------------------------------------------


class Odd(collections.OrderedDict):
    pass


class Amount(decimal.Decimal):
    pass


class Stamp(datetime.datetime):
    pass


class Ring(collections.deque):
    pass


class Bound(functools.partial):
    pass


HIDDEN = {
    "OSError.filename": [OSError(2, "gone", "a"), OSError(2, "gone", "b")],
    "ImportError.name": [ImportError("no", name="a"), ImportError("no", name="b")],
    "struct_time.tm_zone": [
        time.struct_time((2026,) * 9 + ("CET", 3600)),
        time.struct_time((2026,) * 9 + ("EST", -18000)),
    ],
    "stat_result.st_mtime_ns": [
        os.stat_result(range(10), {"st_mtime_ns": 1}),
        os.stat_result(range(10), {"st_mtime_ns": 2}),
    ],
    "OrderedDict": [made(Odd, x=1), made(Odd, x=2)],
    "Decimal": [made(Amount, 1, currency="EUR"), made(Amount, 1, currency="USD")],
    "datetime": [made(Stamp, 2026, 1, 1, x=1), made(Stamp, 2026, 1, 1, x=2)],
    "deque": [made(Ring, x=1), made(Ring, x=2)],
    "partial": [made(Bound, function, x=1), made(Bound, function, x=2)],
}


def told_apart(one, other):
    """Whether they have two texts, or at least one of them is refused."""
    texts = set()
    with contextlib.suppress(UnkeyableArgument):
        texts = {encode(one), encode(other)}
    return len(texts) != 1


@pytest.mark.parametrize("name", HIDDEN)
def test_nothing_that_a_value_holds_is_lost(name):
    """A subclass's own attributes and what C keeps count, or the value is refused."""
    assert told_apart(*HIDDEN[name])


# --- known to be wrong ---------------------------------------------------------------


def test_a_lazy_number_is_not_its_text():
    assert told_apart(lazy(lambda: 1, int)(), lazy(lambda: "1", str)())
    error = refusal(lazy(lambda: 1, int)(), "it is lazy and no text; pass its result")
    assert error.type_name.endswith("__proxy__")


def test_a_class_method_is_an_argument_like_any_method():
    assert encode(Service2.of_class) != encode(Service2().method)


def test_an_exception_has_the_same_text_after_its_attributes_were_read():
    error = ValueError("a")
    before = encode(error)
    assert vars(error) == {} and encode(error) == before
    error.code = 1
    assert encode(error) != before


def test_a_raw_query_is_refused_like_any_query():
    refusal(Post.objects.raw("SELECT 1"))


@pytest.mark.skipif(django.VERSION < (5, 2), reason="composite keys came with 5.2")
def test_a_model_with_half_a_composite_key_is_refused():
    with isolate_apps("tests"):

        class Seat(models.Model):
            pk = models.CompositePrimaryKey("row", "number")
            row = models.IntegerField()
            number = models.IntegerField()

            class Meta:
                app_label = "tests"

    assert encode(Seat(row=1, number=2)) != encode(Seat(row=2, number=1))
    refusal(Seat(number=1), "has no identity")


class Leaf:
    pass


def test_an_object_is_written_once_however_deep_it_lies():
    """Twice per level would be a million times at the twentieth."""
    written = []

    register_key(Leaf, lambda leaf: written.append(1))
    value = Leaf()
    for _ in range(8):
        value = Plain(inner=value)
    encode(value)
    assert len(written) == 1


@pytest.mark.parametrize("plain", [float, str, dict, type(None)])
def test_registering_a_plain_type_is_refused_with_the_cure(plain):
    """And not ignored in silence."""
    with pytest.raises(
        TypeError, match=f"the encoding of {plain.__name__} is fixed; regist"
    ):
        register_key(plain, round)


class Proxy:
    """Answers to every name, as boxes, mocks and remote proxies do."""

    __slots__ = ("x",)

    def __getattr__(self, name):
        return 5


def test_an_object_that_answers_to_every_name_is_keyed_or_refused():
    with contextlib.suppress(UnkeyableArgument):
        assert encode(Proxy()) == encode(Proxy())


# --- the text around it --------------------------------------------------------------


def test_a_digest_is_160_bits_of_sha_256_of_all_that_went_in():
    assert re.fullmatch("[A-Za-z0-9+/]{28}", digest("head")("text"))
    texts = [digest("head")("text"), digest("heads")("text"), digest("head")("texts")]
    assert len({*texts, digest("headt")("ext")}) == 4


def test_the_head_cannot_run_into_the_text():
    assert digest("ab")("c") != digest("a")("bc") != digest("")("abc")


def test_a_digest_takes_every_character_that_python_has():
    texts = ["\0", "\ud83d\ude00", "\U0001f600", "\udfff", ""]
    assert len(set(map(digest(""), texts))) == len(texts)
    assert digest("\ud83d")("") != digest("\ud83e")("")


def test_a_digest_can_be_used_again_and_again():
    of = digest("head")
    assert of("a") == of("a") != of("b")


def test_a_label_is_legal_on_memcached_and_keeps_what_a_person_recognises():
    assert label("blog.Views.FRONT-page_2") == "blog.Views.FRONT-page_2"
    assert label("café.<locals>.f g\n\0\x7f") == "caf_._locals_.f_g___"
    assert label("x" * 100 + ".the_end") == ("x" * 100 + ".the_end")[-60:]


def test_slots_count_beside_a_dictionary():
    texts = set()
    for x, more in itertools.product((1, 2), (1, 2)):
        texts.add(encode(SlottedChild(0, x=x, more=more)))
    assert len(texts) == 4


# --- what was written once -----------------------------------------------------------

#: Every entry of a running site stands under such texts.
WRITTEN = [
    ((None, True, False), "l19:(None, True, False)"),
    ([1, -1, 255], "l12:[1, -1, 255]"),
    ((1.5, -0.0, math.nan), "l16:(1.5, -0.0, nan)"),
    (["a\u00e9", b"'"], "l15:['a\\xe9', b\"'\"]"),
    ((1, (2,), [[]]), "(i1;l4:(2,)[l2:[]))"),
    (True, "T"),
    (False, "F"),
    ([10**5000], f"[i{10**5000:x};)"),
    (["a" * 3996], f"l4000:['{'a' * 3996}']"),
    (["a" * 3997], f"[s3997:{'a' * 3997})"),
    ("a\u00e9", "s2:a\u00e9"),
    (b"a\xff", "b2:a\u00ff"),
    ({"b", "a"}, "{s1:as1:b)"),
    (frozenset({2, 1}), "<i1;i2;)"),
    ({"b": 1, "a": (2,)}, "ds1:al4:(2,)s1:bi1;)"),
    (..., "os17:builtins.ellipsisN"),
    (Text("a"), "os20:tests.test_keys.Text(s1:ad))"),
    (Colour.RED, "os22:tests.test_keys.Colours3:RED"),
    (len, "os35:builtins.builtin_function_or_methods12:builtins.len"),
    (decimal.Decimal("1.0"), "os15:decimal.Decimals3:1.0"),
    (Slim(1, 2), "os20:tests.test_keys.Slimds1:xi1;s1:yi2;)"),
    (Plain(a=1), "os21:tests.test_keys.Plainds1:ai1;)"),
    (Post(pk=1), "m(s10:tests.Posti1;)"),
    (gettext_lazy("a"), "zs1:a"),
]


@pytest.mark.parametrize("value, text", WRITTEN, ids=lambda value: type(value).__name__)
def test_a_release_writes_what_the_one_before_wrote(value, text):
    """Else an upgrade starts with a cold cache: on purpose only, and never unsaid."""
    assert encode(value) == text


# --- properties ----------------------------------------------------------------------

#: What is easily taken for something else.
CONFUSABLE = [None, True, False, 0, 1, -1, 16, 0.0, -0.0, 1.0, math.nan, math.inf]
CONFUSABLE += ["", "0", "1", "N", "T", "i1;", "s1:1", ")", "(", "a:b", "\0", "\udc80"]
CONFUSABLE += [b"", b"1", (), frozenset(), 2**100, 1 + 0j, complex(0, -0.0)]
CONFUSABLE += [Text("1"), Whole(1), Real(1), Raw(b"1"), Couple(), FrozenBag()]
CONFUSABLE += [decimal.Decimal("1"), decimal.Decimal("1.0"), fractions.Fraction(1)]
CONFUSABLE += [*Colour, *Size, *Level, *Access, Access(0), Pair(1, 2), Twins(1, 2)]
CONFUSABLE += [pathlib.PurePosixPath("1"), pathlib.PureWindowsPath("1"), range(1)]
CONFUSABLE += [Post(pk=1), SpecialPost(pk=1), Tag(pk=1), Post(pk=2), int, str, len]
CONFUSABLE += [uuid.UUID(int=1), datetime.date(2026, 1, 1), datetime.timedelta(1)]
CONFUSABLE += [UTC, CET, datetime.timezone(datetime.timedelta(hours=1), "CET"), BERLIN]

ZONES = st.sampled_from([None, UTC, CET, BERLIN, zoneinfo.ZoneInfo("UTC")])
LEAVES = st.one_of(
    st.sampled_from(CONFUSABLE),
    st.sampled_from(CONFUSABLE).map(encode),  # strings that try to be something else
    st.integers(),
    st.floats(),
    st.text(st.characters(exclude_categories=()), max_size=5),
    st.binary(max_size=3),
    st.complex_numbers(),
    st.decimals(allow_nan=False),
    st.fractions(),
    st.dates(),
    st.datetimes(timezones=ZONES),
    st.times(timezones=ZONES),
    st.timedeltas(),
    st.uuids(),
    st.text("ab/.", max_size=4).map(pathlib.PurePosixPath),
)
HASHABLE = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(tuple),
        st.frozensets(inner, max_size=3),
        st.builds(Pair, inner, inner),
        st.builds(Fixed, inner, inner),
        st.builds(Slim, inner),
    ),
    max_leaves=4,
)
VALUES = st.recursive(
    HASHABLE,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(Row),
        st.lists(inner, max_size=3).map(tuple),
        st.sets(HASHABLE, max_size=3),
        st.dictionaries(HASHABLE, inner, max_size=3),
        st.builds(Point, inner, inner),
        st.builds(Plain, a=inner),
    ),
    max_leaves=6,
)


def same(a, b):
    """Whether two values are the same, with the same types all the way down."""
    if isinstance(a, models.Model) and isinstance(b, models.Model):
        return a._meta.concrete_model is b._meta.concrete_model and same(a.pk, b.pk)
    if type(a) is not type(b):
        return False
    if isinstance(a, enum.Enum):
        return a is b
    if isinstance(a, float):
        signs = math.copysign(1, a) == math.copysign(1, b)
        return (math.isnan(a) and math.isnan(b)) or (float(a) == b and signs)
    if isinstance(a, complex):
        return same(a.real, b.real) and same(a.imag, b.imag)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, (set, frozenset)):
        return same_in_any_order(a, b)
    if isinstance(a, dict):
        return same_in_any_order(a.items(), b.items())
    if isinstance(a, decimal.Decimal):
        return a.as_tuple() == b.as_tuple()
    if isinstance(a, (datetime.datetime, datetime.time)):
        clocks = a.replace(tzinfo=None) == b.replace(tzinfo=None) and a.fold == b.fold
        return clocks and same(a.tzinfo, b.tzinfo)
    if isinstance(a, datetime.timezone):
        return a == b and a.tzname(None) == b.tzname(None)
    if isinstance(a, (Point, Fixed, Slim)):
        return same((a.x, a.y), (b.x, b.y))
    if isinstance(a, Plain):
        return same(vars(a), vars(b))
    return a == b


def same_in_any_order(a, b):
    left = list(b)
    for one in a:
        found = next((i for i, other in enumerate(left) if same(one, other)), None)
        if found is None:
            return False
        del left[found]
    return not left


def again(value):
    """The same value built anew, with its sets and dicts filled the other way round."""
    if type(value) in (list, tuple, Row):
        return type(value)(map(again, value))
    if type(value) in (set, frozenset):
        return type(value)(reversed([again(member) for member in value]))
    if type(value) is dict:
        return {again(k): again(v) for k, v in reversed(value.items())}
    if isinstance(value, (Point, Fixed, Slim)):
        return type(value)(again(value.x), again(value.y))
    if isinstance(value, Plain):
        return Plain(a=again(value.a))
    return copy.copy(value)


@st.composite
def nearly(draw, value):
    """A value that differs from ``value`` in one place, or in its shape only."""
    other = draw(LEAVES)
    if type(value) in (list, tuple, Row) and value:
        place = draw(st.integers(0, len(value)))
        inner = draw(nearly(value[place])) if place < len(value) else other
        new = [*value[:place], inner, *value[place + 1 :]]
        shape = draw(st.sampled_from([list, tuple, Row, lambda v: v[:-1], Plain_of]))
        return draw(st.sampled_from([type(value)(new), shape(value)]))
    if type(value) in (set, frozenset):
        return draw(
            st.sampled_from([{*value, other}, set(value), frozenset(value), [*value]])
        )
    if type(value) is dict:
        return draw(
            st.sampled_from([{**value, other: 1}, [*value.items()], [*value], {}])
        )
    if isinstance(value, (Point, Fixed)):
        kind = draw(st.sampled_from([Point, Fixed]))
        return kind(value.x, draw(nearly(value.y)))
    return other


def Plain_of(values):
    return Plain(a=values)


def check(a, b):
    """One text exactly for what is the same, and none that begins another."""
    one, other = encode(a), encode(b)
    if same(a, b):
        assert one == other
    else:
        assert not one.startswith(other) and not other.startswith(one)


@examples(120)
@given(VALUES)
def test_the_same_value_built_anew_has_the_same_text(value):
    twin = again(value)
    assert same(value, twin)
    assert encode(value) == encode(twin)


@examples(120)
@given(st.lists(VALUES, min_size=2, max_size=4))
def test_two_values_have_one_text_exactly_if_they_are_the_same(values):
    for a, b in itertools.combinations(values, 2):
        check(a, b)


@examples(120)
@given(st.data())
def test_values_that_nearly_are_the_same_are_told_apart(data):
    value = data.draw(VALUES)
    check(value, data.draw(nearly(value)))


@examples(120)
@given(st.lists(LEAVES, max_size=4), st.lists(LEAVES, max_size=4))
def test_texts_can_stand_side_by_side(a, b):
    """Two rows of values that run into each other are the same row."""
    joined = ["".join(map(encode, row)) for row in (a, b)]
    assert (joined[0] == joined[1]) == same(a, b)
    assert len({digest("")(text) for text in joined}) == len(set(joined))


def python(code, **options):
    """What became of ``code`` in a process of its own, with other hashes."""
    seed = "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"
    return subprocess.run(
        [sys.executable, "-c", f"import django; django.setup()\n{code}"],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": seed}
        | {"DJANGO_SETTINGS_MODULE": "tests.settings"},
        capture_output=True,
        timeout=60,
        **options,
    )


@pytest.mark.grows
def test_a_text_is_the_same_in_every_process():
    """Whatever the seed of the hashes: else no two workers would share an entry."""
    values = []

    @example_settings(150)
    @given(VALUES)
    def collect(value):
        values.append(value)

    collect()
    values += DIFFERENT["object"] + DIFFERENT["slots"] + DIFFERENT["Enum"]
    values += [{"a", "b", "c", ("d", "e"), frozenset("fgh")}, {c: {c} for c in "abc"}]
    code = (
        "import pickle, sys, tests.test_keys\n"
        "from cache_memoize.keys.encoding import digest, encode\n"
        "for value in pickle.load(sys.stdin.buffer):\n"
        "    print(digest('')(encode(value)))\n"
    )
    expected = [digest("")(encode(value)) for value in values]
    child = python(code, input=pickle.dumps(values))
    assert child.returncode == 0, child.stderr.decode()
    assert child.stdout.decode().split() == expected


# --- what a class says of itself ------------------------------------------------------


class Rounded(decimal.Decimal):
    def __str__(self):
        return f"{self:.2f}"


class Day(datetime.datetime):
    def isoformat(self, *args):
        return "someday"

    def replace(self, *args, **kwargs):
        return self


class Hour(datetime.time):
    def isoformat(self, *args):
        return "some time"


class Quiet(collections.OrderedDict):
    def items(self):
        return []


@pytest.mark.parametrize(
    "one, other",
    [
        (Rounded("1.001"), Rounded("1.002")),
        (Day(2024, 5, 17), Day(2024, 5, 18)),
        (Hour(12), Hour(13)),
        (Quiet(a=1), Quiet(a=2)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_a_subclass_shows_of_itself_does_not_count(one, other):
    assert encode(one) != encode(other)


def test_a_lazy_value_that_may_be_no_text_is_refused():
    for result in (5, "5"):
        with pytest.raises(UnkeyableArgument, match="may be no text"):
            encode(lazy(lambda result=result: result, str, int)())
    assert encode(lazy(lambda: "5", str, SafeString)()) == encode(lazy(str, str)("5"))


@pytest.mark.parametrize(
    ("kind", "given", "stored"),
    [
        (Post, "5", 5),
        (Post, Whole(5), 5),
        (Post, True, 1),
        (Post, "0", 0),
        (Post, "five", "five"),
        (SpecialPost, "5", 5),
        (Restaurant, "5", 5),
        (Shop, 5, "5"),
        (Shop, SafeString("a"), "a"),
    ],
)
def test_a_row_is_one_argument_in_whatever_form_its_primary_key_is(kind, given, stored):
    assert encode(kind(pk=given)) == encode(kind(pk=stored))
    assert encode(kind(pk=stored)) != encode(kind(pk="6"))


def test_classes_that_django_makes_for_each_text_are_not_kept():
    encode(ngettext_lazy("one", "many", 1))
    before = len(encoding._writers)
    for number in range(20):
        assert encode(ngettext_lazy("one", "many", number))
    assert len(encoding._writers) == before
