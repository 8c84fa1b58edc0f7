"""Tags: one key invalidates many calls, and nothing that was invalidated comes back."""

from __future__ import annotations

import itertools
import math
import re

import pytest
from django.core.cache import caches
from django.core.exceptions import ImproperlyConfigured
from django.core.management import call_command
from django.test import override_settings

from cache_memoize import cache_memoize, invalidate_tags
from cache_memoize.cache import connections, record, store
from cache_memoize.cache.store import Store
from cache_memoize.cache.tokens import DAY
from cache_memoize.keys import tags
from cache_memoize.protocol import threads as pool
from tests.conftest import ATOMIC, World, counted, in_thread, plan_of
from tests.needs import need
from tests.servers import SERVERS

_numbers = itertools.count()


def test_a_tag_invalidates_the_calls_that_have_it_and_no_other(world):
    f, runs = counted(world, tags=lambda x=0: [f"number:{x}", "numbers"])
    g, other = counted(world, tags="numbers")
    assert [f(1), f(2), g(1), f(1), f(2), g(1)] == [1, 2, 1, 1, 2, 1]
    world.invalidate_tags("number:1")
    assert [f(1), f(2), g(1)] == [3, 2, 1]
    world.invalidate_tags("numbers", "unheard of")
    assert [f(1), f(2), g(1)] == [4, 5, 2]
    assert [f(1), f(2), g(1)] == [4, 5, 2]


def test_invalidate_all_invalidates_every_call_of_one_function(world):
    f, runs = counted(world, tags=())
    g, other = counted(world, tags=())
    assert [f(1), f(2), g(1)] == [1, 2, 1]
    f.invalidate_all()
    assert [f(1), f(2), g(1)] == [3, 4, 1]


def test_invalidate_all_without_tags_says_what_to_write(world):
    f, runs = counted(world)
    with pytest.raises(TypeError, match=r"write tags=\(\) in its cache_memoize"):
        f.invalidate_all()


def test_one_call_is_invalidated_as_without_tags(world):
    f, runs = counted(world, tags="t")
    assert [f(1), f(2)] == [1, 2]
    f.invalidate(1)
    assert [f(1), f(2)] == [3, 2]


def test_peek_prime_and_refresh_know_the_tags(world):
    f, runs = counted(world, tags="t")
    assert f.peek(1) is None
    f.prime(10, 1)
    assert f.peek(1).value == 10 == f(1)
    world.invalidate_tags("t")
    assert f.peek(1) is None
    assert f.refresh(1) == 1 == f(1)
    assert f.refresh(1) == 2 == f(1) == f.peek(1).value


def test_an_evicted_tag_invalidates_and_brings_nothing_back(world):
    f, runs = counted(world, tags="t")
    assert f(1) == 1
    key = plan_of(f).key_of((1,), {})
    for tag in key.tags:
        assert world.raw(tag).kind == record.TAG
        before = world.raw(tag).token
        world.cache.delete(tag)
        assert f(1) == f(1) == len(runs)
        assert world.raw(tag).token != before
    assert len(runs) == 3


@pytest.mark.parametrize("garbage", [5, "text", b"", b"x" * 26, None])
def test_garbage_under_the_key_of_a_tag_is_healed(world, garbage):
    f, runs = counted(world, tags="t")
    assert f(1) == 1
    world.cache.set(tags.tag_key("t"), garbage, None)
    assert f(1) == 2 == f(1)


def test_an_entry_under_the_key_of_a_tag_is_healed(world):
    f, runs = counted(world, tags="t")
    assert f(1) == 1
    entry = record.pack(record.ENTRY, b"8 bytes!", start=world.clock.time(), timeout=60)
    world.cache.set(tags.tag_key("t"), entry, None)
    assert f(1) == 2 == f(1)


def test_a_tag_invalidated_during_the_computation_wins(world):
    def function(x=0):
        if len(runs) < 2:
            in_thread(lambda: world.invalidate_tags("t"))
        runs.append(x)
        return len(runs)

    runs = []
    f = world.memoize(60, tags="t")(function)
    assert f(1) == 1
    assert f(1) == 2
    assert f(1) == 3 == f(1)


