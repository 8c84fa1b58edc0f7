"""Classes that were reloaded or patched, and mocks, as arguments."""

from __future__ import annotations

import collections
import copy
import decimal
import functools
import importlib
import re
import sys
import textwrap
import types
import warnings
import weakref
from unittest import mock

import pytest
from django.apps.registry import Apps
from django.db import models

from cache_memoize import UnkeyableArgument, cache_memoize
from cache_memoize.keys import encoding, replaced
from cache_memoize.keys.encoding import encode

SOURCE = """
    import abc, dataclasses, decimal, enum, functools, re, threading, typing
    import pydantic
    from cache_memoize import cache_memoize

    class Base:
        def price(self, item):
            return len(item)

    class Service(Base):
        def __init__(self):
            self.url = "a"

        @cache_memoize(60, cache_alias="locmem")
        def price(self, item):
            return super().price(item)

        @property
        def cheap(self):
            return True

    class Color(enum.Enum):
        RED = 1

    class Shape(abc.ABC):
        sizes = {1: (decimal.Decimal(1), re.compile("a"))}
        lock = threading.Lock()
        class Meta:
            ordering = []
        @abc.abstractmethod
        def draw(self): pass
        @functools.cached_property
        def size(self): return 1

    @dataclasses.dataclass(slots=True)
    class Point:
        x: int = 1
        y: list = dataclasses.field(default_factory=list)

    class Form(pydantic.BaseModel):
        x: list[int] = []

    class Row(typing.NamedTuple):
        x: int = 1

    def discount(item):
        return 1
"""


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write the module ``replaced``."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def write(old="", new=""):
        text = textwrap.dedent(SOURCE)
        assert old in text
        (tmp_path / "replaced.py").write_text(text.replace(old, new))
        importlib.invalidate_caches()

    write()
    yield write
    sys.modules.pop("replaced", None)


@pytest.fixture
def module(write):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the one of another test is still alive
        return importlib.import_module("replaced")


VALUES = [
    lambda module: module.Service,
    lambda module: module.Service(),
    lambda module: module.Color.RED,
    lambda module: module.discount,
    lambda module: [module.Base, {"a": module.discount}],
    lambda module: [module.Shape, module.Point, module.Form, module.Row],
    lambda module: [module.Point(), module.Form(), module.Row()],
    lambda module: module.Service().price,
]


@pytest.mark.parametrize("value", VALUES)
def test_after_a_reload_values_of_before_are_the_same(module, value):
    before = value(module)
    expected = encode(value(module))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        importlib.reload(module)
    encoding._writers = dict(encoding._PLAIN)  # nothing is remembered
    assert encode(before) == expected == encode(value(module))


@pytest.mark.parametrize("is_asked", [True, False])
def test_after_a_reload_methods_with_super_have_one_key(module, is_asked):
    before = module.Service()
    first = before.price.get_cache_key("tea") if is_asked else None
    importlib.reload(module)
    assert before.price("tea") == 3
    key = module.Service().price.get_cache_key("tea")
    assert before.price.get_cache_key("tea") == key and first in (key, None)


@pytest.mark.parametrize(
    "old, new",
    [
        ("return True", "return False"),
        ("return 1", "return 2"),
        ("cheap", "dear"),
        ("super().price(item)", "super().price(item + item)"),
        ("Service(Base)", "Service"),
    ],
)
def test_what_the_reload_has_changed_is_another_thing(module, write, old, new):
    before = {"return 1": module.discount}.get(old, module.Service)
    write(old, new)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # two functions of one name
        importlib.reload(module)
    encoding._writers = dict(encoding._PLAIN)
    with pytest.raises(UnkeyableArgument):
        encode(before)


@pytest.mark.parametrize("autospec", [None, True])
@pytest.mark.parametrize("value", VALUES[:-1])
def test_while_a_name_is_patched_the_real_thing_has_its_key(module, value, autospec):
    real = value(module)
    expected = encode(real)
    encoding._writers = dict(encoding._PLAIN)
    with (
        mock.patch("replaced.Service", autospec=autospec),
        mock.patch("replaced.discount", autospec=autospec),
        mock.patch("replaced.Base", autospec=autospec),
        mock.patch("replaced.Color", autospec=autospec),
    ):
        assert encode(real) == expected


