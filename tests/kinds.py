"""Kinds of silent faults: many inputs of each, for any package that memoizes.

A kind takes a contender (contenders.py) and yields (input, verdict) pairs. An answer is
WRONG if it differs from that of the undecorated function and nothing was said. An error
is REFUSED, and what a package has no way to express NONE.
"""

# ruff: noqa: B023 - functions of a loop are called in the same turn

from __future__ import annotations

import collections
import contextlib
import copy
import datetime
import decimal
import enum
import functools
import gc
import inspect
import itertools
import json
import math
import pickle
import random
import subprocess
import sys
import threading
import types
import uuid
import zoneinfo
from collections.abc import Callable, Iterator
from typing import Any

from django.db import connection, transaction
from django.utils import timezone, translation
from django.utils.functional import SimpleLazyObject
from django.utils.safestring import mark_safe

from tests import inputs
from tests.contenders import Unknown
from tests.inputs import POOLS, SEED, pool
from tests.models import Parcel, Post, SpecialPost
from tests.trials import LATE, named

RIGHT, REFUSED, WRONG, NONE = "right", "refused", "wrong", "–"
Verdicts = Iterator[tuple[object, str]]


def same(got: Any, wanted: Any) -> bool:
    if isinstance(wanted, float) and math.isnan(wanted):
        return isinstance(got, float) and math.isnan(got)
    return type(got) is type(wanted) and got == wanted


def judge(call: Callable[[], Any], wanted: Any) -> str:
    try:
        return RIGHT if same(call(), wanted) else WRONG
    except Unknown:
        return NONE
    except Exception:
        return REFUSED


def attempt(call: Callable[[], Any]) -> bool:
    """Return whether the call was neither refused nor impossible."""
    try:
        call()
    except Exception:
        return False
    return True


# --- arguments -----------------------------------------------------------------------

#: What the functions below return, by the address of their argument.
TOLD: dict[int, str] = {}


def told(value: Any) -> str:
    return TOLD[id(value)]


#: What the functions below read: as globals, because captured variables are arguments.
SOURCE: dict[str, Any] = {}


def fresh(function: Any) -> Any:
    """Return a copy with a name of its own."""
    code, names = function.__code__, function.__globals__
    return named(types.FunctionType(code, names, "copy", function.__defaults__))


def telling() -> Any:
    return fresh(told)


def pool_told(name: str) -> list[Any]:
    """Return the values of a pool, each known by a name of its own."""
    values = pool(name)
    TOLD.update({id(value): f"{name} {n}" for n, value in enumerate(values)})
    assert len({id(value) for value in values}) == len(values), name
    return values


def apart(name: str, peer: Any) -> Verdicts:
    """Two arguments that differ are two calls, in either order."""
    values = pool_told(name)
    forwards, backwards = peer.memoize(telling()), peer.memoize(telling())
    for f, order in ((forwards, values), (backwards, values[::-1])):
        for value in order:
            yield told(value), judge(functools.partial(f, value), told(value))


def captured_values(peer: Any) -> Verdicts:
    def make(value, name):  # some values are in several pools
        def inner():
            return name and told(value)

        return inner

    for name in POOLS:
        for value in pool_told(name):
            f = peer.memoize(make(value, name))
            yield told(value), judge(f, told(value))


class Processor:
    """A captured object whose methods write to their argument."""

    def __init__(self, number):
        self.number = number

    def update(self, target):
        target["number"] = self.number

    append = extend = add = insert = appendleft = update


def made_late(number: int, memoize: Any) -> Any:
    def inner():
        return later

    f = memoize(inner)
    later = number
    return f


def made_nonlocal(number: int, memoize: Any) -> Any:
    count = 0

    def inner():
        return count

    def step():
        nonlocal count
        count += number
        return f()

    f = memoize(inner)
    f()
    return step


def made_in_a_loop(number: int, memoize: Any) -> Any:
    made = []
    for each in (-1, number):

        def inner():
            return each

        made.append(memoize(inner))
    return made[0]


def made_with_a_default(number: int, memoize: Any) -> Any:
    def inner(a=number):
        return a

    return memoize(inner)


def made_with_a_named_default(number: int, memoize: Any) -> Any:
    def inner(*, a=number):
        return a

    return memoize(inner)


def made_with_a_helper(number: int, memoize: Any) -> Any:
    def helper(a=0):
        return number + a

    def inner():
        return helper()

    return memoize(inner)


def made_with_a_helper_of_defaults(number: int, memoize: Any) -> Any:
    def helper(a=number):
        return a

    def inner():
        return helper()

    return memoize(inner)


def made_with_a_memoized_helper(number: int, memoize: Any) -> Any:
    def helper(a=0):
        return number + a

    helper = memoize(helper)

    def inner():
        return helper(1)

    return memoize(inner)


def made_with_a_lambda(number: int, memoize: Any) -> Any:
    helper = [None, lambda: 1, lambda: 2, lambda: 3, lambda: 4, lambda: 5][number]

    def inner():
        return helper()

    return memoize(inner)


def made_with_a_method(number: int, memoize: Any) -> Any:
    sells = inputs.Shop(number).sells

    def inner():
        return sells()

    return memoize(inner)


def made_with_an_attribute(number: int, memoize: Any) -> Any:
    def inner():
        return f.rate

    f = memoize(inner)
    f.rate = number
    return f


def made_with_an_own_attribute(number: int, memoize: Any) -> Any:
    def inner():
        return inner.rate

    inner.rate = number
    return memoize(inner)


def made_with_a_memoized_attribute(number: int, memoize: Any) -> Any:
    def helper():
        return 0

    helper = memoize(helper)
    helper.rate = number

    def inner():
        return helper.rate

    return memoize(inner)


def made_with_a_processor(number: int, memoize: Any, method: str = "update") -> Any:
    processor = Processor(number)

    def updates():
        target: dict[str, int] = {}
        processor.update(target)
        return target

    def appends():
        target: dict[str, int] = {}
        processor.append(target)
        return target

    def adds():
        target: dict[str, int] = {}
        processor.add(target)
        return target

    return memoize({"update": updates, "append": appends, "add": adds}[method])


