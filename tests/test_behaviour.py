"""What a memoized function promises, in every world: sync and async, each backend."""

from __future__ import annotations

import datetime
import math

import pytest
from django.core.cache.backends.base import DEFAULT_TIMEOUT

from cache_memoize import UnkeyableArgument
from cache_memoize.cache import record
from cache_memoize.cache.store import Store
from tests.conftest import ATOMIC, in_thread


class Counted:
    """A function that says how often it ran."""

    def __init__(self, result=None):
        self.runs = 0
        self.result = result

    def __call__(self, *args, **kwargs):
        self.runs += 1
        return self.result if self.result is not None else (self.runs, *args)


def one_after_another(results):
    """A function that gives, or raises, what is in the list."""

    def function():
        result = results.pop(0)
        if isinstance(result, Exception):
            raise result
        return result

    return function


def counted(world, *args, result=None, **options):
    body = Counted(result)

    def function(x=0, y=0):
        return body(x, y)

    memoized = world.memoize(*args, **options)(function)
    return memoized, body


def test_a_hit_does_not_run_the_function(world):
    f, body = counted(world, 60)
    assert f(1) == f(1) == (1, 1, 0)
    assert body.runs == 1
    info = f.cache_info()
    assert (info.hits, info.misses, info.errors, info.breaker) == (1, 1, 0, "closed")
    assert info.saved >= 0


def test_every_spelling_of_a_call_is_one_call(world):
    f, body = counted(world, 60)
    assert f(1) == f(x=1) == f(1, y=0) == f(y=0, x=1)
    assert body.runs == 1
    f.invalidate(x=1)
    f(1)
    assert body.runs == 2


def test_invalidate_forgets_this_call_and_no_other(world):
    f, body = counted(world, 60)
    f(1), f(2)
    f.invalidate(1)
    assert f(2) == (2, 2, 0)
    assert f(1) == (3, 1, 0)


def test_invalidating_what_is_not_cached_is_fine_and_twice_too(world):
    f, body = counted(world, 60)
    f.invalidate(1)
    f.invalidate(1)
    assert f(1) == (1, 1, 0) and f(1) == (1, 1, 0)


def test_refresh_computes_anew_and_stores(world):
    f, body = counted(world, 60)
    f(1)
    assert f(1, _refresh=True) == (2, 1, 0)
    assert f.refresh(1) == (3, 1, 0)
    assert f(1) == (3, 1, 0)
    assert f(2, _refresh=True) == (4, 2, 0) == f(2)


def test_readers_keep_the_old_value_during_a_refresh(world):
    seen = []

    def function(x):
        seen.append(f.peek(1) if world.kind == "sync" else None)
        return len(seen)

    f = world.memoize(60)(function)
    assert f(1) == 1
    assert f.refresh(1) == 2
    if world.kind == "sync" and world.alias not in ("unknown", "pylibmc_without_cas"):
        assert seen[1].value == 1
    assert f(1) == 2


def test_a_refresh_that_raises_leaves_the_old_value(world):
    results = [1, ValueError("no"), 3]
    f = world.memoize(60)(one_after_another(results))
    assert f() == 1
    with pytest.raises(ValueError, match="no"):
        f.refresh()
    if world.alias not in ("unknown", "pylibmc_without_cas"):
        assert f() == 1


def test_none_is_a_result_like_any_other(world):
    runs = []
    f = world.memoize(60)(lambda_free(runs))
    assert f() is None and f() is None
    assert runs == [1]


def lambda_free(runs):
    def function():
        runs.append(1)

    return function


def test_peek_never_computes_and_prime_stores(world):
    f, body = counted(world, 60)
    assert f.peek(1) is None
    f.prime("given", 1)
    assert f(1) == "given" and body.runs == 0
    entry = f.peek(1)
    assert (entry.value, entry.age, entry.stale) == ("given", 0, False)
    world.clock.tick(10)
    assert f.peek(1).age == pytest.approx(10)
    f.invalidate(1)
    assert f.peek(1) is None


def test_prime_refuses_what_cannot_be_stored_and_loses_nothing(world):
    f, body = counted(world, 60)
    f.prime("given", 1)
    with pytest.raises(TypeError, match=r"prime\(\): a generator cannot be stored"):
        f.prime((i for i in ()), 1)
    assert f(1) == "given"


@pytest.mark.parametrize(
    "timeout, alive, dead",
    [
        (0.5, 0.4, 0.2),
        (10, 9, 2),
        (datetime.timedelta(minutes=1), 59, 2),
        (31 * 86400, 30 * 86400, 2 * 86400),
        (None, 10 * 365 * 86400, None),
    ],
)
def test_a_value_lives_as_long_as_its_timeout(world, timeout, alive, dead):
    f, body = counted(world, timeout)
    f(1)
    world.clock.tick(alive)
    assert f(1) == (1, 1, 0)
    if dead is not None:
        world.clock.tick(dead)
        assert f.peek(1) is None
        assert f(1) == (2, 1, 0) == f(1)


