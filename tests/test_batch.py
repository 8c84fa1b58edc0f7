"""Many calls at once: in order, each computed once, none lost to another's error."""

from __future__ import annotations

import asyncio
import threading
import time
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
from asgiref.sync import async_to_sync
from django.core.cache import caches
from django.db import transaction
from django.test import override_settings

from cache_memoize import Progress, UnkeyableArgument, cache_memoize
from cache_memoize.cache import breaker, connections, record
from cache_memoize.cache.store import Store, run
from cache_memoize.protocol import many as batch
from cache_memoize.protocol import threads as pool
from cache_memoize.protocol.call import Call
from cache_memoize.protocol.claim import claim as claim_call
from tests.conftest import World, close_connections, in_thread, plan_of
from tests.models import Post


class Trouble(Exception):
    pass


class Point(NamedTuple):
    a: int
    b: int


class Shop:
    price: Any

    def __init__(self, factor):
        self.factor = factor


class Doubled:
    """A memoized function, and the arguments of its calls: alone, and for many."""

    def __init__(self, world, bulk=False, **options):
        self.runs, self.bulks = [], []
        self.bad = set()
        self.meanwhile = lambda: None

        def function(x, y=0):
            self.runs.append((x, y))
            self.meanwhile()
            if x in self.bad:
                raise Trouble(x)
            return [x, x * 2 + y]

        self.f = world.memoize(60, **options)(function)
        if bulk:
            self.f.many(self.many)

    def many(self, items):
        self.bulks.append(list(items))
        self.meanwhile()
        if self.bad & set(items):
            raise Trouble(items)
        return ([x, x * 2] for x in items)


@pytest.fixture(params=[False, True], ids=["one by one", "bulk"])
def doubled(request, world):
    return Doubled(world, bulk=request.param)


@pytest.fixture
def one_by_one(world):
    return Doubled(world)


@pytest.fixture
def bulk(world):
    return Doubled(world, bulk=True)


def computed(doubled):
    return [x for x, _ in doubled.runs] + [x for items in doubled.bulks for x in items]


# --- map -----------------------------------------------------------------------------


def test_results_come_in_order_and_each_is_computed_once(doubled):
    items = [3, 1, 2, 1, 3]
    assert doubled.f.map(items) == [[x, x * 2] for x in items]
    assert computed(doubled) == [3, 1, 2]
    assert doubled.f.map(iter([2, 4, 1])) == [[2, 4], [4, 8], [1, 2]]
    assert computed(doubled) == [3, 1, 2, 4]
    assert doubled.f(4) == [4, 8]
    assert computed(doubled) == [3, 1, 2, 4]
    info = doubled.f.cache_info()
    assert (info.hits, info.misses) == (3, 4)
    assert doubled.f.map([]) == []


def test_a_tuple_holds_the_arguments_and_a_named_tuple_is_one(one_by_one, world):
    assert one_by_one.f.map([(1, 5), 1, (1,)]) == [[1, 7], [1, 2], [1, 2]]
    same = world.memoize(60, prefix="points")(lambda x: x)
    assert same.map([Point(1, 2)]) == [Point(1, 2)]


def test_no_two_results_share_an_object(doubled):
    for _ in range(2):  # computed, then from the cache
        first, second = doubled.f.map([1, 1])
        first.append("mine")
        assert second == [1, 2]
        assert doubled.f(1) == [1, 2]


@pytest.mark.backends(["locmem", "valkey", "pymemcache", "sqlite", "unknown"])
def test_hits_are_one_command(doubled, monkeypatch):
    doubled.f.map([1, 2, 3])
    alias, read = plan_of(doubled.f).alias, []
    checked = connections.genuine_ones

    def counting(*args):
        read.append(args)
        return checked(*args)

    monkeypatch.setattr(connections, "genuine_ones", counting)
    monkeypatch.setattr(Store, "_command", None)
    assert doubled.f.map([3, 2, 1]) == [[3, 6], [2, 4], [1, 2]]
    assert [(name, len(keys)) for name, _, keys in read] == [(alias, 3)]


