"""Draws the sequence of docs/protocol.rst: ``python docs/figures/protocol.py``."""

from html import escape
from pathlib import Path

TITLE = "An invalidation during a computation"
PEOPLE = {"A": (70, "caller A"), "K": (320, "the key in the cache")}
PEOPLE |= {"B": (560, "caller B"), "C": (770, "another process")}
#: From, to, what; a step to oneself is something that takes time.
STEPS = [
    ("A", "K", "get: nothing"),
    ("A", "K", "add: lease a, only one caller can"),
    ("A", "A", "the function runs"),
    ("B", "K", "get: lease a"),
    ("B", "B", "waits"),
    ("C", "C", "changes the source"),
    ("C", "K", "invalidate: a mark that it is empty"),
    ("C", "C", "invalidate has returned"),
    ("B", "K", "get: the mark"),
    ("B", "K", "swap the mark for lease b"),
    ("B", "B", "the function runs"),
    ("A", "K", "swap a for the old value: refused"),
    ("A", "A", "returns the old value to its own caller"),
    ("B", "K", "swap b for the new value: stored"),
    ("C", "K", "get: the new value"),
]
WIDTH, TOP, STEP = 860, 64, 34
STYLE = """
  :root { --ground: #fff; --ink: #111; --line: #8a94a3; --mark: #1f6feb; }
  @media (prefers-color-scheme: dark) {
    :root { --ground: #1a1c1e; --ink: #eee; --line: #8a94a3; --mark: #79b0ff; }
  }
  rect { fill: var(--ground); }
  text { fill: var(--ink); stroke: var(--ground); stroke-width: 5px; }
  text { paint-order: stroke; text-anchor: middle; }
  path { stroke: var(--line); fill: none; }
  .arrow { stroke: var(--mark); stroke-width: 1.5px; }
  .head { fill: var(--mark); stroke: none; }
"""


def draw() -> str:
    height = TOP + STEP * len(STEPS) + 16
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'width="{WIDTH}" height="{height}" role="img" font-family="sans-serif" '
        'font-size="12">',
        f"<title>{TITLE}</title>",
        f"<style>{STYLE}</style>",
        '<rect width="100%" height="100%"/>',
    ]
    for x, name in PEOPLE.values():
        parts.append(f'<path d="M{x} 36V{height - 8}" stroke-dasharray="3 3"/>')
        parts.append(f'<text x="{x}" y="26" font-weight="bold">{name}</text>')
    for number, (start, end, what) in enumerate(STEPS):
        y = TOP + STEP * number
        (one, _), (other, _) = PEOPLE[start], PEOPLE[end]
        if start == end:
            # At the edges the text has to stay inside.
            x = min(max(one, len(what) * 3.2 + 6), WIDTH - len(what) * 3.2 - 6)
            parts.append(f'<text x="{x:.0f}" y="{y}" font-style="italic">{what}</text>')
            continue
        back = 8 if other < one else -8
        parts.append(f'<path class="arrow" d="M{one} {y}H{other + back / 2:.0f}"/>')
        head = f"M{other} {y}l{back} -4v8z"
        parts.append(f'<path class="head" d="{head}"/>')
        # Next to who speaks, so that it crosses nobody's line.
        near = (one + other) / 2 if {start, end} != {"C", "K"} else (one + 560) / 2
        parts.append(f'<text x="{near:.0f}" y="{y - 6}">{escape(what)}</text>')
    return "\n".join([*parts, "</svg>\n"])


if __name__ == "__main__":
    Path(__file__).with_suffix(".svg").write_text(draw())
