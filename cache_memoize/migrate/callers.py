"""The rules of the migration check about code that uses memoized functions."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from .factories import Def, last_name
from .shapes import Difference, explain_misfit, find_keywords, find_refused, report_at
from .usage import Call, Known, Module

CACHE_METHODS = {
    *("add", "decr", "get", "get_many", "get_or_set", "has_key", "incr", "set"),
    *("set_many", "touch"),
}
CACHE_METHODS |= {f"a{name}" for name in CACHE_METHODS}
MD5 = re.compile("[0-9a-f]{32}")
JSON = re.compile(r"\.\w*json\w*$", re.IGNORECASE)
#: Names that 0.2.1 had in its module.
REMOVED = {"DEFAULT_CACHE_ALIAS", "DEFAULT_TIMEOUT", "MARKER", "caches"}


def check_call(call: Call) -> Iterator[Difference]:
    """M001, M002, M003, M004 and M007: a call of a memoized function or a control."""
    function, node = call.function, call.node
    name = function.name
    if call.control and isinstance(node.func, ast.Attribute):
        name = f"{name}.{node.func.attr}()"
    if not call.certain:
        if call.bound and _repeats_receiver(call):
            yield report_at(node, "M001", name)
        return
    if _repeats_instance(call):
        yield report_at(node, "M001", name)
    elif call.control and "key_generator_callable" not in function.options:
        why = explain_misfit(function.parameters, node, call.bound)
        if why:
            yield report_at(node, "M002", name, why)
    if function.keyed_by_arguments:
        yield from _check_arguments(call, name)
    if function.rewrite is not None:
        yield from _check_rewritten(call, function.rewrite, name)


def _check_arguments(call: Call, name: str) -> Iterator[Difference]:
    ignored = call.function.ignored
    # The parameters of positional arguments are not worked out.
    values = [] if ignored else list(call.node.args)
    keywords = call.node.keywords
    values += [k.value for k in keywords if k.arg not in {*ignored, "_refresh"}]
    for value in values:
        kind = find_refused(value)
        if kind:
            yield report_at(value, "M007", name, kind)


def _repeats_instance(call: Call) -> bool:
    """Return whether a bound control is given its instance again."""
    node, parameters = call.node, call.function.parameters
    if not (call.control and call.bound and call.receiver):
        return False
    if _repeats_receiver(call):
        return True
    if parameters is None or parameters.vararg or not parameters.args:
        return False
    places = [a.arg for a in (*parameters.posonlyargs, *parameters.args)]
    plain = [a for a in node.args if not isinstance(a, ast.Starred)]
    return len(plain) + 1 > len(places) or places[0] in find_keywords(node)


def _repeats_receiver(call: Call) -> bool:
    """Return whether ``x`` of ``x.method.invalidate(x)`` is the first argument too."""
    first, receiver = call.node.args[:1], call.receiver
    return bool(receiver and first and ast.dump(first[0]) == ast.dump(receiver))


def _check_rewritten(
    call: Call, rewrite: Def | ast.Lambda, name: str
) -> Iterator[Difference]:
    """M004: keywords, which 0.2.1 did not pass to args_rewrite, but had in the key."""
    arguments = rewrite.args
    taken = {a.arg for a in (*arguments.args, *arguments.kwonlyargs)}
    body = rewrite.body if isinstance(rewrite.body, list) else [rewrite.body]
    used = {n.id for part in body for n in ast.walk(part) if isinstance(n, ast.Name)}
    for keyword in find_keywords(call.node):
        by = keyword if keyword in taken else arguments.kwarg and arguments.kwarg.arg
        if by and by not in used:
            yield report_at(call.node, "M004", name, keyword)


def check_key(module: Module, known: Known, node: ast.AST) -> Iterator[Difference]:
    """M010 and M011: keys that are used or made without the library."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        asked = node.args[:1] if _is_cache(node.func.value) else []
        yield from _check_asked(module, known, node, asked, node.func.attr)
    elif isinstance(node, ast.Compare) and _is_cache(node.comparators[0]):
        yield from _check_asked(module, known, node, [node.left], "has_key")
    if isinstance(node, ast.Call) and last_name(node.func) == "md5":
        texts = [n.value for n in ast.walk(node) if isinstance(n, ast.Constant)]
        if any(str(t).removeprefix("b'")[:13] == "cache_memoize" for t in texts):
            yield report_at(node, "M011")


def _check_asked(
    module: Module, known: Known, node: ast.AST, keys: list[ast.expr], method: str
) -> Iterator[Difference]:
    for key in keys:
        name = _find_owner_of_key(module, known, key)
        if name and method in CACHE_METHODS:
            yield report_at(node, "M010", name)
        if isinstance(key, ast.Constant) and MD5.fullmatch(str(key.value)):
            yield report_at(node, "M011")


def _is_cache(node: ast.expr) -> bool:
    """Recognize ``cache``, ``self.page_cache`` and ``caches["default"]``."""
    if isinstance(node, ast.Subscript):
        node = node.value
    return "cache" in last_name(node).lower()


def _find_owner_of_key(module: Module, known: Known, key: ast.expr) -> str:
    """Return the function of ``f.get_cache_key(...)`` or a key_generator_callable, in
    place or by a variable; empty for other keys."""
    if isinstance(key, ast.Name):
        scope = [*module.functions_around(key), module.tree][0]
        for node in ast.walk(scope):
            if isinstance(node, ast.Assign) and last_name(node.targets[0]) == key.id:
                same = node.value == key
                return "" if same else _find_owner_of_key(module, known, node.value)
        return ""
    generators = {
        last_name(each.options.get("key_generator_callable")): each.name
        for each in module.declared
    }
    for made in [node.func for node in ast.walk(key) if isinstance(node, ast.Call)]:
        owner = made.value if isinstance(made, ast.Attribute) else None
        if owner and last_name(made) == "get_cache_key" and known.is_known(owner):
            return last_name(owner)
        if last_name(made) and last_name(made) in generators:
            return generators[last_name(made)]
    return ""


def check_removed(module: Module, node: ast.AST) -> Iterator[Difference]:
    """M020 and M021: JSON serializers, and names that the library has no more."""
    if isinstance(node, ast.Dict):
        yield from _check_serializer(module, node)
        return
    names: list[str] = []
    if isinstance(node, ast.ImportFrom):
        if (node.level, node.module) == (0, "cache_memoize"):
            names = [alias.name for alias in node.names]
    elif isinstance(node, ast.Attribute):
        if last_name(node.value) in module.libraries:
            names = [node.attr]
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        package, _, name = node.value.partition(".")  # mock.patch("cache_memoize...")
        names = [name] if package == "cache_memoize" else []
    for name in names:
        if name in REMOVED:
            yield report_at(node, "M021", name)


def _check_serializer(module: Module, node: ast.Dict) -> Iterator[Difference]:
    for key, value in zip(node.keys, node.values, strict=True):
        if not (isinstance(key, ast.Constant) and isinstance(value, ast.Constant)):
            continue
        if str(key.value).lower() == "serializer" and JSON.search(str(value.value)):
            targets = [
                last_name(each.targets[0])
                for each in module.nodes_around(node)
                if isinstance(each, ast.Assign)
            ]
            if targets and "CACHES" in targets[0]:
                yield report_at(value, "M020")