def test_the_backends_own_timeout(world):
    f, body = counted(world, DEFAULT_TIMEOUT)
    f(1)
    world.clock.tick(299)
    assert f(1) == (1, 1, 0)
    world.clock.tick(2)
    assert f(1) == (2, 1, 0)


def test_a_timeout_of_zero_stores_nothing(world):
    f, body = counted(world, 0)
    assert f(1) != f(1)
    f.prime("given", 1)
    assert f(1) == (3, 1, 0) and f.refresh(1) == (4, 1, 0)
    assert world.raw(f.get_cache_key(1)) is None


def test_a_timeout_may_depend_on_the_result_and_the_arguments(world):
    def timeout(result, x=0, y=0):
        return {1: 5, 2: None, 3: 0}[x]

    f, body = counted(world, timeout=timeout)
    f(1), f(2), f(3)
    world.clock.tick(6)
    assert [f(1)[0], f(2)[0], f(3)[0]] == [4, 2, 5]


def test_a_timeout_that_cannot_be_right_says_so_and_stores_nothing(world):
    f, body = counted(world, timeout=lambda result, *args: "1h")
    with pytest.raises(TypeError, match="timeout= of .* takes seconds"):
        f(1)
    assert f.peek(1) is None


def test_age_counts_from_the_start_of_the_computation(world):
    def function():
        world.clock.tick(4)
        return 1

    f = world.memoize(10)(function)
    f()
    assert f.peek().age == pytest.approx(4)
    world.clock.tick(5.5)
    assert f.peek().age == pytest.approx(9.5)
    world.clock.tick(1)
    assert f.peek() is None


def test_cache_if_decides_what_is_stored(world):
    f, body = counted(world, 60, cache_if=lambda result, x=0, y=0: x > 1)
    assert f(1) != f(1)
    assert f(2) == f(2)


def test_hooks_get_the_call_in_one_form_and_may_fail(world, caplog):
    calls = []

    def hit(*args, **kwargs):
        calls.append(("hit", args, kwargs))
        raise RuntimeError("hook")

    def miss(*args, **kwargs):
        calls.append(("miss", args, kwargs))
        raise RuntimeError("hook")

    f, body = counted(world, 60, hit_callable=hit, miss_callable=miss)
    assert f(1, y=2) == f(1, y=2)
    assert calls == [("miss", (1, 2), {}), ("hit", (1, 2), {})]
    assert caplog.text.count("the call goes on") == 2
    f.refresh(1, y=2)
    assert calls[2] == ("miss", (1, 2), {})


def test_a_guard_runs_once_and_pickles_nothing_of_its_result(world):
    runs = []

    def function(x):
        runs.append(x)
        return (i for i in ())  # cannot be pickled

    f = world.memoize(60, store_result=False)(function)
    assert f(1) is not True
    assert f(1) is True and f(1) is True
    assert runs == [1]
    f.invalidate(1)
    f(1)
    assert runs == [1, 1]
    assert f.peek(1).value is True
    f.prime("anything", 2)
    assert f(2) is True


class Custom(Exception):
    def __init__(self, code, *, hint):
        super().__init__(f"code {code}")
        self.code = code
        self.hint = hint


def test_exceptions_are_stored_and_raised_again(world):
    runs = []

    def function(kind):
        runs.append(kind)
        if kind == "custom":
            raise Custom(7, hint="mind the gap")
        raise ValueError("plain", 1)

    f = world.memoize(60, cache_exceptions=(Custom, ValueError))(function)
    for _ in range(3):
        with pytest.raises(Custom, match="code 7") as caught:
            f("custom")
        assert (caught.value.code, caught.value.hint) == (7, "mind the gap")
    lengths = set()
    for _ in range(4):
        with pytest.raises(ValueError) as caught:
            f("plain")
        assert caught.value.args == ("plain", 1)
        lengths.add(len(caught.traceback))
    assert runs == ["custom", "plain"]
    assert len(lengths) <= 2  # the computing call, and all others alike
    assert isinstance(f.peek("custom").value, Custom)


def test_an_exception_that_was_returned_is_a_value(world):
    f, body = counted(
        world, 60, result=ValueError("a value"), cache_exceptions=ValueError
    )
    assert isinstance(f(1), ValueError) and isinstance(f(1), ValueError)
    assert body.runs == 1


def test_other_exceptions_pass_and_the_next_call_is_stored_again(world):
    results = [ValueError(), KeyError(), 3]
    f = world.memoize(60, cache_exceptions=IndexError)(one_after_another(results))
    for error in (ValueError, KeyError):
        with pytest.raises(error):
            f()
    assert f() == 3 == f()


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
def test_a_stop_inside_the_function_frees_the_key(world, stop):
    results = [stop, 3]

    def function():
        result = results.pop(0)
        if result is stop:
            raise stop
        return result

    f = world.memoize(60)(function)
    with pytest.raises(stop):
        f()
    assert f() == 3 == f()


def test_one_callers_changes_do_not_show_in_anothers_result(world):
    f, body = counted(world, 60, result=[1])
    f().append(2)
    f().append(3)
    assert f() == [1]


