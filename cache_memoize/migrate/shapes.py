"""The forms of expressions and functions, as far as their text tells."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import NamedTuple

from .factories import DEFS, Def, last_name

#: Functions that return an iterator.
ITERATORS = {"enumerate", "filter", "iter", "map", "reversed", "zip", "chain", "open"}
VIEWS = {"keys", "values", "items"}
QUERIES = {
    *("all", "annotate", "defer", "distinct", "exclude", "filter", "none", "only"),
    *("order_by", "prefetch_related", "select_related", "using", "values_list"),
}


class Difference(NamedTuple):
    """A code, its place (both from 1), and the words for its message."""

    code: str
    line: int
    column: int
    words: tuple[str, ...] = ()


def report_at(node: ast.AST, code: str, *words: str) -> Difference:
    """Return a difference at the place of a node."""
    line, column = getattr(node, "lineno", 1), getattr(node, "col_offset", 0) + 1
    return Difference(code, line, column, words)


def is_single_pass(node: ast.expr) -> bool:
    """Return whether it is an iterator or a view of a dict, or a tuple with one."""
    if isinstance(node, ast.Tuple | ast.List):
        return any(map(is_single_pass, node.elts))
    if isinstance(node, ast.Call):
        name = last_name(node.func)
        if isinstance(node.func, ast.Attribute) and name in VIEWS:
            return not node.args
        return isinstance(node.func, ast.Name) and name in ITERATORS
    return isinstance(node, ast.GeneratorExp)


def find_refused(node: ast.expr) -> str:
    """Return the kind of an expression that cannot be part of a key, or ""."""
    if isinstance(node, ast.Lambda):
        return "a lambda"
    if last_name(node) == "request":
        return "a request"
    if last_name(node) == "objects" or _is_query(node):
        return "a QuerySet or manager"
    return "an iterator or a view" if is_single_pass(node) else ""


def _is_query(node: ast.expr) -> bool:
    """Recognize ``X.objects.filter(...)`` and the like."""
    if not (isinstance(node, ast.Call) and last_name(node.func) in QUERIES):
        return False
    return any(last_name(each) == "objects" for each in ast.walk(node.func))


def is_constant(node: ast.expr | None, *values: object) -> bool:
    return isinstance(node, ast.Constant) and any(node.value is v for v in values)


def iterate_results(function: Def | ast.Lambda) -> Iterator[ast.expr]:
    """Yield the expressions that a function returns."""
    if isinstance(function, ast.Lambda):
        yield function.body
        return
    for node in iterate_body(function):
        if isinstance(node, ast.Return) and node.value:
            yield node.value


def iterate_body(function: Def) -> Iterator[ast.AST]:
    """Yield the nodes of a body, without those of functions and classes in it."""
    todo: list[ast.AST] = list(function.body)
    while todo:
        node = todo.pop()
        yield node
        if not isinstance(node, (*DEFS, ast.ClassDef, ast.Lambda)):
            todo += ast.iter_child_nodes(node)


def names_of(arguments: ast.arguments) -> set[str]:
    """Return the names of all parameters."""
    each = (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)
    more = (arguments.vararg, arguments.kwarg)
    return {a.arg for a in each} | {a.arg for a in more if a}


def find_assigned(function: Def) -> set[str]:
    return {
        node.id
        for node in iterate_body(function)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    }


def find_keywords(call: ast.Call) -> list[str]:
    """Return the keywords for the function itself; none where ``**`` hides some."""
    found = [k.arg for k in call.keywords if k.arg != "_refresh"]
    return [] if None in found else [name for name in found if name]


def explain_misfit(arguments: ast.arguments | None, call: ast.Call, bound: int) -> str:
    """Return why a call certainly does not fit, or "".

    :param bound: number of arguments that come by themselves, such as the instance.
    """
    if arguments is None:
        return ""
    keywords = find_keywords(call)
    hidden = any(isinstance(a, ast.Starred) for a in call.args)
    hidden = hidden or any(k.arg is None for k in call.keywords)
    places = [a.arg for a in (*arguments.posonlyargs, *arguments.args)]
    count = len(call.args) + bound
    if not hidden and not arguments.vararg and count > len(places):
        return "too many arguments"
    known = {a.arg for a in (*arguments.args, *arguments.kwonlyargs)}
    unknown = sorted(set(keywords) - known)
    if unknown and not arguments.kwarg:
        return f"no parameter {unknown[0]!r}"
    if hidden:
        return ""
    needed = places[: len(places) - len(arguments.defaults)]
    pairs = zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    missing = set(needed[count:]) | {a.arg for a, default in pairs if default is None}
    missing -= set(keywords)
    return f"{sorted(missing)[0]!r} is missing" if missing else ""
