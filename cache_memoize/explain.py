"""Why did this call miss? The state of one call, and the reason of its last miss.

The cache says what is stored now. Why that is so is found in the last entries of the
function and the last invalidations in its cache (stats/history.py), those of other
processes included where the figures of the whole site are kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import nextafter
from typing import Any, NamedTuple

from django.apps import apps

from .cache import record
from .cache.connections import UNREADABLE
from .cache.store import run
from .cache.tokens import ONLY_READ, Look, look_at
from .describe import describe_default, format_duration
from .keys.calling import fit
from .keys.tags import TaggedKey, call_tags, tag_key, tag_of_calls, tags_of
from .options import CALLED
from .planning import functions
from .protocol.call import Call
from .protocol.tables import tables_with
from .stats import sitewide
from .stats.counters import stats_of_cache
from .stats.history import MOST_SHARED, Trace, digest_of, merge

__all__ = ["Explanation", "Reason", "Traces", "explain_call", "find_reason"]

#: Parts of a key that are no parameter: a call that differs in one of them is the same
#: call for its author.
_NO_PARAMETERS = frozenset({"version", "KEY_PREFIX", "captured variables", "extra"})


class Reason(NamedTuple):
    """The reason of a miss."""

    #: expired, invalidated, evicted, not stored, other version, near miss, never
    #: stored, or unknown.
    kind: str
    text: str


@dataclass(frozen=True)
class Explanation:
    """The state of a call in the cache, and the reason of its last miss."""

    #: Module and qualified name of the function.
    function: str
    #: The cache, by its name in ``settings.CACHES``.
    alias: str
    key: str
    #: The parts of the key by name; of values that may be confidential, the type and a
    #: digest, which is the same for the same value.
    parts: dict[str, str]
    #: hit, stale, computing, blocked, failed, foreign, missing, or off.
    state: str
    #: The state in words.
    text: str
    #: The reason of the last miss; of the present one, if the call would miss.
    reason: Reason
    #: The tags, tables and functions that the entry depends on.
    depends_on: list[str]

    def __str__(self) -> str:
        parts = ", ".join(f"{name}={shown}" for name, shown in self.parts.items())
        lines = [
            f"{self.function} in the cache {self.alias!r}",
            f"  key         {self.key}",
            f"  parts       {parts or '(none)'}",
            f"  state       {self.state}: {self.text}",
            f"  last miss   {self.reason.kind}: {self.reason.text}",
        ]
        lines += [f"  depends on  {name}" for name in self.depends_on]
        return "\n".join(lines)


class Traces(NamedTuple):
    """The last entries of a function, and the last invalidations in its cache."""

    entries: Mapping[str, Trace]
    invalidations: Mapping[str, Trace]


# --- the reason ----------------------------------------------------------------------


def find_reason(
    key: str, tags: Mapping[str, str], parts: Mapping[str, str], traces: Traces, at: Any
) -> Reason:
    """Return why a call missed at a time in seconds since the epoch. Pure.

    :param tags: what the entry depends on: names by the digests of the tags.
    :param parts: digests of the parts of the key, by name.
    """
    mine = traces.entries.get(digest_of(key))
    if mine is not None and mine.at > at and mine.before:
        mine = mine._replace(at=mine.before[0], until=mine.before[1], text="")
    if mine is not None and mine.at > at:
        mine = None
    names = dict.fromkeys(mine.tags, "what it was made of") if mine else {}
    names |= {**tags, digest_of(key): "the call"}
    since = mine.at if mine else 0.0
    changes = [
        (found, name)
        for each, name in names.items()
        if (found := traces.invalidations.get(each)) and since <= found.at <= at
    ]
    if mine is None and len(traces.entries) < MOST_SHARED:
        # Perhaps it was never stored: then only an invalidation of itself is a reason.
        changes = [each for each in changes if each[1].startswith("the call")]
    first = min(changes, key=lambda each: each[0].at, default=None)
    if mine and mine.until and mine.until <= (first[0].at if first else at):
        return Reason("expired", _ago(at - mine.until))
    if mine and not mine.until and (first is None or mine.at >= first[0].at):
        return Reason("not stored", f"{mine.text} ({_ago(at - mine.at)})")
    if first is not None:
        found, name = first
        by = f", by {found.text}" if found.text else ""
        return Reason("invalidated", f"{name}, {_ago(at - found.at)}{by}")
    if mine:
        text = "by the cache, or the whole cache was cleared: its time is not over"
        return Reason("evicted", f"{text}, and no invalidation is known")
    return _nearest(parts, traces) or _never(traces)


def _nearest(parts: Mapping[str, str], traces: Traces) -> Reason | None:
    """Return the one part of the key in which a stored call differs, if that is all."""
    for trace in reversed([*traces.entries.values()]):
        names = {*parts, *trace.parts} if trace.parts and trace.until else set()
        differ = [name for name in names if parts.get(name) != trace.parts.get(name)]
        same = names.difference(differ) - _NO_PARAMETERS
        if len(differ) == 1 and (same or differ[0] in _NO_PARAMETERS):
            kind = "other version" if differ == ["version"] else "near miss"
            return Reason(kind, f"differs from a stored call only in {differ[0]!r}")
    return None


def _never(traces: Traces) -> Reason:
    if len(traces.entries) < MOST_SHARED:
        return Reason("never stored", "as far as is known")
    text = f"it is not one of the last {MOST_SHARED} calls that were stored"
    return Reason("unknown", text)


def _ago(seconds: float) -> str:
    return f"{format_duration(seconds)} earlier" if seconds > 0 else "just then"


# --- the call ------------------------------------------------------------------------


def explain_call(call: Call) -> Explanation:
    """Explain a call; it is not computed, and nothing is written.

    Raises UnkeyableArgument as the call itself would.
    """
    function, plan, now = call.function, call.plan, call.clock.time()
    texts = plan.parts_of(call.args, call.kwargs)
    state, text, at, depends = "off", call.refusal(), now, b""
    if not text:
        try:
            look = run(call.own_view(run(look_at(call.store, call.key, ONLY_READ))))
            state, text = _state_of(call, look, now)
            if run(call.is_invalidated_here()):
                state, text = "missing", "this transaction has invalidated it"
        except Exception as error:
            state, text = "off", f"the cache fails ({type(error).__name__})"
        else:
            if isinstance(look.record, record.Record):
                depends = look.record.depends
            if state in ("hit", "stale"):
                assert look.record is not None
                at = nextafter(look.record.start, 0.0)  # before it was stored
    tags = _names_of_tags(call, record.dependencies(depends)[1])
    digests = {name: digest_of(each) for name, each in texts.items()}
    by_digest = {digest_of(tag): name for tag, name in tags.items()}
    reason = find_reason(call.key, by_digest, digests, _traces(call), at)
    if state == "off":
        reason = Reason("not stored", text)
    return Explanation(
        function.path,
        plan.alias,
        str(call.key),
        _shown_parts(call, digests),
        state,
        text,
        reason,
        sorted(set(tags.values())),
    )


def _state_of(call: Call, look: Look, now: float) -> tuple[str, str]:
    found = look.record
    if found is None:
        return "missing", "nothing is stored"
    if found is UNREADABLE:
        return "foreign", "a value that this library has not written, or not signed"
    if found.kind == record.CLEARED:
        return "missing", "it was invalidated"
    if found.kind == record.BLOCK:
        return "blocked", "by a transaction that is open, or by hold="
    if found.tags != look.tags or not look.valid:
        return "missing", "there is an entry, but what it was made of has changed"
    age = format_duration(max(now - found.start, 0.0))
    if found.is_fresh(now):
        left = format_duration(found.remaining(now))
        return "hit", f"computed {age} ago, fresh for {left}"
    if found.is_fresh(now, call.plan.grace(found.kind)):
        return "stale", f"computed {age} ago; served until there is a new result"
    if found.kind in record.LEASES:
        return "computing", "a caller computes it, or has died"
    if found.kind in record.ENTRIES:
        return "missing", f"the entry, computed {age} ago, has expired"
    return "failed", "the last computation stored nothing"


def _names_of_tags(call: Call, depends: Iterable[str]) -> dict[str, str]:
    """Return the names of what the entry of a call depends on, by the keys of the
    tags."""
    function, key = call.function, call.key
    given = call.plan.options.tags
    if callable(given):
        given = fit(given, "tags", function.binder, CALLED["tags"])
        given = given(*call.args, **call.kwargs)
    found = {tag_key(tag): f"tag {tag}" for tag in tags_of(given or (), "tags=")}
    if call.plan.tag is not None:
        found[call.plan.tag] = "all calls"
    of_functions = {call_tags(each.prefix, "")[1]: each.path for each in functions()}
    known = key.all_tags if isinstance(key, TaggedKey) else ()
    for tag in [each.rpartition("\t")[2] for each in (*known, *depends)]:
        tables = tables_with([tag])
        other = of_functions.get(tag_of_calls(tag) or tag)
        if tables:
            found[tag] = f"table {tables[0]}"
        elif other == function.path:
            found[tag] = "the call in all variants"
        elif other is not None:
            found[tag] = f"a call of {other}"
    return found


def _shown_parts(call: Call, digests: Mapping[str, str]) -> dict[str, str]:
    """Return the parts of the key, without values that may be confidential."""
    shown: dict[str, str] = {}
    for name, value, _ in call.function.binder.bind(call.args, call.kwargs):
        # Of several *args, none stands for all.
        shown[name] = "<" if name in shown else describe_default(value)
    return {
        name: text
        if (text := shown.get(name, "<")) and text[0] != "<"
        else f"#{digest}"
        for name, digest in digests.items()
    }


def _traces(call: Call) -> Traces:
    """Return what this process remembers, and what all have reported."""
    path, alias = call.function.path, call.plan.alias
    entries, changes = call.stats.history.copy(), stats_of_cache(alias).history.copy()
    if apps.is_installed("cache_memoize"):
        try:
            figures = sitewide.up_to_date(alias, [path, ""])
        except Exception:  # the cache fails, or is left alone
            return Traces(entries, changes)
        entries = merge(entries, figures[path].traces)
        changes = merge(changes, figures[""].traces)
    return Traces(entries, changes)
