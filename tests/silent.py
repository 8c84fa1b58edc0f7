"""Counts silent faults by kind: ``python -m tests.silent --peers FOLDER``.

The kinds of kinds.py are tried on this library, on an older commit of it, on
django-cache-memoize 0.2.1 and on three other packages, each in a process of its own
with a Valkey server. ``--rst docs/silent-table.rst`` writes the table of the
documentation, ``--why`` lists the inputs that were wrong. FOLDER is that of
comparison.py.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import django

from tests import comparison
from tests.servers import SERVERS

ROOT = comparison.ROOT
OURS, BEFORE = "this library", "this library before"
#: The last commit of 1.0.0.
COMMIT = "bdb92f9"
TITLES = [OURS, BEFORE, "django-cache-memoize 0.2", "cacheops cached_as"]
TITLES += ["dogpile.cache", "cashews"]
RIGHT, REFUSED, WRONG, NONE = "right", "refused", "wrong", "–"
Counts = dict[str, int]


def cell_of(counts: Counts) -> str:
    """Return the number of wrong answers, and of refused calls."""
    possible = sum(counts.values()) - counts.get(NONE, 0)
    if not possible:
        return NONE
    wrong, refused = counts.get(WRONG, 0), counts.get(REFUSED, 0)
    return f"{wrong:,}, {refused:,} refused" if refused else f"{wrong:,}"


def row_of(name: str, by_title: dict[str, dict[str, Counts]]) -> list[str]:
    tried = sum(by_title[OURS][name].values())
    return [name, f"{tried:,}", *(cell_of(by_title[t][name]) for t in by_title)]


def text_of(by_title: dict[str, dict[str, Counts]], versions: dict[str, str]) -> str:
    names = list(by_title[OURS])
    wrong = [sum(by_title[t][n].get(WRONG, 0) for n in names) for t in by_title]
    tried = sum(sum(counts.values()) for counts in by_title[OURS].values())
    rows = [["", "inputs", *(versions[title] for title in by_title)]]
    rows += [row_of(name, by_title) for name in names]
    rows.append(["all", f"{tried:,}", *(f"{number:,}" for number in wrong)])
    return comparison.list_table("Silently wrong answers", rows)


def one(title: str, folder: Path, some: list[str], *, child: bool) -> None:
    """Print what one contender did, as JSON."""
    server = SERVERS["valkey"]
    if not child:
        server.start()
    comparison.prepare(
        ["cacheops"] if title.startswith("cacheops") else [], memory=False
    )

    from tests import contenders, kinds

    logging.getLogger("cache_memoize").setLevel(logging.CRITICAL)
    known = {**contenders.CONTENDERS, BEFORE: contenders.Before}
    peer: Any = known[title](server.port, folder, memory=False)
    if child:
        kinds.invalidate_pools(peer)
        os._exit(0)
    command = [sys.executable, "-W", "ignore", "-m", "tests.silent", "--peers"]
    peer.child = [*command, str(folder), "--one", title, "--child"]
    peer.environment = {**os.environ, "MEMOIZE_VALKEY": str(server.port)}
    from django.db import connection

    with connection.schema_editor() as editor:
        for model in (kinds.Post, kinds.Parcel):
            editor.create_model(model)
    found = {}
    try:
        for name in some or kinds.KINDS:
            print(f"{title}: {name}", file=sys.stderr, flush=True)
            found[name] = kinds.counts_of(peer, name)
        version = comparison.version_of(type(peer), folder)
        print(json.dumps([version, found]), flush=True)
    finally:
        server.stop()
    os._exit(0)  # past threads that wait for ever


def collect(title: str, folder: Path, some: list[str]) -> tuple[str, dict[str, Any]]:
    command = [sys.executable, "-W", "ignore", "-m", "tests.silent"]
    command += ["--peers", str(folder), "--one", title]
    command += [f"--kind={name}" for name in some]
    with tempfile.TemporaryDirectory() as place:
        path = [str(ROOT), os.environ.get("PYTHONPATH", "")]
        if title == BEFORE:
            unpack(place)
            path.insert(0, place)
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path)}
        done = subprocess.run(
            command, stdout=subprocess.PIPE, check=True, env=environment, cwd=place
        )
    version, found = json.loads(done.stdout.splitlines()[-1])
    return version, found


def unpack(place: str) -> None:
    """Write the package of ``COMMIT`` into a folder."""
    path = Path(place, "package.tar")
    command = ["git", "archive", "-o", str(path), COMMIT, "cache_memoize"]
    subprocess.run(command, cwd=ROOT, check=True)
    with tarfile.open(path) as archive:
        archive.extractall(place, filter="data")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--peers", type=Path, required=True, help="where packages are")
    parser.add_argument("--rst", type=Path)
    parser.add_argument("--why", action="store_true", help="list what was wrong")
    parser.add_argument("--only", action="append", choices=TITLES)
    parser.add_argument("--kind", action="append", default=[], help="not all kinds")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    folder = given.peers.resolve()
    sys.path.append(str(folder))  # after all that is installed
    if given.one:
        one(given.one, folder, given.kind, child=given.child)
        return
    by_title, versions = {}, {}
    for title in given.only or TITLES:
        version, found = collect(title, folder, given.kind)
        by_title[title] = {name: counts for name, (counts, _) in found.items()}
        ours = {OURS: "this library", BEFORE: "before"}
        versions[title] = ours.get(title, f"{title.removesuffix(' 0.2')} {version}")
        for name, (counts, wrong) in found.items() if given.why else ():
            print(f"{title}: {name}: {counts}")
            print(*(f"{title}: {name}: {each}" for each in wrong), sep="\n")
    if OURS in by_title:
        text = text_of(by_title, versions)
        about = f"Python {platform.python_version()}, Django {django.__version__}"
        text += f"\n{about}, Valkey.\n"
        print(text)
        if given.rst:
            given.rst.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
