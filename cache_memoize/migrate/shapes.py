"""What an expression is, and what a function does, as far as its text tells."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from .usage import DEFS, Def, last_name

__all__ = [
    "assigned",
    "inside",
    "is_constant",
    "keywords",
    "misfit",
    "names",
    "once",
    "refused",
    "results",
]

ONCE = {"enumerate", "filter", "iter", "map", "reversed", "zip", "chain", "open"}
VIEWS = {"keys", "values", "items"}
QUERIES = {
    *("all", "annotate", "defer", "distinct", "exclude", "filter", "none", "only"),
    *("order_by", "prefetch_related", "select_related", "using", "values_list"),
}


def once(node: ast.expr) -> bool:
    """Whether it is an iterator, or a view of a dict, also inside of a tuple."""
    if isinstance(node, ast.Tuple | ast.List):
        return any(map(once, node.elts))
    if isinstance(node, ast.Call):
        name = last_name(node.func)
        if isinstance(node.func, ast.Attribute) and name in VIEWS:
            return not node.args
        return isinstance(node.func, ast.Name) and name in ONCE
    return isinstance(node, ast.GeneratorExp)


def refused(node: ast.expr) -> str:
    """What it is, if it cannot be part of a key."""
    if isinstance(node, ast.Lambda):
        return "a lambda"
    if last_name(node) == "request":
        return "a request"
    if last_name(node) == "objects" or _is_query(node):
        return "a QuerySet or manager"
    return "an iterator or a view" if once(node) else ""


def _is_query(node: ast.expr) -> bool:
    """``X.objects.filter(...)`` and the like."""
    if not (isinstance(node, ast.Call) and last_name(node.func) in QUERIES):
        return False
    return any(last_name(each) == "objects" for each in ast.walk(node.func))


def results(function: Def | ast.Lambda) -> Iterator[ast.expr]:
    """What a function returns, as it is written."""
    if isinstance(function, ast.Lambda):
        yield function.body
        return
    for node in inside(function):
        if isinstance(node, ast.Return) and node.value:
            yield node.value


def inside(function: Def) -> Iterator[ast.AST]:
    """The nodes of a body, without those of functions and classes in it."""
    todo: list[ast.AST] = list(function.body)
    while todo:
        node = todo.pop()
        yield node
        if not isinstance(node, (*DEFS, ast.ClassDef, ast.Lambda)):
            todo += ast.iter_child_nodes(node)


def names(arguments: ast.arguments) -> set[str]:
    """Every parameter."""
    each = (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)
    more = (arguments.vararg, arguments.kwarg)
    return {a.arg for a in each} | {a.arg for a in more if a}


def assigned(function: Def) -> set[str]:
    return {
        node.id
        for node in inside(function)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    }


def is_constant(node: ast.expr | None, *values: object) -> bool:
    return isinstance(node, ast.Constant) and any(node.value is v for v in values)


def keywords(call: ast.Call) -> list[str]:
    """Those of the function itself; empty where ``**`` hides some."""
    found = [k.arg for k in call.keywords if k.arg != "_refresh"]
    return [] if None in found else [name for name in found if name]


def misfit(arguments: ast.arguments, call: ast.Call, bound: int) -> str:
    """Why a call does not fit for sure; empty if it may."""
    given = keywords(call)
    hidden = any(isinstance(a, ast.Starred) for a in call.args)
    hidden = hidden or any(k.arg is None for k in call.keywords)
    places = [a.arg for a in (*arguments.posonlyargs, *arguments.args)]
    count = len(call.args) + bound
    if not hidden and not arguments.vararg and count > len(places):
        return "too many arguments"
    known = {a.arg for a in (*arguments.args, *arguments.kwonlyargs)}
    unknown = sorted(set(given) - known)
    if unknown and not arguments.kwarg:
        return f"no parameter {unknown[0]!r}"
    if hidden:
        return ""
    needed = places[: len(places) - len(arguments.defaults)]
    pairs = zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    missing = set(needed[count:]) | {a.arg for a, default in pairs if default is None}
    missing -= set(given)
    return f"{sorted(missing)[0]!r} is missing" if missing else ""