def test_many_are_read_and_computed_in_chunks(doubled, monkeypatch):
    monkeypatch.setattr(batch, "CHUNK", 3)
    assert doubled.f.map(range(8)) == [[x, x * 2] for x in range(8)]
    assert doubled.f.map(range(8)) == [[x, x * 2] for x in range(8)]
    assert computed(doubled) == list(range(8))
    assert [len(items) for items in doubled.bulks] in ([], [3, 3, 2])


def test_the_error_of_one_does_not_lose_the_others(one_by_one):
    one_by_one.bad = {2, 3}
    with pytest.raises(Trouble, match="2"):
        one_by_one.f.map([1, 2, 3, 4])
    found = one_by_one.f.map([1, 2, 3, 4], return_exceptions=True)
    assert found[::3] == [[1, 2], [4, 8]]
    assert [type(error) for error in found[1:3]] == [Trouble, Trouble]
    assert [x for x, _ in one_by_one.runs] == [1, 2, 3, 4, 2, 3]


def test_an_error_for_many_belongs_to_every_item_and_frees_the_keys(bulk):
    bulk.f.map([1])
    bulk.bad = {2}
    found = bulk.f.map([1, 2, 3], return_exceptions=True)
    assert found[0] == [1, 2]
    assert [type(error) for error in found[1:]] == [Trouble, Trouble]
    bulk.bad = set()
    assert bulk.f(3) == [3, 6]


@pytest.mark.backends(["locmem"])
@pytest.mark.django_db
@pytest.mark.parametrize(
    "given, said",
    [
        ([1], "1 results for 2 items"),
        ({1: 1, 3: 3}, "a dict whose keys are not the items"),
        ({"1": 1, "2": 2}, "a dict whose keys are not the items"),
        ({1, 2}, "a set, whose order is not that of the items"),
        ("12", "a str, whose order"),
        (Post.objects.all(), "a QuerySet, whose order"),
    ],
    ids=["too few", "another", "texts", "a set", "a text", "a query"],
)
def test_results_that_may_be_another_items_are_refused(world, given, said):
    made = Doubled(world)
    made.f.many(lambda items: given)
    with pytest.raises(
        ValueError, match=f"function returned {said}.*or a dict by item"
    ):
        made.f.map([1, 2])
    assert made.f.peek(1) is None


@pytest.mark.backends(["locmem"])
def test_equal_items_that_are_other_calls_need_a_list(world):
    f = world.memoize(60, prefix="equal")(lambda x: repr(x))
    f.many(lambda items: {x: repr(x) for x in items})
    with pytest.raises(ValueError, match="items that are equal, such as 1 and True"):
        f.map([1, True])
    f.many(lambda items: [repr(x) for x in items])
    assert f.map([1, True, 1.0]) == ["1", "True", "1.0"]


@pytest.mark.backends(["locmem", "valkey"])
def test_an_exception_for_many_is_no_single_items_result(world):
    made = Doubled(world, bulk=True, cache_exceptions=Trouble)
    made.bad = {2}
    found = made.f.map([1, 2, 3], return_exceptions=True)
    assert all(isinstance(each, Trouble) for each in found)
    assert made.f(1) == [1, 2]
    with pytest.raises(Trouble):
        made.f(2)


@pytest.mark.backends(["unknown", "pylibmc_without_cas"])
def test_every_item_needs_its_voucher(world, monkeypatch):
    """An invalidation between a late writer's look and its set."""
    now = ["old"]

    def function(x):
        return now[0]

    f = world.memoize(60)(function)
    f.map([1])
    cls = type(world.cache)
    original = cls.set

    def late(self, key, value, *args, **kwargs):
        found = record.parse(value)
        if key == f.get_cache_key(2) and found and found.kind == record.ENTRY:
            monkeypatch.undo()
            now[0] = "new"
            plan_of(f).store.backend().delete(self, key)
        return original(self, key, value, *args, **kwargs)

    monkeypatch.setattr(cls, "set", late)
    assert f(2) == "old"
    assert now == ["new"]
    assert f.map([1, 2]) == ["old", "new"]


