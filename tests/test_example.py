"""The example runs, its workers hear each other, and a reader can click through it."""

import html
import os
import queue
import re
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from http.cookiejar import CookieJar
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import HTTPCookieProcessor, build_opener, urlopen

import pytest

from tests.browser import PATIENCE, chromium, dark, findings, picture, resize

ROOT = Path(__file__).resolve().parents[1]
DEMO = ROOT / "example" / "demo.py"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Where this test's example keeps its database and its cache."""
    return tmp_path / "data"


@pytest.fixture
def environment(data: Path) -> dict[str, str]:
    paths = os.pathsep.join([str(ROOT), str(ROOT / "example")])
    return os.environ | {"EXAMPLE_DATA": str(data), "PYTHONPATH": paths}


@pytest.fixture
def address(environment: dict[str, str]) -> Iterator[str]:
    """The blog's address, served by two gunicorn workers on a free port."""
    command = [sys.executable, str(DEMO), "--posts", "300", "--serve", "--port", "0"]
    lines: list[str] = []
    found: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def read(output: Any) -> None:
        # To the end, or gunicorn would block once the pipe is full.
        for line in output:
            lines.append(line)
            if match := re.search(r"Listening at: (http://\S+)", line):
                found.put(match[1])
        found.put(None)

    with subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        reader = threading.Thread(target=read, args=[process.stdout])
        reader.start()
        try:
            address = found.get(timeout=PATIENCE)
            assert address, "".join(lines)
            yield address
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
            reader.join(PATIENCE)
    log = "".join(lines)
    assert "Traceback" not in log, log


@dataclass
class Page:
    text: str
    outcome: str
    worker: str


def read_page(url: str) -> Page:
    with urlopen(url, timeout=PATIENCE) as response:
        text = html.unescape(response.read().decode())
    measured = re.search(
        r"<strong>(hit|miss)</strong>,\s+\d+\.\d ms, worker (\d+)", text
    )
    assert measured, text
    return Page(text, measured[1], measured[2])


def read_from_both_workers(url: str) -> list[Page]:
    """Ask, several times at once, until each of the workers has answered."""
    pages: list[Page] = []
    with ThreadPoolExecutor(8) as threads:
        for _ in range(100):
            pages += threads.map(read_page, [url] * 8)
            if len({page.worker for page in pages}) == 2:
                return pages
    raise AssertionError("one worker never answered")


def edit(url: str, **fields: str) -> None:
    browser = build_opener(HTTPCookieProcessor(CookieJar()))
    with browser.open(url, timeout=PATIENCE) as response:
        form = response.read().decode()
    token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', form)
    assert token, form
    body = urlencode({"csrfmiddlewaretoken": token[1], **fields}).encode()
    with browser.open(url, body, timeout=PATIENCE) as response:
        assert not response.url.endswith("/edit/"), response.read().decode()


def test_the_demo_prints_a_table_and_tells_how_to_go_on(
    environment: dict[str, str],
) -> None:
    command = [sys.executable, "-W", "error", str(DEMO), "--posts", "100"]
    for added in (100, 0):  # the second run finds its posts
        run = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=PATIENCE
        )
        assert (run.returncode, run.stderr) == (0, "")
        assert f"100 posts ({added} of them new)" in run.stdout
        assert re.search(r"^8 callers at once: computations +1 +\d+$", run.stdout, re.M)
        assert re.search(r"^edited during .* read +new +old$", run.stdout, re.M)
        outcomes = re.findall(
            r"^(\w[\w ]+?) +(hit|miss) +[\d.]+ ms +(hit|miss) +[\d.]+ ms$",
            run.stdout,
            re.MULTILINE,
        )
        assert outcomes == [
            ("cold", "miss", "miss"),
            ("hot", "hit", "hit"),
            ("after invalidate", "miss", "miss"),
            ("hot again", "hit", "hit"),
            ("refresh", "miss", "miss"),
            ("hot after refresh", "hit", "hit"),
        ]
        assert "demo.py --serve" in run.stdout
        assert "http://127.0.0.1:8000/" in run.stdout


