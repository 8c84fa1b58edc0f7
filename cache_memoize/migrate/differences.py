"""The rules of the migration check about memoized functions.

A rule reports a difference between 0.2.1 and this version only where the text of one
file makes it certain. The codes are explained in ``CODES``.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from .callers import check_call, check_key, check_removed
from .factories import DEFS, Def, last_name
from .shapes import (
    Difference,
    find_assigned,
    find_refused,
    is_constant,
    is_single_pass,
    iterate_body,
    iterate_results,
    names_of,
    report_at,
)
from .usage import Declared, Known, Module

#: Classes whose instances cannot be part of a key, as annotations of parameters.
REFUSED = {
    *("HttpRequest", "WSGIRequest", "ASGIRequest", "QuerySet", "Manager"),
    *("UploadedFile", "InMemoryUploadedFile", "TemporaryUploadedFile", "FieldFile"),
}
#: Bases of classes whose ``self`` cannot be part of a key.
HOLDERS = re.compile(
    r"\b(\w*View|\w*ViewSet|\w*Admin|\w*Inline|Manager|\w*UserManager|\w*QuerySet)\b"
)
NOT_EXCEPTIONS = {
    *("BaseException", "CancelledError", "GeneratorExit"),
    *("KeyboardInterrupt", "SystemExit"),
}
#: Functions that return no string.
NO_STRINGS = {"bool", "dict", "float", "hash", "id", "int", "len", "list", "sum"}
NO_STRINGS |= {"set", "tuple"}


def find_differences(module: Module, known: Known) -> Iterator[Difference]:
    """Yield the differences in one file; `known` has the functions of all files."""
    for declared in module.declared:
        yield from _check_decorated(declared)
        yield from _check_options(declared)
        yield from _check_parameters(declared)
        yield from _check_captured(declared)
        yield from _check_returned(declared)
        yield from _check_rewrite(declared)
        yield from _check_extra(declared)
        yield from _check_generator(declared)
    for call in known.find_calls(module):
        yield from check_call(call)
    for node in module.nodes:
        yield from check_key(module, known, node)
        yield from check_removed(module, node)


def _check_decorated(declared: Declared) -> Iterator[Difference]:
    """M012, M013, M015, M019: what is refused or keyed differently when decorated."""
    node, name, place = declared.node, declared.name, declared.call
    if isinstance(node, ast.Lambda) and not declared.has_own_keys:
        yield report_at(place, "M012")
    if isinstance(node, ast.ClassDef) and not declared.by_method_decorator:
        yield report_at(place, "M013", name, "class")
    if isinstance(node, DEFS) and _is_generator(node):
        yield report_at(place, "M013", name, "generator function")
    if declared.parameters and "_refresh" in names_of(declared.parameters):
        yield report_at(node or place, "M015", name)
    target = declared.target
    owner = last_name(target.value) if isinstance(target, ast.Attribute) else ""
    if declared.by_method_decorator or owner in {"self", "cls"}:
        yield report_at(place, "M019", name)


def _is_generator(function: Def | ast.Lambda) -> bool:
    return isinstance(function, DEFS) and any(
        isinstance(node, ast.Yield | ast.YieldFrom) for node in iterate_body(function)
    )


def _check_options(declared: Declared) -> Iterator[Difference]:
    """M014 and M016: values of options that are refused, and guards."""
    for option, why in _find_refused_options(declared.options):
        place = declared.place_of(option)
        yield report_at(place, "M014", option, declared.name, why)
    exceptions = declared.options.get("cache_exceptions", ast.Tuple([]))
    caches_none = isinstance(exceptions, ast.Tuple) and not exceptions.elts
    if declared.is_guard and not caches_none:
        yield report_at(declared.call, "M016", declared.name)


def _find_refused_options(options: dict[str, ast.expr]) -> Iterator[tuple[str, str]]:
    timeout = options.get("timeout")
    if isinstance(timeout, ast.UnaryOp) and isinstance(timeout.op, ast.USub):
        yield "timeout", "negative"
    if is_constant(timeout, True, False):
        yield "timeout", "True or False"
    prefix = options.get("prefix")
    if isinstance(prefix, ast.Constant) and prefix.value == "":
        yield "prefix", "empty"
    exceptions = options.get("cache_exceptions")
    several = exceptions.elts if isinstance(exceptions, ast.Tuple) else [exceptions]
    wrong = [last_name(each) for each in several if last_name(each) in NOT_EXCEPTIONS]
    if wrong:
        yield "cache_exceptions", f"{wrong[0]}, which is no Exception"


def _check_parameters(declared: Declared) -> Iterator[Difference]:
    """M006: parameters that cannot be part of a key, by their name, type or class."""
    parameters = declared.parameters
    if parameters is None or not declared.keyed_by_arguments:
        return
    if declared.by_method_decorator:
        return  # M019 covers it
    each = (*parameters.posonlyargs, *parameters.args, *parameters.kwonlyargs)
    request = _find_request(declared, each)
    for parameter in each:
        kind = _find_refused_type(parameter)
        if parameter is request:
            kind = kind or f"the request of a view, {parameter.arg!r}"
        if kind and parameter.arg not in declared.ignored:
            yield report_at(parameter, "M006", declared.name, kind)
    owner = declared.owner
    if owner and declared.kind == "method" and each:
        bases = [HOLDERS.search(ast.unparse(base)) for base in owner.bases]
        found = next((base[1] for base in bases if base), None)
        if found and each[0].arg not in declared.ignored:
            said = f"{each[0].arg!r} of {owner.name}, a {found}"
            yield report_at(each[0], "M006", declared.name, said)


def _find_request(
    declared: Declared, parameters: tuple[ast.arg, ...]
) -> ast.arg | None:
    """Return the parameter that takes the request of a view: the first of a function
    with one of Django's decorators, or that it renders."""
    assert not isinstance(declared.node, ast.ClassDef | None)
    first = 1 if declared.kind in {"method", "class method"} else 0
    for parameter in parameters[first : first + 1]:
        rendered = isinstance(declared.node, DEFS) and any(
            last_name(value.func) == "render"
            and last_name(value.args[0]) == parameter.arg
            for value in iterate_results(declared.node)
            if isinstance(value, ast.Call) and value.args
        )
        if declared.is_view or rendered:
            return parameter
    return None


