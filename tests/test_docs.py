"""The documentation matches the code: its examples run, its tables are true.

In a ``python`` block, ``#> value`` after an expression is its output and the repr of
its result, and ``#! Error: text`` after a statement is its exception and a part of the
message. The blocks of a page run in one namespace. Blocks whose caption ends
with ``settings.py`` are Django settings.
"""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import importlib.util
import inspect
import io
import os
import pickle
import re
import sys
import threading
import types
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from django import VERSION
from django.conf import settings
from django.core.cache import caches
from django.core.cache.backends.base import DEFAULT_TIMEOUT
from django.db import transaction
from django.db.models.signals import (
    class_prepared,
    m2m_changed,
    post_delete,
    post_save,
    pre_delete,
)
from django.http import HttpRequest
from django.test import override_settings

import cache_memoize as library
from cache_memoize import (
    UnkeyableArgument,
    cache_memoize,
    checks,
    conf,
    model_signals,
    planning,
    signals,
    testing,
)
from cache_memoize.admin import overview
from cache_memoize.cache import backends, breaker, local, record, signing
from cache_memoize.cache.connections import fetch, fetch_tagged
from cache_memoize.cache.store import Store
from cache_memoize.cluster import RedisClusterCache
from cache_memoize.explain import Explanation
from cache_memoize.keys import encoding, maker, tags
from cache_memoize.memoized import CONTROLS
from cache_memoize.models import MemoizedFunction
from cache_memoize.protocol import many, policy, refresh, threads
from cache_memoize.stats.reporter import reporter
from tests import models
from tests.backends import UnknownCache
from tests.conftest import FakeClock, World
from tests.needs import NEED_ALL, need

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
SIGNALS = [class_prepared, m2m_changed, post_delete, post_save, pre_delete]
CLOCK = FakeClock()
PAGES = [*sorted(ROOT.glob("*.rst")), *sorted(DOCS.glob("*.rst"))]
TYPED = {DOCS / "tutorial.rst"}  # whole files: tests/test_tutorial.py types them


# --- reading the pages ---------------------------------------------------------------


class Block(NamedTuple):
    line: int
    language: str
    caption: str
    source: str


def blocks(path: Path) -> list[Block]:
    """Return every ``code-block`` of a page."""
    found = []
    lines = path.read_text("utf-8").splitlines()
    for number, line in enumerate(lines):
        directive = re.fullmatch(r"( *)\.\. code-block:: (\w+)", line)
        if not directive:
            continue
        body = []
        for inner in lines[number + 1 :]:
            if inner.strip() and not inner.startswith(directive[1] + " "):
                break
            body.append(inner)
        options = [i.strip() for i in body if re.match(r" +:\w+:", i)]
        caption = "".join(o[9:].strip() for o in options if o.startswith(":caption:"))
        code = ["" if i.strip() in options else i for i in body]
        source = inspect.cleandoc("\n".join(["", *code]))
        first = next(n for n, i in enumerate(code) if i.strip())
        found.append(Block(number + first + 2, directive[2], caption, source))
    return found


def table(page: str, title: str) -> list[list[str]]:
    """Return the rows of a ``list-table``, without its header."""
    text = (DOCS / f"{page}.rst").read_text("utf-8")
    (body,) = re.findall(
        rf"^( *)\.\. list-table:: {re.escape(title)}\n((?:\1 +.*\n|\n)+)", text, re.M
    )
    rows: list[list[str]] = []
    for line in body[1].splitlines():
        cell = re.fullmatch(r" *(\*)? +-(?: (.*))?", line)
        if cell and cell[1]:
            rows.append([cell[2] or ""])
        elif cell and rows:
            rows[-1].append(cell[2] or "")
        elif rows and line.strip():
            rows[-1][-1] += " " + line.strip()
    assert len({len(row) for row in rows}) == 1, rows
    return rows[":header-rows: 1" in body[1] :]


def literals(cell: str) -> list[str]:
    return re.findall(r"``(.+?)``", cell)


def first_literals(page: str, title: str) -> list[str]:
    return [literals(row[0])[0] for row in table(page, title)]


