"""Settings for all functions are read when the functions are used."""

from __future__ import annotations

import functools
import gc
import inspect
import os
import signal
import subprocess
import sys
import threading
import weakref
from datetime import timedelta

import pytest
from asgiref.sync import async_to_sync
from django.apps import apps
from django.core.cache import caches
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings
from django.utils import translation

from cache_memoize import (
    cache_memoize,
    invalidate_tags,
    planning,
    signals,
)
from tests.conftest import FakeClock, plan_of


def project(**said):
    return override_settings(CACHE_MEMOIZE=said)


def memoized(*args, _kind="sync", **options):
    """A memoized function that returns the number of its run."""
    runs = []

    def function(x=0):
        runs.append(x)
        return len(runs)

    async def twin(x=0):
        return function(x)

    options.setdefault("prefix", "test_core")
    if _kind == "sync":
        return cache_memoize(*args, **options)(function)
    f = cache_memoize(*args, **options)(twin)
    call = async_to_sync(f)
    call.f = f
    return call


@pytest.fixture(autouse=True)
def clean():
    yield
    for alias in ("default", "locmem"):
        caches[alias].clear()


@pytest.fixture(params=["sync", "async"])
def kind(request):
    return request.param


# --- DEFAULTS ------------------------------------------------------------------------


def test_the_projects_timeout_applies_where_none_is_given(kind):
    clock = FakeClock()
    f = memoized(_clock=clock, _kind=kind)
    own = memoized(60, _clock=clock, _kind=kind, prefix="own")
    with project(DEFAULTS={"timeout": 10}):
        assert (f(), own()) == (1, 1)
        clock.tick(20)
        assert (f(), own()) == (2, 1)


def test_a_given_option_wins_even_if_it_is_the_librarys_default():
    f = memoized(60, stale=0, tags=None, cache_alias="default")
    with project(DEFAULTS={"stale": 60, "tags": (), "cache_alias": "locmem"}):
        assert f() == 1
        assert plan_of(f).policy.stale == 0
        assert plan_of(f).alias == "default" and plan_of(f).tag is None


def test_every_option_of_a_project():
    said = {
        "timeout": timedelta(minutes=1),
        "cache_alias": "locmem",
        "version": 3,
        "cache_exceptions": LookupError,
        "cache_if": lambda result, *args: result is not None,
        "tags": ("all",),
        "stale": 30,
        "early_refresh": 1,
        "jitter": 0.1,
        "wait": 5,
        "lease": 20,
        "hold": 1,
        "local": "request",
        "compress": 1000,
        "max_bytes": 10**6,
        "audit": 0.5,
        "vary_on": ["language"],
        "inherit": False,
        "depends_on": ("tests.Post",),
        "hit_callable": print,
        "miss_callable": print,
    }
    from cache_memoize.options import PROJECT_WIDE

    assert said.keys() == PROJECT_WIDE
    f = memoized()
    plain = f.get_cache_key(1)
    with project(DEFAULTS=said):
        found = plan_of(f)
        assert f.get_cache_key(1) != plain
        assert (found.policy.timeout, found.alias) == (60, "locmem")
        assert (found.policy.lease, found.policy.hold) == (20, 1)
        assert found.hit.__wrapped__ is found.miss.__wrapped__ is print
        f(1), invalidate_tags("all", cache_alias="locmem"), f.invalidate_all()
    assert f.get_cache_key(1) == plain and plan_of(f).alias == "default"


def test_a_guard_takes_no_stale_from_the_project():
    guard = memoized(60, store_result=False)
    with project(DEFAULTS={"stale": 60, "early_refresh": 1, "lease": 7}):
        assert guard() == 1 and guard() is True
        assert plan_of(guard).policy.stale == 0 and plan_of(guard).policy.lease == 7


