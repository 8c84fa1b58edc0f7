"""Errors for what is written as in other libraries, or in the wrong place."""

from __future__ import annotations

import sys

import pytest
from asgiref.sync import async_to_sync

from cache_memoize import ainvalidate_tags, cache_memoize, invalidate_tags, local


@cache_memoize
async def bare(a: int) -> int:
    return a


def seconds(result):
    return 60


def test_a_function_that_was_to_be_the_timeout_is_told_from_the_memoized_one():
    decorate = cache_memoize(seconds)
    namespace = {"__name__": __name__}
    exec("def later(x):\n    return -x", namespace)  # not defined yet
    later = namespace["later"]
    with pytest.raises(TypeError, match=r"written @cache_memoize\(timeout=\.\.\.\)"):
        decorate(later)


# --- words of other libraries --------------------------------------------------------


class Shop:
    @cache_memoize(60)
    def stock(self, item):
        return item


@pytest.mark.parametrize(
    "name, meant",
    [
        ("cache_clear", "invalidate_all()"),
        ("clear", "invalidate_all()"),
        ("delete", "invalidate(...)"),
        ("expire", "invalidate(...)"),
    ],
)
@pytest.mark.parametrize("memoized", [bare, Shop.stock, Shop().stock])
def test_controls_of_other_libraries_say_which_is_meant(memoized, name, meant):
    with pytest.raises(TypeError, match=rf"{name}\(\) \(did you mean .*") as caught:
        getattr(memoized, name)(1)
    assert f".{meant}?)" in str(caught.value)


@pytest.mark.parametrize("memoized", [Shop.stock, Shop().stock, bare])
def test_invalidate_without_arguments_says_how_all_are_invalidated(memoized):
    if memoized is bare:
        control = memoized.invalidate
    else:
        control = async_to_sync(memoized.ainvalidate)
    with pytest.raises(TypeError, match=r"for all calls, write invalidate_all\(\)"):
        control()


class Below:
    @classmethod
    @cache_memoize(60)
    def of_class(cls):
        return 1


@pytest.mark.skipif(sys.version_info < (3, 13), reason="the class is known there")
def test_a_control_that_does_not_know_the_class_says_why():
    with pytest.raises(TypeError, match="put @cache_memoize above @classmethod"):
        Below.of_class.invalidate()


def test_invalidate_all_without_tags_says_what_works():
    with pytest.raises(TypeError) as caught:
        bare.invalidate_all()
    for cure in (
        "tags=()",
        '{"DEFAULTS": {"tags": ()}}',
        "invalidate(...)",
        "version=",
    ):
        assert cure in str(caught.value)


@pytest.mark.parametrize("tags", [(), (["a", "b"],), ([],), ({"a"},), (("a",),)])
def test_invalidate_tags_takes_tags_not_lists(tags):
    for control in (invalidate_tags, async_to_sync(ainvalidate_tags)):
        with pytest.raises(TypeError, match=r"write invalidate_tags\(\"a\", \"b\"\)"):
            control(*tags)


def test_local_without_parentheses_says_so():
    with pytest.raises(TypeError, match=r"did you mean @local\(\)\?"):
        local(seconds)