def made_with_a_partial(number: int, memoize: Any) -> Any:
    def inner(a):
        return a

    return memoize(functools.wraps(inner)(functools.partial(inner, number)))


def made_with_a_changed_partial(number: int, memoize: Any) -> Any:
    rows = [0]
    held = functools.wraps(inputs.shown_rows)(
        functools.partial(inputs.shown_rows, rows)
    )
    f = memoize(held)
    f()
    rows.append(number)
    return f


def made_in_a_class(number: int, memoize: Any) -> Any:
    class Holder:
        def get(self):
            return number

    Holder.get = memoize(Holder.get)  # type: ignore[method-assign]
    return Holder().get


def made_two_deep(number: int, memoize: Any) -> Any:
    def middle():
        def inner():
            return number

        return memoize(inner)

    return middle()


def made_in_an_expression(number: int, memoize: Any) -> Any:
    def inner():
        return [each + number for each in (1, 2)], (lambda: number)()

    return memoize(inner)


def made_generic(number: int, memoize: Any) -> Any:
    rows = {"a": [number]}

    def inner():
        return rows["a"][0]

    f = memoize(inner)
    f()
    rows["a"].append(rows["a"].pop() + 1)
    return f


FACTORIES: list[Callable[[int, Any], Any]] = [
    made_late,
    made_nonlocal,
    made_in_a_loop,
    made_with_a_default,
    made_with_a_named_default,
    made_with_a_helper,
    made_with_a_helper_of_defaults,
    made_with_a_memoized_helper,
    made_with_a_lambda,
    made_with_a_method,
    made_with_an_attribute,
    made_with_an_own_attribute,
    made_with_a_memoized_attribute,
    made_with_a_processor,
    functools.partial(made_with_a_processor, method="append"),
    functools.partial(made_with_a_processor, method="add"),
    made_with_a_partial,
    made_with_a_changed_partial,
    made_in_a_class,
    made_two_deep,
    made_in_an_expression,
    made_generic,
]


def captured(peer: Any) -> Verdicts:
    """Functions of one factory differ by what they captured."""
    yield from captured_values(peer)
    for factory in FACTORIES:
        for number in range(1, 6):
            wanted = factory(number, lambda function: function)()
            name = getattr(factory, "__name__", "made_with_a_processor")

            def call(factory: Any = factory, number: int = number) -> Any:
                return factory(number, peer.memoize)()

            yield f"{name}({number})", judge(call, wanted)


#: Bodies of functions of one qualified name.
BODIES = r"""
return a
return -a
return a + 1
return a + 2
return a + 1.0
return a + True
return a * 2
return a ** 2
return 2 ** a
return 2 - a
return a - 2
return a < 2
return a <= 2
return not a
return a or 2
return a and 2
return a in (1, 2)
return a in {1, 2}
return a not in (1, 2)
return [a]
return (a,)
return {a}
return {a: a}
return a, 'x'
return a, "y"
return a, b"x"
return a, 0.0
return a, -0.0
return a, 0
return a, False
return a, 0j
return a, ()
return a, None
return a, ...
return c(a)
return d(a)
return c(a), d(a)
return d(a), c(a)
return max(a, 2)
return min(a, 2)
return max(2, a)
return (lambda: a)()
return (lambda: a + 1)()
return (lambda b=1: a + b)()
return (lambda b=2: a + b)()
return [a for _ in range(2)]
return [a for _ in range(3)]
return f"{a}"
return f"{a!r:>3}"
return f"{a:>3}"
if a: return 1
if a: return 2
if not a: return 1
while a: return 3
for _ in range(a): return 4
try: return c(a)\nexcept ValueError: return 5
try: return c(a)\nexcept KeyError: return 5
try:\n c(a)\nexcept ValueError:\n return 5\nelse:\n d(a)\nreturn 6
try:\n c(a)\n d(a)\nexcept ValueError:\n return 5\nreturn 6
try:\n c(a)\nfinally:\n d(a)\nreturn 6
try:\n c(a)\n d(a)\nfinally:\n pass\nreturn 6
def inner(): return a\nreturn inner()
def inner(): return a + 1\nreturn inner()
def inner(b=1): return a + b\nreturn inner()
def inner(b=3): return a + b\nreturn inner()
def inner(*, b=4): return a + b\nreturn inner()
class Inner:\n b = 1\nreturn Inner.b
class Inner:\n b = 2\nreturn Inner.b
import math\nreturn math.pi
import math\nreturn math.e
a += 1; return a
a -= 1; return a
return a.real
return a.imag
return a.bit_length()
return divmod(a, 2)[0]
return divmod(a, 2)[1]
""".strip().splitlines()
SIGNATURES = [
    "a",
    "a, b=1",
    "a, b=2",
    "a, *, b=1",
    "a, *, b=2",
    "a, /",
    "a, *b",
    "a, **b",
]


class Calls:
    """``c`` and ``d`` of the bodies. ``d`` fails."""

    @staticmethod
    def c(a):
        return [a, "c"]

    @staticmethod
    def d(a):
        raise ValueError(a)


def made_by(source: str) -> Any:
    scope: dict[str, Any] = {"__name__": __name__, "c": Calls.c, "d": Calls.d}
    exec(source, scope)
    return scope["make"]()


def outcome(f: Any, *args: Any) -> Any:
    try:
        return f(*args)
    except ValueError as error:
        return f"raises {error}"


