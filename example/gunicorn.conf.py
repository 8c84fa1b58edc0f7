"""Two workers with one cache: ``gunicorn -c example/gunicorn.conf.py``."""

from pathlib import Path

wsgi_app = "django.core.wsgi:get_wsgi_application()"
pythonpath = str(Path(__file__).parent)
raw_env = ["DJANGO_SETTINGS_MODULE=blog.settings"]
bind = "127.0.0.1:8000"
workers = 2
# Browsers open connections ahead of need: one thread each, or they block a worker.
threads = 4
# It is one per user and machine: a second server would take it from the first.
control_socket_disable = True
# Ctrl-C ends it at once, whatever connections browsers keep open.
graceful_timeout = 1
