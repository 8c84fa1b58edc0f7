"""Run benchmarks, one after the other: ``python -m benchmarks [names] [--quick]``.

``--out DIR`` keeps the raw figures and the picture of each as DIR/NAME.json and
DIR/NAME.svg, and its tables as DIR/NAME.txt.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
NAMES = [
    "hit",
    "parts",
    "near",
    "miss",
    "batch",
    "awaited",
    "stampede",
    "view",
    "scale",
    "tables",
    "start",
]


def command(name: str, options: argparse.Namespace) -> list[str]:
    line = [sys.executable, "-m", f"benchmarks.{name}"]
    if options.quick:
        line.append("--quick")
    if options.peers:
        line += ["--peers", str(options.peers.resolve())]
    if options.out:
        out = options.out.resolve() / name
        line += ["--json", f"{out}.json", "--svg", f"{out}.svg"]
    return line


def run(name: str, options: argparse.Namespace) -> bool:
    """Whether it came to its end; what it says is shown as it comes."""
    process = subprocess.Popen(
        command(name, options), cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    said = []
    assert process.stdout
    for line in process.stdout:
        print(line, end="", flush=True)
        said.append(line)
    if options.out:
        (options.out / f"{name}.txt").write_text("".join(said))
    return process.wait() == 0


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", choices=[*NAMES, []], metavar="NAME")
    parser.add_argument("--quick", action="store_true", help="a look, not for figures")
    parser.add_argument("--peers", type=Path, help="where django-cache-memoize is")
    parser.add_argument("--out", type=Path, help="a folder for figures and pictures")
    options = parser.parse_args()
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
    names = options.names or NAMES
    failed = []
    for number, name in enumerate(names, 1):
        print(f"\n--- {name} ({number} of {len(names)}) ---\n", flush=True)
        if not run(name, options):
            failed.append(name)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
