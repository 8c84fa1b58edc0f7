"""From a call to its key, to what of it can change, and to its parts by name."""

from __future__ import annotations

import pytest

from cache_memoize.keys.binding import Binder
from cache_memoize.keys.calling import fit
from cache_memoize.keys.encoding import UnkeyableArgument, encode
from cache_memoize.keys.maker import KeyParts, key_maker, parts_maker, state_maker


def function(a, b=2, *more, c=3, **further):
    return a


BINDER = Binder(function, "function")
LANGUAGE = ["en"]
CAPTURED = ["x=1"]


def language():
    return LANGUAGE[0]


def captured():
    return CAPTURED[0]


def rewritten(a, **kwargs):
    """As fit() makes it of a callable that takes only some arguments."""
    return fit(lambda a: a // 2, "args_rewrite", BINDER)


@pytest.fixture(autouse=True)
def usual():
    LANGUAGE[:], CAPTURED[:] = ["en"], ["x=1"]


def keys_of(change, *calls, **options):
    key_of = key_maker(BINDER, "p", KeyParts(**options))
    before = [key_of(args, {}) for args in calls]
    change()
    return before, [key_of(args, {}) for args in calls]


CALLS = (1,), ([1],)  # remembered, and not


@pytest.mark.parametrize("both", [True, False])
@pytest.mark.parametrize("changed", [LANGUAGE, CAPTURED])
def test_a_key_depends_on_variants_and_on_captured_variables(changed, both):
    options = {"vary_on": (language,), "captured": captured}
    if not both:
        options = dict([[*options.items()][changed is CAPTURED]])

    def change():
        changed[0] = "other"

    before, after = keys_of(change, *CALLS, **options)
    assert not {*before} & {*after}
    assert len({*before, *after}) == 4
    same, again = keys_of(lambda: None, *CALLS, **options)
    assert same == again == after


def test_long_variants_are_parts_of_keys_too():
    def change():
        CAPTURED[0] = "y" * 9_999 + "z"

    CAPTURED[0] = "y" * 10_000
    before, after = keys_of(change, *CALLS, captured=captured)
    assert not {*before} & {*after}


def test_what_a_rewrite_does_not_take_stays_in_the_key():
    key_of = key_maker(BINDER, "p", KeyParts(args_rewrite=rewritten(0)))
    assert key_of((2,), {}) == key_of((3,), {}) != key_of((4,), {})
    assert key_of((2, 5), {}) != key_of((2, 6), {}) != key_of((2,), {"c": 1})
    assert key_of((2,), {"x": 1}) != key_of((2,), {"x": 2})


@pytest.mark.parametrize("given", [1, "x", None, 1.5, True, b"x"])
def test_plain_values_have_no_state(given):
    state_of = state_maker(BINDER)
    assert state_of((given,), {"b": given}) is None
    assert state_of((given, [given]), {}) is not None
    assert state_of((given,), {"c": {given}}) is not None


def test_the_state_is_all_that_can_change():
    value = [1]
    state_of = state_maker(BINDER, KeyParts(captured=captured))
    before = state_of((1, value), {})
    value.append(2)
    after = state_of((1, value), {})
    CAPTURED[0] = "x=2"
    assert len({before, after, state_of((1, value), {})}) == 3
    assert state_of((1,), {}) is not None, "a captured variable can change"
    extra = state_maker(BINDER, KeyParts(extra=lambda *a, **k: language()))
    before = extra((1,), {})
    LANGUAGE[0] = "de"
    assert None is not before != extra((1,), {})
    assert state_maker(BINDER, KeyParts(extra="fixed"))((1,), {}) is None
    made = state_maker(BINDER, KeyParts(key_generator=lambda a, **k: f"key {len(a)}"))
    assert made(([1],), {}) == "key 1" != made(([1, 2],), {})
    wrong = state_maker(BINDER, KeyParts(key_generator=lambda a, **k: None))
    with pytest.raises(TypeError, match=r"^function\(\): key_generator_callable"):
        wrong(([1],), {})


def test_parts_by_name():
    parts = KeyParts(5, "e", None, None, (language,), captured, "site")
    parts_of = parts_maker(BINDER, parts)
    assert parts_of((1, 4, 5, 6), {"z": 7}) == {
        "a": encode(1),
        "b": encode(4),
        "more": encode(5) + encode(6),
        "c": encode(3),
        "z": encode(7),
        "language": encode("en"),
        "captured variables": "x=1",
        "KEY_PREFIX": encode("site"),
        "version": encode(5),
        "extra": encode("e"),
    }
    assert [*parts_maker(BINDER)((1,), {})] == ["a", "b", "c", "version"]


def test_parts_that_callables_make():
    parts = parts_maker(BINDER, KeyParts(extra=lambda *a, **k: k["c"]))((1,), {"c": 8})
    assert parts["extra"] == encode(8) and parts["a"] == encode(1)
    parts = KeyParts(args_rewrite=rewritten(0), extra=lambda *a, **k: 9)
    again = parts_maker(BINDER, parts)
    assert [*again((4, 5), {})] == ["args_rewrite", "version"]
    assert again((4, 5), {}) == again((5, 5), {}) != again((4, 6), {})
    parts = KeyParts(key_generator=lambda a, **k: f"key {a}", version=3)
    made = parts_maker(BINDER, parts)
    assert made((1,), {}) == {"key_generator_callable": "key 1"}
    unnamed = parts_maker(BINDER, KeyParts(vary_on=(Anonymous(),)))
    assert unnamed((1,), {})["vary_on"] == encode(7)


class Anonymous:
    def __call__(self):
        return 7


@pytest.mark.parametrize(
    "options, trouble",
    [
        ({}, "argument 'a'"),
        ({"extra": object()}, "extra="),
        ({"extra": lambda *a, **k: object()}, "extra="),
        ({"version": object()}, "version="),
        ({"vary_on": (object,)}, "vary_on="),
        ({"args_rewrite": lambda *a, **k: object()}, "args_rewrite="),
    ],
)
def test_a_part_that_cannot_be_a_part_is_named(options, trouble):
    given = 1 if options else object()
    with pytest.raises(UnkeyableArgument, match=rf"^function\(\): the .*{trouble}"):
        parts_maker(BINDER, KeyParts(**options))((given,), {})
