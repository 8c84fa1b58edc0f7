"""Results that another caller cannot get as they are: refused with the cure, or stored
as what they stand for."""

from __future__ import annotations

import asyncio
import collections
import inspect
import re

import pytest
import requests
from django.contrib.auth.models import Group
from django.template.response import SimpleTemplateResponse, TemplateResponse
from django.test import RequestFactory

from cache_memoize.cache import record
from tests.conftest import BACKENDS

#: The backend makes no difference: one in the default suite, all with --full.
ANYWHERE = pytest.mark.backends(list(BACKENDS), lean=["locmem"])


async def coroutine():
    return 1


async def generator():
    yield 1


class Awaitable:
    """Could be pickled."""

    def __await__(self):
        return iter(())


def close(value):
    if inspect.iscoroutine(value):  # a page would close connections
        value.close()


REFUSED = {
    "a sentinel": (object, "bare object.*Enum"),
    "a coroutine": (coroutine, "type coroutine has to be awaited.*async def"),
    "an async generator": (generator, "type async_generator .*return a list"),
    "an awaitable": (Awaitable, "type Awaitable has to be awaited"),
    "a future": (lambda: asyncio.Future(loop=LOOP), "type Future has to be awaited"),
    "a page": (
        lambda: SimpleTemplateResponse("a.html"),
        r"return response\.render\(\)",
    ),
    "a page of a request": (
        lambda: TemplateResponse(RequestFactory().get("/"), "a.html"),
        "a TemplateResponse is not rendered",
    ),
}
LOOP = asyncio.new_event_loop()
LOOP.close()
PLACES = {
    "alone": lambda value: value,
    "in a list": lambda value: [value],
    "in a dict": lambda value: {"a": (1, value)},
    "as a default": lambda value: collections.UserList([value]),
    "in an error": lambda value: ValueError(value),
}


@ANYWHERE
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", REFUSED)
def test_results_that_would_be_others_are_returned_and_warned_of_once(
    world, caplog, name, place
):
    make, reason = REFUSED[name]
    made = []

    def function():
        made.append(make())
        return PLACES[place](made[-1])

    f = world.memoize(60)(function)
    f(), f()
    assert len(made) == 2
    ours = [each for each in caplog.records if each.name == "cache_memoize"]
    [said] = [each.getMessage() for each in ours]
    assert "the result cannot be pickled" in said
    assert re.search(reason, said)
    for value in made:
        close(value)


@pytest.mark.parametrize("name", ["a coroutine", "an async generator", "a future"])
def test_a_guard_does_not_take_a_call_that_has_not_run_for_done(world, name, caplog):
    made = []

    def function():
        made.append(REFUSED[name][0]())
        return made[-1]

    f = world.memoize(60, store_result=False)(function)
    assert f() is made[0] and f() is made[1]
    assert caplog.text.count("has to be awaited") == 1
    for value in made:
        close(value)


def test_prime_says_the_cure(world):
    f = world.memoize(60)(one)
    with pytest.raises(TypeError, match="bare object"):
        f.prime(object())


def one():
    return 1


def test_a_rendered_page_is_stored(world):
    f = world.memoize(60)(rendered)
    assert f().content == f().content == b"text"
    assert f.cache_info().hits == 1


def rendered():
    response = SimpleTemplateResponse("none")
    response.content = "text"
    return response


@pytest.mark.django_db
@pytest.mark.parametrize("used", [list, bool, lambda rows: rows.columns, id])
def test_a_raw_query_is_stored_with_its_rows(django_assert_num_queries, used):
    Group.objects.create(name="a")
    rows = Group.objects.raw("SELECT id, name FROM auth_group WHERE name = %s", ["a"])
    used(rows)
    raw = record.dumps({"rows": rows})
    with django_assert_num_queries(0):
        again = record.loads(raw)["rows"]
        assert [row.name for row in again] == [row.name for row in rows] == ["a"]
    assert (again.model, again.db, str(again.query)) == (
        Group,
        "default",
        str(rows.query),
    )


# --- exceptions ----------------------------------------------------------------------


class NoEq:
    def __init__(self, x):
        self.x = x

    def __repr__(self):
        return f"NoEq({self.x})"


class Status(Exception):
    """As that of httpx."""

    def __init__(self, message, *, response):
        super().__init__(message)
        self.response = response


class Odd:
    """As an array: == is no bool."""

    def __eq__(self, other):
        return self

    def __bool__(self):
        raise ValueError("ambiguous")

    __hash__ = None


class Lossy(Exception):
    def __init__(self, text, *more):
        super().__init__(text)
        self.more = [Half(1)]


class Half:
    """Comes back as another value."""

    def __init__(self, x):
        self.x = x

    def __eq__(self, other):
        return self.x == other.x

    __hash__ = None

    def __reduce__(self):
        return Half, (2,)


def http_error():
    response = requests.Response()
    response.status_code, response._content = 404, b"no"
    request = requests.Request("GET", "http://localhost/").prepare()
    return requests.HTTPError("404", response=response, request=request)


STORED = {
    "requests": http_error,
    "httpx": lambda: Status("404", response=NoEq(1)),
    "in args": lambda: ValueError("a", [NoEq(1)], {"b": (NoEq(2),)}),
    "a group": lambda: ExceptionGroup(
        "some", [ValueError("a"), Status("b", response=1)]
    ),
    "groups": lambda: ExceptionGroup("all", [ExceptionGroup("a", [OSError(2, "b")])]),
    "not a number": lambda: ValueError(float("nan"), {"a": [float("nan")]}),
}


@ANYWHERE
@pytest.mark.parametrize("name", STORED)
def test_an_exception_with_values_that_do_not_compare_is_stored(world, name):
    runs = []

    def function():
        runs.append(1)
        raise STORED[name]()

    f = world.memoize(60, cache_exceptions=Exception)(function)
    for _ in range(2):
        with pytest.raises(Exception) as caught:
            f()
        assert str(caught.value) == str(STORED[name]())
    assert runs == [1]


def test_what_is_held_comes_back():
    again = record.loads(record.dumps_exception(http_error()))
    assert (again.response.status_code, again.response.content) == (404, b"no")
    assert again.request.url == "http://localhost/"


def test_an_exception_that_is_a_result_comes_back_as_pickle_makes_it():
    [again] = record.loads(record.dumps([OSError(2, "absent", "a.txt")]))
    assert (again.args, again.filename) == ((2, "absent"), "a.txt")


class Turned:
    """Comes back as a list."""

    def __reduce__(self):
        return list, ()


CHANGED = {
    "another type": lambda: ValueError({"a": [Turned()]}),
    "an attribute": lambda: Lossy("a"),
    "in a group": lambda: ExceptionGroup("some", [Lossy("a")]),
    "no answer": lambda: ValueError(Odd()),
}


@pytest.mark.parametrize("name", CHANGED)
def test_an_exception_that_would_come_back_changed_is_not_stored(name):
    with pytest.raises(TypeError, match="cannot be stored"):
        record.dumps_exception(CHANGED[name]())
