"""The analyzer finds what means something else than in 0.2.1, and little besides."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from pathlib import Path

import pytest
from django.contrib.admin import ModelAdmin, site
from django.contrib.auth.models import User
from django.db.models import Manager
from django.test import RequestFactory
from django.utils.decorators import method_decorator
from django.views import View

from cache_memoize import UnkeyableArgument, cache_memoize, migrate
from cache_memoize.migrate import (
    CODES,
    Finding,
    find,
    find_in,
    report_on,
)

HEAD = "from cache_memoize import cache_memoize\n"
SHOP = """
class Shop:
    @cache_memoize(60)
    def price(self, item, currency=None): pass
    @classmethod
    @cache_memoize(60)
    def columns(cls, kind): pass
    @staticmethod
    @cache_memoize(60)
    def rounded(number): pass

shop = Shop()
"""
F = "@cache_memoize(60)\ndef f(a, b=None, *, c=None): pass\n"

#: Code, what is found (``# here`` marks each line), and what is like it but right.
EXAMPLES = [
    ("M001", SHOP + 'shop.price.invalidate(shop, "tea")  # here', ""),
    ("M001", SHOP + "shop.price.get_cache_key(shop, 1, 2)  # here", ""),
    (
        "M001",
        SHOP + "Shop().price.invalidate(other, 1, 2)  # here",
        "class C:\n    @cache_memoize(60)\n    def m(*args): pass\nc.m.invalidate(1)",
    ),
    ("M001", SHOP + "shop.price.invalidate(self=shop, item=1)  # here", ""),
    ("M001", SHOP + 'Shop.columns.invalidate(Shop, "wide")  # here', ""),
    (
        "M001",
        SHOP + "class Car(Shop):\n    def m(self):\n"
        '        self.price.invalidate(self, "tea")  # here',
        SHOP + 'shop.price.invalidate("tea")\nShop.price.invalidate(shop, "tea")\n'
        'type(shop).price.invalidate(shop, "tea")\nshop.price.invalidate(*args)\n'
        "shop.__class__.price.invalidate(shop, 1, 2)\nShop.rounded.invalidate(1)\n"
        'shop.stock.invalidate(shop, 1)\nShop.columns.invalidate("wide")',
    ),
    (
        "M002",
        F + "f.invalidate()  # here\nf.invalidate(1, 2, 3)  # here\n"
        "f.get_cache_key(1, d=2)  # here",
        F + "f.invalidate(1)\nf.invalidate(1, 2, c=3)\nf.invalidate(*args)\n"
        "f.invalidate(**kwargs)\nf.get_cache_key(1, _refresh=True)\n"
        "@cache_memoize(60)\ndef g(*args, **kwargs): pass\ng.invalidate(1, d=2)\n"
        "@cache_memoize(60, key_generator_callable=key)\ndef h(a): pass\n"
        "h.invalidate()\nunknown.invalidate()\nf.clear()\n(lambda: f)().invalidate()",
    ),
    ("M002", SHOP + "Shop().price.invalidate()  # here", ""),
    (
        "M002",
        "@cache_memoize(60)\ndef f(a, *, c): pass\nf.invalidate(1)  # here",
        "@cache_memoize(60)\ndef f(a, *, c): pass\nf.invalidate(1, c=2)",
    ),
    (
        "M004",
        "@cache_memoize(60, args_rewrite=lambda a, b=None: a.pk)\n"
        "def f(a, b=None): pass\nf(1, b=2)  # here",
        "@cache_memoize(60, args_rewrite=lambda a, b=None: a.pk)\n"
        "def f(a, b=None): pass\nf(1, 2)\n"
        # What args_rewrite does not take is part of the key, as it was.
        "@cache_memoize(60, args_rewrite=lambda a: a)\ndef g(a, b=None): pass\n"
        "g(1, b=2)\ng.invalidate(1, b=2)",
    ),
    (
        "M004",
        "@cache_memoize(60, args_rewrite=lambda a, **more: a.pk)\n"
        "def f(a, **more): pass\nf(1, b=2)  # here",
        "@cache_memoize(60, args_rewrite=lambda a, **more: (a.pk, more))\n"
        "def f(a, **more): pass\nf(1, b=2)",
    ),
    (
        "M005",
        "@cache_memoize(60, args_rewrite=lambda a: (x for x in a))  # here\n"
        "def f(a): pass\n"
        "@cache_memoize(60, args_rewrite=lambda a: map(str, a))  # here\n"
        "def g(a): pass\n"
        "@cache_memoize(60, args_rewrite=lambda a: (1, a.items()))  # here\n"
        "def h(a): pass",
        "@cache_memoize(60, args_rewrite=lambda a: tuple(map(str, a)))\n"
        "def f(a): pass\n"
        "@cache_memoize(60, args_rewrite=lambda a: [x for x in a])\n"
        "def g(a): pass",
    ),
    (
        "M005",
        "def rewrite(a):\n    yield a.pk\n"
        "@cache_memoize(60, args_rewrite=rewrite)  # here\ndef f(a): pass",
        "def rewrite(a):\n    def inner():\n        return iter(a)\n    if a:\n"
        "        return (a.pk,)\n    return\n"
        "@cache_memoize(60, args_rewrite=rewrite)\ndef f(a): pass",
    ),
    (
        "M006",
        "@cache_memoize(60)\ndef f(request): pass  # here\n"
        "@cache_memoize(60)\ndef g(r: http.HttpRequest): pass  # here\n"
        "@cache_memoize(60)\ndef h(r: 'QuerySet[Post] | None'): pass  # here\n"
        "@cache_memoize(60)\nasync def i(a, *, request=None): pass  # here",
        "@cache_memoize(60)\ndef f(path: str, n: int = 1, *args: int): pass\n"
        "@cache_memoize(60, args_rewrite=lambda r: r.path)\ndef g(request): pass\n"
        "@cache_memoize(60, ignore=('request',))\ndef h(a, request): pass\n"
        "@cache_memoize(60, key_generator_callable=k)\ndef i(request): pass\n"
        "def j(request): pass",
    ),
    (
        "M006",
        "class Posts(models.Manager):\n    @cache_memoize(60)\n"
        "    def popular(self): pass  # here\n"
        "class Page(LoginRequiredMixin, DetailView):\n    @cache_memoize(60)\n"
        "    def menu(self): pass  # here\n"
        "class Admin(admin.ModelAdmin):\n    @cache_memoize(60)\n"
        "    def column(self, obj): pass  # here\n"
        "class Other(models.Manager.from_queryset(Q)):\n    @cache_memoize(60)\n"
        "    def popular(self): pass  # here",
        "class Posts(models.Manager):\n    @cache_memoize(60, ignore=('self',))\n"
        "    def popular(self): pass\n    @staticmethod\n    @cache_memoize(60)\n"
        "    def static(): pass\nclass Shop(models.Model):\n    @cache_memoize(60)\n"
        "    def price(self): pass",
    ),
    (
        "M007",
        F + "f(lambda: 1)  # here\nf(x for x in y)  # here\nf(request)  # here\n"
        "f(1, self.request)  # here\nf(Post.objects.filter(a=1).order_by())  # here\n"
        "f(Post.objects)  # here\nf(1, b=d.keys())  # here\n"
        "f.invalidate(1, b=map(str, x))  # here",
        F + "f(1)\nf([x for x in y])\nf(request.user)\nf(Post.objects.get(pk=1))\n"
        "f(list(Post.objects.all()))\nf(form.filter())\nf(d.get('keys'))\n"
        "@cache_memoize(60, args_rewrite=lambda a: 1)\ndef g(a): pass\ng(request)\n"
        "@cache_memoize(60, ignore=('a',))\ndef h(a, b=1): pass\nh(request)\n"
        "h(a=request)\nother(lambda: 1)\nshop.price(request)",
    ),
    (
        "M008",
        "@cache_memoize(60, extra=lambda req: req)  # here\ndef f(a): pass\n"
        "@cache_memoize(60, extra=lambda request: [request, 1])  # here\n"
        "def g(a): pass\n"
        "@cache_memoize(60, extra=lambda o: {'x': o.request})  # here\ndef h(a): pass",
        "@cache_memoize(60, extra=lambda req: req.user.is_staff)\ndef f(a): pass\n"
        "@cache_memoize(60, extra={'version': 2})\ndef g(a): pass\n"
        "@cache_memoize(60, extra=[1, 2])\ndef h(a): pass\n"
        "def vary(req):\n    return req.path\n"
        "@cache_memoize(60, extra=vary)\ndef i(a): pass",
    ),
    (
        "M009",
        "@cache_memoize(60, key_generator_callable=lambda a: (a, 1))  # here\n"
        "def f(a): pass\n"
        "@cache_memoize(60, key_generator_callable=lambda a: hash(a))  # here\n"
        "def g(a): pass\n"
        "@cache_memoize(60, key_generator_callable=lambda a: a.pk)  # here\n"
        "def h(a): pass\n"
        "@cache_memoize(60, key_generator_callable=lambda a: '')  # here\n"
        "def i(a): pass",
        "@cache_memoize(60, key_generator_callable=lambda a: f'f:{a}')\n"
        "def f(a): pass\n"
        "@cache_memoize(60, key_generator_callable=lambda a: 'f')\ndef g(a): pass\n"
        "@cache_memoize(60, key_generator_callable=lambda a: str(a.pk))\n"
        "def h(a): pass",
    ),
    (
        "M010",
        F + "cache.get(f.get_cache_key(1))  # here\n"
        "key = f.get_cache_key(2)\n"
        "caches['default'].set(key, 5)  # here\n"
        "cache.get_many([f.get_cache_key(1)])  # here\n"
        "f.get_cache_key(1) in self.page_cache  # here\n"
        "async def g():\n    await cache.aget(f.get_cache_key(1))  # here",
        F + "cache.delete(f.get_cache_key(1))\ncache.get('other')\n"
        "seen.add(f.get_cache_key(1))\nkey = f.get_cache_key(1)\ncache.delete(key)\n"
        "cache.get(unknown.get_cache_key(1))\ncache.get(get_cache_key(request))\n"
        "cache.get()\n1 in cache\ndef g(key):\n    cache.get(key)",
    ),
    (
        "M010",
        "def make_key(a): return f'f:{a}'\n"
        "@cache_memoize(60, key_generator_callable=make_key)\ndef f(a): pass\n"
        "cache.get(make_key(1))  # here",
        "def make_key(a): return f'f:{a}'\n"
        "@cache_memoize(60, key_generator_callable=make_key)\ndef f(a): pass\n"
        "cache.delete(make_key(1))\ncache.get(other_key(1))",
    ),
    (
        "M011",
        "cache.delete('0123456789abcdef0123456789abcdef')  # here\n"
        "hashlib.md5(force_bytes('cache_memoize' + name)).hexdigest()  # here\n"
        "md5(b'cache_memoize' + name)  # here",
        "cache.delete('0123456789abcdef')\nhashlib.md5(text)\n"
        "hashlib.md5(b'other')\ntoken('0123456789abcdef0123456789abcdef')",
    ),
    (
        "M012",
        "f = cache_memoize(60)(lambda a: a)  # here\n"
        "use(cache_memoize(60)(lambda a: a))  # here",
        "f = cache_memoize(60, prefix='f')(lambda a: a)\n"
        "g = cache_memoize(60, key_generator_callable=k)(lambda a: a)",
    ),
    (
        "M013",
        "@cache_memoize(60)  # here\ndef f():\n    yield 1\n"
        "class C: pass\nmake = cache_memoize(60)(C)  # here",
        "@cache_memoize(60)\ndef f():\n    def g():\n        yield 1\n"
        "    return list(g())\ng = cache_memoize(60)(imported)",
    ),
    (
        "M014",
        "@cache_memoize(-1)  # here\ndef f(): pass\n"
        "@cache_memoize(timeout=True)  # here\ndef g(): pass\n"
        "@cache_memoize(60, '')  # here\ndef h(): pass\n"
        "@cache_memoize(60, cache_exceptions=(ValueError, SystemExit))  # here\n"
        "def i(): pass",
        "@cache_memoize(0, None)\ndef f(): pass\n"
        "@cache_memoize(settings.TIME, 'f', cache_exceptions=(ValueError, KeyError))\n"
        "def g(): pass\n@cache_memoize(None, cache_exceptions=Exception)\n"
        "def h(): pass",
    ),
    (
        "M015",
        "@cache_memoize(60)\ndef f(a, _refresh=False): pass  # here",
        "def f(a, _refresh=False): pass",
    ),
    (
        "M016",
        "@cache_memoize(  # here\n    60, store_result=False,"
        " cache_exceptions=ValueError)\ndef f(): pass",
        "@cache_memoize(60, store_result=False, cache_exceptions=())\ndef f(): pass\n"
        "@cache_memoize(60, cache_exceptions=ValueError)\ndef g(): pass",
    ),
    (
        "M017",
        "@cache_memoize(60)\ndef f(a):\n    if a:\n"
        "        return ValueError(a)  # here\n    try:\n        return g(a)\n"
        "    except OSError as error:\n        return error  # here",
        "@cache_memoize(60)\ndef f(a):\n    try:\n        return g(a)\n"
        "    except OSError as error:\n        return str(error)\n"
        "    except KeyError:\n        return\n    def inner():\n"
        "        return ValueError(a)\n    return HttpResponseServerError(a)\n"
        "@cache_memoize(60, store_result=False)\ndef g(a):\n"
        "    return ValueError(a)\ndef h(a):\n    return ValueError(a)",
    ),
    (
        "M018",
        "def make(n):\n    @cache_memoize(60)  # here\n    def f(x):\n"
        "        return x + n\n    return f",
        "def make(n):\n    @cache_memoize(60, prefix='f')\n    def f(x):\n"
        "        return x + n\n    @cache_memoize(60)\n    def g(x, n):\n"
        "        return x + n\n    return f, g\n"
        "def test_it():\n    runs = []\n    @cache_memoize(60)\n    def f(x):\n"
        "        runs.append(x)",
    ),
    (
        "M019",
        "class C:\n    @method_decorator(cache_memoize(60))  # here\n"
        "    def m(self): pass\n    def __init__(self):\n"
        "        self.n = cache_memoize(60)(self.n)  # here\n"
        "@method_decorator([never_cache, cache_memoize(60)], name='get')  # here\n"
        "class V(View):\n    def get(self, request): pass",
        "class C:\n    @method_decorator(never_cache)\n    def m(self): pass\n"
        "    @method_decorator\n    def n(self): pass\n"
        "f = cache_memoize(60)(module.function)\nclass D:\n    pass",
    ),
    (
        "M020",
        "CACHES = {'default': {'OPTIONS': {\n"
        "    'SERIALIZER': 'django_redis.serializers.json.JSONSerializer'}}}  # here",
        "CACHES = {'default': {'OPTIONS': {\n"
        "    'SERIALIZER': 'django_redis.serializers.pickle.PickleSerializer',\n"
        "    **more}}}\n"
        "OTHER = {'serializer': 'app.JSONSerializer'}\nf({'serializer': 'a.JSON'})",
    ),
    (
        "M021",
        "from cache_memoize import MARKER  # here\nimport cache_memoize as library\n"
        "library.caches  # here\nmock.patch('cache_memoize.caches')  # here",
        "import cache_memoize as library\nlibrary.local\nother.caches\n"
        "mock.patch('cache_memoize.local')",
    ),
]
IDS = [f"{code}-{number}" for number, (code, _, _) in enumerate(EXAMPLES)]


def codes_at(source):
    return [(each.line, each.code) for each in find(HEAD + source, "app.py")]


@pytest.mark.parametrize("code, found, right", EXAMPLES, ids=IDS)
def test_each_code_has_what_it_finds_and_what_it_leaves_alone(code, found, right):
    lines = (HEAD + found).splitlines()
    marked = [n for n, line in enumerate(lines, 1) if line.endswith("# here")]
    assert codes_at(found) == [(line, code) for line in marked]
    assert codes_at(right) == []


def test_every_code_has_an_example():
    assert {code for code, _, _ in EXAMPLES} | {"M000"} == set(CODES)
    assert list(CODES) == sorted(CODES)


@pytest.mark.parametrize(
    "head, decorator",
    [
        ("from cache_memoize import cache_memoize as memo", "memo(60)"),
        ("import cache_memoize", "cache_memoize.cache_memoize(60)"),
        ("import cache_memoize as cm", "cm.cache_memoize(60)"),
        ("from cache_memoize import cache_memoize\nfor_a_day = cache_memoize(60)", ""),
    ],
)
def test_the_decorator_is_known_by_every_name(head, decorator):
    source = f"{head}\n@{decorator or 'for_a_day'}\ndef f(request): pass\n"
    assert [each.code for each in find(source, "app.py")] == ["M006"]


@pytest.mark.parametrize(
    "head",
    [
        "from other import cache_memoize",
        "from .cache_memoize import cache_memoize",
        "import other as cache_memoize2",
    ],
)
def test_other_decorators_are_left_alone(head):
    source = f"{head}\n@cache_memoize(60)\ndef f(request): pass\n"
    assert list(find(source, "app.py")) == []


def test_a_finding_says_where_it_is_and_what_to_write():
    (found,) = find(HEAD + SHOP + "shop.price.invalidate(shop, 1)", "app.py")
    assert found == Finding("app.py", 14, 1, "M001", found.message, found.cure)
    assert str(found).startswith("app.py:14:1: M001 price.invalidate() is given the")
    assert str(found).endswith("; leave the instance out")


def write(folder: Path, **files: str) -> None:
    for name, text in files.items():
        path = folder / f"{name.replace('__', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_functions_of_one_file_are_known_in_the_others(tmp_path):
    write(
        tmp_path,
        blog__related=HEAD + F + SHOP,
        blog__views="from .related import f as g\nfrom . import related\n"
        "import blog.related as again\n"
        "g.invalidate()\nrelated.f.invalidate()\nagain.f(lambda: 1)\n"
        "shop.price.invalidate(shop, 1)\n",
        shop__other="def f(): pass\nf.invalidate()\nfrom x import related\n"
        "from . import f as nobody\nnobody.invalidate()\n",
        shop__related="def f(): pass\nf.invalidate()\n",
    )
    found = [(Path(f.path).name, f.line, f.code) for f in find_in([tmp_path])]
    assert found == [
        ("views.py", 4, "M002"),
        ("views.py", 5, "M002"),
        ("views.py", 6, "M007"),
        ("views.py", 7, "M001"),
    ]


def test_two_that_cannot_be_told_apart_are_left_alone(tmp_path):
    other = HEAD + "class Car:\n    @cache_memoize(60)\n    def price(self): pass\n"
    write(tmp_path, a=HEAD + SHOP, b=other, c="x.price.invalidate(1, 2, 3)")
    assert list(find_in([tmp_path])) == []


def test_the_same_expression_twice_is_found_whichever_method_it_is(tmp_path):
    other = HEAD + "class Car:\n    @cache_memoize(60)\n    def price(self): pass\n"
    write(tmp_path, a=HEAD + SHOP, b=other, c="x.price.invalidate(x)\nx.price(x)")
    assert [(f.line, f.code) for f in find_in([tmp_path])] == [(1, "M001")]
    static = other.replace("    @cache", "    @staticmethod\n    @cache")
    write(tmp_path, b=static)
    assert list(find_in([tmp_path])) == []


def test_what_another_decorator_made_of_a_function_is_not_judged():
    source = "@cache_memoize(60)\n@listed\ndef f(request):\n    yield 1\nf.invalidate()"
    assert codes_at(source) == []
    source = "@listed\n@cache_memoize(60)\ndef f(a):\n    yield 1\n"
    assert codes_at(source) == [(3, "M013")]


def test_what_cannot_be_read_is_a_finding_and_the_rest_is_read(tmp_path):
    write(tmp_path, broken="def f(:\n", right=HEAD + "f = cache_memoize()(lambda: 1)")
    (tmp_path / "bytes.py").write_bytes(b"x = '\xff'")
    (tmp_path / "null.py").write_bytes(b"x = 1\0")
    (tmp_path / "deep.py").write_text("x = " + "-" * 100_000 + "1")
    (tmp_path / "notes.txt").write_text("def f(:")
    gone = tmp_path / "gone.py"
    found = {Path(f.path).name: f.code for f in find_in([tmp_path, gone])}
    assert found == {
        "broken.py": "M000",
        "bytes.py": "M000",
        "null.py": "M000",
        "deep.py": "M000",
        "gone.py": "M000",
        "right.py": "M012",
    }


def test_a_folder_that_is_gone_when_it_is_listed_is_a_finding(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "is_dir", lambda path: True)
    assert [found.code for found in find_in([tmp_path / "gone"])] == ["M000"]


def test_environments_hidden_folders_and_links_are_left_out(tmp_path):
    wrong = HEAD + "f = cache_memoize()(lambda: 1)"
    write(tmp_path, app=wrong, env__lib__app=wrong, _hidden__app=wrong)
    (tmp_path / "env" / "pyvenv.cfg").touch()
    (tmp_path / "_hidden").rename(tmp_path / ".hidden")
    (tmp_path / "loop").symlink_to(tmp_path)
    app = tmp_path / "app.py"
    found = list(find_in([tmp_path, app]))
    assert [each.path for each in found] == [str(app)]


def test_a_signature_at_the_beginning_of_a_file_is_no_error(tmp_path):
    (tmp_path / "a.py").write_text("\ufeffx = 1", "utf-8")
    assert list(find_in([tmp_path])) == []


def test_what_the_compiler_warns_of_is_not_our_business(recwarn):
    assert list(find("x = '\\d'", "app.py")) == []
    assert not recwarn.list


def test_nothing_is_imported_and_nothing_runs(tmp_path):
    write(tmp_path, app="import os\nos.mkdir('made')\nraise SystemExit")
    assert list(find_in([tmp_path])) == []
    assert not Path("made").exists()


def test_our_own_code_has_nothing_to_migrate():
    """The control for false alarms: code that is written for this version."""
    root = Path(__file__).parent.parent
    found = find_in([root / "example", root / "benchmarks", root / "cache_memoize"])
    # A benchmark of captured variables.
    assert [(Path(f.path).name, f.code) for f in found] == [("parts.py", "M018")]


def test_find_takes_text_and_find_in_takes_paths():
    assert list(inspect.signature(find).parameters) == ["source", "path"]
    assert list(inspect.signature(find_in).parameters) == ["paths"]


# --- what the messages say -----------------------------------------------------------

memoize = cache_memoize(60, cache_alias="locmem")


class Posts(Manager):
    @memoize
    def popular(self):
        return 1


class Page(View):
    @memoize
    def menu(self):
        return 1


class Admin(ModelAdmin):
    @memoize
    def column(self):
        return 1


class Numbered:
    def __init__(self, number):
        self.number = number

    @method_decorator(memoize)
    def double(self, factor):
        return self.number * factor


def test_managers_views_and_admins_cannot_be_part_of_a_key():
    """M006: in 0.2.1 their text could."""
    page = Page()
    page.setup(RequestFactory().get("/"))
    for call in (Posts().popular, page.menu, Admin(User, site).column):
        with pytest.raises(UnkeyableArgument, match="'self'"):
            call()


def test_by_method_decorator_the_instance_counts():
    """M019: in 0.2.1 the second call gave the result of the first."""
    assert [Numbered(1).double(2), Numbered(2).double(2)] == [2, 4]


def test_it_runs_as_a_module_without_settings(tmp_path):
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)}
    environment.pop("DJANGO_SETTINGS_MODULE", None)

    def run(path):
        command = [sys.executable, "-m", "cache_memoize.migrate", str(path)]
        return subprocess.run(command, env=environment, capture_output=True, text=True)

    write(tmp_path, right="x = 1", wrong=HEAD + SHOP + "shop.price.invalidate(shop, 1)")
    said = run(tmp_path / "right.py")
    assert said.returncode == 0
    assert said.stdout.startswith("Looked at 1 file with 0 memoized functions: 0 ")
    done = run(tmp_path)
    assert done.returncode == 1 and done.stderr == ""
    assert done.stdout.startswith(f"{tmp_path / 'wrong.py'}:14:1: M001 price.inv")


def test_the_last_line_says_what_was_looked_at(tmp_path):
    """No finding never reads as nothing to do."""
    write(tmp_path, a=HEAD + F, b=HEAD + SHOP)
    said = str(report_on([tmp_path]))
    assert said.startswith("Looked at 2 files with 4 memoized functions: 0 findings. ")
    assert "Nothing is memoized there" not in said and "Not seen: " in said
    said = str(report_on([]))
    assert "0 files" in said and "Nothing is memoized there" in said


#: What a project may call it, and how it is used.
WRAPPED = {
    "assigned": ("memo = cache_memoize(60)", "memo"),
    "annotated": ("memo: Any = cache_memoize(60)", "memo"),
    "alias": ("memo = cache_memoize", "memo(60)"),
    "partial": ("memo = partial(cache_memoize, cache_alias='x')", "memo(60)"),
    "bare partial": ("memo = functools.partial(cache_memoize, 60)", "memo()"),
    "partial of partial": (
        "slow = partial(cache_memoize, cache_alias='x')\nmemo = partial(slow, 60)",
        "memo(prefix='f')",
    ),
    "lambda": ("memo = lambda t: cache_memoize(t, cache_alias='x')", "memo(60)"),
    "wrapper": ("def memo(t=60):\n    return cache_memoize(t)", "memo()"),
    "pass all on": (
        "def memo(*args, **kwargs):\n    return cache_memoize(*args, **kwargs)",
        "memo(60, prefix='f')",
    ),
    "by variable": ("def memo(t):\n    made = cache_memoize(t)\n    return made", ""),
    "of a function": ("def memo(func):\n    return cache_memoize(60)(func)", "memo"),
    "nested": (
        "def memo(t):\n    def decorate(func):\n"
        "        return cache_memoize(t)(func)\n    return decorate",
        "memo(60)",
    ),
    "wraps": (
        "def memo(t):\n    def decorate(func):\n        @cache_memoize(t, 'x')\n"
        "        @wraps(func)\n        def inner(*args):\n"
        "            return func(*args)\n        return inner\n    return decorate",
        "memo(60)",
    ),
    "twice": (
        "def slow(t):\n    return cache_memoize(t)\ndef memo(t):\n    return slow(t)",
        "memo(60)",
    ),
}
USED = (
    "@{}\ndef f(request): pass  # here\nclass S:\n    @{}\n    def g(self, a): pass\n"
)
USED += "S().g.invalidate(S(), 1, 2)"


def found_in(tmp_path, **sources):
    write(tmp_path, **sources)
    return [(Path(each.path).stem, each.code) for each in find_in([tmp_path])]


@pytest.mark.parametrize("name", WRAPPED)
def test_wrappers_of_a_project_are_followed(name):
    made, used = WRAPPED[name]
    source = f"{made}\n" + USED.replace("{}", used or "memo(60)")
    codes = [code for _, code in codes_at(source)]
    assert {"M006", "M001"} <= set(codes), "also below the wrapper"


@pytest.mark.parametrize("name", WRAPPED)
@pytest.mark.parametrize(
    "imported, prefix",
    [
        ("from app.tools import memo", ""),
        ("from .tools import memo as m", ""),
        ("from . import tools", "tools."),
        ("import app.tools as t", "t."),
    ],
)
def test_wrappers_are_followed_from_file_to_file(tmp_path, name, imported, prefix):
    made, used = WRAPPED[name]
    used = (used or "memo(60)").replace(
        "memo", "m" if " m" in imported[-2:] else "memo"
    )
    source = f"{imported}\n" + USED.replace("{}", prefix + used)
    found = found_in(tmp_path, tools=HEAD + made, views=source)
    assert {("views", "M006"), ("views", "M001")} <= set(found)


def test_the_decorator_is_followed_through_a_module_of_the_project(tmp_path):
    compat = (
        "try:\n    from cache_memoize import cache_memoize\nexcept ImportError: pass"
    )
    source = "from .compat import cache_memoize\n" + USED.replace(
        "{}", "cache_memoize(60)"
    )
    found = found_in(tmp_path, compat=compat, views=source)
    assert found == [("views", "M006"), ("views", "M001")]


def test_options_of_wrappers_are_those_of_the_function(tmp_path):
    tools = HEAD + (
        "def memo(t, *rest, rewrite=None, **more):\n"
        "    return cache_memoize(t, *rest, args_rewrite=rewrite, **more)\n"
        "def guard(t):\n    return cache_memoize(t, store_result=False,"
        " cache_exceptions=ValueError)\n"
        "negative = cache_memoize(-1)\n"
        "keyed = partial(cache_memoize, key_generator_callable=lambda a: 1)\n"
        "several = partial(cache_memoize, args_rewrite=lambda a: iter(a))\n"
        "more = partial(cache_memoize, extra=lambda a: a.request)\n"
        "unknown = lambda t, p: cache_memoize(t, p, cache_alias=t)\n"
    )
    views = (
        "from .tools import memo, guard, negative, keyed, several, more, unknown\n"
        "@memo(60, '')\ndef a(x): pass\n"
        "@memo(60, rewrite=lambda x: iter(x))\ndef b(x): pass\n"
        "@memo(60, key_generator_callable=lambda x: x.pk)\ndef c(x): pass\n"
        "@guard(60)\ndef d(x): pass\n"
        "@negative\ndef e(x): pass\n"
        "@keyed()\ndef f(x): pass\n"
        "@several(60)\ndef g(x): pass\n"
        "@more(60)\ndef h(x): pass\n"
        "@unknown()\ndef i(x): pass\n"
    )
    write(tmp_path, tools=tools, views=views)
    found = [(Path(f.path).stem, f.line, f.code) for f in find_in([tmp_path])]
    lines = [2, 4, 6, 8, 10, 12, 14, 16]
    codes = ["M014", "M005", "M009", "M016", "M014", "M009", "M005", "M008"]
    assert found == [
        ("views", line, code) for line, code in zip(lines, codes, strict=True)
    ]


def test_what_only_looks_like_a_wrapper_is_left_alone(tmp_path):
    found = found_in(
        tmp_path,
        tools=HEAD + "def memo(t): return other(t)\nlist = [partial()]\n"
        "def use(f):\n    return cache_memoize\ndef none():\n    return\n",
        other="def memo(t): pass\nfrom .gone import memo as far\n",
        views="from .tools import memo\nfrom . import gone\n@memo(60)\n"
        "def f(request): pass\n@gone.memo\ndef g(request): pass\n"
        "@partial(memo, 60)\ndef h(request): pass\n@use\ndef i(request): pass\n",
    )
    assert found == []


VIEW = [
    "require_http_methods(['GET'])",
    "require_GET",
    "decorators.login_required",
    "login_required(login_url='/in/')",
    "csrf_exempt",
    "cache_control(private=True)",
    "permission_required('shop.view')",
    "api_view(['GET'])",
]


@pytest.mark.parametrize("decorator", VIEW)
@pytest.mark.parametrize("name", ["request", "r"])
def test_views_are_known_by_djangos_decorators(decorator, name):
    body = f"def feed({name}, pk):\n    return JsonResponse({{}})\n"
    for first, second in [
        ("cache_memoize(60)", decorator),
        (decorator, "cache_memoize(60)"),
    ]:
        assert codes_at(f"@{first}\n@{second}\n{body}") == [(4, "M006")]
    assert codes_at(f"{body}f = cache_memoize(60)({decorator}(feed))") == [(2, "M006")]
    assert codes_at(f"{body}f = cache_memoize(60)(listed({decorator}(feed)))") == []


def test_views_are_known_by_routes_and_by_what_they_render():
    feed = "def feed(r):\n    return data\n"
    assert codes_at(f"{feed}path('', cache_memoize(60)(feed))") == [(2, "M006")]
    assert codes_at(f"{feed}use(cache_memoize(60)(feed))") == []
    rendered = "@cache_memoize(60)\ndef feed(r, a):\n    return render(r, 'a.html')\n"
    assert codes_at(rendered) == [(3, "M006")]
    assert codes_at(rendered.replace("render(r,", "render(a, r,")) == []
    view = (
        "class V(View):\n    @method_decorator(require_GET)\n    def get(self, r): pass"
    )
    assert codes_at(view) == []
    found = codes_at(view.replace("    @m", "    @cache_memoize(60)\n    @m"))
    assert found == [(5, "M006")] * 2


def test_other_decorators_that_keep_the_parameters_are_looked_through():
    for decorator in ("transaction.atomic", "lru_cache(10)", "override"):
        source = f"@cache_memoize(60)\n@{decorator}\ndef f(a): pass\nf.invalidate()"
        assert codes_at(source) == [(5, "M002")]


def test_the_exit_code_says_whether_something_was_found(tmp_path, monkeypatch, capsys):
    write(tmp_path, right="x = 1", wrong=HEAD + "f = cache_memoize()(lambda: 1)")
    # pytest's hook for imports has no code for runpy.
    code_of_main = Path(migrate.__file__).with_name("__main__.py")
    names = {"__name__": "__main__", "__package__": "cache_memoize.migrate"}
    for path, code in [(tmp_path / "right.py", 0), (tmp_path, 1)]:
        monkeypatch.setattr(sys, "argv", ["migrate", str(path)])
        with pytest.raises(SystemExit) as ended:
            exec(compile(code_of_main.read_text(), code_of_main, "exec"), names)
        assert ended.value.code == code
    assert "M012" in capsys.readouterr().out