@pytest.mark.backends(ATOMIC)
def test_no_caller_waits_for_a_computation_whose_tag_was_invalidated(world):
    """Its result will be valid for no caller."""
    f, runs = counted(world, tags="t")
    f(1), f.invalidate(1)
    key = plan_of(f).key_of((1,), {})
    look = store.Store.read(key.tags[0], world.cache.get(key.tags[0]))
    old = record.tokens([look.raw] * len(key.tags))
    world.cache.set(key, record.pack(record.LEASE, b"another!", tags=old), 10)
    world.invalidate_tags("t")
    assert f(1) == 2 == f(1)
    assert world.clock.sleeps == []


def test_a_waiter_whose_holder_lost_its_tag_gets_the_new_value(world):
    f, runs = counted(world, tags="t")
    f(1), f.invalidate(1)
    key = plan_of(f).key_of((1,), {})
    tokens = record.tokens([world.cache.get(tag) for tag in key.tags])
    world.cache.add(key, record.pack(record.LEASE, b"another!", tags=tokens), 10)

    def while_waiting():
        world.clock.on_sleep = lambda: None
        in_thread(lambda: world.invalidate_tags("t"))

    world.clock.on_sleep = while_waiting
    if world.alias in ATOMIC:
        assert f(1) == 2 == f(1)
    else:
        f(1)
        world.cache.delete(key)


def test_failures_are_told_to_waiters_with_tags_too(world):
    f = world.memoize(60, tags="t")(failing)
    for _ in range(2):
        with pytest.raises(ValueError, match="no"):
            f()
    raw = world.raw(f.get_cache_key())
    assert raw.kind == record.FAILED and raw.tags
    assert world.clock.sleeps == []


def failing():
    raise ValueError("no")


@pytest.mark.backends(["locmem", "valkey"])
def test_entries_with_and_without_tags_are_not_taken_for_each_other(world):
    """As when tags= is added to a function, or taken away, in a new version."""
    plain, runs = counted(world, prefix="both")
    tagged, more = counted(world, prefix="both", tags=())
    assert plain(1) == 1
    assert (tagged(1), tagged(1)) == (1, 1)
    assert (plain(1), plain(1)) == (2, 2)


@pytest.mark.backends(["locmem", "valkey"])
def test_bound_methods_have_tags_and_share_the_functions_own(backend):
    def price(self, item):
        runs.append(item)
        return len(runs)

    runs, shop = [], Shop()
    options = {"tags": lambda self, item: item, "cache_alias": backend}
    Shop.price = cache_memoize(60, prefix="price", **options)(price)
    assert [shop.price("tea"), shop.price("tea"), shop.price("milk")] == [1, 1, 2]
    invalidate_tags("tea", cache_alias=backend)
    assert [shop.price("tea"), shop.price("milk")] == [3, 2]
    shop.price.invalidate_all()
    assert shop.price("milk") == 4


class Shop:
    """No attributes: the same in every process."""


# --- what it costs -------------------------------------------------------------------


@pytest.mark.backends(["locmem", "valkey", "pymemcache"])
def test_a_hit_is_one_get_many_and_an_invalidation_get_and_swap(backend, monkeypatch):
    world, asked = World(backend, "sync"), []
    f, runs = counted(world, tags=["a", "b"])
    f(1)
    cls = type(connections.opened(backend)[0])
    for name in ("get", "get_many", "set", "add", "delete"):
        original = getattr(cls, name)

        def counting(self, *args, _name=name, _original=original, **kwargs):
            asked.append(_name)
            return _original(self, *args, **kwargs)

        monkeypatch.setattr(cls, name, counting)
    connections._thread.has.memory.clear()
    monkeypatch.setattr("cache_memoize.cache.backends._found", dict(backends_found()))
    assert f(1) == 1
    assert asked[0] == "get_many" and set(asked[1:]) <= {"get"}  # Django's own loop
    asked.clear()
    world.invalidate_tags("a")
    assert asked == ["get"]  # and a swap, by each backend's own means


