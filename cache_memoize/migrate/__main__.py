"""``python -m cache_memoize.migrate PATH ...``: print the findings, and what was looked
at; needs no settings.

The exit code is 1 if there are findings.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from . import report_on


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m cache_memoize.migrate",
        description="Find code whose meaning has changed since django-cache-memoize "
        "0.2.1. Files are read, not imported.",
    )
    parser.add_argument(
        "paths", nargs="+", type=Path, metavar="PATH", help="Files and folders."
    )
    report = report_on(parser.parse_args().paths)
    for each in (*report.findings, report):
        print(each)
    return 1 if report.findings else 0


if __name__ == "__main__":  # pragma: no branch
    raise SystemExit(main())