@pytest.mark.backends(["file"])
def test_a_map_that_is_cancelled_twice_frees_all_keys(backend):
    f = cache_memoize(60, prefix="twice", cache_alias=backend)(asame)
    begun = asyncio.Event()

    @f.many
    async def many(items):
        begun.set()
        await asyncio.sleep(60)

    def kinds():
        found = [
            record.parse(caches[backend].get(f.get_cache_key(x))) for x in range(5)
        ]
        return {each and each.kind for each in found}

    async def main():
        task = asyncio.create_task(f.amap(range(5)))
        await begun.wait()
        task.cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        for _ in range(200):
            if record.LEASE not in kinds():
                return
            await asyncio.sleep(0.01)
        raise AssertionError("leases are left")

    asyncio.run(main())


async def asame(x):
    return x


@pytest.mark.backends(["locmem"])
def test_results_may_come_by_item(world):
    made = Doubled(world)
    made.f.many(lambda items: {x: [x, x * 2] for x in reversed(items)})
    assert made.f.map([1, 2, 3]) == [[1, 2], [2, 4], [3, 6]]
    assert made.f(3) == [3, 6]


@pytest.mark.parametrize("gone", [{2}, {1, 3}, {1, 2, 3}])
def test_an_item_that_the_dict_lacks_fails_alone(world, gone):
    """As a row that is gone fails, of those that in_bulk() returns."""
    made = Doubled(world)
    made.f.many(lambda items: {x: [x, x * 2] for x in items if x not in gone})
    found = made.f.map([1, 2, 3, 2], return_exceptions=True)
    for x, result in zip([1, 2, 3, 2], found, strict=True):
        if x in gone:
            assert type(result) is KeyError and result.args == (x,)
            assert "many: the function returned a dict without" in result.__notes__[0]
        else:
            assert result == [x, x * 2] and made.f.peek(x).value == result
    with pytest.raises(KeyError, match=str(min(gone))):
        made.f.map([1, 2, 3])
    runs = len(made.runs)
    assert [made.f(x) for x in gone] == [[x, x * 2] for x in gone]  # the keys are free
    assert len(made.runs) == runs + len(gone)


@pytest.mark.backends(["locmem"])
def test_an_item_that_the_dict_lacks_keeps_its_old_value(world):
    f = world.memoize(60, prefix="lacks")(lambda x: x)
    f.many(lambda items: {})
    f(1)
    [step] = f.warm([1])
    assert type(step.error) is KeyError and f.peek(1).value == 1


@pytest.mark.backends(["locmem"])
@pytest.mark.parametrize("items", ["12", b"12", 12, None])
def test_an_argument_without_items_is_refused(world, items):
    made = Doubled(world)
    for control in (made.f.map, made.f.warm):
        with pytest.raises(TypeError, match=r"iterable of items.* write \[item\]"):
            control(items)


def test_a_stored_exception_is_a_result_like_others(world):
    misses = []
    doubled = Doubled(world, cache_exceptions=Trouble, miss_callable=misses.append)
    doubled.bad = {1}
    for _ in range(2):
        one, two = doubled.f.map([1, 2], return_exceptions=True)
        assert isinstance(one, Trouble)
        assert two == [2, 4]
    assert [x for x, _ in doubled.runs] == misses == [1, 2]


@pytest.mark.backends(["locmem"])
def test_an_interrupt_while_storing_frees_the_other_keys(world):
    def cache_if(result, x, y=0):
        if x == 2:
            raise KeyboardInterrupt
        return True

    made = Doubled(world, bulk=True, cache_if=cache_if)
    with pytest.raises(KeyboardInterrupt):
        made.f.map([1, 2, 3])
    assert made.f.peek(1)
    for x in (2, 3):
        assert plan_of(made.f).store.backend().get(world.cache, made.f.get_cache_key(x))
        kind = world.raw(made.f.get_cache_key(x)).kind
        assert kind == record.CLEARED