def backends_found():
    from cache_memoize.cache import backends

    return backends._found


def test_misses_of_tagged_functions_send_no_more_than_they_need(world, monkeypatch):
    names = []
    command = Store._command

    def noting(self, name, *args):
        names.append(name)
        return command(self, name, *args)

    f, runs = counted(world, tags="t")
    f(0)
    monkeypatch.setattr(Store, "_command", noting)
    f(1)
    assert names == ["add", "swap"]
    names.clear()
    world.cache.delete(f.get_cache_key(1))
    f.peek(1)
    assert names == ["read_many"]


# --- servers that answer for one slot only -------------------------------------------


def test_a_server_that_takes_no_several_keys_is_asked_one_by_one(monkeypatch):
    """Redis Cluster: CROSSSLOT. Once seen, it is not tried again."""
    world = World("locmem", "sync")
    tried = []

    def refuse(self, keys, version=None):
        tried.append(keys)
        raise RuntimeError("CROSSSLOT Keys in request don't hash to the same slot")

    f, runs = counted(world, tags="t")
    monkeypatch.setattr(type(world.cache), "get_many", refuse)
    monkeypatch.setattr(connections, "_single", set())
    monkeypatch.setattr("cache_memoize.cache.backends._found", dict(backends_found()))
    assert [f(1), f(1), f(2)] == [1, 1, 2]
    world.invalidate_tags("t")
    assert f(1) == 3
    assert len(tried) == 1


# --- what is refused -----------------------------------------------------------------


@pytest.mark.parametrize("wrong", [5, [5], [""], b"t", {"t": 1}, [None]])
def test_tags_that_are_not_strings_are_refused_and_nothing_runs(wrong):
    with pytest.raises(TypeError, match=r"tags= of .*f "):
        cache_memoize(60, tags=wrong)(plain_function)
    runs = []

    @cache_memoize(60, prefix="wrong tags", tags=lambda: wrong)
    def f():
        runs.append(1)

    with pytest.raises(TypeError, match="tags= of"):
        f()
    assert runs == []
    with pytest.raises(
        TypeError, match="a tag is a string|takes strings|an argument of its own"
    ):
        invalidate_tags(wrong, cache_alias="locmem")


def plain_function():
    pass


plain_function.__qualname__ = "f"


def test_tags_are_invalidated_in_every_cache_and_an_error_is_raised_last():
    settings = {
        "default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"},
        "broken": {
            "BACKEND": "django.core.cache.backends.redis.RedisCache",
            "LOCATION": "redis://127.0.0.1:1",
        },
        "none": {"BACKEND": "django.core.cache.backends.dummy.DummyCache"},
        "other": {
            "BACKEND": "django.core.cache.backends.locmem.LocMemCache",
            "LOCATION": "two",
        },
    }
    with override_settings(CACHES=settings):
        worlds = [World("default", "sync"), World("other", "sync")]
        functions = [counted(world, tags="t")[0] for world in worlds]
        assert [f(1) for f in functions] == [1, 1]
        with pytest.raises(Exception, match=r"127\.0\.0\.1:1") as caught:
            invalidate_tags("t")
        assert "cache_alias=" in caught.value.__notes__[0]
        assert [f(1) for f in functions] == [2, 2]
        caches["default"].clear(), caches["other"].clear()


# --- hold: replicas that lag ---------------------------------------------------------


def test_hold_keeps_from_storing_for_a_while_after_an_invalidation(world):
    f, runs = counted(world, hold=5)
    assert [f(1), f(1)] == [1, 1]
    f.invalidate(1)
    assert [f(1), f(1)] == [2, 3]
    assert world.raw(f.get_cache_key(1)).kind == record.BLOCK
    world.cache.delete(f.get_cache_key(1))  # the block has run out
    assert [f(1), f(1)] == [4, 4]


