"""One process of many that count: ``python -m tests.counting ALIAS CALLS SEED``.

Calls one memoized function so often, and says from time to time how far it is.
"""

import os
import random
import sys

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
django.setup()

from django.conf import settings  # noqa: E402

from cache_memoize import cache_memoize  # noqa: E402
from cache_memoize.stats import sitewide  # noqa: E402
from cache_memoize.stats.reporter import reporter  # noqa: E402


def counted(x: int) -> int:
    return x


def main(alias: str, calls: int, seed: str) -> None:
    settings.CACHE_MEMOIZE = {"STATS_INTERVAL": 0.1}
    reporter.add(sitewide.tell)
    memoized = cache_memoize(600, prefix="counted", cache_alias=alias)(counted)
    luck = random.Random(seed)
    for number in range(calls):
        memoized(luck.randrange(50))
        if number % 500 == 499:
            print(number + 1, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
