"""mypy and pyright, on what has to pass and on what has to fail.

A line of fails.py that ends with ``# error: A, B`` has to be an error for mypy, with
the code A, and for pyright, with the rule reportB; ``/`` parts several. No other line
of both files may be one.
Run by ``tox -e types``; exits with 1, and says which lines, if a checker disagrees.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
FILES = [HERE / "passes.py", HERE / "fails.py"]

#: An error: (file, line, code).
Errors = set[tuple[str, int, str]]


def expected(place: int) -> Errors:
    """What the comments say; ``place`` 0 is mypy's code, 1 is pyright's."""
    found = set()
    for path in FILES:
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
            if marked := re.search(r"  # error: ([\w/-]+), ([\w/]+)$", line):
                for code in marked[place + 1].split("/"):
                    found.add((path.name, number, code))
            elif "# error:" in line and path.name == "fails.py":
                raise SystemExit(f"{path.name}:{number}: write '# error: CODE, RULE'")
    return found


def output(*command: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *command, *map(str, FILES)],
        cwd=HERE.parent.parent,
        capture_output=True,
        text=True,
    )
    if done.returncode not in (0, 1):
        raise SystemExit(f"{command[0]} broke:\n{done.stdout}{done.stderr}")
    return done.stdout


def mypy() -> Errors:
    found = set()
    for line in output("mypy", "--output", "json").splitlines():
        if line.startswith("{"):
            each = json.loads(line)
            if each["severity"] == "error":
                found.add((Path(each["file"]).name, each["line"], each["code"]))
    return found


def pyright() -> Errors:
    return {
        (
            Path(each["file"]).name,
            each["range"]["start"]["line"] + 1,
            each.get("rule", each["message"]).removeprefix("report"),
        )
        for each in json.loads(
            output("pyright", "--pythonpath", sys.executable, "--outputjson")
        )["generalDiagnostics"]
        if each["severity"] == "error"
    }


def main() -> int:
    trouble = []
    for place, checker in enumerate((mypy, pyright)):
        wanted, found = expected(place), checker()
        assert len(wanted) > 30, "the comments of fails.py were not read"
        for sign, errors in [
            ("does not say", wanted - found),
            ("says, and should not,", found - wanted),
        ]:
            for file, line, code in sorted(errors):
                trouble.append(f"{file}:{line}: {checker.__name__} {sign} {code}")
    print("\n".join(sorted(trouble)) or f"{len(wanted)} errors, by both checkers")
    return 1 if trouble else 0


if __name__ == "__main__":
    sys.exit(main())