def test_hold_applies_to_tags_too(world):
    f, runs = counted(world, hold=5, tags="t")
    marks = [tags.young_key(tag) for tag in (tags.tag_key("t"), plan_of(f).tag)]
    world.invalidate_tags("t")
    assert [f(1), f(1)] == [1, 2]
    world.cache.delete_many(marks)  # they have expired
    assert [f(1), f(1)] == [3, 3]
    world.invalidate_tags("t")
    assert [f(1), f(1)] == [4, 5]
    world.cache.delete_many(marks)
    assert [f(1), f(1)] == [6, 6]


def kept(world, tag):
    """The seconds for which the server keeps a tag; -1: without a limit, -2: not."""
    client = world.cache._cache.get_client(None, write=True)
    return client.ttl(world.cache.make_key(tags.tag_key(tag)))


@pytest.mark.backends(["valkey", "redis"])
def test_a_tag_is_kept_for_longer_than_the_entries_that_need_it(world):
    """And not for ever: a tag per session would."""
    tag = f"session {next(_numbers)}"
    f, _ = counted(world, 60, stale=30, tags=lambda x: [tag])
    f(1)
    assert 60 + 30 < kept(world, tag) <= DAY + 60 + 30 + 10
    g, _ = counted(world, 20 * DAY, tags=tag)
    g(1)
    assert 20 * DAY < kept(world, tag) <= 21 * DAY + 10
    f(2)
    assert kept(world, tag) > 20 * DAY, "a shorter timeout takes nothing away"
    h, _ = counted(world, None, tags=tag)
    h(1)
    assert kept(world, tag) == -1
    assert [f(1), g(1), h(1)] == [1, 1, 1], "and its token is the same"
    f(3)
    assert kept(world, tag) == -1


@pytest.mark.backends(["valkey"])
@pytest.mark.parametrize("how", ["call", "prime", "refresh", "map"])
def test_a_tag_is_kept_for_as_long_as_a_callable_timeout_says(world, how):
    tag = f"callable {next(_numbers)} {how}"
    f = world.memoize(timeout=lambda result: 50 * DAY, tags=tag)(lambda x: x)
    call = {
        "call": lambda: f(1),
        "prime": lambda: f.prime(1, 1),
        "refresh": lambda: f.refresh(1),
        "map": lambda: f.map([1]),
    }[how]
    call()
    assert kept(world, tag) > 50 * DAY
    assert f(1) == 1 and f.cache_info().hits == 1


@pytest.mark.backends(ATOMIC)
def test_a_tag_is_renewed_before_its_end_and_its_entries_stay_valid(world, monkeypatch):
    names, command = [], Store._command

    def noting(self, name, *args):
        names.append(name)
        return command(self, name, *args)

    f, runs = counted(world, 2 * DAY, tags="t")
    f(1)
    monkeypatch.setattr(Store, "_command", noting)
    for at, expected in [(0.9, []), (0.5, ["swap", "swap"]), (0.5, [])]:
        world.clock.tick(at * DAY)
        f(len(runs) + 1)
        assert names == [*expected, "add", "swap"]
        names.clear()
    assert f(1) == 1, "the token is the same"


@pytest.mark.backends(["valkey"])
def test_refreshes_renew_the_tags_of_an_entry_that_is_never_missed(world):
    tag = f"refreshed {next(_numbers)}"
    f, runs = counted(world, 60, stale=3 * DAY, tags=tag)
    f(1)
    for _ in range(3):
        world.clock.tick(2 * DAY)
        f(1)
        assert pool.join()
        assert kept(world, tag) > 3 * DAY
    assert len(runs) == 4


@pytest.mark.backends(["unknown"])
def test_where_replacing_is_not_atomic_a_tag_is_not_written_again(world, monkeypatch):
    """It might bring back a token that was invalidated meanwhile."""
    f, runs = counted(world, 60, tags="t")
    f(1)
    world.clock.tick(400 * DAY)
    stored = world.raw(tags.tag_key("t"))
    assert stored.timeout == math.inf
    f(2)
    assert world.raw(tags.tag_key("t")) == stored