@pytest.mark.backends(["locmem", "valkey"])
def test_an_interrupt_ends_it_and_frees_the_keys(bulk):
    def interrupted():
        bulk.meanwhile = lambda: None
        raise KeyboardInterrupt

    bulk.meanwhile = interrupted
    with pytest.raises(KeyboardInterrupt):
        bulk.f.map([1, 2], return_exceptions=True)
    assert bulk.f.map([1, 2]) == [[1, 2], [2, 4]]
    assert bulk.bulks == [[1, 2], [1, 2]]


def test_items_without_a_key_are_refused_before_anything_is_computed(doubled):
    with pytest.raises(UnkeyableArgument, match="'x' of type builtins.object"):
        doubled.f.map([1, object()])
    with pytest.raises(TypeError, match="too many positional"):
        doubled.f.map([1, (1, 2, 3)])
    assert computed(doubled) == []


def test_items_that_another_caller_computes_are_waited_for_last_without_leases(doubled):
    """Two maps in opposite order would wait for each other otherwise."""
    core, order = plan_of(doubled.f), []
    key, clock = core.key_of((1,), {}), doubled.f._memoized.clock
    lease = record.pack(record.LEASE, b"stranger")
    caches[core.alias].set(key, lease, 60)

    def others_finish():
        order.append(list(computed(doubled)))
        entry = record.pack(
            record.ENTRY, b"stranger", record.dumps("theirs"), start=now, timeout=60
        )
        caches[core.alias].set(key, entry, 60)

    now = clock.time()
    clock.on_sleep = lambda: in_thread(others_finish)
    found = doubled.f.map([1, 2, 3])
    assert found == ["theirs", [2, 4], [3, 6]]
    assert order == [[2, 3]], "they were computed before, and stored"


def test_items_that_another_caller_begins_meanwhile_are_left_to_it(bulk):
    """Between our look and our claim: it is waited for last, holding nothing."""
    core, clock = plan_of(bulk.f), bulk.f._memoized.clock
    key, now = core.key_of((2,), {}), clock.time()
    claim, begun = batch.claim, []

    async def late(call, *more):
        if call.key == key and not begun:
            begun.append(record.pack(record.LEASE, b"stranger"))
            in_thread(lambda: caches[core.alias].set(key, *begun, 60))
        return await claim(call, *more)

    def others_finish():
        assert bulk.bulks == [[1, 3]]
        entry = record.pack(
            record.ENTRY, b"stranger", record.dumps("theirs"), start=now, timeout=60
        )
        caches[core.alias].set(key, entry, 60)

    clock.on_sleep = lambda: in_thread(others_finish)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batch, "claim", late)
        assert bulk.f.map([1, 2, 3]) == [[1, 2], "theirs", [3, 6]]
    assert bulk.bulks == [[1, 3]]


@pytest.mark.backends(["locmem", "file", "valkey"])
def test_simultaneous_maps_compute_each_item_once(backend):
    runs, start = [], threading.Barrier(4)
    f = cache_memoize(60, prefix="at_once", cache_alias=backend)(same)

    @f.many
    def many(items):
        runs.extend(items)
        time.sleep(0.05)
        return items

    def work(items):
        start.wait()
        assert f.map(items) == items

    orders = [list(range(20)), list(range(19, -1, -1))] * 2
    in_threads(orders, work)
    assert sorted(runs) == list(range(20))


@pytest.mark.backends(["locmem", "valkey"])
def test_items_that_another_map_has_just_stored_are_not_computed_again(
    backend, monkeypatch
):
    """Between the look that found the other's lease and the next look at the key."""
    runs, held = [], []
    f = cache_memoize(60, prefix="just_stored", cache_alias=backend)(same)

    @f.many
    def many(items):
        runs.extend(items)
        return items

    key = f.get_cache_key(1)
    lease = record.pack(record.LEASE, b"another!")
    caches[backend].set(key, lease, 60)
    is_taken = batch.Batch._is_taken

    async def then_settled(self, item):
        if item.call.key == key and not held:
            held.append(caches[backend].delete(key))
            f.prime(1, 1)
        return await is_taken(self, item)

    monkeypatch.setattr(batch.Batch, "_is_taken", then_settled)
    monkeypatch.setattr("cache_memoize.protocol.many._is_leased", lambda call: False)
    assert f.map([0, 1, 2]) == [0, 1, 2]
    assert held and sorted(runs) == [0, 2]


