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


# --- rows that change without a signal, because another row is deleted ----------------


class Shelf(models.Model):
    name = models.CharField(max_length=100, unique=True)


class SpecialShelf(Shelf):
    class Meta:
        proxy = True


def first_shelf():
    return Shelf.objects.order_by("pk").first()


class Book(models.Model):
    title = models.CharField(max_length=100)
    shelf = models.ForeignKey(Shelf, models.SET_NULL, null=True)
    named = models.ForeignKey(
        Shelf, models.SET_NULL, null=True, to_field="name", related_name="+"
    )
    place = models.ForeignKey(
        Shelf, models.SET(first_shelf), null=True, related_name="+"
    )
    sequel_of = models.ForeignKey("self", models.SET_NULL, null=True)


class Novel(Book):
    pass


class Priced(models.Model):
    """Values that only the database knows after a save."""

    name = models.CharField(max_length=100)
    cents = models.IntegerField(default=0)
    slug = models.GeneratedField(
        expression=models.functions.Lower("name"),
        output_field=models.CharField(max_length=100),
        db_persist=True,
    )


if hasattr(models, "DB_CASCADE"):

    class Region(models.Model):
        name = models.CharField(max_length=100)
        within = models.ForeignKey("self", models.DB_CASCADE, null=True)

    class Town(models.Model):
        name = models.CharField(max_length=100)
        region = models.ForeignKey(Region, models.DB_CASCADE)

    class House(models.Model):
        town = models.ForeignKey(Town, models.DB_CASCADE)

    class Flat(models.Model):
        house = models.ForeignKey(House, models.DB_CASCADE)

    class Attic(Flat):
        flat = models.OneToOneField(Flat, models.DB_CASCADE, parent_link=True)

    class Cat(models.Model):
        house = models.ForeignKey(House, models.DB_SET_NULL, null=True)
        region = models.ForeignKey(Region, models.DB_SET_DEFAULT, db_default=1)

    class Person(models.Model):
        name = models.CharField(max_length=100)
        houses = models.ManyToManyField(House, through="Visit", related_name="guests")

    class Visit(models.Model):
        person = models.ForeignKey(Person, models.DB_CASCADE)
        house = models.ForeignKey(House, models.DB_CASCADE)


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
    post = models.ForeignKey(Post, models.DO_NOTHING, null=True, db_constraint=False)
