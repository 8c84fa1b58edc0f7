"""What cache_memoize.testing promises, in every kind of test that Django has."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import unittest

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.conf import settings
from django.core.cache import caches
from django.core.cache.backends import locmem
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed
from django.db import transaction
from django.http import HttpResponse
from django.test import (
    Client,
    SimpleTestCase,
    TestCase,
    TransactionTestCase,
    override_settings,
)
from django.urls import path

from cache_memoize import cache_memoize, conf, invalidate_tags
from cache_memoize.cache import breaker
from cache_memoize.protocol import threads as pool
from cache_memoize.testing import (
    World,
    assert_hits,
    disabled,
    in_memory,
)
from tests.conftest import FakeClock, in_thread
from tests.models import Post

runs: list = []
CLOCK = FakeClock()
BEFORE = settings.CACHE_MEMOIZE


@cache_memoize(60, tags="double")
def double(x):
    runs.append(x)
    return 2 * x


@cache_memoize(60)
def other(x):
    return x


@cache_memoize(60)
async def adouble(x):
    runs.append(x)
    return 2 * x


@cache_memoize(10, stale=60, _clock=CLOCK)
def aging():
    runs.append("aging")
    return len(runs)


@cache_memoize(60, cache_alias="away")
def on_a_server(x):
    runs.append(x)
    return x


class Shop:
    @cache_memoize(60)
    def price(self, item):
        return item

    @property
    @cache_memoize(60)
    def name(self):
        return "shop"

    def __memoize_key__(self):
        return "shop"


def view(request):
    return HttpResponse(double(21))


urlpatterns = [path("double", view)]


@pytest.fixture(autouse=True)
def clean():
    runs.clear()
    yield
    double.invalidate_all()


def ran(function, *calls):
    """How often the bodies ran for these calls."""
    before = len(runs)
    for call in calls:
        function(call)
    return len(runs) - before


# --- disabled() ----------------------------------------------------------------------


def test_disabled_runs_the_function_every_time():
    assert ran(double, 1, 1) == 1
    with disabled():
        assert ran(double, 1, 1) == 2
        assert double.peek(1) is None  # it is there, but nothing is read
    assert ran(double, 1) == 0


def test_disabled_leaves_the_rest_of_the_setting_alone():
    with (
        override_settings(CACHE_MEMOIZE={"ON_ERROR": "raise", "KEY_PREFIX": "x"}),
        disabled(),
    ):
        assert settings.CACHE_MEMOIZE == {
            "ON_ERROR": "raise",
            "KEY_PREFIX": "x",
            "ENABLED": False,
        }
    assert settings.CACHE_MEMOIZE == BEFORE


@pytest.mark.parametrize("block", [disabled, in_memory])
def test_a_setting_that_is_wrong_is_said_and_nothing_is_changed(block):
    before = settings.CACHES
    with override_settings(CACHE_MEMOIZE={"ENABELD": False}):
        with pytest.raises(ImproperlyConfigured, match="did you mean ENABLED"):
            block().__enter__()
        with override_settings(CACHE_MEMOIZE=[]), pytest.raises(ImproperlyConfigured):
            block().__enter__()
        assert settings.CACHES is before


@pytest.mark.parametrize("block", [disabled, in_memory])
def test_what_a_receiver_of_the_setting_raises_leaves_nothing_changed(block):
    def broken(setting, enter, **kwargs):
        if setting == "CACHE_MEMOIZE" and enter:
            raise RuntimeError("a receiver")

    before, breakers = settings.CACHES, dict(breaker._breakers)
    setting_changed.connect(broken)
    try:
        with pytest.raises(RuntimeError, match="a receiver"):
            block().__enter__()
    finally:
        setting_changed.disconnect(broken)
    assert settings.CACHES is before
    assert breaker._breakers == breakers


def test_the_innermost_counts():
    with in_memory():
        assert ran(double, 1, 1) == 1
        with disabled():
            assert ran(double, 1, 1) == 2
            with in_memory():
                assert ran(double, 1, 1) == 1
                with override_settings(CACHE_MEMOIZE={"ENABLED": False}):
                    assert ran(double, 1) == 1
                assert ran(double, 1) == 0
            assert ran(double, 1) == 1
        assert ran(double, 1) == 0


# --- in_memory() ---------------------------------------------------------------------


def test_in_memory_begins_empty_and_leaves_nothing():
    assert ran(double, 1) == 1
    kept = dict(locmem._caches), dict(locmem._locks), dict(locmem._expire_info)
    with in_memory():
        assert ran(double, 1, 1) == 1
        with in_memory():
            assert ran(double, 1, 1) == 1
            double.invalidate(1)
        assert ran(double, 1) == 0
        double.invalidate(1)
    assert ran(double, 1) == 0
    assert kept == (locmem._caches, locmem._locks, locmem._expire_info)


def test_one_block_can_be_entered_again_and_in_itself():
    block = in_memory()
    for _ in range(2):
        with block:
            assert ran(double, 1, 1) == 1
            with block:
                assert ran(double, 1, 1) == 1
            assert ran(double, 1) == 0


def test_in_memory_needs_no_server_even_if_it_was_down_before():
    redis = "django.core.cache.backends.redis.RedisCache"
    away = {"BACKEND": redis, "LOCATION": "redis://127.0.0.1:1"}
    local = settings.CACHES["default"]
    with override_settings(CACHES={"default": local, "away": away}):
        for n in range(breaker.THRESHOLD):
            on_a_server(n)
        assert on_a_server.cache_info().breaker == "open"
        with in_memory():
            assert on_a_server.cache_info().breaker == "closed"
            assert ran(on_a_server, 1, 1) == 1
            invalidate_tags("double")  # goes to every alias there is
        assert on_a_server.cache_info().breaker == "open"
        assert ran(on_a_server, 1, 1) == 2


def test_each_alias_has_a_memory_of_its_own_with_its_own_settings():
    given = {
        "default": {
            "BACKEND": "django.core.cache.backends.redis.RedisCache",
            "LOCATION": ["redis://[::1]:1"],
            "KEY_PREFIX": "site",
            "VERSION": 3,
            "TIMEOUT": 5,
            "KEY_FUNCTION": "tests.test_testing.key_function",
            "OPTIONS": {"socket_timeout": 1},
        },
        "small": {
            "BACKEND": "django.core.cache.backends.db.DatabaseCache",
            "LOCATION": "table",
            "TIMEOUT": None,
            "OPTIONS": {"MAX_ENTRIES": 10, "CULL_FREQUENCY": 2},
        },
        "nothing": {"BACKEND": "django.core.cache.backends.dummy.DummyCache"},
    }
    with override_settings(CACHES=given), in_memory():
        default, small, nothing = (caches[alias] for alias in given)
        assert {type(cache) for cache in (default, small, nothing)} == {
            locmem.LocMemCache
        }
        assert (default.key_prefix, default.version) == ("site", 3)
        assert (default.default_timeout, small.default_timeout) == (5, None)
        assert default.make_key("k") == "mine/site/3/k"
        assert (small._max_entries, small._cull_frequency) == (10, 2)
        for number in range(500):  # more than Django's 300
            default.set(f"n{number}", number)
        assert len(default._cache) == 500
        assert small.get("n1") is None
        nothing.set("there", 1)
        assert nothing.get("there") == 1
    assert given["default"]["OPTIONS"] == {"socket_timeout": 1}  # not changed


def key_function(key, prefix, version):
    return f"mine/{prefix}/{version}/{key}"


def test_clear_empties_this_world_and_no_other():
    double(1)
    with in_memory() as outer:
        assert isinstance(outer, World)
        double(1)
        with in_memory() as inner:
            double(1)
            inner.clear()
            assert ran(double, 1) == 1
        inner.clear()
        assert ran(double, 1) == 0
        with override_settings(CACHES={"default": settings.CACHES["default"]}):
            assert ran(double, 1) == 0
    outer.clear()
    assert ran(double, 1) == 0


def test_threads_started_inside_are_inside():
    double(1)
    with in_memory():
        assert in_thread(lambda: ran(double, 1, 1)) == 1
        assert ran(double, 1) == 0
        with disabled():
            assert in_thread(lambda: ran(double, 1, 1)) == 2


def test_a_thread_that_lives_on_comes_along():
    """It keeps cache objects of its own, and must not use those of another world."""
    went, begin = [], threading.Event()
    steps = [threading.Event() for _ in range(3)]

    def work():
        for step in steps:
            begin.wait(10)
            begin.clear()
            went.append(ran(double, 1, 1))
            step.set()

    def next_step(number):
        begin.set()
        assert steps[number].wait(10)

    thread = threading.Thread(target=work)
    thread.start()
    next_step(0)
    with in_memory():
        next_step(1)
    next_step(2)
    thread.join()
    assert went == [1, 1, 0]


def test_a_refresh_in_the_background_ends_with_the_world():
    """It must not run into the next test, nor into the caches outside."""
    release, started, ended = threading.Event(), threading.Event(), []

    @cache_memoize(10, stale=60, prefix="slow", _clock=CLOCK)
    def slow():
        if ended or threading.current_thread() is not threading.main_thread():
            started.set()
            release.wait(10)
            ended.append(1)
        return 1

    with in_memory():
        slow()
        CLOCK.tick(11)
        with assert_hits(1, slow):
            slow()
        assert started.wait(10) and not ended
        threading.Timer(0.05, release.set).start()
    assert ended == [1] and not pool._threads
    assert slow.peek() is None


def test_a_refresh_in_a_task_that_ends_later_stores_nothing_outside():
    clock = FakeClock()
    begun = []

    @cache_memoize(10, stale=60, prefix="slow task", _clock=clock)
    async def slow():
        begun.append(1)
        if len(begun) == 2:
            await release.wait()
        return len(begun)

    async def work():
        with in_memory():
            await slow()
            clock.tick(11)
            with assert_hits(1, slow):
                await slow()
        release.set()
        while len(begun) < 2 or len(asyncio.all_tasks()) > 1:
            await asyncio.sleep(0)
        return await slow.apeek()

    release = asyncio.Event()
    assert asyncio.run(work()) is None
    assert len(begun) == 2


# --- above functions and methods -----------------------------------------------------


@in_memory()
def a_function(given):
    return ran(double, given, given)


@disabled()
async def a_coroutine_function(given):
    await adouble(given)
    await adouble(given)
    return len(runs)


class Methods:
    @disabled()
    def method(self, given):
        return ran(double, given, given)

    @in_memory()
    async def amethod(self, given):
        await adouble(given)
        await adouble(given)
        return len(runs)

    @staticmethod
    @in_memory()
    def static(given):
        return ran(double, given, given)


def test_above_functions_and_methods():
    double(1)
    runs.clear()
    assert (a_function(1), a_function(1)) == (1, 1)
    assert Methods().method(1) == 2 and Methods.static(1) == 1
    runs.clear()
    assert asyncio.run(a_coroutine_function(1)) == 2
    runs.clear()
    assert asyncio.run(Methods().amethod(1)) == 1
    assert ran(double, 1) == 0


def test_what_yields_cannot_be_decorated():
    """It would be outside of the block while it runs."""
    with pytest.raises(TypeError, match=r"write `with in_memory\(\):` in the function"):

        @in_memory()
        def generator():
            yield

    with pytest.raises(TypeError, match=r"with disabled\(\)"):

        @disabled()
        async def agenerator():
            yield


def test_a_class_that_is_no_test_case_cannot_be_decorated():
    with pytest.raises(TypeError, match=r'@pytest.mark.memoize\("disabled"\)'):

        @disabled()
        class Other:
            pass


# --- above classes of tests ----------------------------------------------------------


@in_memory()
class InMemoryTests(TestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.in_class = ran(double, 1, 1)

    @classmethod
    def setUpTestData(cls):
        cls.posts = [Post.objects.create(title="one")]
        cls.of_data = ran(double, 0, 0)

    def setUp(self):
        self.in_set_up = ran(double, 1, 1)
        self.addCleanup(self.in_clean_up)

    def in_clean_up(self):
        assert ran(double, 1) == 0

    def test_every_test_begins_empty(self):
        assert (self.in_class, self.of_data, self.in_set_up) == (1, 1, 1)
        assert ran(double, 2) == 1

    def test_every_test_begins_empty_indeed(self):
        self.test_every_test_begins_empty()

    async def test_async(self):
        assert self.in_set_up == 1
        assert await sync_to_async(ran)(double, 1, 3, 3) == 1

    @disabled()
    def test_what_is_above_a_method_counts_more(self):
        assert ran(double, 1, 1) == 2

    @override_settings(CACHE_MEMOIZE={"ENABLED": False})
    def test_what_the_settings_of_a_method_say_counts_more(self):
        assert ran(double, 1, 1) == 2


class SubclassTests(InMemoryTests):
    """Is in memory too."""


@disabled()
class DisabledSubclassTests(InMemoryTests):
    """What is above the subclass counts last."""

    def setUp(self):
        assert ran(double, 1, 1) == 2

    def test_every_test_begins_empty(self):
        assert (self.in_class, self.of_data) == (2, 2)

    async def test_async(self):
        assert await sync_to_async(ran)(double, 1, 1) == 2

    def in_clean_up(self):
        raise NotImplementedError

    @in_memory()
    def test_a_memory_of_its_own(self):
        assert ran(double, 1, 1) == 1


@override_settings(CACHE_MEMOIZE={"ON_ERROR": "raise"}, EMAIL_SUBJECT_PREFIX="x")
@disabled()
class WithSettingsAboveTests(TestCase):
    """The settings of the class come first, wherever they stand."""

    @classmethod
    def setUpTestData(cls):
        cls.of_data = ran(double, 1, 1)

    def test_it(self):
        assert self.of_data == 2 == ran(double, 1, 1)
        assert settings.CACHE_MEMOIZE == {"ON_ERROR": "raise", "ENABLED": False}
        assert settings.EMAIL_SUBJECT_PREFIX == "x"

    def test_it_again(self):
        self.test_it()


@disabled()
@override_settings(CACHE_MEMOIZE={"ON_ERROR": "raise"})
class WithSettingsBelowTests(WithSettingsAboveTests):
    pass


@in_memory()
@disabled()
class TwiceTests(SimpleTestCase):
    def test_the_one_above_counts_last(self):
        assert ran(double, 1, 1) == 1


@in_memory()
class TransactionTests(TransactionTestCase):
    def test_it(self):
        assert ran(double, 1, 1) == 1
        with transaction.atomic():
            Post.objects.create(title="t")
            double.invalidate(1)
            assert ran(double, 1, 1) == 2
        assert ran(double, 1, 1) == 1

    def test_it_again(self):
        self.test_it()


class PlainTests(unittest.TestCase):
    def test_it(self):
        assert ran(double, 1, 1) == 1

    def test_it_again(self):
        self.test_it()


PlainTests = in_memory()(PlainTests)


def test_settings_are_as_before_a_class_even_if_its_set_up_fails():
    class Failing(SimpleTestCase):
        @classmethod
        def setUpClass(cls):
            super().setUpClass()
            raise RuntimeError("in setUpClass")

        def test_it(self):
            raise NotImplementedError

    failing = in_memory()(override_settings(CACHE_MEMOIZE={})(Failing))
    before, result = settings.CACHES, unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(failing).run(result)
    assert len(result.errors) == 1 and "in setUpClass" in result.errors[0][1]
    assert settings.CACHES is before
    assert failing._overridden_settings == {"CACHE_MEMOIZE": {}}


def test_the_debug_way_of_running_a_test_is_covered_too():
    PlainTests("test_it").debug()
    assert settings.CACHE_MEMOIZE == BEFORE


@pytest.mark.parametrize("block", [disabled, in_memory])
def test_a_block_without_parentheses_is_refused_with_the_cure(block):
    with pytest.raises(TypeError, match=f"@{block.__name__}.., or with "):

        @block
        def test():
            pass


# --- assert_hits() -------------------------------------------------------------------


@pytest.mark.memoize("in_memory")
class TestAssertHits:
    def test_it_counts_one_function(self):
        with assert_hits(2, double) as seen:
            double(1), double(1), double(1), other(1), other(1)
        assert (seen.hits, seen.misses) == (2, 1)
        assert {event.function for event in seen.events} == {double._memoized.path}
        kinds = [event.kind for event in seen.events]
        assert kinds == ["miss", "computed", "hit", "hit"]

    def test_it_counts_all_functions(self):
        with assert_hits(2) as seen:
            double(1), double(1), other(1), other(1)
        assert seen.misses == 2

    def test_it_counts_stale_hits_and_not_what_comes_before_and_after(self):
        aging(), aging()
        CLOCK.tick(11)
        with assert_hits(1, aging) as seen:
            aging()
            assert pool.join()
        aging()
        assert sorted(event.kind for event in seen.events) == ["computed", "stale"]

    def test_blocks_in_blocks(self):
        double(1)
        with assert_hits(2, double), assert_hits(3) as both:
            with assert_hits(1, double) as one:
                double(1)
            with one:  # the same object again
                double(1)
            other(1), other(1)
            assert (one.hits, both.hits) == (1, 3)

    def test_it_names_the_function_and_what_happened_and_no_argument(self):
        with pytest.raises(AssertionError) as caught, assert_hits(2, double):
            double("secret"), double("secret"), double("other"), double("third")
        name = "tests.test_testing.double"
        assert str(caught.value).splitlines() == [
            f"2 hits of {name} were expected, and there were 1 hits and 3 misses",
            "Events in order:",
            f"  miss {name}",
            f"  computed {name}",
            f"  hit {name}",
            f"  miss {name}",
            f"  computed {name}",
            f"  miss {name}",
            f"  computed {name}",
        ]

    def test_it_says_the_same_once_and_not_everything(self):
        double(0)
        with pytest.raises(AssertionError) as caught, assert_hits(0):
            for _ in range(5):
                double(0)
            for number in range(1, 40):
                double(number)
            invalidate_tags("double", cache_alias="default")
        text = str(caught.value)
        assert "0 hits of all functions were expected, and there were 5 hits" in text
        assert "  hit tests.test_testing.double (5 times)\n" in text
        assert text.endswith("\n  and 50 more")
        assert len(text.splitlines()) == 33

    def test_it_says_that_nothing_happened(self):
        with pytest.raises(AssertionError, match="There was no event$"), assert_hits(1):
            pass

    @disabled()
    def test_it_says_that_memoizing_is_disabled(self):
        with (
            pytest.raises(AssertionError, match="disabled: .* is False\nEvents"),
            assert_hits(1, double),
        ):
            double(1), double(1)
        with assert_hits(0, double):
            double(1), double(1)

    def test_it_says_that_a_cache_stores_nothing(self):
        dummy = {"default": {"BACKEND": "django.core.cache.backends.dummy.DummyCache"}}
        with (
            override_settings(CACHES=dummy),
            pytest.raises(AssertionError, match="The cache 'default' stores nothing"),
            assert_hits(1, double),
        ):
            double(1), double(1)

    def test_it_says_that_django_is_not_set_up(self, monkeypatch):
        monkeypatch.setattr("django.apps.apps.ready", False)
        with (
            pytest.raises(AssertionError, match=r"before django.setup\(\) has"),
            assert_hits(1, double),
        ):
            double(1), double(1)

    def test_an_error_in_the_block_comes_first_and_the_receivers_go(self):
        with pytest.raises(ZeroDivisionError), assert_hits(1, double) as seen:
            double(1 / 0)
        with pytest.raises(AssertionError), assert_hits(1, double):
            pass
        double(1)
        assert seen.events == []

    def test_methods_properties_and_what_is_decorated_again(self):
        import functools

        @functools.wraps(double)
        def above(x):
            return double(x)

        shop = Shop()
        for function, call in [
            (shop.price, lambda: shop.price(1)),
            (Shop.price, lambda: shop.price(2)),
            (Shop.name, lambda: shop.name),
            (above, lambda: above(1)),
        ]:
            with assert_hits(1, function):
                call(), call()

    @pytest.mark.parametrize(
        "arguments, error, said",
        [
            ((double,), TypeError, r"assert_hits\(1, f\)"),
            ((True,), TypeError, "the number of hits"),
            ((-1,), ValueError, "a number of 0 or more"),
            ((1, len), TypeError, "len is not memoized"),
            ((1, 5), TypeError, "5 is not memoized"),
        ],
    )
    def test_what_is_no_number_or_no_memoized_function(self, arguments, error, said):
        with pytest.raises(error, match=said):
            assert_hits(*arguments)

    def test_outside_of_a_with_it_warns(self):
        with pytest.warns(
            RuntimeWarning, match=r"assert_hits\(7\) has counted nothing"
        ):
            assert_hits(7)
            gc.collect()

    @pytest.mark.filterwarnings("error")
    def test_what_was_refused_does_not_warn(self):
        with pytest.raises(ValueError):
            assert_hits(-1)
        gc.collect()

    def test_async_code(self):
        async def work():
            with assert_hits(3, adouble) as seen:
                await adouble(1)
                await asyncio.gather(*(adouble(1) for _ in range(3)))
            return seen.misses

        assert asyncio.run(work()) == 1

    def test_threads(self):
        with assert_hits(4, double) as seen:
            double(1)
            threads = [threading.Thread(target=double, args=(1,)) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert seen.misses == 1

    def test_map(self):
        double(1)
        with assert_hits(1, double) as seen:
            double.map([1, 2])
        assert seen.misses == 1


# --- with what else Django's tests do ------------------------------------------------


@in_memory()
@override_settings(ROOT_URLCONF="tests.test_testing")
class RequestTests(TestCase):
    def test_requests_are_inside(self):
        with assert_hits(1, double):
            for _ in range(2):
                assert self.client.get("/double").content == b"42"

    @disabled()
    def test_requests_are_disabled(self):
        with assert_hits(0, double) as seen:
            self.client.get("/double"), self.client.get("/double")
        assert seen.misses == 2

    async def test_async_requests_are_inside(self):
        with assert_hits(1, double):
            await self.async_client.get("/double")
            await self.async_client.get("/double")

    def test_an_invalidation_counts_for_others_from_the_commit_on(self):
        double(1)
        with self.captureOnCommitCallbacks(execute=True) as callbacks:
            with transaction.atomic():
                Post.objects.create(title="t")
                double.invalidate(1)
                assert ran(double, 1) == 1  # this transaction computes
            assert callbacks == []
        assert len(callbacks) == 1
        assert in_thread(lambda: ran(double, 1, 1)) == 1

    def test_without_the_commit_nothing_new_is_stored_for_others(self):
        double(1)
        with transaction.atomic():
            Post.objects.create(title="t")
            double.invalidate(1)
        assert in_thread(lambda: ran(double, 1, 1)) == 2


def test_a_client_without_a_test_case(memoize_cache):
    with (
        override_settings(ROOT_URLCONF="tests.test_testing"),
        memoize_cache.assert_hits(1, double),
    ):
        Client().get("/double"), Client().get("/double")


def test_entering_a_world_is_quick(memoize_cache):
    """A suite of 10,000 tests pays it 10,000 times. Generous: about 1 ms here."""
    times = []
    for _ in range(5):
        began = time.perf_counter()
        with in_memory():
            pass
        times.append(time.perf_counter() - began)
    assert min(times) < 0.25


@pytest.mark.memoize("disabled")
def test_the_setting_can_be_changed_and_is_checked():
    more = {"ENABLED": False, "KEY_PREFIX": "x"}
    assert conf.changed(KEY_PREFIX="x") == BEFORE | more


@pytest.mark.memoize("in_memory")
def test_async_to_sync_and_back():
    async def twice():
        return await sync_to_async(double)(1), await adouble(1), await adouble(1)

    with assert_hits(1) as seen:
        assert async_to_sync(twice)() == (2, 2, 2)
    assert seen.misses == 2