def test_without_gunicorn_it_says_what_to_install(environment):
    code = (
        "import runpy, sys; sys.modules['gunicorn'] = None; sys.argv[1:] = ['--serve']"
    )
    code += f"; runpy.run_path({str(DEMO)!r}, run_name='__main__')"
    run = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    assert run.returncode == 2
    assert "pip install gunicorn" in run.stderr


def test_an_edit_through_one_worker_is_seen_by_both(address: str) -> None:
    edited, neighbour = f"{address}/1/", f"{address}/2/"
    for url in (edited, neighbour):
        for page in read_from_both_workers(url):
            assert "Why put a function behind a cache?" in page.text

    for number in range(3):
        title = f"Edited, number {number}"
        edit(f"{edited}edit/", title=title, keywords="Cache, memoize cache")
        assert all(title in page.text for page in read_from_both_workers(edited))
        # The neighbour lists the edited post, so it had to be forgotten as well.
        pages = read_from_both_workers(neighbour)
        assert all(title in page.text for page in pages)
        # These readers came at once and to two processes: one of them computed.
        assert [page.outcome for page in pages].count("miss") == 1

    assert "Keywords: cache memoize<" in read_page(edited).text


def test_many_edits_at_once_leave_nothing_stale(address: str) -> None:
    """Nor does SQLite's one writer turn anybody away."""
    urls = [f"{address}/{pk}/" for pk in (1, 2, 3, 4)]

    def write(number: int) -> None:
        url = urls[number % 4]
        edit(f"{url}edit/", title=f"Title {number}", keywords="cache memoize")
        read_page(url)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(write, range(40)))

    titles = [re.search("<h1>(.+)</h1>", read_page(url).text) for url in urls]
    for url in urls:
        text = read_page(url).text
        assert all(title and title[1] in text for title in titles)


def test_the_page_without_an_invalidation(
    address: str, environment: dict[str, str]
) -> None:
    """It follows every write of every process, also one that sends no signal."""
    explicit, by_table = f"{address}/1/", f"{address}/1/table/"
    read_from_both_workers(by_table), read_page(explicit)
    edit(f"{address}/2/edit/", title="By a form", keywords="cache memoize")
    assert "By a form" in read_page(explicit).text
    pages = read_from_both_workers(by_table)
    assert all("By a form" in page.text for page in pages)
    assert [page.outcome for page in pages].count("miss") == 1

    code = "from blog.models import Post; "
    code += "Post.objects.filter(pk=2).update(title='By update()')"
    command = [sys.executable, str(DEMO.with_name("manage.py")), "shell", "-c", code]
    settings = {"DJANGO_SETTINGS_MODULE": "blog.settings"}
    subprocess.run(command, env=environment | settings, check=True, text=True)
    assert all("By update()" in page.text for page in read_from_both_workers(by_table))
    assert "By a form" in read_page(explicit).text


@pytest.fixture
def browser() -> Iterator[Any]:
    with chromium() as driver:
        resize(driver, 360, 640)  # a small telephone
        yield driver


