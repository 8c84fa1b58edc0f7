"""Posts for the example: five written by hand, thousands generated."""

import random

from .models import Post

# The blog explains the library, so these come first and are related to each other.
WRITTEN = [
    (
        "Why put a function behind a cache?",
        "cache memoize speed function",
        "Finding related posts means comparing this post with every other one. That "
        "takes a moment, on every page view, for a result that rarely changes. "
        "@cache_memoize stores the result under a key made from the arguments. Reload "
        "this page: the line above changes from miss to hit.",
    ),
    (
        "After an edit: invalidate()",
        "cache memoize invalidate edit",
        "When a post is edited, results computed from it are outdated. "
        "related_posts.invalidate(pk) takes the arguments of the call. Edit this post: "
        "the next view is a miss, and fresh, in every worker.",
    ),
    (
        "Compute it again: _refresh=True",
        "cache memoize refresh function",
        "related_posts(pk, _refresh=True) computes and stores the result. Readers get "
        "the old one until then, so they do not wait. The button below does this: the "
        "next view is a hit, and fresh.",
    ),
    (
        "Mistakes in hand-written caches",
        "cache memoize invalidate race stampede",
        "blog/related.py has both versions of the same cache. The hand-written one may "
        "store an old result after an invalidation, if it was computed meanwhile, and "
        "all readers compute at the same time when the entry is missing.",
    ),
    (
        "One cache, two workers",
        "cache invalidate worker process",
        "The line on each page shows the worker process of the response. All workers "
        "share one cache, so an edit in one worker applies to all of them.",
    ),
]

PLACES = (
    "alpine coastal desert forest garden harbour highland island lakeside meadow "
    "mountain northern river rural southern suburban urban valley village winter"
).split()
SUBJECTS = (
    "archery astronomy baking beekeeping botany brewing carpentry cheese chess "
    "climbing cycling dance drawing fishing geology hiking history music painting "
    "poetry pottery printing railways rowing running sailing singing theatre weather "
    "weaving"
).split()
OPENINGS = ["Notes on", "A year of", "First steps in", "Questions about", "More on"]


def make_posts(count: int) -> list[Post]:
    """Return the first `count` posts, the same ones in every run."""
    pick = random.Random(2026)
    posts = [
        Post(pk=pk, title=title, keywords=keywords, body=body)
        for pk, (title, keywords, body) in enumerate(WRITTEN, start=1)
    ]
    for pk in range(len(posts) + 1, count + 1):
        subject, other = pick.sample(SUBJECTS, 2)
        places = pick.sample(PLACES, 4)
        words = [f"{place}-{subject}" for place in places]
        words.append(f"{places[0]}-{other}")
        title = f"{pick.choice(OPENINGS)} {places[0]} {subject}, part {pk}"
        body = f"Generated, to have posts to compare: {', '.join(words)}."
        posts.append(Post(pk=pk, title=title, keywords=" ".join(words), body=body))
    return posts[:count]


def seed(count: int) -> int:
    """Add the missing posts without changing edited ones; return their number."""
    before = Post.objects.count()
    Post.objects.bulk_create(make_posts(count), ignore_conflicts=True)
    return Post.objects.count() - before
