"""Two functions that would share their entries are warned about, others are not."""

from __future__ import annotations

import gc
import importlib
import sys

import pytest

from cache_memoize import cache_memoize, planning


def one(): ...


def other():
    """Made of other code."""


def test_two_functions_of_other_code_under_one_prefix_warn():
    planning._warn_if_shared("test_registry.redefined", one)
    with pytest.warns(RuntimeWarning, match="both known as 'test_registry.redefined'"):
        planning._warn_if_shared("test_registry.redefined", other)


def test_a_function_that_is_gone_does_not_count():
    """A module that is loaded again replaces its functions."""

    def gone(): ...

    planning._warn_if_shared("test_registry.reloaded", gone)
    del gone
    gc.collect()
    planning._warn_if_shared("test_registry.reloaded", other)


def test_what_has_no_code_is_not_compared():
    planning._warn_if_shared("test_registry.builtin", len)
    planning._warn_if_shared("test_registry.builtin", other)


def test_the_warning_points_to_the_decorated_function():
    def make(function):
        function.__qualname__ = "twice"
        cache_memoize(60)(function)

    make(one)
    with pytest.warns(RuntimeWarning, match="two functions are both known as") as seen:
        make(other)
    assert [warning.filename for warning in seen] == [__file__]


# --- one prefix= ---------------------------------------------------------------------


def of_one(a): ...


def of_two(a, b): ...


def of_other_name(b): ...


def by_keyword(*, a): ...


async def awaited(a): ...


class Shop:
    def of_two(self, b): ...


@pytest.fixture
def memoize(monkeypatch):
    monkeypatch.setattr(planning, "_by_distinction", {})
    return cache_memoize


TAKEN = "have one prefix='taken', but different parameters"


@pytest.mark.parametrize(
    "second",
    [of_two, of_other_name, by_keyword, Shop.of_two, lambda a, b: 1],
)
def test_two_functions_of_other_parameters_under_one_prefix_warn(memoize, second):
    memoize(prefix="taken")(of_one)
    with pytest.warns(RuntimeWarning, match=TAKEN) as seen:
        memoize(prefix="taken")(second)
    assert [warning.filename for warning in seen] == [__file__]
    assert "tests.test_registry.of_one" in str(seen[0].message)


def test_two_functions_in_one_function_and_two_lambdas_warn(memoize):
    @memoize(prefix="taken")
    def first(a): ...

    with pytest.warns(RuntimeWarning, match=TAKEN):

        @memoize(prefix="taken")
        def second(a, b): ...

    memoize(prefix="lambda")(lambda a: 1)
    with pytest.warns(RuntimeWarning, match="prefix='lambda'"):
        memoize(prefix="lambda")(lambda a, b: 1)


@pytest.mark.parametrize(
    ("second", "options"),
    [
        (awaited, {}),  # they share their entries
        (of_one, {}),  # it is made again
        (of_two, {"version": 2}),
        (of_two, {"extra": 2}),
        (of_two, {"cache_alias": "locmem"}),
        (of_two, {"vary_on": "language"}),
        (of_two, {"args_rewrite": lambda a, b: a}),
        (of_two, {"key_generator_callable": lambda a, b: "key"}),
        (of_two, {"prefix": "another"}),
    ],
)
def test_functions_whose_keys_differ_or_that_may_share_are_not_warned_of(
    memoize, second, options
):
    memoize(prefix="taken")(of_one)
    memoize(**({"prefix": "taken"} | options))(second)


def test_functions_of_two_functions_may_not_live_at_one_time(memoize):
    def other_test():
        memoize(prefix="taken")(lambda a, b: 1)

    memoize(prefix="taken")(lambda a: 1)
    other_test()


def test_a_module_that_is_reloaded_with_other_parameters(
    memoize, tmp_path, monkeypatch
):
    monkeypatch.syspath_prepend(tmp_path)
    text = "from cache_memoize import cache_memoize\n\n@cache_memoize(prefix='taken')\n"
    (tmp_path / "reloaded.py").write_text(f"{text}def f(a): ...\n")
    module = importlib.import_module("reloaded")
    (tmp_path / "reloaded.py").write_text(f"{text}def f(a, b, c): ...\n")
    importlib.reload(module)
    del sys.modules["reloaded"]


def test_functions_under_one_prefix_that_are_gone(monkeypatch):
    def make(function):
        cache_memoize(prefix="taken.gone")(function)

    make(of_one)
    gc.collect()
    make(of_two)