# --- the examples --------------------------------------------------------------------


@pytest.fixture
def page_module(request, monkeypatch):
    """Yield a module in which a page runs; its blog has the models of the tests."""
    blog = types.ModuleType("blog")
    blog.models = models
    monkeypatch.setitem(sys.modules, "blog", blog)
    monkeypatch.setitem(sys.modules, "blog.models", models)
    for name in ("_registered", "_abstract", "_unresolved", "_connected"):
        monkeypatch.setattr(model_signals, name, type(getattr(model_signals, name))())
    for signal in SIGNALS:
        monkeypatch.setattr(signal, "receivers", list(signal.receivers))
        signal.sender_receivers_cache.clear()
    sinks = {*reporter._told}
    heard = {kind: [*signal.receivers] for kind, signal in signals.ALL.items()}
    registered = dict(encoding._REGISTERED)
    module = types.ModuleType(f"docs_{request.node.name}")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    yield module
    monkeypatch.undo()
    for signal in SIGNALS:
        signal.sender_receivers_cache.clear()
    for kind, receivers in heard.items():
        signals.ALL[kind].receivers[:] = receivers
        signals.ALL[kind].sender_receivers_cache.clear()
    for sink in {*reporter._told} - sinks:
        reporter.remove(sink)
    assert reporter.join()
    encoding._REGISTERED.clear()
    encoding._REGISTERED.update(registered)
    caches["default"].clear()


def run(path: Path, block: Block, namespace: dict[str, Any]) -> None:
    run_all(ast.parse(block.source).body, path, block, namespace)


def run_all(
    statements: list[ast.stmt], path: Path, block: Block, namespace: dict[str, Any]
) -> None:
    lines = block.source.splitlines()
    for statement in statements:
        if isinstance(statement, ast.With) and has_results(statement, lines):
            with contextlib.ExitStack() as stack:
                for item in statement.items:
                    code = compile(ast.Expression(item.context_expr), str(path), "eval")
                    assert item.optional_vars is None, "write it without 'as'"
                    stack.enter_context(eval(code, namespace))
                run_all(statement.body, path, block, namespace)
            continue
        line = lines[statement.end_lineno - 1][statement.end_col_offset :]
        said = re.search(r"#([>!]) (.*)", line)
        where = f"{path.name}, line {block.line + statement.lineno - 1}"
        ast.increment_lineno(statement, block.line - 1)
        if said and said[1] == ">":
            assert isinstance(statement, ast.Expr), where
            code = compile(ast.Expression(statement.value), str(path), "eval")
            with contextlib.redirect_stdout(io.StringIO()) as printed:
                value = eval(code, namespace)
            assert " ".join([*printed.getvalue().split(), repr(value)]) == said[2], (
                where
            )
            continue
        code = compile(ast.Module([statement], []), str(path), "exec")
        if said:
            name, _, message = said[2].partition(": ")
            with pytest.raises(Exception, match=re.escape(message) or None) as caught:
                exec(code, namespace)
            assert type(caught.value).__name__ == name, where
        else:
            exec(code, namespace)


def has_results(statement: ast.stmt, lines: list[str]) -> bool:
    """Return whether a line in it has a result: then its lines are run one by one.

    An exception may come from the end of the block, so it belongs to the whole.
    """
    inside = lines[statement.lineno - 1 : statement.end_lineno]
    return any("#> " in line for line in inside)


def is_settings(block: Block) -> bool:
    return block.caption.endswith("settings.py")  # a whole one


def python(path: Path) -> list[Block]:
    return [block for block in blocks(path) if block.language == "python"]


def with_examples():
    for path in PAGES:
        if path not in TYPED and any(not is_settings(block) for block in python(path)):
            needs = [pytest.mark.django_db(transaction=True)]
            marks = needs if "objects.create(" in path.read_text("utf-8") else []
            yield pytest.param(path, marks=marks, id=path.stem)


