"""The guides match the code: the codes, the comparison, the drawing."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from xml.etree import ElementTree

from prometheus_client import CollectorRegistry

from cache_memoize import prometheus
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


# --- the dashboard -------------------------------------------------------------------

DASHBOARD = json.loads((DOCS / "grafana.json").read_text("utf-8"))


def exported():
    """Return {sample: its labels} of all metrics."""
    registry = CollectorRegistry()
    exporter = prometheus.Exporter(registry)
    found = {}
    for name in ("calls", "computations", "breaker"):
        metric = getattr(exporter, name)
        metric.labels(*metric._labelnames)
    for counter in exporter.counters.values():
        counter.labels("function", "alias")
    for metric in registry.collect():
        for each in metric.samples:
            found.setdefault(each.name, set()).update(each.labels)
    return found


def queries():
    variables = [each["query"] for each in DASHBOARD["templating"]["list"]]
    targets = [target for panel in DASHBOARD["panels"] for target in panel["targets"]]
    return [*variables, *(target["expr"] for target in targets)]


def test_the_dashboard_asks_for_metrics_and_labels_that_exist():
    metrics, asked = exported(), set()
    for query in queries():
        assert query.count("(") == query.count(")"), query
        names = re.findall(r"cache_memoize_\w+", query)
        for name, labels in re.findall(r"(cache_memoize_\w+)\{(.+?)\}", query):
            assert {*re.findall(r"(\w+)[!=]", labels)} <= metrics[name], query
        for labels in re.findall(r" by \((.+?)\)", query):
            assert {*labels.split(", ")} <= metrics[names[0]], query
        asked |= {*names}
    times = "cache_memoize_computation_seconds"
    unasked = {name for name in metrics if name.endswith("_created")}
    unasked |= {f"{times}_count"}
    assert asked == metrics.keys() - unasked


def test_the_legends_of_the_dashboard_are_labels_of_its_queries():
    for panel in DASHBOARD["panels"]:
        for target in panel["targets"]:
            kept = re.search(r" by \((.+?)\)", target["expr"])
            named = {*re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])}
            assert named == ({*kept[1].split(", ")} if kept else set()) - {"le"}


def test_the_panels_of_the_dashboard_fill_its_rows():
    panels, filled = DASHBOARD["panels"], {}
    assert [panel["id"] for panel in panels] == [*range(1, len(panels) + 1)]
    for panel in panels:
        assert panel["type"] in ("stat", "timeseries", "state-timeline")
        assert panel["title"] and panel["description"] and panel["targets"]
        place = panel["gridPos"]
        filled[place["y"]] = filled.get(place["y"], 0) + place["w"]
        for each in (panel, *panel["targets"]):
            assert each["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    assert {*filled.values()} == {24}
