"""A pytest plugin: the fixture ``memoize_cache`` and the marker ``memoize``.

It is no part of the package ``cache_memoize``: pytest imports it in every run where the
library is installed, and the package imports Django's models, which takes 0.2 seconds
and comes before a tool that measures coverage has begun. Here nothing but pytest is
imported until a test asks for it.
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
def _memoize_world(request: pytest.FixtureRequest) -> Iterator[World | None]:
    """Does what the marker says, and gives the world if the test has one.

    It enters the world for ``memoize_cache`` too. Changed settings have to be changed
    back in reverse order, and this comes before every fixture that changes some.
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
    """Every cache is an empty memory of its own for this test; a World.

    ``memoize_cache.assert_hits(1, f)`` counts hits, ``memoize_cache.clear()`` forgets
    everything.
    """
    if _memoize_world is None:
        pytest.fail(
            'memoize_cache was asked for by getfixturevalue("memoize_cache"), when '
            "settings may have been changed already; name it as an argument, or write "
            "`with cache_memoize.testing.in_memory():`",
            pytrace=False,
        )
    return _memoize_world