def templates_of(path: Path) -> dict[str, Any]:
    """Return the engine whose templates are the ``html`` blocks of a page."""
    html = [block for block in blocks(path) if block.language == "html"]
    found = {b.caption: b.source.replace('"blog.', '"tests.') for b in html}
    loader = ("django.template.loaders.locmem.Loader", found)
    backend = "django.template.backends.django.DjangoTemplates"
    return {"BACKEND": backend, "OPTIONS": {"loaders": [loader]}}


def lacks_package(block: Block) -> bool:
    """Return whether a block needs what is not installed here, and need not be."""
    if NEED_ALL in os.environ or "rest_framework" not in block.source:
        return False
    return importlib.util.find_spec("rest_framework") is None


# A page is no module that an app imports.
@pytest.mark.filterwarnings("ignore:.* is called after the apps are ready")
@pytest.mark.parametrize("path", list(with_examples()))
def test_the_examples_run(path, page_module):
    # invalidate_tags() goes to all caches, and here no server is to be needed.
    only = {"default": settings.CACHES["default"]}
    with override_settings(CACHES=only, TEMPLATES=[templates_of(path)]):
        for block in python(path):
            if not is_settings(block) and not lacks_package(block):
                run(path, block, page_module.__dict__)
                assert threads.join()  # "a moment later"


SETTINGS = [(p, b) for p in PAGES for b in python(p) if is_settings(b)]


@pytest.mark.parametrize(
    "path, block", SETTINGS, ids=[f"{p.stem}:{b.line}" for p, b in SETTINGS]
)
def test_the_settings_are_settings(path, block, page_module, monkeypatch):
    """They can be loaded, and the clients accept their options."""
    given: dict[str, Any] = {}
    exec(compile(block.source, str(path), "exec"), given)
    given = {name: value for name, value in given.items() if name.isupper()}
    assert given
    monkeypatch.setitem(sys.modules, "blog.serializers", page_module)
    for other in python(path):
        if other.caption == "blog/serializers.py":
            run(path, other, page_module.__dict__)
    if "PyLibMC" in block.source:
        need("pylibmc")
    with override_settings(**given):
        conf.conf()
        for alias in given.get("CACHES", ()):
            cache = caches[alias]
            backend = backends.backend_of(cache)
            assert backend.atomic
            if isinstance(backend, backends.DjangoRedis):
                cache.client.get_client().connection_pool.make_connection()
            elif isinstance(cache, RedisClusterCache):
                assert cache._cache  # its client would connect
            elif isinstance(backend, backends.Redis):
                cache._cache.get_client().connection_pool.make_connection()
            elif isinstance(backend, backends.Memcached):
                assert cache._cache


UNPICKLED: list[str] = []


def note_that_it_was_unpickled():
    UNPICKLED.append("!")


class Evil:
    def __reduce__(self):
        return note_that_it_was_unpickled, ()


@pytest.mark.parametrize("kind", ["redis", "django_redis"])
@pytest.mark.parametrize("with_serializer", [True, False])
def test_signed_and_with_this_serializer_nothing_foreign_is_unpickled(
    kind, with_serializer, page_module, monkeypatch, servers
):
    """As a control, the backend unpickles it with the usual serializer."""
    server, page = servers("redis"), DOCS / "caches.rst"
    monkeypatch.setitem(sys.modules, "blog.serializers", page_module)
    (lines,) = [b for b in python(page) if b.caption == "blog/serializers.py"]
    run(page, lines, page_module.__dict__)
    backend, option = {
        "redis": ("django.core.cache.backends.redis.RedisCache", "serializer"),
        "django_redis": ("django_redis.cache.RedisCache", "SERIALIZER"),
    }[kind]
    cache = {"BACKEND": backend, "LOCATION": f"redis://127.0.0.1:{server.port}/5"}
    if with_serializer:
        cache["OPTIONS"] = {option: "blog.serializers.BytesAndInts"}
    UNPICKLED.clear()
    with override_settings(CACHES={"default": cache}, CACHE_MEMOIZE={"SIGN": True}):
        for tags in (None, "t"):
            f = cache_memoize(60, prefix=f"signed {tags}", tags=tags)(lambda: [1])
            assert f() == f() == [1] and f.cache_info().hits == 1
            f.invalidate()
            f()
            if kind == "redis":
                client = caches["default"]._cache.get_client(None, write=True)
            else:
                client = caches["default"].client.get_client(write=True)
            full_key = caches["default"].make_key(f.get_cache_key())
            client.set(full_key, pickle.dumps(Evil()))
            assert f() == [1]
        assert bool(UNPICKLED) is not with_serializer
        if with_serializer:
            caches["default"].set("number", -5)
            assert (
                caches["default"].incr("number")
                == -4
                == caches["default"].get("number")
            )
            with pytest.raises(TypeError, match="bytes and int only"):
                caches["default"].set("text", "no")
        caches["default"].clear()
        caches["default"].close()