def one_name(peer: Any) -> Verdicts:
    """Functions of one qualified name with different code."""
    sources = []
    for body in BODIES:
        lines = body.replace("\\n", "\n").splitlines()
        text = "\n".join(f"  {line}" for line in lines)
        sources.append(f"def make():\n def inner(a):\n{text}\n return inner")
    for each in SIGNATURES:
        text = (
            f"def make():\n def inner({each}):\n  return {'b' if 'b' in each else 'a'}"
        )
        sources.append(f"{text}\n return inner")
    for n in range(10):
        sources.append(
            f"def make(n={n}):\n def inner(a):\n  return a, n\n return inner"
        )
    for source in sources * 2:  # what raises is stored after the others only
        wanted = outcome(made_by(source), 1)

        def call(source: str = source) -> Any:
            return outcome(peer.memoize(made_by(source)), 1)

        yield source, judge(call, wanted)

    for number in range(10):  # scripts, whose module is named __main__

        def call(number: int = number) -> Any:
            scope = {"__name__": "__main__"}
            exec(f"def total(a):\n return a + {number}", scope)
            return peer.memoize(scope["total"])(1)

        yield f"__main__ {number}", judge(call, 1 + number)

    def audited(function):
        def wrapper(*args):
            return function(*args)

        return wrapper

    def audited_late(function):
        def decorate(inner):
            def wrapper(*args):
                return inner(*args)

            return wrapper

        return decorate(function)

    functions = [inputs.double, inputs.triple, Calls.c, len, abs, str, repr, hash, bool]
    for audit, function in itertools.product((audited, audited_late), functions):
        argument = "1" if function is len else 1

        def call(
            audit: Any = audit, function: Any = function, a: Any = argument
        ) -> Any:
            return peer.memoize(audit(function))(a)

        yield f"{audit.__name__}({function.__name__})", judge(call, function(argument))


# --- methods -------------------------------------------------------------------------

CLASSES = '''
import dataclasses, enum, typing
from django.apps.registry import Apps
from tests.models import Post

class Rate:
    rate = 1
    def __init__(self, number=0):
        self.number = number
    @memoize
    def plain(self, a=0):
        return type(self).__name__, self.rate, self.number, a
    def of_class(cls, a=0):
        return cls.__name__, cls.rate, a
    of_class = classmethod(memoize(of_class))
    def static(a=0):
        return "Rate", a
    static = staticmethod(memoize(static))
    @memoize
    def overridden(self, a=0):
        return "Rate", self.number, a
    def __repr__(self):
        return "rate"

class Double(Rate):
    rate = 2
    @memoize
    def overridden(self, a=0):
        return "Double", super().overridden(a)
    def static(a=0):
        return "Double", a
    static = staticmethod(memoize(static))

class Triple(Double):
    rate = 3
    @memoize
    def overridden(self, a=0):
        return "Triple", super().overridden(a)

class Mixin:
    @memoize
    def mixed(self, a=0):
        return type(self).__name__, a

class One(Mixin): pass
class Two(Mixin): pass

class Equal:
    """All of them are equal, and have one hash."""
    def __init__(self, number): self.number = number
    def __eq__(self, other): return True
    def __hash__(self): return 1
    __str__ = __repr__ = lambda self: "equal"
    @memoize
    def plain(self, a=0): return self.number, a

class Slotted:
    __slots__ = ("number",)
    def __init__(self, number): self.number = number
    @memoize
    def plain(self, a=0): return self.number, a

@dataclasses.dataclass
class Data:
    number: int = dataclasses.field(default=0, repr=False)
    @memoize
    def plain(self, a=0): return self.number, a

class Couple(typing.NamedTuple):
    number: int
    @memoize
    def plain(self, a=0): return self.number, a

class Colour(enum.Enum):
    RED = 1
    BLUE = 2
    @memoize
    def plain(self, a=0): return self.value, a

class Text(str):
    @memoize
    def plain(self, a=0): return str(self), a

class Row(Post):
    class Meta:
        app_label, proxy, apps = "tests", True, Apps()
    @memoize
    def plain(self, a=0): return self.pk, a
    def __str__(self): return "row"
'''


def methods(peer: Any) -> Verdicts:
    """Instances and classes get their own results."""
    sets = []
    for decorate in (peer.memoize, lambda function: function):
        module = types.ModuleType("tests.kinds_classes")
        sys.modules[module.__name__] = module
        vars(module)["memoize"] = decorate
        try:
            exec(CLASSES, vars(module))
        except Exception:
            yield "classes", REFUSED
            return
        sets.append(module)
    memoized, plain = sets
    sys.modules[memoized.__name__] = memoized
    calls: list[Callable[[Any], Any]] = []
    for number, a in itertools.product(range(3), range(2)):
        for name in ("Rate", "Double", "Triple"):
            for method in ("plain", "overridden", "of_class", "static"):
                calls.append(
                    lambda m, n=name, me=method, no=number, a=a: getattr(
                        getattr(m, n)(no), me
                    )(a)
                )
        for name in ("Equal", "Slotted", "Data", "Couple", "Text"):
            calls.append(lambda m, n=name, no=number, a=a: getattr(m, n)(no).plain(a))
        calls.append(lambda m, no=number, a=a: m.Row(pk=no).plain(a))
    for name in ("Rate", "Double", "Triple"):
        calls += [lambda m, n=name: getattr(m, n).of_class()]
        calls += [lambda m, n=name: getattr(m, n).static()]
    calls += [lambda m: m.One().mixed(), lambda m: m.Two().mixed()]
    calls += [lambda m: m.Colour.RED.plain(), lambda m: m.Colour.BLUE.plain()]
    for n, each in enumerate(calls):
        yield n, judge(functools.partial(each, memoized), each(plain))
    for number in range(100):  # where one ends, the next one has its address
        yield number, judge(memoized.Rate(number).plain, ("Rate", 1, number, 0))
        gc.collect(0)


# --- values that change --------------------------------------------------------------


def set_number(value: Any) -> None:
    value.number = value.left = 5


