"""The effect of Python code on variables and attributes, as far as its instructions
tell. Pure.

The key of a call must not depend on what its use changes: a list that a nested function
only appends to, the hash that an object keeps. The instructions show such uses, unless
code has another form than usual; in doubt a value is part of the key, or refused.
"""

from __future__ import annotations

import dis
import functools
import re
import types
from itertools import chain

__all__ = ["assigned_by", "is_only_written", "is_returned", "set_by"]

#: Methods that write to their object, called for nothing else if the result is dropped.
#: Not insert(), which a full deque refuses.
_WRITING = frozenset({"add", "append", "appendleft", "extend", "update"})

#: Instructions that may name a variable, but do not use it. (``dis.hasfree`` is empty
#: in Python 3.14; an attribute of the same name counts as a use, which is safe.)
_NO_USES = ("COPY_FREE_VARS", "LOAD_CONST")

_JUMPS = {*dis.hasjrel, *dis.hasjabs}


@functools.lru_cache(1024)
def is_only_written(code: types.CodeType, variable: str) -> bool:
    """Return whether code does nothing with a variable but call methods that write to
    it, and drops their results: so no result depends on it."""
    if any(
        isinstance(c, types.CodeType) and variable in c.co_freevars
        for c in code.co_consts
    ):
        return False
    steps = list(dis.get_instructions(code))
    uses = [
        number
        for number, step in enumerate(steps)
        if variable == step.argval and step.opname not in _NO_USES
    ]
    return bool(uses) and all(_is_writing(steps, number) for number in uses)


def _is_writing(steps: list[dis.Instruction], number: int) -> bool:
    """Return whether the statement that loads a variable here is the call of a writing
    method."""
    method = steps[number + 1]
    if (
        steps[number].opname != "LOAD_DEREF"
        or method.opname not in ("LOAD_ATTR", "LOAD_METHOD")
        or method.argval not in _WRITING
    ):
        return False
    depth, last = 1, number
    while depth > 0:  # until the value, or the result of the call, is off the stack
        last += 1
        step = steps[last]
        # From Python 3.14 on, a return leaves the value on the stack.
        if step.opcode in _JUMPS or step.opname.startswith(("RETURN", "YIELD")):
            return False
        depth += dis.stack_effect(step.opcode, step.arg)
    called = steps[last - 1].opname.startswith("CALL")
    return called and steps[last].opname == "POP_TOP"


#: Names in code that may set an attribute whose name is text.
_SETTERS = frozenset({"__setattr__", "setattr", "__dict__", "vars"})


@functools.lru_cache(2048)
def set_by(code: types.CodeType) -> frozenset[str]:
    """Return the attributes that code sets, also by setattr() and the like; "*" among
    them if it does not name them."""
    steps = _steps_of(code)
    found = set(re.findall(r"\bSTORE_ATTR:(\w+)", steps))
    if not _SETTERS.isdisjoint(code.co_names):
        by_text = re.findall(
            r"(?:\bLOAD:\w+|:setdefault) LOAD_CONST:(\w+)"
            r"|\bLOAD_CONST:(\w+) STORE_SUBSCR",
            steps,
        )
        found |= set(filter(None, chain.from_iterable(by_text))) or {"*"}
    return frozenset(found)


def assigned_by(cls: type, wanted: set[str]) -> set[str]:
    """Return those of the ``wanted`` attributes that a class sets, and perhaps others;
    "*" among them if ``__init__`` does not name what it sets."""
    found: set[str] = set()
    for base in cls.__mro__[:-1]:
        for name, member in vars(base).items():
            code = getattr(getattr(member, "__func__", member), "__code__", None)
            if isinstance(code, types.CodeType) and not (
                # To look at the instructions takes long.
                wanted.isdisjoint(code.co_names) and _SETTERS.isdisjoint(code.co_names)
            ):
                names = set_by(code)
                makes = name in ("__init__", "__new__", "__post_init__")
                found |= names if makes else names - {"*"}
    return found


def is_returned(name: str, code: types.CodeType) -> bool:
    """Return whether code sets an attribute to what it returns."""
    steps = _steps_of(code)
    found = re.findall(
        rf"LOAD:(\w+) LOAD:\w+ STORE_ATTR:{name}\b"
        rf"|COPY: LOAD:\w+ STORE_ATTR:{name} STORE:(\w+)"
        rf"|LOAD_ATTR:{name} STORE:(\w+)|LOAD_CONST:{name} LOAD:(\w+)",
        steps,
    )
    variables = "|".join(filter(None, chain.from_iterable(found))) or "-"
    ends = rf"LOAD_ATTR:{name}|LOAD:(?:{variables})|LOAD_\w+:setdefault .*CALL\w*:"
    return re.search(rf"(?:{ends}) RETURN_VALUE", steps) is not None


def _steps_of(code: types.CodeType) -> str:
    """Return instructions with the names in them as text."""
    return " ".join(map(_step_text, dis.get_instructions(code)))


def _step_text(step: dis.Instruction) -> str:
    if "_FAST" in step.opname:  # one, or two in one
        names = step.argval if isinstance(step.argval, tuple) else (step.argval,)
        kinds = re.findall("(LOAD|STORE)_FAST", step.opname)
        return " ".join(map("{}:{}".format, kinds, names))
    named = str(step.argval)
    return f"{step.opname}:{named if named.isidentifier() else ''}"
