"""A project with django-debug-toolbar, for test_panels.py."""

import os
import tempfile
from pathlib import Path

FOLDER = os.environ.get("MEMOIZE_FOLDER") or tempfile.mkdtemp(prefix="memoize-toolbar-")
SECRET_KEY = "only for the tests"
DEBUG = True
USE_TZ = True
ALLOWED_HOSTS = ["*"]
INTERNAL_IPS = ["127.0.0.1"]
INSTALLED_APPS = ["django.contrib.staticfiles", "debug_toolbar", "tests"]
MIDDLEWARE = ["debug_toolbar.middleware.DebugToolbarMiddleware"]
ROOT_URLCONF = "tests.toolbar"
STATIC_URL = "static/"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": ["django.template.context_processors.request"]
        },
    }
]
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": Path(FOLDER) / "toolbar.sqlite3",
    }
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
DEBUG_TOOLBAR_PANELS = ["cache_memoize.panels.MemoizePanel"]
DEBUG_TOOLBAR_CONFIG = {
    "RENDER_PANELS": True,
    "SHOW_COLLAPSED": False,
    "ROOT_TAG_EXTRA_ATTRS": "",
}
