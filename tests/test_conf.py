"""The setting CACHE_MEMOIZE is read when used, and checked."""

from __future__ import annotations

import re

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings

from cache_memoize.conf import Conf, conf


@pytest.fixture
def without(settings):
    """A project that does not know the setting."""
    settings.CACHE_MEMOIZE = {}
    del settings.CACHE_MEMOIZE
    assert not hasattr(settings, "CACHE_MEMOIZE")


def test_without_the_setting_errors_are_logged(without):
    assert conf().ON_ERROR == "log"


def test_it_is_read_when_used():
    for value in ("raise", "log", "raise"):
        with override_settings(CACHE_MEMOIZE={"ON_ERROR": value}):
            assert value == conf().ON_ERROR


def test_what_is_not_given_has_its_default():
    with override_settings(CACHE_MEMOIZE={}):
        assert conf() == Conf()


def test_an_unknown_name_is_refused_with_the_known_ones():
    trouble = (
        r"CACHE_MEMOIZE has unknown names \['LOG', 'ON_EROR'\] "
        r"\(did you mean ON_ERROR\?\); known are \['DEFAULTS', "
    )
    with (
        override_settings(CACHE_MEMOIZE={"ON_EROR": "log", "LOG": 1}),
        pytest.raises(ImproperlyConfigured, match=trouble),
    ):
        conf()


@pytest.mark.parametrize("value", ["RAISE", "", None, True, 1])
def test_a_value_that_means_nothing_is_refused_with_those_that_do(value):
    trouble = r"CACHE_MEMOIZE\['ON_ERROR'\] must be one of \['log', 'raise'\], not "
    with (
        override_settings(CACHE_MEMOIZE={"ON_ERROR": value}),
        pytest.raises(ImproperlyConfigured, match=trouble),
    ):
        conf()


@pytest.mark.parametrize(
    "given, trouble",
    [
        ({"DEFAULTS": []}, "'DEFAULTS'] must be a dict, not []"),
        ({"KEY_PREFIX": None}, "'KEY_PREFIX'] must be a string, not None"),
        ({"STATS_INTERVAL": -1}, "must be a number of seconds, or 0, not -1"),
        ({"STATS_INTERVAL": True}, "must be a number of seconds, or 0, not True"),
        ({"STATS_INTERVAL": "5"}, "must be a number of seconds, or 0, not '5'"),
        ({"STATS_INTERVAL": float("inf")}, "must be a number of seconds, or 0"),
        ([], "CACHE_MEMOIZE is a list; it must be a dict"),
    ],
)
def test_a_value_of_another_type_is_refused(given, trouble):
    with (
        override_settings(CACHE_MEMOIZE=given),
        pytest.raises(ImproperlyConfigured, match=re.escape(trouble)),
    ):
        conf()


def test_options_that_are_about_one_function_are_no_defaults():
    with (
        override_settings(CACHE_MEMOIZE={"DEFAULTS": {"prefix": "x", "jiter": 1}}),
        pytest.raises(ImproperlyConfigured) as caught,
    ):
        conf()
    assert "['jiter', 'prefix'] (did you mean jitter?)" in str(caught.value)


@pytest.mark.parametrize(
    "given, hint",
    [
        ({"TIMEOUT": 300}, "{'DEFAULTS': {'timeout': 300}}"),
        ({"timeout": 300, "STALE": 5}, "{'DEFAULTS': {'stale': 5, 'timeout': 300}}"),
        ({"TTL": 300}, "{'DEFAULTS': {'timeout': 300}}"),
        ({"enabled": False}, "ENABLED"),
        ({"key_prefix": "a"}, "KEY_PREFIX"),
        ({"DEFAULTS": {"ENABLED": False}}, "{'ENABLED': False} beside 'DEFAULTS'"),
        ({"DEFAULTS": {"ttl": 5}}, "timeout"),
    ],
    ids=str,
)
def test_settings_in_the_wrong_place_are_told_the_right_one(given, hint):
    mistake = pytest.raises(ImproperlyConfigured)
    with override_settings(CACHE_MEMOIZE=given), mistake as caught:
        conf()
    assert f" (did you mean {hint}?); " in str(caught.value)
    assert "'timeout'" in str(caught.value)


def test_right_settings_pass_the_check():
    given = {"DEFAULTS": {"timeout": 5, "local": "request"}, "STATS_INTERVAL": 0}
    with override_settings(CACHE_MEMOIZE=given):
        conf()
