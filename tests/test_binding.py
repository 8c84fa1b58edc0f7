"""Which calls are one call: the binding, the default prefix, and the whole key."""

from __future__ import annotations

import datetime
import functools
import inspect
import itertools
import math
import os
import pathlib
import re
import subprocess
import sys
import threading
import uuid

import pytest
from django.core.cache.backends.base import memcache_key_warnings
from django.utils.functional import SimpleLazyObject
from django.utils.safestring import SafeString
from hypothesis import assume, given
from hypothesis import strategies as st

from cache_memoize import UnkeyableArgument, cache_memoize, register_key
from cache_memoize.keys.binding import Binder
from cache_memoize.keys.closure import captured_text_of, default_prefix
from cache_memoize.keys.maker import KeyParts, key_maker
from tests.conftest import examples
from tests.models import Post, SpecialPost

ROOT = pathlib.Path(__file__).parent.parent


def key_of(function, *, prefix="prefix", ignore=(), name="blog.f", **options):
    """``key(*args, **kwargs)`` of a function, by the way of every call."""
    key = key_maker(Binder(function, name, ignore), prefix, KeyParts(**options))
    return lambda *args, **kwargs: key(args, kwargs)


# --- any signature, any call: Python itself is the judge -----------------------------

#: All of them easily taken for another one, and the defaults among them.
ARGUMENTS = st.sampled_from(
    [0, 1, True, 1.0, "1", "", None, b"1", (1,), "a=1", "=s1:ai1;"]
)
NAMES = "abcdefgh"


@st.composite
def functions(draw):
    """``(function, names)``: it returns its arguments as Python has bound them."""
    names = iter(NAMES)
    kinds = {
        kind: [next(names) for _ in range(draw(st.integers(0, 2)))]
        for kind in ("only", "both", "keyword")
    }
    positional = kinds["only"] + kinds["both"]
    required = draw(st.integers(0, len(positional)))
    written = [
        f"{name}={draw(ARGUMENTS)!r}" if number >= required else name
        for number, name in enumerate(positional)
    ]
    if kinds["only"]:
        written.insert(len(kinds["only"]), "/")
    rest = draw(st.booleans())
    if rest or kinds["keyword"]:
        written.append("*args" if rest else "*")
    for name in kinds["keyword"]:
        default = draw(st.booleans())
        written.append(f"{name}={draw(ARGUMENTS)!r}" if default else name)
    others = draw(st.booleans())
    if others:
        written.append("**kwargs")
    body = "return dict(locals())"
    scope = {}
    exec(f"def f({', '.join(written)}): {body}", scope)
    return scope["f"]


@st.composite
def calls(draw, function):
    """A call in any spelling; most of them fit."""
    parameters = inspect.signature(function).parameters.values()
    args, kwargs, by_name = [], {}, False
    for parameter in parameters:
        if parameter.kind is parameter.VAR_POSITIONAL:
            more = not by_name and draw(st.booleans())
            args += draw(st.lists(ARGUMENTS, max_size=2)) if more else []
        elif parameter.kind is parameter.VAR_KEYWORD:
            names = st.sampled_from([*NAMES, "args", "kwargs", "x"])
            more = draw(st.dictionaries(names, ARGUMENTS, max_size=2))
            kwargs = more | kwargs
        else:
            by_name |= parameter.kind is parameter.KEYWORD_ONLY or (
                parameter.kind is parameter.POSITIONAL_OR_KEYWORD
                and draw(st.booleans())
            )
            if parameter.default is parameter.empty or draw(st.booleans()):
                value = draw(ARGUMENTS)
                if by_name:
                    kwargs[parameter.name] = value
                else:
                    args.append(value)
            else:
                by_name = True
    trouble = draw(st.integers(0, 9))
    if trouble == 0:
        args.append(draw(ARGUMENTS))
    elif trouble == 1:
        kwargs[draw(st.sampled_from([*NAMES, "args", "x"]))] = draw(ARGUMENTS)
    elif trouble == 2:
        args = args[:-1]
    return tuple(args), dict(draw(st.permutations(list(kwargs.items()))))