@cache_memoize(60, stale=60, prefix="tasked", _clock=CLOCK)
def tasked(name, more=()):
    return [name, CLOCK.time()]


@pytest.mark.parametrize("travels", [True, False])
def test_a_stale_value_is_refreshed_by_a_task(travels, monkeypatch, caplog):
    """With the backend that runs tasks at once; a tuple does not come through JSON."""
    tasks = "django.tasks" if VERSION >= (6, 0) else "django_tasks"
    pytest.importorskip(tasks)
    submitted = []
    monkeypatch.setattr(threads, "submit", lambda job: submitted.append(job) or True)
    immediate = {"default": {"BACKEND": f"{tasks}.backends.immediate.ImmediateBackend"}}
    mode = {"REFRESH": "task"}
    with override_settings(CACHE_MEMOIZE=mode, TASKS=immediate):
        more = [1] if travels else (1,)
        old = tasked("x", more)
        CLOCK.tick(61)
        assert tasked("x", more) == old
        new = tasked("x", more)
        assert (new != old) is travels
        assert len(submitted) == (0 if travels else 1)
        assert ("cannot be a task" in caplog.text) is not travels
    caches["default"].clear()


def test_every_block_has_a_checked_language():
    languages = {block.language for path in PAGES for block in blocks(path)}
    assert languages <= {"python", "shell", "text", "console", "html"}


def test_no_page_has_a_table_of_contents():
    """The theme adds one, and shows an error in place of a second one."""
    for path in PAGES:
        assert ".. contents::" not in path.read_text("utf-8"), path.name


def test_the_convention_sees_what_is_wrong(page_module):
    """As a control: a page with a wrong value, and one that does not raise."""
    for source in ("1 + 1  #> 3", "1 + 1  #! ValueError", "x = 1  #> 1"):
        with pytest.raises((AssertionError, pytest.fail.Exception)):
            run(DOCS, Block(1, "python", "", source), {})
    run(DOCS, Block(1, "python", "", "int('x')  #! ValueError: invalid"), {})


# --- reference -----------------------------------------------------------------------


def test_the_public_names():
    assert sorted(first_literals("reference", "Public names")) == library.__all__
    text = (DOCS / "reference.rst").read_text("utf-8")
    for name in library.__all__:
        assert re.search(rf"^\.\. (auto)?\w+:: {name}(\(.*\))?$", text, re.M), name


def test_the_names_for_tests():
    assert sorted(first_literals("reference", "Names for tests")) == testing.__all__
    text = (DOCS / "reference.rst").read_text("utf-8")
    for name in testing.__all__:
        assert f".. autoclass:: {name}(" in text, name


OPTION = re.compile(
    r"^\.\. confval:: (\w+)\n"
    r"    :type: (.+(?:\n {8}.+)*)\n"
    r"    :default: ``(.+)``\n",
    re.M,
)


def test_the_options_their_types_and_their_defaults():
    """The page takes their texts from the docstring."""
    names = {"DEFAULT_TIMEOUT": DEFAULT_TIMEOUT}
    found = OPTION.findall((DOCS / "reference.rst").read_text("utf-8"))
    parameters = inspect.signature(cache_memoize).parameters
    assert [name for name, _, _ in found] == list(parameters)
    for name, kind, default in found:
        assert kind and eval(default, names) == parameters[name].default, name
        assert f":param {name}:" in cache_memoize.__doc__


