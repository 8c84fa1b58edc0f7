"""Sphinx: ``sphinx-build -W --keep-going -b html docs OUT``."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import cache_memoize

project = "django-cache-memoize"
author = "the authors of django-cache-memoize"
project_copyright = "the authors of django-cache-memoize"
release = version = cache_memoize.__version__

extensions = ["sphinx.ext.autodoc"]
# The tables are included by other pages.
exclude_patterns = ["_build", "*-table.rst"]
html_theme = "furo"
html_title = f"{project} {release}"

autodoc_member_order = "bysource"
autodoc_typehints = "none"