def test_a_cache_that_says_a_tag_is_taken_and_not_there_is_given_up(monkeypatch):
    world = World("locmem", "sync")
    f, runs = counted(world, tags="t")
    monkeypatch.setattr(type(world.cache), "add", lambda *a, **k: False)
    monkeypatch.setattr("cache_memoize.cache.backends._found", dict(backends_found()))
    assert [f(1), f(1)] == [1, 2]
    assert f.cache_info().errors >= 1
    monkeypatch.undo()
    world.cache.clear()


def test_one_value_that_cannot_be_read_does_not_hide_the_others(monkeypatch):
    """It fails a whole get_many, on some backends."""
    world = World("locmem", "sync")
    f, runs = counted(world, tags="t")
    assert f(1) == 1
    key = world.cache.make_key(f.get_cache_key(1))
    world.cache._cache[key] = b"no pickle"
    assert [f(1), f(1)] == [2, 2]
    assert f.cache_info().errors == 0
    world.cache.clear()


@pytest.mark.parametrize("many", [True, False])
def test_a_server_that_is_down_is_an_outage_for_tagged_functions_too(monkeypatch, many):
    world = World("locmem", "sync")
    f, runs = counted(world, tags="t")
    monkeypatch.setattr(connections, "_single", set() if many else {"locmem"})

    def fail(self, key, version=None):
        raise ConnectionError("away")

    with monkeypatch.context() as patch:
        patch.setattr(type(world.cache), "make_and_validate_key", fail)
        assert [f(1), f(1)] == [1, 2]
    assert f.cache_info().errors == 2
    world.cache.clear()


def test_a_block_that_is_not_kept_is_a_lost_invalidation(monkeypatch):
    """On a server that takes no writes, behind a client that hides that."""
    world = World("unknown", "sync")
    f, runs = counted(world, hold=5)
    monkeypatch.setattr(type(world.cache), "set", lambda *a, **k: None)
    monkeypatch.setattr(type(world.cache), "add", lambda *a, **k: False)
    monkeypatch.setattr("cache_memoize.cache.backends._found", dict(backends_found()))
    name = re.escape(f._memoized.name)
    with pytest.raises(store.CacheDidNotAnswer, match=f"^{name}: .* again when"):
        f.invalidate(1)
    world.cache.clear()


def test_a_real_cluster_answers_for_one_slot_only():
    """Redis Cluster: keys are read one by one, and nothing else changes."""
    server = SERVERS["valkey_cluster"]
    need("valkey")
    server.start()
    settings = {
        "default": {
            "BACKEND": "django.core.cache.backends.redis.RedisCache",
            "LOCATION": f"redis://127.0.0.1:{server.port}",
        }
    }
    try:
        with override_settings(CACHES=settings):
            f, runs = counted(World("default", "sync"), tags=["t", "u"])
            assert [f(1), f(1), f(2)] == [1, 1, 2]
            invalidate_tags("t")
            assert [f(1), f(1)] == [3, 3]
            assert f.cache_info().errors == 0
            caches["default"].clear()
    finally:
        connections._single.discard("default")
        server.stop()


def test_a_release_has_the_tags_of_the_one_before():
    """Otherwise an invalidation would not reach the entries of the other release."""
    assert tags.tag_key("a") == "cache_memoize.tag:WwnXCr5MJLaUqkuwSmB1flOqK/B5"
    assert tags.function_tag("f") == "cache_memoize.all:8YnCs+oXNbFmUzNrVh502luBufN3"


@pytest.mark.backends(["locmem"])
def test_more_tags_than_fit_are_refused(backend):
    many = [f"tag {n}" for n in range(255)]
    said = r"^cache_memoize: tags= of (\S+) has 255 tags; at most 254 are possible"
    with pytest.raises(ValueError, match=said) as caught:
        cache_memoize(60, tags=many)(identity)
    assert "identity" in str(caught.value)
    f = cache_memoize(60, cache_alias=backend, tags=lambda x: many)(identity)
    with pytest.raises(ValueError, match=said) as caught:
        f(1)
    assert "identity" in str(caught.value)
    f = cache_memoize(60, cache_alias=backend, tags=lambda x: many[1:])(identity)
    assert f(1) == 1
    with pytest.raises(TypeError, match="a tag of type int; .* write f.post:{pk}"):
        cache_memoize(60, tags=[1])(identity)


