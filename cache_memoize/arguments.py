"""Arguments typed by a person: ``42, lang="en"``. Parsed, never evaluated. Pure.

What may stand there are Python's literals, as :func:`ast.literal_eval` reads them, and
where a function is given that loads them, model instances as ``app.Model(pk=1)``.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from typing import Any

__all__ = ["call"]

#: Characters; more than a person types, and less than what makes parsing slow.
LONGEST = 10_000

#: From "app.Model" and a primary key to the instance. Raises ValueError.
Load = Callable[[str, Any], Any]

_LITERALS = (
    'a number, text in quotes ("en"), True, False, None, or a list, tuple, dict or set '
    "of these"
)


def call(text: str, load: Load | None = None) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of a call, as they are written between its parentheses.

    :param text: as ``42, lang="en"``; empty for a call without arguments.
    :param load: what gives the instance for ``app.Model(pk=1)``; None: there are none.
    :raises ValueError: for what are not literals; it says which argument, and what to
        write in its place. The text itself is no part of the message.
    """
    if len(text) > LONGEST:
        raise ValueError(
            f"the arguments have more than {LONGEST:,} characters; make this call in "
            "code"
        )
    parsed = _parse(text)
    args = tuple(
        _value(node, f"argument {number}", load)
        for number, node in enumerate(parsed.args, 1)
    )
    kwargs: dict[str, Any] = {}
    for keyword in parsed.keywords:
        if keyword.arg is None:
            raise ValueError(
                "** does not work here; write each argument by its name, as a=1, b=2"
            )
        if keyword.arg in kwargs:
            raise ValueError(f"{keyword.arg}= is there twice; write it once")
        kwargs[keyword.arg] = _value(keyword.value, f"{keyword.arg}=", load)
    return args, kwargs


def _parse(text: str) -> ast.Call:
    trouble = "what is typed are not arguments of one call"
    try:
        # The line break ends a comment.
        parsed = ast.parse(f"f({text}\n)", mode="eval").body
        if isinstance(parsed, ast.Call) and isinstance(parsed.func, ast.Name):
            return parsed
    except SyntaxError as error:  # its message shows a character at most
        trouble = f"this is not Python ({error.msg})"
    except (ValueError, MemoryError, RecursionError):
        trouble = "this is not Python, or nested too deeply"
    raise ValueError(
        f"{trouble}; write the arguments as in a call, without its parentheses, as "
        '42, lang="en"'
    )


def _value(node: ast.expr, where: str, load: Load | None) -> Any:
    if load is not None and isinstance(node, ast.Call):
        return load(*_instance(node, where))
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, MemoryError, RecursionError):
        pass
    if isinstance(node, ast.Name):
        raise ValueError(
            f"{where} is a name, and names mean nothing here; put text in "
            'quotes, as "a"'
        )
    if isinstance(node, ast.Starred):
        raise ValueError(f"{where} has a *; write each argument by itself")
    others = "" if load is None else "; or a model instance, as app.Model(pk=1)"
    raise ValueError(f"{where} is not a literal; write {_LITERALS}{others}")


def _instance(node: ast.Call, where: str) -> tuple[str, Any]:
    """("app.Model", primary key) of ``app.Model(1)`` or ``app.Model(pk=1)``."""
    named = [keyword for keyword in node.keywords if keyword.arg == "pk"]
    given = [*node.args, *(keyword.value for keyword in named)]
    one = len(given) == 1 and len(named) == len(node.keywords)
    path = node.func
    if isinstance(path, ast.Attribute) and isinstance(path.value, ast.Name) and one:
        return f"{path.value.id}.{path.attr}", _value(given[0], f"pk of {where}", None)
    raise ValueError(
        f"{where} is a call, and nothing is called here; write {_LITERALS}; or a model "
        "instance by its app, name and primary key, as app.Model(pk=1)"
    )
