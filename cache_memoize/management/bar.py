"""How far a long run is, on a terminal: by tqdm if it is installed, or line by line."""

from __future__ import annotations

from typing import Any

from django.core.management.base import OutputWrapper

__all__ = ["Bar", "bar_on"]


class Bar:
    """Nothing to see, as in a pipe: notes are all that is written."""

    def __init__(self, out: OutputWrapper) -> None:
        self.out = out

    def step(self, failed: int) -> None:
        """One more item is done. ``failed``: how many of all have failed."""

    def note(self, text: str) -> None:
        """Write a line of its own, above the bar."""
        self.out.write(text)

    def close(self) -> None: ...


class Lines(Bar):
    """A line for each tenth of the items; for each 1,000 if their number is unknown."""

    def __init__(self, out: OutputWrapper, total: int | None) -> None:
        super().__init__(out)
        self.done, self.every = 0, max((total or 10_000) // 10, 1)
        self.of = f" of {total:,}" if total else ""

    def step(self, failed: int) -> None:
        self.done += 1
        if self.done % self.every == 0:
            self.note(f"{self.done:,}{self.of}, {failed:,} failed")


class Tqdm(Bar):
    """The bar of tqdm."""

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
    """Return what fits this stream; ``total`` is the number of items, if known."""
    if not out.isatty():
        return Bar(out)
    try:
        from tqdm import tqdm
    except ImportError:
        return Lines(out, total)
    return Tqdm(out, total, tqdm)
