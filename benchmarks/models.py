"""What a memoized function is called with, and reads."""

from __future__ import annotations

import dataclasses
from typing import Any

from django.db import models


class Post(models.Model):
    objects: Any = models.Manager()
    title = models.CharField(max_length=100)

    class Meta:
        app_label = "benchmarks"


# --- what benchmarks.writes reads and writes -----------------------------------------


class Shelf(models.Model):
    objects: Any = models.Manager()
    name = models.CharField(max_length=100)


class Tag(models.Model):
    objects: Any = models.Manager()
    name = models.CharField(max_length=100)


class Book(models.Model):
    objects: Any = models.Manager()
    title = models.CharField(max_length=100)
    pages = models.IntegerField(default=1)
    shelf = models.ForeignKey(Shelf, models.SET_NULL, null=True)
    tags: Any = models.ManyToManyField(Tag)


class Publisher(models.Model):
    objects: Any = models.Manager()
    name = models.CharField(max_length=100)


class Note(models.Model):
    objects: Any = models.Manager()
    text = models.CharField(max_length=100)
    publisher = models.ForeignKey(
        Publisher, getattr(models, "DB_CASCADE", models.CASCADE)
    )


@dataclasses.dataclass(frozen=True)
class Page:
    number: int
    language: str
