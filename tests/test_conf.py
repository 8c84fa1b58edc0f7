"""The setting CACHE_MEMOIZE is read when used, and checked."""

from __future__ import annotations

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings

from cache_memoize import conf


@pytest.fixture
def without(settings):
    """A project that does not know the setting."""
    settings.CACHE_MEMOIZE = {}
    del settings.CACHE_MEMOIZE
    assert not hasattr(settings, "CACHE_MEMOIZE")


def test_without_the_setting_errors_are_logged(without):
    assert conf.get("ON_ERROR") == "log"


def test_it_is_read_when_used():
    for value in ("raise", "log", "raise"):
        with override_settings(CACHE_MEMOIZE={"ON_ERROR": value}):
            assert conf.get("ON_ERROR") == value


def test_what_is_not_given_has_its_default():
    with override_settings(CACHE_MEMOIZE={}):
        assert {name: conf.get(name) for name in conf.SETTINGS} == {
            name: default for name, (default, _) in conf.SETTINGS.items()
        }


def test_an_unknown_name_is_refused_with_the_known_ones():
    trouble = (
        r"CACHE_MEMOIZE has unknown names \['LOG', 'ON_EROR'\] "
        r"\(did you mean ON_ERROR\?\); known are \['DEFAULTS', "
    )
    with (
        override_settings(CACHE_MEMOIZE={"ON_EROR": "log", "LOG": 1}),
        pytest.raises(ImproperlyConfigured, match=trouble),
    ):
        conf.get("ON_ERROR")


@pytest.mark.parametrize("value", ["RAISE", "", None, True, 1])
def test_a_value_that_means_nothing_is_refused_with_those_that_do(value):
    trouble = r"CACHE_MEMOIZE\['ON_ERROR'\] is .*; it must be one of \['log', 'raise'\]"
    with (
        override_settings(CACHE_MEMOIZE={"ON_ERROR": value}),
        pytest.raises(ImproperlyConfigured, match=trouble),
    ):
        conf.get("ON_ERROR")


def test_the_library_asks_for_no_name_that_it_does_not_know():
    with pytest.raises(KeyError):
        conf.get("NO_SUCH_NAME")
