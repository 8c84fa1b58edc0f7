"""Callable options get the call in one form, whatever its spelling."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.core.cache import caches

from cache_memoize import UnkeyableArgument, cache_memoize
from cache_memoize.keys.binding import Binder
from cache_memoize.keys.calling import fit


def two(a, b=2): ...


def by_name(a, b=2, *, lang="en"): ...


def several(a, *rest, lang="en"): ...


def anything(a, **more): ...


def only(a, /, b=2): ...


def nothing(): ...


def received(ask: Callable[..., Any], function: Callable[..., Any]) -> Any:
    """The arguments that ``ask`` gets, by the spelling of a call of ``function``."""
    return fit(ask, "tags", Binder(function, function.__name__))


#: All spellings of one call.
SPELLINGS = {
    two: [
        ((1,), {}),
        ((1, 2), {}),
        ((), {"a": 1}),
        ((1,), {"b": 2}),
        ((), {"b": 2, "a": 1}),
    ],
    by_name: [((1,), {}), ((1, 2), {"lang": "en"}), ((), {"lang": "en", "a": 1})],
    several: [((1,), {}), ((), {"a": 1}), ((1,), {"lang": "en"})],
    anything: [((1,), {"x": 3}), ((), {"x": 3, "a": 1})],
    only: [((1,), {}), ((1, 2), {}), ((1,), {"b": 2})],
    nothing: [((), {})],
}
ASKS = {
    two: {
        lambda *args, **kwargs: (args, kwargs): ((1, 2), {}),
        lambda *args: args: (1, 2),
        lambda a, b: (a, b): (1, 2),
        lambda x, y: (x, y): (1, 2),
        lambda a: a: 1,
        lambda b: b: 2,
        lambda *, b: b: 2,
        lambda b, c=5: (b, c): (1, 2),
        lambda **kwargs: kwargs: {"a": 1, "b": 2},
        lambda: "none": "none",
    },
    by_name: {
        lambda *args, **kwargs: (args, kwargs): ((1, 2), {"lang": "en"}),
        lambda *args: args: (1, 2),
        lambda a, b, lang: (a, b, lang): (1, 2, "en"),
        lambda lang: lang: "en",
        lambda lang, a: (a, lang): (1, "en"),
        lambda *args, lang: (args, lang): ((1, 2), "en"),
    },
    several: {
        lambda *args, **kwargs: (args, kwargs): ((1,), {"lang": "en"}),
        lambda a, *rest: (a, rest): (1, ()),
        lambda lang: lang: "en",
        lambda x: x: 1,
    },
    anything: {
        lambda *args, **kwargs: (args, kwargs): ((1,), {"x": 3}),
        lambda a: a: 1,
        lambda a, x: (a, x): (1, 3),
    },
    only: {lambda a, b: (a, b): (1, 2), lambda b: b: 2, lambda a: a: 1},
    nothing: {lambda: 1: 1, lambda *args: args: ()},
}


@pytest.mark.parametrize("function", ASKS, ids=lambda function: function.__name__)
def test_every_spelling_of_a_call_is_one_for_every_callable(function):
    for ask, expected in ASKS[function].items():
        for args, kwargs in SPELLINGS[function]:
            assert received(ask, function)(*args, **kwargs) == expected


@pytest.mark.parametrize(
    "function, ask",
    [
        (two, lambda pk: pk),
        (two, lambda a, b, c: a),
        (two, lambda *, lang: lang),
        (two, lambda a, /: a),
        (by_name, lambda a, b, c: a),
        (nothing, lambda a: a),
        (nothing, len),
    ],
)
def test_a_callable_that_fits_no_call_is_refused_at_decoration(function, ask):
    for option in ("tags", "args_rewrite", "extra", "key_generator_callable"):
        with pytest.raises(TypeError) as caught:
            cache_memoize(60, **{option: ask})(function)
        said = str(caught.value)
        assert f"{option}= of {function.__name__} is called with" in said
        assert "name parameters of the function, or take *args, **kwargs" in said


def test_the_result_comes_first():
    for option in ("cache_if", "timeout"):
        with pytest.raises(TypeError, match="a parameter for the result"):
            cache_memoize(**{option: lambda: 5})(two)
    for ask in (bool, lambda result: result, lambda result, b: b == 2, lambda r, *a: a):
        f = cache_memoize(60, prefix="result", cache_if=ask)(lambda a, b=2: a)
        assert f(1) == 1 and f.peek(a=1) is not None
        f.invalidate(1)


def test_a_hook_in_c_gets_what_it_takes():
    seen = []
    f = cache_memoize(60, prefix="in C", miss_callable=seen.append)(lambda a, b=2: a)
    f(1), f.invalidate(1), f(a=1), f.invalidate(1)
    assert seen == [1, 1]


def test_equal_calls_have_one_key_however_they_are_rewritten():
    for ask in (lambda *args, **kwargs: (args, kwargs), lambda a: a, lambda a, b: b):
        f = cache_memoize(60, prefix="rewritten", args_rewrite=ask)(two)
        g = cache_memoize(60, prefix="extra", extra=ask)(two)
        calls = SPELLINGS[two]
        for made in (f, g):
            assert len({made.get_cache_key(*args, **kw) for args, kw in calls}) == 1


def test_methods_and_properties_of_the_instance():
    class Shop:
        town = "Oslo"

        @cache_memoize(
            60, prefix="shop", args_rewrite=lambda self, item: (self.town, item)
        )
        def price(self, item, vat=25):
            return item

    one, two = Shop(), Shop()
    assert one.price.get_cache_key(1) == two.price.get_cache_key(item=1, vat=25)


def test_arguments_that_args_rewrite_does_not_take_stay_in_the_key():
    """Or a call would get the result of another one."""
    f = cache_memoize(60, prefix="stay", args_rewrite=lambda a: a.lower())(by_name)
    same = [(("A",), {}), (("a",), {"b": 2}), ((), {"a": "a", "lang": "en"})]
    assert len({f.get_cache_key(*args, **kwargs) for args, kwargs in same}) == 1
    others = [(("a", 3), {}), (("a",), {"lang": "de"}), (("a", 3), {"lang": "de"})]
    assert len({f.get_cache_key(*args, **kw) for args, kw in [same[0], *others]}) == 4
    g = cache_memoize(60, prefix="more", args_rewrite=lambda a: a)(anything)
    assert (
        len({g.get_cache_key(1), g.get_cache_key(1, x=1), g.get_cache_key(1, y=1)}) == 3
    )
    h = cache_memoize(60, prefix="rest", args_rewrite=lambda lang: lang)(several)
    assert len({h.get_cache_key(1), h.get_cache_key(2), h.get_cache_key(1, 2)}) == 3
    with pytest.raises(UnkeyableArgument, match="'b' of type builtins.object"):
        f.get_cache_key("a", object())
    ignoring = cache_memoize(60, prefix="i", ignore=["b"], args_rewrite=lambda a: a)(
        two
    )
    assert ignoring.get_cache_key(1, 2) == ignoring.get_cache_key(1, 3)


def test_a_call_that_does_not_fit_the_function_reaches_no_callable():
    asked = []
    calls = [((), {}), ((1, 2, 3), {}), ((1,), {"a": 1}), ((1,), {"c": 1})]
    for (args, kwargs), function in itertools.product(calls, (two, only)):
        with pytest.raises(TypeError, match="two|only"):
            received(lambda *args, **kwargs: asked.append(1), function)(*args, **kwargs)
    assert not asked


def test_a_callable_that_does_not_say_its_parameters_gets_all_or_the_result():
    """As some builtins do not."""
    assert received(max, two)(b=7, a=1) == 7
    assert fit(max, "cache_if", Binder(two, "two"), 1)([1, 7], 3, b=9) == 7
    f = cache_memoize(60, prefix="max", cache_if=max, extra=max)(lambda a, b=2: [a, b])
    assert f(0, 0) == [0, 0] and f.peek(0, 0) is None
    assert f(0, 1) == [0, 1] and f.peek(0, 1) is not None


def test_what_args_rewrite_takes_is_in_the_key_only_by_its_result():
    for ask in (
        lambda *args, **more: "same",
        lambda a, b: "same",
        lambda **more: "same",
    ):
        f = cache_memoize(60, prefix="all taken", args_rewrite=ask)(two)
        assert f.get_cache_key(1, 2) == f.get_cache_key(3, b=4)
    g = cache_memoize(60, prefix="none", args_rewrite=lambda **all_: "x")(by_name)
    assert g.get_cache_key(1, lang="de") == g.get_cache_key(2)


def test_a_name_that_is_all_there_is_is_taken_by_name():
    def lang_only(*rest, lang="en"): ...

    assert received(lambda lang: lang, lang_only)(1, 2, lang="de") == "de"
    assert received(lambda lang, *, b=1: (lang, b), lang_only)() == ("en", 1)


# --- generated keys of methods -------------------------------------------------------

GENERATORS = {
    "by name": lambda self, item: f"shop-{self.pk}-{item}",
    "by position": lambda shop, thing: f"shop-{shop.pk}-{thing}",
    "the rest": lambda *args: f"shop-{args[0].pk}-{args[1]}",
    "all": lambda *args, **kwargs: f"shop-{args[0].pk}-{args[1]}-{len(kwargs)}",
}


def shop_with(generator, kind, is_async):
    def price(self, item):
        return item

    async def aprice(self, item):
        return item

    found = aprice if is_async else price
    found.__qualname__ = "Shop.price"
    memoize = cache_memoize(60, cache_alias="locmem", key_generator_callable=generator)
    return type("Shop", (), {"pk": 7, "price": memoize(kind(found))})


@pytest.mark.filterwarnings("ignore:.*knows its instance:DeprecationWarning")
@pytest.mark.backends(["locmem"])
@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("kind", [lambda function: function, classmethod])
@pytest.mark.parametrize("generator", GENERATORS)
def test_keys_of_bound_methods_are_generated_with_the_instance(
    backend, generator, kind, is_async
):
    """Bound first, then generated; also where the instance is given again."""
    shop = shop_with(GENERATORS[generator], kind, is_async)()
    receiver = type(shop) if kind is classmethod else shop
    method = type(shop).price if kind is classmethod else shop.price
    call = async_to_sync(method) if is_async else method
    key = method.get_cache_key("tea")
    assert key.startswith("shop-7-tea")
    same = [
        method.get_cache_key(receiver, "tea"),
        async_to_sync(method.aget_cache_key)(item="tea"),
        async_to_sync(method.aget_cache_key)(receiver, item="tea"),
    ]
    if kind is not classmethod:
        same.append(type(shop).price.get_cache_key(shop, "tea"))
    assert set(same) == {key}
    for again in ((), (receiver,)):
        call("tea")
        assert caches[backend].get(key) is not None
        method.invalidate(*again, "tea")
        assert caches[backend].get(key) is None


# --- a placeholder for the instance --------------------------------------------------

WITHOUT_INSTANCE = {
    "args_rewrite": {"args_rewrite": lambda owner, item: item},
    "generator": {"key_generator_callable": lambda owner, item: f"placed:{item}"},
    "ignore": {"ignore": ("owner",)},
}


def placed(kind, **options):
    def price(owner, item):
        return item

    price.__qualname__ = "Placed.price"
    memoize = cache_memoize(60, prefix="placed", cache_alias="locmem", **options)
    made = {
        "method": lambda: memoize(price),
        "above": lambda: memoize(classmethod(price)),
        "below": lambda: classmethod(memoize(price)),
    }[kind]()
    return type("Placed", (), {"price": made})


@pytest.mark.filterwarnings("ignore:.*knows its instance:DeprecationWarning")
@pytest.mark.backends(["locmem"])
@pytest.mark.parametrize("kind", ["method", "above", "below"])
@pytest.mark.parametrize("option", WITHOUT_INSTANCE)
def test_a_placeholder_stands_for_an_instance_that_is_not_in_the_key(
    backend, kind, option
):
    """m.invalidate(None, 1) invalidated m(1) in 0.2.1, where the key left it out."""
    owner = placed(kind, **WITHOUT_INSTANCE[option])
    method = owner.price if kind != "method" else owner().price
    for control in {method.invalidate, owner.price.invalidate}:
        method("tea")
        key = owner.price.get_cache_key(owner() if kind == "method" else owner, "tea")
        assert caches[backend].get(key) is not None
        control(None, "tea")
        assert caches[backend].get(key) is None


@pytest.mark.backends(["locmem"])
@pytest.mark.parametrize(
    "options, function",
    [
        ({}, lambda self, item: item),
        ({"ignore": ("self",)}, lambda self, item=None: item),
        ({"args_rewrite": lambda *args: args[1:]}, lambda self, *items: items),
        ({"ignore": ("item",)}, lambda self, item: item),
        ({"args_rewrite": None}, lambda self, item: item),
    ],
)
def test_no_placeholder_where_the_instance_may_be_missing_or_is_in_the_key(
    backend, options, function
):
    function.__qualname__ = "Placed.price"
    memoize = cache_memoize(60, prefix="unplaced", cache_alias=backend, **options)
    owner = type("Placed", (), {"price": memoize(function)})
    if "self" not in options.get("ignore", ()):  # else these are all arguments
        with pytest.raises(TypeError, match="must be an instance"):
            owner.price.invalidate(None, "tea")
    with pytest.raises(TypeError, match="must be an instance"):
        owner.price.invalidate("tea")