class Reader:
    """Somebody in front of the browser."""

    def __init__(self, driver: Any, address: str) -> None:
        self.driver = driver
        self.driver.get(address)
        self.look()

    def look(self) -> None:
        """What has to be right on every page."""
        assert self.driver.get_log("browser") == []
        width = "return document.documentElement.scrollWidth"
        assert self.driver.execute_script(width) <= 360

    @staticmethod
    def gone(element: Any) -> bool:
        """Whether the page of this element has been left. Chrome has several errors
        for that, depending on the moment."""
        from selenium.common.exceptions import WebDriverException

        try:
            element.is_enabled()
        except WebDriverException:
            return True
        return False

    def click(self, selector: str, text: str = "") -> None:
        from selenium.webdriver.support import expected_conditions
        from selenium.webdriver.support.wait import WebDriverWait

        [target] = [
            element
            for element in self.driver.find_elements("css selector", selector)
            if text in element.text
        ]
        target.click()
        wait = WebDriverWait(self.driver, PATIENCE)
        wait.until(lambda driver: self.gone(target))
        wait.until(expected_conditions.presence_of_element_located(("id", "measured")))
        self.look()

    def read_again(self) -> None:
        self.driver.refresh()
        self.look()

    def type(self, name: str, text: str) -> None:
        field = self.driver.find_element("name", name)
        field.clear()
        field.send_keys(text)

    def sees(self, selector: str) -> str:
        return str(self.driver.find_element("css selector", selector).text)

    @property
    def outcome(self) -> str:
        measured = self.sees("#measured")
        match = re.fullmatch(
            r"\w+\(\d*\): (hit|miss), \d+\.\d ms, worker \d+", measured
        )
        assert match, measured
        return match[1]


@pytest.mark.thorough
def test_a_reader_clicks_through(browser: Any, address: str, data: Path) -> None:
    reader = Reader(browser, address)
    assert reader.outcome == "miss"
    reader.read_again()
    assert reader.outcome == "hit"

    # Read, and read again.
    reader.click("ol a", "After an edit: invalidate()")
    assert reader.outcome == "miss"
    related = reader.sees(".related")
    reader.read_again()
    assert reader.outcome == "hit"
    assert reader.sees(".related") == related

    # Edit: the next view is fresh, here and on a page that lists this post.
    reader.click("main a", "Edit this post")
    assert reader.outcome == "hit"
    reader.type("title", "Forgotten")
    reader.type("keywords", "invalidate worker process")
    reader.click("button", "Save")
    assert reader.sees("h1") == "Forgotten"
    assert reader.outcome == "miss"
    assert reader.sees(".related") != related
    assert "One cache, two workers" in reader.sees(".related li")
    reader.click(".related a", "One cache, two workers")
    assert "Forgotten" in reader.sees(".related")

    # Somebody changes the database behind the blog's back: nothing was invalidated.
    with closing(sqlite3.connect(data / "blog.sqlite3", timeout=PATIENCE)) as database:
        database.execute("UPDATE blog_post SET title = 'Unannounced' WHERE id = 2")
        database.commit()
    reader.read_again()
    assert reader.outcome == "hit"
    assert "Forgotten" in reader.sees(".related")

    # Refresh: a hit, and fresh.
    reader.click("button", "Refresh")
    assert reader.outcome == "hit"
    assert "Unannounced" in reader.sees(".related")
    assert "Forgotten" not in reader.sees(".related")
    reader.read_again()
    assert reader.outcome == "hit"


@pytest.mark.thorough
def test_every_page_is_for_everybody(browser: Any, address: str, request: Any) -> None:
    """In both themes; ``--screenshots`` renews the pictures of the docs."""
    for path in ("/", "/1/", "/1/table/", "/1/edit/"):
        reader = Reader(browser, address + path)
        for theme in ("light", "dark"):
            dark(browser, theme == "dark")
            assert findings(browser) == [], path
    assert reader.outcome == "hit"
    if request.config.getoption("--screenshots"):
        resize(browser, 720, 640)
        browser.get(f"{address}/1/")
        for theme in ("light", "dark"):
            dark(browser, theme == "dark")
            picture(browser, f"example-{theme}", 720, 700)


def test_the_admin_of_the_example(address: str) -> None:
    """Its style sheets are served, and it is closed to those without a password."""
    with urlopen(f"{address}/static/cache_memoize/admin.css", timeout=PATIENCE) as css:
        assert css.status == 200
    url = f"{address}/admin/cache_memoize/memoizedfunction/"
    with urlopen(url, timeout=PATIENCE) as page:
        assert "/admin/login/" in page.url
