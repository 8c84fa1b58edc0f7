from django.db import models


class Post(models.Model):
    title = models.CharField(max_length=100)

    def __str__(self):
        return "always the same"


class Tag(models.Model):
    name = models.CharField(max_length=100)

    def __str__(self):
        return "always the same"


class SpecialPost(Post):
    class Meta:
        proxy = True
