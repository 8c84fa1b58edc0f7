"""What a result depends on besides its arguments is part of the key."""

from __future__ import annotations

import threading

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.db import connections
from django.test import override_settings
from django.utils import timezone, translation

from cache_memoize import cache_memoize, vary
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
    assert len(set(keys(of("time_zone"), timezone.override, zones))) == 6


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
    with pytest.raises(TypeError, match="not int"):
        cache_memoize(60, vary_on=5)(in_thread)


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