#: What is made, and how it is changed.
MUTABLE: list[tuple[Callable[[], Any], Callable[[Any], object]]] = [
    (lambda: [1], lambda v: v.append(2)),
    (lambda: [3, 1], lambda v: v.sort()),
    (lambda: [[1]], lambda v: v[0].append(2)),
    (lambda: ([1],), lambda v: v[0].append(2)),
    (lambda: [1, 2], lambda v: v.clear()),
    (lambda: {"a": 1}, lambda v: v.update(a=2)),
    (lambda: {"a": 1}, lambda v: v.pop("a")),
    (lambda: {"a": {"b": 1}}, lambda v: v["a"].update(b=2)),
    (lambda: {1}, lambda v: v.add(2)),
    (lambda: bytearray(b"a"), lambda v: v.extend(b"b")),
    (lambda: collections.deque([1]), lambda v: v.append(2)),
    (lambda: collections.OrderedDict(a=1, b=2), lambda v: v.move_to_end("a")),
    (lambda: collections.defaultdict(list), lambda v: v["a"]),
    (lambda: collections.Counter("a"), lambda v: v.update("a")),
    (lambda: types.SimpleNamespace(number=1), set_number),
    (lambda: inputs.Pair([1]), lambda v: v.left.append(2)),
    (lambda: inputs.Pair(1), set_number),
    (lambda: inputs.Counted(1), lambda v: setattr(v, "number", 2)),
    (lambda: inputs.Slotted([1]), lambda v: v.left.append(2)),
    (lambda: inputs.Defined([1]), lambda v: v.left.append(2)),
    (lambda: inputs.Row([1]), lambda v: v.append(2)),
    (lambda: inputs.Table(a=1), lambda v: v.update(a=2)),
]


def shown(value: Any) -> str:
    """Return a mutable value as text."""
    slots = getattr(type(value), "__slots__", ())
    if isinstance(value, (list, tuple, set, dict, bytearray, collections.deque)):
        return repr(value)
    return repr([getattr(value, name, None) for name in slots] or vars(value))


def changed_meanwhile(value):
    before, change = shown(value), SOURCE["change"]
    if change is not None:
        change(value)
    return before if SOURCE["late"] else shown(value)


def made_anew():
    return SOURCE["make"]()


def mutable(peer: Any) -> Verdicts:
    """Arguments, captured variables and results that are changed by others."""
    for n, (make, change) in enumerate(MUTABLE):
        changed = make()
        change(changed)
        f, value = peer.memoize(fresh(shown)), make()
        if attempt(lambda: f(value)):
            change(value)
        yield f"{n} between calls", judge(functools.partial(f, value), shown(changed))
        for late in (False, True):
            f = peer.memoize(fresh(changed_meanwhile))
            SOURCE.update(change=change, late=late)
            attempt(lambda: f(make()))
            SOURCE.update(change=None)
            yield f"{n} meanwhile", judge(lambda: f(make()), shown(make()))
            yield f"{n}, then as changed", judge(lambda: f(changed), shown(changed))
        held = make()

        def inner():
            return shown(held)

        f = peer.memoize(inner)
        attempt(f)
        change(held)
        yield f"{n} captured", judge(f, shown(held))
        f = peer.memoize(fresh(made_anew))
        SOURCE.update(make=make)
        for _ in range(2):
            attempt(lambda: change(f()))
        yield f"{n} as a result", judge(lambda: shown(f()), shown(make()))


# --- spellings -----------------------------------------------------------------------

VALUES = [1, True, 1.0, "1", None, (1,), [1], 0, "a"]


def signatures() -> Iterator[tuple[str, list[tuple[list[Any], dict[str, Any]]]]]:
    """Yield random signatures, and for each of them spellings of one call."""
    chance = random.Random(SEED)
    kinds = [
        "only",
        "plain",
        "plain",
        "default",
        "default",
        "star",
        "key",
        "key",
        "rest",
    ]
    for _ in range(120):
        chosen = sorted(chance.sample(kinds, chance.randint(1, 6)), key=kinds.index)
        names, parts, star = iter("abcdefgh"), [], False
        only, plain, keys, defaults = [], [], [], {}
        for kind in chosen:
            name = next(names)
            if kind == "star":
                parts.append("*args")
                star = True
                continue
            if kind == "rest":
                parts.append("**kwargs")
                continue
            if kind == "key" and not star:
                parts.append("*")
                star = True
            if kind == "default":
                defaults[name] = chance.choice(VALUES)
                parts.append(f"{name}={defaults[name]!r}")
            else:
                parts.append(name)
            {"only": only, "key": keys}.get(kind, plain).append(name)
            if kind == "only":
                parts.append("/")
        values = {n: chance.choice(VALUES) for n in [*only, *plain, *keys]}
        if defaults and chance.random() < 0.5:
            values |= defaults
        more = (
            [chance.choice(VALUES)]
            if "*args" in parts and chance.random() < 0.5
            else []
        )
        rest = {"x": 1, "y": "1"} if "**kwargs" in parts else {}
        spelled = []
        for by_position in range(len(plain) + 1):
            args = [values[n] for n in [*only, *plain[:by_position]]]
            if more:
                if by_position < len(plain):
                    continue
                args += more
            named_ones = [*plain[by_position:], *keys]
            for order in (named_ones, named_ones[::-1]):
                kwargs = {n: values[n] for n in order} | rest
                spelled.append((args, kwargs))
                shorter = {
                    n: v for n, v in kwargs.items() if defaults.get(n, names) is not v
                }
                spelled.append((args, shorter))
        yield ", ".join(parts), spelled


def spellings(peer: Any) -> Verdicts:
    """One call is one call however it is spelled, and others are others."""
    for number, (signature, spelled) in enumerate(signatures()):
        source = f"def f({signature}):\n return SOURCE['version'], exact(locals())"
        scope = {"SOURCE": SOURCE, "exact": inputs.exact, "__name__": __name__}
        exec(source, scope)
        f, name = peer.memoize(named(scope["f"])), scope["f"]
        SOURCE["version"] = number
        for args, kwargs in spelled:
            wanted = name(*args, **kwargs)
            call = functools.partial(f, *args, **kwargs)
            yield (signature, args, kwargs), judge(call, wanted)
        first, last = spelled[0], spelled[-1]
        for (args, kwargs), (others, by_name) in ((first, last), (last, first)):
            SOURCE["version"] += 1000
            if not attempt(lambda: peer.invalidate(f, *others, **by_name)):
                yield "invalidate", REFUSED
                continue
            call = functools.partial(f, *args, **kwargs)
            yield "invalidated in another spelling", judge(call, name(*args, **kwargs))
    yield from alike(peer)


def everything_given(*args, **kwargs):
    return inputs.exact((args, kwargs))


def first_and_others(a, *args, b=1, **kwargs):
    return inputs.exact((a, args, b, kwargs))


