"""Captured variables of nested functions are arguments; code tells functions apart."""

from __future__ import annotations

import collections
import copy
import datetime
import decimal
import functools
import logging
import textwrap
import threading
from types import SimpleNamespace

import pytest
from django.http import HttpRequest
from django.utils import translation
from django.utils.functional import SimpleLazyObject

from cache_memoize import (
    UnkeyableArgument,
    cache_memoize,
    describe,
    register_key,
)
from cache_memoize.cache import tokens
from cache_memoize.keys.closure import (
    captured_text_of,
    captures_plain_values,
    default_prefix,
    is_plain,
)
from cache_memoize.protocol import threads as pool
from tests.conftest import FakeClock
from tests.models import Post


class Row:
    def __init__(self, name):
        self.name = name

    def pages(self):
        return self.name


class Held:
    def __init__(self):
        self.lock = threading.Lock()


def capturing(value):
    @cache_memoize(60)
    def inner(a=0):
        return value

    return inner


def helper(value):
    def help_out(b=0):
        return value

    return help_out


def other_helper(value):
    def help_out(b=0):
        return [value]

    return help_out


def helper_of_two(first, second):
    def help_out():
        return first, second

    return help_out


def module_function(): ...


VALUES = [
    (1, 2),
    (1, True),
    (0.0, -0.0),
    ("a", b"a"),
    ([1], [2]),
    ([1], (1,)),
    ({"a": [1]}, {"a": [2]}),
    ({1}, frozenset({1})),
    (Row("a"), Row("b")),
    (Post(pk=1), Post(pk=2)),
    (SimpleLazyObject(lambda: Post(pk=1)), SimpleLazyObject(lambda: Post(pk=2))),
    (Row("a").pages, Row("b").pages),
    (Row, Held),
    (datetime.date(2026, 1, 1), datetime.date(2026, 1, 2)),
    (helper(1), helper(2)),
    (helper(1), other_helper(1)),
    (helper_of_two(1, 3), helper_of_two(2, 3)),
    (lambda: 1, lambda: 2),
    (lambda a=1: a, lambda a=2: a),
    (lambda *, a=1: a, lambda *, a=2: a),
    (module_function, helper),
    (functools.partial(max, 1), functools.partial(max, 2)),
]


@pytest.mark.parametrize(("one", "other"), VALUES)
def test_functions_of_a_factory_differ_by_what_they_captured(one, other):
    first, again, second = capturing(one), capturing(one), capturing(other)
    assert first.get_cache_key() == again.get_cache_key() != second.get_cache_key()


def test_each_function_of_a_factory_returns_its_own_result():
    for value in ([1], [2], Row, "a", ["x" * 300], ["y" * 300]):
        assert capturing(value)() == capturing(value)() == value


def test_captured_variables_do_not_run_into_each_other():
    def make(left, right):
        @cache_memoize(60)
        def inner():
            return left, right

        return inner

    pairs = [(1, 2), (2, 1), ("1 right=i2;", 1), ("", "1"), ("1", ""), ([], [1])]
    assert len({make(*pair).get_cache_key() for pair in pairs}) == len(pairs)
    assert make(1, 2)() == (1, 2)


@pytest.mark.parametrize(
    "value", [Held(), HttpRequest(), object(), [Held()], (lambda: 1,)]
)
def test_what_cannot_be_told_apart_is_refused_by_the_name_of_its_variable(value):
    def make(held):
        @cache_memoize(60)
        def inner():
            return held

        return inner

    message = r"inner\(\): the captured variable 'held'"
    with pytest.raises(UnkeyableArgument, match=message) as seen:
        make(value)()
    assert seen.value.parameter == "held" and seen.value.kind == "captured variable"
    assert "prefix=" in str(seen.value) and "ignore=" not in str(seen.value)
    with pytest.raises(UnkeyableArgument, match="the captured variable"):
        make(make(value).__wrapped__)()  # what a captured function captures


def test_a_registered_type_can_be_captured():
    class Registered(Held):
        pass

    register_key(Registered, lambda value: 1)
    Registered.__qualname__ = "Registered"
    globals()["Registered"] = Registered
    assert isinstance(capturing(Registered())(), Registered)


def test_with_a_prefix_captured_variables_are_not_part_of_the_key():
    def make(held):
        @cache_memoize(60, prefix="test_closure.named")
        def inner():
            return 5

        return inner, held

    assert make([1])[0].get_cache_key() == make(Held())[0].get_cache_key()

    def make_capturing(held):
        @cache_memoize(60, prefix="test_closure.capturing")
        def inner():
            return held and 5

        return inner

    assert make_capturing([1])() == make_capturing(Held())() == 5


