"""The processes that hold copies of entries, and how a writer waits for them.

The promise of ``local="process"``: when an invalidation, a refresh or a commit has
returned, no process serves an older value from its memory. The scheme is that of Chubby
(Burrows, OSDI 2006): a writer waits until each process that may hold a copy has said
that it has dropped it, or until the lease of that process is over.

The holders of a cache are listed in a hash on the server, by their ids, each with the
groups of entries that it may have copies of: a group is a function, or all results that
were made with its calls. Each has a thread that is subscribed to a channel of its own.
Four times in a term it renews its lease: a script lists it, and publishes the number of
the renewal on its channel. A writer replaces the entry first. Then a script publishes
the key to the holders that are listed with its group. The server executes scripts one
after the other, and a subscriber gets what they publish in the same order. So a holder
that receives the number of a renewal has received all keys from before it, and has
dropped their copies: its lease lasts for a term from the moment at which it sent that
renewal. And a writer that has waited for a term knows that the leases from before its
script are over.

No clock is compared with that of another host, not even with the server's, which may be
set: a term is measured by the one who waits for it. Who does not answer is taken off
the list by the first writer that has waited a term for it, or by a holder that has seen
it renew nothing for so long. A server that was restarted, or promoted, may have lost a
part of the list, while the leases run on. So the list is complete only when somebody
has seen it for a term in one run of the server, whose id stands in it. Until then no
holder serves copies, and each writer waits for a term.

A writer that has found no list does not look again for a second: holders serve nothing
before the list is a term old.

Push without an answer (client-side caching, as of Redis itself) and a lifetime of some
seconds are simpler, and old for a moment: with processes that are stopped, or slow
connections, for any time.
"""

from __future__ import annotations

import atexit
import json
import math
import os
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, Protocol

from ..process import end_thread, log_sometimes, logger
from .connections import opened, settings_of
from .redis import is_refused

__all__ = ["Holder", "Lease", "can_hold", "known", "may_be_held", "tell"]

#: Seconds for which a lease lasts, and after which a silent holder is not waited for.
TERM = 2.0
#: The part of a term that a holder uses: clocks do not run at exactly the same speed.
USED = 0.98
#: Seconds between two renewals.
RENEWAL = TERM / 4
#: Seconds for which a writer that has found no list does not look again.
TRUSTED = TERM / 2
#: Groups that a holder is listed with, at most; above, it is told of all.
MOST_GROUPS = 200
#: Seconds between two attempts to subscribe.
PAUSE = 0.5
#: Seconds after which the server removes what a writer has left behind.
LEFT_FOR = 10
#: Seconds that the end of a process waits for its holder to leave the list.
LAST_WORDS = 1.0

