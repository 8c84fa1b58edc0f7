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


# --- every way in which a row can belong to a model ----------------------------------


class Labelled(models.Model):
    labels = models.ManyToManyField(Tag)

    class Meta:
        abstract = True


class Article(Labelled):
    title = models.CharField(max_length=100, unique=True)
    similar = models.ManyToManyField("self")  # symmetrical
    sources = models.ManyToManyField("self", symmetrical=False, related_name="cited")


class Draft(Article):
    class Meta:
        proxy = True

    def shout(self):
        return self.title.upper()


class Memo(Labelled):
    pass


class Place(models.Model):
    name = models.CharField(max_length=100)
    tags = models.ManyToManyField(Tag)


class Restaurant(Place):
    stars = models.IntegerField(default=0)


class Bistro(Restaurant):
    pass


class Bar(Place):
    """The same place may be a restaurant too."""


class Shop(Labelled, Place):
    """Its primary key is not that of the place."""

    code = models.CharField(max_length=100, primary_key=True)
    place = models.OneToOneField(Place, models.CASCADE, parent_link=True)


class Reader(models.Model):
    articles = models.ManyToManyField(Article, through="Loan", related_name="readers")


class Loan(models.Model):
    reader = models.ForeignKey(Reader, models.CASCADE)
    article = models.ForeignKey(Article, models.CASCADE, to_field="title")


# --- values that have several forms --------------------------------------------------


class Parcel(models.Model):
    state = models.CharField(max_length=100, default="")
    count = models.IntegerField(default=0)
    weight = models.DecimalField(max_digits=8, decimal_places=2, default=0)
    ratio = models.FloatField(default=0.0)
    fragile = models.BooleanField(default=False)
    day = models.DateField(null=True)
    at = models.DateTimeField(null=True)
    took = models.DurationField(null=True)
    code = models.UUIDField(null=True)
    post = models.ForeignKey(Post, models.CASCADE, null=True)
