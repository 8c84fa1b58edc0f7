"""Links of the documentation, files that it names, the path of a call."""

from __future__ import annotations

import configparser
import io
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from cache_memoize import cache_memoize
from tests.needs import need
from tests.test_architecture import MAY_IMPORT, PACKAGE
from tests.test_docs import DOCS, PAGES, ROOT, literals, table

FOLDERS = "benchmarks|cache_memoize|docs|example|tests"


# --- files ---------------------------------------------------------------------------


def missing_files(path: Path) -> set[str]:
    """Return the missing files that a page links to, or names with their folder."""
    text = path.read_text("utf-8")
    linked = re.findall(r"`[^`<>]+<([^>`]+)>`_", text)
    named = re.findall(rf"``((?:{FOLDERS})/[\w./-]*\w/?)``", text)
    targets = [(path.parent, urlsplit(link)) for link in linked]
    targets += [(ROOT, urlsplit(name)) for name in named]
    return {
        to.path
        for folder, to in targets
        if not to.scheme and to.path and not (folder / to.path).exists()
    }


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_files_that_are_named_exist(path):
    assert missing_files(path) == set()


def test_a_file_that_does_not_exist_is_noticed(tmp_path):
    """As a control."""
    page = tmp_path / "page.rst"
    page.write_text(
        "`a <b.rst>`_, `c <page.rst>`_, ``tests/no.py``, ``tests/races.py``"
    )
    assert missing_files(page) == {"b.rst", "tests/no.py"}


# --- links ---------------------------------------------------------------------------

SITE = "https://django-cache-memoize.readthedocs.io/en/stable/"


def test_the_links_of_the_readme_work_where_the_package_is_published():
    """Each link is a full URL of an existing page."""
    text = (ROOT / "README.rst").read_text("utf-8")
    assert re.findall(r"`[^`<>]+<(?!https://)[^>`]+>`_", text) == []
    links = re.findall(r"^\.\. _[^:\n]+:\s+(\S+)$", text, re.M)
    pages = [link.removeprefix(SITE) for link in links if link.startswith(SITE)]
    assert len(pages) > 5
    for page in pages:
        assert not page or (DOCS / page).with_suffix(".rst").exists(), page


class Page(HTMLParser):
    """The anchors and the links of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: set[str] = set()
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.anchors |= {given[name] for name in ("id", "name") if given.get(name)}
        if tag == "a" and given.get("href"):
            self.links.add(given["href"])
        if tag == "img":
            self.links.add(given["src"])


def dead_links(folder: Path) -> set[str]:
    pages = {path.resolve(): Page(path) for path in folder.rglob("*.html")}
    dead = set()
    for path, page in pages.items():
        for link in page.links:
            to = urlsplit(link)
            if to.scheme or to.netloc:
                continue
            target = (path.parent / unquote(to.path)).resolve() if to.path else path
            anchors = pages[target].anchors if target in pages else set()
            if not target.exists() or (to.fragment and to.fragment not in anchors):
                dead.add(f"{path.name}: {link}")
    return dead


@pytest.fixture(scope="module")
def html(tmp_path_factory):
    """The folder of the built documentation."""
    pytest.importorskip("sphinx")
    folder = tmp_path_factory.mktemp("docs")
    # With Sphinx' own theme: it comes with Sphinx. Warnings are errors in tox -e docs.
    command = "-m sphinx -q -b html -D html_theme=basic -d".split()
    subprocess.run(
        [sys.executable, *command, folder / "trees", DOCS, folder / "html"],
        check=True,
        timeout=120,
    )
    return folder / "html"


@pytest.mark.thorough
def test_no_link_inside_of_the_documentation_is_dead(html):
    assert len(list(html.glob("*.html"))) > 10
    assert dead_links(html) == set()


#: What people type, and the page that the search has to show first.
SEARCHES = {
    "invalidate cache on save": "invalidation",
    "clear cache for one function": "invalidation",
    "django cache stampede": "expiry",
    "dogpile": "expiry",
    "stale while revalidate": "expiry",
    "cache none result": "expiry",
    "cache exception": "expiry",
    "cache per user": "recipes",
    "cache queryset": "recipes",
    "cache template fragment": "recipes",
    "cache drf view": "recipes",
    "async cache": "async",
    "redis cluster cache": "caches",
    "cache warm up": "bulk",
    "cache key too long": "cache-keys",
    "pickle error": "failures",
    "test without cache": "testing",
    "lru_cache django": "why_not_lru_cache",
    "multi tenant cache key": "settings",
    "why cache miss": "explain",
}


@pytest.mark.thorough
def test_the_search_finds_the_page(html):
    """With Sphinx' own script, in node."""
    need("node")
    script = Path(__file__).with_name("search.js")
    done = subprocess.run(
        ["node", script, html, *SEARCHES],
        check=True,
        capture_output=True,
        timeout=60,
    )
    shown = [found[0][0].partition("#")[0] for found in json.loads(done.stdout)]
    assert dict(zip(SEARCHES, shown, strict=True)) == SEARCHES