def test_another_class_of_that_name_is_no_such_class(module):
    first = module.Base
    module.Base = type("Base", (), {"__module__": "replaced", "cost": 1})
    with pytest.raises(UnkeyableArgument):
        encode(first)


def scaled(by):
    def decorate(function):
        @functools.wraps(function)
        def scale(x):
            return by * function(x)

        return scale

    return decorate


def price(x):
    return x


euros, dollars = scaled(2)(price), scaled(3)(price)
plain, twice = price, types.FunctionType(price.__code__, globals(), "price", (2,))
price = scaled(1)(price)


def unset(function):
    """Return a function one of whose captured variables is not assigned."""

    @functools.wraps(function)
    def call(x):
        return function(x) + rest

    if function is None:
        rest = 1
    return call


@pytest.mark.parametrize("other", [euros, dollars, twice, unset(plain)])
def test_another_function_of_that_name_is_no_such_function(other):
    """The same code, with other captured variables or defaults."""
    encode(price)
    with pytest.raises(UnkeyableArgument):
        encode(other)


@pytest.mark.parametrize(
    "one, other",
    [
        *((1, 2), (1, True), ("a", None), ([1], [2]), (int, str), ((int,), (str,))),
        *(([[1], [2]], [[1]] * 2), ([[1]] * 2, [[1], [2]])),  # one list twice, and two
    ],
)
def test_classes_of_one_name_differ_by_their_attributes(monkeypatch, one, other):
    first, second = (
        type("Row", (), {"__module__": __name__, "table": each})
        for each in (one, other)
    )
    monkeypatch.setitem(globals(), "Row", first)
    encode(first)
    for value in (second, second()):
        with pytest.raises(UnkeyableArgument):
            encode(value)


class Config:
    def __init__(self, x):
        self.x = x


class Slotted:
    __slots__ = ("x",)

    def __init__(self, x):
        self.x = x


class Items(list):
    pass


def made(name, x):
    """Return a class of this module and name that captures x."""

    re.purge()  # or one pattern would be the same object as another

    def method(self, y=0):
        return x

    def default(self, y=x):
        return y

    kinds = {
        "inner": type("Inner", (), {"content": x}),
        "dict": {"a": {"b": [x]}},
        "set": {x, "a"},
        "decimal": decimal.Decimal(x),
        "pattern": re.compile(str(x)),
        "instance": Config(Config(x)),
        "slots": Slotted(x),
        "captured": method,
        "default": default,
        "static": staticmethod(method),
        "class": classmethod(default),
        "property": property(method),
        "setter": property(None, default),
        "partial": functools.partialmethod(len, x),
        "lru": functools.lru_cache(default),
        "cached": functools.cached_property(method),
        "__settings__": x,
        "items": Items([x]),
        "ordered": collections.OrderedDict(a=x),
        "counted": collections.Counter({x: 1}),
    }
    if name == "base":
        base = type("Base", (), {"content": x})
        return type("Row", (base,), {"__module__": __name__})
    if name == "meta":
        meta = type("Meta", (type,), {"content": x, "__module__": __name__})
        return meta("Row", (), {"__module__": __name__})
    return type("Row", (), {"__module__": __name__, name: kinds[name]})


KINDS = """base meta inner dict set decimal pattern instance slots captured default
static class property setter partial lru cached __settings__ items ordered
counted""".split()


@pytest.mark.parametrize("name", KINDS)
def test_classes_of_a_factory_differ_by_all_that_they_hold(monkeypatch, name):
    first, same, second = made(name, 1), made(name, 1), made(name, 2)
    monkeypatch.setitem(globals(), "Row", first)
    monkeypatch.setitem(globals(), "Meta", type(first))
    expected = encode(first)
    assert encode(same) == expected
    for value in (second, second()):
        with pytest.raises(UnkeyableArgument):
            encode(value)


def copied(value):
    kind = type(value)
    return kind("a") if kind is types.ModuleType else kind()