def test_the_value_at_the_call_counts_not_the_one_at_decoration():
    functions = []
    for number in range(3):

        @cache_memoize(60)
        def inner():
            return number  # noqa: B023

        functions.append(inner)
    assert [function() for function in functions] == [2, 2, 2]
    number = 7
    assert [function() for function in functions] == [7, 7, 7]


def test_a_variable_that_is_assigned_later():
    def make(value):
        @cache_memoize(60)
        def inner():
            return later

        before = inner.get_cache_key()
        later = value
        assert before != inner.get_cache_key()
        return inner

    assert (make(1)(), make(2)()) == (1, 2)


def test_nonlocal_variables_count():
    state = 0

    @cache_memoize(60)
    def read():
        return state

    def write(value):
        nonlocal state
        state = value

    seen = []
    for value in (1, 2, 1):
        write(value)
        seen.append(read())
    assert seen == [1, 2, 1] and read.cache_info().hits == 1


def test_a_function_that_calls_itself_has_one_key():
    def make(step):
        @cache_memoize(60)
        def countdown(number):
            return countdown(number - step) if number > 0 else "done"

        return countdown

    assert make(1)(2) == make(2)(2) == "done"
    assert make(1).get_cache_key(2) == make(1).get_cache_key(2)
    assert make(1).get_cache_key(2) != make(2).get_cache_key(2)


def test_recursion_through_a_decorator_that_is_no_function():
    class Task(Held):
        def __init__(self, function):
            super().__init__()
            self.__wrapped__ = function

    def make():
        @Task
        @cache_memoize(60)
        def inner(number):
            return inner

        return inner

    keys = {make().__wrapped__.get_cache_key(1) for _ in range(2)}
    assert len(keys) == 1


def test_functions_that_call_each_other():
    def make(value):
        def even(number):
            return value if number == 0 else odd(number - 1)

        @cache_memoize(60)
        def odd(number):
            return even(number - 1)

        return odd

    assert (make("a")(3), make("b")(3), make("a")(3)) == ("a", "b", "a")


def test_two_functions_of_one_name_differ_by_their_code():
    def make(kind):
        if kind:

            @cache_memoize(60)
            def inner():
                return "one"

        else:

            @cache_memoize(60)
            def inner():
                return "other"

        return inner

    assert [make(1)(), make(0)(), make(1)()] == ["one", "other", "one"]
    assert make(1).get_cache_key() == make(1).get_cache_key()


def test_nested_code_is_code():
    def make(kind):
        if kind:

            def inner():
                return [x + 1 for x in [1]], lambda: 1

        else:

            def inner():
                return [x + 1 for x in [1]], lambda: 2

        return default_prefix(inner)

    assert make(1) == make(1) != make(0)


def audited(function):
    def wrapper(*args):
        return function(*args)

    return wrapper


def test_decorators_without_wraps_do_not_make_functions_share():
    def price(a):
        return "price"

    def stock(a):
        return "stock"

    functions = [cache_memoize(60)(audited(each)) for each in (price, stock)]
    assert [each(1) for each in functions] == ["price", "stock"]


def with_lock(function):
    held = Held()

    @functools.wraps(function)
    def wrapper(*args):
        with held.lock:
            return function(*args)

    return wrapper


@cache_memoize(60)
@with_lock
def locked(a):
    return a


class Locked:
    @cache_memoize(60, args_rewrite=lambda *args: args[1:])
    @with_lock
    def method(self, a):
        return super().__repr__() and a

    @cache_memoize(60)
    @classmethod
    @with_lock
    def of_class(cls, a):
        return a

    @property
    @cache_memoize(60, args_rewrite=lambda *args: 1)
    @with_lock
    def known(self):
        return 1


def test_what_a_decorator_captured_around_a_function_of_a_module_does_not_count():
    assert locked(1) == locked(1) == Locked().method(1) == Locked.of_class(1) == 1
    assert Locked().known == 1
    assert locked.cache_info().hits == 1


@pytest.mark.parametrize("name", ["module_function", "gone", "Row.gone"])
def test_a_function_that_its_name_does_not_lead_to_counts_by_its_variables(name):
    def text_of(captured):
        def inner():
            return captured

        inner.__qualname__ = name
        return captured_text_of(inner, name)()

    assert text_of([1]) == text_of([1]) != text_of([2])