def same(x):
    return x


def in_threads(arguments, work):
    threads, trouble = [], []

    def guarded(argument):
        try:
            work(argument)
        except BaseException as error:
            trouble.append(error)
        finally:
            close_connections()

    for argument in arguments:
        threads.append(threading.Thread(target=guarded, args=(argument,)))
        threads[-1].start()
    for thread in threads:
        thread.join()
    assert trouble == []


def test_an_invalidation_during_the_computation_wins(doubled):
    doubled.meanwhile = lambda: in_thread(lambda: doubled.f.invalidate(1))
    assert doubled.f.map([1]) == [[1, 2]]
    assert doubled.f.peek(1) is None


@pytest.mark.backends(["locmem", "valkey", "pymemcache", "unknown"])
def test_tagged_calls(world):
    made = Doubled(world, tags=lambda x, y=0: [f"x:{x}"])
    assert made.f.map([1, 2, 3]) == made.f.map([1, 2, 3])
    assert len(made.runs) == 3
    world.invalidate_tags("x:2")
    made.f.map([1, 2, 3])
    assert made.runs[3:] == [(2, 0)]
    made.f.invalidate_all()
    made.f.map([1, 2, 3])
    assert len(made.runs) == 7


@pytest.mark.backends(["locmem", "valkey", "pymemcache", "file", "sqlite"])
def test_stale_values_are_served_and_refreshed(world):
    made = Doubled(world, stale=60)
    made.f.map([1, 2])
    world.clock.tick(61)
    made.f.map([1, 2, 3])
    assert pool.join()
    assert sorted(x for x, _ in made.runs) == [1, 1, 2, 2, 3]
    assert made.f.cache_info().stale == 2


@pytest.mark.backends(["locmem"])
def test_hooks_are_called_for_each(world):
    hits, misses = [], []
    made = Doubled(
        world,
        hit_callable=lambda *args: hits.append(args),
        miss_callable=lambda *args: misses.append(args),
    )
    made.f.map([1, (2, 3)])
    made.f.map([1, (2, 3)])
    assert misses == hits == [(1, 0), (2, 3)]


@pytest.mark.backends(["locmem"])
def test_an_error_of_cache_if_is_the_items_and_frees_its_key(world):
    def cache_if(result, x, y=0):
        if x == 2:
            raise Trouble

    made = Doubled(world, cache_if=cache_if)
    found = made.f.map([1, 2, 3], return_exceptions=True)
    assert isinstance(found[1], Trouble)
    assert found[::2] == [[1, 2], [3, 6]]


@pytest.mark.backends(["locmem"])
def test_guards(world):
    made = Doubled(world, store_result=False)
    assert made.f.map([1, 2]) == [[1, 2], [2, 4]]
    assert made.f.map([1, 2]) == [True, True]


@pytest.mark.backends(["locmem"])
def test_results_that_cannot_be_stored_are_returned(world):
    made = world.memoize(60)(lock)
    first, second = made.map([1, 1])
    assert first is second, "computed once; nothing to copy"


def lock(x):
    return threading.Lock()


@pytest.mark.backends(["locmem"])
@pytest.mark.django_db(transaction=True)
def test_in_a_transaction_that_has_written_all_is_computed_and_nothing_stored(world):
    made = Doubled(world)
    made.f.map([1])

    def twice():
        with transaction.atomic():
            Post.objects.create(title="new")
            made.f.invalidate(1)
            made.f.map([1, 2])
            made.f.map([1, 2])

    if world.kind == "async":
        pytest.skip("the writing happens in a sync function")
    twice()
    assert [x for x, _ in made.runs] == [1, 1, 2, 1, 2]
    assert made.f.peek(1) is None


