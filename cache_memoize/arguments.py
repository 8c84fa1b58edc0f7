"""Arguments of a call, as a person types them in the admin or on the command line.

They are parsed and never evaluated. An argument is a Python literal, as
:func:`ast.literal_eval` reads it, or a model instance, as ``app.Model(pk=1)``.
"""

from __future__ import annotations

import ast
import json
import shlex
import warnings
from collections.abc import Iterable
from typing import Any

from django.apps import apps
from django.core.exceptions import ValidationError

__all__ = ["load_instance", "parse_call", "parse_literal", "parse_words"]

#: Characters: more than a person types, and fewer than make parsing slow.
LONGEST = 10_000

_Arguments = tuple[tuple[Any, ...], dict[str, Any]]

_LITERALS = (
    'a number, text in quotes ("en"), True, False, None, or a list, tuple, dict or set '
    "of these"
)
_INSTANCES = "or a model instance by its primary key, as app.Model(pk=1)"
#: Literals of JSON and SQL, by what Python has in their place.
_SPELLINGS = {"true": "True", "false": "False", "null": "None", "none": "None"}


# --- one text for all arguments: the admin -------------------------------------------


def parse_call(text: str, user: Any = None) -> _Arguments:
    """Return the arguments that `text` has, as written between the parentheses of a
    call: ``42, lang="en"``.

    Raises ValueError, which names the argument and what to write instead. The text
    itself is not part of the message.

    :param user: must have the permission to view the models of instances; None: may
        view all.
    """
    if len(text) > LONGEST:
        raise ValueError(
            f"the arguments have more than {LONGEST:,} characters; make this call in "
            "code"
        )
    parsed = _parse_text(text)
    args = tuple(
        _evaluate_argument(node, f"argument {number}", user)
        for number, node in enumerate(parsed.args, 1)
    )
    kwargs: dict[str, Any] = {}
    for keyword in parsed.keywords:
        if keyword.arg is None:
            raise ValueError(
                "** is not supported; write each argument by its name, as a=1, b=2"
            )
        if keyword.arg in kwargs:
            raise ValueError(f"{keyword.arg}= is given twice; write it once")
        kwargs[keyword.arg] = _evaluate_argument(keyword.value, f"{keyword.arg}=", user)
    return args, kwargs


def _parse_text(text: str) -> ast.Call:
    problem = "the text is not the arguments of one call"
    try:
        # The line break ends a comment.
        parsed = ast.parse(f"f({text}\n)", mode="eval").body
        if isinstance(parsed, ast.Call) and isinstance(parsed.func, ast.Name):
            return parsed
    except SyntaxError as error:  # its message shows a character at most
        problem = f"this is not Python ({error.msg})"
    except (ValueError, MemoryError, RecursionError):
        problem = "this is not Python, or nested too deeply"
    raise ValueError(
        f"{problem}; write the arguments as in a call, without its parentheses, as "
        '42, lang="en"'
    )


def _evaluate_argument(node: ast.expr, where: str, user: Any) -> Any:
    found = _find_instance(node)
    if found is None:
        return _evaluate_literal(node, where)
    return load_instance(found[0], _evaluate_literal(found[1], f"pk of {where}"), user)


def _evaluate_literal(node: ast.expr, where: str) -> Any:
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, MemoryError, RecursionError):
        pass
    if isinstance(node, ast.Name):
        raise ValueError(
            f"{where} is a name, and names are not looked up; put text in quotes, as "
            '"a"'
        )
    if isinstance(node, ast.Starred):
        raise ValueError(f"{where} has a *; write each argument by itself")
    is_call = isinstance(node, ast.Call)
    kind = "a call, and nothing is called here" if is_call else "not a literal"
    raise ValueError(f"{where} is {kind}; write {_LITERALS}; {_INSTANCES}")


def _find_instance(node: ast.expr) -> tuple[str, ast.expr] | None:
    """Return ("app.Model", key) for ``app.Model(1)`` and ``app.Model(pk=1)``."""
    if not isinstance(node, ast.Call):
        return None
    named = [keyword for keyword in node.keywords if keyword.arg == "pk"]
    values = [*node.args, *(keyword.value for keyword in named)]
    path = node.func
    if len(values) != 1 or len(named) != len(node.keywords):
        return None
    if isinstance(path, ast.Attribute) and isinstance(path.value, ast.Name):
        return f"{path.value.id}.{path.attr}", values[0]
    return None


# --- one word for each argument: the command line ------------------------------------


def parse_words(words: Iterable[str]) -> _Arguments:
    """Return the arguments of which each is a word: a literal, or ``name=literal``.

    A word without quotes is an error and never text: ``true``, ``[1`` and
    ``2024-10-11`` would invalidate a call that was never made. Raises ValueError.
    """
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not (equals and name.isidentifier()):
            if kwargs:
                raise ValueError(
                    f"{word} comes after {next(iter(kwargs))}=...; put arguments "
                    "without a name first"
                )
            args.append(parse_literal(word))
        elif name in kwargs:
            raise ValueError(f"{name}= is given twice; leave one out")
        else:
            kwargs[name] = parse_literal(text, f"{name}=")
    return tuple(args), kwargs


def parse_literal(text: str, before: str = "") -> Any:
    """Return the value of one literal or model instance.

    Raises ValueError, which shows `text`, after `before`, as it is to be written in a
    shell.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about escapes such as "\d"
            node = ast.parse(text.lstrip(), mode="eval").body
        found = _find_instance(node)
        value = ast.literal_eval(found[1] if found else node)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        quoted = shlex.quote(before + json.dumps(text, ensure_ascii=False))
        python = _SPELLINGS.get(text.lower())
        cure = f"{before}{python}, or for the text {quoted}" if python else quoted
        raise ValueError(
            f"{before}{text} is not a Python literal; write {cure}"
        ) from None
    return load_instance(found[0], value) if found else value


# --- model instances -----------------------------------------------------------------


def load_instance(label: str, pk: Any, user: Any = None) -> Any:
    """Return the instance of the model ``"app.Model"`` with this primary key.

    Raises ValueError if the model or the row does not exist, or if the user may not
    view the model, with one message for both. The primary key itself is not part of it.
    """
    try:
        model = apps.get_model(label)
    except LookupError as error:
        raise ValueError(
            f"{str(error).rstrip('.')}; write the label of the app and the name of the "
            "model, as app.Model(pk=1)"
        ) from None
    permission = f"{model._meta.app_label}.view_{model._meta.model_name}"
    try:
        if user is None or user.has_perm(permission):
            return model._base_manager.get(pk=pk)
    except model.DoesNotExist:
        pass
    except (ValueError, TypeError, ValidationError, OverflowError):
        raise ValueError(
            f"this cannot be a primary key of {label}; write it as the database has it"
        ) from None
    yours = "" if user is None else ", or you have no permission to view the model"
    raise ValueError(
        f"{label} has no row with this primary key{yours}; invalidate what depends on "
        "a deleted row by its tags, or all calls"
    )