def test_a_variable_that_is_only_written_does_not_count():
    """As tests do that count the computations."""
    calls, tags = [], set()

    @cache_memoize(60)
    def function(a, *, b=2):
        calls.append((a, b, len(str(a)), "calls"))
        tags.add(a)
        return a + b

    assert [function(1), function(1), function(1, b=3)] == [3, 3, 4]
    assert len(calls) == 2 and tags == {1}


@pytest.mark.parametrize(
    "store, read, write",
    [
        (collections.Counter("aab"), lambda s: s["a"], lambda s: s.update("a")),
        (
            collections.defaultdict(list, a=[1]),
            lambda s: list(s["a"]),
            lambda s: s["a"].append(2),
        ),
        (
            collections.OrderedDict(a=1, b=2),
            lambda s: list(s),
            lambda s: s.move_to_end("a"),
        ),
        (collections.deque([1, 2], 2), lambda s: list(s), lambda s: s.append(3)),
        (collections.ChainMap({"a": 1}), lambda s: s["a"], lambda s: s.update(a=2)),
    ],
)
def test_a_captured_collection_that_changes_is_another_one(store, read, write):
    @cache_memoize(60, cache_alias="locmem")
    def function():
        return read(store)

    for _ in range(2):
        assert function() == function() == read(store)
        write(store)


class Writer:
    """Its methods write to their argument."""

    def __init__(self, number):
        self.number = number

    def update(self, target):
        target["number"] = self.number

    add = append = appendleft = extend = insert = update


METHODS = ["add", "append", "appendleft", "extend", "insert", "update"]


@pytest.mark.parametrize("method", METHODS)
def test_what_is_no_container_may_write_to_the_result(method):
    scope = {"cache_memoize": cache_memoize, "__name__": __name__}
    source = f"""
    def make(writer):
        @cache_memoize(60)
        def inner():
            target = dict()
            writer.{method}(target)
            return target
        return inner
    """
    exec(textwrap.dedent(source), scope)
    assert [scope["make"](Writer(n))() for n in (1, 2)] == [
        {"number": 1},
        {"number": 2},
    ]


def attribute_of_itself(number):
    def inner():
        return inner.rate

    inner.rate = number
    return cache_memoize(60)(inner)


def attribute_of_itself_memoized(number):
    @cache_memoize(60)
    def inner():
        return inner.rate

    inner.rate = number
    return inner


def attribute_of_another(number):
    @cache_memoize(60)
    def another(): ...

    another.rate = number

    @cache_memoize(60)
    def inner():
        return another.rate

    return inner


@pytest.mark.parametrize(
    "make", [attribute_of_itself, attribute_of_itself_memoized, attribute_of_another]
)
def test_attributes_of_captured_functions_are_part_of_the_key(make):
    assert [make([1])(), make([2])(), make([1])()] == [[1], [2], [1]]


def test_a_function_that_captures_itself_captures_no_attributes_of_that_kind():
    def make(held=None):
        def inner():
            return held

        inner.rate = 1
        held = held or inner
        return captured_text_of(inner, "inner")()

    assert make() == make() != make({"rate": 1})


def test_an_attribute_of_a_captured_function_may_be_refused():
    with pytest.raises(UnkeyableArgument, match="captured variable 'inner'"):
        attribute_of_itself(Held())()


def with_else(first, second):
    def inner():
        try:
            first()
        except ValueError:
            return "caught"
        else:
            second()
        return "done"

    return inner


def without_else(first, second):
    def inner():
        try:
            first()
            second()
        except ValueError:
            return "caught"
        return "done"

    return inner


def test_code_differs_by_what_its_exception_handlers_cover():
    one, other = with_else(0, 0), without_else(0, 0)
    other.__qualname__ = one.__qualname__  # and their instructions are the same
    assert default_prefix(one) != default_prefix(other)


def read_by_result(found):
    return lambda a: found.append(a)


def read_elsewhere(found):
    def inner(a):
        found.append(a)
        return len(found)

    return inner


def read_in_an_argument(found):
    def inner(a):
        found.append(1 if a else 2)

    return inner


def read_inside(found):
    def inner(a):
        found.append(a)
        return lambda: found

    return inner


def another_method(found):
    def inner(a):
        found.sort()

    return inner


def bare(found):
    def inner(a):
        found.append  # noqa: B018

    return inner


@pytest.mark.parametrize(
    "make",
    [read_by_result, read_elsewhere, read_in_an_argument, read_inside]
    + [another_method, bare],
)
def test_a_variable_that_is_read_counts(make):
    texts = [captured_text_of(make(found), "f")() for found in ([], [1])]
    assert texts[0] != texts[1]