def test_a_default_that_does_not_fit_a_function_names_it_and_the_setting():
    f = memoized()
    for said, trouble in [
        ({"jitter": 2}, "jitter= of .* takes a number from 0 to 1"),
        ({"timeout": "1h"}, "timeout= of .* takes seconds"),
        ({"cache_if": 5}, "has a cache_if= that is not callable"),
        ({"cache_alias": 5}, "cache_alias= that is not the name of a cache"),
        ({"vary_on": ["nothing"]}, "vary_on= of .* names 'nothing'"),
    ]:
        with project(DEFAULTS=said):
            with pytest.raises(ImproperlyConfigured, match=trouble) as caught:
                f()
            assert str(caught.value).startswith(
                "CACHE_MEMOIZE['DEFAULTS'] does not fit tests.test_core.memoized"
            )
            with pytest.raises(ImproperlyConfigured, match=trouble):
                f.invalidate()
    assert f() == 1, "and is right again with right settings"


def test_a_cache_in_the_settings_is_changed_under_a_function_in_use(kind):
    f = memoized(60, _kind=kind)
    assert (f(), f()) == (1, 1)
    with project(DEFAULTS={"cache_alias": "locmem"}):
        assert (f(), f()) == (2, 2)
    assert f() == 1


def test_many_calls_at_once_and_controls_come_first_sometimes():
    for use in (
        lambda f: f.map([1, 2]),
        lambda f: list(f.warm([1])),
        lambda f: f.prime(5, 1),
        lambda f: f.refresh(1),
        lambda f: f.invalidate_all(),
        lambda f: f.peek(1),
        lambda f: f.cache_info(),
    ):
        f = memoized(tags=())
        with project(DEFAULTS={"cache_alias": "locmem"}):
            use(f)
            assert plan_of(f).alias == "locmem"
        assert len(caches["default"]._cache) == 0


# --- ENABLED -------------------------------------------------------------------------


def test_switched_off_a_function_runs_at_every_call(kind):
    f = memoized(60, stale=60, _kind=kind)
    assert (f(), f()) == (1, 1)
    with project(ENABLED=False):
        assert (f(), f()) == (2, 3)
        info = getattr(f, "f", f)
        assert info.peek() is None
        info.prime(99)
        assert f() == 4
    assert f() == 1, "what was stored is still there"


def test_switched_off_invalidate_still_invalidates():
    f = memoized(60)
    f()
    with project(ENABLED=False):
        f.invalidate()
        assert f.map([0, 0, 1]) == [2, 2, 3], "equal items once"
    assert f() == 4


# --- KEY_PREFIX ----------------------------------------------------------------------


def test_two_projects_in_one_cache():
    f = memoized(60)
    generated = memoized(60, key_generator_callable=lambda x=0: "mine")
    keys = {f.get_cache_key()}
    for prefix in ("shop", "blog"):
        with project(KEY_PREFIX=prefix):
            keys.add(f.get_cache_key())
            assert prefix not in f.get_cache_key(), "digested like all else"
            assert generated.get_cache_key() == "mine"
    assert len(keys) == 3


# --- when ----------------------------------------------------------------------------


def test_a_function_may_be_decorated_before_there_are_settings():
    code = (
        "from cache_memoize import cache_memoize\n"
        "@cache_memoize\n"
        "def f(x): return [x]\n"
        "@f.many\n"
        "def each(xs): return [[x] for x in xs]\n"
        "from django.conf import settings\n"
        "said = {'DEFAULTS': {'timeout': 5}}\n"
        "settings.configure(CACHE_MEMOIZE=said)\n"
        "import django; django.setup()\n"
        "print(f(1), f(1), f.cache_info().hits, f._memoized.plan.policy.timeout)\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.stdout == "[1] [1] 1 5.0\n", run.stderr


def test_a_call_in_the_settings_themselves_settles_nothing(tmp_path):
    """The settings below it in the file are not known at that point."""
    (tmp_path / "early.py").write_text(
        "from cache_memoize import cache_memoize\n"
        "@cache_memoize\n"
        "def f(x): return [x]\n"
        "F = f(1), f.get_cache_key(1)\n"
        "CACHE_MEMOIZE = {'DEFAULTS': {'timeout': 5, 'vary_on': 'language'}}\n"
    )
    code = (
        "import django; django.setup()\n"
        "from early import F, f\n"
        "print(F[0], f(1), f(1), f.cache_info().hits)\n"
        "print(f._memoized.plan.policy.timeout)\n"
        "print(F[1] == f.get_cache_key(1))\n"
    )
    path = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    env = os.environ | {"DJANGO_SETTINGS_MODULE": "early", "PYTHONPATH": path}
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=env
    )
    assert run.stdout == "[1] [1] [1] 1\n5.0\nFalse\n", run.stderr


