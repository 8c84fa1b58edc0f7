"""The guides match the code: the codes, the comparison, the drawing."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from xml.etree import ElementTree

from cache_memoize.migrate import CODES
from tests import comparison, trials
from tests.contenders import CONTENDERS
from tests.test_docs import DOCS, first_literals, literals, table

TESTS = "".join(p.read_text("utf-8") for p in Path(__file__).parent.glob("test_*.py"))


def test_the_codes_of_the_migration_check():
    assert first_literals("migrate_check", "Codes") == list(CODES)


def head(title):
    """Return the first row of a table of the comparison."""
    text = (DOCS / "comparison-table.rst").read_text("utf-8")
    cells = text.partition(f".. list-table:: {title}\n")[2].partition("   * - ")[2]
    return re.findall(r"^(?:     -)? ?(.*)$", cells.partition("   * - ")[0], re.M)


TABLES = comparison.tables_of({t: c.needs_django for t, c in CONTENDERS.items()})


def cells():
    """Return {feature: {package: cell}}."""
    found = {}
    for name, titles in TABLES.items():
        for row in table("comparison-table", name):
            by = dict(zip(titles, row[1:], strict=True))
            found[row[0]] = found.get(row[0], {}) | by
    return found


def test_the_comparison_has_every_package_and_every_row():
    for name, titles in TABLES.items():
        named = [cell for cell in head(name) if cell]
        for cell, title in zip(named, titles, strict=True):
            assert re.fullmatch(rf"{re.escape(title)}(?: |\.)[\d.]+", cell), cell
    features = [*trials.TRIALS, *comparison.SOURCES, *comparison.FILES]
    assert list(cells()) == [*features, comparison.HIT_IN_MEMORY]
    for feature, by in cells().items():
        assert list(by) and set(by) == set(CONTENDERS)
        for title, cell in by.items():
            assert re.match(r"yes|no|–|by |all or none|\d", cell), (feature, title)


def test_each_feature_of_this_library_has_a_test():
    tests = {
        feature: literals(cell)[0]
        for feature, cell in table("comparison-table", "Tests of this library")
    }
    for name in tests.values():
        assert f"def {name}(" in TESTS, name
    ours = {feature: by["this library"] for feature, by in cells().items()}
    for feature in (*trials.TRIALS, *comparison.SOURCES):
        assert ours[feature] == ("yes" if feature in tests else "no"), feature


def test_each_cell_based_on_source_has_a_line():
    lines = {
        (feature, title): literals(cell)[0]
        for feature, title, cell in table("comparison-table", "Lines")
    }
    for where in lines.values():
        assert re.fullmatch(r"[\w.]+/\w+\.py:\d+", where), where
    for feature in comparison.SOURCES:
        for title, cell in cells()[feature].items():
            if title != "this library":
                assert (cell != "no") is ((feature, title) in lines), (feature, title)


def test_the_versions_are_those_to_install():
    """In the command on the page, and in the tables."""
    page = (DOCS / "comparison.rst").read_text("utf-8")
    wanted = dict(re.findall(r"([\w.-]+)==([\d.]+)", page))
    said = " ".join(cell for name in TABLES for cell in head(name))
    assert len(wanted) == 8
    for version in wanted.values():
        assert f" {version}" in said


def drawing():
    path = DOCS / "figures" / "protocol.py"
    spec = importlib.util.spec_from_file_location("drawing_of_the_protocol", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_drawing_is_the_one_of_the_script_and_has_colours_for_the_dark():
    drawn = drawing().draw()
    assert (DOCS / "figures" / "protocol.svg").read_text("utf-8") == drawn
    ElementTree.fromstring(drawn)
    assert "prefers-color-scheme: dark" in drawn and "http://www.w3.org" in drawn
    assert drawn.count("http") == 1


def test_the_page_describes_each_step_of_the_drawing():
    text = (DOCS / "protocol.rst").read_text("utf-8")
    for _, _, what in drawing().STEPS:
        for command in re.findall(r"\b(get|add|swap|delete)\b:", what):
            assert f"``{command}``" in text
