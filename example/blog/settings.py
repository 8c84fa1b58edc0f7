"""Settings of the example: nothing to install, nothing to start, no server."""

import os
from pathlib import Path

# Everything that the example writes is in this one folder; delete it to start anew.
DATA = Path(os.environ.get("EXAMPLE_DATA") or Path(__file__).parents[1] / "data")
DATA = DATA.resolve()
DATA.mkdir(parents=True, exist_ok=True)

# An example for one's own machine: never a secret, never reachable from outside.
SECRET_KEY = "example-only-not-a-secret"
DEBUG = True
ALLOWED_HOSTS = ["127.0.0.1", "localhost"]

INSTALLED_APPS = [
    "blog",
    "cache_memoize",  # the admin page with hit rates; the decorator does without
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
ROOT_URLCONF = "blog.urls"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
STATIC_URL = "static/"

DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": DATA / "blog.sqlite3",
        # SQLite has one writer at a time: the others wait instead of failing.
        "OPTIONS": {"timeout": 20},
        # SQLite reads from a snapshot: inside of a transaction nothing is stored.
        "ATOMIC_REQUESTS": False,
    }
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# Files, because all processes on this machine share them without a server. Local
# memory would give each gunicorn worker a cache of its own, deaf to the other's
# invalidations; the database cache would queue every miss up behind SQLite's one
# writer. In production use Redis or Memcached: only this setting changes.
CACHES = {
    "default": {
        "BACKEND": "django.core.cache.backends.filebased.FileBasedCache",
        "LOCATION": DATA / "cache",
        # The default of 300 would throw entries away as soon as a reader browses.
        "OPTIONS": {"MAX_ENTRIES": 20_000},
    }
}

USE_TZ = True
