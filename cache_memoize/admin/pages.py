"""The tables of the pages, made of functions, caches and log entries."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from django.apps import apps
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from ..describe import (
    FIGURES,
    NOTHING,
    FunctionInfo,
    describe_dependencies,
    describe_options,
    describe_totals,
    format_count,
    format_duration,
    format_size,
)
from ..describe import list_functions as list_infos
from . import charts, overview
from .asking import Question
from .caches import CacheInfo
from .cells import Cell, Head, Table, make_numbers
from .dependencies import Dependents
from .overview import COLUMNS, SHOWN, Column, Row, Window, format_moment

#: Returns the address of one of our pages.
Address = Callable[..., str]

#: By the names of their addresses.
TABS = {
    "changelist": gettext_lazy("Functions"),
    "caches": gettext_lazy("Caches"),
    "dependencies": gettext_lazy("Dependencies"),
    "changes": gettext_lazy("History"),
}

#: Between the digest of a call in the log, and what the log says of its arguments.
ARGUMENTS = ": "


def describe_entry(entry: str, digest: str, masked: str) -> str:
    """Return the text for the log, as "Refreshed one call, 0123456789: 42"."""
    return f"{entry}, {digest}{ARGUMENTS}{masked}"


def name_function(info: FunctionInfo) -> str:
    """Return the path of a function, with its file and line if it has no name."""
    has_name = "<lambda>" not in info.name
    return info.path if has_name else f"{info.path} ({info.source})"


def _link_functions(
    infos: Iterable[FunctionInfo], address: Address
) -> list[tuple[str, str]]:
    links = [(name_function(info), address("change", info.id)) for info in infos]
    return sorted(links)


# --- functions -----------------------------------------------------------------------


def make_heads(
    column: Column, falls: bool, make_link: Callable[..., str]
) -> list[Head]:
    """Return the heads of the list, which sort it, or reverse its order."""
    heads = []
    for each in COLUMNS:
        here = each is column
        fall = not falls if here else each.is_number
        order = ("descending" if falls else "ascending") if here else ""
        link = make_link(o=f"-{each.name}" if fall else each.name)
        heads.append(Head(each.title, each.is_number, link, order))
    heads.insert(1, Head(_("By the minute")))
    return heads


def list_functions(
    rows: list[Row], heads: list[Head], address: Address, window: Window
) -> Table:
    """Return the list, with its total."""
    # One scale for all, so that rows can be compared.
    scale = max((charts.busiest(row.minutes or []) for row in rows), default=0)
    texts = overview.describe_shown(overview.add_totals(rows))
    names = [figure.name for figure in SHOWN]
    foot = [Cell(_("Total")), Cell(), *make_numbers(texts, names), Cell()]
    caption = _caption(rows, window)
    made = [_make_row(row, scale, address) for row in rows]
    return Table("result_list", caption, heads, made, foot, is_untitled=False)


def _caption(rows: list[Row], window: Window) -> str:
    text = ngettext(
        "%(shown)s memoized function of this process, %(window)s",
        "%(shown)s memoized functions of this process, %(window)s",
        len(rows),
    )
    return text % {"shown": format_count(len(rows)), "window": window.title}


def _make_row(row: Row, scale: int, address: Address) -> list[Cell]:
    tags = [_("Tags: %(tags)s") % {"tags": row.tags}] if row.tags else []
    chart = row.draw_chart(scale)
    name = Cell(
        row.info.name,
        address("change", row.info.id),
        [row.info.source or row.info.module, *tags],
        row.alerts,
    )
    texts = overview.describe_shown(row.totals)
    return [
        name,
        Cell(chart=chart) if chart else Cell(notes=[_("no figures")]),
        *make_numbers(texts, [figure.name for figure in SHOWN]),
        Cell(row.alias, notes=[row.timeout]),
    ]


def list_affected(rows: list[Row], address: Address) -> Table:
    """Return the functions that an invalidation concerns, and what it will cost."""
    heads = [
        Head(_("Function")),
        *(Head(t, is_number=True) for t in (_("Hits"), _("Mean"), _("Cache"))),
    ]
    made = [
        [
            Cell(name_function(row.info), address("change", row.info.id)),
            *make_numbers(describe_totals(row.totals), ["hits", "mean"]),
            Cell(row.alias, is_number=True),
        ]
        for row in rows
    ]
    caption = _("Functions whose results are invalidated")
    return Table("memoize-affected", caption, heads, made, is_untitled=False)


def describe_function(row: Row, address: Address) -> dict[str, Any]:
    """Return the tables and names on the page of a function."""
    info, options = row.info, describe_options(row.info)
    dependencies = describe_dependencies(info)
    known = {
        each.path: (name_function(each), address("change", each.id))
        for each in list_infos()
    }
    return {
        "figures": _list_figures(row),
        "chart": row.draw_hour(),
        "hour": _list_hour(row),
        "options": _list_options("memoize-options", options.explicit),
        "defaults": _list_options("memoize-defaults", options.defaults),
        "depends_on": [known.get(e, (e, "")) for e in dependencies.depends_on],
        "used_by": [known.get(e, (e, "")) for e in dependencies.used_by],
    }


def _list_figures(row: Row) -> Table:
    names = [figure.name for figure in FIGURES]
    heads = [Head(""), *(Head(figure.title, is_number=True) for figure in FIGURES)]
    process = describe_totals(row.info.stats.totals())
    rows = [[Cell(_("This process")), *make_numbers(process, names)]]
    if row.hour is not None:
        title, site = _("Whole site"), describe_totals(row.whole)
        rows.insert(0, [Cell(title), *make_numbers(site, names)])
    return Table("memoize-figures", _("Figures of this function"), heads, rows)


def _list_hour(row: Row) -> Table:
    titles = (_("Hits"), _("Misses"), _("Stale"), _("Errors"))
    heads = [Head(_("Minutes ago")), *(Head(title, is_number=True) for title in titles)]
    rows = [
        [Cell(ago), *(Cell(format_count(count), is_number=True) for count in counts)]
        for ago, counts in row.list_spans()
    ]
    return Table("memoize-hour", _("The last hour by ten minutes"), heads, rows)


def _list_options(id: str, options: Iterable[Any]) -> Table:
    heads = [Head(_("Option")), Head(_("Value")), Head(_("Given by"))]
    rows = [
        [Cell(name, is_code=True), Cell(value, is_code=True), Cell(origin)]
        for name, value, origin in options
    ]
    return Table(id, _("The options of this function"), heads, rows)


# --- caches --------------------------------------------------------------------------


def list_caches(found: list[CacheInfo], address: Address) -> Table:
    """Return the caches, with their answers and what is kept there."""
    titles = [_("Cache"), _("Answer"), _("Circuit breaker"), _("Shared")]
    numbers = [_("Errors"), _("Functions"), _("Mean size"), _("Copies here")]
    heads = [*map(Head, titles), *(Head(title, is_number=True) for title in numbers)]
    return Table(
        "memoize-caches",
        _("All caches of this project, the worst first"),
        heads,
        [_make_cache(each, address) for each in found],
        is_untitled=False,
    )


def _make_cache(each: CacheInfo, address: Address) -> list[Cell]:
    link = f"{address('changelist')}?q=cache:{each.alias}" if each.rows else ""
    errors = format_count(each.totals.errors)
    copied = [format_size(each.copied_bytes)] if each.copies else []
    module, _dot, name = each.backend.rpartition(".")
    return [
        Cell(each.alias, notes=[name, module]),
        _describe_answer(each.question),
        _describe_breaker(each.state),
        _describe_place(each),
        Cell(errors, is_number=True, is_bad=each.totals.errors > 0),
        Cell(format_count(len(each.rows)), link, is_number=True),
        Cell(format_size(each.totals.size), is_number=True),
        Cell(format_count(each.copies), notes=copied, is_number=True),
    ]


def _describe_answer(question: Question) -> Cell:
    if question.error:
        values = {"error": question.error}
        return Cell(alerts=[_("fails: %(error)s") % values])
    if not question.is_answered:
        values = {"time": format_duration(question.waited)}
        return Cell(alerts=[_("no answer for %(time)s") % values])
    took = _("in %(time)s") % {"time": format_duration(question.answer)}
    return Cell(took.replace(" ", "\xa0"))  # in one line


def _describe_breaker(state: str | None) -> Cell:
    if state is None:
        return Cell(NOTHING)
    if state == "closed":
        return Cell(_("closed"))
    note = _("this process does without the cache for some seconds, after failures")
    name = _("open") if state == "open" else _("half-open")
    return Cell(alerts=[name], notes=[note])


def _describe_place(each: CacheInfo) -> Cell:
    if not each.stores:
        return Cell(_("stores nothing"))
    if each.own_place is None:
        return Cell(_("yes"))
    note = _("%(place)s of this process: other processes keep what is invalidated here")
    return Cell(_("no"), notes=[note % {"place": each.own_place}])


# --- dependencies --------------------------------------------------------------------


def list_dependents(found: Dependents, address: Address, may_invalidate: bool) -> Table:
    """Return the models and tags on which functions depend, with these functions."""
    heads = [Head(_("Model or tag")), Head(_("Functions that depend on it"))]
    rows = []
    for model in sorted(apps.get_models(), key=lambda model: model._meta.label):
        if infos := found.of_model(model):
            note, label = _("table %(name)s"), model._meta.label
            note %= {"name": model._meta.db_table}
            rows.append(("model", label, label, note, infos))
    rows += [
        ("tag", tag, _("tag %(name)s") % {"name": tag}, "", infos)
        for tag, infos in sorted(found.tags.items())
    ]
    if found.by_call:
        text = _("tags by call")
        rows.append(("", "", text, _("type one of them above"), found.by_call))
    made = []
    for name, value, title, note, infos in rows:
        cells = [
            Cell(title, notes=[note] if note else []),
            Cell(others=_link_functions(infos, address)),
        ]
        if may_invalidate:
            button = (name, value, _("Invalidate…")) if name else None
            cells.append(Cell(button=button))
        made.append(cells)
    if may_invalidate:
        heads.append(Head(_("Invalidation")))
    caption = _("What the functions of this process depend on")
    return Table("memoize-dependents", caption, heads, made, is_untitled=False)


# --- history -------------------------------------------------------------------------


def list_changes(entries: Iterable[Any], address: Address, may_see: bool) -> Table:
    """Return the changes that users have made.

    :param may_see: whether the user may see the masked arguments.
    """
    heads = [*map(Head, (_("When"), _("User"), _("Change"), _("Of")))]
    rows = []
    for entry in entries:
        change, _colon, arguments = entry.change_message.partition(ARGUMENTS)
        link = address("change", entry.object_id) if entry.object_id else ""
        rows.append(
            [
                Cell(format_moment(entry.action_time)),
                Cell(entry.user.get_username()),
                Cell(change, notes=[arguments] if may_see and arguments else []),
                Cell(entry.object_repr, link),
            ]
        )
    return Table("memoize-changes", _("Last changes"), heads, rows, is_untitled=False)
