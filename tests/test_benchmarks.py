"""The parts of benchmarks/ that measure nothing: what is said of the figures."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks import __main__ as command
from benchmarks import measure, report, stampede, start, view
from benchmarks.measure import Ratio, ratio

ROOT = Path(__file__).parents[1]


def test_three_ratios():
    assert ratio([2.0, 4.0, 9.0], [1.0, 4.0, 3.0]) == Ratio(2.0, 4 / 3, 2.0)
    assert str(Ratio(1, 1.234, 0.5)) == "1.00 / 1.23 / 0.50"


def test_every_candidate_is_timed_in_every_round():
    calls = []

    def candidate(name):
        return lambda number: calls.append(name) or float(number)

    batches = {name: candidate(name) for name in "abc"}
    seconds = measure.interleave(batches, rounds=5, number=2)
    assert seconds == {name: [1.0] * 5 for name in "abc"}
    rounds = ["".join(calls[n : n + 3]) for n in range(0, len(calls), 3)]
    assert len(rounds) == 6  # one to warm up
    assert all(sorted(one) == list("abc") for one in rounds)
    assert len(set(rounds)) > 1, "always in the same order"


@pytest.mark.parametrize(
    ("found", "most", "least", "said"),
    [
        ((1.1, 1.2, 1.3), 1.3, 0, "reached"),
        ((1.1, 1.2, 1.304), 1.3, 0, "borderline"),
        ((1.4, 1.5, 1.31), 1.3, 0, "missed"),
        ((16, 15, 15), None, 15, "reached"),
        ((16, 14, 15), None, 15, "borderline"),
        ((14,), None, 15, "missed"),
    ],
)
def test_a_goal_is_reached_in_all_three_ways_or_not(found, most, least, said):
    assert report.verdict(found, most, least) == said


def test_the_parts_of_a_hit_can_be_measured():
    command = [sys.executable, "-m", "benchmarks.parts", "--quick"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert "a hit, a row as the argument" in done.stdout, done.stderr


def test_a_table():
    rows = [["what", "times"], ["a longer name", "1.0"], ["b", ""]]
    assert report.simple_table(rows).splitlines() == [
        "=============  =====",
        "what           times",
        "=============  =====",
        "a longer name  1.0",
        "b",
        "=============  =====",
    ]


def picture() -> str:
    bars = [report.Bar("this library", 1.25, True), report.Bar("<b> & co", 0.0)]
    groups = [report.Group("first", bars, 1.3), report.Group("second", bars[:1])]
    return report.svg("Cost & use", groups)


def test_a_picture_is_xml_without_scripts_or_addresses():
    root = ElementTree.fromstring(picture())
    names = {re.sub("{.*}", "", each.tag) for each in root.iter()}
    assert names == {"svg", "title", "rect", "text", "path"}
    said = [each.text for each in root.iter("{http://www.w3.org/2000/svg}text")]
    assert "Cost & use" in said and "<b> & co" in said and "1.25" in said
    assert "first (dashed: the goal, 1.3)" in said and "second" in said
    assert picture().count("http") == 1  # the name space
    assert picture() == picture()
    background = root.find("{http://www.w3.org/2000/svg}rect")
    assert background.attrib == {"width": "100%", "height": "100%", "fill": "#fff"}


def test_a_report_is_printed_and_written(tmp_path, capsys):
    files = [str(tmp_path / name) for name in ("x.json", "x.svg")]
    line = ["--json", files[0], "--svg", files[1], "--only", "Valkey"]
    made = report.Report("A title", report.parser("A title").parse_args(line))
    assert made.wanted("Valkey, a style") and not made.wanted("file", "a style")
    made.table("A table", [["a"], ["b"]])
    made.note("A note.")
    made.without("a peer", "not installed", "here")
    made.without("a peer", "not installed", "there")
    assert made.goal("a goal", Ratio(1.0, 1.0, 1.0), most=1) == "reached"
    made.group("a group", [report.Bar("bar", 1.0)])
    made.raw.append({"seconds": [1.23456789e-5]})
    made.finish()
    said = capsys.readouterr().out
    assert "A note." in said and "- a peer: not installed (here; there)" in said
    found = json.loads((tmp_path / "x.json").read_text())
    assert found["raw"] == [{"seconds": [1.235e-05]}]
    assert found["environment"]["Python"] == sys.version.split()[0]
    assert found["tables"][0]["notes"] == ["A note."]
    (goal,) = found["goals"]
    assert (goal["goal"], goal["verdict"]) == ("<= 1", "reached")
    ElementTree.parse(files[1])


def test_the_calls_at_expiry():
    """Those that overlap with the first computation of the new value."""
    computations = [10.0, 12.0, 12.01]
    calls = [[9.99, 0.21], [10.1, 0.1], [11.0, 0.001], [11.99, 0.21], [12.1, 0.002]]
    calls.append([12.5, 0.003])
    said = [{"computations": computations, "calls": calls}]
    found = stampede.seen(said, hits=False)
    assert found == (1, [2], [0.1, 0.21], [0.002, 0.21])
    assert stampede.seen(said, hits=True).at_expiry == [0.001, 0.002, 0.003, 0.21]
    assert stampede.milliseconds([0.001, 0.002]) == ["2.0", "2.0", "2.0"]
    assert stampede.milliseconds([]) == ["–"] * 3


def test_what_wrk_says():
    said = "  Latency  1.00ms\nRequests/sec:   1841.25\nTransfer/sec:  1.2MB\n"
    assert view.requests_per_second(said) == 1841.25
    with pytest.raises(AssertionError):
        view.requests_per_second("unable to connect")


def test_what_importtime_says():
    said = "import time: self [us] | cumulative | imported package\n"
    said += "import time:       200 |        200 |   a.b\n"
    said += "import time:      1500 |       1700 | a\n"
    assert start.longest(said) == [("a", 1.5), ("a.b", 0.2)]


def test_the_command_knows_all_benchmarks(tmp_path):
    scripts = {
        path.stem
        for path in (ROOT / "benchmarks").glob("*.py")
        if "\ndef main()" in path.read_text("utf-8") and path.stem != "__main__"
    }
    others = {"soak", "actors", "writes"}  # they time nothing
    assert {*command.NAMES, *others} == scripts
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert "--quick" in done.stdout, done.stderr


@pytest.mark.thorough
def test_a_quick_run(tmp_path):
    """Of what needs neither a server nor a peer."""
    line = [sys.executable, "-m", "benchmarks.hit", "--quick", "--only", "file"]
    line += ["--json", str(tmp_path / "hit.json"), "--svg", str(tmp_path / "hit.svg")]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "hit.json").read_text())
    assert found["tables"][0]["title"] == "file, positional arguments"
    ElementTree.parse(tmp_path / "hit.svg")