def test_a_partial_of_a_nested_function_has_its_variables():
    def make(value):
        def inner(a, b):
            return value

        return cache_memoize(60)(functools.partial(inner, 1))

    assert [make([1])(2), make([2])(2)] == [[1], [2]]


def shown(*values):
    return repr(values)


def test_what_a_partial_holds_is_taken_as_it_is_at_the_call():
    held, row = [1], Row("a")
    f = cache_memoize(60)(functools.partial(shown, held))
    g = cache_memoize(60)(functools.partial(row.pages))
    assert [f(2), g()] == ["([1], 2)", "a"]
    held.append(5)
    row.name = "b"
    assert [f(2), g(), f(2)] == ["([1, 5], 2)", "b", "([1, 5], 2)"]
    assert (f.cache_info().hits, g.cache_info().hits) == (1, 0)


@pytest.mark.parametrize("method", ["a".upper, {"a": 1}.get, dict.fromkeys])
def test_a_method_of_a_built_in_object_is_refused(method):
    with pytest.raises(TypeError, match="is a method of a built-in object"):
        cache_memoize(60)(method)


def test_functions_of_two_scripts_differ_by_their_code():
    made = []
    for number in (1, 1, 2):
        scope = {"__name__": "__main__"}
        exec(f"def total():\n return {number}", scope)
        made.append(default_prefix(scope["total"]))
    assert made[0] == made[1] != made[2]
    assert all(each.startswith("__main__.total ") for each in made)


def test_what_is_made_inside_a_function_and_has_no_code_asks_for_a_prefix():
    compiled = SimpleNamespace(__module__="m", __qualname__="f.<locals>.compiled")
    with pytest.raises(TypeError, match="m.f.<locals>.compiled .* prefix="):
        default_prefix(compiled)


def test_captured_values_are_not_shown():
    key = capturing("secret").get_cache_key()
    assert "secret" not in key and key.startswith("tests.test_closure.capturing.")


# --- arguments that their owner changes ----------------------------------------------


class Cart:
    def __init__(self):
        self.items = []


@pytest.mark.parametrize("kind", [list, Cart])
def test_what_was_changed_during_the_call_is_not_stored(kind, caplog):
    argument = kind()

    @cache_memoize(60, prefix=f"test_closure.changed.{kind.__name__}")
    def total(cart):
        items = getattr(cart, "items", cart)
        items.append(1)
        return len(items)

    with caplog.at_level(logging.WARNING):
        assert total(argument) == 1
    assert "was changed during the call" in caplog.text
    assert total.peek(kind()) is total.peek(argument) is None
    assert total.refresh(argument) == 2
    assert total(kind()) == 1  # no caller waits for a lease


@pytest.mark.parametrize("call", ["first", "refresh", "in the background"])
def test_a_result_is_not_stored_if_extra_changed_during_the_call(call, caplog):
    """The function may have read either release: the result fits no key for sure."""
    release, clock = ["1"], FakeClock()

    @cache_memoize(
        60,
        stale=60,
        extra=lambda x: release[-1],
        prefix=f"test_closure.extra.{call}",
        _clock=clock,
    )
    def page(x):
        seen = release[-1]
        release.extend(coming)
        return seen

    coming = []
    if call != "first":
        assert page(1) == "1"
    coming = ["2"]
    clock.tick(1)
    if call == "in the background":
        clock.tick(61)
        assert page(1) == "1" and pool.join()
    else:
        assert page(1, _refresh=call == "refresh") == "1"
    assert "was changed during the call" in caplog.text
    release[:], coming = ["1"], []
    if call == "first":
        assert page.peek(1) is None
    else:
        assert page.peek(1).value == "1" and page.peek(1).age  # the entry from before


def test_what_becomes_unkeyable_during_the_call_is_not_stored():
    @cache_memoize(60, prefix="test_closure.unkeyable")
    def total(cart):
        cart.append(Held())
        return len(cart)

    assert total([]) == 1 and total.peek([]) is None


@pytest.mark.parametrize("added", [2, Held()])
@pytest.mark.parametrize("refresh", [False, True])
def test_what_was_changed_while_the_cache_was_read_is_not_stored(
    monkeypatch, added, refresh
):
    argument = [1]

    @cache_memoize(60, prefix=f"test_closure.{added}{refresh}", stale=60)
    def total(items):
        return len(items)

    if refresh:
        total.prime(1, [1])
    look = tokens.look_after

    async def seen(*args, **kwargs):
        found = await look(*args, **kwargs)
        if len(argument) == 1:
            argument.append(added)
        return found

    monkeypatch.setattr(tokens, "look_after", seen)
    assert total(argument, _refresh=refresh) == 2
    monkeypatch.undo()
    entry = total.peek([1])
    assert (entry.value if refresh else entry) == (1 if refresh else None)
    assert total([1]) == 1


