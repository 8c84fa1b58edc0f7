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

    def rewrite(self, title: str, keywords: str) -> set[str]:
        """Save the edit; return all keywords that the post had before or has now."""
        row = Post.objects.filter(pk=self.pk)
        with transaction.atomic():
            # A write first: it takes SQLite's write lock, so the keywords read next
            # are the ones replaced, even if another worker saves this post now.
            row.update(title=title)
            before = row.get().keyword_set
            row.update(keywords=keywords)
        return before | set(keywords.split())
