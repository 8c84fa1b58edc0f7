"""A pytest plugin: the fixture ``memoize_cache`` and the marker ``memoize``.

It is no part of the package ``cache_memoize``: pytest imports it in every run where the
library is installed, and the package imports Django's models, which takes 0.2 seconds
and comes before a tool that measures coverage has begun. Here nothing but pytest is
imported until a test asks for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from cache_memoize.testing import World

WORDS = ("disabled", "in_memory")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        'memoize(word): "disabled": functions run as if they were not memoized; '
        '"in_memory": every cache is an empty memory of its own.',
    )


@pytest.fixture(autouse=True)
def _memoize_marker(request: pytest.FixtureRequest) -> Iterator[World | None]:
    """Does what the nearest marker says; gives the world if that is in memory."""
    marker = request.node.get_closest_marker("memoize")
    if marker is None:
        yield None
        return
    if len(marker.args) != 1 or marker.kwargs or marker.args[0] not in WORDS:
        named = [f"{name}={value!r}" for name, value in marker.kwargs.items()]
        given = ", ".join([*map(repr, marker.args), *named])
        cures = " or ".join(f'@pytest.mark.memoize("{word}")' for word in WORDS)
        pytest.fail(
            f"{request.node.nodeid}: @pytest.mark.memoize({given}) says nothing that "
            f"is known; write {cures}",
            pytrace=False,
        )
    from cache_memoize import testing

    if marker.args[0] == "disabled":
        with testing.disabled():
            yield None
    else:
        with testing.in_memory() as world:
            yield world


@pytest.fixture
def memoize_cache(_memoize_marker: World | None) -> Iterator[World]:
    """Every cache is an empty memory of its own for this test; a World.

    ``memoize_cache.assert_hits(1, f)`` counts hits, ``memoize_cache.clear()`` forgets
    everything.
    """
    if _memoize_marker is not None:
        yield _memoize_marker
        return
    from cache_memoize import testing

    with testing.in_memory() as world:
        yield world
