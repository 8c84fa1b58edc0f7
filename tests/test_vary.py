"""What a result depends on besides its arguments is part of the key."""

from __future__ import annotations

import asyncio
import datetime
import functools
import threading
from datetime import timedelta

import pytest
from asgiref.sync import sync_to_async
from django.core.exceptions import ImproperlyConfigured
from django.db import connections, router
from django.test import override_settings
from django.utils import timezone, translation

from cache_memoize import cache_memoize, vary
from cache_memoize.protocol import threads
from tests.conftest import in_thread


class Shop:
    @cache_memoize(60, vary_on="language", version=2)
    def price(self, x):
        return x


def keys(memoized, manager, values):
    found = []
    for value in values:
        with manager(value):
            found += [memoized.get_cache_key(1), memoized.get_cache_key([])]
            assert memoized.get_cache_key(1) == found[-2], "remembered"
    return found


def of(*parts):
    @cache_memoize(60, vary_on=parts, prefix="varied")
    def function(x=None):
        return x

    return function


@pytest.mark.parametrize("part", ["language", vary.language])
def test_the_language(part):
    f = of(part)
    found = keys(f, translation.override, ["de", "en", "en-gb", None])
    assert len(set(found)) == 8
    with translation.override("de"):
        assert [f.get_cache_key(1), f.get_cache_key([])] == found[:2]


def test_the_time_zone():
    zones = [timezone.get_fixed_timezone(60), "Europe/Paris", "UTC"]
    # Whoever made these knows that they differ.
    zones += [datetime.timezone(timedelta(hours=h), "Winter") for h in (0, 1, -5)]
    assert len(set(keys(of("time_zone"), timezone.override, zones))) == 12


def test_the_site():
    f = of(vary.site)
    found = keys(f, lambda number: override_settings(SITE_ID=number), [1, 2])
    assert len(set(found)) == 4
    with pytest.raises(ImproperlyConfigured, match="SITE_ID, which is not set"):
        f(1)


def test_the_tenant(monkeypatch):
    f = of(vary.tenant)
    with pytest.raises(ImproperlyConfigured, match="function of your own that knows"):
        f(1)
    found = []
    for schema in ("one", "two"):
        monkeypatch.setattr(
            connections["default"], "schema_name", schema, raising=False
        )
        found.append(f.get_cache_key(1))
    assert len(set(found)) == 2


def test_the_tenant_is_not_asked_of_the_connection_of_an_event_loop(monkeypatch):
    """It has the public schema from the start, whoever the request is for."""
    monkeypatch.setattr(type(connections["default"]), "schema_name", "public", False)

    @cache_memoize(60, vary_on="tenant")
    async def page():
        return await sync_to_async(lambda: connections["default"].schema_name)()

    async def request(tenant):
        def middleware():
            connections["default"].schema_name = tenant

        await sync_to_async(middleware)()
        return await page()

    for tenant in ("ann", "bob"):
        with pytest.raises(ImproperlyConfigured, match="from a context variable"):
            in_thread(lambda tenant=tenant: asyncio.run(request(tenant)))


def test_several_and_ones_own():
    user = ["ann"]

    def who():
        return user[0]

    f = of("language", who)
    one = f.get_cache_key(1)
    user[0] = "bob"
    assert f.get_cache_key(1) != one
    with translation.override("fr"):
        assert f.get_cache_key(1) != one


def test_what_varies_is_part_of_the_key_too():
    """A tenant named "en" is not the language."""

    def tenant():
        return "en"

    with translation.override("en"):
        assert of(vary.language).get_cache_key(1) != of(tenant).get_cache_key(1)
        assert of().get_cache_key(1) not in {
            of(vary.language).get_cache_key(1),
            of(tenant).get_cache_key(1),
        }


def test_with_every_other_part_of_a_key():
    @cache_memoize(60, vary_on="language", extra=lambda x: 5, args_rewrite=lambda x: x)
    def rewritten(x):
        return x

    for f in (rewritten, Shop().price):
        found = keys(f, translation.override, ["de", "en"])[::2]
        assert len(set(found)) == 2


def test_a_parameter_may_have_any_name():
    @cache_memoize(60, vary_on="language")
    def f(more, vary_on=1):
        return more

    assert f.get_cache_key(more=1) == f.get_cache_key(1) != f.get_cache_key(2)


def test_a_value_that_cannot_be_keyed_names_the_option():
    with pytest.raises(TypeError, match=r"function\(\).*vary_on="):
        of(threading.Lock).get_cache_key(1)


def test_what_is_no_part_is_refused_at_decoration():
    with pytest.raises(ValueError, match="names 'langauge'; known are"):
        of("langauge")
    for wrong in (5, None):
        with pytest.raises(TypeError, match="takes functions without arguments"):
            of(wrong)

    async def coroutine():
        pass

    with pytest.raises(TypeError, match="takes functions without arguments"):
        of(coroutine)
    with pytest.raises(TypeError, match=r"lambda> needs some; use extra="):
        of(lambda user: user)
    assert of(lambda user=None: user).get_cache_key(1)
    assert of(dict).get_cache_key(1), "a builtin without a signature"
    with pytest.raises(TypeError, match="not int"):
        cache_memoize(60, vary_on=5)(in_thread)


def test_it_cannot_stand_beside_a_key_of_ones_own():
    """Which has the last word, so every language would get the first one's."""
    make = cache_memoize(60, vary_on="language", key_generator_callable=lambda: "k")
    with pytest.raises(TypeError, match="f has vary_on= beside key_generator_callable"):

        @make
        def f():
            return 1

    with override_settings(CACHE_MEMOIZE={"DEFAULTS": {"vary_on": ["language"]}}):
        f = cache_memoize(60, vary_on=(), key_generator_callable=lambda x: "k")(
            in_thread
        )
        assert f.get_cache_key(1) == "k"


