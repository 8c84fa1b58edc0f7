"""How many requests per second does a view answer whose list comes from the cache?

``python -m benchmarks.view --peers DIR`` runs gunicorn with one synchronous worker, and
loads it on loopback with ``wrk`` (a Debian package) from one thread with four
connections: on a machine with two processors that leaves one to each. The view renders
a short template with five posts. *Bare*, it gets them from a function that has them
ready; in the other variants that function is memoized in local memory, and hits.

The variants are pages of the same worker and take turns, in another order in each
round. The ratios are requests per second to those of the bare view: 1 is no cost.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from urllib.error import URLError
from urllib.request import urlopen

from benchmarks.measure import ratio
from benchmarks.report import Bar, Report, parser
from tests.servers import free_port

ROOT = Path(__file__).parents[1]
GOAL = 0.95
#: In the environment of the site: where django-cache-memoize is.
FOLDER = "MEMOIZE_BENCHMARK_PEERS"
BARE, OURS = "bare", "this library"
BY_HAND, ESTABLISHED = "written by hand", "django-cache-memoize"
#: The pages of benchmarks/blog.py.
PATHS = {BARE: "bare/", OURS: "ours/", BY_HAND: "hand/", ESTABLISHED: "established/"}


class Site:
    """gunicorn with one worker."""

    def __init__(self, peers: Path | None) -> None:
        self.address = f"127.0.0.1:{free_port()}"
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        if peers:
            environment[FOLDER] = str(peers.resolve())
        self.process = subprocess.Popen(
            [sys.executable, "-m", "gunicorn", "--workers=1", "--log-level=error"]
            + [f"--bind={self.address}"]
            + ["benchmarks.blog:application"],
            cwd=ROOT,
            env=environment,
        )

    def get(self, path: str) -> bytes:
        with urlopen(f"http://{self.address}/{path}", timeout=10) as answer:
            read: bytes = answer.read()
            return read

    def wait(self) -> None:
        deadline = time.monotonic() + 30
        while True:
            try:
                self.get("told/")
                return
            except (URLError, ConnectionError):
                assert self.process.poll() is None, "gunicorn ended"
                assert time.monotonic() < deadline, "gunicorn did not start"
                time.sleep(0.05)

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait()


def load(address: str, path: str, seconds: int) -> float:
    """Requests per second; all were answered well."""
    command = f"wrk -t1 -c4 -d{seconds}s --timeout 10s http://{address}/{path}"
    said = subprocess.run(
        command.split(), check=True, capture_output=True, text=True
    ).stdout
    assert "Non-2xx" not in said and "Socket errors" not in said, said
    return requests_per_second(said)


def requests_per_second(said: str) -> float:
    found = re.search(r"^Requests/sec:\s+([\d.]+)$", said, re.MULTILINE)
    assert found, said
    return float(found[1])


def measure(
    report: Report, site: Site, seconds: int, rounds: int
) -> dict[str, list[float]]:
    """Requests per second of each round."""
    told = json.loads(site.get("told/"))
    for name, why in told["missing"].items():
        report.without(name, why, "a view")
    names = [name for name in PATHS if name not in told["missing"]]
    pages = {site.get(PATHS[name]) for name in names}
    assert len(pages) == 1 and b"part 1004" in pages.pop()
    found: dict[str, list[float]] = {name: [] for name in names}
    order = random.Random(0)
    with report.progress(len(names) * (rounds + 1)) as bar:
        for n in range(rounds + 1):
            order.shuffle(names)
            for name in names:
                bar.set_description(name, False)
                rate = load(site.address, PATHS[name], seconds if n else 1)
                if n:  # the first one warms up
                    found[name].append(rate)
                bar.update()
    runs = json.loads(site.get("told/"))["computed"]
    assert set(runs.values()) == {1}, "not only hits"
    return found


def tell(report: Report, rates: dict[str, list[float]]) -> None:
    rows = [["a view under gunicorn", "requests per second", "to the bare view"]]
    bars = []
    # Seconds per request, so that the third of a ratio is of the best rounds.
    seconds = {name: [1 / rate for rate in each] for name, each in rates.items()}
    for name, each in rates.items():
        found = ratio(seconds[BARE], seconds[name])
        rows.append([name, f"{median(each):,.0f}", str(found)])
        bars.append(Bar(name, found.within_rounds, name == OURS))
        if name == OURS:
            report.goal("view: requests per second to bare", found, least=GOAL)
    report.table("A view with a hit in local memory", rows)
    report.group("requests per second, to the bare view", bars, GOAL)
    report.raw.append(rates)


def main() -> None:
    options = parser(__doc__).parse_args()
    report = Report("A view with a memoized function", options)
    if not shutil.which("wrk"):
        sys.exit("needs wrk, which makes the requests: apt-get install wrk")
    site = Site(options.peers)
    try:
        site.wait()
        rates = measure(report, site, *((1, 3) if options.quick else (4, 7)))
    finally:
        site.stop()
    tell(report, rates)
    report.finish()


if __name__ == "__main__":
    main()
