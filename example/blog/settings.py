"""Settings of the example, which needs no server."""

import os
from pathlib import Path

# The example writes to this folder only; delete it to start again.
DATA = Path(os.environ.get("EXAMPLE_DATA") or Path(__file__).parents[1] / "data")
DATA = DATA.resolve()
DATA.mkdir(parents=True, exist_ok=True)

# For your own machine only: the key is not secret.
SECRET_KEY = "example-only-not-a-secret"
DEBUG = True
ALLOWED_HOSTS = ["127.0.0.1", "localhost"]

INSTALLED_APPS = [
    "blog",
    "cache_memoize",  # the admin page with hit rates; the decorator does not need it
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
        # SQLite reads from a snapshot: inside a transaction nothing is stored.
        "ATOMIC_REQUESTS": False,
    }
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# Files, because all processes on this machine share them without a server. With local
# memory, each gunicorn worker would have a cache of its own, without the invalidations
# of the other; with the database cache, every miss would wait for SQLite's one writer.
# In production use Redis or Memcached: only this setting changes.
CACHES = {
    "default": {
        "BACKEND": "django.core.cache.backends.filebased.FileBasedCache",
        "LOCATION": DATA / "cache",
        # The default of 300 would evict entries after a few pages.
        "OPTIONS": {"MAX_ENTRIES": 20_000},
    }
}

USE_TZ = True
