"""A pytest plugin: the fixture ``memoize_cache`` and the marker ``memoize``.

It is no part of the package ``cache_memoize``: pytest imports it in every run where the
library is installed, and the package imports Django's models, which takes 0.2 seconds
and comes before a tool that measures coverage has begun. Here nothing but pytest is
imported until a test asks for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

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


def _word(node: Any) -> str | None:
    """What the nearest marker says."""
    marker = node.get_closest_marker("memoize")
    if marker is None:
        return None
    if len(marker.args) == 1 and not marker.kwargs and marker.args[0] in WORDS:
        return str(marker.args[0])
    named = [f"{name}={value!r}" for name, value in marker.kwargs.items()]
    given = ", ".join([*map(repr, marker.args), *named])
    cures = " or ".join(f'@pytest.mark.memoize("{word}")' for word in WORDS)
    pytest.fail(
        f"{node.nodeid}: @pytest.mark.memoize({given}) says nothing that is known; "
        f"write {cures}",
        pytrace=False,
    )


@pytest.fixture(autouse=True)
def _memoize_marker(request: pytest.FixtureRequest) -> Iterator[World | None]:
    """Does what the marker says; gives the world if that is in memory."""
    word = _word(request.node)
    if word is None:
        yield None
        return
    from cache_memoize import testing

    if word == "disabled":
        with testing.disabled():
            yield None
    else:
        with testing.in_memory() as world:
            yield world


@pytest.fixture
def memoize_cache(
    request: pytest.FixtureRequest, _memoize_marker: World | None
) -> Iterator[World]:
    """Every cache is an empty memory of its own for this test; a World.

    ``memoize_cache.assert_hits(1, f)`` counts hits, ``memoize_cache.clear()`` forgets
    everything.
    """
    if _memoize_marker is not None:
        yield _memoize_marker
        return
    from cache_memoize import testing

    with testing.in_memory() as world:
        if _word(request.node) == "disabled":
            # For a project that has this fixture around every test.
            with testing.disabled():
                yield world
        else:
            yield world
