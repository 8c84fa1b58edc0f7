from tests.conftest import FakeClock

CLOCK = FakeClock()
#: Providers that are down.
DOWN = set()


def ask(provider, seconds):
    """Wait for an answer of another service."""
    CLOCK.tick(seconds)
    if provider in DOWN:
        raise ConnectionError(provider)
