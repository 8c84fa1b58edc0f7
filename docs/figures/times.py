"""Draws what some options do, over time: ``python docs/figures/times.py``.

A test replays each picture.
"""

from pathlib import Path
from typing import Any, NamedTuple


class Picture(NamedTuple):
    """What happens to one call; all times are in seconds."""

    title: str
    options: dict[str, Any]
    #: Of the function: from, to, and the value that it returns; None: its process died.
    runs: list[tuple[float, float, int | None]]
    #: What is stored: from, to, and what.
    stored: list[tuple[float, float, str]]
    #: Callers: when they call, when they get the value, and the value.
    calls: list[tuple[float, float, int | None]]
    #: Lines, by their times.
    lines: dict[float, str]
    span: float


PICTURES = {
    "stale": Picture(
        "timeout=60, stale=90",
        {"timeout": 60, "stale": 90},
        [(0, 8, 1), (80, 88, 2)],
        [(8, 60, "value 1"), (60, 88, "value 1, stale"), (88, 140, "value 2")],
        [(0, 8, 1), (40, 40, 1), (80, 80, 1), (110, 110, 2)],
        {60: "timeout", 150: "+ stale"},
        170,
    ),
    "early_refresh": Picture(
        "timeout=60, early_refresh=1",
        {"timeout": 60, "early_refresh": 1},
        [(0, 4, 1), (55, 59, 2)],
        [(4, 59, "value 1"), (59, 90, "value 2")],
        [(0, 4, 1), (30, 30, 1), (55, 55, 1), (70, 70, 2)],
        {60: "timeout"},
        90,
    ),
    "lease": Picture(
        "lease=10",
        {"timeout": 60, "lease": 10},
        [(0, 4, None), (10, 15, 2)],
        [(0, 10, "lease"), (10, 15, "lease"), (15, 30, "value 2")],
        [(0, 4, None), (5, 15, 2), (7, 15, 2), (22, 22, 2)],
        {4: "the process dies", 10: "lease"},
        30,
    ),
    "hold": Picture(
        "hold=5",
        {"timeout": 60, "hold": 5},
        [(2, 3, 1), (11, 12, 2), (13.5, 14.5, 3), (17, 18, 4)],
        [(3, 10, "value 1"), (10, 15, "nothing is stored"), (18, 25, "value 4")],
        [(2, 3, 1), (7, 7, 1), (11, 12, 2), (13.5, 14.5, 3), (17, 18, 4), (22, 22, 4)],
        {10: "invalidate()", 15: "+ hold"},
        25,
    ),
}
LEFT, RIGHT, TALL, LANE = 76, 720, 22, 46
STYLE = """
  :root { --ground: #fff; --ink: #111; --line: #8a94a3; --mark: #1f6feb; }
  :root { --old: #c9d1d9; --on-mark: #fff; }
  @media (prefers-color-scheme: dark) {
    :root { --ground: #1a1c1e; --ink: #eee; --line: #8a94a3; --mark: #79b0ff; }
    :root { --old: #57606a; --on-mark: #111; }
  }
  .ground { fill: var(--ground); }
  .value, circle { fill: var(--mark); }
  .other { fill: var(--old); }
  text { fill: var(--ink); }
  .in { text-anchor: middle; }
  .value + .in { fill: var(--on-mark); }
  path { stroke: var(--line); stroke-dasharray: 3 3; }
  .wait { stroke: var(--mark); stroke-dasharray: none; stroke-width: 2px; }
"""


def draw(name: str) -> str:
    picture = PICTURES[name]
    parts: list[str] = []

    def x(time: float) -> float:
        return round(LEFT + time * (RIGHT - 10 - LEFT) / picture.span, 1)

    def bar(start: float, end: float, lane: int, text: str) -> None:
        kind = "value" if text[-1:].isdigit() else "other"
        y = LANE * lane - TALL // 2
        parts.append(
            f'<rect class="{kind}" x="{x(start)}" y="{y}" height="{TALL}" '
            f'width="{x(end) - x(start):.1f}" rx="3"/>'
        )
        middle = (x(start) + x(end)) / 2
        parts.append(f'<text class="in" x="{middle:.1f}" y="{y + 15}">{text}</text>')

    rows: list[float] = []  # the ends of the texts in each row of callers
    for start, end, value in picture.calls:
        does = "computes, " if (start, end, value) in picture.runs else "waits, "
        said = "–" if value is None else (does if end > start else "") + str(value)
        row = next((i for i, used in enumerate(rows) if used < x(start)), len(rows))
        rows[row : row + 1] = [x(end) + 8 * len(said) + 12]
        y = LANE * 3 + 20 * row
        parts.append(f'<path class="wait" d="M{x(start)} {y}H{x(end)}"/>')
        parts.append(f'<circle cx="{x(start)}" cy="{y}" r="4"/>')
        parts.append(f'<text x="{x(end) + 7:.1f}" y="{y + 4}">{said}</text>')
    bottom = LANE * 3 + 20 * len(rows)
    for time, text in picture.lines.items():
        parts.insert(0, f'<path d="M{x(time)} 18V{bottom}"/>')
        parts.append(f'<text x="{x(time) + 3:.1f}" y="14">{time} s: {text}</text>')
    for start, end, value in picture.runs:
        bar(start, end, 1, "✕" if value is None else str(value))
    for start, end, text in picture.stored:
        bar(start, end, 2, text)
    for lane, text in enumerate(["function", "stored", "callers"], 1):
        parts.append(f'<text x="6" y="{LANE * lane + 4}">{text}</text>')
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {RIGHT} {bottom}" '
        f'width="{RIGHT}" height="{bottom}" role="img" font-family="sans-serif" '
        f'font-size="12">\n<title>{picture.title}</title>\n<style>{STYLE}</style>\n'
        '<rect class="ground" width="100%" height="100%"/>'
    )
    return "\n".join([head, *parts, "</svg>\n"])


if __name__ == "__main__":
    for name in PICTURES:
        Path(__file__).with_name(f"{name}.svg").write_text(draw(name))
