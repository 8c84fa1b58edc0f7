"""The pytest plugin, in runs of pytest of its own: with and without pytest-django."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests import test_docs

ROOT = Path(__file__).resolve().parent.parent

SETTINGS = """
SECRET_KEY = "x"
INSTALLED_APPS = []
DATABASES = {{"default": {{
    "ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:",
}}}}
CACHES = {{"default": {{
    "BACKEND": "django.core.cache.backends.{backend}", "LOCATION": "{location}",
    "TIMEOUT": 300,
}}}}
"""
APP = """
from cache_memoize import cache_memoize
from pathlib import Path

runs = []

@cache_memoize(60)
def double(x):
    runs.append(x)
    return 2 * x
"""
TESTS = """
import unittest

import app
import pytest
from django.core.cache import caches
from cache_memoize.testing import assert_hits

@pytest.fixture
def warm():
    app.double(7)

@pytest.mark.parametrize("number", [1, 2])
def test_fixture(number, memoize_cache, warm):
    with memoize_cache.assert_hits(2, app.double) as seen:
        app.double(1), app.double(1), app.double(7)
    assert seen.misses == 1
    memoize_cache.clear()
    assert app.double.peek(1) is None

@pytest.mark.memoize("disabled")
class TestDisabled:
    def test_it(self, warm):
        with assert_hits(0) as seen:
            app.double(7), app.double(7)
        assert seen.misses == 2

    @pytest.mark.memoize("in_memory")
    def test_the_nearest_marker_counts(self, warm):
        with assert_hits(1):
            app.double(7)

    def test_the_marker_counts_more_than_the_fixture(self, memoize_cache):
        with memoize_cache.assert_hits(0) as seen:
            app.double(7), app.double(7)
        caches["default"].set("only", "here")

    def test_but_the_fixture_counts(self, memoize_cache):
        assert caches["default"].get("only") is None

@pytest.mark.memoize("in_memory")
def test_the_marker_and_the_fixture_are_one_world(warm, memoize_cache):
    with assert_hits(1):
        app.double(7)

@pytest.mark.memoize("in_memory")
class OldStyle(unittest.TestCase):
    def setUp(self):
        app.double(7)

    def test_it(self):
        with assert_hits(1) as seen:
            app.double(7), app.double(1)
        assert seen.misses == 1

    test_again = test_it

def test_outside():
    assert app.double.peek(7) is None and app.double.peek(1) is None
