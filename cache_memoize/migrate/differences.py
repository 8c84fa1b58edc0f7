"""Where code for django-cache-memoize 0.2.1 means something else now: the rules.

Each looks at what one file says, and speaks only where that is certain. What the codes
mean is in ``migrate.py``.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import NamedTuple

from .shapes import (
    assigned,
    inside,
    is_constant,
    keywords,
    misfit,
    names,
    once,
    refused,
    results,
)
from .usage import (
    DEFS,
    Call,
    Declared,
    Def,
    Known,
    Module,
    last_name,
)

__all__ = ["Difference", "differences"]


class Difference(NamedTuple):
    """A code, its place (both from 1), and what its message speaks of."""

    code: str
    line: int
    column: int
    said: tuple[str, ...] = ()


REFUSED = {
    *("HttpRequest", "WSGIRequest", "ASGIRequest", "QuerySet", "Manager"),
    *("UploadedFile", "InMemoryUploadedFile", "TemporaryUploadedFile", "FieldFile"),
}
HOLDERS = re.compile(
    r"\b(\w*View|\w*ViewSet|\w*Admin|\w*Inline|Manager|\w*UserManager|\w*QuerySet)\b"
)
NOT_EXCEPTIONS = {"BaseException", "CancelledError", "GeneratorExit"}
NOT_EXCEPTIONS |= {"KeyboardInterrupt", "SystemExit"}
CACHE_METHODS = {
    *("add", "decr", "get", "get_many", "get_or_set", "has_key", "incr", "set"),
    *("set_many", "touch"),
}
CACHE_METHODS |= {f"a{name}" for name in CACHE_METHODS}
MD5 = re.compile("[0-9a-f]{32}")
NO_STRINGS = {"bool", "dict", "float", "hash", "id", "int", "len", "list", "sum"}
NO_STRINGS |= {"set", "tuple"}
GONE = {"DEFAULT_CACHE_ALIAS", "DEFAULT_TIMEOUT", "MARKER", "caches"}


def differences(module: Module, known: Known) -> Iterator[Difference]:
    """What changes in one file, given what all files memoize."""
    for declared in module.declared:
        for rule in (_decorated, _arguments, _made_inside, _returned, _callables):
            yield from rule(module, declared)
    for call in known.calls(module):
        yield from _called(call)
    for node in module.nodes:
        yield from _keys_by_hand(module, known, node)
        yield from _gone(module, node)


def _at(node: ast.AST, code: str, *said: str) -> Difference:
    line, column = getattr(node, "lineno", 1), getattr(node, "col_offset", 0) + 1
    return Difference(code, line, column, said)


def _decorated(module: Module, declared: Declared) -> Iterator[Difference]:
    """What is refused at decoration, or counts differently from then on."""
    node, options, name = declared.node, declared.options, declared.name
    place = declared.call
    named = {"prefix", "key_generator_callable"} & set(options)
    if isinstance(node, ast.Lambda) and not named:
        yield _at(place, "M012")
    if isinstance(node, ast.ClassDef) and not declared.by_method_decorator:
        yield _at(place, "M013", name, "class")
    if isinstance(node, DEFS) and _is_generator(node):
        yield _at(place, "M013", name, "generator function")
    if declared.parameters and "_refresh" in names(declared.parameters):
        yield _at(node or place, "M015", name)
    for option, why in _refused_options(options):
        yield _at(options[option], "M014", option, name, why)
    exceptions = options.get("cache_exceptions")
    none = (
        exceptions is None or isinstance(exceptions, ast.Tuple) and not exceptions.elts
    )
    if is_constant(options.get("store_result"), False) and not none:
        yield _at(place, "M016", name)
    target = declared.target
    bound = isinstance(target, ast.Attribute) and last_name(target.value) in {
        "self",
        "cls",
    }
    if declared.by_method_decorator or bound:
        yield _at(place, "M019", name)


def _is_generator(function: Def) -> bool:
    return any(isinstance(n, ast.Yield | ast.YieldFrom) for n in inside(function))


def _refused_options(options: dict[str, ast.expr]) -> Iterator[tuple[str, str]]:
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
    wrong = [last_name(e) for e in several if last_name(e) in NOT_EXCEPTIONS]
    if wrong:
        yield "cache_exceptions", f"{wrong[0]}, which is no Exception"


def _arguments(module: Module, declared: Declared) -> Iterator[Difference]:
    """Parameters that cannot be part of a key, by their name, type or class."""
    parameters = declared.parameters
    if parameters is None or not declared.keyed_by_itself:
        return
    if declared.by_method_decorator:
        return  # M019 says enough
    ignored = _ignored(declared)
    each = (*parameters.posonlyargs, *parameters.args, *parameters.kwonlyargs)
    for parameter in each:
        if parameter.arg in ignored:
            continue
        kind = _refused_type(parameter)
        if kind:
            yield _at(parameter, "M006", declared.name, kind)
    owner = declared.owner
    if owner and declared.kind == "method" and each and each[0].arg not in ignored:
        bases = [HOLDERS.search(ast.unparse(base)) for base in owner.bases]
        found = next((base[1] for base in bases if base), None)
        if found:
            said = f"{each[0].arg!r} of {owner.name}, a {found}"
            yield _at(each[0], "M006", declared.name, said)


def _refused_type(parameter: ast.arg) -> str:
    if parameter.arg == "request":
        return "a parameter named request"
    for node in ast.walk(parameter.annotation or ast.Constant(None)):
        name = last_name(node)
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            name = next((n for n in re.findall(r"\w+", node.value) if n in REFUSED), "")
        if name in REFUSED:
            return f"a parameter of type {name}"
    return ""


def _ignored(declared: Declared) -> set[str]:
    """The names in ``ignore=``, where somebody has begun to migrate."""
    given = declared.options.get("ignore")
    nodes = ast.walk(given) if given else []
    return {str(n.value) for n in nodes if isinstance(n, ast.Constant)}


def _made_inside(module: Module, declared: Declared) -> Iterator[Difference]:
    """What is made in a function, and is known by what it captures."""
    node = declared.node
    if not isinstance(node, DEFS) or declared.owner:
        return
    if {"prefix", "key_generator_callable"} & set(declared.options):
        return
    around = module.functions_around(node)
    if any(each.name.startswith("test") for each in around):
        return
    outer = {n for each in around for n in names(each.args) | assigned(each)}
    own = names(node.args) | assigned(node)
    used = {
        n.id
        for n in ast.walk(ast.Module(node.body, []))
        if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)
    }
    captured = sorted((used & outer) - own)
    if captured:
        yield _at(declared.call, "M018", declared.name, captured[0])


def _returned(module: Module, declared: Declared) -> Iterator[Difference]:
    if not isinstance(declared.node, DEFS):
        return
    if is_constant(declared.options.get("store_result"), False):
        return
    for node in inside(declared.node):
        if not isinstance(node, ast.Return) or node.value is None:
            continue
        value = node.value
        made = last_name(value.func) if isinstance(value, ast.Call) else ""
        is_error = re.fullmatch(r"(?!HttpResponse)[A-Z]\w*(Error|Exception)", made)
        caught = {
            each.name
            for each in module.around(node)
            if isinstance(each, ast.ExceptHandler)
        }
        if is_error or last_name(value) in caught - {None}:
            yield _at(node, "M017", declared.name)


def _callables(module: Module, declared: Declared) -> Iterator[Difference]:
    """What options give that makes the key."""
    name, options = declared.name, declared.options
    rewrite = declared.rewrite
    if rewrite is not None:
        yields = isinstance(rewrite, DEFS) and _is_generator(rewrite)
        if yields or any(map(once, results(rewrite))):
            yield _at(options["args_rewrite"], "M005", name)
    extra = options.get("extra")
    if extra is not None:
        function = module.callable_of(extra)
        given = results(function) if function else iter([extra])
        for each in given:
            parts = each.elts if isinstance(each, ast.Tuple | ast.List) else [each]
            parts = [*each.values] if isinstance(each, ast.Dict) else parts
            for part in parts:
                what = "a request" if last_name(part) in {"req", "request"} else ""
                what = what or refused(part)
                if what and not isinstance(part, ast.Lambda):
                    yield _at(extra, "M008", name, what)
    if declared.generator is not None:
        for each in results(declared.generator):
            if _is_no_string(each):
                yield _at(options["key_generator_callable"], "M009", name)


def _is_no_string(node: ast.expr) -> bool:
    if isinstance(node, ast.Constant):
        return not isinstance(node.value, str) or not node.value
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and node.func.id in NO_STRINGS
    several = ast.Tuple | ast.List | ast.Dict | ast.Set
    return isinstance(node, several) or last_name(node) in {"pk", "id"}


def _called(call: Call) -> Iterator[Difference]:
    function, node = call.function, call.node
    parameters = function.parameters
    shown = function.name
    if call.control:
        assert isinstance(node.func, ast.Attribute)
        shown = f"{function.name}.{node.func.attr}()"
    generated = "key_generator_callable" in function.options
    if not call.certain:
        if call.bound and _is_first(call):
            yield _at(node, "M001", shown)
        return
    if _twice(call):
        yield _at(node, "M001", shown)
    elif call.control and parameters and not generated:
        why = misfit(parameters, node, call.bound)
        if why:
            yield _at(node, "M002", shown, why)
    if function.keyed_by_itself:
        ignored = _ignored(function)
        for argument in node.args:
            what = refused(argument)
            if what and not ignored:
                yield _at(argument, "M007", shown, what)
        for keyword in node.keywords:
            what = refused(keyword.value)
            if what and keyword.arg not in {*ignored, "_refresh"}:
                yield _at(keyword.value, "M007", shown, what)
    if function.rewrite is not None:
        yield from _rewritten(call, function.rewrite, shown)


def _twice(call: Call) -> bool:
    """Whether a bound control is given its instance again."""
    function, node, receiver = call.function, call.node, call.receiver
    if not (call.control and call.bound and receiver):
        return False
    if _is_first(call):
        return True
    parameters = function.parameters
    if parameters is None or parameters.vararg or not parameters.args:
        return False
    places = [a.arg for a in (*parameters.posonlyargs, *parameters.args)]
    plain = [a for a in node.args if not isinstance(a, ast.Starred)]
    return len(plain) + 1 > len(places) or places[0] in keywords(node)


def _is_first(call: Call) -> bool:
    """Whether ``x`` of ``x.method.invalidate(x)`` is the first argument too."""
    first, receiver = call.node.args[:1], call.receiver
    return bool(receiver and first and ast.dump(first[0]) == ast.dump(receiver))


def _rewritten(
    call: Call, rewrite: Def | ast.Lambda, shown: str
) -> Iterator[Difference]:
    """Keywords: args_rewrite did not see them, and they were in the key besides."""
    arguments = rewrite.args
    taken = {a.arg for a in (*arguments.args, *arguments.kwonlyargs)}
    body = rewrite.body if isinstance(rewrite.body, list) else [rewrite.body]
    used = {n.id for part in body for n in ast.walk(part) if isinstance(n, ast.Name)}
    for name in keywords(call.node):
        by = name if name in taken else arguments.kwarg and arguments.kwarg.arg
        if by is None:
            yield _at(call.node, "M003", shown, name)
        elif by not in used:
            yield _at(call.node, "M004", shown, name)


def _keys_by_hand(module: Module, known: Known, node: ast.AST) -> Iterator[Difference]:
    asked: list[ast.expr] = []
    method = ""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        method = node.func.attr
        asked = node.args[:1] if _is_cache(node.func.value) else []
    elif isinstance(node, ast.Compare) and _is_cache(node.comparators[0]):
        asked, method = [node.left], "has_key"
    for key in asked:
        name = _key_of(module, known, key)
        if name and method in CACHE_METHODS:
            yield _at(node, "M010", name)
        if isinstance(key, ast.Constant) and MD5.fullmatch(str(key.value)):
            yield _at(node, "M011")
    if isinstance(node, ast.Call) and last_name(node.func) == "md5":
        texts = [n.value for n in ast.walk(node) if isinstance(n, ast.Constant)]
        if any(str(t).removeprefix("b'")[:13] == "cache_memoize" for t in texts):
            yield _at(node, "M011")


def _is_cache(node: ast.expr) -> bool:
    """``cache``, ``self.page_cache``, ``caches["default"]``."""
    if isinstance(node, ast.Subscript):
        node = node.value
    return "cache" in last_name(node).lower()


def _key_of(module: Module, known: Known, key: ast.expr) -> str:
    """Whose key it is: ``f.get_cache_key(...)`` in place or in a variable, or what a
    ``key_generator_callable`` gives."""
    if isinstance(key, ast.Name):
        scopes = [*module.functions_around(key), module.tree]
        for node in ast.walk(scopes[0]):
            if isinstance(node, ast.Assign) and last_name(node.targets[0]) == key.id:
                return _key_of(module, known, node.value) if node.value != key else ""
        return ""
    generators = {
        last_name(each.options.get("key_generator_callable")): each.name
        for each in module.declared
    }
    for node in ast.walk(key):
        if isinstance(node, ast.Call):
            made = node.func
            control = isinstance(made, ast.Attribute) and made.attr == "get_cache_key"
            if (
                control
                and isinstance(made, ast.Attribute)
                and known.is_known(made.value)
            ):
                return last_name(made.value)
            if last_name(made) and last_name(made) in generators:
                return generators[last_name(made)]
    return ""


def _gone(module: Module, node: ast.AST) -> Iterator[Difference]:
    if isinstance(node, ast.ImportFrom):
        if (node.level, node.module) == (0, "cache_memoize"):
            for alias in node.names:
                if alias.name in GONE:
                    yield _at(node, "M021", alias.name)
    elif isinstance(node, ast.Attribute):
        if node.attr in GONE and last_name(node.value) in module.libraries:
            yield _at(node, "M021", node.attr)
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        package, _, name = node.value.partition(".")  # mock.patch("cache_memoize...")
        if package == "cache_memoize" and name in GONE:
            yield _at(node, "M021", name)
    elif isinstance(node, ast.Dict):
        for key, value in zip(node.keys, node.values, strict=True):
            if isinstance(key, ast.Constant) and isinstance(value, ast.Constant):
                is_json = re.search(r"\.\w*json\w*$", str(value.value), re.I)
                if str(key.value).lower() == "serializer" and is_json:
                    yield from [_at(value, "M020")] * _is_caches(module, node)


def _is_caches(module: Module, node: ast.Dict) -> bool:
    """Whether a dict is somewhere in ``CACHES = ...``."""
    for each in module.around(node):
        if isinstance(each, ast.Assign):
            return "CACHES" in last_name(each.targets[0])
    return False
