from tests.conftest import FakeClock

CLOCK = FakeClock()