_RUN = "local run = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)') "
_RENEW = (
    # A renewal that a client gave up may arrive after later ones, with fewer groups.
    "local last = string.match(redis.call('HGET', KEYS[1], ARGV[1]) or '', '^%d+') "
    "if last and tonumber(last) >= tonumber(ARGV[2]) then return {-1, 0, '', {}} end "
    + _RUN
    + "local new = redis.call('HSET', KEYS[1], ARGV[1], ARGV[2] .. ARGV[3]) "
    "local seen = redis.call('HGET', KEYS[1], 'seen') == run and 1 or 0 "
    "local heard = redis.call('PUBLISH', ARGV[4], ARGV[2] .. ' ' .. new .. ' ' .. seen)"
    " return {heard, seen, run, redis.call('HGETALL', KEYS[1])}"
)
_TELL = (
    "if ARGV[6] == '0' and redis.call('EXISTS', KEYS[1]) == 0 then return {-1} end "
    + _RUN
    + "local seen, all, number = 0, redis.call('HGETALL', KEYS[1]), 0 "
    "for i = 1, #all, 2 do local id, value = all[i], all[i + 1] "
    "if id == 'seen' then seen = value == run and 1 or 0 "
    "elseif id ~= ARGV[1] and (string.find(value, ARGV[5], 1, true) "
    "or string.find(value, ' * ', 1, true)) then "
    # A full server takes no answers: then the writer waits for a term.
    "number = number + 1 redis.pcall('HSET', KEYS[2], id, value) "
    "redis.call('PUBLISH', ARGV[2] .. id, ARGV[3] .. ' ' .. ARGV[4]) end end "
    "if number > 0 then redis.call('EXPIRE', KEYS[2], ARGV[7]) end "
    "return {number, seen, run}"
)
_ANSWER = (
    "if redis.call('HDEL', KEYS[1], ARGV[1]) == 1 "
    "and redis.call('EXISTS', KEYS[1]) == 0 then "
    "redis.call('LPUSH', KEYS[2], 1) redis.call('EXPIRE', KEYS[2], ARGV[2]) end"
)
_SEEN = _RUN + "if run == ARGV[1] then redis.call('HSET', KEYS[1], 'seen', run) end"
_STRIKE = (
    "for i = 1, #ARGV, 2 do "
    "if redis.call('HGET', KEYS[1], ARGV[i]) == ARGV[i + 1] then "
    "redis.call('HDEL', KEYS[1], ARGV[i]) end end"
)


class Lease:
    """The right to serve copies."""

    __slots__ = ("until",)

    def __init__(self, until: float = -math.inf) -> None:
        #: In monotonic seconds.
        self.until = until


class _Copies(Protocol):
    """The copies that a holder drops."""

    def drop(self, places: Iterable[Any]) -> None: ...
    def clear(self) -> None: ...


class _List:
    """The list of the holders of one cache, on its server."""

    def __init__(self, alias: str) -> None:
        cache, backend = opened(alias)
        self.client = backend.client(cache)
        settings = settings_of(alias) or {}
        prefix, version = settings.get("KEY_PREFIX", ""), settings.get("VERSION", 1)
        #: Not by make_key(): of a KEY_FUNCTION, the result may differ for each tenant.
        #: The braces keep all keys of a cluster on one node.
        self.key = f"{prefix}:{version}:{{cache_memoize.holders}}"
        # Channels are the same in all databases of a server.
        database = self.client.connection_pool.connection_kwargs.get("db", 0)
        #: Before the id of a holder: its channel.
        self.channel = f"{self.key}@{database}:"

    def run(self, script: str, keys: list[str], *values: Any) -> Any:
        return self.client.eval(script, len(keys), *keys, *values)


def can_hold(alias: str) -> bool:
    """Return whether processes may hold copies of the entries of this cache."""
    return opened(alias)[1].tells


def _text(raw: Any) -> str:
    return raw.decode() if isinstance(raw, bytes) else str(raw)


# --- writers -------------------------------------------------------------------------