def test_a_cache_that_does_not_work_is_soon_bypassed():
    unreachable = {
        "BACKEND": "django.core.cache.backends.redis.RedisCache",
        "LOCATION": "redis://127.0.0.1:1",
    }
    for kind in ("sync", "async"):
        with override_settings(
            CACHES={"default": unreachable, "unreachable": unreachable}
        ):
            made = Doubled(World("unreachable", kind))
            assert made.f.map(range(10)) == [[x, x * 2] for x in range(10)]
            assert made.f.cache_info().breaker == "open"
            assert made.f.cache_info().errors == 3
            breaker.breaker_of("unreachable").__init__()


class Pricing(Shop):
    @cache_memoize(60, prefix="price", cache_alias="locmem")
    def price(self, item):
        return self.factor * item

    @price.many
    def prices(self, items):
        return [self.factor * item for item in items]


@pytest.mark.backends(["locmem"])
def test_methods_and_items_of_an_async_iterable(world):
    shop = Pricing(3)
    assert shop.price.map([1, 2]) == [3, 6]
    before = shop.price.cache_info().hits
    assert shop.price(2) == 6
    assert shop.price.cache_info().hits == before + 1
    assert [step.done for step in shop.price.warm([1, 2])] == [1, 2]

    async def items():
        for x in (1, 2):
            yield x

    async def both():
        found = await shop.price.amap(items())
        return found, [step async for step in shop.price.awarm(items())]

    found, steps = async_to_sync(both)()
    assert found == [3, 6]
    assert [(step.done, step.total) for step in steps] == [(1, None), (2, None)]


@pytest.mark.backends(["locmem"])
def test_async_functions_from_sync_code(backend):
    runs = []

    @cache_memoize(60, prefix="from_sync", cache_alias=backend)
    async def f(x):
        runs.append(x)
        return x

    assert f.map([1, 2]) == [1, 2]
    assert [step.done for step in f.warm([1, 2])] == [1, 2]
    assert runs == [1, 2, 1, 2]


@pytest.mark.backends(["locmem"])
def test_both_functions_are_async_or_neither(backend):
    @cache_memoize(60, prefix="both", cache_alias=backend)
    async def f(x): ...

    with pytest.raises(TypeError, match=r"f\.many: .* must both be coroutine"):
        f.many(lambda items: items)
    with pytest.raises(TypeError, match=r"f\.many takes a function .* not a list"):
        f.many([1, 2])


@pytest.mark.backends(["locmem"])
def test_stop_iteration_is_the_functions_own(backend):
    @cache_memoize(60, prefix="stops", cache_alias=backend)
    def f(x):
        raise StopIteration

    with pytest.raises(StopIteration):
        f.map([1])
    assert [type(step.error) for step in f.warm([1])] == [StopIteration]


# --- warm ----------------------------------------------------------------------------


def test_warm_refreshes_and_reports_its_progress(doubled):
    doubled.f(2)
    doubled.bad = {3}
    steps = list(doubled.f.warm([1, 2, 1]))
    assert steps == [Progress(x, None, n, 0, 3) for n, x in enumerate([1, 2, 1], 1)]
    again = computed(doubled)
    assert again.count(2) == 2
    assert doubled.f.map([1, 2]) == [[1, 2], [2, 4]]
    assert computed(doubled) == again


@pytest.mark.backends(["locmem"])
@pytest.mark.django_db(transaction=True)
def test_items_of_a_query(backend):
    @cache_memoize(60, prefix="of_query", cache_alias=backend)
    def title(pk):
        return f"title {pk}"

    @cache_memoize(60, prefix="of_aquery", cache_alias=backend)
    async def atitle(pk):
        return f"title {pk}"

    posts = Post.objects.bulk_create([Post(title="a"), Post(title="b")])
    keys = [post.pk for post in posts]
    query = Post.objects.order_by("pk").values_list("pk", flat=True)
    titles = [f"title {pk}" for pk in keys]
    assert title.map(query) == atitle.map(query) == titles
    assert [step.total for step in title.warm(query)] == [2, 2]

    async def main():
        assert await title.amap(query.all()) == titles
        steps = [step async for step in title.awarm(query.all())]
        assert [(step.item, step.total) for step in steps] == [(n, None) for n in keys]
        steps = [step async for step in title.awarm(keys)]
        assert [(step.item, step.total) for step in steps] == [(n, 2) for n in keys]

    async_to_sync(main)()


