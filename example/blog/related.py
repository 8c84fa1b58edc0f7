"""The same cache three times: written by hand, with invalidations, and without."""

from collections import Counter
from typing import Any

from django.core.cache import cache

from cache_memoize import cache_memoize

from .measure import hit, miss
from .models import Post

DAY = 24 * 60 * 60


def find_related(pk: int) -> list[dict[str, Any]]:
    """Return the ten posts that have most keywords in common with this one.

    It compares the post with every other one, which is slow enough to need a cache.
    It returns plain data, not model instances: plain data is small, and does not
    depend on the code of a model.
    """
    own = Post.objects.get(pk=pk).keyword_set
    found = []
    for post in Post.objects.exclude(pk=pk):
        shared = own & post.keyword_set
        if shared:
            likeness = len(shared) / len(own | post.keyword_set)
            found.append((-likeness, post.pk, post.title, sorted(shared)))
    return [
        {"pk": pk, "title": title, "shared": shared}
        for _, pk, title, shared in sorted(found)[:10]
    ]


# --- 1. Written by hand --------------------------------------------------------------
#
# Four functions, to be written again for each cached function, with two mistakes:
# - A computation that began before an edit stores its old result after the deletion,
#   where it stays for a day.
# - When the entry is missing, all readers compute it at the same time.

MISSING = object()


def related_key(pk: int) -> str:
    return f"related-posts:{pk}"


def related_posts_by_hand(pk: int) -> list[dict[str, Any]]:
    found = cache.get(related_key(pk), MISSING)
    if found is MISSING:
        found = renew_related_posts_by_hand(pk)
    else:
        hit(pk)
    return found


def renew_related_posts_by_hand(pk: int) -> list[dict[str, Any]]:
    found = find_related(pk)
    cache.set(related_key(pk), found, DAY)
    miss(pk)
    return found


def invalidate_related_posts_by_hand(pk: int) -> None:
    cache.delete(related_key(pk))


# --- 2. With the decorator -----------------------------------------------------------
#
# related_posts(pk)                 from the cache, or computed by one caller at a time
# related_posts(pk, _refresh=True)  computed again and stored
# related_posts.invalidate(pk)      invalidated, even during a computation
# related_posts.invalidate_on(...)  invalidated whenever a post is saved; see below


@cache_memoize(DAY, hit_callable=hit, miss_callable=miss)
def related_posts(pk: int) -> list[dict[str, Any]]:
    return find_related(pk)


# --- 3. Without an invalidation ------------------------------------------------------
#
# Every write to the posts invalidates it, in whichever process, and without a signal
# too: update(), the bulk methods, raw SQL. But it invalidates all calls, where
# invalidate_on() below invalidates those of the posts that share a keyword.


@cache_memoize(DAY, depends_on=Post, hit_callable=hit, miss_callable=miss)
def related_posts_by_table(pk: int) -> list[dict[str, Any]]:
    return find_related(pk)


# --- Popular keywords ----------------------------------------------------------------


@cache_memoize(DAY, hit_callable=hit, miss_callable=miss)
def popular_keywords() -> list[str]:
    """Return the most frequent keywords, for the front page."""
    count = Counter(word for post in Post.objects.all() for word in post.keyword_set)
    by_count = sorted(count.items(), key=lambda item: (-item[1], item[0]))
    return [word for word, _ in by_count[:20]]


# --- Invalidation on save -------------------------------------------------------------


def affected(post: Post) -> list[tuple[int]]:
    """Return the arguments of the calls that an edit of this post may change.

    Any other post that has one of its keywords, before the edit or after it, may list
    this post, under its old title or for a keyword that it no longer has; a post that
    has none of them did not list it and will not.
    """
    keywords = post.keyword_set | post.replaced
    others = Post.objects.exclude(pk=post.pk).only("keywords")
    return [(post.pk,)] + [(o.pk,) for o in others if keywords & o.keyword_set]


# When a post is saved or deleted, the calls are invalidated: for this transaction at
# once, for everyone else on commit.
related_posts.invalidate_on(Post, affected)
popular_keywords.invalidate_on(Post, lambda post: ())
