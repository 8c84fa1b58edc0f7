"""A value as a read from the database would return it."""

from __future__ import annotations

import datetime
import enum
import uuid
from decimal import Decimal

import pytest
from django.db import models
from django.test import override_settings
from django.utils.safestring import SafeString

from cache_memoize.keys.columns import plain_type, stored_value

ZONE = datetime.timezone(datetime.timedelta(hours=2))


class Date(datetime.date):
    pass


class Time(datetime.time):
    pass


class DateTime(datetime.datetime):
    pass


class Delta(datetime.timedelta):
    pass


class Id(uuid.UUID):
    pass


class Size(enum.Enum):
    LARGE = "L"


AT = (2026, 3, 4, 5, 6, 7, 8)
#: A field, a value, and that which a read returns.
VALUES = [
    (models.IntegerField(), "5", 5),
    (models.CharField(), SafeString("a"), "a"),
    (models.CharField(), Size.LARGE, "L"),
    (models.DateField(), Date(2026, 3, 4), datetime.date(2026, 3, 4)),
    (
        models.TimeField(),
        Time(*AT[2:6], ZONE, fold=1),
        datetime.time(*AT[2:6], ZONE),
    ),
    (models.DurationField(), Delta(1, 2, 3), datetime.timedelta(1, 2, 3)),
    (models.UUIDField(), Id(int=7), uuid.UUID(int=7)),
    (models.UUIDField(), str(uuid.UUID(int=7)), uuid.UUID(int=7)),
    (models.DecimalField(decimal_places=2, max_digits=9), "1.5", Decimal("1.50")),
    (models.DecimalField(decimal_places=2, max_digits=9), Decimal(3), Decimal("3.00")),
    (models.DecimalField(), Decimal("1.2345"), Decimal("1.2345")),
    (models.IntegerField(), "not a number", "not a number"),
]


@pytest.mark.parametrize("field, value, stored", VALUES)
def test_a_value_is_as_a_read_returns_it(field, value, stored):
    found = stored_value(field, value)
    assert found == stored and type(found) is type(stored) and str(found) == str(stored)
    assert getattr(found, "fold", None) == getattr(value, "fold", None)
    assert stored_value(field, found) == found


@pytest.mark.parametrize("zone", [None, ZONE, datetime.UTC])
@pytest.mark.parametrize("kind", [datetime.datetime, DateTime])
def test_moments_are_in_utc_where_the_project_uses_zones(kind, zone):
    value, field = kind(*AT, tzinfo=zone, fold=1), models.DateTimeField()
    with override_settings(USE_TZ=True, TIME_ZONE="Europe/Oslo"):
        found = stored_value(field, value)
        hours = {None: 1, ZONE: 2, datetime.UTC: 0}[zone]
        assert found == datetime.datetime(*AT, tzinfo=datetime.UTC) - (
            datetime.timedelta(hours=hours)
        )
        assert type(found) is datetime.datetime and found.tzinfo is datetime.UTC
    with override_settings(USE_TZ=False):
        found = stored_value(field, value)
        assert type(found) is datetime.datetime
        assert (found.tzinfo, found.fold) == (zone, 1) and found == value


def test_expressions_are_left_alone():
    value = models.F("x") + 1
    assert stored_value(models.IntegerField(), value) is value


def test_types_that_fields_return_as_they_are():
    assert plain_type(models.BigAutoField()) is int
    assert plain_type(models.SlugField()) is str
    assert plain_type(models.UUIDField()) is uuid.UUID
    assert plain_type(models.DecimalField()) is plain_type(models.DateField()) is None
