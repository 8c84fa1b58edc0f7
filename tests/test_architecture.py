"""Rooms: imports point down; caches, settings and the database have one door each."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import cache_memoize

PACKAGE = Path(cache_memoize.__file__).parent

#: What each room, a folder or a module beside them, may import besides itself.
MAY_IMPORT = {
    "clock": "",
    "process": "",
    "signals": "",
    "hints": "",
    "options": "hints",
    "arguments": "",
    "dependency": "keys",
    "model_signals": "dependency hints process",
    "model_controls": "dependency keys model_signals protocol",
    "conf": "hints options",
    "vary": "conf",
    "keys": "",
    "cache": "keys conf clock process",
    "stats": "keys cache conf signals clock process",
    "protocol": "options keys cache stats conf signals clock process",
    "planning": (
        "model_signals options vary"
        " keys cache stats protocol conf signals clock process"
    ),
    "describe": "keys planning options protocol stats conf",
    "explain": "describe options keys planning protocol stats cache",
    "methods": "hints memoized protocol",
    "memoized": "explain hints planning protocol stats model_signals cache",
    "decorator": (
        "methods memoized planning options keys cache stats protocol signals clock"
    ),
    "migrate": "",
}
#: For Django, for operators and for tests: nothing imports them.
FRONT_ENDS = set(
    "admin apps checks management middleware migrations models"
    " cluster opentelemetry panels prometheus tasks templatetags testing".split()
)
#: What else may be imported, and by whom alone.
DOORS = {
    "django.core.cache.caches": {"cache.connections", "cache.store"},
    "django.conf.settings": {"conf", "cache.backends"},
    # refresh.py closes what a thread opened.
    "django.db.connections": {
        "cache.backends",
        "checks",
        "protocol.snapshots",
        "protocol.transactions",
        "protocol.refresh",
    },
    "django.db.transaction": {
        "cache.backends",
        "model_signals",
        "protocol.snapshots",
        "protocol.transactions",
    },
    "django.db.models.signals": {"model_signals"},
}
#: No I/O at all.
PURE = {
    "cache.breaker",
    "cache.errors",
    "cache.record",
    "keys.binding",
    "keys.maker",
    "keys.values",
    "keys.replaced",
    "keys.encoding",
    "keys.tags",
    "protocol.policy",
    "protocol.progress",
    "protocol.statements",
}


#: All that outlives a call, with what bounds it: no text of a visitor may fill memory.
REMEMBERS = {
    "admin.asking._waiting": "aliases",
    "cache.backends._folders": "folders of caches",
    "cache.backends._found": "classes of caches",
    "cache.breaker._breakers": "aliases",
    "cache.connections._parents": "one per fork",
    "cache.connections._single": "aliases",
    "cache.connections.self.awaited": "aliases, per thread",
    "cache.connections.self.memory": "aliases, per thread",
    "cache.connections.self.own": "aliases, per thread",
    "cache.holders.self._others": "holders on the list",
    "cache.holders.self._sent": "eight renewals",
    "cache.holders.self.listed": "aliases",
    "cache.holders.self.own": "aliases",
    "cache.holders.self.unlisted": "aliases",
    "cache.near._copies": "aliases",
    "cache.near.self._by_tag": "tags of the copies",
    "cache.near.self.by_place": "the setting NEAR",
    "cache.local.self._memories": "MOST_OWNERS, MOST and MOST_BYTES; one request",
    "cache.redis._is_known_client": "64 classes of clients",
    "cache.multiplexed.self._packed": "callers that wait",
    "cache.multiplexed.self._waiting": "callers that wait",
    "cache.redis.self._refused": "addresses of servers",
    "cluster._clients": "settings of caches",
    "conf._NOT_GIVEN": "empty",
    "keys.tags._declared": "fixed tags of functions",
    "model_signals._late": "functions registered late",
    "process._logged": "names of functions, and aliases",
    "protocol.capture.self._reset": "one token of a context variable",
    "protocol.call.self.made_of": "MOST_ORIGINS, about",
    "protocol.capture.self.tokens": "tags of the calls in one computation",
    "protocol.capture.self.used": "tags of the calls in one computation",
    "protocol.capture._told": "pairs of aliases",
    "protocol.capture.running": "computations under way",
    "planning._by_distinction": "functions, weakly",
    "planning.checked_aliases": "aliases",
    "keys.closure._digest_of_code": "1,024 pieces of code",
    "keys.instructions.set_by": "2,048 pieces of code",
    "keys.instructions.is_only_written": "1,024 variables of code",
    "keys.encoding._REGISTERED": "classes",
    "keys.encoding._writers": "classes that a name leads to",
    "keys.maker.known": "1,024 calls of up to 16 arguments of 64 characters",
    "keys.tags._expected": "MOST_EXPECTED and MOST_EXPECTED_BYTES",
    "keys.tags._key_of_short_tag": "4,096 tags of 64 characters",
    "model_signals._abstract": "models",
    "model_signals._connected": "models",
    "model_signals._registered": "dependencies in code",
    "model_signals._unresolved": "dependencies in code",
    "opentelemetry._exporters": "providers",
    "opentelemetry.self._seen": "functions that are alive",
    "opentelemetry.self._sums": "names of functions, and aliases",
    "panels._recordings": "requests under way",
    "planning._by_prefix": "functions that are alive",
    "planning._functions": "functions that are alive",
    "process._at_thread_end": "functions of ours",
    "prometheus._exporters": "registries",
    "prometheus.self.calls": "FIGURES",
    "protocol.many.self.errors": "one call of many()",
    "protocol.many.self.values": "one call of many()",
    "protocol.refresh._tasks": "TASKS",
    "protocol.tables._cascades": "tables of models",
    "protocol.tables._declared": "aliases",
    "protocol.tables._ignored": "tables",
    "protocol.tables._untold": "aliases",
    "protocol.tables._known_tables": "tables of models",
    "protocol.threads._jobs": "QUEUE",
    "protocol.threads._threads": "THREADS",
    "protocol.waiting._leaders": "computations under way",
    "protocol.waiting._lines": "callers that wait",
    "protocol.waiting.self.others": "callers that wait",
    "protocol.waiting.self._before": "callers that wait",
    "protocol.transactions._noticing": "128 classes of cursors",
    "protocol.transactions.live": "transactions that are open",
    "protocol.transactions.self.savepoints": "one transaction",
    "stats.counters.self.costs": "buckets of durations",
    "stats.counters.self.warned": "texts of ours",
    "stats.counters._of_caches": "aliases",
    "protocol.audit._tasks": "one audit",
    "stats.history.self._traces": "MOST",
    "stats.history._from_package": "a number",
    "stats.reporter.self._held": "sinks",
    "stats.reporter.self._kept": "MOST",
    "stats.reporter.self._known": "functions that are alive",
    "stats.reporter.self._told": "sinks",
    "stats.reporter.self.after": "functions of ours",
    "stats.reporter.self.guarded": "sinks",
    "stats.sitewide._rests": "aliases",
    "stats.totals._NO_COSTS": "empty",
}
CONTAINERS = {"Counter", "OrderedDict", "cache", "defaultdict", "deque", "dict", "list"}
CONTAINERS |= {"WeakKeyDictionary", "WeakSet", "WeakValueDictionary"}
CONTAINERS |= {"lru_cache", "set"}
#: Their objects live as long as one run of a command, one page, or one test.
SHORT_LIVED = {"admin", "management", "migrate", "panels", "testing"}


def name_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def room_of(module: str) -> str:
    return module.partition(".")[0]


def imports(path: Path) -> list[tuple[str, str]]:
    """(module, name) of every import; our own modules with a dot in front."""
    found = []
    here = ["", *path.relative_to(PACKAGE).parts]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level:
                module = ".".join([*here[: -node.level], *module.split(".")])
                module = "." + module.strip(".")
            found += [(module, alias.name) for alias in node.names]
        elif isinstance(node, ast.Import):
            found += [(alias.name, "") for alias in node.names]
    return found


def rooms_that(path: Path) -> set[str]:
    """The rooms that a module imports from."""
    own = [(m, name) for m, name in imports(path) if m.startswith(".")]
    return {room_of(m[1:] or name) for m, name in own}


def test_every_room_is_known():
    assert {room_of(name) for name in MODULES} - {""} == {*MAY_IMPORT} | FRONT_ENDS


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_down_only(module):
    if not module or room_of(module) in FRONT_ENDS:
        return
    allowed = {room_of(module), *MAY_IMPORT[room_of(module)].split()}
    assert rooms_that(MODULES[module]) <= allowed


def test_rooms_are_in_no_circle():
    reached: set[str] = set()
    while len(reached) < len(MAY_IMPORT):
        free = {r for r, m in MAY_IMPORT.items() if set(m.split()) <= reached} - reached
        assert free, set(MAY_IMPORT) - reached
        reached |= free


@pytest.mark.parametrize("module", MODULES)
def test_caches_settings_and_the_database_have_one_door(module):
    if room_of(module) in FRONT_ENDS:
        return
    for source, name in imports(MODULES[module]):
        door = DOORS.get(f"{source}.{name}")
        assert door is None or module in door, f"{module} imports {source}.{name}"


@pytest.mark.parametrize("module", sorted(PURE))
def test_pure_modules_do_no_io(module):
    for source, _ in imports(MODULES[module]):
        assert source.split(".")[0] not in {"time", "socket", "asyncio"}
        assert not source.startswith(("django.core.cache.c", "django.conf"))


def test_what_helps_to_migrate_needs_no_django():
    """It reads source as text, also where the library cannot run."""
    for module, path in MODULES.items():
        if room_of(module) == "migrate":
            assert not any("django" in source for source, _ in imports(path)), module


def test_nothing_is_evaluated():
    for module, path in MODULES.items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in {"eval", "exec", "compile"}, module


def is_container(node: ast.expr | None) -> bool:
    """Whether an expression makes something that can grow, or remembers results."""
    if isinstance(node, (ast.Dict, ast.List, ast.Set)):
        return not (node.keys if isinstance(node, ast.Dict) else node.elts)
    called = node.func if isinstance(node, ast.Call) else node
    named = getattr(called, "attr", getattr(called, "id", ""))
    return named in CONTAINERS and (isinstance(node, ast.Call) or "cache" in named)


def remembering(tree: ast.Module, with_attributes: bool) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            if any(map(is_container, node.decorator_list)):
                yield node.name
        elif isinstance(node, (ast.Assign, ast.AnnAssign)) and is_container(node.value):
            target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0]
            is_attribute = isinstance(target, ast.Attribute) and with_attributes
            if node in tree.body or is_attribute:
                yield ast.unparse(target)


def test_all_that_is_remembered_has_a_bound():
    """A new table says here what bounds it: the code, a number, but no visitor."""
    found = {
        f"{module}.{name}"
        for module, path in MODULES.items()
        for name in remembering(
            ast.parse(path.read_text()), room_of(module) not in SHORT_LIVED
        )
    }
    assert found == {*REMEMBERS}


def test_a_module_fits_in_the_head():
    for module, path in MODULES.items():
        lines = path.read_text().count("\n")
        assert lines <= 460, f"{module} has {lines} lines: what room is missing?"


def test_all_log_by_one_logger():
    """Its filter makes text of others printable."""
    for module, path in MODULES.items():
        assert module == "process" or "getLogger" not in path.read_text(), module


def test_the_plan_of_the_mutants_is_up_to_date():
    """It names each module, to be broken or left out, and mutants of code that is."""
    plan = tomllib.loads((Path(__file__).parent / "mutation.toml").read_text())
    left_out = {m for m in MODULES if room_of(m) in plan["left_out"]}
    inside = {m for m in MODULES if MODULES[m].name != "__init__.py"}
    assert inside - left_out == {*plan["modules"]}
    assert {room_of(m) for m in left_out} == {*plan["left_out"]}
    for each in plan["survivor"]:
        lines = MODULES[each["module"]].read_text().splitlines()
        assert each["was"] in " ".join(map(str.strip, lines)), each
