"""The functions that Python files memoize, and the calls of them.

Files are parsed, not imported. A name is followed to the definitions of its own file,
and through imports to memoized functions and factories (factories.py) of other files.
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePath
from typing import NamedTuple

from .factories import (
    DEFS,
    Def,
    Factory,
    factory_of,
    factory_of_function,
    last_name,
)

#: Options that can be given by position, in 0.2.1 and now.
PARAMETERS = (
    "timeout",
    "prefix",
    "extra",
    "args_rewrite",
    "hit_callable",
    "miss_callable",
    "key_generator_callable",
    "store_result",
    "cache_exceptions",
    "cache_alias",
)
#: Attributes of a memoized function in 0.2.1 that take the arguments of a call.
CONTROLS = {"invalidate", "get_cache_key"}

#: Decorators below cache_memoize that leave the parameters of a function as they are.
_TRANSPARENT = {"staticmethod", "classmethod", "override", "final", "abstractmethod"}
_TRANSPARENT |= {"atomic", "non_atomic_requests", "sensitive_variables", "lru_cache"}
#: Django's decorators of views: the first parameter is a request, whatever its name.
VIEW_DECORATORS = {
    *("require_http_methods", "require_GET", "require_POST", "require_safe"),
    *("login_required", "login_not_required", "permission_required"),
    *("user_passes_test", "staff_member_required", "sensitive_post_parameters"),
    *("csrf_exempt", "csrf_protect", "ensure_csrf_cookie", "requires_csrf_token"),
    *("cache_control", "cache_page", "never_cache", "vary_on_cookie"),
    *("vary_on_headers", "gzip_page", "conditional_page", "condition", "etag"),
    *("last_modified", "no_append_slash", "xframe_options_deny", "csp_override"),
    *("xframe_options_exempt", "xframe_options_sameorigin", "csp_report_only_override"),
    *("api_view",),
}
#: Functions of a URLconf.
_ROUTES = {"path", "re_path", "url"}


@dataclass(eq=False)
class Declared:
    """A memoized function, as it is declared."""

    module: Module
    name: str
    #: ``cache_memoize(...)``, with the options of a wrapper around it.
    call: ast.Call
    #: The definition, if it is in the same file.
    node: Def | ast.Lambda | ast.ClassDef | None
    #: The decorated expression, if it is no definition.
    target: ast.expr | None = None
    by_method_decorator: bool = False
    #: The element of the list of decorators.
    decorator: ast.expr | None = None
    #: Whether it is known to be a view: its first parameter is a request.
    is_view: bool = False

    def __post_init__(self) -> None:
        options = dict(zip(PARAMETERS, self.call.args, strict=False))
        options |= {k.arg: k.value for k in self.call.keywords if k.arg}
        self.options: dict[str, ast.expr] = options
        find = self.module.find_callable
        #: args_rewrite and key_generator_callable, if they are in the same file.
        self.rewrite = find(options.get("args_rewrite"))
        self.generator = find(options.get("key_generator_callable"))
        node = self.node
        parent = self.module.parents.get(node) if node else None
        #: The class of a method.
        self.owner = parent if isinstance(parent, ast.ClassDef) else None
        #: "function", "method", "class method" or "static method".
        self.kind = "function"
        if self.owner and isinstance(node, DEFS):
            self.kind = _find_kind(node)
        if isinstance(node, (*DEFS, ast.ClassDef)) and self.decorator is not None:
            names = [decorator_name(each) for each in node.decorator_list]
            self.is_view = not VIEW_DECORATORS.isdisjoint(names)
            below = set(names[node.decorator_list.index(self.decorator) + 1 :])
            if below - _TRANSPARENT - VIEW_DECORATORS:
                self.node = None  # that decorator may have changed the signature

    @property
    def parameters(self) -> ast.arguments | None:
        return None if isinstance(self.node, ast.ClassDef | None) else self.node.args

    def place_of(self, option: str) -> ast.expr:
        """Return the expression of an option if it is in this file, or its use."""
        found = self.options[option]
        return found if found in self.module.parents else self.call

    @property
    def keyed_by_arguments(self) -> bool:
        """Whether the arguments themselves are in the key."""
        return not {"args_rewrite", "key_generator_callable"} & set(self.options)

    @property
    def has_own_keys(self) -> bool:
        """Whether the code names the keys, instead of the path of the function."""
        return bool({"prefix", "key_generator_callable"} & set(self.options))

    @property
    def is_guard(self) -> bool:
        option = self.options.get("store_result")
        return isinstance(option, ast.Constant) and option.value is False

    @property
    def ignored(self) -> set[str]:
        """The names in ``ignore=``, an option that 0.2.1 does not have."""
        option = self.options.get("ignore")
        nodes = ast.walk(option) if option else []
        return {str(n.value) for n in nodes if isinstance(n, ast.Constant)}


class Call(NamedTuple):
    """``f(...)``, ``f.invalidate(...)`` or ``f.get_cache_key(...)``."""

    node: ast.Call
    function: Declared
    #: The object of which ``f`` is an attribute; None for a plain name.
    receiver: ast.expr | None
    control: bool
    #: Number of arguments that come by themselves: 1 where ``f`` is bound.
    bound: int
    #: False if it may be another method of its name.
    certain: bool


def decorator_name(node: ast.expr) -> str:
    """Return ``c`` of ``@a.b.c``, ``@a.b.c(...)`` and ``@method_decorator(c)``."""
    if last_name(node) == "" and isinstance(node, ast.Call):
        inner = _inner_decorators(node)
        return decorator_name(inner[0] if len(inner) == 1 else node.func)
    return last_name(node)


def _find_kind(node: Def) -> str:
    """Return the kind of a function in a class, by its other decorators."""
    names = {last_name(each) for each in node.decorator_list}
    if "staticmethod" in names:
        return "static method"
    return "class method" if "classmethod" in names else "method"


def _inner_decorators(decorator: ast.expr) -> list[ast.expr]:
    """Return the decorators that ``@method_decorator(...)`` applies."""
    if not (isinstance(decorator, ast.Call) and decorator.args):
        return []
    if last_name(decorator.func) != "method_decorator":
        return []
    first = decorator.args[0]
    return first.elts if isinstance(first, ast.List | ast.Tuple) else [first]


#: Files by the last name of their module.
Modules = dict[str, list["Module"]]


class Module:
    """One file.

    :param path: of the file; other files import the module by its last name.
    :raises SyntaxError, ValueError, RecursionError: if `source` is not Python.
    """

    def __init__(self, source: str, path: str) -> None:
        self.path, self.source = path, source
        stem = PurePath(path)
        self.name = stem.parent.name if stem.stem == "__init__" else stem.stem
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the code
            self.tree = ast.parse(source)
        self.nodes = list(ast.walk(self.tree))
        self.parents = {
            child: node for node in self.nodes for child in ast.iter_child_nodes(node)
        }
        self.decorators: set[str] = set()
        self.libraries: set[str] = set()
        #: Local name → (last name of the module, name there); for a module ("", name).
        self.imported: dict[str, tuple[str, str]] = {}
        for node in self.nodes:
            self._note_import(node)
        self.definitions: dict[str, Def | ast.ClassDef] = {}
        for node in self.nodes:
            if isinstance(node, (*DEFS, ast.ClassDef)):
                self.definitions.setdefault(node.name, node)
        #: By name, as of ``memo = cache_memoize(60)`` and ``def memo(timeout): ...``.
        self.factories: dict[str, Factory] = {}
        self.declared: list[Declared] = []

    def find_factories(self, modules: Modules) -> bool:
        """Find the factories of this file; return whether there are new ones.

        :param modules: all files, of which a factory may be imported.
        """
        before = len(self.factories)

        def find(node: ast.expr) -> Factory | None:
            return self.find_factory(node, modules)

        for node in self.nodes:
            name, made = "", None
            if isinstance(node, ast.Assign):
                name, made = last_name(node.targets[0]), factory_of(node.value, find)
            elif isinstance(node, ast.AnnAssign):
                name, made = last_name(node.target), factory_of(node.value, find)
            elif isinstance(node, DEFS):
                name, made = node.name, factory_of_function(node, find)
            if made is not None:
                self.factories.setdefault(name, made)
        return len(self.factories) > before

    def find_factory(self, node: ast.expr, modules: Modules) -> Factory | None:
        """Return the factory that a name, or an attribute of a module, leads to."""
        if self.is_library(node):
            return Factory(ast.Call(node, [], []), True)
        if isinstance(node, ast.Name):
            if node.id in self.factories:
                return self.factories[node.id]
            origin, name = self.imported.get(node.id, ("", ""))
        else:
            assert isinstance(node, ast.Attribute)
            origin = last_name(node.value)
            origin, name = self.imported.get(origin, ("", origin))[1], node.attr
        found = [
            made
            for module in modules.get(origin, ())
            if module is not self and (made := module.own_factory(name)) is not None
        ]
        return found[0] if len(found) == 1 else None

    def own_factory(self, name: str) -> Factory | None:
        """Return a factory of this file; also the decorator that it imports."""
        library = ast.Name(name)
        if self.is_library(library):
            return Factory(ast.Call(library, [], []), True)
        return self.factories.get(name)

    def find_declared(self, modules: Modules) -> None:
        """Find the memoized functions, after all factories."""
        self.declared = list(self._iterate_declared(modules))

    def _note_import(self, node: ast.AST) -> None:
        if isinstance(node, ast.ImportFrom):
            origin = (node.module or "").rpartition(".")[2]
            for alias in node.names:
                self.imported[alias.asname or alias.name] = (origin, alias.name)
                ours = (node.level, node.module, alias.name)
                if ours == (0, "cache_memoize", "cache_memoize"):
                    self.decorators.add(alias.asname or alias.name)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.asname:
                    self.imported[alias.asname] = ("", alias.name.rpartition(".")[2])
                if alias.name == "cache_memoize":
                    self.libraries.add(alias.asname or alias.name)

    def is_library(self, node: ast.AST) -> bool:
        """Return whether this is the decorator itself."""
        if isinstance(node, ast.Attribute):
            return node.attr == "cache_memoize" and last_name(node.value) in (
                self.libraries
            )
        return isinstance(node, ast.Name) and node.id in self.decorators

    def _iterate_declared(self, modules: Modules) -> Iterator[Declared]:
        def options_in(node: ast.expr) -> ast.Call | None:
            made = factory_of(node, lambda each: self.find_factory(each, modules))
            return made.options if made and not made.is_called else None

        for node in self.nodes:
            if isinstance(node, (*DEFS, ast.ClassDef)):
                for decorator in node.decorator_list:
                    for given in (decorator, *_inner_decorators(decorator)):
                        if call := options_in(given):
                            call = self._place(call, given)
                            indirect = given is not decorator
                            yield Declared(
                                self, node.name, call, node, None, indirect, decorator
                            )
            elif isinstance(node, ast.Call) and len(node.args) == 1:
                call = options_in(node.func)
                if call and not self._is_parameter(node.args[0]):
                    yield self._declare_wrapped(node, self._place(call, node.func))

    def _is_parameter(self, node: ast.expr) -> bool:
        """Return whether it is the argument of a wrapper around cache_memoize."""
        around = [each.args for each in self.functions_around(node)]
        taken = {a.arg for args in around for a in (*args.posonlyargs, *args.args)}
        return isinstance(node, ast.Name) and node.id in taken

    @staticmethod
    def _place(call: ast.Call, node: ast.expr) -> ast.Call:
        """Return options of another file, or line, at the place of their use."""
        if isinstance(node, ast.Call):
            return call  # written here
        return ast.copy_location(ast.Call(call.func, call.args, call.keywords), node)

    def _declare_wrapped(self, node: ast.Call, call: ast.Call) -> Declared:
        """Declare ``name = cache_memoize(60)(target)``."""
        target, parent = node.args[0], self.parents.get(node)
        is_view = isinstance(parent, ast.Call) and last_name(parent.func) in _ROUTES
        while isinstance(target, ast.Call) and len(target.args) == 1:
            if decorator_name(target.func) not in VIEW_DECORATORS:
                break
            target, is_view = target.args[0], True
        name = last_name(target)
        if isinstance(parent, ast.Assign):
            name = last_name(parent.targets[0]) or name
        found: Def | ast.Lambda | ast.ClassDef | None = None
        if isinstance(target, ast.Lambda):
            found = target
        elif isinstance(target, ast.Name):
            found = self.definitions.get(target.id)
        return Declared(self, name, call, found, target, is_view=is_view)

    def find_callable(self, node: ast.expr | None) -> Def | ast.Lambda | None:
        """Return the lambda, or the definition of a name in this file."""
        if isinstance(node, ast.Lambda):
            return node
        if node not in self.parents:  # an option that another file passes on
            return None
        found = self.definitions.get(node.id) if isinstance(node, ast.Name) else None
        return found if isinstance(found, DEFS) else None

    def nodes_around(self, node: ast.AST) -> Iterator[ast.AST]:
        """Yield the nodes around a node, the innermost first."""
        parent = self.parents.get(node)
        while parent:
            yield parent
            parent = self.parents.get(parent)

    def functions_around(self, node: ast.AST) -> list[Def]:
        return [each for each in self.nodes_around(node) if isinstance(each, DEFS)]


class Known:
    """The memoized functions of several files."""

    def __init__(self, modules: list[Module]) -> None:
        named: Modules = {}
        for module in modules:
            named.setdefault(module.name, []).append(module)
        while sum(module.find_factories(named) for module in modules):
            pass  # a factory may be made of one of another file
        for module in modules:
            module.find_declared(named)
        self.by_name: dict[str, list[Declared]] = {}
        for module in modules:
            for each in module.declared:
                self.by_name.setdefault(each.name, []).append(each)

    def find_calls(self, module: Module) -> Iterator[Call]:
        """Yield the calls in a file whose function is certain, and each
        ``x.name.invalidate(...)`` where ``name`` is a memoized method of any file."""
        for node in module.nodes:
            if not isinstance(node, ast.Call):
                continue
            function = node.func
            control = isinstance(function, ast.Attribute) and function.attr in CONTROLS
            if control and isinstance(function, ast.Attribute):
                function = function.value
            found = self._resolve_call(module, function, control=control)
            if found:
                receiver = (
                    function.value if isinstance(function, ast.Attribute) else None
                )
                bound = _count_bound(receiver, found[0])
                yield Call(node, found[0], receiver, control, bound, len(found) == 1)

    def is_known(self, node: ast.AST) -> bool:
        """Return whether a memoized function has this name."""
        return last_name(node) in self.by_name

    def _resolve_call(
        self, module: Module, node: ast.expr, *, control: bool
    ) -> list[Declared]:
        """Return the function that a call may mean, or methods that are bound alike."""
        if isinstance(node, ast.Name):
            if node.id not in module.imported:
                return self._find_function(node.id, path=module.path)
            origin, name = module.imported[node.id]
            return self._find_function(name, origin or "-")
        if not isinstance(node, ast.Attribute):
            return []
        receiver = node.value
        if isinstance(receiver, ast.Name) and receiver.id not in {"self", "cls"}:
            # A module: ``from . import related``, ``import blog.related as related``.
            origin = module.imported.get(receiver.id, ("", receiver.id))[1]
            found = self._find_function(node.attr, origin or "-")
            if found:
                return found
        return self._find_methods(module, node, control=control)

    def _find_methods(
        self, module: Module, node: ast.Attribute, *, control: bool
    ) -> list[Declared]:
        methods = [each for each in self.by_name.get(node.attr, ()) if each.owner]
        owner = _find_class(module, node.value)
        own = [each for each in methods if each.owner and each.owner.name == owner]
        if own or not control:  # x.get() may be a method of any class
            methods = own
        alike = len({each.kind for each in methods}) == 1
        return methods if alike and (control or len(methods) == 1) else []

    def _find_function(
        self, name: str, module: str = "", path: str = ""
    ) -> list[Declared]:
        """Return the one function of this name in a module of this name, or a file."""
        found = [
            each
            for each in self.by_name.get(name, ())
            if each.kind == "function" and path in ("", each.module.path)
            if module in ("", each.module.name)
        ]
        return found if len(found) == 1 else []


def _find_class(module: Module, receiver: ast.expr) -> str:
    """Return ``Shop`` for ``Shop``, ``Shop(...)``, and ``self`` in its body."""
    if isinstance(receiver, ast.Call):
        receiver = receiver.func
    name = last_name(receiver)
    if name in {"self", "cls"}:
        for node in module.nodes_around(receiver):
            if isinstance(node, ast.ClassDef):
                return node.name
    return name if name[:1].isupper() else ""


def _count_bound(receiver: ast.expr | None, found: Declared) -> int:
    if receiver is None or found.kind in {"function", "static method"}:
        return 0
    if found.kind == "class method":
        return 1
    if isinstance(receiver, ast.Call):
        return 0 if last_name(receiver.func) == "type" else 1
    name = last_name(receiver)
    return 0 if name in {"cls", "__class__"} or name[:1].isupper() else 1
