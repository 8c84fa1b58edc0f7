"""Posts for the example: a few written by hand, thousands made up."""

import random

from .models import Post

# The blog explains the library, so these come first and are related to each other.
WRITTEN = [
    (
        "Why put a function behind a cache?",
        "cache memoize speed function",
        "Finding related posts means comparing this post with every other one. That "
        "takes a moment, on every page view, for an answer that rarely changes. "
        "@cache_memoize keeps the answer under a key made from the arguments. Reload "
        "this page: the line above turns from miss to hit.",
    ),
    (
        "Forget it: invalidate()",
        "cache memoize invalidate edit",
        "When a post is edited, what was computed from it is wrong. "
        "related_posts.invalidate(pk) takes the arguments of the call to forget. Edit "
        "this post: the next view is a miss, and fresh, whichever worker answers.",
    ),
    (
        "Renew it: _refresh=True",
        "cache memoize refresh function",
        "related_posts(pk, _refresh=True) computes anew and stores the result. Readers "
        "keep getting the old one until then, so nobody has to wait. The button "
        "below does just that: the next view is a hit, and fresh.",
    ),
    (
        "What goes wrong when it is written by hand",
        "cache memoize invalidate race stampede",
        "blog/related.py has both versions of the same cache. The one written by hand "
        "stores an old answer after an invalidation when it was being computed "
        "meanwhile, and lets everybody compute at once when the entry is gone.",
    ),
    (
        "One cache, two workers",
        "cache invalidate worker process",
        "The line on each page names the worker process that answered. All workers "
        "use one cache, so an edit through one of them is seen by the others.",
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
    """The first `count` posts, the same ones in every run."""
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
        body = f"Made up, so that there is something to compare: {', '.join(words)}."
        posts.append(Post(pk=pk, title=title, keywords=" ".join(words), body=body))
    return posts[:count]


def seed(count: int) -> int:
    """Add the posts that are missing, leave edited ones alone; return how many."""
    before = Post.objects.count()
    Post.objects.bulk_create(make_posts(count), ignore_conflicts=True)
    return Post.objects.count() - before
