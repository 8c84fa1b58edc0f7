"""What a Python file memoizes, how, and where it is called: read from its text alone.

Nothing is imported and nothing runs. A name is followed as far as a reader of this file
would without opening another: its own definitions, and what it imports by name.
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterator
from pathlib import PurePath
from typing import NamedTuple

__all__ = ["Call", "Declared", "Known", "Module", "last_name"]

#: The options that can be given by position, in 0.2.1 and now.
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
#: What hung on a memoized function in 0.2.1, and takes the arguments of a call.
CONTROLS = {"invalidate", "get_cache_key"}

Def = ast.FunctionDef | ast.AsyncFunctionDef
DEFS = (ast.FunctionDef, ast.AsyncFunctionDef)


class Declared(NamedTuple):
    """A function that is memoized."""

    name: str
    module: str
    path: str
    #: The definition, if it is in the same file.
    node: Def | ast.Lambda | ast.ClassDef | None
    #: What is decorated, where it is no definition.
    target: ast.expr | None
    #: ``cache_memoize(...)``.
    call: ast.Call
    options: dict[str, ast.expr]
    #: What ``args_rewrite`` and ``key_generator_callable`` are, where it can be seen.
    rewrite: Def | ast.Lambda | None
    generator: Def | ast.Lambda | None
    #: The class that a method is in.
    owner: ast.ClassDef | None
    #: "function", "method", "class method" or "static method".
    kind: str
    by_method_decorator: bool

    @property
    def parameters(self) -> ast.arguments | None:
        return None if isinstance(self.node, ast.ClassDef | None) else self.node.args

    @property
    def keyed_by_itself(self) -> bool:
        """Whether the arguments themselves are in the key."""
        return not {"args_rewrite", "key_generator_callable"} & set(self.options)


class Call(NamedTuple):
    """``f(...)``, ``f.invalidate(...)`` or ``f.get_cache_key(...)``."""

    node: ast.Call
    function: Declared
    #: What ``f`` is an attribute of; None for a plain name.
    receiver: ast.expr | None
    control: bool
    #: How many arguments come by themselves: 1 where ``f`` is bound.
    bound: int
    #: Whether it is this function, and not another method of its name.
    certain: bool


def last_name(node: ast.AST | None) -> str:
    """``c`` of ``a.b.c``; empty for what has no name."""
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


class Module:
    """One file.

    :param source: its text.
    :param path: where it is; its name tells what others call the module.
    :raises SyntaxError, ValueError, RecursionError: for what is not Python.
    """

    def __init__(self, source: str, path: str) -> None:
        self.path, self.source = path, source
        stem = PurePath(path)
        self.name = stem.parent.name if stem.stem == "__init__" else stem.stem
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the compiler, about their code
            self.tree = ast.parse(source)
        self.nodes = list(ast.walk(self.tree))
        self.parents = {
            child: node for node in self.nodes for child in ast.iter_child_nodes(node)
        }
        self.decorators: set[str] = set()
        self.libraries: set[str] = set()
        #: Local name → (the module's last name, the name there), and for modules.
        self.imported: dict[str, tuple[str, str]] = {}
        for node in self.nodes:
            self._note_import(node)
        #: ``memo = cache_memoize(60)``, to be used as ``@memo``.
        self.ready = {
            node.targets[0].id: node.value
            for node in self.nodes
            if isinstance(node, ast.Assign)
            and isinstance(node.targets[0], ast.Name)
            and isinstance(node.value, ast.Call)
            and self.is_library(node.value.func)
        }
        self.definitions: dict[str, Def | ast.ClassDef] = {}
        for node in self.nodes:
            if isinstance(node, (*DEFS, ast.ClassDef)):
                self.definitions.setdefault(node.name, node)
        self.declared = list(self._declared())

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

    # --- what is memoized ------------------------------------------------------------

    def is_library(self, node: ast.AST) -> bool:
        """Whether this is the decorator itself."""
        if isinstance(node, ast.Attribute):
            return node.attr == "cache_memoize" and last_name(node.value) in (
                self.libraries
            )
        return isinstance(node, ast.Name) and node.id in self.decorators

    def options_at(self, node: ast.AST) -> ast.Call | None:
        """``cache_memoize(...)``, if that is what the expression decorates with."""
        if isinstance(node, ast.Name):
            return self.ready.get(node.id)
        if isinstance(node, ast.Call) and self.is_library(node.func):
            return node
        return None

    def _declared(self) -> Iterator[Declared]:
        for node in self.nodes:
            if isinstance(node, (*DEFS, ast.ClassDef)):
                for decorator in node.decorator_list:
                    call = self.options_at(decorator)
                    if call:
                        yield self._declare(node.name, node, None, call)
                    yield from self._by_method_decorator(node, decorator)
            elif isinstance(node, ast.Call) and len(node.args) == 1:
                call = self.options_at(node.func)
                if call:
                    yield self._wrapped(node, call)

    def _by_method_decorator(
        self, node: Def | ast.ClassDef, decorator: ast.expr
    ) -> Iterator[Declared]:
        if not isinstance(decorator, ast.Call) or not decorator.args:
            return
        if last_name(decorator.func) != "method_decorator":
            return
        first = decorator.args[0]
        several = first.elts if isinstance(first, ast.List | ast.Tuple) else [first]
        for one in several:
            call = self.options_at(one)
            if call:
                yield self._declare(node.name, node, None, call, by_method=True)

    def _wrapped(self, node: ast.Call, call: ast.Call) -> Declared:
        """``name = cache_memoize(60)(target)``."""
        target, parent = node.args[0], self.parents.get(node)
        name = last_name(target)
        if isinstance(parent, ast.Assign):
            name = last_name(parent.targets[0]) or name
        found: Def | ast.Lambda | ast.ClassDef | None = None
        if isinstance(target, ast.Lambda):
            found = target
        elif isinstance(target, ast.Name):
            found = self.definitions.get(target.id)
        return self._declare(name, found, target, call)

    def _declare(
        self,
        name: str,
        node: Def | ast.Lambda | ast.ClassDef | None,
        target: ast.expr | None,
        call: ast.Call,
        *,
        by_method: bool = False,
    ) -> Declared:
        options = dict(zip(PARAMETERS, call.args, strict=False))
        options |= {k.arg: k.value for k in call.keywords if k.arg}
        parent = self.parents.get(node) if node else None
        owner = parent if isinstance(parent, ast.ClassDef) else None
        kind = "function"
        if owner and isinstance(node, DEFS):
            others = {last_name(each) for each in node.decorator_list}
            kind = "method"
            if "staticmethod" in others:
                kind = "static method"
            elif "classmethod" in others:
                kind = "class method"
        if node and not isinstance(node, ast.Lambda) and call in node.decorator_list:
            below = node.decorator_list[node.decorator_list.index(call) + 1 :]
            if {last_name(each) for each in below} - {"staticmethod", "classmethod"}:
                node = None  # what is memoized is what that decorator made of it
        return Declared(
            name,
            self.name,
            self.path,
            node,
            target,
            call,
            options,
            self.callable_of(options.get("args_rewrite")),
            self.callable_of(options.get("key_generator_callable")),
            owner,
            kind,
            by_method,
        )

    def callable_of(self, node: ast.expr | None) -> Def | ast.Lambda | None:
        """The lambda, or the definition that a name of this file leads to."""
        if isinstance(node, ast.Lambda):
            return node
        found = self.definitions.get(node.id) if isinstance(node, ast.Name) else None
        return found if isinstance(found, DEFS) else None

    # --- where one is ----------------------------------------------------------------

    def around(self, node: ast.AST) -> Iterator[ast.AST]:
        """What a node is in, from the inside."""
        parent = self.parents.get(node)
        while parent:
            yield parent
            parent = self.parents.get(parent)

    def functions_around(self, node: ast.AST) -> list[Def]:
        return [each for each in self.around(node) if isinstance(each, DEFS)]


class Known:
    """What several files memoize."""

    def __init__(self, modules: list[Module]) -> None:
        self.by_name: dict[str, list[Declared]] = {}
        for module in modules:
            for each in module.declared:
                self.by_name.setdefault(each.name, []).append(each)

    def calls(self, module: Module) -> Iterator[Call]:
        """Every call in a file whose function is known for sure; and every
        ``x.name.invalidate(...)`` where ``name`` is a memoized method somewhere."""
        for node in module.nodes:
            if not isinstance(node, ast.Call):
                continue
            function = node.func
            control = isinstance(function, ast.Attribute) and function.attr in CONTROLS
            if control and isinstance(function, ast.Attribute):
                function = function.value
            found = self._resolve(module, function, control=control)
            if found:
                receiver = (
                    function.value if isinstance(function, ast.Attribute) else None
                )
                bound = self._bound(receiver, found[0])
                yield Call(node, found[0], receiver, control, bound, len(found) == 1)

    def is_known(self, node: ast.AST) -> bool:
        """Whether something memoized has this name."""
        return last_name(node) in self.by_name

    def _resolve(
        self, module: Module, node: ast.expr, *, control: bool
    ) -> list[Declared]:
        """What a call may mean: a function, or methods that are bound alike."""
        if isinstance(node, ast.Name):
            if node.id not in module.imported:
                return self._function(node.id, path=module.path)
            origin, name = module.imported[node.id]
            return self._function(name, origin or "-")
        if not isinstance(node, ast.Attribute):
            return []
        receiver = node.value
        if isinstance(receiver, ast.Name) and receiver.id not in {"self", "cls"}:
            # A module: ``from . import related``, ``import blog.related as related``.
            origin = module.imported.get(receiver.id, ("", receiver.id))[1]
            found = self._function(node.attr, origin or "-")
            if found:
                return found
        methods = [e for e in self.by_name.get(node.attr, ()) if e.owner]
        owner = self._class_of(module, receiver)
        own = [e for e in methods if e.owner and e.owner.name == owner]
        if own or not control:  # x.get() may be anything's
            methods = own
        alike = len({each.kind for each in methods}) == 1
        return methods if alike and (control or len(methods) == 1) else []

    def _function(self, name: str, module: str = "", path: str = "") -> list[Declared]:
        """The one function of this name, in a module that is called so, or a file."""
        found = [
            each
            for each in self.by_name.get(name, ())
            if each.kind == "function" and path in ("", each.path)
            if module in ("", each.module)
        ]
        return found if len(found) == 1 else []

    def _class_of(self, module: Module, receiver: ast.expr) -> str:
        """``Shop`` of ``Shop``, ``Shop(...)``, and of ``self`` in its body."""
        if isinstance(receiver, ast.Call):
            receiver = receiver.func
        name = last_name(receiver)
        if name in {"self", "cls"}:
            for node in module.around(receiver):
                if isinstance(node, ast.ClassDef):
                    return node.name
        return name if name[:1].isupper() else ""

    def _bound(self, receiver: ast.expr | None, found: Declared) -> int:
        if receiver is None or found.kind in {"function", "static method"}:
            return 0
        if found.kind == "class method":
            return 1
        if isinstance(receiver, ast.Call):
            return 0 if last_name(receiver.func) == "type" else 1
        name = last_name(receiver)
        return 0 if name in {"cls", "__class__"} or name[:1].isupper() else 1