def test_results_that_cannot_be_pickled_are_returned_and_warned_of_once(world, caplog):
    runs = []

    def function():
        runs.append(1)
        return (i for i in range(2))

    f = world.memoize(60)(function)
    assert list(f()) == list(f()) == [0, 1]
    assert caplog.text.count("cannot be pickled") == 1
    assert f.cache_info().errors == 2


def test_a_result_nested_too_deeply_is_returned(world):
    nested = []
    for _ in range(100_000):
        nested = [nested]
    f, body = counted(world, 60, result=nested)
    assert f() is nested


GARBAGE = [
    42,
    "text",
    b"",
    b"bytes",
    b"x" * 40,
    None,
    ("a", "tuple"),
    record.pack(record.ENTRY, b"t" * 8, b"no pickle", start=2e9 * 0, timeout=math.inf),
]


@pytest.mark.parametrize("garbage", GARBAGE, ids=range(len(GARBAGE)))
def test_what_is_not_ours_or_unreadable_is_a_miss_and_overwritten(world, garbage):
    f, body = counted(world, 60)
    world.cache.set(f.get_cache_key(1), garbage, 60)
    assert f.peek(1) is None
    assert f(1) == (1, 1, 0) == f(1)


def test_an_unreadable_entry_is_a_miss_also_for_peek_and_refresh(world):
    f, body = counted(world, 60)
    now = world.clock.time()
    bad = record.pack(record.ENTRY, b"t" * 8, b"no pickle", start=now, timeout=60)
    world.cache.set(f.get_cache_key(1), bad, 60)
    assert f.peek(1) is None
    assert f(1) == (1, 1, 0) == f(1)
    world.cache.set(f.get_cache_key(1), 42, 60)
    assert f.refresh(1) == (2, 1, 0) == f(1)


def test_an_entry_from_far_in_the_future_is_a_miss(world):
    f, body = counted(world, 60)
    world.clock.tick(2 * 3600)
    f(1)
    world.clock.tick(-2 * 3600)
    assert f(1) == (2, 1, 0) == f(1)


def test_a_clock_that_is_a_little_wrong_does_not_matter(world):
    f, body = counted(world, 3600)
    world.clock.tick(600)
    f(1)
    world.clock.tick(-600)
    assert f(1) == (1, 1, 0)


def test_arguments_nobody_can_tell_apart_are_refused_before_anything_runs(world):
    f, body = counted(world, 60)
    with pytest.raises(UnkeyableArgument, match="'y' of type builtins.object") as error:
        f(1, object())
    assert body.runs == 0
    assert "args_rewrite=" in str(error.value) and "ignore=" in str(error.value)


def test_a_call_that_does_not_fit_is_refused_before_anything_runs(world):
    f, body = counted(world, 60)
    with pytest.raises(TypeError, match="too many positional arguments"):
        f(1, 2, 3)
    with pytest.raises(TypeError, match="unexpected keyword argument 'z'"):
        f.invalidate(z=1)
    assert body.runs == 0


def test_an_error_of_the_timeout_does_not_hide_the_functions_own(world, caplog):
    def function():
        raise ValueError("mine")

    f = world.memoize(timeout=lambda result: result["ttl"], cache_exceptions=ValueError)
    g = f(function)
    for _ in range(2):
        with pytest.raises(ValueError, match="mine"):
            g()
    assert "the exception was not stored" in caplog.text
    assert world.clock.sleeps == [], "the key was freed"


def test_an_error_of_cache_if_is_not_taken_for_the_functions(world):
    def cache_if(result):
        raise KeyError("cache_if")

    f = world.memoize(60, cache_if=cache_if, cache_exceptions=Exception)(lambda: 1)
    for _ in range(2):
        with pytest.raises(KeyError, match="cache_if"):
            f()
    assert f.peek() is None and world.clock.sleeps == []


def test_priming_with_what_is_not_to_be_stored_forgets_the_old_value(world):
    f = world.memoize(timeout=lambda result: 60 if result == 1 else 0)(lambda: 1)
    assert f() == 1
    f.prime(2)
    assert f.peek() is None


def test_prime_may_be_given_an_argument_named_value(world):
    f = world.memoize(60)(lambda value: value)
    f.prime("given", value=1)
    assert f(1) == "given"


@pytest.mark.backends(ATOMIC)
def test_a_refresh_that_fails_does_not_lose_what_was_primed_meanwhile(
    world, monkeypatch
):
    """It stamps the old entry between the two commands of prime()."""
    results = [1, ValueError("broken")]
    f = world.memoize(60)(one_after_another(results))
    assert f() == 1
    world.clock.tick(1)
    original = Store.swap

    async def between(self, key, old, new, seconds):
        if results and record.parse(new).start > record.parse(old).start:
            monkeypatch.setattr(Store, "swap", original)
            with pytest.raises(ValueError, match="broken"):
                in_thread(f.refresh)
        return await original(self, key, old, new, seconds)

    monkeypatch.setattr(Store, "swap", between)
    f.prime(5)
    assert results == []
    assert f() == 5