def _find_refused_type(parameter: ast.arg) -> str:
    if parameter.arg in {"request", "req", "_request", "http_request"}:
        return f"a parameter named {parameter.arg}"
    for node in ast.walk(parameter.annotation or ast.Constant(None)):
        name = last_name(node)
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            name = next((n for n in re.findall(r"\w+", node.value) if n in REFUSED), "")
        if name in REFUSED:
            return f"a parameter of type {name}"
    return ""


def _check_captured(declared: Declared) -> Iterator[Difference]:
    """M018: a function made in a function, which is keyed by what it captures."""
    node = declared.node
    if not isinstance(node, DEFS) or declared.owner or declared.has_own_keys:
        return
    around = declared.module.functions_around(node)
    if any(each.name.startswith("test") for each in around):
        return
    outer = {n for each in around for n in names_of(each.args) | find_assigned(each)}
    own = names_of(node.args) | find_assigned(node)
    used = {
        n.id
        for n in ast.walk(ast.Module(node.body, []))
        if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)
    }
    captured = sorted((used & outer) - own)
    if captured:
        yield report_at(declared.call, "M018", declared.name, captured[0])


def _check_returned(declared: Declared) -> Iterator[Difference]:
    """M017: exceptions that are returned."""
    if not isinstance(declared.node, DEFS) or declared.is_guard:
        return
    for node in iterate_body(declared.node):
        if not isinstance(node, ast.Return) or node.value is None:
            continue
        value = node.value
        made = last_name(value.func) if isinstance(value, ast.Call) else ""
        is_error = re.fullmatch(r"(?!HttpResponse)[A-Z]\w*(Error|Exception)", made)
        caught = {
            each.name
            for each in declared.module.nodes_around(node)
            if isinstance(each, ast.ExceptHandler)
        }
        if is_error or last_name(value) in caught - {None}:
            yield report_at(node, "M017", declared.name)


def _check_rewrite(declared: Declared) -> Iterator[Difference]:
    """M005: args_rewrite that returns an iterator."""
    rewrite = declared.rewrite
    if rewrite is None:
        return
    if _is_generator(rewrite) or any(map(is_single_pass, iterate_results(rewrite))):
        yield report_at(declared.place_of("args_rewrite"), "M005", declared.name)


def _check_extra(declared: Declared) -> Iterator[Difference]:
    """M008: values of extra that cannot be part of a key."""
    extra = declared.options.get("extra")
    if extra is None:
        return
    function = declared.module.find_callable(extra)
    for value in iterate_results(function) if function else [extra]:
        parts = value.elts if isinstance(value, ast.Tuple | ast.List) else [value]
        for part in value.values if isinstance(value, ast.Dict) else parts:
            kind = "a request" if last_name(part) in {"req", "request"} else ""
            kind = kind or find_refused(part)
            if kind and not isinstance(part, ast.Lambda):
                yield report_at(declared.place_of("extra"), "M008", declared.name, kind)


def _check_generator(declared: Declared) -> Iterator[Difference]:
    """M009: key_generator_callable that returns no string."""
    if declared.generator is not None:
        for value in iterate_results(declared.generator):
            if _is_no_string(value):
                place = declared.place_of("key_generator_callable")
                yield report_at(place, "M009", declared.name)


def _is_no_string(node: ast.expr) -> bool:
    if isinstance(node, ast.Constant):
        return not isinstance(node.value, str) or not node.value
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and node.func.id in NO_STRINGS
    several = ast.Tuple | ast.List | ast.Dict | ast.Set
    return isinstance(node, several) or last_name(node) in {"pk", "id"}
