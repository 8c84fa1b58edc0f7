"""The decorator: options accepted and refused, and attributes of functions kept."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import dis
import functools
import inspect
import pickle
import re
import sys
import types
import typing
from datetime import timedelta

import pytest
from asgiref.sync import async_to_sync, iscoroutinefunction
from django.core.cache import caches
from django.core.cache.backends.base import DEFAULT_TIMEOUT
from django.test import override_settings

from cache_memoize import (
    Memoized,
    cache_memoize,
    decorator,
    memoized,
    preset,
)
from tests.conftest import in_thread, plan_of


@pytest.fixture(autouse=True)
def clean():
    caches["default"].clear()
    yield
    caches["default"].clear()


@cache_memoize(60)
def documented(a: int, /, b: str = "x", *, c: float = 1.0) -> tuple:
    """Return the arguments."""
    return a, b, c


@cache_memoize
async def bare(a: int) -> int:
    """Return the argument."""
    return a


# --- an ordinary function ------------------------------------------------------------


def test_it_looks_like_the_function():
    assert documented.__name__ == "documented"
    assert documented.__qualname__ == "documented"
    assert documented.__module__ == __name__
    assert documented.__doc__ == "Return the arguments."
    assert documented.__wrapped__(1) == (1, "x", 1.0)
    expected = "(a: 'int', /, b: 'str' = 'x', *, c: 'float' = 1.0) -> 'tuple'"
    assert str(inspect.signature(documented)) == expected
    assert "documented" in inspect.getsource(documented)
    assert type(documented) is types.FunctionType
    assert not iscoroutinefunction(documented)


def test_a_coroutine_function_is_one():
    assert inspect.iscoroutinefunction(bare) and iscoroutinefunction(bare)
    assert asyncio.run(bare(3)) == 3
    assert not inspect.iscoroutinefunction(functools.partial(documented, 1))
    assert inspect.iscoroutinefunction(functools.partial(bare, 1))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_it_is_pickled_by_its_name(protocol):
    assert pickle.loads(pickle.dumps(documented, protocol)) is documented
    assert copy.copy(documented) is copy.deepcopy(documented) is documented
    bound = pickle.loads(pickle.dumps(Shop(7).price, protocol))
    assert bound(1) == (7, 1)


def test_partials_and_wrappers_of_it_work():
    assert functools.partial(documented, 1)(c=2.0) == (1, "x", 2.0)

    @functools.wraps(documented)
    def above(*args, **kwargs):
        return documented(*args, **kwargs)

    above(1)
    assert above.peek(1).value == (1, "x", 1.0), "the controls travel with wraps()"
    above.invalidate(1)
    assert above.peek(1) is None


def test_sphinx_documents_it_as_a_function(tmp_path):
    application = pytest.importorskip("sphinx.application")
    from docutils.utils import SystemMessage  # noqa: F401 - comes with sphinx

    (tmp_path / "conf.py").write_text("extensions = ['sphinx.ext.autodoc']")
    (tmp_path / "index.rst").write_text(
        f"Title\n=====\n\n.. automodule:: {__name__}\n   :members: documented, Shop\n"
    )
    folders = [tmp_path, tmp_path, tmp_path / "out", tmp_path / "trees"]
    application.Sphinx(*folders, "text", status=None, warning=None).build()
    text = (tmp_path / "out" / "index.txt").read_text()
    assert re.search(r"documented\(a: int, /, b: str = 'x',", text)
    assert "Return the arguments." in text
    assert re.search(r"price\(item\)", text)


# --- methods -------------------------------------------------------------------------


class Shop:
    """A shop with prices."""

    def __init__(self, number):
        self.number = number

    @cache_memoize(60)
    def price(self, item):
        """The price."""
        return self.number, item

    @cache_memoize(60)
    async def aprice(self, item):
        return self.number, item

    @classmethod
    @cache_memoize(60)
    def outer(cls, item=1, more=2):
        return cls.__name__, item, more

    @cache_memoize(60)
    @classmethod
    def inner(cls, item=1, more=2):
        return cls.__name__, item, more

    @staticmethod
    @cache_memoize(60)
    def outer_static(item):
        return item

    @cache_memoize(60)
    @staticmethod
    def inner_static(item):
        return item

    @property
    @cache_memoize(60)
    def outer_property(self):
        """A property."""
        return self.number

    @cache_memoize(60)
    @property
    def inner_property(self):
        """A property."""
        return self.number


class Branch(Shop):
    pass


def test_methods_know_their_instance():
    one, two = Shop(1), Shop(2)
    assert one.price("tea") == (1, "tea") and two.price("tea") == (2, "tea")
    assert Shop(1).price.peek("tea").value == (1, "tea")
    one.price.invalidate("tea")
    assert one.price.peek("tea") is None and two.price.peek("tea")
    one.price.prime("given", "tea")
    assert one.price("tea") == "given"
    assert one.price.refresh("tea") == (1, "tea")
    assert one.price.get_cache_key("tea") == Shop.price.get_cache_key(one, "tea")
    assert Shop.price(one, "tea") == (1, "tea")
    assert one.price.cache_info() == Shop.price.cache_info()


def test_a_bound_method_looks_like_one():
    bound = Shop(1).price
    assert str(inspect.signature(bound)) == "(item)"
    assert (bound.__name__, bound.__doc__) == ("price", "The price.")
    assert bound.__self__.number == 1
    assert bound.__wrapped__("x") == (1, "x")
    assert bound.__func__(Shop(5), "x") == (5, "x")
    assert bound.__get__(Shop(9)) is bound
    with pytest.raises(AttributeError, match="nothing"):
        _ = bound.nothing
    assert inspect.iscoroutinefunction(Shop(1).aprice)
    assert asyncio.run(Shop(3).aprice("x")) == (3, "x")
    assert Shop.outer.__doc__ is None


#: From Python 3.13 on, classmethod() does not bind what it wraps.
CHAINED = sys.version_info < (3, 13)


@pytest.mark.parametrize("name", ["outer", "inner"] if CHAINED else ["inner"])
def test_classmethods_know_their_class(name):
    for cls in (Shop, Branch):
        method = getattr(cls, name)
        assert method(5) == (cls.__name__, 5, 2)
        assert str(inspect.signature(method)) == "(item=1, more=2)"
        assert method.peek(5).value[0] == cls.__name__
        assert getattr(cls(1), name).peek(5).value[0] == cls.__name__
    getattr(Branch, name).invalidate(5)
    assert getattr(Branch, name).peek(5) is None
    assert getattr(Shop, name).peek(5).value[0] == "Shop"


def test_below_a_classmethod_controls_take_the_class_or_raise():
    """They must not silently do nothing if they cannot know the class."""

    class Local:
        @classmethod
        @cache_memoize(60, ignore=["cls"])  # a local class has no address
        def method(cls, item=1, more=2):
            return cls.__name__, item, more

    assert Local.method(5) == Local().method(5) == ("Local", 5, 2)
    if CHAINED:
        Local.method.invalidate(5)
    else:
        for control in (Local.method.invalidate, Local().method.peek):
            with pytest.raises(TypeError, match=r"above @classmethod, or pass the cl"):
                control(5)
        Local.method.invalidate(Local, 5)
    assert vars(Local)["method"].__func__.peek(Local, 5) is None


@pytest.mark.parametrize("name", ["outer_static", "inner_static"])
def test_staticmethods_in_either_order(name):
    assert getattr(Shop, name)(1) == getattr(Shop(1), name)(1) == 1
    assert getattr(Shop(1), name).peek(1).value == 1


@pytest.mark.parametrize("name", ["outer_property", "inner_property"])
def test_properties_in_either_order(name):
    one = Shop(1)
    assert getattr(one, name) == 1
    one.number = 1
    assert getattr(Shop, name).fget.peek(one).value == 1
    assert getattr(Shop, name).__doc__ == "A property."


def test_partials_and_bound_methods_can_be_memoized():
    def add(a, b):
        return a + b

    one = cache_memoize(60)(functools.partial(add, 1))
    two = cache_memoize(60)(functools.partial(add, 2))
    assert (one(5), two(5), one(5)) == (6, 7, 6)
    method = cache_memoize(60)(Shop(4).price.__wrapped__)
    assert method("x") == (4, "x") == method("x")


# --- async and sync twins ------------------------------------------------------------


def test_every_control_has_its_twin():
    controls = {c for c in memoized.CONTROLS if f"a{c}" in memoized.CONTROLS}
    twins = {f"a{c}" for c in controls}
    # These register something, and talk to no cache.
    assert controls | twins | {"invalidate_on", "many"} == set(memoized.CONTROLS)
    assert controls == {
        "refresh",
        "invalidate",
        "invalidate_variant",
        "get_cache_key",
        "peek",
        "explain",
        "prime",
        "cache_info",
        "site_info",
        "invalidate_all",
        "map",
        "warm",
    }
    for twin in twins:
        iterates = twin == "awarm"
        assert inspect.iscoroutinefunction(getattr(Memoized, twin)) != iterates


def test_async_controls_of_a_sync_function_and_the_other_way_round():
    async def asynchronous():
        assert await documented.arefresh(1) == (1, "x", 1.0)
        assert (await documented.apeek(1)).value == (1, "x", 1.0)
        await documented.aprime("given", 1)
        assert documented(1) == "given"
        assert await documented.aget_cache_key(1) == documented.get_cache_key(1)
        assert await documented.acache_info() == documented.cache_info()
        await documented.ainvalidate(1)
        assert await documented.apeek(1) is None

    asyncio.run(asynchronous())
    assert bare.refresh(1) == 1
    assert bare.peek(1).value == 1
    bare.prime(5, 1)
    assert async_to_sync(bare)(1) == 5
    bare.invalidate(1)
    assert bare.peek(1) is None


def test_async_under_async_to_sync_in_several_threads():
    assert [in_thread(lambda: async_to_sync(bare)(1)) for _ in range(3)] == [1] * 3


def test_the_two_wrappers_are_alike_but_for_await():
    def shape(wrapper):
        source = inspect.getsource(wrapper)
        source = source.split("    def call", 1)[-1].split("async def call", 1)[-1]
        source = re.sub(r"except GeneratorExit:.*?raise\n\s+", "", source, flags=re.S)
        source = re.sub(r"#.*", "", source)
        source = re.sub(r"run(\(.*\))\n", r"\1\n", source).replace("await ", "")
        for name in ("revalidate", "fetch", "store", "audit"):
            source = source.replace(f"a{name}", name)
        source = re.sub(r"\n\s+\(?((?:fail|settle)\(.*?\))\)?\n", r"\n\1\n", source)
        return re.sub(r"\s+", " ", source)

    assert shape(decorator._sync_wrapper) == shape(decorator._async_wrapper)


# --- what is refused -----------------------------------------------------------------


def generator():
    yield 1


async def async_generator():
    yield 1


def plain(a, b=2):
    return a


async def coroutine(*args):
    return 1


@pytest.mark.parametrize(
    "options, function, error, message",
    [
        ({}, generator, TypeError, "generator is a generator function.*return a list"),
        ({}, async_generator, TypeError, "is a generator function"),
        ({}, lambda: 1, TypeError, "write prefix="),
        ({}, Shop, TypeError, "Shop is a class"),
        ({}, 5, TypeError, "5 is not callable.*directly above a def"),
        ({"timeout": -1}, plain, ValueError, "timeout= of plain must not be negative"),
        ({"timeout": "1h"}, plain, TypeError, "timeout= of plain takes seconds"),
        ({"timeout": True}, plain, TypeError, "timeout= of plain takes seconds.*bool"),
        ({"timeout": float("nan")}, plain, ValueError, "timeout="),
        ({"timeout": timedelta(-1)}, plain, ValueError, "timeout="),
        ({"lease": 0}, plain, ValueError, "lease= of plain must be more than 0"),
        ({"lease": None}, plain, ValueError, "lease= of plain must be more than 0"),
        ({"lease": "x"}, plain, TypeError, "lease= of plain takes seconds"),
        ({"lease": DEFAULT_TIMEOUT}, plain, TypeError, "lease= of plain takes seconds"),
        ({"wait": -1}, plain, ValueError, "wait= of plain must not be negative"),
        ({"ignore": ("c",)}, plain, ValueError, r"ignore= of plain names \['c'\]"),
        ({"ignore": "a"}, plain, TypeError, r"write ignore=\('a',\)"),
        ({"cache_exceptions": "x"}, plain, TypeError, "takes subclasses of Exception"),
        ({"cache_exceptions": KeyboardInterrupt}, plain, TypeError, "subclasses of"),
        ({"hit_callable": 5}, plain, TypeError, "hit_callable= that is not callable"),
        ({"cache_if": coroutine}, plain, TypeError, "a coroutine function as cache_if"),
        ({"timeout": coroutine}, plain, TypeError, "a coroutine function as timeout"),
        ({"extra": coroutine}, plain, TypeError, "a coroutine function as extra"),
        ({"prefix": 5}, plain, TypeError, "prefix= that is empty or not a string"),
        ({"prefix": ""}, plain, TypeError, "prefix= that is empty or not a string"),
        ({}, len, None, None),
        ({}, dis.dis, None, None),
    ],
)
def test_options_that_can_never_be_right_are_refused_at_decoration(
    options, function, error, message
):
    if error is None:
        assert cache_memoize(**options)(function)
        return
    with pytest.raises(error, match=message):
        cache_memoize(**options)(function)


def test_a_parameter_named_refresh_is_refused():
    with pytest.raises(TypeError, match="parameter named _refresh"):

        @cache_memoize(60)
        def function(_refresh):
            """Never called."""


def test_unknown_options_and_a_positional_callable_timeout_are_refused():
    with pytest.raises(TypeError, match=r"cache_memoize\(\) got an unexpected"):
        cache_memoize(60, tag=["x"])
    with pytest.raises(TypeError, match="must be passed by keyword"):
        cache_memoize(lambda result: 5, "prefix")


def test_the_ten_established_parameters_keep_their_order_and_defaults():
    parameters = list(inspect.signature(cache_memoize).parameters.values())
    assert [p.name for p in parameters[:10]] == [
        "timeout",
        "prefix",
        "extra",
        "args_rewrite",
        "hit_callable",
        "miss_callable",
        "key_generator_callable",
        "store_result",
        "cache_exceptions",
        "cache_alias",
    ]
    assert all(p.kind is p.POSITIONAL_OR_KEYWORD for p in parameters[:10])
    assert all(p.kind is p.KEYWORD_ONLY for p in parameters[10:])
    assert {p.name for p in parameters[10:]} == {
        "version",
        "ignore",
        "inherit",
        "depends_on",
        "cache_if",
        "tags",
        "stale",
        "early_refresh",
        "jitter",
        "wait",
        "lease",
        "hold",
        "local",
        "vary_on",
        "compress",
        "max_bytes",
        "audit",
    }
    defaults = [p.default for p in parameters[:10]]
    expected = [DEFAULT_TIMEOUT, *[None] * 6, True, (), "default"]
    assert defaults == expected


def test_bare_and_called_decorators_do_the_same():
    def function(a):
        return a

    for one in (cache_memoize(function), cache_memoize()(function)):
        assert one(1) == 1
    assert cache_memoize(None)(function)(2) == 2


def test_functions_of_one_factory_differ_by_what_they_captured():
    def factory(captured):
        @cache_memoize(60)
        def made():
            return captured

        return made

    assert (factory(1)(), factory(2)(), factory("1")()) == (1, 2, "1")
    assert (factory([1])(), factory([2])()) == ([1], [2])


def test_refresh_false_is_an_ordinary_call_and_controls_drop_it():
    calls = []

    @cache_memoize(60, prefix="refresh", hit_callable=lambda: calls.append("hit"))
    def function():
        calls.append("run")
        return 1

    function(_refresh=False), function(_refresh=False)
    assert calls == ["run", "hit"]
    assert function.get_cache_key(_refresh=True) == function.get_cache_key()
    function.invalidate(_refresh=True)
    assert function.peek() is None


def test_stop_iteration_and_recursion_depth_are_the_functions_own():
    @cache_memoize(60, prefix="stop")
    def stop():
        raise StopIteration

    with pytest.raises(StopIteration):
        stop()

    @cache_memoize(0, prefix="deep")
    def deep(n):
        return deep(n - 1) + 1 if n else 0

    assert deep(sys.getrecursionlimit() // 4) == sys.getrecursionlimit() // 4


def test_under_asgi_with_requests_side_by_side():
    from django.core.handlers.asgi import ASGIHandler
    from django.http import HttpResponse
    from django.test import override_settings
    from django.urls import path

    async def view(request, number):
        return HttpResponse(str(await bare(number)))

    urls = type("urls", (), {"urlpatterns": [path("<int:number>", view)]})

    async def request(number):
        scope = {
            "type": "http",
            "method": "GET",
            "path": f"/{number}",
            "headers": [],
            "query_string": b"",
        }
        sent, asked = [], []

        async def receive():
            if asked:
                await asyncio.sleep(60)
            asked.append(1)
            return {"type": "http.request", "body": b""}

        async def send(message):
            sent.append(message)

        await ASGIHandler()(scope, receive, send)
        return sent[0]["status"], sent[1]["body"]

    async def main():
        return await asyncio.gather(*(request(n % 2) for n in range(8)))

    with override_settings(ROOT_URLCONF=urls, ALLOWED_HOSTS=["*"]):
        answers = asyncio.run(main())
    assert answers == [(200, b"0"), (200, b"1")] * 4


def test_two_bindings_of_one_method_are_equal():
    one, two = Shop(1), Shop(2)
    assert one.price == one.price and one.price != two.price
    assert one.price != Shop.price and one.price != 5
    assert len({one.price, one.price, two.price}) == 2


def test_a_bound_method_that_is_memoized_follows_its_instance():
    shop = Shop(1)
    price = cache_memoize(60)(shop.price.__wrapped__)
    assert price("x") == (1, "x")
    shop.number = 2
    assert price("x") == (2, "x")


# --- what a careless caller writes ---------------------------------------------------


class Node:
    """Something that may be an argument of its own method."""

    def __init__(self, number):
        self.number = number

    @cache_memoize(60)
    def only(self, item):
        return self.number, item

    @cache_memoize(60)
    def apart(self, other, more=None):
        return self.number, getattr(other, "number", other), more

    @cache_memoize(60)
    @classmethod
    def kind(cls, item):
        return cls.__name__, item


def test_the_instance_given_again_is_taken_and_deprecated():
    """So 0.2.1 wants it: obj.method.invalidate(obj, ...)."""
    one = Node(1)
    for spelled in ((one, 5), (5,)):
        one.only(5)
        expected = (
            pytest.deprecated_call if len(spelled) == 2 else contextlib.nullcontext
        )
        with expected():
            assert one.only.get_cache_key(*spelled) == Node.only.get_cache_key(one, 5)
        with expected():
            assert one.only.peek(*spelled).value == (1, 5)
        with expected():
            one.only.invalidate(*spelled)
        assert one.only.peek(5) is None
    with pytest.deprecated_call(match=r"Node.only: .* write obj.only.invalidate"):
        assert one.only.refresh(one, item=6) == (1, 6)
    Node.kind(5)
    with pytest.deprecated_call():
        Node.kind.invalidate(Node, 5)
    assert Node.kind.peek(5) is None


def test_where_the_instance_may_be_an_argument_too_both_calls_are_invalidated():
    one, two = Node(1), Node(2)
    one.apart(one, two), one.apart(two), one.apart(one)
    one.apart.invalidate(one, two)
    assert one.apart.peek(two) is None and one.apart.peek(one, two) is None
    assert one.apart.peek(one) is not None
    asyncio.run(one.apart.ainvalidate(one))
    assert one.apart.peek(one) is None


class Leaf(Node):
    pass


class Borrower:
    number = 7


Borrower.only = vars(Node)["only"]


def test_a_control_of_the_class_takes_an_instance_first():
    """And not an argument in its place, of which nothing would be invalidated."""
    said = r"an instance of Node, not \w+; use the"
    assert Node.only.get_cache_key(Borrower(), 5) == Borrower().only.get_cache_key(5)
    assert Node.only.get_cache_key(Leaf(1), 5) == Leaf(1).only.get_cache_key(5)
    for control in ("invalidate", "peek", "get_cache_key", "refresh"):
        for wrong in ((1,), (Node, 1), (Shop(1), 1), ("1", 2)):
            with pytest.raises(TypeError, match=said):
                getattr(Node.only, control)(*wrong)
    with pytest.raises(TypeError, match="missing a required argument: 'self'"):
        Node.only.invalidate()
    with pytest.raises(TypeError, match="a subclass of Node, not int"):
        Node.kind.__func__.invalidate(5)


@pytest.mark.parametrize("value", [False, 0, "0", "", None, 1, "True", [1]])
def test_only_true_refreshes(value):
    """Not what a visitor writes into a query: f(**request.GET.dict())."""
    f = cache_memoize(60, prefix="only true")(lambda x=0: [x])
    f(1)
    computed = f.cache_info().computations
    assert f(1, _refresh=value) == [1]
    assert f.cache_info().computations == computed
    f(1, _refresh=True)
    assert f.cache_info().computations == computed + 1


@pytest.mark.parametrize(
    "word, option",
    [
        ("ttl", "timeout"),
        ("expire", "timeout"),
        ("timout", "timeout"),
        ("alias", "cache_alias"),
        ("key", "key_generator_callable"),
        ("tag", "tags"),
        ("per_user", "vary_on"),
        ("stale_ttl", "stale"),
    ],
)
def test_words_of_other_libraries_are_understood_but_not_taken(word, option):
    with pytest.raises(TypeError, match=rf"{word}' \(did you mean {option}\?\)"):
        cache_memoize(**{word: 5})


def test_the_overload_has_every_option_with_its_default():
    """Type checkers read it."""
    overload = typing.get_overloads(cache_memoize)[-1]
    written, known = inspect.signature(overload), inspect.signature(cache_memoize)
    assert [(p.name, p.kind) for p in written.parameters.values()] == [
        (p.name, p.kind) for p in known.parameters.values()
    ]
    for name, parameter in list(written.parameters.items())[1:]:
        assert parameter.default == known.parameters[name].default, name
        assert f":param {name}:" in cache_memoize.__doc__


fast = preset(60, stale=600)


def test_a_preset_is_the_decorator_with_other_defaults():
    @fast
    def plain(x):
        return x

    @fast(30, tags="shop")
    def tagged(x):
        return x

    class Shop:
        @fast
        def price(self):
            return 1

        @property
        @fast(ignore=["self"])
        def size(self):
            return 2

    assert plain._memoized.given == {"timeout": 60, "stale": 600}
    assert tagged._memoized.given == {"timeout": 30, "stale": 600, "tags": "shop"}
    assert [plain(1), plain(1), plain.cache_info().hits] == [1, 1, 1]
    assert (Shop().price.__name__, Shop().size) == ("price", 2)
    assert inspect.signature(fast) == inspect.signature(cache_memoize)
    with override_settings(CACHE_MEMOIZE={"DEFAULTS": {"timeout": 5, "jitter": 0.5}}):
        policy = plan_of(plain).policy
        assert (policy.timeout, policy.stale, policy.jitter) == (60, 600, 0.5)


@pytest.mark.parametrize(
    "args, options, message",
    [
        ((60,), {"timout": 1}, "(did you mean timeout?)"),
        ((), {"stale": -1}, "stale= of preset() must not be negative"),
        ((), {"prefix": "x"}, "@fast(prefix=...)"),
        ((), {"wait": "1h"}, "wait= of preset()"),
        ((), {"hit_callable": 5}, "preset() has a hit_callable= that is not callable"),
        ((), {"vary_on": "x", "key_generator_callable": str}, "preset() has vary_on="),
        ((abs,), {}, "write fast = preset(60), and @fast above the function"),
    ],
    ids=lambda value: None if isinstance(value, str) else "",
)
def test_a_wrong_preset_is_refused_where_it_is_made(args, options, message):
    with pytest.raises((TypeError, ValueError), match=re.escape(message)):
        preset(*args, **options)


def test_a_wrong_use_of_a_preset_is_refused():
    with pytest.raises(TypeError, match="must be passed by keyword"):
        fast(abs, tags="x")
    with pytest.raises(TypeError, match="did you mean tags"):
        fast(tag="x")
    with pytest.raises(ValueError, match="is a guard"):
        fast(store_result=False)(abs)
