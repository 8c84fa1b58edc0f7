"""Registrations of invalidate_on that only some processes see."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from django.apps import apps
from django.core.checks.registry import CheckRegistry

from cache_memoize import cache_memoize, checks, model_signals
from tests.models import Post
from tests.test_dependencies import (
    registrations_end_with_the_test,  # noqa: F401  # a fixture
)

ROOT = Path(__file__).resolve().parent.parent


SOURCE = """
from cache_memoize import cache_memoize
from tests.models import Post, Tag

@cache_memoize(60, tags=())
def late(pk):
    return pk

class Shop:
    @cache_memoize(60)
    def method(self, pk):
        return pk

late.invalidate_on(Post)
late.invalidate_on(Tag, lambda tag: (tag.pk,))
Shop.method.invalidate_on(Post, lambda post: (Shop(), post.pk))
"""


@pytest.fixture
def load(tmp_path, monkeypatch):
    """Import a module of this source."""
    monkeypatch.syspath_prepend(tmp_path)

    def load():
        (tmp_path / "late_module.py").write_text(SOURCE)
        return importlib.import_module("late_module")

    yield load
    sys.modules.pop("late_module", None)


def test_one_warning_per_function_with_the_cure_at_the_line_that_registers(load):
    with pytest.warns(RuntimeWarning, match="never invalidate") as seen:
        module = load()
    texts = [str(each.message) for each in seen]
    assert [text.partition("()")[0] for text in texts] == [
        "late_module.late.invalidate_on",
        "late_module.Shop.method.invalidate_on",
    ]
    assert all("ready() of an AppConfig, or in models.py" in text for text in texts)
    assert {each.filename for each in seen} == {module.__file__}
    found = [m for m in checks.check_functions(None) if m.id == "cache_memoize.W010"]
    assert [each.msg.split("()")[0] for each in found] == [
        "late_module.late.invalidate_on",
        "late_module.Shop.method.invalidate_on",
    ]
    importlib.reload(module)  # no other warning


def test_while_the_apps_are_being_loaded_none_is_late(load, monkeypatch):
    monkeypatch.setattr(apps, "ready", False)  # as it is in AppConfig.ready()
    load()
    assert model_signals.late_functions() == []


def test_while_the_checks_run_the_check_says_it_alone(load, recwarn):
    registry = CheckRegistry()
    registry.register(lambda app_configs, **kwargs: [load()][1:])
    assert registry.run_checks() == []
    assert model_signals.late_functions() == [
        "late_module.late",
        "late_module.Shop.method",
    ]
    assert not recwarn.list


@pytest.mark.parametrize("name", ["<stdin>", "<console>", "<ipython-input-1>"])
def test_functions_that_are_typed_or_nested_or_of_a_script_are_not_late(name):
    exec(compile(SOURCE, name, "exec"), {"__name__": "typed"})
    exec(compile(SOURCE, "script.py", "exec"), {"__name__": "__main__"})

    @cache_memoize(60, prefix="late.nested")
    def nested(pk): ...

    nested.invalidate_on(Post, lambda post: (post.pk,))
    assert model_signals.late_functions() == []


# --- a project -----------------------------------------------------------------------

SETTINGS = """
from pathlib import Path

SECRET_KEY = "x"
USE_TZ = True
DEBUG = True
INSTALLED_APPS = ["cache_memoize", "shop"]
ROOT_URLCONF = "urls"
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
"""
MODELS = """
from django.db import models

class Item(models.Model):
    name = models.CharField(max_length=9)
"""
PRICES = """
from cache_memoize import cache_memoize
from .models import Item

@cache_memoize(60)
def price(pk):
    return pk

price.invalidate_on(Item, lambda item: (item.pk,))
"""
URLS = """
import shop.prices
urlpatterns = []
"""
APPS = """
from django.apps import AppConfig

class ShopConfig(AppConfig):
    name = "shop"

    def ready(self):
        from . import prices
"""


@pytest.fixture
def manage(tmp_path):
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop/__init__.py").touch()
    (tmp_path / "shop/models.py").write_text(MODELS)
    (tmp_path / "shop/prices.py").write_text(PRICES)
    (tmp_path / "config.py").write_text(SETTINGS)
    (tmp_path / "urls.py").write_text(URLS)

    def manage(*words):
        done = subprocess.run(
            [sys.executable, "-m", "django", *words],
            cwd=tmp_path,
            env=os.environ
            | {
                "PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}",
                "DJANGO_SETTINGS_MODULE": "config",
            },
            capture_output=True,
            text=True,
            timeout=60,
        )
        return done.stdout + done.stderr

    manage.folder = tmp_path
    return manage


@pytest.mark.parametrize("words", [["check"], ["check", "--tag", "caches"]])
def test_a_fresh_check_finds_what_only_the_urlconf_imports(manage, words):
    said = manage(*words)
    assert said.count("never invalidate") == 1, "the check says it, and no warning"
    assert said.count("(cache_memoize.W010) shop.prices.price.invalidate_on()") == 1
    (manage.folder / "shop/apps.py").write_text(APPS)
    said = manage(*words)
    assert "W010" not in said and "never invalidate" not in said


@pytest.mark.parametrize("how", ["models", "ready"])
def test_a_shell_invalidates_once_the_module_is_imported_at_the_start(manage, how):
    command = "from django.db.models.signals import post_save as s; from shop.models "
    command += "import Item; print(s.has_listeners(Item))"
    assert "False" in manage("shell", "-c", command)
    if how == "ready":
        (manage.folder / "shop/apps.py").write_text(APPS)
    else:
        (manage.folder / "shop/models.py").write_text(f"{MODELS}\nfrom . import prices")
    said = manage("shell", "-c", command)
    assert "True" in said and "Warning" not in said


def test_a_urlconf_that_cannot_be_imported_is_not_our_error(settings):
    settings.ROOT_URLCONF = "no.such.module"
    assert all("no.such" not in each.msg for each in checks.check_functions(None))