def test_the_controls():
    documented = first_literals("reference", "Controls")
    registering = ("invalidate_on", "many")
    twins = [f"a{name}" for name in documented if name not in registering]
    assert sorted([*documented, *twins]) == sorted(CONTROLS)


@pytest.mark.parametrize("name", ["Entry", "CacheInfo"])
def test_the_fields(name):
    assert tuple(first_literals("reference", name)) == getattr(library, name)._fields


def test_the_fields_of_an_explanation():
    fields = dataclasses.fields(Explanation)
    assert first_literals("reference", "Explanation") == [f.name for f in fields]


def test_the_settings():
    documented = {
        literals(name)[0]: (
            ast.literal_eval(literals(default)[0]),
            {"dict": dict, "list": list, "str": str, "float": float}.get(
                literals(values)[0]
            )
            or tuple(map(ast.literal_eval, literals(values))),
        )
        for name, default, values, _ in table("reference", "CACHE_MEMOIZE")
    }
    made = {"DEFAULTS": {}, "NEAR": conf.NEAR}
    fields = dataclasses.fields(conf.Conf)
    assert documented == {
        each.name: (made.get(each.name, each.default), each.metadata["kind"].values)
        for each in fields
    }


def test_the_signals():
    documented = [row[0] for row in table("reference", "Signals")]
    assert [literals(each)[0] for each in documented] == [*signals.ALL]
    assert {*signals.ALL} < {*signals.__all__}
    for name, signal in signals.ALL.items():
        assert getattr(signals, name) is signal


def test_the_fields_of_an_event():
    assert tuple(first_literals("reference", "Event")) == signals.Event._fields


def test_the_metrics():
    from prometheus_client import CollectorRegistry

    from cache_memoize import prometheus

    registry = CollectorRegistry()
    prometheus.connect(registry)
    names = {
        f"{metric.name}_total" if metric.type == "counter" else metric.name
        for metric in registry.collect()
    }
    prometheus.disconnect(registry)
    assert set(first_literals("reference", "Metrics")) == names


def test_the_instruments():
    source = (ROOT / "cache_memoize" / "opentelemetry.py").read_text("utf-8")
    names = re.findall(r'"(cache_memoize\.[\w.]+)"[,:]', source)
    documented = {literals(row[1])[0] for row in table("reference", "Metrics")}
    assert documented == set(names) and len(names) == 14
    for name in re.findall(r'= "(code.+|cache_memoize\..+)"', source):
        assert f"``{name}``" in (DOCS / "reference.rst").read_text("utf-8")


