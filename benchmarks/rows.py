"""Shapes of functions, and ways to write, for benchmarks.writes. Needs the settings."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from django.db import connection, transaction
from django.db.models import Count, F, Max, OuterRef, Subquery, Sum

from benchmarks.models import Book, Note, Publisher, Shelf, Tag


def fill() -> None:
    for model in (Note, Publisher, Book, Shelf, Tag):
        model.objects.all().delete()
    shelf = Shelf.objects.create(name="first")
    tag = Tag.objects.create(name="good")
    Tag.objects.create(name="new")
    for title in ("one", "two"):
        Book.objects.create(title=title, shelf=shelf).tags.add(tag)
    publisher = Publisher.objects.create(name="house")
    Note.objects.create(text="note", publisher=publisher)


# --- the shapes of functions ---------------------------------------------------------


def aggregate() -> Any:
    return [
        Book.objects.aggregate(n=Count("pk"), pages=Sum("pages"), last=Max("title")),
        Book.objects.aggregate(tags=Count("tags"), shelves=Max("shelf__name")),
        Shelf.objects.aggregate(n=Count("pk")),
        Note.objects.aggregate(n=Count("pk")),
    ]


COLUMNS = ("title", "pages", "shelf__name", "tags__name")


def join() -> Any:
    books = Book.objects.order_by("pk", "tags__pk").values_list(*COLUMNS)
    shelves = Shelf.objects.order_by("pk").values_list("name", "book__title")
    return [*books, *shelves.order_by("pk", "book__pk"), *notes()]


def notes() -> Any:
    return list(Note.objects.order_by("pk").values_list("text", flat=True))


def prefetch() -> Any:
    shelves = Shelf.objects.order_by("pk").prefetch_related("book_set__tags")
    loose = Book.objects.filter(shelf=None).prefetch_related("tags").order_by("pk")
    found = [(s.name, describe(s.book_set.all())) for s in shelves]
    return [*found, describe(loose), notes()]


def describe(books: Any) -> Any:
    return sorted(
        (b.title, b.pages, sorted(tag.name for tag in b.tags.all())) for b in books
    )


def subquery() -> Any:
    name = Shelf.objects.filter(pk=OuterRef("shelf_id")).values("name")[:1]
    tags = Book.tags.through.objects.filter(book_id=OuterRef("pk"))
    number = tags.order_by().values("book_id").annotate(n=Count("pk")).values("n")
    books = Book.objects.annotate(on=Subquery(name), n=Subquery(number)).order_by("pk")
    shelves = Shelf.objects.filter(pk__in=Shelf.objects.values("pk")).count()
    return [*books.values_list("title", "pages", "on", "n"), shelves, notes()]


def raw() -> Any:
    found = []
    with connection.cursor() as cursor:
        for sql in (
            "SELECT b.title, b.pages, s.name, t.tag_id FROM benchmarks_book b "
            "LEFT JOIN benchmarks_shelf s ON s.id = b.shelf_id "
            "LEFT JOIN benchmarks_book_tags t ON t.book_id = b.id ORDER BY b.id, t.id",
            "SELECT name FROM benchmarks_shelf ORDER BY id",
            "SELECT text FROM benchmarks_note ORDER BY id",
        ):
            cursor.execute(sql)
            found += [tuple(row) for row in cursor.fetchall()]
    return found


def iterator() -> Any:
    books = Book.objects.select_related("shelf").prefetch_related("tags").order_by("pk")
    found = [
        (describe([b]), b.shelf and b.shelf.name) for b in books.iterator(chunk_size=1)
    ]
    return [*found, *[s.name for s in Shelf.objects.order_by("pk").iterator()], notes()]


SHAPES = [aggregate, join, prefetch, subquery, raw, iterator]


# --- the writes ----------------------------------------------------------------------


def first() -> Any:
    return Book.objects.order_by("pk").first()


def execute(sql: str, *params: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(sql, params)


def save() -> None:
    book = first()
    book.title, book.pages = "saved", 10
    book.save()


def update() -> None:
    Book.objects.update(title="updated", pages=11)


def update_by_expression() -> None:
    Book.objects.update(pages=F("pages") + 1)


def bulk_create() -> None:
    Book.objects.bulk_create([Book(title="x"), Book(title="y")])


def bulk_update() -> None:
    books = list(Book.objects.all())
    for book in books:
        book.title, book.pages = f"{book.title}!", 12
    Book.objects.bulk_update(books, ["title", "pages"])


def delete() -> None:
    first().delete()


def delete_of_a_query() -> None:
    Book.objects.filter(title="one").delete()


def get_or_create() -> None:
    Shelf.objects.get_or_create(name="another")


def update_or_create() -> None:
    Book.objects.update_or_create(title="two", defaults={"pages": 13})


def set_null() -> None:
    Shelf.objects.get().delete()


def add() -> None:
    first().tags.add(Tag.objects.get(name="new"))


def remove() -> None:
    first().tags.remove(*Tag.objects.all())


def set_() -> None:
    first().tags.set(Tag.objects.all())


def cursor() -> None:
    execute("UPDATE benchmarks_book SET title = %s, pages = 14", "raw")


def executemany() -> None:
    with connection.cursor() as cursor:
        sql = "INSERT INTO benchmarks_book (title, pages) VALUES (%s, %s)"
        cursor.executemany(sql, [("a", 15), ("b", 16)])


def cascade_in_the_database() -> None:
    Publisher.objects.all().delete()


class Rollback(Exception):
    pass


@contextmanager
def rolled_back() -> Iterator[None]:
    try:
        with transaction.atomic():
            yield
            raise Rollback
    except Rollback:
        pass


def in_thread(function: Callable[[], object]) -> None:
    def run() -> None:
        try:
            function()
        finally:
            connection.close()

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()


#: By the title of a write, the write. It gets a function that reads all results.
WRITES: dict[str, Callable[[Callable[[], None]], None]] = {}


def write(title: str) -> Callable[[Any], Any]:
    def add(function: Any) -> Any:
        WRITES[title] = function
        return function

    return add


def alone(plain: Callable[[], None], read: Callable[[], None]) -> None:
    plain()


for title, plain in {
    "``save()``": save,
    "``update()``": update,
    "``update(F())``": update_by_expression,
    "``bulk_create()``": bulk_create,
    "``bulk_update()``": bulk_update,
    "``delete()``": delete,
    "``delete()`` of a query": delete_of_a_query,
    "``get_or_create()``": get_or_create,
    "``update_or_create()``": update_or_create,
    "``SET_NULL`` of Django": set_null,
    "``tags.add()``": add,
    "``tags.remove()``": remove,
    "``tags.set()``": set_,
    "raw SQL": cursor,
    "``executemany()``": executemany,
    "``DB_CASCADE``": cascade_in_the_database,
}.items():
    WRITES[title] = partial(alone, plain)


@write("another connection reads before the commit")
def committed(read: Callable[[], None]) -> None:
    with transaction.atomic():
        save()
        in_thread(read)


@write("the transaction reads, and is rolled back")
def rolled_back_after_a_read(read: Callable[[], None]) -> None:
    with rolled_back():
        save()
        read()


@write("the transaction reads, and is rolled back to a savepoint")
def rolled_back_to_savepoint(read: Callable[[], None]) -> None:
    with transaction.atomic():
        get_or_create()
        with rolled_back():
            save()
            read()