def identity(x):
    return x


# --- tags that no function has -------------------------------------------------------


@pytest.mark.parametrize(
    "tag", ["product:{pk}", "{}", "a{0}b", "{pk!r}", "product:%s", "%(pk)s:x", "%d"]
)
@pytest.mark.parametrize("several", [False, True])
def test_a_tag_with_a_place_for_a_value_is_refused_at_decoration(tag, several):
    with pytest.raises(ValueError, match="has the tag") as caught:
        cache_memoize(60, tags=["ok", tag] if several else tag)(lambda_free)
    text = str(caught.value)
    assert repr(tag) in text and "tags=lambda pk: f'product:{pk}'" in text
    f = cache_memoize(60, prefix="tags.defaults")(lambda_free)
    defaults = override_settings(CACHE_MEMOIZE={"DEFAULTS": {"tags": tag}})
    with defaults, pytest.raises(ImproperlyConfigured, match="no value is put"):
        plan_of(f)


def lambda_free(pk): ...


@pytest.mark.parametrize("tag", ["100%safe", "50%discount", "a}b{c", "{", "x%", "%%"])
def test_other_tags_with_these_characters_are_taken(world, tag):
    f, runs = counted(world, tags=tag)
    g, others = counted(world, tags=lambda x=0: "{pk}")  # it may be a user's name
    assert [f(1), f(1), g(1), g(1)] == [1, 1, 1, 1]
    world.invalidate_tags(tag, "{pk}")
    assert [f(1), g(1)] == [2, 2]


def test_no_tag_is_refused(world):
    with pytest.raises(TypeError, match="takes at least one tag, and each"):
        world.invalidate_tags()


@pytest.fixture
def no_tags_yet(monkeypatch):
    monkeypatch.setattr(tags, "_declared", set())
    monkeypatch.setattr(tags, "_has_callable", False)


def test_a_tag_that_no_function_has_is_said_to_developers(no_tags_yet, caplog):
    with override_settings(DEBUG=True):
        invalidate_tags("catalog", cache_alias="locmem")
        assert not caplog.text, "no function is imported"
        cache_memoize(60, tags=["catalogue", "shop"])(lambda_free)
        invalidate_tags("shop", "catalogue", cache_alias="locmem")
        assert not caplog.text
        invalidate_tags("shop", "catalog", cache_alias="locmem")
        assert "no function that is imported here has the tag 'catalog'" in caplog.text
        caplog.clear()
    invalidate_tags("catalog", cache_alias="locmem")
    assert not caplog.text, "a worker may not import the functions"
    with override_settings(DEBUG=True):
        cache_memoize(60, tags=lambda pk: f"product:{pk}")(lambda_free)
        invalidate_tags("catalog", cache_alias="locmem")
        assert not caplog.text, "the callable may return it"


def test_the_command_says_it(no_tags_yet, capsys, monkeypatch):
    monkeypatch.setattr("cache_memoize.management.calls.list_functions", list)
    cache_memoize(60, tags="catalogue")(lambda_free)
    call_command("memoize", "invalidate", "--tag", "catalog", "--alias", "locmem")
    assert "no function has the tag 'catalog'\n" in capsys.readouterr().out
    call_command("memoize", "invalidate", "--tag", "catalogue", "--alias", "locmem")
    assert "no function" not in capsys.readouterr().out
    cache_memoize(60, tags=lambda pk: f"product:{pk}")(lambda_free)
    call_command("memoize", "invalidate", "--tag", "product:1", "--alias", "locmem")
    assert "no function" not in capsys.readouterr().out, "the callable may return it"
