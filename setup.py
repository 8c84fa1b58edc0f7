"""Packaging; the tools' settings are in pyproject.toml."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(
    r'^__version__ = "(.+)"$',
    (HERE / "cache_memoize" / "__init__.py").read_text("utf-8"),
    re.MULTILINE,
)[1]

setup(
    name="django-cache-memoize",
    version=VERSION,
    description="A decorator that stores results of Python functions in Django's cache",
    long_description=(HERE / "README.rst").read_text("utf-8"),
    long_description_content_type="text/x-rst",
    license="MPL-2.0",
    keywords="django cache memoize decorator invalidation stampede redis memcached",
    project_urls={
        "Documentation": "https://django-cache-memoize.readthedocs.io/",
        "Changelog": (
            "https://django-cache-memoize.readthedocs.io/en/stable/changelog.html"
        ),
        "Source": "https://github.com/django-cache-memoize/django-cache-memoize",
        "Issues": "https://github.com/django-cache-memoize/django-cache-memoize/issues",
    },
    packages=find_packages(include=["cache_memoize", "cache_memoize.*"]),
    package_data={"cache_memoize": ["py.typed", "templates/**/*", "static/**/*"]},
    py_modules=["pytest_cache_memoize"],
    # Named as its module: so that naming it in pytest_plugins too is no error.
    entry_points={"pytest11": ["pytest_cache_memoize = pytest_cache_memoize"]},
    python_requires=">=3.11",
    install_requires=["django>=4.2"],
    extras_require={
        "opentelemetry": ["opentelemetry-api>=1.31"],
        "prometheus": ["prometheus_client>=0.17"],
        "progress": ["tqdm"],
        "toolbar": ["django-debug-toolbar>=4.4"],
    },
    classifiers=[
        "Development Status :: 5 - Production/Stable",
        "Environment :: Web Environment",
        "Framework :: Django",
        "Framework :: Django :: 4.2",
        "Framework :: Django :: 5.2",
        "Framework :: Django :: 6.0",
        "Framework :: Django :: 6.1",
        "Intended Audience :: Developers",
        "Operating System :: OS Independent",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Programming Language :: Python :: 3.14",
        "Topic :: Internet :: WWW/HTTP",
        "Topic :: Software Development :: Libraries :: Python Modules",
        "Typing :: Typed",
    ],
)
