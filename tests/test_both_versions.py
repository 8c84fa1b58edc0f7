"""Code for both versions runs with 0.2.1 and with this one, and means the same."""

from __future__ import annotations

import subprocess
import sys
import types
import warnings

import pytest
from django.core.cache import caches
from django.db import transaction

import cache_memoize
from tests.models import Post
from tests.peers import established
from tests.test_docs import DOCS, blocks, run

PAGE = DOCS / "migration.rst"
BLOCKS = [block for block in blocks(PAGE) if block.caption == "for both versions"]


@pytest.fixture(scope="session")
def older(tmp_path_factory):
    """0.2.1, from the package index."""
    folder = tmp_path_factory.mktemp("older")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
    pip += ["--retries", "0", "--target", folder, "django-cache-memoize==0.2.1"]
    try:
        subprocess.run(pip, check=True, capture_output=True, timeout=120)
    except (OSError, subprocess.SubprocessError):
        pytest.skip("0.2.1 cannot be installed: the package index is not reachable")
    return established(folder)


@pytest.fixture(params=["0.2.1", "this"])
def library(request, monkeypatch):
    if request.param == "this":
        return cache_memoize
    older = request.getfixturevalue("older")
    monkeypatch.setitem(sys.modules, "cache_memoize", older)
    return older


def test_code_for_both_versions_means_the_same_in_both(library, monkeypatch):
    assert len(BLOCKS) == 2
    module = types.ModuleType("market")
    monkeypatch.setitem(sys.modules, "market", module)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for block in BLOCKS:
                run(PAGE, block, module.__dict__)
        assert module.cache_memoize is library.cache_memoize
    finally:
        caches["default"].clear()


@pytest.mark.django_db(transaction=True)
def test_hooks_at_the_commit_are_right_in_both(library):
    post = Post.objects.create(title="old")

    @library.cache_memoize(60, prefix="titled", cache_alias="locmem")
    def titled(pk):
        return Post.objects.get(pk=pk).title

    assert titled(post.pk) == "old"
    with transaction.atomic():
        Post.objects.update(title="new")
        transaction.on_commit(lambda: titled.invalidate(post.pk))
    assert titled(post.pk) == "new"
    caches["locmem"].clear()
