"""The site that view.py puts load on: one page, its list got in several ways.

All are served by the same worker process, with what a site has in production: no debug
mode, cached templates. ``/told/`` says how often the list was computed.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import django
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.urls import path

from benchmarks.view import BARE, BY_HAND, ESTABLISHED, FOLDER, OURS, PATHS

PAGE = """<!doctype html><title>{{ title }}</title><h1>{{ title }}</h1>
<ul>{% for post in posts %}<li><a href="{{ post.url }}">{{ post.title }}</a>{% endfor %}
</ul>"""
POSTS = [
    {"id": n, "title": f"How to do it, part {n}", "url": f"/posts/{n}/"}
    for n in range(1000, 1005)
]

settings.configure(
    ALLOWED_HOSTS=["127.0.0.1"],
    CACHES={"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}},
    DEBUG=False,
    MIDDLEWARE=["django.middleware.common.CommonMiddleware"],
    ROOT_URLCONF=__name__,
    SECRET_KEY="only for the benchmark",
    TEMPLATES=[
        {
            "BACKEND": "django.template.backends.django.DjangoTemplates",
            "OPTIONS": {
                "loaders": [
                    (
                        "django.template.loaders.cached.Loader",
                        [("django.template.loaders.locmem.Loader", {"page": PAGE})],
                    )
                ]
            },
        }
    ],
)
django.setup()

from benchmarks.peers import PEERS, Case, Missing, Style, ours, subject  # noqa: E402
from benchmarks.places import LOCAL  # noqa: E402

Ask = Callable[[int], Any]

computed: dict[str, list[object]] = {}
missing: dict[str, str] = {}


def posts(post: int) -> Any:
    return POSTS


def ways() -> dict[str, Ask]:
    """The functions that give the list."""
    folder = os.environ.get(FOLDER)
    style = Style("once per request")
    case = Case(LOCAL, style, Path(folder) if folder else None)
    found: dict[str, Ask] = {BARE: posts}
    for name in (OURS, BY_HAND, ESTABLISHED):
        decorator = PEERS.get(name, ours)
        function, runs = subject(POSTS, style)
        try:
            found[name] = decorator(case)(function)
        except Missing as why:
            missing[name] = str(why)
        else:
            computed[name] = runs
    return found


def page(ask: Ask) -> Callable[[HttpRequest], HttpResponse]:
    def view(request: HttpRequest) -> HttpResponse:
        context = {"title": "Related posts", "posts": ask(42)}
        return render(request, "page", context)

    return view


def told(request: HttpRequest) -> JsonResponse:
    runs = {name: len(each) for name, each in computed.items()}
    return JsonResponse({"computed": runs, "missing": missing})


urlpatterns = [
    *(path(PATHS[name], page(ask)) for name, ask in ways().items()),
    path("told/", told),
]
application = get_wsgi_application()
