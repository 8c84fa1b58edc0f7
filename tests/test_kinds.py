"""No kind of input makes this library silently wrong; the table of the docs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import kinds, silent
from tests.contenders import CONTENDERS, Ours
from tests.test_docs import table

ROWS = {row[0]: row[1:] for row in table("silent-table", "Silently wrong answers")}


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("name", kinds.KINDS)
def test_no_input_of_a_kind_is_silently_wrong(name):
    counts, wrong = kinds.counts_of(Ours(0, Path(), memory=True), name)
    assert not wrong and counts[kinds.RIGHT]
    # Not all of them: the table was made with other processes, and one Python.
    tried, ours = ROWS[name][:2]
    assert ours.startswith("0")
    assert 0.4 < sum(counts.values()) / int(tried.replace(",", "")) <= 1.01


def test_the_table_has_every_kind_and_every_package():
    assert list(ROWS) == [*kinds.KINDS, "all"]
    assert all(len(row) == 1 + len(silent.TITLES) for row in ROWS.values())
    assert {silent.OURS, *silent.TITLES} - {silent.BEFORE} <= set(CONTENDERS)


def test_a_cell_says_what_was_wrong_and_what_was_refused():
    assert silent.cell_of({"right": 5, "wrong": 1_000}) == "1,000"
    assert silent.cell_of({"right": 5, "refused": 2, "–": 1}) == "0, 2 refused"
    assert silent.cell_of({"–": 1}) == "–"
