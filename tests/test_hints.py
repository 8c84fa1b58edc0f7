"""Errors for what is written as in other libraries, or in the wrong place."""

from __future__ import annotations

import sys
import threading

import pytest
from asgiref.sync import async_to_sync

from cache_memoize import (
    UnkeyableArgument,
    ainvalidate_tags,
    cache_memoize,
    invalidate_tags,
    local,
)
from tests.models import Post


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


@pytest.mark.parametrize(
    "word, cure",
    [
        ("models", r"did you mean depends_on\?"),
        ("invalidated_by", r"did you mean depends_on\?"),
        ("lock", "others wait for it, anyway; wait= says how long"),
        ("lock_timeout", "did you mean lease?"),
        ("maxsize", "MAX_ENTRIES in CACHES"),
        ("typed", "different types are different calls anyway"),
        ("unless", "write cache_if="),
        ("on_miss", "did you mean miss_callable?"),
        ("swr", "did you mean stale?"),
        ("cache_alais", "did you mean cache_alias?"),
    ],
)
def test_words_of_other_libraries_say_what_to_do(word, cure):
    with pytest.raises(TypeError, match=f"{word}' \\(.*{cure}"):
        cache_memoize(60, **{word: 1})


@pytest.mark.parametrize("word", ["beta", "store", "retry"])
def test_words_that_mean_nothing_here_have_no_hint(word):
    with pytest.raises(TypeError, match=f"'{word}'$"):
        cache_memoize(60, **{word: 1})


@pytest.mark.parametrize("option", ["tags", "vary_on"])
@pytest.mark.parametrize("value", [Post, [Post], ("language", Post)])
def test_a_model_is_no_tag_and_no_part_of_a_key(option, value):
    cure = rf"model Post as {option}=; .* write depends_on=Post, or f\.invalidate_on"
    with pytest.raises(TypeError, match=cure):
        cache_memoize(60, **{option: value})(seconds)


def test_a_callable_in_a_list_of_tags_says_what_to_write():
    with pytest.raises(TypeError, match="without a list around it: tags=lambda"):
        cache_memoize(60, tags=["posts", lambda result: "post"])(seconds)


class Stateful:
    def __init__(self):
        self.lock = threading.Lock()

    @cache_memoize(60)
    def method(self, x):
        return x

    @cache_memoize(60, args_rewrite=lambda self, x: x)
    def described(self, x):
        return x

    @cache_memoize(60, ignore=("self",))
    def ignoring(self, x):
        return x


def test_the_cures_for_self_can_be_followed():
    """The caller of a method cannot pass another object."""
    with pytest.raises(UnkeyableArgument) as caught:
        Stateful().method(1)
    cures = str(caught.value).partition("Cure: ")[2]
    assert "pass something" not in cures
    assert cures.startswith("describe it with args_rewrite=; or teach its type")
    assert cures.endswith("ignore=('self',), if no result depends on it.")
    assert Stateful().described(1) == Stateful().ignoring(1) == 1


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
