"""One cache alias per backend that the library has to be right on."""

import atexit
import importlib.util
import os
import shutil
import tempfile
from pathlib import Path

import django

from tests.servers import SERVERS


def _folder() -> str:
    folder, owner = tempfile.mkdtemp(prefix="memoize-tests-"), os.getpid()

    def remove() -> None:
        if os.getpid() == owner:  # and not a process that it has forked
            shutil.rmtree(folder, ignore_errors=True)

    atexit.register(remove)
    return folder


FOLDER = os.environ.get("MEMOIZE_FOLDER") or _folder()
SECRET_KEY = "only for the tests"
USE_TZ = True
INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "cache_memoize",
    "tests",
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
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
STATIC_URL = "/static/"
# Tests that want the figures of the whole site ask for them; scripts do not.
CACHE_MEMOIZE = {"STATS_INTERVAL": 0}
ROOT_URLCONF = "tests.urls"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": Path(FOLDER) / "db.sqlite3",
        "OPTIONS": {"timeout": 30},
        # Threads and processes need a real file.
        "TEST": {"NAME": Path(FOLDER) / "test.sqlite3"},
    }
}
if SERVERS["postgresql"].binary:
    DATABASES["postgresql"] = {
        "ENGINE": "django.db.backends.postgresql",
        "HOST": "127.0.0.1",
        "PORT": SERVERS["postgresql"].port,
        "USER": "tests",
        "NAME": "postgres",
        "TEST": {"NAME": "test_memoize"},
    }
if SERVERS["mariadb"].binary:  # which says so only where the driver is there too
    import pymysql

    pymysql.install_as_MySQLdb()
    DATABASES["mariadb"] = {
        "ENGINE": "django.db.backends.mysql",
        "HOST": "127.0.0.1",
        "PORT": SERVERS["mariadb"].port,
        "USER": "root",
        "OPTIONS": {"isolation_level": None},  # the server's own: REPEATABLE READ
        "TEST": {"NAME": "test_memoize"},
    }
DATABASE_ROUTERS = ["tests.routers.CacheRouter"]

_REDIS = "django.core.cache.backends.redis.RedisCache"
_PYMEMCACHE = "django.core.cache.backends.memcached.PyMemcacheCache"
_PYLIBMC = "django.core.cache.backends.memcached.PyLibMCCache"
_DATABASE = "django.core.cache.backends.db.DatabaseCache"
_ports = {name: server.port for name, server in SERVERS.items()}
_memcached = f"127.0.0.1:{_ports['memcached']}"

CACHES = {
    "default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"},
    "locmem": {
        "BACKEND": "django.core.cache.backends.locmem.LocMemCache",
        "LOCATION": "other",
    },
    "valkey": {"BACKEND": _REDIS, "LOCATION": f"redis://127.0.0.1:{_ports['valkey']}"},
    "redis": {"BACKEND": _REDIS, "LOCATION": f"redis://127.0.0.1:{_ports['redis']}"},
    "django_redis": {
        "BACKEND": "django_redis.cache.RedisCache",
        "LOCATION": f"redis://127.0.0.1:{_ports['redis']}/1",
    },
    "django_valkey": {
        "BACKEND": "django_valkey.cache.ValkeyCache",
        "LOCATION": f"valkey://127.0.0.1:{_ports['valkey']}/1",
    },
    "cluster": {
        "BACKEND": "cache_memoize.cluster.RedisClusterCache",
        "LOCATION": f"redis://127.0.0.1:{_ports['cluster']}",
    },
    "sentinel": {
        "BACKEND": "django_redis.cache.RedisCache",
        "LOCATION": "redis://memoize/0",
        "OPTIONS": {
            "CLIENT_CLASS": "django_redis.client.SentinelClient",
            "CONNECTION_FACTORY": "django_redis.pool.SentinelConnectionFactory",
            "SENTINELS": [("127.0.0.1", _ports["sentinel"])],
        },
    },
    "pymemcache": {"BACKEND": _PYMEMCACHE, "LOCATION": _memcached},
    "pylibmc": {
        "BACKEND": _PYLIBMC,
        "LOCATION": _memcached,
        "KEY_PREFIX": "cas",
        "OPTIONS": {"behaviors": {"cas": True}},
    },
    "pylibmc_without_cas": {
        "BACKEND": _PYLIBMC,
        "LOCATION": _memcached,
        "KEY_PREFIX": "plain",
    },
    "sqlite": {"BACKEND": _DATABASE, "LOCATION": "cache_sqlite"},
    "postgresql": {"BACKEND": _DATABASE, "LOCATION": "cache_postgresql"},
    "file": {
        "BACKEND": "django.core.cache.backends.filebased.FileBasedCache",
        "LOCATION": Path(FOLDER) / "cache",
    },
    "unknown": {"BACKEND": "tests.backends.UnknownCache", "LOCATION": "unknown"},
    "dummy": {"BACKEND": "django.core.cache.backends.dummy.DummyCache"},
}
if django.VERSION < (5, 2):  # django-valkey needs it
    del CACHES["django_valkey"]
if importlib.util.find_spec("pylibmc") is None:
    del CACHES["pylibmc"], CACHES["pylibmc_without_cas"]