def test_a_refresh_whose_argument_changes_keeps_the_old_value():
    @cache_memoize(60, prefix="test_closure.keeps")
    def total(items):
        items.append(1)
        return len(items)

    total.prime(0, [])
    assert total.refresh([]) == 1
    assert total.peek([]).value == 0


def test_a_generated_key_that_changes_is_not_stored_under_the_old_one():
    @cache_memoize(60, key_generator_callable=lambda items: f"sum:{sum(items)}")
    def total(items):
        items.append(1)
        return sum(items)

    assert total([5]) == 6 and total.peek([5]) is None


def test_the_admin_has_a_page_for_each_function_of_a_factory():
    """Also where a captured variable cannot be part of a key."""
    one, other, held = map(capturing, ([1], [2], Held()))
    ids = [describe.FunctionInfo(f._memoized).id for f in (one, other, held)]
    assert len(set(ids)) == 3


def test_captured_variables_and_vary_on_are_parts_of_one_key():
    def make(captured):
        @cache_memoize(60, vary_on="language", extra=lambda x: [])
        def f(x):
            return captured

        @cache_memoize(60, vary_on="language")
        def g(x):
            return captured

        return f, g

    keys = set()
    for language in ("de", "en"):
        with translation.override(language):
            keys |= {f.get_cache_key(1) for made in (1, 2, 1) for f in make(made)}
    assert len(keys) == 8


def test_a_decorator_that_says_it_wraps_itself_is_followed_for_a_while(monkeypatch):
    def captured_by(value):
        def function():
            return value

        function.__qualname__ = "odd"
        return captured_text_of(function, "odd")()

    odd = SimpleNamespace()
    odd.__wrapped__ = odd
    monkeypatch.setitem(globals(), "odd", odd)
    assert captured_by(1) == captured_by(1) != captured_by(2)


@pytest.mark.parametrize(
    "one, other",
    [
        (collections.deque([1], 1), collections.deque([], 5)),
        (set(), []),
        ([], collections.deque()),
    ],
)
def test_a_collection_that_refuses_to_be_written_is_another_one(one, other):
    def collecting(items):
        @cache_memoize(60, cache_alias="locmem")
        def collect(x):
            try:
                items.insert(0, x)
            except (AttributeError, IndexError):
                return "refused"
            return "written"

        return collect

    def adding(items):
        @cache_memoize(60, cache_alias="locmem")
        def add(x):
            try:
                items.add(x)
            except AttributeError:
                return "refused"
            return "written"

        return add

    for make in (collecting, adding):
        plain = [make(items).__wrapped__(1) for items in map(copy.copy, (one, other))]
        assert [make(items)(1) for items in map(copy.copy, (one, other))] == plain


# --- values without objects ------------------------------------------------------

PLAIN = [
    *(1, "a", b"a", 1.5, None, True, decimal.Decimal(1), datetime.date(2031, 5, 6)),
    *([1, ["a"]], {"a": {1}}, (), frozenset({1})),
]


@pytest.mark.parametrize("value", PLAIN)
def test_plain_values(value):
    assert is_plain(value)
    assert not is_plain([value, object()])
    assert not is_plain({"a": Post(title="a"), "b": value})


def test_values_that_are_nested_deeply_are_not_looked_at():
    value = []
    for _ in range(10):
        value = [value]
    assert not is_plain(value)
    value.append(value)
    assert not is_plain(value)


def test_functions_that_capture_each_other_or_nothing_yet():
    def even(n):
        return n == 0 or odd(n - 1)

    def odd(n):
        return n > 0 and even(n - 1)

    def early():
        return late

    assert captures_plain_values(even) and captures_plain_values(early)
    late = object()
    assert not captures_plain_values(early) and late
    assert not captures_plain_values(print)


def test_decorators_are_looked_through():
    def decorate(function):
        @functools.wraps(function)
        def inner(*args):
            return function(*args)

        return inner

    post, kind, module = Post(title="a"), Post, datetime
    assert captures_plain_values(decorate(lambda: (kind, module)))
    assert captures_plain_values(decorate(decorate(lambda: 1)))
    assert not captures_plain_values(decorate(decorate(lambda: post)))
