"""Arguments that a person types are read, and nothing of what is typed is run."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache_memoize import arguments
from tests.conftest import examples


@pytest.mark.parametrize(
    ("text", "args", "kwargs"),
    [
        ("", (), {}),
        ("  \n", (), {}),
        ("42", (42,), {}),
        ('42, lang="en"', (42,), {"lang": "en"}),
        ("-1.5, True, None,", (-1.5, True, None), {}),
        ("[1, (2, 3)], {'a': {4}}, b'x', 1+2j", ([1, (2, 3)], {"a": {4}}, b"x", 1 + 2j))
        + ({},),
        ("1, # one\n2", (1, 2), {}),
        ("a=1, # the end", (), {"a": 1}),
        ("'é ) \" ('", ('é ) " (',), {}),
        ("set()", (set(),), {}),
    ],
)
def test_literals_are_read(text: str, args: Any, kwargs: Any) -> None:
    assert arguments.parse_call(text) == (args, kwargs)


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner)
    ),
)


@examples(200)
@given(st.lists(plain, max_size=3), st.dictionaries(st.sampled_from("abc"), plain))
def test_whatever_a_call_is_written_as_is_read(
    args: list[Any], kwargs: dict[str, Any]
) -> None:
    named = [f"{name}={value!r}" for name, value in kwargs.items()]
    text = ", ".join([*map(repr, args), *named])
    assert arguments.parse_call(text) == (tuple(args), kwargs)


@examples(500)
@given(st.text(alphabet="f()[]{},=*:1a'\"\\\n #.+-"))
def test_whatever_is_typed_is_read_or_refused(text: str) -> None:
    try:
        args, kwargs = arguments.parse_call(text)
    except ValueError as error:
        assert ("write" in str(error)) or ("put text in quotes" in str(error))
    else:
        assert isinstance(args, tuple)
        assert isinstance(kwargs, dict)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("42, en", 'argument 2 is a name, .* put text in quotes, as "a"'),
        ("lang=en", "lang= is a name"),
        ("1 2", "this is not Python .*; write the arguments as in a call"),
        ("a=1, 2", "this is not Python .*positional argument follows"),
        ("1) + f(2", "not the arguments of one call; write"),
        ("1)(2", "not the arguments of one call; write"),
        ("\x00", "this is not Python"),
        ("[" * 200, "this is not Python"),
        ("-" * 5000 + "1", "write"),
        ("-" * 9900 + "1", "this is not Python, or nested too deeply"),
        ("9" * 9000, "this is not Python"),
        ("*[1]", r"argument 1 has a \*; write each argument"),
        ("**{'a': 1}", r"\*\* is not supported; write"),
        ("a=1, a=2", "a= is given twice; write it once"),
        ("x for x in 'ab'", "argument 1 is not a literal; write a number"),
        ("{[]: 1}", "argument 1 is not a literal"),
        ("a := 1", "argument 1 is not a literal"),
        ("10 ** 10", "argument 1 is not a literal"),
        (
            "__import__('os').abort()",
            "argument 1 is a call, and nothing is called here",
        ),
        ("1," * 5001, "more than 10,000 characters; make this call in code"),
    ],
)
def test_anything_else_is_refused_with_the_cure(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        arguments.parse_call(text)


def test_a_refusal_does_not_repeat_what_was_typed() -> None:
    for text in ("secret", "a=secret", "secret()", "1 secret", "'secret'.x"):
        with pytest.raises(ValueError) as caught:
            arguments.parse_call(text)
        assert "secret" not in str(caught.value)


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arguments, "load_instance", lambda label, pk, user: (label, pk))


@pytest.mark.usefixtures("loaded")
@pytest.mark.parametrize(
    ("text", "args", "kwargs"),
    [
        ("shop.Product(1)", (("shop.Product", 1),), {}),
        ("shop.Product(pk='a'), 2", (("shop.Product", "a"), 2), {}),
        ("p=shop.Product(pk=1)", (), {"p": ("shop.Product", 1)}),
    ],
)
def test_model_instances_are_loaded(text: str, args: Any, kwargs: Any) -> None:
    assert arguments.parse_call(text) == (args, kwargs)


@pytest.mark.usefixtures("loaded")
@pytest.mark.parametrize(
    "text",
    [
        "Product(1)",
        "a.b.Product(1)",
        "shop.Product()",
        "shop.Product(1, 2)",
        "shop.Product(1, pk=1)",
        "shop.Product(id=1)",
        "shop.Product(**{'pk': 1})",
        "'a'.join([])",
    ],
)
def test_no_other_call_is_one(text: str) -> None:
    with pytest.raises(ValueError, match=r"argument 1 is a call.*app.Model\(pk=1\)"):
        arguments.parse_call(text)


def test_the_key_of_an_instance_is_a_literal() -> None:
    with pytest.raises(ValueError, match=r"pk of argument 1 is a name"):
        arguments.parse_call("shop.Product(x)")
    with pytest.raises(ValueError, match=r"argument 1 is not a lit.*app.Model\(pk=1\)"):
        arguments.parse_call("1 + 'a'")