def logged():
    """Yield (level, message) for every use of the logger in the code."""
    helpers = ("trouble", "trouble_once", "warn_once")
    folder = ROOT / "cache_memoize"
    for path in [*folder.glob("*.py"), *folder.glob("[cps]*/*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "log_sometimes":
                yield node.args[0].attr, node.args[1].value
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                name = node.func.attr
                text = next((a for a in node.args if isinstance(a, ast.Constant)), None)
                if text is None or not isinstance(text.value, str):
                    continue
                if name in helpers:
                    yield "warning", text.value
                elif ast.unparse(node.func.value).endswith("logger"):
                    yield name, text.value


def is_part(documented, in_code):
    return documented[0] == in_code[0] and documented[1] in in_code[1]


def test_the_messages_of_the_logger():
    in_code = {(level, text) for level, text in logged() if text != "%s: %s: %r"}
    documented = {
        (literals(level)[0], message)
        for level, messages in table("reference", "Messages")
        for message in literals(messages)
    }
    said = {each: {d for d in documented if is_part(d, each)} for each in in_code}
    assert all(said.values()), "a message is not documented"
    assert set().union(*said.values()) == documented


def test_the_system_checks():
    source = inspect.getsource(checks)
    assert sorted(first_literals("checks", "Checks")) == sorted(checks.TEXTS)
    cures = {literals(name)[0]: cure for name, _, cure in table("checks", "Checks")}
    for name in ("socket_timeout", "SOCKET_TIMEOUT", "timeout"):
        assert name in literals(cures["cache_memoize.W001"]) and f'"{name}"' in source
    assert "``hold=``" in cures["cache_memoize.W002"]
    assert "non_atomic_requests" in cures["cache_memoize.W002"]


# --- keys ----------------------------------------------------------------------------


@cache_memoize(60, prefix="docs")
def keyed(value):
    """Never called."""


@pytest.fixture
def page_of_keys(page_module):
    path = DOCS / "cache-keys.rst"
    for block in python(path):
        run(path, block, page_module.__dict__)
    return page_module.__dict__


def test_the_types_in_a_key(page_of_keys):
    for row in table("cache-keys", "Types"):
        same, other = (
            [keyed.get_cache_key(eval(each, page_of_keys)) for each in literals(cell)]
            for cell in row[2:]
        )
        assert same and other, row
        assert len(set(same)) == 1, row
        assert len({*same, *other}) == 1 + len(other), row


def test_the_refused_types(page_of_keys):
    for row in table("cache-keys", "Refused types"):
        for each in literals(row[2]):
            with pytest.raises(UnkeyableArgument):
                keyed.get_cache_key(eval(each, page_of_keys))


# --- design --------------------------------------------------------------------------


@pytest.fixture
def sent(monkeypatch, nothing_left_behind):
    """Return the list of the commands that are sent to the cache."""
    commands: list[str] = []
    command = Store._command

    def note(self, name, *args):
        commands.append(name.replace("read_many", "get_many"))
        return command(self, name, *args)

    def noting(name, function):
        def note_fetch(alias, key):
            commands.append(name)
            return function(alias, key)

        return note_fetch

    monkeypatch.setattr(Store, "_command", note)
    monkeypatch.setattr(planning, "fetch", noting("get", fetch))
    monkeypatch.setattr(planning, "fetch_tagged", noting("get_many", fetch_tagged))
    return commands


def commands_of_every_path(world, sent):
    """Return {operation: commands}, with the names of the first column of the table."""
    f = world.memoize(60)(lambda: 1)
    found = {}

    def note(name, call):
        sent.clear()
        call()
        found[name] = " ".join(sent)

    note("miss", f)
    note("hit", f)
    note("peek", f.peek)
    note("refresh, with an entry", f.refresh)
    world.clock.tick(61)
    note("an expired entry", f)
    note("prime", lambda: f.prime(2))
    note("invalidate", f.invalidate)
    note("refresh, after an invalidation", f.refresh)

    def fails():
        raise ValueError

    def swallow(call):
        with pytest.raises(ValueError):
            call()

    bad = world.memoize(60)(fails)
    note("the function raises", lambda: swallow(bad))
    bad.invalidate()

    waiter = world.memoize(60)(lambda: 2)
    key = waiter.get_cache_key()
    lease = record.pack(record.LEASE, b"somebody")
    entry = record.pack(
        record.ENTRY,
        b"somebody",
        record.dumps(1),
        start=world.clock.time(),
        timeout=60,
    )
    world.cache.set(key, lease)
    world.clock.on_sleep = lambda: world.cache.set(key, entry)
    note("wait for another caller", waiter)
    assert waiter() == 1 and waiter.cache_info().misses == 0
    waiter.invalidate()

    note("invalidate, without an entry", world.memoize(60)(lambda: 3).invalidate)
    held = world.memoize(60, hold=5)(lambda: 1)
    note("invalidate, with ``hold``", held.invalidate)

    def in_transaction():
        with transaction.atomic():
            f.invalidate()

    f()
    note("invalidate, in a transaction", in_transaction)
    stale = world.memoize(60, stale=60)(lambda: 1)
    stale()
    world.clock.tick(61)
    with override_settings(CACHE_MEMOIZE={"REFRESH": "inline"}):
        note("a stale entry", stale)

    tagged = world.memoize(60, tags="t")(lambda x: x)
    note("with tags: miss, and two new tags", lambda: tagged(1))
    note("with tags: miss", lambda: tagged(2))
    note("with tags: hit", lambda: tagged(2))
    note("invalidate a tag", lambda: world.invalidate_tags("t"))
    return found


@pytest.mark.django_db(transaction=True)
@pytest.mark.backends(["locmem"])
def test_the_commands_of_each_path(backend, sent):
    documented = {row[0]: literals(row[1])[0] for row in table("design", "Commands")}
    documented.pop("invalidate, without an entry, if the client hides errors")
    assert commands_of_every_path(World(backend, "sync"), sent) == documented


@pytest.mark.backends(["pymemcache"])
def test_the_commands_of_a_client_that_hides_errors(backend, sent):
    f = World(backend, "sync").memoize(60)(lambda: 1)
    f.invalidate()
    documented = {row[0]: literals(row[1])[0] for row in table("design", "Commands")}
    found = documented["invalidate, without an entry, if the client hides errors"]
    assert " ".join(sent) == found


@pytest.mark.backends(["unknown"])
def test_the_commands_with_vouchers(backend, monkeypatch):
    calls: list[str] = []
    for name in ("get", "add", "set", "delete", "touch"):
        original = getattr(UnknownCache, name)

        def note(self, *args, _name=name, _original=original, **kwargs):
            calls.append(_name)
            return _original(self, *args, **kwargs)

        monkeypatch.setattr(UnknownCache, name, note)
    monkeypatch.setattr(backends, "_found", {})
    f = World(backend, "sync").memoize(60)(lambda: 1)
    found = {}
    steps = [
        ("miss", f),
        ("hit", f),
        ("invalidate", f.invalidate),
        ("prime", lambda: f.prime(1)),
    ]
    for name, step in steps:
        calls.clear()
        step()
        found[name] = " ".join(calls)
    documented = table("design", "Commands with vouchers")
    assert found == {what: literals(cell)[0] for what, cell in documented}


def test_the_columns_and_permissions_of_the_admin():
    titles = [str(column.title) for column in overview.COLUMNS]
    titles.insert(1, "By the minute")
    assert [row[0] for row in table("admin", "Columns")] == titles
    names = {
        f"{p}_memoizedfunction" for p in MemoizedFunction._meta.default_permissions
    }
    documented = first_literals("admin", "Permissions")
    assert set(documented) == {f"cache_memoize.{name}" for name in names}


def test_the_figures_of_the_code():
    """Those in the prose."""
    pages = {path.stem: " ".join(path.read_text("utf-8").split()) for path in PAGES}
    claims = [policy.Policy.retry_after(n) for n in range(1, 10)]
    assert claims[:3] == [1, 2, 4] and claims[-1] == 60
    signature = signing.SIZE
    for page, said in [
        ("design", f"{record.TRAILER_SIZE} bytes behind it"),
        ("design", f"grow from {policy.FIRST_PAUSE * 1000:.0f} to"),
        ("design", f"to {policy.LONGEST_PAUSE * 1000:.0f} milliseconds"),
        ("design", "pause of 1, 2, 4 … up to 60 seconds"),
        ("design", f"is *blocked* at once for {policy.BLOCK_FOR} seconds"),
        ("design", f"at most {threads.THREADS} per process"),
        ("design", f"at most {threads.QUEUE} waiting jobs"),
        ("design", f"at most {refresh.TASKS} tasks of the running loop"),
        ("design", f"has {signature} more bytes"),
        ("reference", f"at most {tags.MOST - 1} for a call"),
        ("failures", f"after {breaker.THRESHOLD} failures in a row"),
        ("failures", f"each within {breaker.WINDOW:.0f} seconds"),
        ("failures", f"more than {breaker.SLOW:.0f} second"),
        ("failures", f"``half-open``: after {breaker.PAUSE:.0f} seconds"),
        ("cache-keys", f"up to {maker.REMEMBERED_CALLS:,} calls"),
    ]:
        assert said in pages[page], said
    assert local.MOST == 10_000 and "After 10,000 entries" in pages["bulk"]
    assert local.MOST_BYTES == 16 * 2**20 and "after 16 MiB" in pages["bulk"]
    assert many.CHUNK == 500 and "up to 500 by one" in pages["bulk"]
    assert record.FAILED_FOR == 2 and "lasts two seconds" in pages["design"]
    assert policy.LEASE_FACTOR == 3 and "three times as long" in pages["expiry"]
    assert record.SKEW == 3600 and "up to an hour" in pages["failures"]


# --- failures and migration ----------------------------------------------------------


@pytest.mark.parametrize(
    "page, title", [("failures", "Failures"), ("migration", "Differences")]
)
def test_every_row_names_a_test(page, title):
    tests = "".join(
        path.read_text("utf-8") for path in Path(__file__).parent.glob("test_*.py")
    )
    for row in table(page, title):
        (name,) = literals(row[-1])
        assert f"def {name}(" in tests, name


def test_every_page_is_in_the_contents():
    index = (DOCS / "index.rst").read_text("utf-8")
    listed = set(re.findall(r"^    ([\w-]+)$", index, re.M))
    pages = {path.stem for path in DOCS.glob("*.rst")} - {"index"}
    pages = {page for page in pages if not page.endswith("-table")}  # included
    assert listed == pages | {"benchmarks", "reliability"}


def test_the_changelog_begins_with_this_version():
    text = (ROOT / "CHANGELOG.rst").read_text("utf-8")
    assert re.search(r"^(\d+\.\d+\.\d+)\n-+$", text, re.M)[1] == library.__version__


@pytest.mark.backends(["locmem"])
@pytest.mark.parametrize("option", ["cache_if", "timeout"])
def test_what_cache_if_and_a_callable_timeout_raise_reaches_the_caller(world, option):
    runs = []

    def broken(result):
        raise RuntimeError("in the option")

    options = {"timeout": 60, option: broken}
    f = world.memoize(**options)(lambda: runs.append(1))
    for _ in range(2):
        with pytest.raises(RuntimeError, match="in the option"):
            f()
    assert len(runs) == 2
    assert f.peek() is None


def test_every_key_is_new():
    """0.2.1 had 32 hexadecimal digits."""
    assert re.fullmatch(r"docs:[A-Za-z0-9+/]{28}", keyed.get_cache_key(1))


def test_extra_counts_like_an_argument():
    def key(extra):
        f = cache_memoize(60, prefix="extra", extra=extra)(lambda: 1)
        return f.get_cache_key()

    assert key([1]) != key((1,)) != key(["1"])
    assert key({"a": 1, "b": 2}) == key({"b": 2, "a": 1})
    with pytest.raises(UnkeyableArgument, match="extra="):
        key(threading.Lock())
    f = cache_memoize(60, prefix="extra", extra=lambda r: r)(lambda r: 1)
    with pytest.raises(UnkeyableArgument, match="names a URL but not the user"):
        f.get_cache_key(HttpRequest())


@pytest.mark.backends(["locmem"])
def test_a_guard_raises_its_stored_exception_again(world):
    runs = []

    def function():
        runs.append(1)
        raise ValueError("stored")

    f = world.memoize(60, store_result=False, cache_exceptions=ValueError)(function)
    for _ in range(3):
        with pytest.raises(ValueError, match="stored"):
            f()
    assert len(runs) == 1


@pytest.mark.backends(["locmem"])
def test_miss_callable_comes_after_a_stored_exception_too(world):
    calls = []

    def function():
        raise ValueError

    f = world.memoize(
        60,
        cache_exceptions=ValueError,
        hit_callable=lambda: calls.append("hit"),
        miss_callable=lambda: calls.append("miss"),
    )(function)
    for _ in range(2):
        with pytest.raises(ValueError):
            f()
    assert calls == ["miss", "hit"]


@pytest.mark.backends(["locmem"])
def test_what_is_under_a_key_is_not_the_bare_result(world):
    f = world.memoize(60)(lambda: 1)
    f()
    key = f.get_cache_key()
    assert type(world.cache.get(key)) is bytes
    assert f.peek().value == 1
    world.cache.delete(key)
    assert f.peek() is None