"""
SET_UP = """
import django
django.setup()
"""


@pytest.fixture
def run(pytester, monkeypatch):
    """A project, and pytest in a process of its own."""

    def run(*arguments, django="pytest_django", backend="locmem.LocMemCache", at=""):
        plugins = ["-p", "pytest_cache_memoize"]
        # Which plugins there are must not depend on what else is installed here.
        monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
        monkeypatch.setenv("PYTHONPATH", str(ROOT))
        monkeypatch.delenv("DJANGO_SETTINGS_MODULE", raising=False)
        if django:
            settings = SETTINGS.format(backend=backend, location=at)
            pytester.makepyfile(project_settings=settings, app=APP)
            monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "project_settings")
        if django == "pytest_django":
            plugins += ["-p", "pytest_django.plugin"]
        elif django:
            pytester.makeconftest(SET_UP)
        return pytester.runpytest_subprocess(
            *plugins, "--strict-markers", "-p", "no:cacheprovider", *arguments
        )

    return run


@pytest.mark.parametrize("django", ["pytest_django", "by hand"])
def test_fixture_and_marker(run, pytester, django):
    pytester.makepyfile(TESTS)
    run(django=django).assert_outcomes(passed=10)


def test_with_the_settings_fixture_in_either_order(run, pytester):
    """What is changed last has to be changed back first."""
    pytester.makepyfile(
        """
        import app
        import pytest
        from django.conf import settings as real

        CACHES = real.CACHES

        def test_before(settings, memoize_cache):
            settings.CACHE_MEMOIZE = {"ENABLED": False}
            with memoize_cache.assert_hits(0):
                app.double(1), app.double(1)

        def test_after(memoize_cache, settings):
            test_before(settings, memoize_cache)

        @pytest.fixture
        def changed(settings):
            settings.CACHE_MEMOIZE = {"ON_ERROR": "raise"}

        @pytest.mark.usefixtures("changed", "memoize_cache")
        def test_by_another_fixture():
            assert real.CACHE_MEMOIZE == {"ON_ERROR": "raise"}

        def test_nothing_is_left():
            assert real.CACHES is CACHES
            assert not hasattr(real, "CACHE_MEMOIZE")

        def test_dynamically(request):
            request.getfixturevalue("memoize_cache")
        """
    )
    result = run()
    result.assert_outcomes(passed=4, failed=1)
    result.stdout.fnmatch_lines(["*getfixturevalue*comes too late*"])


def test_a_marker_that_is_wrong_names_the_cure(run, pytester):
    wrong = ['"disable"', "", '"disabled", "in_memory"', 'word="disabled"']
    wrong.append("['disabled']")
    tests = (
        f"@pytest.mark.memoize({given})\ndef test_{number}():\n    pass\n"
        for number, given in enumerate(wrong)
    )
    pytester.makepyfile("\n\n".join(["import pytest", *tests]))
    result = run()
    result.assert_outcomes(errors=len(wrong))
    for number, given in enumerate(wrong):
        shown = given.replace('"', "'").replace("[", "[[]")
        result.stdout.fnmatch_lines(
            [
                f"*::test_{number}: @pytest.mark.memoize({shown}) is not supported; "
                'write @pytest.mark.memoize("disabled") or '
                '@pytest.mark.memoize("in_memory")'
            ]
        )


def test_a_failed_count_is_shown_in_the_test(run, pytester):
    pytester.makepyfile(
        """
        import app

        def test_it(memoize_cache):
            with memoize_cache.assert_hits(2, app.double):
                app.double(1)
        """
    )
    result = run()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "E*2 hits of app.double were expected, and there were 0 hits and 1 misses",
            "E*miss app.double",
            "test_*.py:4: AssertionError",
        ]
    )


def test_the_marker_is_listed(run):
    run("--markers").stdout.fnmatch_lines(["@pytest.mark.memoize(word): *"])


def test_a_run_without_django_is_not_touched(run, pytester):
    """Django is installed, its settings are not: nothing of it may even be imported."""
    pytester.makepyfile(
        """
        import sys

        def test_it():
            loaded = {name.partition(".")[0] for name in sys.modules}
            assert not loaded & {"django", "cache_memoize", "asgiref"}
        """
    )
    run(django=None).assert_outcomes(passed=1)


def test_without_settings_the_fixture_says_so(run, pytester):
    pytester.makepyfile("def test_it(memoize_cache): pass")
    result = run(django=None)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["E*DJANGO_SETTINGS_MODULE*"])


def test_it_can_be_named_twice(run, pytester):
    pytester.makepyfile("def test_it(memoize_cache): pass")
    pytester.makeconftest('pytest_plugins = ["pytest_cache_memoize"]')
    run().assert_outcomes(passed=1)


def test_workers_of_xdist_share_a_server_and_no_entries(run, pytester, servers):
    """And the control: without a world of their own they see each other's."""
    pytest.importorskip("xdist")
    server = servers("valkey")
    pytester.makepyfile(
        """
        import json, os, pathlib, time
        import app
        import pytest

        def meet(name):
            '''Wait for the other worker: both are in the middle of their test.'''
            folder = pathlib.Path(__file__).parent
            me = os.environ["PYTEST_XDIST_WORKER"]
            (folder / f"{name}.{me}").touch()
            deadline = time.monotonic() + 30
            while len(list(folder.glob(f"{name}.gw*"))) < 2:
                assert time.monotonic() < deadline
                time.sleep(0.01)

        @pytest.mark.parametrize("one", [1, 2])
        def test_in_memory(one, memoize_cache):
            meet("begin")
            assert app.double.peek(5) is None
            app.double(5)
            meet("stored")
            assert len(app.runs) == 1
            app.double.invalidate(5)
            meet("invalidated")
            app.double.refresh(5)
            meet("refreshed")

        @pytest.mark.parametrize("one", [1, 2])
        def test_shared(one):
            meet("control")
            app.double(6)
            meet("control stored")
            pathlib.Path(__file__).with_name(f"runs.{one}").write_text(
                json.dumps(app.runs)
            )
        """
    )
    at = f"redis://127.0.0.1:{server.port}/7"
    for name in ("test_in_memory", "test_shared"):
        result = run(
            "-p", "xdist", "-n2", "-k", name, backend="redis.RedisCache", at=at
        )
        result.assert_outcomes(passed=2)
    ran = [json.loads(path.read_text()) for path in pytester.path.glob("runs.*")]
    assert sorted(ran) == [[], [6]]


def test_the_entry_point_is_named_as_its_module():
    """Or pytest would refuse a project that names it in ``pytest_plugins`` too."""
    setup = (ROOT / "setup.py").read_text("utf-8")
    assert '"pytest11": ["pytest_cache_memoize = pytest_cache_memoize"]' in setup
    assert 'py_modules=["pytest_cache_memoize"]' in setup


def test_the_module_imports_pytest_alone():
    code = (
        "import sys, pytest; before = set(sys.modules); import pytest_cache_memoize;"
        "print(sorted(set(sys.modules) - before))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True
    )
    assert done.stdout.strip() == "['pytest_cache_memoize']", done.stderr


def test_the_tests_in_the_documentation_pass(run, pytester):
    """The page as one file, run by pytest; its examples run in test_docs.py."""
    pytest.importorskip("freezegun")
    pytest.importorskip("time_machine")
    page = ROOT / "docs" / "testing.rst"
    source = [b.source for b in test_docs.python(page) if not test_docs.is_settings(b)]
    raising = [s for s in source if "#!" in s]
    pytester.makepyfile("\n\n".join(s for s in source if s not in raising))
    result = run()
    assert len(raising) == 1
    result.assert_outcomes(passed=8)