#: Calls whose arguments are easily taken for those of another.
ALIKE: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
    ((1, 2), {}),
    (((1, 2),), {}),
    ((1,), {"b": 2}),
    ((1,), {"c": 2}),
    ((1, "b", 2), {}),
    ((1, ("b", 2)), {}),
    ((1, "b=2"), {}),
    ((1, {"b": 2}), {}),
    ((1, "c=2"), {}),
    (("1", "2"), {}),
    (("1:2",), {}),
    (("1 2",), {}),
    (("1", "2", ""), {}),
    (("1", "", "2"), {}),
    ((1,), {"c": 2, "d": 3}),
    ((1,), {"c": "2:d=3"}),
    ((1,), {"c": "2,d=3"}),
    ((1,), {"cd": 23}),
    ((1,), {"args": (2,)}),
    ((1,), {"kwargs": 2}),
    ((1,), {"kwargs": {"c": 2}}),
    ((1, 2), {"c": 3}),
    ((1,), {"c": 3, "2": 2}),
    ((1, None), {}),
    ((1,), {"c": None}),
    ((1, True), {}),
    ((1, 1), {}),
    ((1, 1.0), {}),
    ((1,), {"B": 2}),
    ((1,), {"c ": 2}),
    ((1,), {"\xe9": 2}),
    ((1,), {"e\u0301": 2}),
    ((1, (), ()), {}),
    ((1, ((),)), {}),
    ((1, []), {}),
    ((1, [[]]), {}),
]


def alike(peer: Any) -> Verdicts:
    for function in (everything_given, first_and_others):
        for calls in (ALIKE, ALIKE[::-1]):
            f = peer.memoize(fresh_whole(function))
            for args, kwargs in calls:
                call = functools.partial(f, *args, **kwargs)
                yield (args, kwargs), judge(call, function(*args, **kwargs))


def fresh_whole(function: Any) -> Any:
    copied = fresh(function)
    copied.__kwdefaults__ = function.__kwdefaults__
    return copied


# --- one key in every process, before and after use ---------------------------------


def versioned(value):
    return SOURCE["version"]


def of_pool(name: str) -> Any:
    """Return the function of a pool, by a name that other processes have too."""
    function = types.FunctionType(versioned.__code__, globals(), "versioned")
    function.__qualname__ = function.__name__ = f"of_{name.replace(' ', '_')}"
    return function


def uses_of(value: Any) -> None:
    """Do what others do with a value, none of which changes it."""
    for use in (hash, repr, str, pickle.dumps, copy.copy, bool, len, vars, dir):
        with contextlib.suppress(Exception):
            use(value)
    for name, member in inspect.getmembers_static(type(value)):
        if (
            isinstance(member, (property, functools.cached_property))
            or "doubled" in name
        ):
            with contextlib.suppress(Exception):
                getattr(value, name)
    with contextlib.suppress(Exception):
        value == copy.deepcopy(value)  # noqa: B015
    with contextlib.suppress(Exception):
        value in {value}  # noqa: B015


def processes(peer: Any) -> Verdicts:
    """What one process stores another one invalidates; so after the use of a value."""
    if hasattr(peer, "child"):
        yield from other_process(peer)
    for name in POOLS:
        f = peer.memoize(fresh(versioned))
        for n, value in enumerate(POOLS[name]()):  # of its own: these are used
            SOURCE["version"] = "old"
            if not attempt(lambda: f(value)):
                yield f"{name} {n} used", REFUSED
                continue
            uses_of(value)
            SOURCE["version"] = "new"
            if not attempt(lambda: peer.invalidate(f, value)):
                yield f"{name} {n} used", REFUSED
                continue
            yield f"{name} {n} used", judge(functools.partial(f, value), "new")


def other_process(peer: Any) -> Verdicts:
    made = {name: peer.memoize(of_pool(name)) for name in POOLS}
    SOURCE["version"] = "old"
    kept = {
        (name, n)
        for name, f in made.items()
        for n, value in enumerate(pool(name))
        if attempt(functools.partial(f, value))
    }
    child = subprocess.run(
        peer.child,
        stdout=subprocess.PIPE,
        timeout=300,
        check=True,
        env=peer.environment,
    )
    raised = {tuple(each) for each in json.loads(child.stdout.splitlines()[-1])}
    SOURCE["version"] = "new"
    for name, f in made.items():
        for n, value in enumerate(pool(name)):
            call = functools.partial(f, value)
            known = (name, n) in kept and (name, n) not in raised
            yield f"{name} {n}", judge(call, "new") if known else REFUSED


def invalidate_pools(peer: Any) -> None:
    """What the other process does."""
    raised = []
    for name in POOLS:
        f = peer.memoize(of_pool(name))
        for n, value in enumerate(pool(name)):
            if not attempt(functools.partial(peer.invalidate, f, value)):
                raised.append((name, n))
    print(json.dumps(raised), flush=True)


# --- results -------------------------------------------------------------------------


def result_of_now():
    return SOURCE["result"]


def results(peer: Any) -> Verdicts:
    """What comes back on a hit is what the function returned."""

    def whole(value: Any) -> Any:
        is_long = isinstance(value, int) and value.bit_length() > 10_000
        text = hex(value) if is_long else inputs.exact(value)
        return type(value), text, getattr(value, "fold", 0)

    for name in ("numbers", "texts", "containers", "moments", "plain values"):
        for n, value in enumerate(pool(name)):
            if " at 0x" in whole(value)[1]:
                continue  # its text does not show it
            f = peer.memoize(fresh(result_of_now))
            SOURCE["result"] = value
            attempt(f)
            yield f"{name} {n}", judge(lambda: whole(f()), whole(value))


def raise_now():
    raise SOURCE["error"]


def exceptions(peer: Any) -> Verdicts:
    """A stored exception comes back as it was raised."""

    def parts(error: Exception) -> Any:
        more = getattr(error, "exceptions", ())
        return type(error), error.args, vars(error), repr(error), str(error), len(more)

    errors = [each for each in pool("objects") if isinstance(each, Exception)]
    errors += [inputs.Fault("a", n) for n in range(10)]
    errors += [OSError(n, "text", "name") for n in range(10)] + [
        KeyError(n) for n in VALUES
    ]
    for n, error in enumerate(errors):
        SOURCE["error"] = error

        def twice() -> Any:
            f = peer.raising(fresh(raise_now), Exception)
            for _ in range(2):
                try:
                    f()
                except Unknown:
                    raise
                except Exception as caught:
                    found = caught
            return parts(found)

        yield n, judge(twice, parts(error))


