"""Names that stand for ``cache_memoize``: assignments, partials, wrappers of a project.

The same few forms are followed in each file: ``memo = cache_memoize(60)``,
``partial(cache_memoize, ...)``, and functions that return such an expression, a
decorator made of it, or its result for their argument. So ``@memo(60)`` is read with
the options that the wrapper passes on.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from typing import NamedTuple

__all__ = [
    "DEFS",
    "Def",
    "Factory",
    "factory_of",
    "factory_of_function",
    "last_name",
]

Def = ast.FunctionDef | ast.AsyncFunctionDef
DEFS = (ast.FunctionDef, ast.AsyncFunctionDef)


class Factory(NamedTuple):
    """An expression that is, or makes, a memoizing decorator."""

    #: ``cache_memoize(...)`` with the options that it passes on.
    options: ast.Call
    #: Whether it has to be called to be a decorator, as ``cache_memoize`` itself.
    is_called: bool
    #: The parameters of a wrapper; None: all arguments are options.
    parameters: ast.arguments | None = None


#: From an expression without a call, as ``memo`` or ``tools.memo``.
Find = Callable[[ast.expr], Factory | None]


def last_name(node: ast.AST | None) -> str:
    """Return ``c`` of ``a.b.c``; empty for an expression without a name."""
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def factory_of(node: ast.expr | None, find: Find) -> Factory | None:
    """Return the factory of an expression, or None."""
    if isinstance(node, ast.Name | ast.Attribute):
        return find(node)
    if isinstance(node, ast.Lambda):
        made = factory_of(node.body, find)
        if made and not made.is_called:
            return Factory(made.options, True, node.args)
    if not isinstance(node, ast.Call):
        return None
    if last_name(node.func) == "partial" and node.args:
        made = factory_of(node.args[0], find)
        if made and made.is_called:
            rest = ast.Call(node.func, node.args[1:], node.keywords)
            return made._replace(options=_merge(made, ast.copy_location(rest, node)))
        return None
    made = factory_of(node.func, find)
    if made and made.is_called:
        return Factory(_merge(made, node), False)
    return None


def factory_of_function(function: Def, find: Find) -> Factory | None:
    """Return the factory that a function is, by the expressions that it returns."""
    inside = {
        each.name: each for each in _statements(function) if isinstance(each, DEFS)
    }
    first = next(iter([*function.args.posonlyargs, *function.args.args]), None)
    for node in _statements(function):
        if not isinstance(node, ast.Return) or node.value is None:
            continue
        value = node.value
        if isinstance(value, ast.Call) and len(value.args) == 1:
            made = factory_of(value.func, find)
            given = value.args[0]
            if made and first and not made.is_called and last_name(given) == first.arg:
                return Factory(made.options, False)
        inner = inside.get(last_name(value)) if isinstance(value, ast.Name) else None
        if inner is not None:
            made = next(filter(None, _decorators(inner, find)), None)
            if made is not None:
                return Factory(made.options, False)
            made = factory_of_function(inner, find)
        else:
            made = factory_of(value, find)
        if made and not made.is_called:
            return Factory(made.options, True, function.args)
    return None


def _decorators(function: Def, find: Find) -> Iterator[Factory | None]:
    for each in function.decorator_list:
        made = factory_of(each, find)
        yield made if made and not made.is_called else None


def _statements(function: Def) -> Iterator[ast.AST]:
    """Yield the nodes of a body, without those of functions in it."""
    todo: list[ast.AST] = list(function.body)
    while todo:
        node = todo.pop(0)
        yield node
        if not isinstance(node, (*DEFS, ast.ClassDef, ast.Lambda)):
            todo += ast.iter_child_nodes(node)


def _merge(made: Factory, call: ast.Call) -> ast.Call:
    """Return ``cache_memoize(...)`` with the options of both, at the place of the
    call."""
    options, args, keywords = made.options, call.args, call.keywords
    if made.parameters is None:
        named = {k.arg for k in keywords if k.arg}
        kept = [k for k in options.keywords if k.arg is None or k.arg not in named]
        merged = ast.Call(options.func, [*options.args, *args], [*kept, *keywords])
        return ast.copy_location(merged, call)
    bound, more_args, more_keywords = _bind(made.parameters, call)
    values: list[ast.expr] = []
    for value in options.args:
        if isinstance(value, ast.Starred):
            values += more_args
        elif (given := bound.get(last_name(value), value)) is not None:
            values.append(given)
        else:
            break  # what follows would be another option
    kept = []
    for keyword in options.keywords:
        if keyword.arg is None:
            kept += more_keywords
        elif (given := bound.get(last_name(keyword.value), keyword.value)) is not None:
            kept.append(ast.keyword(keyword.arg, given))
    merged = ast.Call(options.func, values, kept)
    return ast.copy_location(merged, call)


def _bind(
    parameters: ast.arguments, call: ast.Call
) -> tuple[dict[str, ast.expr | None], list[ast.expr], list[ast.keyword]]:
    """Return the arguments of a call by parameter, None for those that are not known,
    and the arguments that have none."""
    places = [a.arg for a in (*parameters.posonlyargs, *parameters.args)]
    bound: dict[str, ast.expr | None] = dict.fromkeys(places)
    bound |= {a.arg: None for a in parameters.kwonlyargs}
    defaults = parameters.defaults
    bound |= zip(places[len(places) - len(defaults) :], defaults, strict=True)
    pairs = zip(parameters.kwonlyargs, parameters.kw_defaults, strict=True)
    bound |= {a.arg: default for a, default in pairs}
    bound |= zip(places, call.args, strict=False)
    bound |= {k.arg: k.value for k in call.keywords if k.arg in bound}
    more = [k for k in call.keywords if k.arg not in bound]
    return bound, call.args[len(places) :], more
