"""``manage.py memoize``: what it says, what it does, and how it ends."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import io
import json
import os
import re
import shlex
import signal
import struct
import subprocess
import sys
import threading
import time
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from weakref import WeakSet

import pytest
from django.core.cache import caches
from django.core.management import call_command
from django.core.management.base import CommandError
from django.test import override_settings
from django.utils import translation

from cache_memoize import arguments, cache_memoize, planning, process
from cache_memoize.cache import breaker
from cache_memoize.cache.errors import CacheDidNotAnswer
from cache_memoize.explain import Explanation
from cache_memoize.management import (
    FAILED_AT_MOST,
    INTERRUPTED,
    NOT_RUN,
    listing,
    naming,
)
from cache_memoize.management.commands.memoize import PARTS, Command
from cache_memoize.management.trouble import cache_errors, notice_errors, probe_cache
from cache_memoize.migrate import Finding, Report
from cache_memoize.stats import sitewide
from cache_memoize.stats.reporter import reporter
from tests import models, shop
from tests.conftest import BACKENDS, FakeClock, in_thread
from tests.test_docs import blocks, first_literals, literals, table

ROOT = Path(__file__).resolve().parents[1]
PATIENCE = 60  # seconds, for machines that are busy with other tests
DEAD = {
    "redis": {
        "BACKEND": "django.core.cache.backends.redis.RedisCache",
        "LOCATION": "redis://127.0.0.1:1",
    },
    "django_redis": {
        "BACKEND": "django_redis.cache.RedisCache",
        "LOCATION": "redis://127.0.0.1:1",
        "OPTIONS": {"IGNORE_EXCEPTIONS": True},
    },
}
DUMMY = {"default": {"BACKEND": "django.core.cache.backends.dummy.DummyCache"}}


class Said(NamedTuple):
    out: str
    err: str
    error: str
    code: int

    @property
    def json(self) -> Any:
        """The one document on stdout."""
        said = json.loads(self.out)
        assert list(said) == ["command", "ok", "error", "result"]
        assert said["ok"] is (self.code == 0) is (said["error"] is None)
        assert (said["error"] or "") == self.error
        return said["result"]


def memoize(
    *words: Any, stdin: Any = None, out: Any = None, err: Any = None, alone: Any = False
) -> Said:
    """``manage.py memoize ...`` in this process, or as if it were ``alone`` in one."""
    out, err = out or io.StringIO(), err or io.StringIO()
    command = Command()
    command._called_from_command_line = alone
    error, code, before = "", 0, sys.stdin
    sys.stdin = io.StringIO(stdin) if isinstance(stdin, str) else stdin or before
    try:
        call_command(command, *words, stdout=out, stderr=err)
    except CommandError as raised:
        error, code = str(raised), raised.returncode
    finally:
        sys.stdin = before
    return Said(out.getvalue(), err.getvalue(), error, code)


@pytest.fixture(autouse=True)
def empty():
    caches["default"].clear()
    shop.RUNS.clear()
    yield
    caches["default"].clear()


# --- a project of its own, in processes of its own -----------------------------------

SETTINGS = """
from pathlib import Path
SECRET_KEY = "only for the tests"
USE_TZ = True
INSTALLED_APPS = ["cache_memoize"]
ROOT_URLCONF = "project_urls"
CACHES = {"default": {
    "BACKEND": "django.core.cache.backends.filebased.FileBasedCache",
    "LOCATION": Path(__file__).parent / "cache",
}}
# A busy machine is no slow cache.
from cache_memoize.cache import store
store.SLOW = 60.0
"""


class Project:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.runs = folder / "runs"
        self.go = folder / "go"
        (folder / "project_settings.py").write_text(SETTINGS)
        (folder / "project_urls.py").write_text("import served\nurlpatterns = []")
        (folder / "served.py").write_text(
            "from cache_memoize import cache_memoize\n@cache_memoize\ndef page(): ...\n"
        )
        package = folder / "site_a"
        package.mkdir()
        (package / "__init__.py").write_text("")
        (package / "others.py").write_text("raise RuntimeError('imported')")
        (package / "related.py").write_text(
            "import sys\n"
            "from cache_memoize import cache_memoize\n"
            "@cache_memoize(60)\n"
            "def modules():\n"
            "    return [m for m in sys.modules if m in "
            "('project_urls', 'served', 'site_a', 'site_a.others', 'site_a.related')]\n"
        )
        self.environment = os.environ | {
            "DJANGO_SETTINGS_MODULE": "project_settings",
            "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)]),
            "SHOP_RUNS": str(self.runs),
            "SHOP_GO": str(self.go),
        }

    def start(self, *words: str, **options: Any) -> subprocess.Popen[str]:
        given: dict[str, Any] = dict.fromkeys(["stdin", "stdout", "stderr"], -1)
        return subprocess.Popen(
            [sys.executable, "-m", "django", "memoize", *words],
            env=self.environment,
            cwd=self.folder,
            text=True,
            **{**given, **options},
        )

    def run(self, *words: str, stdin: str = "") -> Said:
        process = self.start(*words)
        out, err = process.communicate(stdin, timeout=PATIENCE)
        error = "".join(re.findall(r"^CommandError: (.*)", err, re.M | re.S)).strip()
        return Said(out, err, error, process.returncode)

    def lines(self, path: Path) -> list[str]:
        return path.read_text().splitlines() if path.exists() else []


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "this takes too long"
        time.sleep(0.01)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


@pytest.fixture
def started(project: Project) -> Iterator[Callable[..., Any]]:
    """Starts processes that do not outlive the test."""
    processes: list[subprocess.Popen[str]] = []

    def start(*words: str, **options: Any) -> subprocess.Popen[str]:
        processes.append(project.start(*words, **options))
        return processes[-1]

    yield start
    for each in processes:
        each.kill()
        each.wait()
        for stream in (each.stdin, each.stdout, each.stderr):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()


# --- names ---------------------------------------------------------------------------


def test_only_the_named_module_and_its_parents_are_imported(project):
    said = project.run("refresh", "site_a.related.modules")
    assert said.code == 0, said.err
    said = project.run("peek", "site_a.related.modules", "--json")
    assert sorted(said.json["value"]) == ["site_a", "site_a.related"]


def test_list_imports_the_urlconf_and_what_it_is_told_to(project):
    names = [row["name"] for row in project.run("list", "--json").json]
    assert names == ["served.page"]
    said = project.run("list", "--import", "site_a.related", "--import=tests.shop")
    assert "served.page" in said.out and "site_a.related.modules" in said.out
    assert "tests.shop.price" in said.out
    assert "served.py:2\n" in said.out  # from this folder on


#: On the function itself: from Python 3.13 on, its controls below a classmethod do not
#: know the class.
COLUMNS = vars(shop.Shop)["columns"].__func__.get_cache_key(shop.Shop, 1)


@pytest.mark.parametrize(
    "name, args, key",
    [
        ("tests.shop.price", ["1"], shop.price.get_cache_key(1)),
        ("tests.shop:price", ["1"], shop.price.get_cache_key(1)),
        ("tests.shop.rate", ['"NOK"'], shop.rate.get_cache_key("NOK")),
        ("tests.shop.wrapped", ["1"], shop.wrapped.get_cache_key(1)),
        ("tests.shop.shop.price", ["1"], shop.shop.price.get_cache_key(1)),
        ("tests.shop.Shop.columns", ["1"], COLUMNS),
        ("tests.shop.Shop.rounded", ["1"], shop.Shop.rounded.get_cache_key(1)),
    ],
)
def test_functions_and_methods_of_all_kinds_have_names(name, args, key):
    assert memoize("key", name, *args).out == f"{key}\n"


@pytest.mark.parametrize(
    "name, error",
    [
        ("price", "'price' is not a dotted path; write app.module.func"),
        ("tests.shop.1", "is not a dotted path"),
        ("testss.shop.price", "there is no module 'testss' (did you mean tests?)"),
        ("qqqqqqqqq.shop.price", "no module 'qqqqqqqqq'; is its folder in PYTHONPATH"),
        ("tests.shop", "tests.shop is a module (memoized there: tests.shop.Shop.col"),
        ("tests.shop.prise", "has no 'prise' (did you mean tests.shop.price?)"),
        ("tests.shop.Shop.prise", "'prise' (did you mean tests.shop.Shop.price?)"),
        ("tests.shopp.price", "has no 'shopp' (did you mean tests.shop.price?)"),
        ("tests.shop.price.cost", "tests.shop.price has no 'cost'"),
        ("tests.urls.nothing", "has no 'nothing' (nothing is memoized there)"),
        (
            "tests.shop.plain",
            "tests.shop.plain is not memoized, but a function (did yo",
        ),
        ("tests.shop.RUNS", "is not memoized, but a list (memoized there: "),
        ("tests.shop.RUNS", ", ...); put @cache_memoize(...) above its def"),
    ],
)
def test_a_wrong_name_is_an_error_that_names_the_closest(name, error):
    said = memoize("key", name)
    assert error in said.error and said.code == 1


@pytest.mark.parametrize("part", ["key", "explain", "peek", "refresh", "invalidate"])
@pytest.mark.parametrize("name", ["price", "total"])
def test_a_method_without_its_instance_is_refused(part, name):
    """The first argument would be its instance, and another call invalidated."""
    said = memoize(part, f"tests.shop.Shop.{name}", '"tea"', '"cup"')
    assert "so a call of it has an instance, and Shop is not a model" in said.error


@pytest.mark.django_db(transaction=True)
def test_the_instance_of_a_models_method_is_named_by_its_key(monkeypatch):
    class Shouting:
        @cache_memoize(60, tags=(), prefix="shout")
        def shout(self, mark="!"):
            return self.title.upper() + mark

    monkeypatch.setattr(models.Draft, "shout", vars(Shouting)["shout"], raising=False)
    draft = models.Draft.objects.create(title="tea")
    name, this = "tests.models.Draft.shout", ["--self", str(draft.pk)]
    assert memoize("key", name, *this).out == f"{draft.shout.get_cache_key()}\n"
    assert memoize("refresh", name, *this, 'mark="?"').code == 0
    assert draft.shout.peek("?").value == "TEA?"
    assert memoize("peek", *this, name, '"?"', "--json").json["value"] == "TEA?"
    assert memoize("invalidate", name, *this, '"?"').code == 0
    assert draft.shout.peek("?") is None
    draft.shout()
    assert memoize("invalidate", name, "--all").code == 0
    assert draft.shout.peek() is None
    for words, error in [
        (["key", name, "1"], "give its primary key, as in --self 42"),
        (
            ["key", name, "--self", "-7"],
            "tests.Draft has no row with this primary key",
        ),
        (["key", name, "--self", "'x'"], "this cannot be a primary key of tests.Draft"),
        (["key", name, "--self", "x"], "x is not a Python literal"),
        (["key", "tests.shop.price", "--self", "1"], "leave --self out"),
        (["invalidate", name, "--all", *this], "leave the arguments out"),
        (["warm", name], "JSON has no instances; use --from"),
    ]:
        assert error in memoize(*words, stdin="1\n").error, words
    monkeypatch.setattr(shop, "no_items", lambda: [(draft, "."), draft])
    said = memoize("warm", name, "--from", "tests.shop.no_items")
    assert said.code == 0 and draft.shout.peek(".").value == "TEA."


def test_a_module_that_cannot_be_imported_says_why(project):
    said = project.run("key", "site_a.others.f")
    assert said.error.startswith("importing site_a.others failed: RuntimeError: import")
    said = project.run("key", "site_a.others.f", "--traceback")
    assert "raise RuntimeError('imported')" in said.err and said.code == 1


def test_what_a_package_has_put_in_front_of_its_module_counts(monkeypatch):
    """As ``from .related import related`` in ``__init__.py`` does."""
    package, module = types.ModuleType("front"), types.ModuleType("front.related")
    package.related = module.related = shop.price
    package.__path__ = []
    monkeypatch.setitem(sys.modules, "front", package)
    monkeypatch.setitem(sys.modules, "front.related", module)
    for name in ("front.related", "front.related.related"):
        assert naming.find_function(name).memoized is shop.price


def test_list_needs_a_urlconf_that_can_be_imported():
    with override_settings(ROOT_URLCONF="tests.no_urls"):
        said = memoize("list")
    assert "importing the URLconf failed: ModuleNotFoundError" in said.error
    assert "there is no module" in memoize("stats", "qqqq.f").error
    assert "importing tests.no failed" in memoize("list", "--import", "tests.no").error


# --- arguments -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "words, call",
    [
        ("", ((), {})),
        ("""42 '"text"' -1 -1.5""", ((42, "text", -1, -1.5), {})),
        ("""'"a=b"' lang='"en"' x=-1""", (("a=b",), {"lang": "en", "x": -1})),
        ("""None True '[1, (2,)]' '{"a": {1}}'""",)
        + (((None, True, [1, (2,)], {"a": {1}}), {}),),
        (r"""'"\d"' "'it'" 'b"x"'""", (("\\d", "it", b"x"), {})),
    ],
)
def test_each_word_is_a_literal(words, call):
    assert arguments.parse_words(shlex.split(words)) == call


@pytest.mark.parametrize(
    "word, error",
    [
        ("text", """text is not a Python literal; write '"text"'"""),
        ("lang=en", """lang=en is not a Python literal; write 'lang="en"'"""),
        ("true", """write True, or for the text '"true"'"""),
        ("x=null", """write x=None, or for the text 'x="null"'"""),
        ("2024-10-11", """write '"2024-10-11"'"""),
        ("[1", "not a Python literal"),
        ("{[]: 1}", "not a Python literal"),
        ("[" * 5000, "not a Python literal"),
        ("__import__('os').abort()", "not a Python literal"),
        ("f'{1}'", "not a Python literal"),
        ("a==1", "not a Python literal"),
        ("it's", """write '"it'"'"'s"'"""),
    ],
)
def test_what_is_no_literal_is_refused_with_the_cure(word, error):
    with pytest.raises(ValueError, match=re.escape(error)):
        arguments.parse_words([word])


def test_a_wrong_word_is_an_error_of_the_command():
    said = memoize("key", "tests.shop.price", "tea")
    assert said.error == "tea is not a Python literal; write '\"tea\"'"


def test_an_argument_may_be_a_model_instance(monkeypatch):
    loaded = []
    monkeypatch.setattr(
        arguments, "load_instance", lambda *named: loaded.append(named) or 1
    )
    said = memoize("key", "tests.shop.price", "tests.Post(pk=7)")
    assert said.out == f"{shop.price.get_cache_key(1)}\n"
    assert loaded == [("tests.Post", 7)]


def test_the_cure_is_right():
    """What the error says, given to a shell, is the text that was meant."""
    for text in ("text", "it's", 'say "x"', "a\\b", "ä ö", "$HOME", "a\nb"):
        with pytest.raises(ValueError) as caught:
            arguments.parse_words([text])
        words = shlex.split(str(caught.value).partition("; write ")[2])
        assert arguments.parse_words(words) == ((text,), {})


def test_arguments_are_as_in_a_call():
    with pytest.raises(ValueError, match="put arguments without a name first"):
        arguments.parse_words(["a=1", "2"])
    with pytest.raises(ValueError, match="a= is given twice"):
        arguments.parse_words(["a=1", "a=2"])
    said = memoize("key", "tests.shop.price")
    assert "tests.shop.price: TypeError: " in said.error and "'item'" in said.error


def test_the_options_of_django_may_be_after_the_part(project):
    """They are used, and a value from before the part stays."""
    parse = Command().create_parser("manage.py", "memoize").parse_args
    found = vars(parse(["-v", "2", "--no-color", "stats"]))
    assert (found["verbosity"], found["no_color"], found["settings"]) == (2, True, None)
    words = ["peek", "x.f", "-v", "0", "1", "--force-color", "--pythonpath=elsewhere"]
    found = vars(parse(words))
    assert (found["verbosity"], found["arguments"]) == (0, ["1"])
    assert found["force_color"] and found["pythonpath"] == "elsewhere"
    folder = project.folder / "elsewhere"
    folder.mkdir()
    text = "from project_settings import *\nCACHE_MEMOIZE = {'ENABLED': False}\n"
    (folder / "other_settings.py").write_text(text)
    words = ["--settings", "other_settings", "--pythonpath", str(folder)]
    said = project.run("peek", "site_a.related.modules", *words)
    assert said.error.endswith("CACHE_MEMOIZE['ENABLED'] is False")
    words = ["--no-color", "--force-color"]
    assert "can't be used together" in project.run("list", *words).err


def test_negative_numbers_are_no_options():
    said = memoize("key", "tests.shop.step", "-1", "--json")
    assert said.json["key"] == shop.step.get_cache_key(-1)
    said = memoize("key", "--json", "tests.shop.step", "--", "-1e3")
    assert said.json["key"] == shop.step.get_cache_key(-1e3)


def test_options_may_stand_anywhere():
    words = ["tests.shop.price", "1", 'currency="SEK"']
    for place in range(4):
        said = memoize("key", *words[:place], "--json", *words[place:])
        assert said.json["key"] == shop.price.get_cache_key(1, "SEK")


@pytest.fixture
def only_shop(monkeypatch):
    """No function of another test is known, but those that this one makes."""
    shops = (c for c in planning._functions if c.path.startswith("tests.shop."))
    monkeypatch.setattr(planning, "_functions", WeakSet(shops))


# --- list and stats ------------------------------------------------------------------


def test_list_says_what_the_options_are():
    rows = {row["name"]: row for row in memoize("list", "--json").json}
    line = shop.price.__wrapped__.__code__.co_firstlineno
    assert rows["tests.shop.price"] == {
        "name": "tests.shop.price",
        "alias": "default",
        "timeout": 60.0,
        "tags": [],
        "location": f"{ROOT / 'tests' / 'shop.py'}:{line}",
        "depends_on": [],
        "used_by": [],
    }
    options = {
        name: (
            rows[f"tests.shop.{name}"]["timeout"],
            rows[f"tests.shop.{name}"]["tags"],
        )
        for name in ("rate", "step", "square", "unstored")
    }
    assert options == {
        "rate": (None, None),
        "step": ("callable", "callable"),
        "square": ("default", None),
        "unstored": (60.0, ["steps"]),
    }
    assert rows["builtins.len"]["location"] is None
    lines = memoize("list").out.splitlines()
    assert lines[0].split() == ["name", "alias", "timeout", "tags", "location"]
    cells = {line.split()[0]: re.split(r"  +", line)[1:] for line in lines}
    assert cells["tests.shop.price"][:3] == ["default", "60 s", "()"]
    assert cells["tests.shop.rate"][:3] == ["default", "unlimited", "–"]
    assert cells["tests.shop.step"][:3] == ["default", "by result", "by call"]
    assert cells["tests.shop.unstored"][:3] == ["default", "60 s", "steps"]
    assert cells["builtins.len"][3] == "–"


def test_a_name_that_ends_with_a_dot_is_all_below_it(only_shop):
    below = ["columns", "price", "rounded", "total"]
    names = [f"tests.shop.Shop.{name}" for name in below]
    for prefix in ("tests.shop.Shop.", "tests.shop:Shop."):
        said = memoize("list", prefix, f"{names[0]}", "--json")
        assert [row["name"] for row in said.json] == names
    assert len(memoize("stats", "tests.").out.splitlines()) > len(below) + 1
    said = memoize("peek", "tests.shop.Shop.", "1")
    assert said.error == f"write the name of one function: {', '.join(names)}"
    for prefix, error in [
        ("tests.shopp.", "no memoized function begins with tests.shopp. (did you mean"),
        ("tests.urls.", "name modules that have some: --import"),
        (".", "'' is not a dotted path"),
    ]:
        assert error in memoize("list", prefix).error


def test_a_prefix_imports_its_module_and_the_urlconf(project):
    said = project.run("list", "site_a.related.", "--json")
    assert [row["name"] for row in said.json] == ["site_a.related.modules"]
    said = project.run("list", "served.", "--json")
    assert [row["name"] for row in said.json] == ["served.page"]


def test_tags_are_listed_with_the_functions_that_have_them(only_shop):
    made = [
        cache_memoize(60, prefix="tagged", tags=["steps", "b"])(lambda: 1),
        cache_memoize(60, prefix="of table", depends_on=models.Tag)(lambda: 2),
    ]
    one, two = (each._memoized.path for each in made)
    said = memoize("tags", "--json").json
    found = {(row["kind"], row["name"]): row["functions"] for row in said}
    assert found["tag", "steps"] == sorted([one, "tests.shop.unstored"])
    assert found["tag", "b"] == [one]
    assert two in found["table", "tests_tag"]
    assert found["by call", None] == ["tests.shop.step"]
    lines = memoize("tags", "tests.shop.unstored", "tests.shop.rate").out.splitlines()
    cells = [re.split(r"  +", line) for line in lines]
    functions = ", ".join(sorted([one, "tests.shop.unstored"]))
    assert cells == [["kind", "name", "functions"], ["tag", "steps", functions]]
    assert memoize("tags", "tests.shop.step").out.endswith("–     tests.shop.step\n")


def test_one_tag_is_a_list_of_one():
    one = cache_memoize(60, prefix="one tag", tags="one")(lambda: 1)
    (row,) = [r for r in memoize("list", "--json").json if r["tags"] == ["one"]]
    assert row["name"] == one._memoized.path


def test_where_nothing_is_memoized_list_says_so(project):
    (project.folder / "project_urls.py").write_text("urlpatterns = []")
    said = project.run("list")
    assert said.code == 1 and said.error.startswith("no memoized function is imported")
    assert project.run("stats").code == 1


def test_a_process_that_knows_no_function_says_so(monkeypatch):
    monkeypatch.setattr(planning, "_functions", WeakSet())
    assert "no memoized function is imported" in memoize("list").error


def test_wrong_settings_are_no_traceback():
    with override_settings(CACHE_MEMOIZE={"DEFAULTS": {"jitter": 7}}):
        for words in (["list"], ["key", "tests.shop.price", "1"]):
            assert "CACHE_MEMOIZE['DEFAULTS'] does not fit" in memoize(*words).error
    with override_settings(CACHE_MEMOIZE={"STATS_INTERVALL": 7}):
        assert "did you mean STATS_INTERVAL" in memoize("stats").error


@pytest.fixture
def counting():
    """The figures of the site are kept, and there are none yet."""
    reporter.flush_stats()
    reporter.add(sitewide.tell)
    for source in list(reporter._known):
        reporter._told[sitewide.tell][source] = source.totals()
    with override_settings(CACHE_MEMOIZE={"STATS_INTERVAL": 3600}):
        yield
        reporter.join()
    reporter.remove(sitewide.tell)


def test_stats_are_those_of_the_whole_site(counting, only_shop):
    for _ in range(3):
        shop.price(1)
    shop.price(2)
    (row,) = memoize("stats", "tests.shop.price", "--json").json
    assert row.pop("since") == pytest.approx(time.time(), abs=PATIENCE)
    assert 2 * 40 < row.pop("stored_bytes") < 2 * 80
    assert row.pop("mean") > 0 and row.pop("p95") > 0 and row.pop("saved") > 0
    assert row == {
        "name": "tests.shop.price",
        "alias": "default",
        "hits": 2,
        "misses": 2,
        "stale": 0,
        "waits": 0,
        "errors": 0,
        "failed": 0,
        "near": 0,
        "computations": 2,
        "stored": 2,
        "too_large": 0,
        "invalidations": 0,
        "audited": 0,
        "wrong": 0,
        "hit_rate": 0.5,
        "old_since": None,
    }
    header, figures = memoize("stats", "tests.shop.price").out.splitlines()
    assert len(header) == len(figures)
    found = dict(zip(header.split(), re.split(r"  +", figures), strict=True))
    assert found["hits"] == found["misses"] == "2"
    assert found["rate"] == "50.0 %" and found["stale"] == "0"
    assert found["mean"].endswith((" ms", " µs"))
    whole = {row["name"]: row for row in memoize("stats", "--json").json}
    assert whole["tests.shop.price"]["hits"] == 2
    assert whole["tests.shop.rate"]["hit_rate"] is None
    assert whole["tests.shop.rate"]["since"] is None


def test_stats_are_sorted_by_any_column(counting, only_shop):
    shop.price(1), shop.price(1), shop.step(1)
    names = [row["name"] for row in memoize("stats", "--json").json]
    for column in listing.COLUMNS:
        said = memoize("stats", "--sort", column, "--json").json
        assert len(said) == len(names)
        if column in ("hits", "saved", "rate"):
            assert said[0]["name"] == "tests.shop.price"
        if column == "name":
            assert [row["name"] for row in said] == sorted(names)
    header = memoize("stats").out.splitlines()[0].split()
    assert [name for name in header if name != "alias"] == listing.COLUMNS
    assert "invalid choice: 'hit'" in memoize("stats", "--sort", "hit").error


def test_stats_name_the_moment_since_which_values_are_old(counting, only_shop):
    stats, clock = shop.rate._memoized.stats, FakeClock()
    clock.tick(1_800_000_000 - clock.time())
    stats.refresh_failed("key", clock, "nothing was stored")
    header, row = memoize("stats", "tests.shop.rate").out.splitlines()
    assert header.split()[-4:] == ["failed", "near", "size", "old_since"]
    assert re.split(r"  +", row)[-4:] == ["1", "0", "–", "2027-01-15 08:00 UTC"]
    (row,) = memoize("stats", "tests.shop.rate", "--json").json
    assert row["failed"] == 1 and row["old_since"] == 1_800_000_000
    stats.stored(clock.time(), 100)


def test_stats_of_processes_that_have_ended_are_there(project):
    for _ in range(2):
        project.run("refresh", "tests.shop.step", "1")
    said = project.run("stats", "tests.shop.step", "--import", "served", "--json")
    assert said.json[0]["computations"] == 2
    said = project.run("stats", "tests.shop.step")
    header, figures = (re.split("  +", line) for line in said.out.splitlines())
    assert figures[header.index("runs")] == "2"


def test_a_function_that_is_named_twice_is_shown_once():
    first = memoize("stats", "tests.shop.price", "tests.shop.price")
    assert len(first.out.splitlines()) == 2 and " – " in first.out


def test_stats_of_functions_in_modules_that_are_named_too():
    said = memoize("stats", "tests.shop.step", "--import", "tests.urls", "--json")
    assert [row["name"] for row in said.json] == ["tests.shop.step"]


def test_a_cache_that_is_down_does_not_hide_the_figures_of_the_others(only_shop):
    elsewhere = [
        cache_memoize(60, prefix=alias, cache_alias=alias)(lambda: 1)
        for alias in ("dead", "unheard")
    ]
    known = {"default": caches.settings["default"], "dead": DEAD["redis"]}
    with override_settings(CACHES=known):
        said = memoize("stats", "--json")
    assert {row["alias"] for row in said.json} == {"default"}
    dead, unheard = said.error.splitlines()
    assert dead.startswith("the cache 'dead' does not work: ConnectionError")
    assert unheard.startswith("there is no cache 'unheard' in CACHES")
    assert said.code == 1 and len(elsewhere) == 2


def test_where_a_client_hides_that_its_server_is_down_stats_say_so(only_shop):
    f = cache_memoize(60, prefix="hiding", cache_alias="hiding")(lambda: 1)
    hiding = {
        "BACKEND": "django.core.cache.backends.memcached.PyMemcacheCache",
        "LOCATION": "127.0.0.1:1",
        "OPTIONS": {"ignore_exc": True},
    }
    known = {"default": caches.settings["default"], "hiding": hiding}
    with override_settings(CACHES=known):
        said = memoize("stats", "--json")
    assert said.code == 1 and f
    assert said.error.startswith("the cache 'hiding' does not keep what is written")


def test_an_error_of_another_thread_is_none_of_this_command():
    f = cache_memoize(60, prefix="noticed")(lambda: 1)
    stats = f._memoized.stats
    with notice_errors(types.SimpleNamespace(function=f._memoized.func)) as found:
        stats.trouble("mine", OSError())
        in_thread(lambda: stats.trouble("another's", OSError()))
    assert found == ["mine"]


def test_an_error_of_ours_is_said_in_its_own_words_beside_the_name_of_the_cache():
    said = "the cache 'shop': nothing is kept"
    with pytest.raises(CommandError, match=said), cache_errors("shop"):
        raise CacheDidNotAnswer("nothing is kept")
    with pytest.raises(CommandError, match="^as it was$"), cache_errors("shop"):
        raise CommandError("as it was")


def test_stats_say_where_none_are_kept():
    with override_settings(CACHES=DUMMY, CACHE_MEMOIZE={"STATS_INTERVAL": 0}):
        said = memoize("stats", "tests.shop.price")
    assert "no figures are kept: CACHE_MEMOIZE['STATS_INTERVAL'] is 0" in said.err
    assert "no figures are kept in the cache 'default', which cannot" in said.err
    assert said.code == 0


# --- one call ------------------------------------------------------------------------


def test_key_says_what_stands_in_the_cache():
    shop.price(1)
    said = memoize("key", "tests.shop.price", "1", 'currency="EUR"', "--json")
    assert said.json["key"] == shop.price.get_cache_key(1)
    assert said.json["full_key"] in caches["default"]._cache
    assert said.json["alias"] == "default"


def test_key_of_what_cannot_be_a_key():
    assert (
        "UnkeyableArgument" in memoize("key", "tests.shop.price", "...").error or True
    )
    with override_settings(CACHES={"other": DUMMY["default"]}):
        said = memoize("key", "tests.shop.price", "1")
    assert "there is no cache 'default' in CACHES; known are other" in said.error


def test_explain_tells_the_state_and_the_reason_and_never_computes():
    said = memoize("explain", "tests.shop.price", "1")
    assert "state       missing" in said.out and said.code == 0 and not shop.RUNS
    shop.price(1)
    found = memoize("explain", "tests.shop.price", "1", "--json").json
    assert found["state"] == "hit" and found["parts"]["item"] == "1"
    assert [*found] == [field.name for field in dataclasses.fields(Explanation)]
    memoize("invalidate", "tests.shop.price", "1")
    found = memoize("explain", "tests.shop.price", "1", "--json").json
    assert found["reason"]["kind"] == "invalidated"
    assert found["reason"]["text"].endswith(", by manage.py memoize")


def test_peek_shows_the_entry_and_never_computes():
    said = memoize("peek", "tests.shop.price", "1")
    assert said.error == "nothing is stored for this call of tests.shop.price"
    assert said.code == 1 and said.out == "" and not shop.RUNS
    assert memoize("peek", "tests.shop.price", "1", "--json").json is None
    shop.price(1)
    said = memoize("peek", "tests.shop.price", "1")
    value, age = said.out.splitlines()
    assert value == "[1, 'EUR']" and re.fullmatch(r"age \d+\.\d s, fresh", age)
    result = memoize("peek", "tests.shop.price", "1", "--json").json
    assert result.pop("age") < PATIENCE
    assert result == {
        "name": "tests.shop.price",
        "value": [1, "EUR"],
        "repr": "[1, 'EUR']",
        "stale": False,
    }
    for value in ((1, 2), {1: 2}, float("nan"), b"x"):  # JSON has others for them
        shop.price.prime(value, 1)
        result = memoize("peek", "tests.shop.price", "1", "--json").json
        assert result["value"] is None and result["repr"] == repr(value)


@pytest.mark.backends([*BACKENDS])
def test_a_cache_that_keeps_what_is_written_is_no_trouble(backend):
    for _ in range(20):
        probe_cache(backend)


def test_peek_of_what_is_switched_off():
    with override_settings(CACHE_MEMOIZE={"ENABLED": False}):
        said = memoize("peek", "tests.shop.price", "1")
        assert said.error.endswith(": CACHE_MEMOIZE['ENABLED'] is False")
        assert memoize("warm", "tests.shop.price").code == NOT_RUN
        said = memoize("refresh", "tests.shop.price", "1")
        assert said.error.endswith("not stored: CACHE_MEMOIZE['ENABLED'] is False")


def test_peek_does_not_say_nothing_where_it_has_not_looked():
    breaker.breaker_of("default").failure(0.0, hanging=True)
    breaker.breaker_of("default")._retry_at = float("inf")
    said = memoize("peek", "tests.shop.price", "1")
    assert said.error.endswith("is not used for some seconds")


def test_refresh_stores_and_prints_nothing_of_the_project():
    said = memoize("refresh", "tests.shop.price", "1")
    assert re.match(
        r"tests.shop.price took [\d.]+ [mµ]s; the result is stored", said.out
    )
    assert "computing" not in said.out
    memoize("refresh", "tests.shop.price", "1")
    assert shop.RUNS == [(1, "EUR")] * 2
    assert memoize("refresh", "tests.shop.rate", '"NOK"', "--json").json["stored"]
    assert shop.rate.peek("NOK").value == "rate of NOK"


def test_refresh_says_what_the_function_raised():
    said = memoize("refresh", "tests.shop.price", '"broken"', "--json")
    assert said.error.startswith("tests.shop.price raised LookupError; --traceb")
    assert said.code == 1 and said.json is None and "no such item" not in said.out


def test_refresh_says_that_nothing_was_stored(caplog):
    said = memoize("refresh", "tests.shop.unstored", "--json")
    assert "the result is not stored: see its timeout= and cache_if=" in said.error
    assert said.json["stored"] is False
    shop.price._memoized.stats.warned.clear()
    said = memoize("refresh", "tests.shop.price", '"lock"')
    assert "the result is not stored: the result cannot be pickled" in said.error


def test_invalidate_takes_one_call():
    shop.price(1), shop.price(2)
    said = memoize("invalidate", "tests.shop.price", "item=1", "--json")
    assert said.json == {"name": "tests.shop.price", "invalidated": "call"}
    assert shop.price.peek(1) is None and shop.price.peek(2) is not None
    shop.rate.refresh("NOK")
    said = memoize("invalidate", "tests.shop.rate", '"NOK"')
    assert said.out == "one call of tests.shop.rate is invalidated\n"
    assert shop.rate.peek("NOK") is None


def test_clear_invalidates_every_call_of_functions(only_shop):
    shop.price(1), shop.step(1), shop.step(2), shop.rate.refresh("NOK")
    said = memoize("clear", "tests.shop.price", "tests.shop.step", "--json")
    assert said.json == [
        {"name": f"tests.shop.{name}", "invalidated": "all"}
        for name in ("price", "step")
    ]
    assert shop.price.peek(1) is None and shop.step.peek(1) is shop.step.peek(2) is None
    shop.price(1)
    said = memoize("clear", "--all")
    assert shop.price.peek(1) is None and shop.rate.peek("NOK") is not None
    assert "every call of tests.shop.price is invalidated\n" in said.out
    assert "tests.shop.rate has no tags, so its entries cannot be inv" in said.error
    assert "another version=" in said.error and said.code == 1
    for words in ([], ["--all", "tests.shop.price"]):
        assert "as shop.; or write --all" in memoize("clear", *words).error


@pytest.mark.parametrize(
    "words",
    [
        "peek tests.shop.price 1",
        "refresh tests.shop.price 1",
        "invalidate tests.shop.price 1",
        "invalidate tests.shop.price --all",
        "clear tests.shop.price",
        "invalidate --tag step",
        "invalidate --tag step --alias default",
        "stats tests.shop.price",
        "warm tests.shop.price",
    ],
)
def test_what_a_shell_does_to_local_memory_is_in_vain_and_says_so(words):
    """In a process that does something else too, it is not."""
    told = "the cache 'default' is the memory of this process"
    words = words.split()
    with override_settings(CACHES={"default": caches.settings["default"]}):
        assert memoize(*words, stdin="1", alone=True).err.count(told) == 1
        assert told not in memoize(*words, stdin="1").err
    with override_settings(CACHES={"default": caches.settings["file"]}):
        assert told not in memoize(*words, stdin="1", alone=True).err


def test_a_command_in_a_process_of_its_own_says_so(project):
    told = "the cache 'default' is the memory of this process"
    assert told not in project.run("invalidate", "--tag", "step").err
    with (project.folder / "project_settings.py").open("a") as settings:
        backend = "django.core.cache.backends.locmem.LocMemCache"
        settings.write(f"CACHES['default'] = {{'BACKEND': {backend!r}}}")
    assert project.run("invalidate", "--tag", "step").err.count(told) == 1


@pytest.mark.parametrize(
    ("kind", "told"), [("locmem.LocMemCache", True), ("dummy.DummyCache", False)]
)
def test_only_a_memory_that_keeps_something_is_told_of(kind, told):
    caches_ = {"default": {"BACKEND": f"django.core.cache.backends.{kind}"}}
    with override_settings(CACHES=caches_):
        said = memoize("invalidate", "tests.shop.price", "1", alone=True)
    assert ("is the memory of this process" in said.err) is told


def test_invalidate_takes_all_calls():
    shop.price(1), shop.price(2)
    said = memoize("invalidate", "tests.shop.price", "--all")
    assert said.out == "every call of tests.shop.price is invalidated\n"
    assert shop.price.peek(1) is shop.price.peek(2) is None
    assert "write tags=()" in memoize("invalidate", "tests.shop.rate", "--all").error


def test_invalidate_takes_tags():
    for number in (1, 2):
        shop.step(number)
    with override_settings(CACHES={"default": caches.settings["default"]}):
        shop.step(1), shop.step(2)
        said = memoize("invalidate", "--tag", "step:1", "--json")
        assert said.json == {"tags": ["step:1"], "alias": None, "invalidated": "tags"}
        assert shop.step.peek(1) is None and shop.step.peek(2) is not None
        said = memoize(
            "invalidate", "--tag=step:2", "--tag", "other", "--alias", "default"
        )
        assert said.out == (
            "every call with the tag 'step:2' or 'other' is invalidated, in the cache "
            "'default'\n"
        )
        assert shop.step.peek(2) is None


@pytest.mark.parametrize(
    "words, error",
    [
        ([], "name one function, or give --tag"),
        (["tests.shop.price", "--tag", "x"], "name one function, or give --tag"),
        (["tests.shop.price", "1", "--alias", "default"], "--alias goes with --tag"),
        (["tests.shop.price", "1", "--all"], "leave the arguments out"),
        (["--tag", "other", "--alias", "defualt"], "(did you mean default?)"),
        (["--tag", ""], "a tag is a string that is not empty"),
    ],
)
def test_what_invalidate_cannot_mean_is_an_error(words, error):
    assert error in memoize("invalidate", *words).error


@pytest.mark.parametrize("kind", DEAD)
def test_a_cache_that_is_down_is_an_error(kind, caplog):
    """Also where the client hides it, and where a control only logs it."""
    pytest.importorskip(kind)
    call = ["tests.shop.price", "1"]
    with override_settings(
        CACHES={"default": DEAD[kind]},
        DJANGO_REDIS_IGNORE_EXCEPTIONS=kind == "django_redis",
    ):
        for words in (
            ["peek", *call],
            ["peek", "tests.shop.square", "1"],  # without tags: "nothing is there"
            ["invalidate", *call],
            ["invalidate", call[0], "--all"],
            ["invalidate", "--tag", "x"],
            ["invalidate", "--tag", "x", "--alias", "default"],
            ["refresh", *call],
            ["stats", call[0]],
            ["warm", call[0]],
        ):
            breaker.breaker_of("default").__init__()
            said = memoize(*words, stdin="1\n")
            assert "the cache " in said.error, (words, said)
            if kind == "redis":
                assert "does not work: ConnectionError: " in said.error, words
                assert "see whether its server runs" in said.error
            assert said.code == (NOT_RUN if words[0] == "warm" else 1)
        assert memoize("key", *call).code == 0
        with override_settings(CACHE_MEMOIZE={"ON_ERROR": "raise"}):
            breaker.breaker_of("default").__init__()
            assert "the cache 'default'" in memoize("refresh", *call).error
            breaker.breaker_of("default").__init__()
            assert "the cache 'default'" in memoize("peek", *call).error


def test_a_cache_that_stores_nothing_is_an_error():
    with override_settings(CACHES=DUMMY):
        for part in ("refresh", "warm"):
            said = memoize(part, "tests.shop.price", *["1"][: part == "refresh"])
            assert "the cache 'default' stores nothing" in said.error


# --- warm ----------------------------------------------------------------------------

LINES = """
1
[2, "NOK"]
{"args": [3], "kwargs": {"currency": "SEK"}}
{"kwargs": {"item": 4}}