def test_a_dead_link_is_noticed(tmp_path):
    """As a control."""
    (tmp_path / "a.html").write_text('<p id="x"><a href="b.html#y"><a href="#x">')
    (tmp_path / "b.html").write_text(
        '<a href="a.html#z"><a href="c.html"><a href="a.html">'
    )
    dead = {"a.html: b.html#y", "b.html: a.html#z", "b.html: c.html"}
    assert dead_links(tmp_path) == dead


# --- architecture and contributing ---------------------------------------------------


def path_of(call):
    """Return (file, function) of each function of the package that a call runs."""
    way = []

    def note(frame, event, arg):
        path = Path(frame.f_code.co_filename)
        if event == "call" and path.is_relative_to(PACKAGE):
            file = path.relative_to(PACKAGE).as_posix()
            way.append((file, frame.f_code.co_name))

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        call()
    finally:
        sys.setprofile(before)
    return way


def test_a_call_takes_the_documented_path():
    @cache_memoize(60, prefix="path")
    def double(number):
        way.append("computed")
        return number * 2

    way: list[object] = []
    double.invalidate(0)  # the settings are read
    miss = path_of(lambda: double(1))
    hit = path_of(lambda: double(1))
    invalidation = path_of(lambda: double.invalidate(1))
    assert way == ["computed"]
    steps = {}
    for title in (
        "A hit",
        "A miss",
        "A miss, after the computation",
        "An invalidation",
    ):
        rows = table("architecture", title)
        steps[title] = [(literals(row[0])[0], literals(row[1])[0]) for row in rows]
    for described, went in [
        (steps["A hit"], hit),
        (steps["A miss"] + steps["A miss, after the computation"], miss),
        (steps["An invalidation"], invalidation),
    ]:
        rest = iter(went)
        for step in described:
            assert step in rest, f"{step} is not passed, or not then"
    assert hit == steps["A hit"]  # and nothing else


def test_the_parts_are_in_the_order_of_their_imports():
    rows = table("architecture", "Parts")
    parts = [literals(row[0])[0].removesuffix("/").removesuffix(".py") for row in rows]
    for number, part in enumerate(parts):
        assert not {*MAY_IMPORT[part].split()} & {*parts[number:]}, part
    for row, part in zip(rows, parts, strict=True):
        first = literals(row[2])[0]
        assert not first.endswith(".py") or (PACKAGE / part / first).exists(), first


def test_every_environment_of_tox_is_explained():
    tox = configparser.ConfigParser(interpolation=None)
    tox.read_file(io.StringIO((ROOT / "tox.ini").read_text("utf-8")))
    named = {name.partition(":")[2] for name in tox.sections()} - {""}
    full = set(re.findall(r"[\w-]+", tox["tox"]["labels"].partition("=")[2]))
    text = (ROOT / "CONTRIBUTING.rst").read_text("utf-8")
    rows = re.findall(r"^    \* - (``[\w-]+``(?:, ``[\w-]+``)*)$", text, re.M)
    assert set(re.findall(r"[\w-]+", " ".join(rows))) == named | full
