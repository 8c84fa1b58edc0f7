"""The tutorial, typed as it is written, from an empty folder."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from http.cookiejar import CookieJar
from pathlib import Path
from urllib.error import URLError
from urllib.parse import urlencode
from urllib.request import HTTPCookieProcessor, build_opener

import pytest

from tests.test_docs import DOCS, ROOT, Block, blocks

pytestmark = pytest.mark.thorough
PAGE = DOCS / "tutorial.rst"
#: Already done: the tests run where the library is installed.
PREPARED = ["python3 -m venv venv", ". venv/bin/activate", "pip install ."]
PREPARED += ["mkdir tutorial", "cd tutorial"]
SERVER = "python manage.py runserver"
PATIENCE = 60


class Typist:
    """Writes the files of the page, and runs its commands."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.said = ""
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        self.environment = os.environ | {"PYTHONPATH": str(ROOT), "PATH": path}
        self.environment.pop("DJANGO_SETTINGS_MODULE", None)
        self.server: subprocess.Popen[bytes] | None = None
        self.browser = build_opener(HTTPCookieProcessor(self.cookies()))

    def cookies(self) -> CookieJar:
        self.jar = CookieJar()
        return self.jar

    def type(self, block: Block) -> None:
        if block.language == "console":
            for command in commands(block):
                self.run(command)
        elif block.caption:
            self.write(block)

    def write(self, block: Block) -> None:
        name, _, where = block.caption.partition(", ")
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        source = block.source + "\n"
        if where == "at the end":
            source = f"{path.read_text()}\n\n{source}"
        elif where:
            assert where == "in place of the line above the function"
            source, times = re.subn(
                r"^@cache_memoize.*\n", source, path.read_text(), flags=re.M
            )
            assert times == 1
        path.write_text(source)

    def run(self, command: str) -> None:
        if command in PREPARED:
            return
        if command.startswith("export "):
            name, _, value = command.removeprefix("export ").partition("=")
            self.environment[name] = value
            return
        if command == SERVER:
            self.start()
            return
        done = subprocess.run(
            command,
            shell=True,
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PATIENCE,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}"
        self.said = done.stdout

    def start(self) -> None:
        """Start the server without its reloader; a restart reads changed files."""
        self.stop()
        command = [sys.executable, *shlex.split(SERVER)[1:], "--noreload"]
        self.server = subprocess.Popen(
            [*command, f"127.0.0.1:{self.port}"],
            cwd=self.folder,
            env=self.environment,
            stderr=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        until = time.monotonic() + PATIENCE
        while True:
            try:
                return self.browser.open(f"http://127.0.0.1:{self.port}/1/").close()
            except URLError:
                assert time.monotonic() < until and self.server.poll() is None

    def stop(self) -> None:
        if self.server is not None:
            self.server.send_signal(signal.SIGINT)
            self.server.wait(PATIENCE)

    def open(self, url: str, **form: str) -> str:
        """Return the content of the page; with a form, send it first."""
        url = url.replace(":8000", f":{self.port}")
        if form:
            tokens = {c.name: c.value for c in self.jar}
            form["csrfmiddlewaretoken"] = tokens["csrftoken"] or ""
        data = urlencode(form).encode() if form else None
        with self.browser.open(url, data) as answer:
            return str(answer.read().decode())


def commands(block: Block) -> Iterator[str]:
    """Yield the command after each ``$``, with its continuation lines.

    A shell has to see one command there as well.
    """
    for command in re.split(r"^\$ ", block.source, flags=re.M)[1:]:
        shlex.split(command)  # a quotation that does not end is an error
        lines = re.sub(r'"[^"]*"', "", command).rstrip().replace("\\\n", "")
        assert "\n" not in lines, f"a shell sees two commands in {command}"
        yield command.rstrip()


def sections() -> dict[str, list[Block]]:
    """Return the blocks under each heading."""
    lines = PAGE.read_text("utf-8").splitlines()
    heads = [n for n, line in enumerate(lines) if line and set(line) == {"-"}]
    found: dict[str, list[Block]] = {}
    for block in blocks(PAGE):
        head = max((n for n in heads if n < block.line), default=heads[0])
        found.setdefault(lines[head - 1], []).append(block)
    return found


@pytest.fixture
def typist(tmp_path: Path) -> Iterator[Typist]:
    folder = tmp_path / "tutorial"
    folder.mkdir()
    typist = Typist(folder)
    with contextlib.closing(typist.browser):
        yield typist
        typist.stop()


def urls() -> set[str]:
    return set(re.findall(r"http://127\.0\.0\.1:8000/[\w/]*", PAGE.read_text("utf-8")))


ADMIN = "http://127.0.0.1:8000/admin/"
ONE, TWO = "http://127.0.0.1:8000/1/", "http://127.0.0.1:8000/2/"
BY_TABLE = "http://127.0.0.1:8000/table/2/"


def test_the_tutorial_as_it_is_written(typist):
    assert urls() == {ONE, TWO, BY_TABLE, ADMIN}
    parts = sections()
    assert [*parts] == [
        "Create a project",
        "Memoize a function",
        "See the hit rate",
        "Invalidate on save",
        "Serve stale values",
        "Do without invalidations",
        "Test it",
    ]
    for block in [*parts["Create a project"], *parts["Memoize a function"]]:
        typist.type(block)
    for _ in range(3):
        assert "green tin" in typist.open(ONE)

    typist.open(ADMIN)
    typist.open(f"{ADMIN}login/?next=/admin/", username="admin", password="secret")
    assert "Memoized functions" in typist.open(ADMIN)
    until = time.monotonic() + PATIENCE
    while True:  # the page was opened, then three times more, and the first one missed
        shown = typist.open(f"{ADMIN}cache_memoize/memoizedfunction/")
        assert ">related</a>" in shown and "blog/related.py:" in shown
        if "75.0" in shown:
            break
        assert time.monotonic() < until, shown
    typist.stop()  # reports the rest
    typist.server = None
    (block,) = parts["See the hit rate"]
    typist.type(block)
    assert "blog.related.related" in typist.said and "75.0" in typist.said
    typist.start()

    change = f"{ADMIN}blog/post/1/change/"
    assert "green tea" in typist.open(TWO)
    typist.open(change)
    typist.open(change, title="red tea")
    assert "green tea" in typist.open(TWO), "without invalidation"
    for block in parts["Invalidate on save"]:
        typist.type(block)
    typist.start()
    typist.open(change, title="red tea")
    assert "red tea" not in typist.open(TWO), "they no longer share a word"
    assert "green tea" not in typist.open(TWO)
    typist.open(change, title="green pot")
    assert "green pot" in typist.open(TWO)

    for block in parts["Serve stale values"]:
        typist.type(block)
    *files, command = parts["Do without invalidations"]
    for block in files:
        typist.type(block)
    typist.start()
    assert "green cup" in typist.open(TWO) and "green cup" in typist.open(BY_TABLE)
    typist.type(command)
    assert "green cup" in typist.open(TWO)
    assert "green cup" not in typist.open(BY_TABLE)
    assert "green bowl" in typist.open(BY_TABLE)
    for block in parts["Test it"]:
        typist.type(block)
    assert "Ran 1 test" in typist.said and "OK" in typist.said