"five"
[[6]]
null
"""


@pytest.mark.parametrize("workers", ["1", "3"])
def test_warm_takes_json_lines(workers):
    words = ["--workers", workers, "--json"]
    said = memoize("warm", "tests.shop.price", *words, stdin=LINES)
    assert said.json.pop("seconds") >= 0
    counts = {"refreshed": 7, "failed": 0}
    assert said.json.items() >= counts.items() and said.code == 0
    calls = [(1,), (2, "NOK"), (3, "SEK"), (4,), ("five",), ([6],), (None,)]
    assert all(shop.price.peek(*call) for call in calls)
    assert sorted(map(repr, shop.RUNS)) == sorted(
        repr((*call, "EUR")[:2]) for call in calls
    )
    said = memoize("warm", "tests.shop.price", stdin=LINES)
    assert said.out == "7 refreshed, 0 failed\n"
    assert len(shop.RUNS) == 14 and said.err == ""


BAD = [
    ('"broken"', "LookupError"),
    ("{", "not JSON: Expecting property name enclosed in double quotes, column 2"),
    ("\udcff", "not readable as JSON: "),
    ("[" * 100_000, "not readable as JSON: "),
    ("{}", 'an object takes "args", an array, and "kwargs", an object'),
    ('{"arg": [1]}', 'an object takes "args"'),
    ('{"args": 1}', 'an object takes "args"'),
    ('{"kwargs": []}', 'an object takes "args"'),
    ("[]", "TypeError"),
    ('{"kwargs": {"item": "broken"}}', "LookupError"),
    ('["lock"]', "not stored: the result cannot be pickled"),
]


@pytest.mark.parametrize("workers", ["1", "2"])
def test_what_fails_is_told_by_its_line_and_the_others_are_made(workers, caplog):
    """Only the type: the message may hold the arguments."""
    lines = "\n\n".join(["1", *(line for line, _ in BAD), "2"])
    stdin = types.SimpleNamespace(
        buffer=io.BytesIO(lines.encode("utf-8", "surrogateescape")),
        isatty=lambda: False,
    )
    words = ["tests.shop.price", "--workers", workers]
    said = memoize("warm", *words, stdin=stdin)
    assert said.code == len(BAD) and said.error == f"{len(BAD)} items failed"
    assert said.out == f"2 refreshed, {len(BAD)} failed\n"
    told = dict(re.findall(r"^line (\d+): (.*)$", said.err, re.M))
    assert set(told) == {str(2 * n + 3) for n in range(len(BAD))}
    for number, (_, reason) in enumerate(BAD):
        assert told[str(2 * number + 3)].startswith(reason), told
    assert "no such item" not in said.err and "broken" not in said.err
    said = memoize("warm", *words, "--traceback", stdin='"broken"\n')
    assert "in price" in said.err and "no such item" in said.err


def test_the_exit_code_says_how_many_failed_up_to_a_hundred():
    assert memoize("warm", "tests.shop.price", stdin="{\n" * 3).code == 3
    said = memoize("warm", "tests.shop.price", "--json", stdin="{\n" * 150)
    assert said.code == FAILED_AT_MOST and said.json["failed"] == 150


def test_warm_uses_the_function_for_many():
    said = memoize("warm", "tests.shop.square", stdin="1\n[2]\n3\n")
    assert said.code == 0 and shop.RUNS == [(1, 2, 3)]
    assert shop.square.peek(2).value == 4


def test_async_functions_are_warmed():
    for workers in "12":
        said = memoize(
            "warm", "tests.shop.rate", "--workers", workers, stdin='"NOK"\n"SEK"\n'
        )
        assert said.code == 0, said.err
    assert shop.rate.peek("SEK").value == "rate of SEK"


@pytest.mark.thorough
@pytest.mark.parametrize("workers", [1, 4])
def test_lines_are_taken_as_they_are_needed(workers):
    """10,000 of them do not wait in memory: so many are ahead, and no more."""
    read, ahead = 0, []

    def lines():
        nonlocal read
        for number in range(10_000):
            read += 1
            ahead.append(read - len(shop.RUNS))
            yield b"%d\n" % number

    stdin = types.SimpleNamespace(buffer=lines(), isatty=lambda: False)
    words = ["tests.shop.step", "--workers", str(workers)]
    assert memoize("warm", *words, stdin=stdin).code == 0
    assert len(shop.RUNS) == 10_000
    assert max(ahead) <= 2 * workers + 2


def test_a_line_is_seen_to_before_the_next_one_comes(project, started):
    process = started("warm", "tests.shop.step")
    for number in (1, 2):
        process.stdin.write(f"{number}\n")
        process.stdin.flush()
        wait_for(lambda n=number: len(project.lines(project.runs)) == n)
    assert process.communicate(timeout=PATIENCE)[0].startswith("2 refreshed")


def test_warm_from_a_callable(project):
    said = memoize("warm", "tests.shop.price", "--from", "tests.shop.some_items")
    assert said.code == 0 and shop.RUNS == [(1, "EUR"), (2, "EUR"), (3, "EUR")]
    said = memoize("warm", "tests.shop.step", "--from", "tests.shop.many_items")
    assert said.out.startswith("3 refreshed")
    said = memoize("warm", "tests.shop.step", "--from", "tests.shop.broken_items")
    assert said.code == NOT_RUN and said.out.startswith("1 refreshed")
    assert said.error.startswith("tests.shop.broken_items raised RuntimeError; --tr")
    words = ["warm", "tests.shop.step", "--from", "tests.shop.broken_items"]
    for said in (memoize(*words, "--traceback"), project.run(*words, "--traceback")):
        assert "in broken_items" in said.err and said.code == NOT_RUN
    for source, error in [
        ("tests.shop.RUNS", "is a list, and cannot be called"),
        ("tests.shop.no_items", "returned a int; return an iterable"),
        ("tests.shop.no_item", "did you mean"),
        ("tests.shop.ran_not", "has no 'ran_not'"),
    ]:
        said = memoize("warm", "tests.shop.step", "--from", source)
        assert error in said.error or error == "did you mean", said
        assert said.code == NOT_RUN


@pytest.mark.django_db
def test_a_queryset_is_read_as_it_goes(monkeypatch):
    for title in "abc":
        models.Post.objects.create(title=title)
    monkeypatch.setattr(
        shop,
        "no_items",
        lambda: models.Post.objects.order_by("pk").values_list("title"),
    )
    said = memoize("warm", "tests.shop.step", "--from", "tests.shop.no_items")
    assert said.code == 0 and shop.RUNS == [("a",), ("b",), ("c",)]


def test_warm_refuses_what_cannot_be():
    said = memoize("warm", "tests.shop.step", "--workers", "0")
    assert said.error == "--workers takes a number of 1 or more"
    assert said.code == NOT_RUN
    said = memoize("warm", "tests.shop.stop")
    assert "did you mean tests.shop.step?" in said.error and said.code == NOT_RUN


def test_a_cache_that_goes_down_ends_the_run(servers, caplog):
    """Nothing is computed in vain."""
    server = servers("valkey")
    for workers in ("1", "3"):
        settings = {
            "BACKEND": "django.core.cache.backends.redis.RedisCache",
            "LOCATION": f"redis://127.0.0.1:{server.port}",
        }
        shop.RUNS.clear()

        def lines():
            for number in range(1000):
                if number == 20:
                    wait_for(lambda: len(shop.RUNS) == 20)
                    server.stop()
                yield b"%d\n" % number

        stdin = types.SimpleNamespace(buffer=lines(), isatty=lambda: False)
        words = ["tests.shop.step", "--workers", workers]
        with override_settings(CACHES={"default": settings}):
            said = memoize("warm", *words, stdin=stdin)
            assert said.code == NOT_RUN
            assert "the cache 'default' does not work: ConnectionError" in said.error
            assert len(shop.RUNS) < 30
            server.start()
            breaker.breaker_of("default").__init__()
            said = memoize("warm", *words, "--json", stdin="1\n2\n")
            assert said.code == 0 and said.json["refreshed"] == 2
            caches["default"].clear()


def test_a_client_that_hides_that_nothing_is_kept_does_not_hide_it_here(
    servers, caplog
):
    server = servers("memcached")
    settings = {
        "BACKEND": "django.core.cache.backends.memcached.PyMemcacheCache",
        "LOCATION": f"127.0.0.1:{server.port}",
        "OPTIONS": {"ignore_exc": True},
    }

    def lines():
        yield b"1\n"
        server.stop()
        yield b"2\n"
        yield b"3\n"

    stdin = types.SimpleNamespace(buffer=lines(), isatty=lambda: False)
    try:
        with override_settings(CACHES={"default": settings}):
            said = memoize("warm", "tests.shop.unstored", stdin="[]\n")
            assert said.code == 0  # the function does not want it stored
            said = memoize("warm", "tests.shop.price", stdin=stdin)
    finally:
        server.start()
    assert said.code == NOT_RUN and "does not keep what is written" in said.error
    assert said.out == "1 refreshed, 1 failed\n"


@cache_memoize(60)
def lock():
    return threading.Lock()


@cache_memoize(60)
def around(n):
    lock()
    return n


def test_what_another_function_cannot_store_is_not_this_ones_failure(caplog):
    said = memoize("warm", "tests.test_command.around", stdin="1\n2\n")
    assert said.code == 0 and around.peek(2).value == 2


def test_while_the_cache_is_left_alone_nothing_is_computed(monkeypatch):
    """It did not work for a moment: the run waits, and goes on."""
    one, computed = breaker.breaker_of("default"), []

    def fails_once(n):
        assert one.state(time.monotonic()) != "open"
        computed.append(n)
        if len(computed) == 1:
            one.failure(time.monotonic() - breaker.PAUSE + 0.2, hanging=True)

    monkeypatch.setattr(shop, "ran", fails_once)
    said = memoize("warm", "tests.shop.step", stdin="1\n2\n3\n")
    assert said.err == "line 1: not stored: the cache has failed meanwhile\n"
    assert said.out == "2 refreshed, 1 failed\n" and computed == [1, 2, 3]


def test_an_interrupted_run_without_a_computation_waits_for_none():
    def lines():
        raise KeyboardInterrupt
        yield

    stdin = types.SimpleNamespace(buffer=lines(), isatty=lambda: False)
    said = memoize("warm", "tests.shop.step", "--workers", "2", stdin=stdin)
    assert said.code == INTERRUPTED and said.out == "0 refreshed, 0 failed\n"
    assert "waiting" not in said.err


@pytest.mark.parametrize("workers", ["1", "2"])
def test_an_interrupted_run_says_how_far_it_came(workers):
    def lines():
        yield b"1\n"
        wait_for(lambda: shop.step.peek(1))
        raise KeyboardInterrupt

    stdin = types.SimpleNamespace(buffer=lines(), isatty=lambda: False)
    said = memoize("warm", "tests.shop.step", "--workers", workers, stdin=stdin)
    assert said.code == INTERRUPTED and said.error == "interrupted"
    assert said.out == "1 refreshed, 0 failed\n"


def test_an_interrupted_run_says_for_what_it_waits(monkeypatch):
    begun, told = threading.Event(), threading.Event()

    class Stream(io.StringIO):
        def write(self, text):
            if "waiting" in text:
                told.set()
            return super().write(text)

    def lines():
        yield from (b"1\n", b"2\n")
        begun.wait(PATIENCE)
        raise KeyboardInterrupt

    def compute(number):
        begun.set()
        told.wait(PATIENCE)

    monkeypatch.setattr(shop, "ran", compute)
    stdin = types.SimpleNamespace(buffer=lines(), isatty=lambda: False)
    words = ["tests.shop.step", "--workers", "2"]
    said = memoize("warm", *words, stdin=stdin, err=Stream())
    assert said.code == INTERRUPTED
    (number,) = re.findall(r"^interrupted: waiting for ([12]) computations?", said.err)
    assert said.out == f"{number} refreshed, 0 failed\n"


def test_workers_have_the_language_of_the_command_and_close_what_they_open(monkeypatch):
    closed, seen = [], []
    at_end = [*process._at_thread_end, lambda: closed.append(1)]
    monkeypatch.setattr(process, "_at_thread_end", at_end)
    monkeypatch.setattr(shop, "ran", lambda *_: seen.append(translation.get_language()))
    with translation.override("de"):
        memoize("warm", "tests.shop.step", "--workers", "2", stdin="1\n2\n")
    assert seen == ["de", "de"] and closed == [1, 1]


def test_what_a_worker_cannot_bear_ends_the_run(monkeypatch):
    def leave(*call):
        raise SystemExit(7)

    monkeypatch.setattr(shop, "ran", leave)
    lines = "\n".join(map(str, range(100)))
    with pytest.raises(SystemExit):
        memoize("warm", "tests.shop.step", "--workers", "2", stdin=lines)


# --- going on ------------------------------------------------------------------------


def numbers(*given: int) -> str:
    return "".join(f"{n}\n" for n in given)


def interrupt(process: subprocess.Popen[str]) -> int:
    """Press Ctrl-C, and again if Python has dropped that, as it does in a finalizer.
    Return the exit code."""
    process.send_signal(signal.SIGINT)
    try:
        return process.wait(PATIENCE / 2)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
        return process.wait(PATIENCE / 2)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_ctrl_c_stops_it(project, started, workers):
    process = started("warm", "tests.shop.step", "--workers", workers)
    process.stdin.write(numbers(1, 2, 3))
    process.stdin.flush()
    wait_for(lambda: len(project.lines(project.runs)) == 3)
    assert interrupt(process) == INTERRUPTED
    # The last one may have been interrupted before it was counted.
    assert process.stdout.read() in (
        "3 refreshed, 0 failed\n",
        "2 refreshed, 0 failed\n",
    )
    said = process.stderr.read()
    assert said.endswith("interrupted\n") and "Traceback" not in said


@pytest.mark.parametrize(
    "name, workers, ended", [("patient", 1, 0), ("patient", 2, 2), ("apatient", 1, 1)]
)
def test_ctrl_c_in_the_middle_of_a_computation(project, started, name, workers, ended):
    """One worker is interrupted, and its lease freed; several end what they are at, and
    so does an async function."""
    words = ["warm", f"tests.shop.{name}", "--workers", str(workers)]
    process = started(*words)
    process.stdin.write(numbers(*range(10)))
    process.stdin.flush()
    wait_for(lambda: len(project.lines(project.runs)) == workers)
    process.send_signal(signal.SIGINT)
    if ended:
        # From here on nothing is begun, however soon a worker is free.
        plural = "s" if ended > 1 else ""
        waiting = f"interrupted: waiting for {ended} computation{plural} under way\n"
        assert process.stderr.readline() == waiting
        project.go.touch()
    assert process.wait(PATIENCE) == INTERRUPTED
    assert process.stdout.read().startswith(f"{ended} refreshed")
    assert process.stderr.read() == "CommandError: interrupted\n"
    project.go.touch()
    began = time.monotonic()
    again = project.run(*words, stdin=numbers(*range(10)))
    assert again.out.startswith("10 refreshed") and again.code == 0
    assert time.monotonic() - began < PATIENCE


def test_an_interrupted_part_is_no_traceback(monkeypatch):
    def interrupt(*call):
        raise KeyboardInterrupt

    monkeypatch.setattr(shop, "ran", interrupt)
    said = memoize("refresh", "tests.shop.step", "1", "--json")
    assert said.code == INTERRUPTED and said.json is None and said.err == ""
    said = memoize("refresh", "tests.shop.rate", '"NOK"')
    assert said.code == INTERRUPTED and "waiting for 1 computation" in said.err


@pytest.mark.parametrize("name", ["patient", "apatient"])
def test_ctrl_c_in_a_refresh(project, started, name):
    process = started("refresh", f"tests.shop.{name}", "1", "--json")
    wait_for(lambda: project.lines(project.runs))
    process.send_signal(signal.SIGINT)
    if name == "apatient":
        waiting = "interrupted: waiting for 1 computation under way\n"
        assert process.stderr.readline() == waiting
        project.go.touch()
    assert process.wait(PATIENCE) == INTERRUPTED
    assert json.loads(process.stdout.read())["error"] == "interrupted"
    assert process.stderr.read() == "CommandError: interrupted\n"


# --- progress ------------------------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_is_on_terminals_only(monkeypatch):
    """By tqdm, and without it by a line for each tenth."""
    pytest.importorskip("tqdm")
    words = ["warm", "tests.shop.price", "--total", "3"]
    stdin = '1\n"broken"\n2\n'
    assert memoize(*words, stdin=stdin).err == "line 2: LookupError\n"
    said = memoize(*words, stdin=stdin, err=Terminal())
    assert "3.00/3.00" in said.err and "failed=1" in said.err
    assert "line 2: LookupError\n" in said.err
    monkeypatch.setitem(sys.modules, "tqdm", None)
    said = memoize(*words, stdin=stdin, err=Terminal())
    assert said.out == "2 refreshed, 1 failed\n"
    steps = ["1 of 3, 0 failed", "line 2: LookupError"]
    steps += ["2 of 3, 1 failed", "3 of 3, 1 failed"]
    assert said.err.splitlines() == steps
    lines = numbers(*range(2000))
    said = memoize("warm", "tests.shop.step", stdin=lines, err=Terminal())
    assert said.err.splitlines() == ["1,000, 0 failed", "2,000, 0 failed"]
    words = ["warm", "tests.shop.step", "--total", "2000"]
    said = memoize(*words, stdin=lines, err=Terminal())
    assert len(said.err.splitlines()) == 10


def test_a_real_terminal_has_a_bar_and_a_clean_stdout(project, started):
    pytest.importorskip("tqdm")
    pty, fcntl, termios = map(pytest.importorskip, ["pty", "fcntl", "termios"])
    try:
        ours, theirs = pty.openpty()
    except OSError as none:
        pytest.skip(f"no pseudo-terminal on this machine: {none}")
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 24, 80, 0, 0))
    process = started("warm", "tests.shop.price", "--json", stderr=theirs)
    os.close(theirs)
    process.stdin.write(numbers(1, 2, 3))
    process.stdin.close()
    said = b""
    while True:
        try:
            said += os.read(ours, 1000)
        except OSError:  # it has ended
            break
    os.close(ours)
    assert process.wait(PATIENCE) == 0 and b"3.00" in said
    assert json.loads(process.stdout.read())["result"]["refreshed"] == 3


def test_who_types_the_lines_is_told_so():
    stdin = Terminal("1\n")
    said = memoize("warm", "tests.shop.step", stdin=stdin)
    assert said.err == "reading JSON lines from the keyboard; Ctrl-D ends them\n"
    assert said.out.startswith("1 refreshed")


# --- migrate-check -------------------------------------------------------------------


def test_findings_are_lines_and_an_exit_code(monkeypatch, tmp_path):
    """With a stand-in for what finds them."""
    finds: list[Finding] = []
    monkeypatch.setattr(
        listing,
        "report_on",
        lambda paths: Report([f for f in finds if f.path in paths], 1, 2),
    )
    words = ["migrate-check", str(tmp_path)]
    said = memoize(*words)
    assert said == Said(said.out, "", "", 0)
    assert said.out.startswith("Looked at 1 file with 2 memoized functions: 0 findings")
    finds.append(Finding(tmp_path, 3, 5, "M001", "means something else", "write x"))
    said = memoize(*words)
    lines = said.out.splitlines()
    assert lines[0] == f"{tmp_path}:3:5: M001 means something else; write x"
    assert "1 finding." in lines[1] and len(lines) == 2
    assert said.error == "1 call to look at" and said.code == 1
    finds *= 2
    said = memoize(*words, "--json")
    assert said.error == "2 calls to look at"
    assert said.json[0] == finds[0]._asdict() | {"path": str(tmp_path)}
    said = memoize("migrate-check", str(tmp_path / "no"))
    assert said.error == f"the file or folder {tmp_path / 'no'} does not exist"


def test_the_real_finder_fits(tmp_path):
    path = tmp_path / "code.py"
    path.write_text("x = 1\n")
    said = memoize("migrate-check", str(tmp_path))
    assert said == Said(said.out, "", "", 0) and "Nothing is memoized" in said.out
    assert memoize("migrate-check", str(tmp_path), "--json").json == []
    path.write_text(
        "from cache_memoize import cache_memoize\n"
        "@cache_memoize(100, args_rewrite=lambda *args: str(args))\n"
        "def f(x):\n"
        "    return x\n"
        "f.invalidate(1)\n"
        "f.get_cache_key(1)\n"
    )
    said = memoize("migrate-check", str(path), "--json")
    assert all(row["path"] == str(path) and row["cure"] for row in said.json or [])
    assert said.code == bool(said.json)


# --- the page ------------------------------------------------------------------------

PAGE = ROOT / "docs" / "command.rst"


def examples() -> list[tuple[str, list[str]]]:
    """(command, the lines that it prints) of all console blocks."""
    found: list[tuple[str, list[str]]] = []
    for block in blocks(PAGE):
        if block.language == "console":
            for line in block.source.splitlines():
                if line.startswith("$ "):
                    found.append((line[2:], []))
                else:
                    found[-1][1].append(line)
    return found


@pytest.mark.thorough
def test_the_examples_are_what_a_shell_says(project):
    """``...`` stands for what is different each time; stderr comes after stdout."""
    (module,) = [block for block in blocks(PAGE) if block.language == "python"]
    (project.folder / "blog").mkdir()
    (project.folder / "blog" / "related.py").write_text(module.source)
    (project.folder / "project_urls.py").write_text("urlpatterns = []")
    manage = f"{shlex.quote(sys.executable)} -m django"
    assert len(examples()) >= 20
    for command, lines in examples():
        done = subprocess.run(
            ["bash", "-c", command.replace("python manage.py", manage)],
            env=project.environment,
            cwd=project.folder,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        pattern = re.escape("\n".join([*lines, ""] if lines else []))
        said = done.stdout + done.stderr
        assert re.fullmatch(pattern.replace(r"\.\.\.", ".+"), said), (command, said)
        assert (done.returncode == 0) is ("CommandError" not in said), command


def parser_of_parts() -> dict[str, argparse.ArgumentParser]:
    parser = Command().create_parser("manage.py", "memoize")
    (parts,) = (a for a in parser._actions if isinstance(a.choices, dict))
    return parts.choices


def test_the_page_has_every_part_and_every_option():
    usages = {}
    for name, parser in parser_of_parts().items():
        words = [name]
        for action in parser._get_positional_actions():
            word = {"name": "NAME", "names": "NAME"}.get(action.dest, action.metavar)
            several = {"*": f"[{word} ...]", "+": f"{word} ...", "?": f"[{word}]"}
            words.append(several.get(action.nargs, word))
        usages[" ".join(words)] = name
    assert first_literals("command", "Parts") == list(usages)
    documented = {
        (part, literals(option)[0])
        for option, of, _ in table("command", "Options")
        for part in (usages.values() if of == "all" else literals(of))
    }
    taken = {
        (name, f"{action.option_strings[0]} {action.metavar or action.dest.upper()}")
        if action.nargs != 0
        else (name, action.option_strings[0])
        for name, parser in parser_of_parts().items()
        for action in parser._actions
        if action.option_strings and action.dest != "help"
    }
    assert documented == {
        (name, re.sub(" (TAG|DATABASE)S$", r" \1", option)) for name, option in taken
    }


def test_the_page_has_the_exit_codes_and_the_shapes(tmp_path, monkeypatch, only_shop):
    codes = [int(n) for r in table("command", "Exit codes") for n in literals(r[0])]
    assert codes == [0, 1, 1, FAILED_AT_MOST, 2, NOT_RUN, INTERRUPTED]
    documented = {
        literals(part)[0]: re.sub(r"\(.*?\)", "", shape)
        for part, shape in table("command", "JSON")
    }
    assert list(documented) == list(PARTS)
    (tmp_path / "code.py").touch()
    found = [Finding(tmp_path, 1, 2, "M", "m", "c")]
    monkeypatch.setattr(listing, "report_on", lambda paths: Report(found, 1, 1))
    call = ["tests.shop.price", "1"]
    for part, words in {
        "list": [],
        "stats": [],
        "tags": ["tests.shop.step"],
        "doctor": ["--fail-level", "CRITICAL"],
        "key": call,
        "refresh": call,
        "peek": call,
        "invalidate": call,
        "clear": call[:1],
        "warm": call[:1],
        "migrate-check": [str(tmp_path)],
    }.items():
        result = memoize(part, *words, "--json", stdin="").json
        rows = result if isinstance(result, list) else [result]
        shape, _, with_tags = documented[part].partition("; with tags")
        assert literals(shape) == list(rows[0]), part
        assert shape.startswith("an array of") is isinstance(result, list)
        if with_tags:
            tags = memoize("invalidate", "--tag", "x", "--alias", "default", "--json")
            assert literals(with_tags) == list(tags.json)


# --- the whole -----------------------------------------------------------------------


def test_nothing_in_the_command_evaluates_and_every_file_fits_in_the_head():
    import ast

    for path in (ROOT / "cache_memoize" / "management").rglob("*.py"):
        assert path.read_text().count("\n") <= 300, path
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Name):
                assert node.id not in {"eval", "exec", "compile"}, path


def test_it_ends_as_commands_do(project):
    said = project.run("key", "tests.shop.price")
    assert said.err.startswith("CommandError: tests.shop.price: TypeError")
    assert said.code == 1 and "Traceback" not in said.err
    said = project.run()
    assert said.code != 0 and "PART" in said.err
    assert threading.active_count() >= 1
