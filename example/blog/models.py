"""A post and its keywords."""

from django.db import models, transaction


class Post(models.Model):
    title = models.CharField(max_length=120)
    keywords = models.CharField(max_length=200, help_text="Words with spaces between.")
    body = models.TextField(blank=True)

    class Meta:
        ordering = ["pk"]

    def __str__(self) -> str:
        return self.title

    @property
    def keyword_set(self) -> set[str]:
        return set(self.keywords.split())

    #: The keywords that the last edit replaced.
    replaced: frozenset[str] = frozenset()

    def rewrite(self, title: str, keywords: str) -> None:
        """Save the edit, and store the replaced keywords in `replaced`."""
        row = Post.objects.filter(pk=self.pk)
        with transaction.atomic():
            # A write first: it takes SQLite's write lock, so the keywords read next
            # are the ones replaced, even if another worker saves this post now.
            row.update(title=title)
            self.replaced = frozenset(row.get().keyword_set)
            self.title, self.keywords = title, keywords
            self.save()
