"""``{% memoize %}``: fragments of templates."""

from __future__ import annotations

import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.conf import settings
from django.contrib.auth.models import AnonymousUser
from django.core.cache import caches
from django.core.exceptions import ImproperlyConfigured
from django.template import (
    Context,
    Template,
    TemplateSyntaxError,
    VariableDoesNotExist,
)
from django.test import override_settings
from django.utils import timezone, translation

from cache_memoize import UnkeyableArgument, cache_memoize, invalidate_tags
from cache_memoize.protocol import threads
from cache_memoize.templatetags.memoize import FragmentNode
from tests.models import Post


@pytest.fixture(autouse=True)
def one_cache():
    """invalidate_tags() goes to all caches, and no server is to be needed."""
    with override_settings(CACHES={"default": settings.CACHES["default"]}):
        yield
        caches["default"].clear()


class Fragment:
    """A template with ``{% memoize %}``, which shows the number of its rendering."""

    def __init__(self, tag: str, body: str = "{{ run }}") -> None:
        source = f"{{% load memoize %}}{{% memoize {tag} %}}{body}{{% endmemoize %}}"
        self.template = Template(source)
        self.runs = 0

    def run(self) -> int:
        self.runs += 1
        return self.runs

    def __call__(self, **context: object) -> str:
        return self.template.render(Context({"run": self.run, **context}))

    @property
    def function(self):
        (node,) = self.template.nodelist.get_nodes_by_type(FragmentNode)
        return node.function


def test_a_fragment_is_rendered_once_for_its_values():
    f = Fragment("60 sidebar pk name|upper", "<b>{{ name }}</b> {{ run }}")
    assert f(pk=1, name="<x>") == f(pk=1, name="<x>") == "<b>&lt;x&gt;</b> 1"
    assert f(pk=2, name="<x>") == "<b>&lt;x&gt;</b> 2"
    assert f(pk=1, name="y") == "<b>y</b> 3"
    assert f(pk=1, name="<X>") == "<b>&lt;x&gt;</b> 1", "the same values"
    assert f.function.cache_info().hits == 2
    assert f.function.__name__ == "fragment sidebar"


def test_all_templates_with_the_same_source_share_a_fragment_and_others_do_not():
    assert Fragment("60 menu")() == "1"
    other = Fragment("60 'menu'")
    assert (other(), other.runs) == ("1", 0)
    for body in ("{{ run }}!", "run", "{{ run }}{% if 0 %}{% endif %}"):
        fragment = Fragment("60 menu", body)
        fragment()
        assert fragment.function.cache_info().misses == 1


def test_the_name_is_that_of_the_function_and_of_its_keys():
    for name in ("X", "'X'", '"X"'):
        f = Fragment(f"60 {name} pk").function
        assert f.__name__ == "fragment X"
        assert f.get_cache_key(1).startswith("fragment_X:")
    assert Fragment("60 menu.top").function.__name__ == "fragment menu-top"


def test_language_time_zone_and_the_parts_of_the_project_are_in_the_key():
    f = Fragment("60 sidebar")
    assert [f(), f()] == ["1", "1"]
    with translation.override("de"):
        assert f() == "2"
    with timezone.override("Asia/Tokyo"):
        assert f() == "3"
    tenant = ["a"]

    def tenant_of_the_call():
        return tenant[0]

    with override_settings(CACHE_MEMOIZE={"DEFAULTS": {"vary_on": tenant_of_the_call}}):
        a = f()
        tenant[0] = "b"
        assert f() != a
        tenant[0] = "a"
        assert f() == a
    assert f() == "1"


@pytest.mark.parametrize(
    "tag, then",
    [
        ("fragment:card", ["3", "4"]),
        ("fragment:card:1:x", ["3", "2"]),
        ("fragment:card:2:x", ["1", "3"]),
        ("fragment:card:1", ["1", "2"]),
        ("shop", ["3", "4"]),
        ("prices", ["3", "4"]),
    ],
)
def test_a_fragment_is_invalidated_by_its_name_its_values_and_its_tags(tag, then):
    f = Fragment('60 card one word tags="shop prices"')
    assert [f(one=Post(pk=1), word="x"), f(one=2, word="x")] == ["1", "2"]
    invalidate_tags(tag)
    assert [f(one=Post(pk=1), word="x"), f(one=2, word="x")] == then


def test_tags_may_be_a_variable():
    f = Fragment("60 card pk tags=tags")
    f(pk=1, tags=["a", "b"])
    invalidate_tags("b")
    assert f(pk=1, tags=["a", "b"]) == "2"


