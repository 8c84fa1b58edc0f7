"""No kind of input makes this library silently wrong; the table of the docs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import kinds
from tests.contenders import Ours


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("name", kinds.KINDS)
def test_no_input_of_a_kind_is_silently_wrong(name):
    counts, wrong = kinds.counts_of(Ours(0, Path(), memory=True), name)
    assert not wrong and counts[kinds.RIGHT]
