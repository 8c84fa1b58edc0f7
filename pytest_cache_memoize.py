"""A pytest plugin: the fixture ``memoize_cache`` and the marker ``memoize``.

It is not part of the package ``cache_memoize``: pytest imports it in every run where
the library is installed, and the package imports Django's models, which takes 0.2
seconds and comes before a tool that measures coverage has begun. This module imports
only pytest until a test asks for more.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
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
    """Return the word of the nearest marker."""
    marker = node.get_closest_marker("memoize")
    if marker is None:
        return None
    if len(marker.args) == 1 and not marker.kwargs and marker.args[0] in WORDS:
        return str(marker.args[0])
    named = [f"{name}={value!r}" for name, value in marker.kwargs.items()]
    given = ", ".join([*map(repr, marker.args), *named])
    cures = " or ".join(f'@pytest.mark.memoize("{word}")' for word in WORDS)
    pytest.fail(
        f"{node.nodeid}: @pytest.mark.memoize({given}) is not supported; write {cures}",
        pytrace=False,
    )


@pytest.fixture(autouse=True)
def _memoize_world(request: pytest.FixtureRequest) -> Iterator[World | None]:
    """Apply the marker, and enter the world for ``memoize_cache`` too.

    Settings have to be restored in reverse order, and this fixture comes before every
    fixture that changes settings.
    """
    word = _word(request.node)
    wanted = word == "in_memory" or "memoize_cache" in request.fixturenames
    if word is None and not wanted:
        yield None
        return
    from cache_memoize import testing

    with ExitStack() as stack:
        world = stack.enter_context(testing.in_memory()) if wanted else None
        if word == "disabled":
            stack.enter_context(testing.disabled())
        yield world


@pytest.fixture
def memoize_cache(_memoize_world: World | None) -> World:
    """A World: for this test, each cache is an empty one in memory.

    ``memoize_cache.assert_hits(1, f)`` counts hits, ``memoize_cache.clear()`` empties
    the caches.
    """
    if _memoize_world is None:
        pytest.fail(
            'getfixturevalue("memoize_cache") comes too late: settings may have been '
            "changed already; name memoize_cache as an argument, or write "
            "`with cache_memoize.testing.in_memory():`",
            pytrace=False,
        )
    return _memoize_world
