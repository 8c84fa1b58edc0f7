"""Imports point down only; caches, settings and the database have one door each."""

from __future__ import annotations

import ast
from pathlib import Path

import cache_memoize

PACKAGE = Path(cache_memoize.__file__).parent

#: From the ground up; a module may import from the rows before its own only.
LAYERS = [
    {"keys", "policy", "record", "clock", "pool", "progress", "runner"},
    {"literals", "options", "signals", "totals", "items"},
    {"conf"},
    {"transactions", "reporter"},
    {"binding", "breaker", "registry", "stats", "tags", "signing", "vary", "backend"},
    {"backends", "scope"},
    {"clients"},
    {"store"},
    {"invalidation", "site"},
    {"memo"},
    {"flows", "settling"},
    {"background", "controls", "dependencies"},
    {"batch"},
    {"bulk"},
    {"core"},
    {"checks", "memoized"},
    {"decorator"},
    {"__init__"},
    {"testing"},  # for tests alone
    {"worker"},  # for the workers of django.tasks alone
    {"apps", "models", "instances"},  # for Django alone, where the app is installed
    {"opentelemetry", "panels", "prometheus"},  # for those who have what they are for
]
#: What else may be imported, and by whom alone.
DOORS = {
    "django.core.cache.caches": {"clients", "store"},
    "django.conf.settings": {"conf", "backends"},
    # A database cache is in a database; background.py closes what a thread opened.
    "django.db.connections": {"backends", "transactions", "background"},
    "django.db.transaction": {"backends", "transactions"},
    "django.db.models.signals": {"dependencies"},
}
#: No I/O at all.
PURE = {
    "keys",
    "binding",
    "literals",
    "policy",
    "progress",
    "record",
    "breaker",
    "tags",
}


def modules():
    return {path.stem: path for path in PACKAGE.glob("*.py")}


def everything():
    return [(str(path), path) for path in PACKAGE.rglob("*.py")]


def imports(path):
    """(module, name) of every import, own modules as (".name", ...)."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            for alias in node.names:
                yield module, alias.name
        elif isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, ""


def test_every_module_has_its_layer():
    assert set(modules()) == set().union(*LAYERS)


def test_imports_point_down_only():
    level = {name: n for n, names in enumerate(LAYERS) for name in names}
    for name, path in modules().items():
        for module, imported in imports(path):
            if not module.startswith("."):
                continue
            for target in [module[1:]] if module != "." else [imported]:
                assert level[target] < level[name], f"{name} imports {target}"


def test_caches_settings_and_the_database_have_one_door():
    for name, path in modules().items():
        for module, imported in imports(path):
            door = DOORS.get(f"{module}.{imported}")
            assert door is None or name in door, f"{name} imports {module}.{imported}"


def test_pure_modules_do_no_io():
    for name in PURE:
        for module, _ in imports(modules()[name]):
            assert module.split(".")[0] not in {"time", "socket", "asyncio"}
            assert not module.startswith(("django.core.cache.c", "django.conf"))


def test_what_helps_to_migrate_imports_nothing_of_all_that():
    """It reads source as text, also where the library cannot run."""
    for path in (PACKAGE / "migrating").glob("*.py"):
        for module, _ in imports(path):
            assert not module.startswith("..") and "django" not in module, path


def test_nothing_is_evaluated():
    for name, path in everything():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in {"eval", "exec", "compile"}, name


def test_a_module_fits_in_the_head():
    for name, path in everything():
        lines = path.read_text().count("\n")
        assert lines <= 460, f"{name} has {lines} lines: what room is missing?"
