"""Draws the states of a key in docs/protocol.rst: ``python docs/figures/states.py``."""

from pathlib import Path

TITLE = "The states of a key"
#: Each state, and where it is drawn.
STATES = {
    "empty": (80, 160),
    "lease": (320, 50),
    "retry": (320, 270),
    "failed": (440, 160),
    "entry": (720, 160),
    "refresh": (720, 300),
    "block": (80, 300),
}
#: For each event, the next state after each of these states, in the same order; "–": it
#: does not happen. A test makes each of them happen.
NEXT = {
    "a call begins": "lease lease retry retry entry refresh block",
    "the function returns": "– entry entry – – entry –",
    "the function raises": "– failed failed – – refresh –",
    "its caller is cancelled": "– empty empty – – refresh –",
    "``refresh()`` begins": "lease lease lease lease refresh refresh block",
    "``prime()``": "entry entry entry entry entry entry block",
    "``invalidate()``": "empty empty empty empty empty empty block",
    "the same, in a transaction": "block block block block block block block",
    "its commit": "empty empty empty empty empty empty empty",
    "the server removes it": "empty empty empty empty empty empty empty",
}
#: Events that are drawn: others lead from each state to one and the same.
DRAWN = [*NEXT][:5]
WIDTH, HEIGHT, HALF, TALL = 800, 350, 44, 16
STYLE = """
  :root { --ground: #fff; --ink: #111; --line: #8a94a3; --mark: #1f6feb; }
  @media (prefers-color-scheme: dark) {
    :root { --ground: #1a1c1e; --ink: #eee; --line: #8a94a3; --mark: #79b0ff; }
  }
  rect { fill: var(--ground); }
  rect.state { stroke: var(--line); }
  text { fill: var(--ink); stroke: var(--ground); stroke-width: 5px; }
  text { paint-order: stroke; text-anchor: middle; }
  path { stroke: var(--mark); fill: none; stroke-width: 1.5px; }
  .head { fill: var(--mark); stroke: none; }
"""


def arrows() -> dict[tuple[str, str], str]:
    """Return the drawn event by state and next state."""
    found = {("block", "empty"): "its commit"}
    for event in DRAWN:
        for state, after in zip(STATES, NEXT[event].split(), strict=True):
            if after not in (state, "–") and (state, after) not in found:
                found[state, after] = event.replace("`", "")
    del found["retry", "lease"], found["failed", "lease"]  # by a refresh
    return found


def draw() -> str:
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'width="{WIDTH}" height="{HEIGHT}" role="img" font-family="sans-serif" '
        'font-size="12">',
        f"<title>{TITLE}</title>",
        f"<style>{STYLE}</style>",
        '<rect width="100%" height="100%"/>',
    ]
    labels = []
    for (state, after), event in arrows().items():
        (x, y), (u, v) = STATES[state], STATES[after]
        dx, dy = u - x, v - y
        long = (dx * dx + dy * dy) ** 0.5
        side = 9  # so that two arrows between the same states do not cross
        x, u, y, v = (
            x - dy / long * side,
            u - dy / long * side,
            y + dx / long * side,
            v + dx / long * side,
        )
        cut = min(
            (HALF + 4) / abs(dx) if dx else 1.0, (TALL + 4) / abs(dy) if dy else 1.0
        )
        x, y, u, v = x + dx * cut, y + dy * cut, u - dx * cut, v - dy * cut
        parts.append(f'<path d="M{x:.0f} {y:.0f}L{u:.0f} {v:.0f}"/>')
        a, b = dx / long * 9, dy / long * 9
        head = f"M{u:.0f} {v:.0f}l{-a - b / 2:.1f} {-b + a / 2:.1f}l{b:.1f} {-a:.1f}z"
        parts.append(f'<path class="head" d="{head}"/>')
        place = f'x="{x + (u - x) * 0.4:.0f}" y="{y + (v - y) * 0.4 + 4:.0f}"'
        labels.append(f"<text {place}>{event}</text>")
    for state, (x, y) in STATES.items():
        box = f'x="{x - HALF}" y="{y - TALL}" width="{2 * HALF}" height="{2 * TALL}"'
        parts.append(f'<rect class="state" {box} rx="6"/>')
        parts.append(f'<text x="{x}" y="{y + 4}" font-weight="bold">{state}</text>')
    return "\n".join([*parts, *labels, "</svg>\n"])


if __name__ == "__main__":
    Path(__file__).with_suffix(".svg").write_text(draw())
