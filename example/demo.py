"""The example's main job: seed the blog, measure the memoized function, say so.

``python example/demo.py`` prints a table of times;
``python example/demo.py --serve`` then serves the blog with two gunicorn workers.
"""

import argparse
import gc
import os
import secrets
import shlex
import sys
from collections.abc import Callable
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
HITS = 20  # the fastest of so many: code that has just run for the first time is slow


def print_table() -> None:
    # Not at the top: they import models, which need the settings.
    from blog import related
    from blog.measure import Measured, measured

    def line(label: str, *both: Measured) -> None:
        cells = (f"{m.outcome:<5}{m.milliseconds:7.3f} ms" for m in both)
        print(f"{label:<18}  {'    '.join(cells)}")

    def call_both(label: str, times: int = 1) -> None:
        line(
            label,
            fastest(related.related_posts, times),
            fastest(related.related_posts_by_hand, times),
        )

    def fastest(function: Callable[[int], Any], times: int) -> Measured:
        return min(
            (measured(function, PK) for _ in range(times)),
            key=lambda each: each.milliseconds,
        )

    related.find_related(PK)  # opens the database: not what is measured here
    gc.disable()  # a collection would count as time of whoever is measured then
    print(f"{'':<18}  {'decorated':<15}    by hand")
    call_both("cold")
    call_both("hot", HITS)
    related.related_posts.invalidate(PK)
    related.forget_related_posts_by_hand(PK)
    call_both("after invalidate")
    call_both("hot again", HITS)
    line(
        "refresh",
        measured(related.related_posts, PK, _refresh=True),
        measured(related.renew_related_posts_by_hand, PK),
    )
    call_both("hot after refresh", HITS)
    print(f"\nhot: the fastest of {HITS}")


def let_somebody_in() -> str:
    """The password of this run for the user ``admin``."""
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
    parser.add_argument("--port", type=int, default=8000, help="0 is any free one")
    options = parser.parse_args()
    if options.serve and find_spec("gunicorn") is None:
        parser.error("--serve starts gunicorn; pip install gunicorn")

    os.environ["DJANGO_SETTINGS_MODULE"] = "blog.settings"
    django.setup()
    call_command("migrate", verbosity=0)
    from blog.models import Post
    from blog.seed import seed

    added = seed(options.posts)
    cache.clear()  # so that cold is cold, also in the second run
    print(f"{Post.objects.count()} posts ({added} of them new) in {settings.DATA}\n")
    print_table()

    if options.serve:
        password = let_somebody_in()
        connections.close_all()
        print(f"\nThe admin, with hit rates, is under /admin/: admin, {password}")
        print("\nOpen the address after 'Listening at'; Ctrl-C stops.", flush=True)
        command = [sys.executable, "-m", "gunicorn"]
        command += ["--config", str(HERE / "gunicorn.conf.py")]
        command += ["--bind", f"127.0.0.1:{options.port}"]
        # In place of this process, so that Ctrl-C and signals reach gunicorn.
        os.execv(sys.executable, command)
    command = [sys.executable, os.path.relpath(__file__), "--serve"]
    print(f"\nTo open the blog, run\n    {shlex.join(command)}")
    print("and open http://127.0.0.1:8000/")


if __name__ == "__main__":
    main()
