"""Functions describe themselves to the front ends, each fact in one place."""

from __future__ import annotations

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings

from cache_memoize import cache_memoize, describe
from cache_memoize.describe import (
    FIGURES,
    describe_tags,
    describe_timeout,
    describe_totals,
    info_of,
    list_functions,
    list_tags,
)
from cache_memoize.protocol.policy import BACKEND
from cache_memoize.stats.totals import Totals, bucket
from tests.models import Post, Shelf


class Shop:
    @cache_memoize(60)
    def price(this, item):
        return item

    @cache_memoize(60)
    @property
    def total(self):
        return 1

    @classmethod
    @cache_memoize(60)
    def columns(cls, kind):
        return kind

    @staticmethod
    @cache_memoize(60)
    def rounded(number):
        return number


@cache_memoize(60, tags=())
def price(item):
    """What it costs."""
    return item


@pytest.mark.parametrize(
    ("memoized", "is_method"),
    [
        (Shop.price, True),
        (Shop().price, False),
        (Shop.total.fget, True),
        (Shop.columns, False),
        (Shop.rounded, False),
        (price, False),
        (cache_memoize(60, prefix="shown")(lambda self: 1), True),
        (cache_memoize(60, prefix="length")(len), False),
    ],
)
def test_a_method_is_one_by_its_class_or_its_first_parameter(memoized, is_method):
    assert info_of(memoized).is_method is is_method


def test_a_description_keeps_the_instance_of_a_bound_method():
    shop = Shop()
    info = info_of(shop.price)
    assert info.memoized == shop.price
    (other,) = (each for each in list_functions() if each.path == info.path)
    assert other.memoized.get_cache_key(shop, 1) == shop.price.get_cache_key(1)


def test_where_and_what_a_function_is():
    info = info_of(price)
    assert info.source == f"tests/test_describe.py:{info.location[1]}"
    assert info.documentation == "What it costs."
    assert info.signature == "price(item)"
    assert (info.path, info.has_tags, info.has_many) == (
        "tests.test_describe.price",
        True,
        False,
    )
    assert info_of(cache_memoize(60, prefix="length")(len)).source == ""


def test_settings_that_do_not_fit_are_an_error():
    f = cache_memoize(prefix="timeless")(lambda: 1)
    setting = {"DEFAULTS": {"timeout": "an hour"}}
    with (
        override_settings(CACHE_MEMOIZE=setting),
        pytest.raises(ImproperlyConfigured, match="does not fit"),
    ):
        info_of(f)


def test_timeouts_and_tags_in_words():
    timeouts = [BACKEND, len, 0, 90, 7200, float("inf")]
    assert [describe_timeout(timeout) for timeout in timeouts] == [
        *("default of the cache", "by result", "not stored", "90 s", "2 h", "unlimited")
    ]
    tags = [None, (), "one", ["a", "b"], len]
    assert [describe_tags(each) for each in tags] == [
        "",
        "()",
        "one",
        "a, b",
        "by call",
    ]
    assert [list_tags(each) for each in tags[:4]] == [None, [], ["one"], ["a", "b"]]


def test_all_figures_as_text():
    totals = Totals(
        hits=3000,
        misses=1,
        computations=1,
        stored=3,
        stored_bytes=6143,
        spent=0.5,
        costs={bucket(0.5): 1},
    )
    assert describe_totals(totals) == {
        "hits": "3,000",
        "misses": "1",
        "rate": "99.9 %",
        "saved": "–",
        "runs": "1",
        "mean": "500 ms",
        "p95": "500 ms",
        "stale": "0",
        "waits": "0",
        "errors": "0",
        "failed": "0",
        "near": "0",
        "size": "2.0\xa0KB",
    }
    assert describe_totals(Totals())["size"] == "–"
    assert list(describe_totals(Totals())) == [figure.name for figure in FIGURES]


@pytest.mark.django_db(transaction=True)
def test_what_a_function_depends_on_and_which_ones_depend_on_it():
    @cache_memoize(60, prefix="described.inner", depends_on="tests.Tag")
    def inner(x):
        return Post.objects.count()

    @cache_memoize(60, prefix="described.outer", depends_on="reads")
    def outer(x):
        return inner(x), list(Shelf.objects.all())

    outer(1)
    one, two = (describe.info_of(f) for f in (inner, outer))
    of_tag = describe.describe_dependencies(one)
    assert "table tests_tag" in of_tag.depends_on and of_tag.used_by == [two.path]
    found = describe.describe_dependencies(two)
    assert {"table tests_shelf", "table tests_tag", one.path} <= {*found.depends_on}
    assert "table tests_post" in found.depends_on and found.used_by == []
    assert outer(1) == outer(1)
    users = describe.describe_users([one])
    assert users["table tests_tag"] == sorted([one.path, two.path])