@st.composite
def nearly(draw, args, kwargs):
    """A call that differs in one place: a value, a name, or how it is spelled."""
    args, kwargs = list(args), dict(kwargs)
    if kwargs:
        name = draw(st.sampled_from(sorted(kwargs)))
        value = kwargs.pop(name)
        what = draw(st.sampled_from(["value", "name", "spelling", "nothing"]))
        if what == "value":
            kwargs[name] = draw(ARGUMENTS)
        elif what == "name":
            kwargs[draw(st.sampled_from([*NAMES, "x"]))] = value
        elif what == "spelling":
            args.append(value)
    elif args:
        args[draw(st.integers(0, len(args) - 1))] = draw(ARGUMENTS)
    return tuple(args), kwargs


def bound(function, args, kwargs):
    """What Python makes of a call: None when it does not fit."""
    try:
        return function(*args, **kwargs)
    except TypeError:
        return None


def same(a, b):
    """``a == b``, with the same types all the way down."""
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[name], b[name]) for name in a)
    if isinstance(a, tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


@examples(200)
@given(st.data())
def test_two_calls_share_a_key_exactly_if_python_binds_them_alike(data):
    """And a call that does not fit is a TypeError that names the function."""
    function = data.draw(functions())
    key = key_of(function)
    seen = []
    given_calls = data.draw(st.lists(calls(function), min_size=1, max_size=4))
    given_calls += [data.draw(nearly(*call)) for call in given_calls]
    for args, kwargs in given_calls:
        binding = bound(function, args, kwargs)
        if binding is None:
            with pytest.raises(TypeError, match=r"^blog\.f\(\): "):
                key(*args, **kwargs)
        else:
            seen.append((binding, key(*args, **kwargs)))
            assert key(*args, **kwargs) == seen[-1][1]
    for (one, its_key), (other, other_key) in itertools.combinations(seen, 2):
        assert (its_key == other_key) == same(one, other), (one, other)


@examples(100)
@given(st.data())
def test_a_call_spelled_out_by_inspect_has_the_same_key(data):
    """The second judge: bind, apply_defaults, and call with what came of it."""
    function = data.draw(functions())
    args, kwargs = data.draw(calls(function))
    assume(bound(function, args, kwargs) is not None)
    # Where **kwargs hold the name of a parameter, inspect is wrong up to Python 3.13.
    assume(not names_shared(function, args, kwargs))
    full = inspect.signature(function).bind(*args, **kwargs)
    full.apply_defaults()
    key = key_of(function)
    assert key(*full.args, **full.kwargs) == key(*args, **kwargs)


@examples(150)
@given(st.data())
def test_ignored_parameters_do_not_count_in_any_spelling(data):
    function = data.draw(functions())
    names = list(inspect.signature(function).parameters)
    ignore = data.draw(st.sets(st.sampled_from(names))) if names else set()
    key = key_of(function, ignore=tuple(ignore))
    # Among **kwargs, ignored names are ignored too: another story, told below.
    fitting = [
        (args, kwargs)
        for args, kwargs in data.draw(st.lists(calls(function), max_size=5))
        if bound(function, args, kwargs) is not None
        and not names_shared(function, args, kwargs)
    ]
    for one, other in itertools.combinations(fitting, 2):
        left, right = (
            {k: v for k, v in bound(function, *call).items() if k not in ignore}
            for call in (one, other)
        )
        keys = [key(*args, **kwargs) for args, kwargs in (one, other)]
        assert (keys[0] == keys[1]) == same(left, right)


def names_shared(function, args, kwargs):
    """Whether **kwargs hold a name that a parameter has too."""
    parameters = inspect.signature(function).parameters.keys()
    return parameters & bound(function, args, kwargs).get("kwargs", {}).keys()


@examples(60)
@given(st.data())
def test_functions_that_share_a_prefix_share_entries_by_position(data):
    """Whatever they call their positional parameters; keyword-only ones have names."""
    size = data.draw(st.integers(0, 3))
    scope = {}
    exec(f"def f({', '.join([*'abc'[:size], '*rest'])}, k=0): ...", scope)
    exec(f"def g({', '.join([*'xyz'[:size], '*more'])}, k=0): ...", scope)
    args = data.draw(st.lists(ARGUMENTS, min_size=size, max_size=size + 2))
    f, g = key_of(scope["f"]), key_of(scope["g"], name="blog.g")
    assert f(*args) == g(*args) == f(*args, k=0)
    assert f(*args, k=1) == g(*args, k=1) != f(*args)


def test_keyword_only_parameters_count_by_name_in_whatever_order_they_are_defined():
    def f(*, a, b=2): ...

    def g(*, b=2, a): ...

    assert key_of(f)(a=1) == key_of(g)(a=1) == key_of(g)(b=2, a=1)
    assert key_of(f)(a=2, b=1) != key_of(g)(a=1, b=2)


def test_functions_that_share_a_prefix_differ_by_the_names_of_keyword_only_ones():
    def f(*, a): ...

    def g(*, b): ...

    def h(a): ...

    assert len({key_of(f)(a=1), key_of(g)(b=1), key_of(h)(a=1)}) == 3


# --- the same by hand ----------------------------------------------------------------


def test_one_call_in_all_its_spellings():
    def f(a, b=2, *, c=3): ...

    key = key_of(f)
    assert key(1) == key(a=1) == key(1, 2) == key(1, b=2) == key(b=2, a=1)
    assert key(1) == key(1, c=3) == key(c=3, b=2, a=1)
    assert len({key(1), key(2), key(1, 3), key(1, c=4), key("1")}) == 5


def test_keywords_do_not_depend_on_their_order():
    def f(**options): ...

    key = key_of(f)
    assert key(a=1, b=2) == key(b=2, a=1) != key(a=2, b=1)
    assert key(a=1) != key(b=1)


def test_positional_and_keyword_arguments_do_not_run_into_each_other():
    def f(*args, **kwargs): ...

    key = key_of(f)
    calls = [((), {}), (("a", 1), {}), ((), {"a": 1}), ((("a", 1),), {})]
    calls += [(("a",), {}), ((1,), {}), ((None,), {}), (({"a": 1},), {})]
    calls += [(("=s1:ai1;",), {}), (((),), {}), (("", ""), {}), (("",), {})]
    calls += [((), {"a": "1", "b": 2}), ((), {"a": "1b", "": 2}), (("a", "b"), {})]
    keys = {key(*args, **kwargs) for args, kwargs in calls}
    assert len(keys) == len(calls)


def test_a_positional_only_name_may_come_again_among_the_keywords():
    def f(a, /, **others): ...

    key = key_of(f)
    assert len({key(1), key(1, a=1), key(1, a=2), key(2, a=1)}) == 4


def test_a_misfit_is_a_type_error_also_where_inspect_lets_it_pass():
    """As Python 3.13.0 does: f(a=1) fits ``def f(a, /, **others)`` there."""

    def f(a, /, **others): ...

    binder = Binder(f, "blog.f")
    binder.signature = inspect.signature(lambda **others: ...)  # what it makes of it
    with pytest.raises(TypeError, match=r"^blog\.f\(\): "):
        binder.bind((), {"a": 1})


def test_the_defaults_are_those_of_the_definition():
    def f(a=()): ...

    key = key_of(f)
    assert key() == key(()) != key(None) != key(a=[])


@pytest.mark.parametrize(
    "args, kwargs",
    [
        ((), {}),
        ((1, 2, 3), {}),
        ((1,), {"a": 1}),
        ((1,), {"x": 1}),
        ((1, 2), {"b": 2}),
        ((), {"b": 2}),
        ((1,), {"only": 1, "k": 2}),
        ((1, 2), {"only": 1}),
    ],
)
def test_a_call_that_does_not_fit_is_a_type_error_that_names_the_function(args, kwargs):
    def f(only, /, b=2, *, k=0): ...

    with pytest.raises(TypeError) as reason:
        inspect.signature(f).bind(*args, **kwargs)
    with pytest.raises(TypeError) as caught:
        key_of(f)(*args, **kwargs)
    assert str(caught.value) == f"blog.f(): {reason.value}"
    assert not isinstance(caught.value, UnkeyableArgument)
    assert caught.value.__cause__ is None and caught.value.__suppress_context__


def test_keyword_only_without_default_must_be_given():
    def f(*, k): ...

    key = key_of(f)
    assert key(k=1) != key(k=2)
    with pytest.raises(TypeError, match=r"blog\.f\(\): missing a required.*'k'"):
        key()


def test_methods_bind_their_instance_like_any_argument():
    key = key_of(Tenant.pages)
    assert key(Tenant("a")) == key(Tenant("a"), number=1) == key(self=Tenant("a"))
    assert key(Tenant("a")) != key(Tenant("b"))


def test_a_wrapper_is_called_by_its_own_parameters():
    """Not by those of what it wraps, unless it passes everything on."""

    def f(a, b): ...

    @functools.wraps(f)
    def narrow(a): ...

    @functools.wraps(f)
    def wide(*args, **kwargs): ...

    with pytest.raises(TypeError, match=r"blog\.f\(\): "):
        key_of(narrow)(1, 2)
    assert key_of(narrow)(1) == key_of(narrow)(a=1)
    assert key_of(wide)(1, 2) == key_of(wide)(b=2, a=1)


def test_a_partial_binds_what_is_left():
    def f(a, b, c=3): ...

    key = key_of(functools.partial(f, 1, c=4))
    assert key(2) == key(b=2) == key(2, c=4) != key(2, c=3)
    with pytest.raises(TypeError, match=r"blog\.f\(\): "):
        key(2, 3)


def test_a_function_in_c_without_a_signature_is_refused_with_the_cure():
    trouble = "dict.update has no signature that can be inspected.*that calls it"
    with pytest.raises(TypeError, match=trouble):
        Binder(dict.update, "dict.update")


def test_a_parameter_named_refresh_is_the_librarys_own():
    with pytest.raises(TypeError, match="blog.f has a parameter named _refresh.*name"):
        Binder(lambda a, _refresh=False: ..., "blog.f")


def test_the_parameter_that_cannot_be_keyed_is_named_in_every_kind():
    def f(only, /, both, *rest, keyword=0, **others): ...

    trouble, key = object(), key_of(f)
    for parameter, args, kwargs in [
        ("only", (trouble, 1), {}),
        ("both", (1, trouble), {}),
        ("both", (1,), {"both": trouble}),
        ("rest", (1, 2, 3, trouble), {}),
        ("keyword", (1, 2), {"keyword": trouble}),
        ("x", (1, 2), {"x": [trouble]}),
    ]:
        with pytest.raises(UnkeyableArgument) as caught:
            key(*args, **kwargs)
        error = caught.value
        assert (error.function, error.parameter) == ("blog.f", parameter)
        name = "list" if parameter == "x" else "object"
        assert error.type_name == f"builtins.{name}" and error.__suppress_context__
        assert error.reason.endswith("its address")


def test_an_argument_that_is_nested_too_deeply_is_refused_with_its_name():
    deep = []
    for _ in range(100_000):
        deep = [deep]

    def f(a, b): ...

    trouble = r"^blog\.f\(\): the argument 'b' of type builtins\.list .*too deeply"
    with pytest.raises(UnkeyableArgument, match=trouble):
        key_of(f)(1, deep)
    while deep:  # Python frees it one by one, not in one recursion
        deep = deep.pop()


class Flaky:
    """Cannot be keyed when first asked."""


def test_a_refusal_stands_also_when_asking_again_brings_none():
    answers = [object(), 1]
    register_key(Flaky, lambda value: answers.pop(0))
    with pytest.raises(UnkeyableArgument, match="builtins.object"):
        key_of(lambda a: ...)(Flaky())
    assert not answers


def test_rows_lazy_users_and_proxies_are_arguments_like_their_rows():
    key = key_of(lambda user: ...)
    assert key(Post(pk=1)) == key(SpecialPost(pk=1))
    assert key(Post(pk=1)) == key(SimpleLazyObject(lambda: Post(pk=1)))
    assert key(Post(pk=1)) != key(1)


# --- ignore --------------------------------------------------------------------------


def test_ignored_by_name_in_every_spelling():
    def f(a, request=None, *, log=None): ...

    key = key_of(f, ignore=("request", "log"))
    assert key(1) == key(1, object()) == key(1, request=object(), log=object())
    assert key(1, object()) == key(request=1, a=1) != key(2, object())


def test_ignored_first_and_positional_only():
    def f(self, a, /): ...

    key = key_of(f, ignore=("self",))
    assert key(object(), 1) == key(object(), 1) != key(object(), 2)


def test_ignoring_args_and_kwargs_as_a_whole():
    def f(a, *args, **kwargs): ...

    one = key_of(f, ignore=("args",))
    assert one(1) == one(1, 2, 3) != one(1, x=1)
    other = key_of(f, ignore=["kwargs"])
    assert other(1) == other(1, x=1, y=2) != other(1, 2)


def test_a_parameter_is_ignored_and_not_a_keyword_of_its_name():
    def f(a, /, **others): ...

    key = key_of(f, ignore=("a",))
    assert key(1) == key(2) != key(1, a=1) != key(1, a=2)


def test_one_of_the_keywords_can_be_ignored():
    def f(**kwargs): ...

    key = key_of(f, ignore={"token"})
    assert key(a=1) == key(a=1, token=object()) != key(a=2, token=object())


@pytest.mark.parametrize("ignore", ["a", "abc"])
def test_ignore_is_not_one_string(ignore):
    """Whose letters would be taken for names."""
    with pytest.raises(TypeError, match=rf"takes a tuple of names; .*\('{ignore}',\)"):
        Binder(lambda a, b, c: ..., "blog.f", ignore)


def test_an_unknown_name_in_ignore_is_refused():
    with pytest.raises(
        ValueError, match=r"names \['y', 'z'\].*parameters \['a', 'b'\]"
    ):
        Binder(lambda a, b: ..., "blog.f", ("z", "a", "y"))


# --- args_rewrite, extra, version, prefix --------------------------------------------


def test_args_rewrite_sees_the_call_as_it_is_written_and_stands_for_it():
    seen = []

    def rewrite(*args, **kwargs):
        seen.append((args, kwargs))
        return "same"

    key = key_of(lambda a, b=2: ..., args_rewrite=rewrite)
    assert key(1) == key(5, b=object())
    assert seen[0] == ((1,), {}) and seen[1][0] == (5,) and seen[1][1].keys() == {"b"}


def test_args_rewrite_gives_one_value_a_tuple_or_a_list():
    results = [1, (1,), [1], "1", None, (), ([1],), "i1;"]
    keys = {
        key_of(lambda a: ..., args_rewrite=lambda a, result=result: result)(0)
        for result in results
    }
    assert len(keys) == len(results)


def test_rewritten_arguments_are_never_taken_for_arguments():
    plain = key_of(lambda *args: ...)
    rewritten = key_of(lambda *args: ..., args_rewrite=lambda *args: args)
    assert not {plain(), plain(()), plain(1), plain((1,))} & {rewritten(), rewritten(1)}


def test_args_rewrite_is_asked_at_each_call():
    """What it gives may depend on more than the arguments."""
    languages = ["de", "en"]
    key = key_of(lambda a: ..., args_rewrite=lambda a: (a, languages.pop()))
    assert key(1) != key(1)


def test_a_call_that_does_not_fit_is_refused_before_it_is_rewritten():
    f = cache_memoize(prefix="refused", args_rewrite=lambda *args: args)(lambda a: ...)
    with pytest.raises(TypeError, match=r"lambda>\(\): too many positional"):
        f.get_cache_key(1, 2)


def test_what_is_rewritten_must_be_keyable():
    key = key_of(lambda a: ..., args_rewrite=lambda a: object())
    with pytest.raises(UnkeyableArgument, match=r"blog\.f\(\): the argument 'args_rew"):
        key(1)


def test_args_rewrite_ignore_and_extra_go_together():
    def f(user, request): ...

    key = key_of(
        f,
        ignore=("request",),
        args_rewrite=lambda user, request: user.lower(),
        extra=lambda user, request: request,
    )
    assert key("ANNA", 1) == key("anna", 1) == key(user="Anna", request=1)
    assert key("anna", 1) != key("anna", 2)
    assert key("anna", 1) != key("otto", 1)


def test_a_fixed_extra_is_part_of_every_key():
    extras = [None, 1, "1", (1,), [1], {"a": 1}, ""]
    keys = {key_of(lambda a: ..., extra=extra)(1) for extra in extras}
    assert len(keys) == len(extras)


def test_an_extra_that_is_callable_sees_each_call():
    languages = ["de", "en", "en"]
    key = key_of(lambda a, b=0: ..., extra=lambda *args, **kwargs: languages.pop())
    assert key(1) == key(1, b=0) != key(1)


def test_a_fixed_and_a_callable_extra_are_never_taken_for_arguments():
    def f(*args): ...

    keys = [
        key_of(f)(1),
        key_of(f)("+i1;"),
        key_of(f)(1, "+", 1),
        key_of(f)(1, 1),
        key_of(f)(1, None),
        key_of(f, extra=1)(1),
        key_of(f, extra=lambda *args: 1)(1),
        key_of(f, extra=lambda *args: None)(1),
        key_of(f, version=1)(1),
    ]
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize("option", ["extra", "version"])
def test_what_is_fixed_is_checked_at_decoration(option):
    with pytest.raises(UnkeyableArgument, match=rf"blog\.f\(\): .*'{option}='"):
        key_of(lambda a: ..., **{option: object()})


def test_a_callable_extra_must_give_what_can_be_keyed():
    key = key_of(lambda a: ..., extra=lambda a: threading.Lock())
    with pytest.raises(UnkeyableArgument, match=r"blog\.f\(\): the argument 'extra='"):
        key(1)


def test_a_version_makes_other_keys():
    versions = [None, 0, 1, "1", 1.0, (1, 0)]
    keys = {key_of(lambda a: ..., version=version)(1) for version in versions}
    assert len(keys) == len(versions)


def test_prefixes_and_arguments_do_not_run_into_each_other():
    """f("oo") and foo() are two calls."""
    assert (
        key_of(lambda a: ..., prefix="f")("oo") != key_of(lambda: ..., prefix="foo")()
    )
    assert key_of(lambda: ..., prefix="a.b")() != key_of(lambda: ..., prefix="a_b")()
    one, other = {"prefix": "x", "version": "s1:a"}, {"prefix": "xs4:", "version": "a"}
    assert key_of(lambda: ..., **one)() != key_of(lambda: ..., **other)()
    long = "x" * 100  # of which the label shows the end only
    one, other = (
        key_of(lambda: ..., prefix=f"a{long}"),
        key_of(lambda: ..., prefix=long),
    )
    assert one() != other()


# --- key_generator_callable ----------------------------------------------------------


@pytest.mark.parametrize("key", ["key", "any thing ü", SafeString("safe")])
def test_a_generated_key_is_used_as_it_is(key):
    seen = []

    def generator(*args, **kwargs):
        seen.append((args, kwargs))
        return key

    assert key_of(lambda a, b: ..., key_generator=generator, version=5)(1, b=2) == key
    assert seen == [((1,), {"b": 2})]


@pytest.mark.parametrize("key", [None, 1, b"key", "", ("key",)])
def test_a_generated_key_must_be_a_string_with_something_in_it(key):
    with pytest.raises(
        TypeError, match=rf"blog\.f\(\): .* returned a {type(key).__name__}; "
    ):
        key_of(lambda a: ..., key_generator=lambda a: key)(1)


# --- what is remembered --------------------------------------------------------------


class Counting(Binder):
    """Says how often it really had to write a call down."""

    written = 0

    def text(self, args, kwargs):
        self.written += 1
        return super().text(args, kwargs)


def remembering(function, **options):
    binder = Counting(function, "blog.f")
    key = key_maker(binder, "prefix", KeyParts(**options))
    return binder, lambda *args, **kwargs: key(args, kwargs)


def both(a, b=None, **others): ...


def test_a_key_is_remembered_for_calls_with_plain_arguments():
    binder, key = remembering(both)
    for _ in range(3):
        key(1, "a"), key("1", None), key(a=1, b="a"), key(2**64 - 1, "x" * 64)
        key(True, b"1")
    assert binder.written == 5


@pytest.mark.parametrize(
    "value",
    [1.0, (1,), [1], SafeString("1"), 2**64, "x" * 65, Post(pk=1)]
    + [datetime.datetime(2024, 5, 17), datetime.time(12), uuid.UUID(int=1)],
    ids=repr,
)
def test_other_arguments_are_not_remembered(value):
    """They may be equal to others, change, or be large."""
    binder, key = remembering(both)
    for _ in range(2):
        key(value), key(1, value), key(1, b=value)
    assert binder.written == 6


def test_what_is_remembered_is_never_another_call():
    """Whichever of them comes first: equal values of two types are two calls."""
    calls = [((value,), {}) for value in (1, True, 1.0, "1", None, "", 0, False, 0.0)]
    calls += [((), {"a": args[0]}) for args, _ in calls]
    calls += [((-0.0,), {}), ((1, None), {"c": 1}), ((1,), {"c": True}), ((1, 1), {})]
    calls += [((("a", 1),), {}), (((1,), ("c", 1)), {}), ((1, ("c", 1)), {})]
    alone = [key_of(both)(*args, **kwargs) for args, kwargs in calls]
    for step in (1, -1):
        key = key_of(both)
        for _ in range(2):
            together = [key(*args, **kwargs) for args, kwargs in calls[::step]]
            assert together == alone[::step]
    # Each of the nine is there twice: positionally and by name.
    assert len(set(alone)) == len(calls) - 9


def test_a_default_that_may_change_is_never_remembered():
    changing = []

    def f(a=changing): ...

    key = key_of(f)
    before = key()
    changing.append(1)
    assert key() != before


def test_defaults_that_cannot_change_do_not_keep_a_key_from_being_remembered():
    def f(a, b=1, c="a", d=None, e=True, f=1.0, g=b""): ...

    binder, key = remembering(f)
    assert key(1) == key(1)
    assert binder.written == 1


def test_more_calls_than_are_remembered_keep_their_keys():
    binder, key = remembering(both)
    first = [key(number) for number in range(1500)]
    assert len(set(first)) == 1500 == binder.written
    assert [key(number) for number in range(1500)] == first
    binder.written = 0
    assert key(1499) == first[1499]
    assert binder.written == 0


def test_memory_stays_bounded():
    """Of 1,024 calls of a function; the one that was not used for longest goes."""
    binder, key = remembering(both)
    for number in range(1024):
        key(number)
    key(0)
    assert binder.written == 1024
    key(1024), key(0)
    assert binder.written == 1025
    key(1)
    assert binder.written == 1026


def test_nothing_is_remembered_where_a_key_depends_on_more_than_the_call():
    for options in ({"extra": lambda a: 1}, {"args_rewrite": lambda a: 1}):
        results = [key_of(lambda a: ..., **options)(1) for _ in range(2)]
        assert results[0] == results[1]
    binder, key = remembering(lambda a: ..., extra=lambda a: 1)
    key(1), key(1)
    assert binder.written == 2


def test_a_default_counts_by_what_is_registered_until_the_first_call():
    class Day(datetime.date): ...

    Day.__qualname__ = "Day"
    globals()["Day"] = Day
    day = Day(2024, 5, 17)

    def f(day=day): ...

    key = key_of(f)
    register_key(Day, lambda value: value.year)
    assert key() == key(day) == key(Day(2024, 1, 1))


class Odd:
    """Says of itself that it is equal to everything, or raises."""

    def __init__(self, hashed):
        self.hashed = hashed

    def __hash__(self):
        if self.hashed is None:
            raise ZeroDivisionError
        return self.hashed

    def __eq__(self, other):
        return True


def test_what_hashing_and_comparing_do_does_not_matter():
    key = key_of(both)
    odd, plain = Odd(hash(1)), key(1)
    assert key(odd) != plain == key(1)
    assert key(Odd(None)) == key(Odd(None)) != plain


def test_a_refusal_has_no_other_error_before_it():
    for value in (object(), 1.0):
        with pytest.raises(TypeError) as caught:
            key_of(both)(value, value, value)
        assert caught.value.__context__ is None or caught.value.__suppress_context__


def test_calls_of_methods_are_not_remembered():
    binder, key = remembering(lambda self, a: ...)
    key(1, 2), key(1, 2)
    assert binder.written == 2


def test_a_misfit_is_not_remembered():
    _, key = remembering(lambda a: ...)
    for _ in range(2):
        with pytest.raises(TypeError, match=r"blog\.f\(\): "):
            key(1, 2)


# --- the key itself ------------------------------------------------------------------


@pytest.mark.parametrize(
    "prefix",
    [
        "blog.views.front_page",
        "blog.вид.статья",
        "a b\n\0c\x7f",
        "x" * 300,
        "m.f.<locals>.g n=i1;",
        " ",
        "\ud83d",
    ],
)
@pytest.mark.parametrize(
    "argument",
    ["x" * 300, "a\nb", "\0", "\ud83d", 1 << 20_000, Post(pk=1), b"\xff" * 300],
    ids=lambda value: type(value).__name__,
)
def test_every_key_is_legal_on_memcached(prefix, argument):
    """With a KEY_PREFIX of 100 characters and a version, as Django writes them."""
    key = key_of(lambda a: ..., prefix=prefix, version="é" * 300)(argument)
    assert list(memcache_key_warnings(f"{'p' * 100}:1000:{key}")) == []
    assert key.isascii() and key.isprintable() and " " not in key


def test_a_key_starts_with_what_a_person_recognises_and_shows_no_argument():
    key = key_of(lambda password: ..., prefix="blog.views.login")("secret")
    assert re.fullmatch(r"blog\.views\.login:[A-Za-z0-9+/]{28}", key)


# --- the default prefix --------------------------------------------------------------


class Reader:
    def read(self): ...

    @classmethod
    def of_all(cls): ...

    @staticmethod
    def of_none(): ...


class Tenant(Reader):
    def __init__(self, name):
        self.name = name

    def pages(self, number=1): ...


def capturing(value):
    def inner():
        return value

    return inner


def two_captured(left, right):
    def inner():
        return left, right

    return inner


def test_the_default_prefix_is_module_and_qualified_name():
    assert default_prefix(both) == "tests.test_binding.both"
    assert default_prefix(Reader.read) == "tests.test_binding.Reader.read"
    assert default_prefix(Reader.of_none) == "tests.test_binding.Reader.of_none"
    assert default_prefix(math.sqrt) == "math.sqrt"


def test_partials_differ_by_what_they_hold():
    def prefix(*args, **kwargs):
        return default_prefix(functools.partial(both, *args, **kwargs))

    results = [prefix(), prefix(1), prefix("1"), prefix(b=1), prefix(1, b=1)]
    results += [default_prefix(functools.partial(Reader.read, 1))]
    assert len(set(results)) == len(results)
    assert prefix(1) == prefix(1)
    with pytest.raises(UnkeyableArgument, match="'functools.partial'"):
        prefix(object())


def test_partials_of_bound_methods_differ_by_their_instance():
    """Two that share entries would answer for each other."""
    one = functools.partial(Tenant("a").pages, 1)
    other = functools.partial(Tenant("b").pages, 1)
    assert default_prefix(one) != default_prefix(other)


@pytest.mark.parametrize("function", [lambda: ..., Tenant("a")])
def test_a_function_without_a_name_is_refused_with_the_cure(function):
    with pytest.raises(
        TypeError, match="prefix='something.unique', or use def .* timeout="
    ):
        default_prefix(function)


def test_a_def_inside_a_lambda_has_a_name():
    def make():
        def inner(): ...

        return inner

    make.__qualname__ = "<lambda>"
    inner = make()
    for outer in ("", "outer.<locals>."):
        inner.__qualname__ = name = f"{outer}<lambda>.<locals>.inner"
        assert default_prefix(inner).split(" ")[0] == f"tests.test_binding.{name}"


def test_a_partial_that_holds_what_cannot_be_keyed_is_refused_by_its_name():
    with pytest.raises(UnkeyableArgument) as caught:
        default_prefix(functools.partial(both, object()))
    error = caught.value
    assert error.function == "tests.test_binding.both"
    assert error.parameter == "functools.partial"


# --- what was written once -----------------------------------------------------------


def test_a_release_has_the_keys_of_the_one_before():
    """Else an upgrade starts with a cold cache: on purpose only, and never unsaid."""
    key = key_of(both)(1, c=2)
    assert key == "prefix:QFdSC2gGnIFWULaovSk1uBn1LgVI"
    rewritten = key_of(
        both, version=1, extra=lambda *a, **k: "x", args_rewrite=lambda *a, **k: a
    )
    assert rewritten(1, c=2) == "prefix:f866k156ZSr4nVhW06t5ZhZBArLU"


# --- in every process ----------------------------------------------------------------

CALLS = [
    ((), {}),
    ((1, "a"), {"x": {"b", "c", "d"}}),
    ((None,), {"d": {"z": 1, "y": {2, "2"}}}),
    ((frozenset("abcdef"),), {"b": Tenant("a"), "a_b": 1.5}),
]


def keys_of_calls():
    def f(*args, **kwargs): ...

    function = capturing(frozenset("abcdef"))
    prefix, captured = default_prefix(function), captured_text_of(function, "f")
    key = key_of(
        f, prefix=prefix, captured=captured, extra={"x", "y", "z"}, version="1"
    )
    return [key(*args, **kwargs) for args, kwargs in CALLS]


def test_a_key_is_the_same_in_every_process():
    code = (
        "import django; django.setup()\n"
        "import tests.test_binding as t; print(*t.keys_of_calls())"
    )
    child = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings"}
        | {"PYTHONHASHSEED": "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"},
        capture_output=True,
        timeout=60,
    )
    assert child.stdout.decode().split() == keys_of_calls(), child.stderr.decode()