def test_a_page_in_two_languages_end_to_end():
    @cache_memoize(60, vary_on=vary.language)
    def greeting(name):
        return translation.gettext("Yes") + " " + name

    for language, said in [("de", "Ja"), ("fr", "Oui"), ("de", "Ja")]:
        with translation.override(language):
            assert greeting("Ann") == f"{said} Ann"
    assert greeting.cache_info()[:2] == (1, 2)
    for language in ("de", "fr"):
        with translation.override(language):
            greeting.invalidate("Ann")


# --- refreshes -----------------------------------------------------------------------


@pytest.mark.backends(["locmem"])
def test_a_refresh_in_a_thread_is_in_the_language_of_its_caller(world):
    seen = []

    @world.memoize(10, stale=100, vary_on=[vary.language, vary.time_zone])
    def greeting():
        seen.append((translation.get_language(), threading.current_thread().name))
        return len(seen)

    for language in ("de", "fr"):
        with translation.override(language):
            greeting()
    world.clock.tick(20)
    for language in ("de", "fr"):
        with translation.override(language):
            greeting()
            assert threads.join()
    assert [language for language, _ in seen] == ["de", "fr"] * 2
    with translation.override("de"):
        assert greeting() == 3


@pytest.mark.backends(["locmem"])
@pytest.mark.parametrize("where", ["thread", "inline"])
def test_a_function_may_activate_another_language(world, where):
    """Its result belongs to the language of the caller, in a refresh too."""
    runs = []

    @world.memoize(10, stale=100, vary_on="language")
    def letter():
        runs.append(translation.get_language())
        translation.activate("fr")
        return len(runs)

    with override_settings(CACHE_MEMOIZE={"REFRESH": where}):
        for _ in range(2):
            with translation.override("de"):
                letter()
                assert threads.join()
            world.clock.tick(20)
        with translation.override("de"):
            assert letter.peek().value == 2
    assert runs == ["de", "de"]


@pytest.mark.backends(["locmem"])
def test_what_only_the_caller_knows_is_refreshed_by_the_caller(world):
    """A tenant stands on the connection of its thread."""
    here = threading.local()
    here.tenant = "ann"
    runs = []

    @world.memoize(10, stale=100, vary_on=lambda: here.tenant)
    def page():
        runs.append(here.tenant)
        return len(runs)

    if world.kind == "async":  # the loop is in a thread of its own
        return
    page()
    world.clock.tick(20)
    assert page() == 2, "the caller has computed it"
    assert runs == ["ann", "ann"] and page() == 2


@pytest.mark.backends(["locmem"])
@pytest.mark.parametrize("control", ["map", "warm"])
def test_what_an_item_has_activated_is_not_stored_under_the_keys_of_the_next(
    world, control
):
    @world.memoize(60, vary_on="language")
    def activating(x):
        seen = translation.get_language()
        translation.activate("fr")
        return x, seen

    with translation.override("de"):
        if control == "warm":  # readers keep what is there
            activating.prime("old", 2)
        if control == "map":
            assert activating.map([1, 2]) == [(1, "de"), (2, "fr")]
        else:
            assert [step.error for step in activating.warm([1, 2])] == [None, None]
    with translation.override("de"):
        assert activating.peek(1).value == (1, "de")
        there = activating.peek(2)
        assert there.value == "old" if control == "warm" else there is None


def test_a_part_may_have_no_name():
    """As a partial; and it is not taken for another one that has none either."""
    one, two = functools.partial(str, 1), functools.partial(str, 2)
    keys = [of(part).get_cache_key(7) for part in (one, two)]
    assert len(set(keys)) == 2 and keys == [of(p).get_cache_key(7) for p in (one, two)]


def test_every_spelling_of_a_call_is_one_with_parts_too():
    f = of(vary.language)
    assert f.get_cache_key(x=[1]) == f.get_cache_key([1]) != f.get_cache_key([2])
    assert f.get_cache_key(x=1) == f.get_cache_key(1) != f.get_cache_key(2)


class TenantRouter:
    current = "default"

    def db_for_write(self, model, **hints):
        return "default" if model._meta.app_label == "auth" else self.current


class ReadingRouter:
    def db_for_read(self, model, **hints):
        return TenantRouter.current


@pytest.mark.parametrize("kind", [TenantRouter, ReadingRouter])
def test_a_database_per_tenant(kind, monkeypatch):
    monkeypatch.setattr(router, "routers", [kind()])

    @cache_memoize(60, vary_on=["database"], prefix=f"test_vary.{kind.__name__}")
    def name(pk):
        return TenantRouter.current

    found = []
    for alias in ("one", "two", "one"):
        monkeypatch.setattr(TenantRouter, "current", alias)
        found.append(name(1))
    assert found == ["one", "two", "one"] and name.cache_info().hits == 1


def test_without_routers_the_database_is_no_part(monkeypatch):
    monkeypatch.setattr(router, "routers", [])
    assert vary.database() == ()


def test_project_wide_parts_are_put_in_front_of_a_generated_key():
    f = cache_memoize(60, key_generator_callable=lambda x: f"k{x}")(in_thread)
    assert f.get_cache_key(1) == "k1"
    with override_settings(CACHE_MEMOIZE={"DEFAULTS": {"vary_on": ["language"]}}):
        keys = []
        for language in ("de", "fr", "de"):
            with translation.override(language):
                keys.append(f.get_cache_key(1))
        assert keys[0] == keys[2] != keys[1]
        assert all(key.endswith(":k1") and key.isascii() for key in keys)
        assert f.get_cache_key(1) != f.get_cache_key(2)
