"""The pictures of the options over time: each is what happens."""

from __future__ import annotations

import runpy
from types import SimpleNamespace
from xml.etree import ElementTree

import pytest

from cache_memoize.cache.store import run
from cache_memoize.protocol import threads
from cache_memoize.protocol.claim import claim
from tests.conftest import World
from tests.test_clocks import call_of
from tests.test_docs import DOCS

FIGURE = runpy.run_path(str(DOCS / "figures" / "times.py"))
PICTURES = FIGURE["PICTURES"]


@pytest.mark.leaves_lease
@pytest.mark.backends(["locmem"])
@pytest.mark.parametrize("name", PICTURES)
def test_what_the_picture_shows_happens(name, backend, monkeypatch):
    world = World(backend, "sync")
    picture, clock = PICTURES[name], world.clock
    for module in ("base", "locmem"):  # so that leases end by the same clock
        now = SimpleNamespace(time=clock.time)
        monkeypatch.setattr(f"django.core.cache.backends.{module}.time", now)
    runs = [each for each in picture.runs if each[2] is not None]
    ended, later = [], []

    def function():
        start, end, value = runs[len(ended)]
        assert clock.offset == pytest.approx(start, abs=0.6)
        clock.offset = end
        ended.append(value)
        return value

    f = world.memoize(**picture.options)(function)
    monkeypatch.setattr(threads, "submit", lambda job: later.append(job) or True)
    clock.luck = 0.75
    for start, end, value in picture.calls:
        if "hold" in name and start > 10 > clock.offset:
            clock.offset = 10.0
            f.invalidate()
        clock.offset = max(clock.offset, start)
        if value is None:
            run(claim(call_of(f)))  # and the process dies
            continue
        assert f() == value
        assert clock.offset == pytest.approx(max(end, start), abs=0.6)
        for job in later:
            job()
        later.clear()
    assert len(ended) == len(runs)


@pytest.mark.parametrize("name", PICTURES)
def test_the_picture_is_the_one_of_the_script(name):
    drawn = FIGURE["draw"](name)
    assert (DOCS / "figures" / f"{name}.svg").read_text("utf-8") == drawn
    ElementTree.fromstring(drawn)
    assert "prefers-color-scheme: dark" in drawn and drawn.count("http") == 1
    pages = "".join(path.read_text("utf-8") for path in DOCS.glob("*.rst"))
    assert pages.count(f".. image:: figures/{name}.svg\n    :alt: ") == 1