def test_the_function_of_a_fragment_has_its_controls():
    f = Fragment("60 card pk")
    f(pk=1)
    f.function.invalidate(1)
    assert f(pk=1) == "2"
    f.function.invalidate_all()
    assert f(pk=1) == "3"


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    "models", ['"tests.Post"', '"tests.Tag tests.Post"', '"reads"']
)
def test_a_fragment_depends_on_models(models):
    f = Fragment(f"60 posts depends_on={models}", "{{ run }} {{ posts.count }}")
    assert f(posts=Post.objects.all()) == f(posts=Post.objects.all()) == "1 0"
    Post.objects.create(title="tea")
    assert f(posts=Post.objects.all()) == "2 1"


def test_a_fragment_is_invalidated_with_what_was_used_in_it():
    """Of functions, and of fragments inside."""
    price = cache_memoize(60, prefix="price in a fragment")(lambda: prices[0])
    prices = [1]
    inner = "{% memoize 60 inner %}{{ price }}{% endmemoize %}"
    f = Fragment("60 outer", inner + " {{ run }}")
    assert f(price=price) == f(price=price) == "1 1"
    prices[0] = 2
    price.invalidate()
    assert f(price=price) == "2 2"
    invalidate_tags("fragment:inner")
    assert f(price=price) == "2 3"


def test_one_caller_renders_and_the_others_wait():
    f = Fragment("60 slow")
    run = f.run

    def slow():
        time.sleep(0.1)
        return run()

    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(lambda _: f(run=slow), range(8)))
    assert (found, f.runs) == ({"1"}, 1)


def test_a_stale_fragment_is_rendered_in_the_thread_of_its_request(monkeypatch):
    """The context belongs to that."""
    f = Fragment("0.05 old stale=60")
    rendered_in = []

    def note():
        rendered_in.append(threading.current_thread())
        return f.run()

    monkeypatch.setattr(threads, "submit", None)
    assert f(run=note) == "1"
    time.sleep(0.1)
    assert f(run=note) == "2"
    assert set(rendered_in) == {threading.current_thread()}
    time.sleep(0.1)

    def broken():
        raise RuntimeError

    assert f(run=broken) == "2", "the old one stays"


def test_a_variable_that_is_missing_is_an_error():
    """And not one fragment for all users."""
    f = Fragment("60 sidebar user.pk|default:0")
    with pytest.raises(VariableDoesNotExist):
        f(usr=1)
    assert f(user=AnonymousUser()) == f(user=AnonymousUser()) == "1"
    with pytest.raises(UnkeyableArgument, match="fragment sidebar"):
        Fragment("60 sidebar posts")(posts=Post.objects.all())


@pytest.mark.parametrize(
    "tag, body, message",
    [
        ("", "", "memoize: the timeout or the name is missing: {% memoize 60 menu %}"),
        ("60", "", "the timeout or the name is missing"),
        ("soon menu", "", "memoize soon menu: soon is no literal"),
        ("60 menu stale=later", "", "later is no literal, as the timeout and options"),
        ("60 menu stale=-1", "", "stale= of fragment menu must not be negative"),
        ("60 menu ttl=5", "", "(did you mean timeout?)"),
        ('"1h" menu', "", "timeout= of fragment menu takes seconds"),
        ('60 menu prefix="x"', "", "multiple values for argument 'prefix'"),
        ("60 menu store_result=False", "", "multiple values for keyword argument"),
        ("60 menu version=2", "", "multiple values for keyword argument 'version'"),
        ("60 menu", "{% csrf_token %}", "{% csrf_token %} is of one visitor"),
    ],
    ids=lambda value: re.sub(r"\W+", "-", value)[:30],
)
def test_a_tag_that_can_never_work_is_refused(tag, body, message):
    with pytest.raises(TemplateSyntaxError, match=re.escape(message)):
        Fragment(tag, body)


def test_a_part_of_the_project_that_is_none_is_named():
    menu = Fragment("None menu")
    assert [menu(), menu()] == ["1", "1"]
    with (
        override_settings(CACHE_MEMOIZE={"DEFAULTS": {"vary_on": "nothing"}}),
        pytest.raises(ValueError, match=r"vary_on= of \{% memoize %\} names 'nothing'"),
    ):
        menu()


def test_what_needs_the_apps_is_refused_at_the_first_rendering():
    with pytest.raises(ImproperlyConfigured, match="has 'shop.Nothing'"):
        Fragment('60 menu depends_on="shop.Nothing"')()
