"""Compare the memoized function with the same cache written by hand, on a seeded blog.

``python example/demo.py`` prints the mistakes of each, and how long each takes;
``python example/demo.py --serve`` then serves the blog with two gunicorn workers.
"""

import argparse
import gc
import os
import secrets
import shlex
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import django
from django.conf import settings
from django.core.cache import cache
from django.core.management import call_command
from django.db import connections

HERE = Path(__file__).resolve().parent
PK = 1  # the post whose related posts are measured
HITS = 20  # the fastest of this number of calls: code is slow at its first run
CALLERS = 8
Function = Callable[..., Any]


def print_mistakes() -> None:
    from blog import related

    both = [
        (related.related_posts, related.related_posts.invalidate),
        (related.related_posts_by_hand, related.invalidate_related_posts_by_hand),
    ]
    print(f"{'situation':<42}{'decorated':>11}{'by hand':>11}")
    counts = [computations_at_once(*each) for each in both]
    line(f"{CALLERS} callers at once: computations", *counts)
    reads = [read_after_an_edit(*each) for each in both]
    line("edited during the computation: then read", *reads)
    print()


def line(label: str, *cells: object) -> None:
    print(f"{label:<42}" + "".join(f"{cell:>11}" for cell in cells))


def computations_at_once(call: Function, invalidate: Function) -> int:
    """Return how many of several callers compute a call that was just invalidated."""
    from blog.measure import measured

    invalidate(PK)
    together = threading.Barrier(CALLERS)

    def one(_: int) -> bool:
        together.wait()
        try:
            return measured(call, PK).outcome == "miss"
        finally:
            connections.close_all()

    with ThreadPoolExecutor(CALLERS) as threads:
        return sum(threads.map(one, range(CALLERS)))


def read_after_an_edit(call: Function, invalidate: Function) -> str:
    """Return whether readers get the new or the old value after an edit.

    The edit and the invalidation come during a computation, which has read the rows
    before the edit and ends last.
    """
    from blog import related
    from blog.models import Post

    find, titles = related.find_related, Post.objects.filter(pk=find_neighbour())
    before = titles.get().title

    def edited_meanwhile(pk: int) -> Any:
        related.find_related = find
        found = find(pk)
        titles.update(title=f"{before}, edited")
        invalidate(pk)
        return found

    invalidate(PK)
    related.find_related = edited_meanwhile
    call(PK)
    outcome = "new" if call(PK) == find(PK) else "old"
    titles.update(title=before)
    invalidate(PK)
    return outcome


def find_neighbour() -> int:
    from blog import related

    return int(related.find_related(PK)[0]["pk"])


def print_times() -> None:
    # Not at the top: they import models, which need the settings.
    from blog import related
    from blog.measure import Measured, measured

    def times(label: str, *both: Measured) -> None:
        cells = (f"{m.outcome:<5}{m.milliseconds:7.3f} ms" for m in both)
        print(f"{label:<18}  {'    '.join(cells)}")

    def call_both(label: str, calls: int = 1) -> None:
        times(
            label,
            fastest(related.related_posts, calls),
            fastest(related.related_posts_by_hand, calls),
        )

    def fastest(function: Callable[[int], Any], calls: int) -> Measured:
        return min(
            (measured(function, PK) for _ in range(calls)),
            key=lambda each: each.milliseconds,
        )

    related.find_related(PK)  # opens the database, which is not measured
    gc.disable()  # a collection would be measured as well
    print(f"{'':<18}  {'decorated':<15}    by hand")
    call_both("cold")
    call_both("hot", HITS)
    related.related_posts.invalidate(PK)
    related.invalidate_related_posts_by_hand(PK)
    call_both("after invalidate")
    call_both("hot again", HITS)
    times(
        "refresh",
        measured(related.related_posts, PK, _refresh=True),
        measured(related.renew_related_posts_by_hand, PK),
    )
    call_both("hot after refresh", HITS)
    print(f"\nhot: the fastest of {HITS}")


def create_admin() -> str:
    """Create the user ``admin``; return the password of this run."""
    from django.contrib.auth import get_user_model

    user, _ = get_user_model().objects.get_or_create(username="admin")
    password = secrets.token_urlsafe(6)
    user.is_staff = user.is_superuser = True
    user.set_password(password)
    user.save()
    return password


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--posts", type=int, default=5000, help="default: 5000")
    parser.add_argument("--serve", action="store_true", help="then start gunicorn")
    parser.add_argument("--port", type=int, default=8000, help="0: any free port")
    options = parser.parse_args()
    if options.serve and find_spec("gunicorn") is None:
        parser.error("--serve starts gunicorn; pip install gunicorn")

    os.environ["DJANGO_SETTINGS_MODULE"] = "blog.settings"
    django.setup()
    call_command("migrate", verbosity=0)
    from blog.models import Post
    from blog.seed import seed

    added = seed(options.posts)
    cache.clear()
    print(f"{Post.objects.count()} posts ({added} of them new) in {settings.DATA}\n")
    print_mistakes()
    cache.clear()  # so that the second run starts cold too
    print_times()

    if options.serve:
        password = create_admin()
        connections.close_all()
        print(f"\nLog in at /admin/, which shows hit rates, as admin with {password}")
        print("\nOpen the address after 'Listening at'; Ctrl-C stops.", flush=True)
        command = [sys.executable, "-m", "gunicorn"]
        command += ["--config", str(HERE / "gunicorn.conf.py")]
        command += ["--bind", f"127.0.0.1:{options.port}"]
        # Replaces this process, so that Ctrl-C and signals reach gunicorn.
        os.execv(sys.executable, command)
    command = [sys.executable, os.path.relpath(__file__), "--serve"]
    print(f"\nTo open the blog, run\n    {shlex.join(command)}")
    print("and open http://127.0.0.1:8000/")


if __name__ == "__main__":
    main()