# --- what is active ------------------------------------------------------------------


def variants(peer: Any) -> Verdicts:
    """The language or time zone that is active is part of the key."""

    def text():
        return str(translation.get_language())

    def zone():
        now = timezone.localtime(datetime.datetime(2026, 7, 1, tzinfo=datetime.UTC))
        return now.strftime("%H:%M:%S.%f")

    hour = datetime.timedelta(hours=1)
    zones: list[Any] = [
        zoneinfo.ZoneInfo(n) for n in ("UTC", "Europe/Berlin", "Asia/Tokyo")
    ]
    zones += [zoneinfo.ZoneInfo("Etc/GMT-1"), zoneinfo.ZoneInfo("America/New_York")]
    for n in range(-11, 13):
        zones += [datetime.timezone(n * hour), datetime.timezone(n * hour, "here")]
        zones += [inputs.Offset(n), timezone.get_fixed_timezone(n * 60 + 30)]
    try:
        by_language, by_zone = peer.varied(named(text), "language"), None
        by_zone = peer.varied(named(zone), "time_zone")
    except Unknown:
        yield "variants", NONE
        return
    for code in [
        "en",
        "en-gb",
        "de",
        "de-at",
        "fr",
        "pt",
        "pt-br",
        "zh-hans",
        None,
    ] * 2:
        active = translation.override(code) if code else translation.override(None)
        with active:
            yield code, judge(by_language, text())
    for each in zones:
        with timezone.override(each):
            yield each, judge(by_zone, zone())


# --- rows ----------------------------------------------------------------------------


class Choice(enum.StrEnum):
    DRAFT = "draft"
    DONE = "done"


DAY = datetime.date(2026, 5, 1)
MOMENT = datetime.datetime(2026, 5, 1, 12, tzinfo=datetime.UTC)
TOKYO = zoneinfo.ZoneInfo("Asia/Tokyo")
CODE = uuid.UUID(int=1)
#: Field, value as it is given, as it is read, and another value as it is read.
FORMS: list[tuple[str, Any, Any, Any]] = [
    ("state", "draft", "draft", "done"),
    ("state", Choice.DRAFT, "draft", "done"),
    ("state", mark_safe("draft"), "draft", "done"),
    ("state", 5, "5", "6"),
    ("count", 5, 5, 6),
    ("count", "5", 5, 6),
    ("count", True, 1, 2),
    ("count", inputs.Level.HIGH, 2, 3),
    ("count", inputs.Whole(5), 5, 6),
    (
        "weight",
        decimal.Decimal("5.00"),
        decimal.Decimal("5.00"),
        decimal.Decimal("6.00"),
    ),
    ("weight", "5", decimal.Decimal("5.00"), decimal.Decimal("6.00")),
    ("weight", 5, decimal.Decimal("5.00"), decimal.Decimal("6.00")),
    ("weight", 5.5, decimal.Decimal("5.50"), decimal.Decimal("6.00")),
    ("weight", decimal.Decimal("5"), decimal.Decimal("5.00"), decimal.Decimal("6.00")),
    ("ratio", 5, 5.0, 6.0),
    ("ratio", "5", 5.0, 6.0),
    ("fragile", "1", True, False),
    ("fragile", 1, True, False),
    ("day", "2026-05-01", DAY, datetime.date(2026, 5, 2)),
    ("day", DAY, DAY, datetime.date(2026, 5, 2)),
    ("day", inputs.Day(2026, 5, 1), DAY, datetime.date(2026, 5, 2)),
    ("at", "2026-05-01T12:00Z", MOMENT, MOMENT + datetime.timedelta(1)),
    ("at", MOMENT.astimezone(TOKYO), MOMENT, MOMENT + datetime.timedelta(1)),
    (
        "took",
        datetime.timedelta(seconds=60),
        datetime.timedelta(minutes=1),
        datetime.timedelta(minutes=2),
    ),
    ("code", str(CODE), CODE, uuid.UUID(int=2)),
    ("code", "0" * 31 + "1", CODE, uuid.UUID(int=2)),
    ("post_id", 1, 1, 2),
    ("post_id", "1", 1, 2),
]


def counting(field: str) -> Any:
    scope: dict[str, Any] = {"Parcel": Parcel, "__name__": __name__}
    exec(f"def f(value): return Parcel.objects.filter({field}=value).count()", scope)
    return named(scope["f"])


def two_posts() -> None:
    for pk in (1, 2):
        Post.objects.get_or_create(pk=pk)


def by_fields(peer: Any) -> dict[str, tuple[Any, Any]]:
    """Return for each field a function that counts rows by it, as it is and memoized;
    none if the package does not know rows."""
    made = {}
    for field in dict.fromkeys(field for field, *_ in FORMS):
        function = counting(field)

        def calls(row, field=field):
            return (getattr(row, field),)

        with contextlib.suppress(Unknown):
            made[field] = function, peer.by_rows(function, Parcel, calls)
    return made


def forms(peer: Any) -> Verdicts:
    """A save invalidates the call with the value that the field stores."""
    two_posts()
    ways: list[Callable[[dict[str, Any]], object]] = [
        lambda values: Parcel.objects.create(**values),
        lambda values: Parcel(**values).save(),
        lambda values: Parcel.objects.get_or_create(pk=99, defaults=values),
        lambda values: Post.objects.get(pk=1).parcel_set.create(
            **{"post_id": 1, **values}
        ),
    ]
    made = by_fields(peer)
    for (field, given, stored, _), way in itertools.product(FORMS, ways):
        if field not in made:
            yield field, NONE
            continue
        function, f = made[field]
        attempt(lambda: f(stored))
        way({field: given})
        yield (field, given), judge(lambda: f(stored), function(stored))
        Parcel.objects.all().delete()


