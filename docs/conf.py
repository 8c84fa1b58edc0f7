"""Sphinx: ``sphinx-build -W --keep-going -b html docs OUT``."""

import inspect
import re
import sys
from pathlib import Path

from docutils.statemachine import StringList
from sphinx.domains.std import ConfigurationValue

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
html_search_scorer = str(Path(__file__).with_name("scorer.js"))

autodoc_member_order = "bysource"
autodoc_typehints = "none"

#: A parameter in the docstring of the decorator: its name and its text.
PARAMETER = re.compile(r"^:param (\w+): (.+(?:\n    .+)*)\n?", re.M)
TEXTS = dict(PARAMETER.findall(inspect.cleandoc(cache_memoize.cache_memoize.__doc__)))


class Option(ConfigurationValue):
    """An option of the decorator, with its text in the docstring."""

    index_template = "%s; option of the decorator"

    def run(self):
        text = inspect.cleandoc("    " + TEXTS[self.arguments[0]]).splitlines()
        text[0] = text[0][0].upper() + text[0][1:]
        self.content = StringList([*text, "", *self.content], source="decorator.py")
        return super().run()


def without_options(app, what, name, obj, options, lines):
    """Leave the texts of the options out of the docstring: each is with its option."""
    if obj is cache_memoize.cache_memoize:
        lines[:] = PARAMETER.sub("", "\n".join(lines)).splitlines()


def setup(app):
    app.add_directive_to_domain("std", "confval", Option, override=True)
    app.connect("autodoc-process-docstring", without_options)
