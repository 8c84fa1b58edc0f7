"""How far a long run is, on a terminal: by tqdm if it is installed, or in one line."""

from __future__ import annotations

import time
from typing import Any

from django.core.management.base import OutputWrapper

__all__ = ["Bar", "bar_on"]

#: Seconds between two looks of the line.
PAUSE = 0.1
#: Back to the start of the line, which is emptied.
CLEAR = "\r\x1b[K"


class Bar:
    """Nothing to see, as in a pipe: notes are all that is written."""

    def __init__(self, out: OutputWrapper) -> None:
        self.out = out

    def step(self, failed: int) -> None:
        """One item more is through. ``failed``: how many of all have failed."""

    def note(self, text: str) -> None:
        """A line of its own, above the bar."""
        self.out.write(text)

    def close(self) -> None: ...


class Line(Bar):
    """``1,200 of 9,000, 2 failed, 41/s, 0:03:10 left``."""

    def __init__(self, out: OutputWrapper, total: int | None) -> None:
        super().__init__(out)
        self.total = total
        self.done = self.failed = 0
        self.began = self.shown = time.monotonic()

    def step(self, failed: int) -> None:
        self.done, self.failed = self.done + 1, failed
        if time.monotonic() - self.shown >= PAUSE:
            self._show()

    def _show(self) -> None:
        self.shown = time.monotonic()
        rate = self.done / max(self.shown - self.began, 1e-9)
        parts = [f"{self.done:,}", f"{self.failed:,} failed", f"{rate:,.0f}/s"]
        if self.total:
            left = max(self.total - self.done, 0) / max(rate, 1e-9)
            minutes, seconds = divmod(round(left), 60)
            parts[0] += f" of {self.total:,}"
            parts.append(f"{minutes // 60}:{minutes % 60:02}:{seconds:02} left")
        self._raw(CLEAR + ", ".join(parts))

    def _raw(self, text: str) -> None:
        self.out.write(text, style_func=str, ending="")
        self.out.flush()

    def note(self, text: str) -> None:
        self._raw(CLEAR)
        super().note(text)
        self._show()

    def close(self) -> None:
        self._raw(CLEAR)


class Tqdm(Bar):
    def __init__(self, out: OutputWrapper, total: int | None, tqdm: Any) -> None:
        super().__init__(out)
        self.tqdm = tqdm
        # What is around the stream would end each of its lines.
        self.file = out._out
        # No thread of its own that looks whether the bar is stuck.
        quiet = type("Bar", (tqdm,), {"monitor_interval": 0})
        self.bar = quiet(total=total, unit="", unit_scale=True, file=self.file)

    def step(self, failed: int) -> None:
        if failed:
            self.bar.set_postfix(failed=failed, refresh=False)
        self.bar.update()

    def note(self, text: str) -> None:
        self.tqdm.write(text, file=self.file)

    def close(self) -> None:
        self.bar.close()


def bar_on(out: OutputWrapper, total: int | None) -> Bar:
    """What fits this stream; ``total``: how many items there are, if it is known."""
    if not out.isatty():
        return Bar(out)
    try:
        from tqdm import tqdm
    except ImportError:
        return Line(out, total)
    return Tqdm(out, total, tqdm)