def moves(peer: Any) -> Verdicts:
    """A row that changes its value leaves one call and enters another."""
    two_posts()

    def save(row: Any, field: str, value: Any) -> None:
        setattr(row, field, value)
        row.save()

    def save_field(row: Any, field: str, value: Any) -> None:
        setattr(row, field, value)
        row.save(update_fields=[field])

    def save_other(row: Any, field: str, value: Any) -> None:
        save(Parcel.objects.only("pk").get(pk=row.pk), field, value)

    def save_new(row: Any, field: str, value: Any) -> None:
        Parcel(pk=row.pk, **{field: value}).save()

    def update_or_create(row: Any, field: str, value: Any) -> None:
        Parcel.objects.update_or_create(pk=row.pk, defaults={field: value})

    def save_twice(row: Any, field: str, value: Any) -> None:
        save(row, field, value)
        save(Parcel.objects.get(pk=row.pk), field, value)

    ways = [save, save_field, save_other, save_new, update_or_create, save_twice]
    ways += [lambda row, field, value: row.delete()]
    made = by_fields(peer)
    for (field, given, stored, other), way in itertools.product(FORMS, ways):
        if field not in made:
            yield field, NONE
            continue
        function, f = made[field]
        row = Parcel.objects.create(**{field: other})
        attempt(lambda: (f(stored), f(other)))
        way(row, field, given)
        for value in (stored, other):
            yield (way.__name__, field, given), judge(lambda: f(value), function(value))
        Parcel.objects.all().delete()


def title_of(post):
    return Post.objects.get(pk=post.pk).title


def rows(peer: Any) -> Verdicts:
    """One row is one argument, however it was made."""
    Post.objects.get_or_create(pk=5)
    made: list[Callable[[], Any]] = [
        lambda: Post.objects.get(pk=5),
        lambda: Post(pk=5),
        lambda: Post(pk="5"),
        lambda: Post(id=inputs.Whole(5), title="other"),
        lambda: Post.objects.only("title").get(pk=5),
        lambda: Post.objects.defer("title").get(pk="5"),
        lambda: SpecialPost.objects.get(pk=5),
        lambda: SimpleLazyObject(lambda: Post.objects.get(pk=5)),
        lambda: pickle.loads(pickle.dumps(Post.objects.get(pk=5))),
        lambda: copy.copy(Post.objects.get(pk=5)),
    ]
    for number, (make, other) in enumerate(itertools.product(made, made)):
        f = peer.memoize(fresh(title_of))
        Post.objects.filter(pk=5).update(title=f"old {number}")
        known = attempt(lambda: f(make())) and attempt(lambda: f(other()))
        Post.objects.filter(pk=5).update(title=f"new {number}")
        known = known and attempt(lambda: peer.invalidate(f, other()))
        verdict = judge(lambda: f(make()), f"new {number}") if known else REFUSED
        yield number, verdict


# --- transactions --------------------------------------------------------------------


def title_by_key(pk):
    return Post.objects.get(pk=pk).title


def run_sql(sql: str, *, many: bool = False) -> None:
    with connection.cursor() as cursor:
        cursor.executemany(sql, [("never", 1)]) if many else cursor.execute(sql)


SQL = "UPDATE tests_post SET title = 'never' WHERE id = 1"
WRITES: dict[str, Callable[[], object]] = {
    "update": lambda: Post.objects.filter(pk=1).update(title="never"),
    "save": lambda: Post(pk=1, title="never").save(),
    "save of a proxy": lambda: SpecialPost(pk=1, title="never").save(),
    "bulk_update": lambda: Post.objects.bulk_update(
        [Post(pk=1, title="never")], ["title"]
    ),
    "bulk_create": lambda: Post.objects.bulk_create(
        [Post(pk=1, title="never")],
        update_conflicts=True,
        unique_fields=["id"],
        update_fields=["title"],
    ),
    "update_or_create": lambda: Post.objects.update_or_create(
        pk=1, defaults={"title": "never"}
    ),
    "delete and create": lambda: (
        Post.objects.filter(pk=1).delete(),
        Post.objects.create(pk=1, title="never"),
    ),
    "raw": lambda: list(Post.objects.raw(f"{SQL} RETURNING *")),
    "cursor": lambda: run_sql(SQL),
    "lower case": lambda: run_sql(SQL.replace("UPDATE", "update")),
    "blanks": lambda: run_sql(f" \n\t{SQL}"),
    "comment": lambda: run_sql(f"/* it reads */ {SQL}"),
    "line comment": lambda: run_sql(f"-- SELECT\n{SQL}"),
    "two comments": lambda: run_sql(f"/* SELECT */ -- it reads\n {SQL}"),
    "with": lambda: run_sql(f"WITH one AS (SELECT 1) {SQL}"),
    "replace": lambda: run_sql("REPLACE INTO tests_post VALUES (1, 'never')"),
    "upsert": lambda: run_sql(
        "INSERT INTO tests_post VALUES (1, 'x') ON CONFLICT (id) DO UPDATE "
        "SET title = 'never'"
    ),
    "returning": lambda: run_sql(f"{SQL} RETURNING id"),
    "executemany": lambda: run_sql(
        "UPDATE tests_post SET title = %s WHERE id = %s", many=True
    ),
}


class Undo(Exception):
    pass


def by_exception(write: Any, read: Any) -> None:
    with contextlib.suppress(Undo), transaction.atomic():
        write()
        read()
        raise Undo


def by_flag(write: Any, read: Any) -> None:
    with transaction.atomic():
        write()
        read()
        transaction.set_rollback(True)


def by_savepoint(write: Any, read: Any) -> None:
    with transaction.atomic(), contextlib.suppress(Undo), transaction.atomic():
        write()
        read()
        raise Undo


def by_hand(write: Any, read: Any) -> None:
    with transaction.atomic():
        point = transaction.savepoint()
        write()
        read()
        transaction.savepoint_rollback(point)


def by_outer(write: Any, read: Any) -> None:
    with contextlib.suppress(Undo), transaction.atomic():
        with transaction.atomic():
            write()
        read()
        raise Undo


def read_deeper(write: Any, read: Any) -> None:
    with contextlib.suppress(Undo), transaction.atomic():
        write()
        with transaction.atomic():
            read()
        raise Undo