def test_without_settings_a_call_says_so():
    code = (
        "from cache_memoize import cache_memoize\n"
        "cache_memoize(60, prefix='x')(len)([])\n"
    )
    env = {k: v for k, v in os.environ.items() if k != "DJANGO_SETTINGS_MODULE"}
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=env
    )
    assert "ImproperlyConfigured: Requested setting CACHE_MEMOIZE" in run.stderr


def test_the_first_calls_of_many_threads_are_all_right():
    caches["default"].clear()
    for _ in range(20):
        f = memoized(60, prefix="together")
        barrier = threading.Barrier(4)
        found = []

        def call(f=f, barrier=barrier, found=found):
            barrier.wait()
            found.append((f(1), f.get_cache_key(1)))

        with project(DEFAULTS={"cache_alias": "locmem"}):
            threads = [threading.Thread(target=call) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert len(set(found)) == 1
            f.invalidate(1)
        assert len(caches["default"]._cache) == 0


def test_a_setting_of_others_changes_nothing():
    f = memoized(60)
    f()
    with override_settings(USE_TZ=False):
        assert f._memoized.plan is not None
    with project():
        assert f._memoized.plan is None


def test_functions_that_are_gone_are_not_kept():
    f = memoized(60)
    known = weakref.ref(f._memoized)
    assert known() in planning.functions()
    del f
    gc.collect()
    assert known() is None


# --- what is read more than once -----------------------------------------------------


def test_an_iterator_among_the_options_is_read_once():
    """Settling reads them at decoration, at the first call, and ever again."""

    @cache_memoize(
        60,
        prefix="iterators",
        vary_on=iter(["language"]),
        tags=(tag for tag in ["one"]),
        cache_exceptions=iter([LookupError]),
        ignore=iter(["log"]),
    )
    def f(x, log=None):
        if x is None:
            raise LookupError
        return translation.get_language()

    for _ in range(2):
        for language in ("de", "fr"):
            with translation.override(language):
                assert f(1, log=2) == language
        assert plan_of(f).policy.cache_exceptions == (LookupError,)
        invalidate_tags("one", cache_alias="default")
        assert f.peek(1) is None
        with project():
            pass


def test_a_list_among_the_options_is_copied_at_decoration():
    tags = ["one"]
    f = memoized(60, tags=tags)
    tags.append(5)
    assert f() == 1


def test_an_iterator_in_the_settings_is_refused():
    f, refused = memoized(60), pytest.raises(ImproperlyConfigured, match="an iterator")
    with project(DEFAULTS={"vary_on": iter(["language"])}), refused:
        f()


@pytest.mark.parametrize(
    "option, trouble", [("timeout", None), ("early_refresh", "early_refresh= of")]
)
def test_a_number_that_no_float_can_hold(option, trouble):
    with project(DEFAULTS={option: 10**400}):
        f = memoized()
        if trouble:
            with pytest.raises(ImproperlyConfigured, match=trouble):
                f()
        else:
            assert (f(), f()) == (1, 1), "without a limit"


# --- who only looks ------------------------------------------------------------------


def test_looking_at_a_function_reads_no_settings():
    """Decorators above it and tools for documentation look at it."""

    class Shop:
        @cache_memoize(60)
        def price(self, x):
            """The price."""

    shop = Shop()
    with project(NO=1):
        for price in (Shop.price, shop.price):
            assert "price" in repr(price) and "x" in str(inspect.signature(price))
            assert price.__name__ == "price" and price.__doc__ == "The price."
            assert not hasattr(price, "colour")
            assert (
                price.__wrapped__ and signals.hit.connect(print, sender=price) is None
            )
            assert signals.hit.disconnect(print, sender=price)
        assert shop.price.__reduce__()[1][1] == "price"


# --- threads and processes -----------------------------------------------------------


def test_functions_are_listed_while_others_are_decorated():
    ending = threading.Event()

    def decorate():
        while not ending.is_set():
            memoized(60)

    kept = [memoized(60) for _ in range(500)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    thread = threading.Thread(target=decorate)
    thread.start()
    try:
        for _ in range(300):
            assert len(planning.functions()) >= len(kept)
    finally:
        ending.set()
        thread.join()
        sys.setswitchinterval(interval)


def test_first_calls_at_once_make_one_plan(monkeypatch):
    f = memoized(60, tags=())
    make, times = planning._plan, []

    def slowly(*args):
        times.append(args)
        other.start()
        return make(*args)

    other = threading.Thread(target=plan_of, args=[f])
    monkeypatch.setattr(planning, "_plan", slowly)
    f()
    other.join()
    assert len(times) == 1


def test_a_call_keeps_the_plan_that_it_began_with():
    """Otherwise the key of the old settings would be stored in the new cache."""
    said = project(DEFAULTS={"cache_alias": "locmem"}, KEY_PREFIX="new")

    enable_once = functools.cache(lambda x: said.enable())
    f = cache_memoize(60, prefix="snapshot", extra=enable_once)(abs)
    f(1)
    try:
        assert len(caches["default"]._cache) == 1
        assert len(caches["locmem"]._cache) == 0
    finally:
        said.disable()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_child_may_call_what_a_thread_of_its_parent_was_settling():
    f = memoized(60)
    held, done = threading.Event(), threading.Event()

    def hold():
        with planning._lock, planning._listing:
            held.set()
            done.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(10)
    if not (child := os.fork()):
        signal.alarm(10)  # it would hang
        try:
            os._exit(0 if f() == 1 and memoized()() == 1 else 1)
        finally:
            os._exit(2)
    done.set()
    thread.join()
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.thorough
def test_a_thousand_functions_come_and_go():
    before = len(planning.functions())
    for number in range(1_000):
        memoized(60, tags=(), prefix=f"gone{number}")(1)
        with project(DEFAULTS={"timeout": number}):
            pass
    gc.collect()
    assert len(planning.functions()) <= before + 10


def test_arguments_bound_by_a_partial_are_in_no_name(caplog):
    """Names go to logs, labels and pages."""

    class Price:
        def __call__(self, item):
            return item

    def price(currency, item):
        return item

    bound = cache_memoize(60)(functools.partial(price, "secret"))
    twice = cache_memoize(60)(functools.partial(functools.partial(price, "secret"), 5))
    instance = cache_memoize(60, prefix="price")(Price())
    names = [f._memoized.path for f in (bound, twice, instance)]
    assert [name.rpartition(".")[2] for name in names] == ["price", "price", "Price"]
    assert all(name.startswith("tests.test_core.test_arguments") for name in names)
    assert "secret" not in repr((bound, twice))


def test_before_the_apps_are_ready_nothing_is_settled_for_good(monkeypatch):
    f = memoized()
    monkeypatch.setattr(apps, "ready", False)
    assert (f(), f()) == (1, 2) and f._memoized.plan is None
    monkeypatch.setattr(apps, "ready", True)
    with project(DEFAULTS={"cache_alias": "locmem"}):
        assert (f(), f()) == (3, 3) and f._memoized.plan


def test_a_child_has_locks_of_its_own():
    f, held = memoized(60), planning._lock
    planning._after_fork()
    assert planning._lock is not held and f() == 1
    assert f._memoized in planning.functions()


@pytest.mark.parametrize(
    "option",
    ["args_rewrite", "cache_if", "extra", "key_generator_callable", "tags", "timeout"],
)
def test_an_option_that_raises_is_named(option):
    def twice(x):
        return x

    def broken(*args):
        raise LookupError("broken")

    f = cache_memoize(prefix="raising", **{option: broken})(twice)
    with pytest.raises(LookupError, match="broken") as caught:
        f(1)
    (note,) = caught.value.__notes__
    assert note.startswith(f"Raised by {option}= of ") and note.endswith("twice.")