class _Known:
    """The holders of each cache, as far as this process knows them."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        #: The holder of this process, by alias.
        self.own: dict[str, Holder] = {}
        #: Aliases of caches whose list has been seen.
        self.listed: set[str] = set()
        #: When no list was found last, in monotonic seconds, by alias.
        self.unlisted: dict[str, float] = {}


known = _Known()


def may_be_held(alias: str) -> bool:
    """Return whether another process may hold copies of the entries of a cache that
    ``tells``, as far as that is known."""
    if alias in known.listed or alias in known.own:
        return True
    asked = known.unlisted.get(alias, -math.inf)
    return time.monotonic() - asked >= TRUSTED


def tell(alias: str, places: Iterable[Any], group: str = "") -> None:
    """Return when no process serves copies from before this call; wait a term at most.

    Raises the error of the server. Then another process may serve an old copy until its
    lease is over.

    :param places: what identifies the entries, and the tags, that were written.
    :param group: of all of them; empty: any holder may have copies.
    """
    asked, ident = time.monotonic(), os.urandom(8).hex()
    knows = alias in known.listed or alias in known.own
    here, me = _List(alias), known.own[alias].id if alias in known.own else ""
    waiting, done = f"{here.key}:{ident}", f"{here.key}:{ident}:done"
    try:
        number, *more = here.run(
            _TELL,
            [here.key, waiting],
            me,
            here.channel,
            ident,
            json.dumps(list(places)),
            f" {group} " if group else " ",
            int(knows),
            LEFT_FOR,
        )
    except Exception as error:
        # This user may run no script. Others may, and hold copies.
        if knows or not is_refused(error) or here.client.exists(here.key):
            raise
        number = -1
    if number < 0:
        known.unlisted[alias] = asked
        return
    known.listed.add(alias)
    end, (seen, run) = time.monotonic() + TERM, more
    if number and _is_answered(here.client, done, end) and seen:
        return
    if not seen:
        time.sleep(max(0.0, end - time.monotonic()))
        here.run(_SEEN, [here.key], _text(run))
    if number:
        silent = here.client.hgetall(waiting)
        _strike(here, {_text(each): _text(last) for each, last in silent.items()})


def _is_answered(client: Any, done: str, end: float) -> bool:
    """Wait until all holders have answered; return False if one did not."""
    longest = client.connection_pool.connection_kwargs.get("socket_timeout") or TERM
    while (left := end - time.monotonic()) > 0:
        # Shorter than the client waits for an answer of the server.
        if client.blpop([done], timeout=max(0.01, min(left, longest / 2))):
            return True
    return False


def _strike(here: _List, silent: dict[str, str]) -> None:
    """Take holders off the list that have not renewed their lease since."""
    if silent:
        here.run(_STRIKE, [here.key], *(x for pair in silent.items() for x in pair))


# --- holders -------------------------------------------------------------------------


class Holder:
    """This process, as a holder of copies of one cache: its lease, and its thread."""

    def __init__(self, alias: str, copies: _Copies) -> None:
        self.alias = alias
        self.id = os.urandom(8).hex()
        self.copies = copies
        self.lease = Lease()
        #: Why there is no lease, for people; empty while there is one.
        self.trouble = "it has only just begun"
        self._ended = threading.Event()
        self._number = 0
        #: The groups of which copies may be kept: writers know of them.
        self.groups: frozenset[str] = frozenset()
        self._wanted: frozenset[str] = frozenset()
        #: By the number of a renewal: when it was sent, in monotonic seconds, and the
        #: groups that were listed by it.
        self._sent: dict[int, tuple[float, frozenset[str]]] = {}
        #: Since when this run of the server has been seen, and its id.
        self._run: tuple[str, float] = ("", math.inf)
        #: By id: the last renewal of another holder, and when it was seen first.
        self._others: dict[str, tuple[str, float]] = {}
        known.own[alias] = self
        self._thread = threading.Thread(
            target=self._hold, name=f"cache_memoize-holder-{alias}", daemon=True
        )
        self._thread.start()
        atexit.register(self.leave)

    def may_keep(self, groups: Iterable[str]) -> bool:
        """Return whether copies of these groups may be kept; if not, the next renewal
        asks for that."""
        if self.groups.issuperset(groups):
            return True
        self._wanted = self._wanted.union(groups)
        return False

    def stop(self) -> None:
        """End the lease at once, and the thread soon."""
        self._ended.set()
        self.lease.until = -math.inf
        atexit.unregister(self.leave)

    def leave(self) -> None:
        """Leave the list, so that no writer waits for this process."""
        self.stop()

        def leave() -> None:
            with suppress(Exception):
                here = _List(self.alias)
                # It wakes the thread, which would else list itself once more.
                here.client.publish(here.channel + self.id, "0 0 0")
                self._thread.join(LAST_WORDS)
                here.client.hdel(here.key, self.id)
            end_thread()

        last = threading.Thread(target=leave, daemon=True)
        with suppress(RuntimeError):  # no thread can be started any more
            last.start()
            last.join(LAST_WORDS)

    def _hold(self) -> None:
        while not self._ended.is_set():
            try:
                self._listen()
            except Exception as error:
                self.trouble = f"{type(error).__name__}: {error}"
                log_sometimes(
                    logger.warning,
                    "cache %r: entries are not kept in the memory of this process, "
                    "because it cannot hear of invalidations: %s. The user needs the "
                    "commands SUBSCRIBE, PUBLISH, EVAL, INFO and those of hashes and "
                    "lists, and the channels *cache_memoize.holders*",
                    self.alias,
                    self.trouble,
                )
            self.lease.until = -math.inf
            self.copies.clear()
            self._ended.wait(PAUSE)
        end_thread()

    def _listen(self) -> None:
        here = _List(self.alias)
        messages = here.client.pubsub()
        try:
            messages.subscribe(here.channel + self.id)
            due = math.inf
            while not self._ended.is_set():
                now = time.monotonic()
                if now >= due:
                    self._renew(here)
                    due = now + RENEWAL
                wait = min(RENEWAL, max(0.0, due - time.monotonic()))
                message = messages.get_message(timeout=wait)
                if message is None:
                    continue
                if message["type"] == "subscribe":
                    # Also after the client has connected anew: messages were lost.
                    self.lease.until = -math.inf
                    self.copies.clear()
                    due = now
                    continue
                ident, _, rest = _text(message["data"]).partition(" ")
                if rest.startswith("["):
                    self._drop(here, ident, rest)
                else:
                    self._extend(int(ident), *map(int, rest.split()))
        finally:
            messages.close()

    def _renew(self, here: _List) -> None:
        """Send a renewal; take off the list who has renewed nothing for a term."""
        self._number += 1
        sent, groups = time.monotonic(), self._wanted
        self._sent[self._number] = sent, groups
        listed = " * " if len(groups) > MOST_GROUPS else f" {' '.join(groups)} "
        for old in [n for n in self._sent if n <= self._number - 8]:
            del self._sent[old]
        heard, seen, run, everyone = here.run(
            _RENEW,
            [here.key],
            self.id,
            self._number,
            listed,
            here.channel + self.id,
        )
        if heard < 0:  # the client has sent it twice
            return
        if not heard:
            raise ConnectionError("the subscription is lost")
        now, run = time.monotonic(), _text(run)
        if self._run[0] != run:
            self._run = run, now
        elif not seen and sent - self._run[1] >= TERM:
            here.run(_SEEN, [here.key], run)
        texts = map(_text, everyone)
        found = dict(zip(texts, texts, strict=True))
        found.pop("seen", None)
        before, self._others = self._others, {}
        for each, last in found.items():
            was, since = before.get(each, ("", now))
            self._others[each] = (last, since if was == last else now)
        _strike(
            here,
            {
                each: last
                for each, (last, since) in self._others.items()
                if each != self.id and sent - since >= TERM
            },
        )

    def _extend(self, number: int, is_new: int, seen: int) -> None:
        """Extend the lease: all that was published before this renewal is dropped."""
        if is_new:  # it was not on the list: writers did not wait for it
            self.copies.clear()
        sent, groups = self._sent.pop(number, (-math.inf, self.groups))
        if not groups.issuperset(self.groups):
            self.copies.clear()  # writers do not know any more that it has them
        elif groups != self.groups:
            self.copies.drop(())  # what was read before is not kept
        self.groups = groups
        if seen and not self._ended.is_set():
            self.lease.until, self.trouble = sent + USED * TERM, ""

    def _drop(self, here: _List, ident: str, places: str) -> None:
        self.copies.drop(json.loads(places))
        waiting = f"{here.key}:{ident}"
        here.run(_ANSWER, [waiting, f"{waiting}:done"], self.id, LEFT_FOR)