def without_autocommit(write: Any, read: Any) -> None:
    transaction.set_autocommit(False)
    try:
        write()
        read()
        transaction.rollback()
    finally:
        transaction.set_autocommit(True)


ROLLBACKS = [by_exception, by_flag, by_savepoint, by_hand, by_outer, read_deeper]
ROLLBACKS += [without_autocommit]


def rolled_back(peer: Any) -> Verdicts:
    """A value of a transaction that is rolled back is seen by nobody afterwards."""
    for (name, write), undo in itertools.product(WRITES.items(), ROLLBACKS):
        for invalidates in (False, True):
            if not peer.in_caller:
                yield name, NONE
                continue
            Post.objects.update_or_create(pk=1, defaults={"title": "old"})
            f = peer.memoize(fresh(title_by_key))

            def steps() -> None:
                write()
                if invalidates:
                    peer.invalidate(f, 1)

            if invalidates:
                f(1)
            undo(steps, lambda: f(1))
            # Without autocommit, some databases commit some statements at once.
            yield (name, undo.__name__), judge(lambda: f(1), title_by_key(1))


def uncommitted(peer: Any) -> Verdicts:
    """What others read before the commit is not stored for after it."""

    def reads(f: Any) -> None:
        f(1)
        connection.close()

    for name, write in WRITES.items():
        for first in ("write", "invalidate"):
            if not peer.in_caller:
                yield name, NONE
                continue
            Post.objects.update_or_create(pk=1, defaults={"title": "old"})
            f = peer.memoize(fresh(title_by_key))
            f(1)
            with transaction.atomic():
                steps = [write, functools.partial(peer.invalidate, f, 1)]
                for step in steps if first == "write" else steps[::-1]:
                    step()
                reader = threading.Thread(target=reads, args=(f,))
                reader.start()
                reader.join(LATE)
            yield (name, first), judge(lambda: f(1), "never")


# --- entries of others ---------------------------------------------------------------

RAN: list[object] = []


class Evil:
    """It notes that it was unpickled."""

    def __reduce__(self):
        return note_ran, ()


def note_ran() -> str:
    RAN.append(1)
    return "evil"


def forged(peer: Any) -> Verdicts:
    """With signatures, an entry that the project did not write is no entry."""
    try:
        with peer.signed():
            for memoize in (peer.plain, peer.memoize):
                yield from forgeries(peer, memoize)
    except Unknown:
        yield "signatures", NONE


def forgeries(peer: Any, memoize: Any) -> Verdicts:
    def function(number):
        return f"right {number}"

    def other(number):
        return "another function's"

    before = list(peer.stored())
    f, g = memoize(named(function)), memoize(named(other))
    f(1)
    keys = [key for key in peer.stored() if key not in before]  # with those of tags
    f(2), g(1)
    others = [raw for key, raw in peer.stored().items() if key not in [*before, *keys]]
    for key in keys:
        good = peer.stored()[key]
        for label, raw in forgeries_of(good, others):
            if raw != good:
                peer.write(key, raw)
                RAN.clear()
                verdict = judge(lambda: f(1), "right 1")
                yield label, WRONG if RAN else verdict


def forgeries_of(good: bytes, others: list[bytes]) -> Iterator[tuple[str, bytes]]:
    evil = pickle.dumps(Evil())
    yield from (("empty", b""), ("evil", evil), ("twice", good + good))
    yield from ((f"of another call {n}", each) for n, each in enumerate(others))
    for size in range(131):
        tail = good[len(good) - size :] if size <= len(good) else bytes(size) + good
        yield f"evil and {size} bytes", evil + tail
        yield f"5 and {size} bytes", b"I5\n." + tail  # as short as a pickle can be
        yield f"{size} bytes", tail
        yield f"zeros {size}", bytes(size)
    for place in range(len(good)):
        for bit in (1, 128):
            changed = bytes([good[place] ^ bit])
            yield f"bit {bit} of {place}", good[:place] + changed + good[place + 1 :]
        yield f"without {place}", good[:place] + good[place + 1 :]
        yield f"until {place}", good[:place]


def unsynced(kind: Callable[[Any], Verdicts]) -> Callable[[Any], Verdicts]:
    """Return the kind without SQLite's waiting for the disk."""

    def trials(peer: Any) -> Verdicts:
        run_sql("PRAGMA synchronous = OFF")
        yield from kind(peer)
        run_sql("PRAGMA synchronous = FULL")

    return trials


# --- all of them ---------------------------------------------------------------------

KINDS: dict[str, Callable[[Any], Verdicts]] = {
    "forged entries, with signatures on": forged,
    "numbers that compare equal": functools.partial(apart, "numbers"),
    "texts": functools.partial(apart, "texts"),
    "containers": functools.partial(apart, "containers"),
    "dates, times and zones": functools.partial(apart, "moments"),
    "enums, lazy values, rows, queries": functools.partial(apart, "projects"),
    "objects of classes": functools.partial(apart, "objects"),
    "functions, methods, types": functools.partial(apart, "callables"),
    "state in C, iterators, locks": functools.partial(apart, "states"),
    "random nested values": functools.partial(apart, "plain values"),
    "captured variables": captured,
    "functions of one name": one_name,
    "instances and classes": methods,
    "values that change": mutable,
    "spellings of a call": spellings,
    "one key in every process, and after use": processes,
    "results as they were returned": results,
    "exceptions as they were raised": exceptions,
    "active language and time zone": variants,
    "saved values in other forms": unsynced(forms),
    "rows that move": unsynced(moves),
    "one row, made in several ways": unsynced(rows),
    "values of a rolled-back transaction": unsynced(rolled_back),
    "values from before a commit": unsynced(uncommitted),
}


def counts_of(peer: Any, name: str) -> tuple[dict[str, int], list[str]]:
    """Return how often each verdict was found, and the inputs that were wrong."""
    counts, wrong = collections.Counter[str](), []
    for label, verdict in KINDS[name](peer):
        counts[verdict] += 1
        if verdict == WRONG:
            wrong.append(str(label)[:200])
    return dict(counts), wrong
