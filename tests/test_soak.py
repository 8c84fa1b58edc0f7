"""Short runs of benchmarks/soak.py. By hand, it goes on for minutes."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tests.needs import need
from tests.test_stampede import ROOT

#: Each keeps all processors busy for its time.
pytestmark = pytest.mark.thorough


def soak(*options: str) -> tuple[int, str]:
    """Return the number of old reads, and all that is printed."""
    line = [sys.executable, "-m", "benchmarks.soak", "--minutes", "0.1", *options]
    # The bound of a busy machine: what is blocked is so for ever.
    line += ["--seed", "1", "--bound", "60"]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=400)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    old = re.search(r"(\d+) old, 0 hung", said)
    assert old, said
    return int(old[1]), said


@pytest.mark.parametrize("local", [[], ["--local", "process"]])
def test_nothing_is_old_while_processes_and_their_network_fail(local):
    """Nothing hangs either: crossed and recursive calls never wait for each other."""
    need("valkey")
    old, said = soak("--url", "valkey", *local)
    assert old == 0
    assert re.search(r"[1-9]\d* faults in 6 seconds on Valkey \d", said)


def test_without_the_comparison_it_finds_old_values():
    """Else it would find nothing in a library that is wrong, either."""
    old, _ = soak("--url", "locmem://", "--broken", "--quiet", "--minutes", "0.4")
    assert old > 0
