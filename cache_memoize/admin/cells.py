"""Tables of the pages, which one template renders."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from .charts import Chart


class Cell(NamedTuple):
    """A cell: a text or a chart, with more below it."""

    text: Any = ""
    #: An address for the text.
    link: str = ""
    #: Smaller lines below the text.
    notes: Iterable[Any] = ()
    #: Troubles, in words.
    alerts: Iterable[str] = ()
    #: More texts, each with its address or "".
    others: Iterable[tuple[str, str]] = ()
    chart: Chart | None = None
    #: The name and the value that a button posts, and its label.
    button: tuple[str, str, Any] | None = None
    is_number: bool = False
    is_bad: bool = False
    is_code: bool = False


class Head(NamedTuple):
    """The head of a column: a link that sorts by it, if it has one."""

    title: Any
    is_number: bool = False
    link: str = ""
    #: "ascending" or "descending" if the table is sorted by this column.
    order: str = ""


class Table(NamedTuple):
    """A table; the first cell of a row is its head."""

    #: Unique on the page.
    id: str
    caption: str
    heads: list[Head]
    rows: list[list[Cell]]
    foot: list[Cell] = []
    #: Whether the caption is only for screen readers.
    is_untitled: bool = True

    @property
    def parts(self) -> list[tuple[str, list[list[Cell]]]]:
        """The rows by the name of their element."""
        return [("tbody", self.rows), *([("tfoot", [self.foot])] if self.foot else [])]


def make_numbers(texts: dict[str, str], names: Iterable[str]) -> list[Cell]:
    """Return cells for these figures, red if they are of failures."""
    return [
        Cell(
            texts[name],
            is_number=True,
            is_bad=name in ("errors", "failed") and texts[name] != "0",
        )
        for name in names
    ]
