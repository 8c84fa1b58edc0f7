"""A site with two workers whose metrics test_prometheus.py reads: ``application``."""

from __future__ import annotations

import os
from typing import Any

import django
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse
from django.urls import path

if not settings.configured:
    settings.configure(
        SECRET_KEY="only for the tests",
        ALLOWED_HOSTS=["*"],
        ROOT_URLCONF="tests.metrics",
        CACHES={
            "default": {
                "BACKEND": "django.core.cache.backends.filebased.FileBasedCache",
                "LOCATION": os.environ["MEMOIZE_FOLDER"],
            }
        },
        CACHE_MEMOIZE={"STATS_INTERVAL": 0.05},
    )
django.setup()

from django_prometheus.exports import ExportToDjangoView  # noqa: E402

from cache_memoize import cache_memoize, prometheus  # noqa: E402

prometheus.connect()


@cache_memoize(60, prefix="metrics")
def square(x: int) -> int:
    return x * x


def call(request: Any) -> HttpResponse:
    square(3)
    return HttpResponse(str(os.getpid()))


urlpatterns = [path("", call), path("metrics", ExportToDjangoView)]
# Before the workers are forked: whatever this process has counted is its own.
for _ in range(5):
    square(2)
application = get_wsgi_application()