def test_a_model_is_the_one_of_its_name():
    """Its registry has no other; its fields are counted, and so never the same."""

    def model():
        meta = type("Meta", (), {"app_label": "shop", "apps": Apps()})
        names = {"__module__": __name__, "name": models.TextField(), "Meta": meta}
        return type("Book", (models.Model,), names)

    assert replaced.replaces(model(), model())


@pytest.mark.parametrize("value", [object(), weakref.WeakSet(), types.ModuleType("a")])
def test_in_doubt_classes_of_one_name_are_two(monkeypatch, value):
    """By what pickle cannot store, and what has nothing but its address."""
    first, second = (
        type("Row", (), {"__module__": __name__, "a": each})
        for each in (value, copied(value))
    )
    monkeypatch.setitem(globals(), "Row", first)
    with pytest.raises(UnkeyableArgument):
        encode(second)


def test_after_a_reload_decorated_functions_are_the_same(module, write):
    write(
        "def discount",
        """import functools
def wrapped(function):
    def call(item, by=(1, "a"), *, more=None):
        return function(item)
    return functools.wraps(function)(call)

@wrapped
def discount""",
    )
    importlib.reload(module)
    before, expected = module.discount, encode(module.discount)
    importlib.reload(module)
    encoding._writers = dict(encoding._PLAIN)
    assert before is not module.discount and encode(before) == expected


def test_what_is_made_in_a_patched_function_stays_refused(module):
    def local():
        pass

    local.__module__ = "replaced"
    local.__qualname__ = "discount.<locals>.local"
    with mock.patch("replaced.discount"), pytest.raises(UnkeyableArgument):
        encode(local)


def decorated(function):
    def inner(*args):
        return function(*args)

    inner.__module__, inner.__qualname__ = __name__, "decorated_one"
    return inner


def test_wrappers_of_one_code_are_not_taken_for_a_reload(monkeypatch):
    """They capture other functions."""
    one, two = decorated(lambda: 1), decorated(lambda: 2)
    monkeypatch.setitem(globals(), "decorated_one", two)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        f, g = (cache_memoize(60, cache_alias="locmem")(each) for each in (one, two))
    assert f.get_cache_key() != g.get_cache_key()


# --- mocks ---------------------------------------------------------------------------


class Client:
    def get(self, url):
        return url


MOCKS = [
    mock.Mock,
    mock.MagicMock,
    mock.AsyncMock,
    mock.NonCallableMock,
    lambda: mock.Mock(spec=Client),
    lambda: mock.create_autospec(Client),
    lambda: mock.create_autospec(Client, instance=True),
    lambda: mock.create_autospec(decorated),
    lambda: mock.Mock().a.b,
    lambda: mock.seal(made := mock.Mock()) or made,
]


@pytest.mark.parametrize("make", MOCKS)
def test_mocks_are_themselves(make):
    one, other = make(), make()
    assert encode(one) == encode(one) != encode(other)
    assert encode([one]) == encode([one]) != encode([other])
    if isinstance(one, mock.NonCallableMock):
        assert type(one) not in encoding._writers, "each has a class of its own"


def test_a_call_with_a_mock_is_memoized_and_leaves_it_as_it_is():
    runs = []

    @cache_memoize(60, cache_alias="locmem", prefix="with a mock")
    def read(client, url):
        runs.append(url)
        return url

    client = mock.Mock(spec=["get"])
    assert read(client, "a") == "a" == read(client, "a")
    read(mock.Mock(spec=["get"]), "a")
    assert runs == ["a", "a"]
    assert client.mock_calls == [] and dir(client) == dir(mock.Mock(spec=["get"]))
    assert copy.copy(client) is not client


def test_services_that_hold_a_mock():
    class Service:
        def __init__(self, client):
            self.client = client

    Service.__qualname__ = "ServiceWithAMock"
    sys.modules[__name__].ServiceWithAMock = Service
    client = mock.Mock()
    one, same, other = Service(client), Service(client), Service(mock.Mock())
    assert encode(one) == encode(same) != encode(other)