@pytest.mark.backends(["locmem"])
def test_warm_that_is_not_iterated_over_warns(backend):
    @cache_memoize(60, prefix="idle", cache_alias=backend)
    def f(x): ...

    for control in (f.warm, f.awarm):
        with pytest.warns(
            RuntimeWarning, match="warm.. did nothing, because it was not"
        ):
            control([1])


def test_warm_goes_on_after_an_error(one_by_one):
    one_by_one.bad = {2}
    steps = list(one_by_one.f.warm(iter([1, 2, 3])))
    assert [(step.item, step.done, step.failed) for step in steps] == [
        (1, 1, 0),
        (2, 2, 1),
        (3, 3, 1),
    ]
    assert isinstance(steps[1].error, Trouble)
    assert steps[0].total is None
    assert one_by_one.f.peek(3)


@pytest.mark.backends(["locmem"])
def test_warm_takes_no_more_than_it_needs_at_once(world, monkeypatch):
    if world.kind == "async":
        pytest.skip("collected here")
    monkeypatch.setattr(batch, "CHUNK", 2)
    made, taken = Doubled(world, bulk=True), []

    def items():
        for x in range(5):
            taken.append(x)
            yield x

    steps = made.f.warm(items())
    assert taken == []
    next(steps)
    assert taken == [0, 1]
    assert len(list(steps)) == 4
    assert made.bulks == [[0, 1], [2, 3], [4]]


def test_an_old_value_stays_when_warming_fails(doubled):
    doubled.f(1)
    doubled.bad = {1}
    (step,) = doubled.f.warm([1])
    assert isinstance(step.error, Trouble)
    if plan_of(doubled.f).store.backend().atomic:
        assert doubled.f.peek(1).value == [1, 2]


@pytest.mark.backends(["locmem"])
def test_an_entry_that_cannot_be_read_is_computed_anew(world):
    made = Doubled(world)
    made.f.map([1, 2])
    key = made.f.get_cache_key(1)
    whole = world.cache.get(key)
    world.cache.set(key, b"no pickle" + whole[-record.TRAILER_SIZE :], 60)
    assert made.f.map([1, 2]) == [[1, 2], [2, 4]]
    assert [x for x, _ in made.runs] == [1, 2, 1]


@pytest.mark.backends(["locmem"])
def test_a_cache_that_fails_between_the_claims_does_not_stop_it(world, monkeypatch):
    made = Doubled(world, bulk=True)
    lease = record.pack(record.LEASE, b"stranger")
    claim = batch.claim

    async def late(call, *more):
        world.cache.set(call.key, lease, 60)
        return await claim(call, *more)

    async def fail(self, key):
        raise ConnectionError("gone")

    monkeypatch.setattr(batch, "claim", late)
    monkeypatch.setattr(type(plan_of(made.f).store), "get", fail)
    assert made.f.map([1, 2]) == [[1, 2], [2, 4]]
    monkeypatch.undo()
    world.cache.clear()


@pytest.mark.backends(["locmem"])
def test_a_map_that_is_closed_in_the_middle_frees_its_keys(world):
    """It may not await anything: a thread does it."""
    made = Doubled(world, bulk=True)
    plan = plan_of(made.f)
    whole = batch.Batch(made.f._memoized, plan, (), [])
    call = Call(made.f._memoized, plan, plan.store, plan.key_of((1,), {}))
    item = SimpleNamespace(call=call, claim=run(claim_call(call)))
    ending = whole._fail([item], GeneratorExit())
    with pytest.raises(StopIteration):
        ending.send(None)
    assert pool.join()
    assert world.raw(call.key).kind == record.CLEARED
