"""What a memoized function is called with."""

from __future__ import annotations

import dataclasses

from django.db import models


class Post(models.Model):
    title = models.CharField(max_length=100)

    class Meta:
        app_label = "benchmarks"


@dataclasses.dataclass(frozen=True)
class Page:
    number: int
    language: str
