"""What a visitor looks at."""

from cache_memoize import cache_memoize
from shop.clock import CLOCK, ask


@cache_memoize(
    600, tags=lambda product_id, lang="en": f"product:{product_id}", _clock=CLOCK
)
def related_products(product_id, lang="en"):
    """Products whose descriptions share the most words with this one's.

    Reads every description: memoize it, and forget it when a product is saved.
    """
    CLOCK.tick(0.18)
    return [product_id + step for step in range(1, 6)]


@cache_memoize(120, stale=3600, jitter=0.1, tags=("search",), _clock=CLOCK)
def search(words, page=1):
    """One page of results."""
    ask("search", 0.42)
    return [len(words) * page] * 20


@cache_memoize(300, tags=(), vary_on="language", _clock=CLOCK)
def best_sellers(category=None):
    """Of the last thirty days."""
    CLOCK.tick(1.3)
    return list(range(10))
