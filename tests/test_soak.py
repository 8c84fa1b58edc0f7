"""A short run of soak.py, which goes on for a minute when it is run by hand."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.test_stampede import ROOT, environment


@pytest.mark.thorough
def test_everything_at_once_with_processes_that_are_killed(servers):
    """No call is late or wrong, and nothing is blocked for ever."""
    servers("valkey")
    done = subprocess.run(
        # The bound of a busy machine: what is blocked is so for ever.
        [sys.executable, "-m", "tests.soak", "--seconds", "5", "--bound", "30"],
        env=environment(),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert done.returncode == 0, done.stdout + done.stderr
