"""What fails: a cache that does so on command, and the functions that use it."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from django.core.cache import caches
from django.core.cache.backends.locmem import LocMemCache

from cache_memoize import CacheInfo, cache_memoize, invalidate_tags
from cache_memoize.cache.backends import LocalMemory
from cache_memoize.protocol import threads
from tests.conftest import Caller, FakeClock, close_connections, in_thread, plan_of

# --- a cache -------------------------------------------------------------------------


class ChaosClock(FakeClock):
    """Not behind the real clock, by which ``invalidate_tags()`` goes."""

    base = 0.0

    def monotonic(self) -> float:
        return self.base + self.offset

    def catch_up(self) -> None:
        self.base = time.monotonic()


class Chaos:
    """What happens to the n-th command from now on, and perhaps to all after it."""

    def __init__(self) -> None:
        self.off()
        self.clock = ChaosClock()

    def off(self) -> None:
        self.how, self.at, self.many, self.count = "", 0, 1, 0
        self.meanwhile: Callable[[], object] = lambda: None
        self.late: list[Callable[[], object]] = []

    def on(self, how: str, at: int, many: int) -> None:
        self.off()
        self.how, self.at, self.many = how, at, many

    @property
    def happened(self) -> bool:
        return self.count > self.at

    def command(self, nothing: Any, action: Callable[..., Any], *new: Any) -> Any:
        """``action``, with trouble if it is its turn. ``new`` is what it writes, and
        ``nothing`` what a client answers that hides its errors."""
        number, self.count = self.count, self.count + 1
        if not self.how or not self.at <= number < self.at + self.many:
            return action(*new)
        trouble: Any = getattr(self, f"_{self.how}")
        return trouble(nothing, action, *new)

    def _refuse(self, nothing: Any, action: Any, *new: Any) -> Any:
        """The server is down."""
        raise ConnectionError("refused")

    def _lose(self, nothing: Any, action: Any, *new: Any) -> Any:
        """It is done, but the answer gets lost."""
        action(*new)
        raise ConnectionError("lost")

    def _hang(self, nothing: Any, action: Any, *new: Any) -> Any:
        """It is done, but much later."""
        self.late.append(lambda: action(*new))
        raise TimeoutError("late")

    def _slow(self, nothing: Any, action: Any, *new: Any) -> Any:
        self.clock.tick(2)
        return action(*new)

    def _swallow(self, nothing: Any, action: Any, *new: Any) -> Any:
        """Like ``refuse``, and the client hides it."""
        return nothing

    def _deafen(self, nothing: Any, action: Any, *new: Any) -> Any:
        """Like ``lose``, and the client hides it."""
        action(*new)
        return nothing

    def _truncate(self, nothing: Any, action: Any, *new: Any) -> Any:
        return _cut(action(*map(_cut, new)))

    def _replace(self, nothing: Any, action: Any, *new: Any) -> Any:
        """Something foreign is written and read."""
        found = action(*("foreign" for _ in new))
        if isinstance(found, dict):
            return dict.fromkeys(found, "foreign")
        return "foreign" if isinstance(found, bytes) else found

    def _overtake(self, nothing: Any, action: Any, *new: Any) -> Any:
        """Something else happens between the command and its answer."""
        found = action(*new)
        meanwhile, self.meanwhile = self.meanwhile, lambda: None
        in_thread(meanwhile)
        return found


def _cut(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _cut(each) for key, each in value.items()}
    return value[: len(value) // 2] if isinstance(value, bytes) else value


CHAOS = Chaos()


class ChaosCache(LocMemCache):
    """Local memory behind CHAOS, and behind its clock. To the library it is a backend
    that it does not know."""

    def get(self, key: Any, default: Any = None, version: Any = None) -> Any:
        return CHAOS.command(default, lambda: super(ChaosCache, self).get(key))

    def get_many(self, keys: Any, version: Any = None) -> Any:
        def read() -> dict[str, Any]:
            found = {key: LocMemCache.get(self, key) for key in keys}
            return {key: value for key, value in found.items() if value is not None}

        return CHAOS.command({}, read)

    def add(self, key: Any, value: Any, timeout: Any = 300, version: Any = None) -> Any:
        parent = super().add
        return CHAOS.command(False, lambda new: parent(key, new, timeout), value)

    def set(self, key: Any, value: Any, timeout: Any = 300, version: Any = None) -> Any:
        parent = super().set
        return CHAOS.command(None, lambda new: parent(key, new, timeout), value)

    def touch(self, key: Any, timeout: Any = 300, version: Any = None) -> Any:
        parent = super().touch
        return CHAOS.command(False, lambda: parent(key, timeout))

    def delete(self, key: Any, version: Any = None) -> Any:
        parent = super().delete
        return CHAOS.command(False, lambda: parent(key))

    def get_backend_timeout(self, timeout: Any = 300) -> Any:
        until = super().get_backend_timeout(timeout)
        return until and until + CHAOS.clock.offset

    def _has_expired(self, key: Any) -> bool:
        until = self._expire_info.get(key, -1)
        return until is not None and until <= time.time() + CHAOS.clock.offset


class AtomicChaosCache(ChaosCache):
    """One that replaces atomically, once ``backend_of`` knows :class:`AtomicChaos`."""


class AtomicChaos(LocalMemory):
    @property
    def swallows(self) -> bool:
        return CHAOS.how in ("swallow", "deafen")

    def swap(self, cache: Any, key: str, old: bytes, new: bytes, seconds: Any) -> bool:
        def act(new: bytes) -> bool:
            return LocalMemory.swap(self, cache, key, old, new, seconds)

        return bool(CHAOS.command(False, act, new))


def disconnect(cache: Any) -> None:
    """Django's Redis cache leaves that to the garbage collector, which may come to the
    socket first, and warns."""
    for connections in getattr(getattr(cache, "_cache", None), "_pools", {}).values():
        connections.disconnect()


def close() -> None:
    """Close all that this thread opened."""
    close_connections()
    for cache in caches.all(initialized_only=True):
        disconnect(cache)


# --- who suffers ----------------------------------------------------------------------


class Subject:
    """A memoized function, and the truth that it reads: a number that only grows."""

    def __init__(self, alias: str, shape: str, **more: Any) -> None:
        options = dict(SHAPES[shape])
        self.is_async = options.pop("is_async", False)
        self.shape = shape
        self.now = 0
        #: What was published before an ``invalidate()`` that returned: no read that
        #: begins later may give less.
        self.floor = 0
        self.payload = b""
        self.pause = 0.0005
        self.trouble: Exception | None = None
        self.during: Callable[[], object] = lambda: None

        def function() -> tuple[str, int, bytes]:
            found = self.now
            time.sleep(self.pause)
            self.during()
            if self.trouble:
                raise self.trouble
            return shape, found, self.payload

        async def afunction() -> tuple[str, int, bytes]:
            return function()

        timeout = options.pop("timeout", 60)
        memoize = cache_memoize(
            timeout, prefix=shape, cache_alias=alias, lease=1, **options, **more
        )
        self.f: Any = Caller(memoize(afunction)) if self.is_async else memoize(function)
        self._alias = alias

    @property
    def info(self) -> CacheInfo:
        found: CacheInfo = self.f.cache_info()
        return found

    @property
    def key(self) -> Any:
        """The key of a call; that of a tagged one has its ``tags``."""
        return plan_of(self.f).key_of((), {})

    def publish(self) -> None:
        self.now += 1
        published = self.now
        if self.shape.endswith("tagged"):
            invalidate_tags("item", cache_alias=self._alias)
        elif self.shape == "tagged as a whole":
            self.f.invalidate_all()
        else:
            self.f.invalidate()
        self.floor = published

    def begin_anew(self) -> None:
        self.now = self.floor = 0

    def is_wrong(self, got: Any, oldest: int) -> bool:
        return bool(got[0] != self.shape or got[1] < oldest)


SHAPES: dict[str, dict[str, Any]] = {
    "plain": {},
    "tagged": {"tags": lambda: ["item", "other"]},
    "tagged as a whole": {"tags": ()},
    "stale": {"timeout": 0.1, "stale": 60},
    "async": {"is_async": True},
    "async, stale and tagged": {
        "is_async": True,
        "timeout": 0.1,
        "stale": 60,
        "tags": "item",
    },
}


class Crowd:
    """Eight threads that call functions while things happen: seven read, of which one
    refreshes now and then; one publishes and invalidates, and notes what raised."""

    def __init__(self, subjects: list[Subject], size: int = 8) -> None:
        self.subjects = subjects
        self.raised: list[BaseException] = []
        self.wrong: list[tuple[Any, ...]] = []
        #: The invalidations that raised.
        self.lost: list[BaseException] = []
        self.writes = True
        self._caches: list[Any] = []
        self._end = threading.Event()
        self._rounds = [0] * size
        self._threads = [
            threading.Thread(target=self._member, args=(n,)) for n in range(size)
        ]

    def __enter__(self) -> Crowd:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join()
        threads.join()  # its threads use our caches
        for cache in self._caches:
            disconnect(cache)

    def _member(self, number: int) -> None:
        try:
            while not self._end.wait(0.002):
                for subject in self.subjects:
                    if number == 0:
                        self._write(subject)
                    elif number < 3 or not subject.is_async:  # each call makes a loop
                        self._read(number, subject)
                self._rounds[number] += 1
                if number == 0:
                    self._let_read()
        except BaseException as error:  # of this class itself
            self.raised.append(error)
        finally:
            self._caches += caches.all(initialized_only=True)
            close_connections()

    def _read(self, number: int, subject: Subject) -> None:
        oldest = subject.floor
        refreshes = number == 1 and self._rounds[number] % 4 == 0
        try:
            got = subject.f.refresh() if refreshes else subject.f()
        except BaseException as error:
            self.raised.append(error)
            return
        if subject.is_wrong(got, oldest):
            self.wrong.append((subject.shape, refreshes, oldest, got[:2]))

    def _write(self, subject: Subject) -> None:
        if self._end.wait(0.01) or not self.writes:
            return
        try:
            subject.publish()
        except Exception as error:
            self.lost.append(error)

    def _let_read(self) -> None:
        """Readers who are slower than the writer would never meet what was cached."""
        have_gone = self._after(2)
        while not have_gone() and not self._end.wait(0.002):
            pass

    def _after(self, rounds: int) -> Callable[[], bool]:
        """Whether every reader has gone so many rounds more."""
        goals = [done + rounds for done in self._rounds[1:]]
        return lambda: all(map(int.__ge__, self._rounds[1:], goals))

    def rounds(self, number: int) -> None:
        """Until every reader has gone so many rounds more."""
        self.until(self._after(number), "goes on")

    def losses(self, number: int) -> None:
        """Until so many more invalidations raised."""
        goal = len(self.lost) + number
        self.until(lambda: len(self.lost) >= goal, "is said to be lost")

    def hits(self, number: int = 10) -> None:
        """Until so many more calls of each function were answered from the cache."""
        goals = [
            subject.info.hits + (number // 3 if subject.is_async else number)
            for subject in self.subjects
        ]

        def reached() -> bool:
            return all(
                subject.info.hits >= goal
                for subject, goal in zip(self.subjects, goals, strict=True)
            )

        self.until(reached, "is cached")

    def until(self, condition: Callable[[], object], what: str) -> None:
        for _ in range(12000):  # a minute; it takes less than a second
            if condition() or self.raised or self.wrong:
                return
            time.sleep(0.005)
        infos = [(subject.shape, subject.info) for subject in self.subjects]
        raise AssertionError(f"nothing {what}: {infos}, {self.lost[-3:]}")

    def check(self) -> None:
        """Nobody was harmed."""
        assert not self.raised, self.raised[:3]
        assert not self.wrong, self.wrong[:3]

    def errors(self) -> int:
        return sum(subject.info.errors for subject in self.subjects)


@contextlib.contextmanager
def crowd(subjects: list[Subject]) -> Iterator[Crowd]:
    """A crowd that has warmed up; afterwards nobody must have been harmed, caching
    must go on by itself, and what is cached must be true."""
    with Crowd(subjects) as members:
        members.hits()
        members.rounds(2)
        members.check()
        yield members
        members.check()
        members.writes = False  # or the next invalidation would hide one that got lost
        members.hits()
        members.writes = True
        members.rounds(2)
        members.hits()
    members.check()
    for subject in subjects:
        oldest = subject.floor
        assert not subject.is_wrong(subject.f(), oldest)
    assert threads.join(), "before the settings change"
