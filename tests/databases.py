"""The databases that a test of transactions runs on, each in turn."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conftest import ALL_DATABASES
from tests.needs import NEEDS, is_full, need

#: MariaDB reads from a snapshot, as it does by its own default.
MARIADB = {"mariadb"} if is_full() else set()
EVERYWHERE = [*ALL_DATABASES, *MARIADB]
#: The same, as the parameters of a fixture.
EACH = [*ALL_DATABASES, *(pytest.param(m, marks=pytest.mark.thorough) for m in MARIADB)]


def prepared(request: Any) -> str:
    """Return the alias of a database that the test may write to."""
    if request.param in NEEDS:
        need(request.param)
    request.getfixturevalue("transactional_db")
    return str(request.param)
